"""Open-world knowledge of large language models as ordinary Feast features.

The names here are what a ``generators/*.py`` file declares, and :func:`push`, by which a service
brings users' match states up to date at the moment of a click. The Feast side is
``from reki_feast.store import reki_views``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reki_feast.pipeline import Pusher, push
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
    "Pusher",
    "Scenario",
    "Sources",
    "Training",
    "push",
]


def __getattr__(name: str) -> Any:
    """Import the names on first use: `reki --help` does not wait for them."""
    if name in ("Pusher", "push"):
        from reki_feast import pipeline

        return getattr(pipeline, name)
    if name in __all__:
        from reki_feast import scenario

        return getattr(scenario, name)
    raise AttributeError(f"module 'reki_feast' has no attribute {name!r}")
