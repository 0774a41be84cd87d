"""Open-world knowledge of large language models as ordinary Feast features.

The names here are what a ``generators/*.py`` file declares. The Feast side is
``from reki_feast.store import reki_views``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reki_feast.scenario import (
        LLM,
        Budget,
        Collective,
        Encoder,
        Freshness,
        Gates,
        Individual,
        Privacy,
        Scenario,
        Sources,
        Training,
    )

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "Budget",
    "Collective",
    "Encoder",
    "Freshness",
    "Gates",
    "Individual",
    "Privacy",
    "Scenario",
    "Sources",
    "Training",
]


def __getattr__(name: str) -> Any:
    """Import the declarations on first use: `reki --help` does not wait for them."""
    if name in __all__:
        from reki_feast import scenario

        return getattr(scenario, name)
    raise AttributeError(f"module 'reki_feast' has no attribute {name!r}")
