"""Items for a user: those nearest to each of the user's preferences, merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import DeclarationError
from reki_feast.knowledge.text import clean
from reki_feast.project import DeclaredProject
from reki_feast.results import RecalledItem, RecallResult, SearchedPreference
from reki_feast.schema import Key, factor_column, preference_column
from reki_feast.stages.context import StageContext

if TYPE_CHECKING:
    from reki_feast.views.recall import RecallViews, UserRow

#: What stands for a user without preferences, the first that there is.
_CHANNELS = ("knowledge", "liked", "taste", "history")
#: Characters of what is known that are shown.
_SHOWN = 100


@dataclass(frozen=True)
class _Searched:
    """A vector of the user, and what was found by it.

    Attributes:
        preference: a factor, or a channel.
        because: what is known of the user there.
        items: id and score, the best first.
    """

    preference: str
    because: str
    items: list[tuple[Any, float]]


def recall(project: DeclaredProject, user: str, *, k: int = 50) -> RecallResult:
    """The items nearest to a user's preferences, out of the online store of the project's repo.

    Each preference (``Encoder(preferences=True)``) is searched by alone; an item has the score of
    the one that it is nearest to. A user without any is searched for by the vector of the first
    channel that there is, of knowledge, liked, taste and history. Items that the user met are
    left out.

    Args:
        project: the project; its rows are online.
        user: id of the user, as text.
        k: how many items.

    Raises:
        DeclarationError: the id is no whole number, where ids are.
        StoreError: there is no Feast repo, or the online store lacks the user or the items.
    """
    from reki_feast.views.recall import RecallViews

    context = StageContext.of(project)
    one = _id(context.tables.user, user)
    views = RecallViews(context.feature_repo, context.name)
    searched = list(_searched(context, views, views.user(one), _met(context, one), k))
    best: dict[Any, tuple[float, _Searched]] = {}
    for by in searched:
        for item, score in by.items:
            if item not in best or score > best[item][0]:
                best[item] = score, by
    titles = _titles(context)
    items = [
        RecalledItem(place, str(item), titles.get(item, ""), score, by.preference, by.because)
        for place, (item, (score, by)) in enumerate(
            sorted(best.items(), key=lambda pair: -pair[1][0])[:k], start=1
        )
    ]
    return RecallResult(
        project=context.name,
        user=user,
        preferences=[_summary(by, titles, items) for by in searched],
        items=items,
        notes=_notes(context, searched),
    )


def _summary(
    by: _Searched, titles: Mapping[Any, str], items: list[RecalledItem]
) -> SearchedPreference:
    [(first, score)] = by.items[:1] or [(None, 0.0)]
    found = sum(one.preference == by.preference for one in items)
    return SearchedPreference(by.preference, by.because, titles.get(first, ""), score, found)


def _id(key: Key, user: str) -> Any:
    if key.type != pa.int64():
        return user
    try:
        return int(user)
    except ValueError:
        rule, hint = f"{key.name} is a whole number, as in the interactions", "name such an id"
        raise DeclarationError(rule, detail=repr(user), hint=hint) from None


def _met(context: StageContext, user: Any) -> set[Any]:
    tables = context.tables
    rows = tables.interactions.filter(pc.field(tables.user.name) == user)
    return set(rows[tables.item.name].to_pylist())


def _titles(context: StageContext) -> Mapping[Any, str]:
    tables = context.tables
    names = tables.items[context.declared.scenario.title].to_pylist()
    ids = tables.items[tables.item.name].to_pylist()
    return {one: clean(str(name), _SHOWN) for one, name in zip(ids, names, strict=True)}


def _searched(
    context: StageContext, views: RecallViews, row: UserRow, met: set[Any], k: int
) -> Iterator[_Searched]:
    """What is found by each of the user's vectors."""
    for name, column, text in _vectors(context, row):
        found = views.nearest(row.vectors[column], k + len(met))
        new = [(item, score) for item, score in found if item not in met]
        yield _Searched(name, clean(row.texts.get(text, ""), _SHOWN), new[:k])


def _vectors(context: StageContext, row: UserRow) -> list[tuple[str, str, str]]:
    """Of each vector to search by: its name, its column, and the column of its text."""
    columns = {name: preference_column(name) for name in context.known_factors()}
    found = [
        (name, column, factor_column(name))
        for name, column in columns.items()
        if column in row.vectors
    ]
    if found:
        return found
    channel = next((name for name in _CHANNELS if name in row.vectors), None)
    return [] if channel is None else [(channel, channel, "text")]


def _notes(context: StageContext, searched: list[_Searched]) -> list[str]:
    if context.declared.encoder.preferences:
        alone = [by.preference for by in searched if by.preference in _CHANNELS]
        return [f"no preferences are known: searched by the channel {one}" for one in alone]
    return ["one vector a user: Encoder(preferences=True) has one for each factor of knowledge"]
