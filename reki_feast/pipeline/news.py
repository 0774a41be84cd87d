"""What is known of each user, what has happened since, and the prompts that either makes.

Everything is done on whole columns; only the prompts themselves are written one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reki_feast import extract, lake, schema
from reki_feast.extract.prompts import redacted
from reki_feast.extract.redact import Redact
from reki_feast.inputs import Inputs
from reki_feast.project import Project, now

Mask = NDArray[np.bool_]

_IS_USER = (
    (pc.field("kind") == "user") & (pc.field("channel") == "knowledge") & ~pc.field("grouped")
)
_SLOT = ["kind", "channel", "owner", "grouped", "prompt_hash"]
_TIMES = ["event_timestamp", "created_timestamp"]
_TEXTS = ["text", "factors"]
#: A factor's text in a plan, about 60 tokens, where the model has not written it yet.
_FILLER = "known. " * 34


@dataclass(frozen=True)
class Users:
    """What is stored of users, and how they are asked.

    Attributes:
        given: the project's tables.
        how: ``wording`` and ``templates``.
        stored: knowledge of single users, every row; its texts only with ``incremental``.
        planned: prompts of earlier times whose knowledge is not made yet.
        redact: strikes out what may not leave.
        incremental: whether old knowledge may stand for the history.
    """

    given: Inputs
    how: dict[str, Any]
    stored: pa.Table
    planned: pa.Table
    redact: Redact
    incremental: bool

    @cached_property
    def log(self) -> Log:
        """The interactions, by owner."""
        return Log.of(self.given)

    def at(self, time: datetime) -> pa.Table:
        """The newest knowledge of each owner made as of this very time."""
        return _newest(self.stored.filter(pc.field("event_timestamp") == _at(time)))

    def known(self, time: datetime, owners: pa.Array | None = None) -> pa.Table:
        """The newest knowledge of each owner made as of an earlier time, stored or planned.

        Returns:
            Columns as ``stored``; ``planned``: its prompt is, or will be, asked as it is today.
        """
        stored, planned = (of_owners(table, owners) for table in (self.stored, self.planned))
        is_before = pc.field("event_timestamp") < _at(time)
        found, coming = _newest(stored.filter(is_before)), planned.filter(is_before)
        if not coming.num_rows:
            return found
        # an answer that is stored already does not come anew
        is_stored = pc.is_in(_asked(coming), value_set=_asked(found))
        will_hold = pc.is_in(_asked(found), value_set=_asked(coming))
        at = found.schema.get_field_index("planned")
        found = found.set_column(at, "planned", will_hold)
        return _newest(pa.concat_tables([found, coming.filter(pc.invert(is_stored))]))

    def again(self, rows: pa.Table) -> tuple[pa.Table, int]:
        """Prompts that today are what these rows, all of one time, are answers to.

        Returns:
            ``schema.PROMPTS``, without owners whose prompt has changed since, and how many of
            them are updates.
        """
        if not rows.num_rows:
            return schema.PROMPTS.empty_table(), 0
        time = rows["event_timestamp"][0].as_py()
        whole = _same(self.whole(rows["owner"], time), rows)
        if not self.incremental:
            return whole, 0
        others = rows.filter(pc.invert(_is_in(rows["owner"], whole["owner"])))["owner"]
        updates = _same(self.update(self.known(time, others), time), rows)
        return pa.concat_tables([whole, updates]), updates.num_rows

    def whole(self, owners: pa.Array | pa.ChunkedArray, time: datetime) -> pa.Table:
        """Prompts of profile and whole history."""
        rows = self.log.among(owners)[self.log.codes] & self.log.before(time)
        return self._rendered(extract.user_prompts, owners, rows, as_of=time)

    def update(self, known: pa.Table, time: datetime) -> pa.Table:
        """Prompts of profile, old knowledge and what is new; without owners who need the whole."""
        if not (self.incremental and known.num_rows):
            return schema.PROMPTS.empty_table()
        known = known.filter(extract.updatable(known, self.how["wording"].factors))
        rows = self.log.news(known, time)
        return self._rendered(
            extract.user_updates, known["owner"], rows, as_of=time, knowledge=known
        )

    def _rendered(
        self,
        make: Callable[..., pa.Table],
        owners: pa.Array | pa.ChunkedArray,
        rows: Mask,
        **further: Any,
    ) -> pa.Table:
        if not rows.any():
            return schema.PROMPTS.empty_table()
        users, given = self.given.users, self.given
        if users is not None:
            users = users.filter(_is_in(users[given.user.name].cast(pa.string()), owners))
        seen = given.interactions.filter(pa.array(rows))
        return redacted(make(users, given.items, seen, **further, **self.how), self.redact)


@dataclass(frozen=True)
class Log:
    """Interactions by owner, on whole columns.

    Attributes:
        owners: ids as text of the U users who have any.
        codes: int64[rows], each interaction's place in ``owners``.
        times: int64[rows], microseconds since 1970.
    """

    owners: pa.Array
    codes: NDArray[np.int64]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, given: Inputs) -> Log:
        """The log of checked tables whose interactions carry times."""
        users = given.interactions[given.user.name].combine_chunks().dictionary_encode()
        codes = users.indices.to_numpy().astype(np.int64, copy=False)
        return cls(users.dictionary.cast(pa.string()), codes, _micros(given.interactions))

    def among(self, owners: pa.Array | pa.ChunkedArray) -> Mask:
        """bool[U], which users are among these."""
        found: Mask = _is_in(self.owners, owners).to_numpy(zero_copy_only=False)
        return found

    def choose(self, chosen: Mask) -> pa.Array:
        """The owners that a mask of users holds."""
        return self.owners.filter(pa.array(chosen))

    def count(self, rows: Mask) -> NDArray[np.int64]:
        """int64[U], how many of these rows each user has."""
        return np.bincount(self.codes[rows], minlength=len(self.owners))

    def before(self, time: datetime) -> Mask:
        """bool[rows], what happened before a time, not at it."""
        found: Mask = self.times < _at(time).value
        return found

    def news(self, known: pa.Table, time: datetime) -> Mask:
        """bool[rows], what happened before a time and since a user's knowledge, if there is any.

        Knowledge as of a time does not know what happened at it.
        """
        since = np.append(_micros(known), np.iinfo(np.int64).max)  # the last is for the unknown
        at = pc.index_in(self.owners, value_set=known["owner"].combine_chunks())
        since = since[pc.fill_null(at, -1).to_numpy()]
        found: Mask = (self.times >= since[self.codes]) & self.before(time)
        return found


def stored_knowledge(project: Project, time: datetime, *, texts: bool) -> pa.Table:
    """Knowledge of single users up to a time, every row, none of it planned."""
    names = [*_SLOT, *_TIMES, *(_TEXTS if texts else [])]
    bare = pa.schema([schema.KNOWLEDGE.field(name) for name in names])
    rows = project.lake.read("knowledge", bare)
    rows = rows.filter(_IS_USER & (pc.field("event_timestamp") <= _at(time)))
    return rows.append_column("planned", pa.array(np.zeros(rows.num_rows, bool)))


def coming_knowledge(prompts: pa.Table | None, like: pa.Table) -> pa.Table:
    """Prompts as the knowledge that they will become, its texts a filler."""
    if prompts is None:
        return like.slice(0, 0)
    prompts = prompts.filter(_IS_USER)
    count = prompts.num_rows
    factors = pc.max(pc.list_value_length(prompts["factors"])).as_py() or 0
    filler = pc.binary_join_element_wise(prompts["prompt_hash"], _FILLER * factors, " ")
    columns = {
        **{name: prompts[name] for name in (*_SLOT, "event_timestamp")},
        # made after all that is stored: of two as of one time it is the newer
        "created_timestamp": pa.repeat(_at(now()), count),
        "text": filler,
        "factors": pa.nulls(count, schema.KNOWLEDGE.field("factors").type),
        "planned": pa.array(np.ones(count, bool)),
    }
    return pa.table({name: columns[name] for name in like.column_names}, schema=like.schema)


def of_owners(rows: pa.Table, owners: pa.Array | pa.ChunkedArray | None) -> pa.Table:
    """The rows of these owners; all without any named."""
    return rows if owners is None else rows.filter(_is_in(rows["owner"], owners))


def _newest(rows: pa.Table) -> pa.Table:
    """The newest row of each owner; texts are not sorted along."""
    numbers = pa.array(np.arange(rows.num_rows))
    numbered = rows.select(["owner", *_TIMES]).append_column("row", numbers)
    is_newest = np.zeros(rows.num_rows, bool)
    is_newest[lake.newest(numbered, ["owner"])["row"].to_numpy()] = True
    return rows.filter(pa.array(is_newest))


def _same(prompts: pa.Table, rows: pa.Table) -> pa.Table:
    """The prompts that rows of knowledge are answers to."""
    return prompts.filter(pc.is_in(_asked(prompts), value_set=_asked(rows)))


def _asked(rows: pa.Table) -> pa.Array:
    """Owner and prompt as one text; null without a prompt, as in imported knowledge."""
    joined = pc.binary_join_element_wise(rows["owner"], rows["prompt_hash"], "\x1f")
    return joined.combine_chunks()


def _is_in(
    values: pa.Array | pa.ChunkedArray, some: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    flat = some.combine_chunks() if isinstance(some, pa.ChunkedArray) else some
    return pc.is_in(values, value_set=flat)


def _micros(rows: pa.Table) -> NDArray[np.int64]:
    times: NDArray[np.int64] = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    return times


def _at(time: datetime) -> pa.Scalar:
    return pa.scalar(time, schema.TIMESTAMP)
