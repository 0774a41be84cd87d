"""What recall is tested on: a project's representations as of a snapshot, and what came later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.encoding import vector_matrix
from reki_feast.evaluation.recall import Floats, Indices, Pairs, RecallData
from reki_feast.project import DeclaredProject
from reki_feast.schema import TIMESTAMP, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import between_times, preference_columns, times, up_to
from reki_feast.tables.parts import newest

#: Share of the interactions that come after the snapshot that is tested, at least.
LATER = 0.1
#: Channels of a user's knowledge, the first that there is; and those of an item.
_KNOWLEDGE, _TEXTS = ("knowledge", "liked"), ("description", "knowledge")


def recall_data(project: DeclaredProject) -> list[RecallData]:
    """The project's data as of the latest snapshot that a tenth of the interactions came after.

    Where the scenario holds interactions out, these came later, and the snapshot is the last. The
    representations are those that `reki publish` gives to Feast.

    Args:
        project: has representations.

    Returns:
        The data of all users, and of those with knowledge where these are some; nothing where no
        snapshot has interactions before and after it.
    """
    context = StageContext.of(project)
    split = _split(context)
    if split is None:
        return []
    time, *logs = split
    user, item = context.tables.user, context.tables.item
    before, after = (_Log(rows, user.name, item.name) for rows in logs)
    columns = [*_KNOWLEDGE, *preference_columns(context, "user")]
    rows = _rows(context, "user", time, columns)
    has_knowledge = pc.or_(*(rows[name].is_valid() for name in _KNOWLEDGE))
    known = rows[user.name].filter(has_knowledge)
    items = context.tables.items[item.name].combine_chunks()
    vectors = _matrices(_taken(_rows(context, "item", time, _TEXTS), items), _TEXTS)
    shared = _Shared(before, after, items, vectors)
    people = shared.tested()
    informed = people.filter(pc.is_in(people, value_set=known.combine_chunks()))
    found = []
    if len(informed) < len(people):
        found.append(shared.data("all users", people))
    if len(informed):
        name = "users with knowledge" if found else "all users"
        made = _taken(rows, informed)
        knowledge, *others = _matrices(made, _KNOWLEDGE).values()
        for other in others:
            knowledge = np.where(np.isnan(knowledge), other, knowledge)
        preferences = _matrices(made, preference_columns(context, "user"))
        data = shared.data(name, informed)
        found.append(replace(data, knowledge=knowledge, preferences=preferences))
    return found


def _split(context: StageContext) -> tuple[datetime, pa.Table, pa.Table] | None:
    """A snapshot, and the interactions before and after it."""
    rows, tested = context.tables.interactions, context.tables.held_out
    made = sorted({*times(context, "user_representation")} - {*between_times(context)})
    if tested is not None:
        return (made[-1], rows, tested) if made else None
    if not context.tables.timed:
        return None
    for time in reversed(made):
        early = pc.less(rows["event_timestamp"], pa.scalar(time, TIMESTAMP))
        before, after = rows.filter(early), rows.filter(pc.invert(early))
        if before.num_rows and after.num_rows >= LATER * rows.num_rows:
            return time, before, after
    return None


@dataclass(frozen=True)
class _Log:
    """Interactions, and the columns of their users and items."""

    rows: pa.Table
    user: str
    item: str

    def liked(self) -> _Log:
        """Those that were liked."""
        return _Log(self.rows.filter(self.rows["liked"]), self.user, self.item)

    def pairs(self, users: pa.Array, items: pa.Array) -> Pairs:
        """Those of some users and items, as their numbers."""
        owner = pc.index_in(self.rows[self.user], value_set=users)
        what = pc.index_in(self.rows[self.item], value_set=items)
        kept = pc.and_(owner.is_valid(), what.is_valid())
        return Pairs.of(_numbers(owner.filter(kept)), _numbers(what.filter(kept)))


@dataclass(frozen=True)
class _Shared:
    """What the data of all users and of some have in common."""

    before: _Log
    after: _Log
    items: pa.Array
    vectors: Mapping[str, Floats]

    def tested(self) -> pa.Array:
        """Ids of users who liked something before and after, in order."""
        first, later = (log.liked().rows[log.user].unique() for log in (self.before, self.after))
        both = first.filter(pc.is_in(first, value_set=later))
        return both.take(pc.sort_indices(both))

    def data(self, name: str, users: pa.Array) -> RecallData:
        """The data of some users, without knowledge."""
        every = self.before.rows[self.before.user].unique()
        seen = np.isin(np.arange(len(self.items)), self.before.pairs(every, self.items).items)
        met = self.before.pairs(users, self.items)
        later = self.after.liked().pairs(users, self.items)
        known = self.vectors.get(_TEXTS[1])
        return RecallData(
            users=name,
            count=len(users),
            items=np.nan_to_num(self.vectors[_TEXTS[0]]),
            log=self.before.liked().pairs(every, self.items),
            cold=~seen,
            liked=self.before.liked().pairs(users, self.items),
            met=met,
            later=_without(later, met, len(self.items)),
            items_known=np.nan_to_num(known) if known is not None else None,
        )


def _numbers(column: pa.ChunkedArray) -> Indices:
    return np.asarray(column.to_numpy(), np.int64)


def _without(pairs: Pairs, others: Pairs, width: int) -> Pairs:
    """The pairs that are not among others."""
    keys, gone = (one.users * width + one.items for one in (pairs, others))
    kept = ~np.isin(keys, gone)
    return Pairs(pairs.users[kept], pairs.items[kept])


def _rows(context: StageContext, kind: Kind, time: datetime, columns: Sequence[str]) -> pa.Table:
    """Key and some vectors of entities as of a time."""
    key = context.key(kind)
    table = context.lake.read(f"{kind}_representation", schema.representation(key, columns))
    return newest(up_to(table, time), [key.name]).select([key.name, *columns]).combine_chunks()


def _taken(rows: pa.Table, ids: pa.Array) -> pa.Table:
    """The rows of some ids; nulls where there is none."""
    return rows.take(pc.index_in(ids, value_set=rows.column(0).combine_chunks()))


def _matrices(rows: pa.Table, names: Iterable[str]) -> dict[str, Floats]:
    """The columns that hold anything."""
    return {name: _matrix(rows[name]) for name in names if rows[name].null_count < rows.num_rows}


def _matrix(column: pa.ChunkedArray) -> Floats:
    """Vectors as a matrix, NaN where there is none."""
    matrix, valid = vector_matrix(column)
    whole = np.full((len(valid), matrix.shape[1]), np.nan, np.float32)
    whole[valid] = matrix
    return whole
