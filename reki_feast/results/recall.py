"""What `reki recall` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from reki_feast.results.base import Result, TableField, TableRow


@dataclass(frozen=True)
class RecalledItem(TableRow):
    """An item that was recalled.

    Attributes:
        place: 1 for the first.
        item: its id.
        title: its title.
        score: the cosine of its vector and the preference's.
        preference: the preference that found it: a factor, or a channel where there are none.
        because: what is known of the user there.
    """

    heads: ClassVar[Mapping[str, str]] = {"preference": "found by"}

    place: int
    item: str
    title: str
    score: float
    preference: str
    because: str

    def cells(self) -> list[tuple[object, ...]]:
        """The values as they are shown."""
        score = f"{self.score:.3f}"
        return [(self.place, self.item, self.title, score, self.preference, self.because)]


@dataclass(frozen=True)
class SearchedPreference(TableRow):
    """One of a user's vectors, and what the search by it alone found.

    Attributes:
        preference: a factor, or a channel where there are none.
        because: what is known of the user there.
        first: title of the nearest item that the user has not met.
        score: the cosine of its vector and the preference's.
        found: how many of the recalled items this preference found.
    """

    heads: ClassVar[Mapping[str, str]] = {"because": "what is known", "first": "nearest item"}

    preference: str
    because: str
    first: str
    score: float
    found: int

    def cells(self) -> list[tuple[object, ...]]:
        """The values as they are shown."""
        return [(self.preference, self.because, self.first, f"{self.score:.3f}", self.found)]


@dataclass(frozen=True, kw_only=True)
class RecallResult(Result):
    """The items nearest to what a user prefers.

    Attributes:
        user: the user's id.
        preferences: the vectors that were searched by.
        items: what was found, merged, the best first; items that the user met are left out.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("preferences", "preferences", SearchedPreference),
        TableField("items", "items", RecalledItem),
    )

    user: str
    preferences: list[SearchedPreference]
    items: list[RecalledItem]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        count, vectors = len(self.items), len(self.preferences)
        return f"{self.project}: {count} items for {self.user} by {vectors} vectors"
