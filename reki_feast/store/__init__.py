"""The Feast side: view factories, stores that know the default vector, the embedded Redis.

Names are fetched on first use, so that ``reki_feast.store.embedded`` can be used without Feast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .match import MatchViews, reki_match
    from .materialize import (
        Count,
        apply_and_materialize,
        count_online,
        materialize_views,
        verify_materialized,
    )
    from .views import RekiViews, reki_views

__all__ = [
    "Count",
    "MatchViews",
    "RekiViews",
    "apply_and_materialize",
    "count_online",
    "materialize_views",
    "reki_match",
    "reki_views",
    "verify_materialized",
]

_HOMES = {
    "MatchViews": "match",
    "RekiViews": "views",
    "reki_match": "match",
    "reki_views": "views",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "materialize")
    return getattr(import_module(f"{__name__}.{home}"), name)
