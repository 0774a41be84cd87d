"""Feature views of a published scenario: augmented vectors, match scores, and their manifest.

Names are fetched on first use: importing this package does not import Feast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from reki_feast.views.augmented import RekiViews, reki_views
    from reki_feast.views.match import MatchViews, reki_match

__all__ = ["MatchViews", "RekiViews", "reki_match", "reki_views"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "augmented": ["RekiViews", "reki_views"],
        "match": ["MatchViews", "reki_match"],
    },
)
