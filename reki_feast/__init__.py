"""Open-world knowledge of large language models as ordinary Feast features.

The names here are what a ``generators/*.py`` file declares. The Feast side is
``from reki_feast.store import reki_views``.
"""

from reki_feast.scenario import LLM, Encoder, Individual, Scenario, Sources, Training

__version__ = "0.1.0"
__all__ = ["LLM", "Encoder", "Individual", "Scenario", "Sources", "Training"]
