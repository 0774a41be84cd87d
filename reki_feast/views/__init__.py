"""Feature views of a published scenario: augmented vectors, match scores, and their manifest.

Names are fetched on first use: importing this package does not import Feast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reki_feast.views.augmented import RekiViews, reki_views
    from reki_feast.views.match import MatchViews, reki_match

__all__ = ["MatchViews", "RekiViews", "reki_match", "reki_views"]

_MODULES = {
    "MatchViews": "match",
    "RekiViews": "augmented",
    "reki_match": "match",
    "reki_views": "augmented",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
