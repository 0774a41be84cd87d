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

from reki_feast import knowledge, schema
from reki_feast.knowledge.prompts.building import profiles_of, redacted
from reki_feast.knowledge.prompts.fingerprints import user_fingerprint
from reki_feast.knowledge.prompts.redaction import Redactor
from reki_feast.project import DeclaredProject, now
from reki_feast.schema import content_hash
from reki_feast.stages.context import PromptStyle, StageContext
from reki_feast.stages.prompt_inputs import SLOT, found_for, made_of, stored_asked
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.parts import newest
from reki_feast.tables.snapshot_times import split

Mask = NDArray[np.bool_]

_IS_USER = (
    (pc.field("kind") == "user") & (pc.field("channel") == "knowledge") & ~pc.field("grouped")
)
_OF_PROMPT = [*SLOT, "prompt_hash"]
_TIMES = ["event_timestamp", "created_timestamp"]
_TEXTS = ["text", "factors"]
#: What the prompt of a row of knowledge was made of.
_MADE_OF = ["asked_factors", "wording", "seen"]
_MANY = np.iinfo(np.int64).max
#: A factor's text in a plan, about 60 tokens, where the model has not written it yet.
_FILLER = "known. " * 34


@dataclass(frozen=True)
class StoredUsers:
    """What is stored of users, and how they are asked.

    Attributes:
        context: the command's.
        style: how prompts are written.
        stored: knowledge of single users, every row; its texts only with ``incremental``.
        planned: prompts of earlier times whose knowledge is not made yet.
        given: the tables of these users.
        redact: strikes out what may not leave.
    """

    context: StageContext
    style: PromptStyle
    stored: pa.Table
    planned: pa.Table
    given: Inputs
    redact: Redactor

    @property
    def incremental(self) -> bool:
        """Whether old knowledge may stand for the history."""
        return self.context.declared.freshness.incremental and self.given.timed

    @property
    def catalogue(self) -> bool:
        """Whether other words of the catalogue make a prompt another one."""
        return self.context.declared.freshness.catalogue

    @property
    def rule(self) -> str:
        """By what a verdict on an item is told."""
        scenario = self.context.declared.scenario
        return scenario.rating or scenario.liked

    @cached_property
    def log(self) -> InteractionsByUser:
        """The interactions, by owner."""
        return InteractionsByUser.of(self.given, self.style["wording"].n)

    def may_update(self, last: pa.Table, time: datetime, min_new: int) -> Mask:
        """bool[U], who has news enough, and none that came late: an update would leave it out."""
        new = self.log.count(self.log.unseen(last, time))
        found: Mask = (new >= min_new) & (new == self.growth(last, time))
        return found

    def growth(self, last: pa.Table, time: datetime) -> NDArray[np.int64]:
        """int64[U], interactions before a time that a user's knowledge does not tell of.

        Those since it was made, and those that came late: more lie before it than lay there then.
        """
        seen = np.append(pc.fill_null(last["seen"], _MANY).to_numpy(), _MANY)
        then = self.log.count(self.log.seen(last))
        late = np.maximum(then - seen[self.log.rows_of(last)], 0)
        growth: NDArray[np.int64] = self.log.count(self.log.unseen(last, time)) + late
        return growth

    def asked(self, prompts: pa.Table, time: datetime, updates: pa.Table) -> pa.Table:
        """What prompts of one time are made of; ``updates`` are those among them that hold news."""
        owners = prompts["owner"].combine_chunks()
        counts = pa.array(np.append(self.log.count(self.log.before(time)), 0))
        at = pc.fill_null(pc.index_in(owners, value_set=self.log.owners), len(counts) - 1)
        words = self._words(owners, update=False)
        if updates.num_rows:
            is_update = _is_in(owners, updates["owner"])
            words = pc.if_else(is_update, self._words(owners, update=True), words)
        return made_of(prompts, words, counts.take(at))

    def as_said(self, rows: pa.Table) -> pa.ChunkedArray:
        """bool, which rows of knowledge answer what the scenario says today, whatever of titles.

        Not those of which it is not known what their prompt was made of.
        """
        if self.catalogue or not rows.num_rows:
            return pa.chunked_array([pa.array(np.zeros(rows.num_rows, bool))])
        owners = rows["owner"].combine_chunks()
        is_said = pc.equal(rows["wording"], self._words(owners, update=False))
        if self.incremental:
            update = pc.equal(rows["wording"], self._words(owners, update=True))
            is_said = pc.or_(is_said, update)
        factors = "\x1f".join(self.style["wording"].factors)
        return pc.fill_null(pc.and_(is_said, pc.equal(rows["asked_factors"], factors)), False)

    def _words(self, owners: pa.Array, *, update: bool) -> pa.Array:
        """What the scenario says of each owner: the frame, and the profile as it is sent."""
        frame = content_hash(user_fingerprint(**self.style, update=update), self.rule)
        profiles = profiles_of(self._users_among(owners), **self.style)
        redact = self.redact
        return pa.array(
            [content_hash(frame, redact(profiles.get(one, ""))) for one in owners.to_pylist()],
            pa.string(),
        )

    def at(self, time: datetime) -> pa.Table:
        """The newest knowledge of each owner made as of this very time."""
        return _newest(self.stored.filter(pc.field("event_timestamp") == _at(time)))

    def earlier(self, time: datetime, owners: pa.Array | None = None) -> pa.Table:
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

    def again(self, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Prompts that today are what these rows, all of one time, are answers to.

        Returns:
            ``schema.PROMPTS``, without owners whose prompt has changed since, and those of them
            that are updates.
        """
        none = schema.PROMPTS.empty_table()
        if not rows.num_rows:
            return none, none
        time = rows["event_timestamp"][0].as_py()
        whole = same(self.whole(rows["owner"], time), rows)
        if not self.incremental:
            return whole, none
        others = without(rows, whole["owner"])["owner"]
        updates = same(self.update(self.earlier(time, others), time), rows)
        return pa.concat_tables([whole, updates]), updates

    def whole(self, owners: pa.Array | pa.ChunkedArray, time: datetime) -> pa.Table:
        """Prompts of profile and whole history."""
        rows = self.log.among(owners)[self.log.codes] & self.log.before(time)
        return self._rendered(knowledge.user_prompts, owners, rows, as_of=time)

    def update(self, last: pa.Table, time: datetime) -> pa.Table:
        """Prompts of profile, old knowledge and what is new; without owners who need the whole."""
        if not (self.incremental and last.num_rows):
            return schema.PROMPTS.empty_table()
        last = last.filter(knowledge.updatable(last, self.style["wording"].factors))
        rows = self.log.unseen(last, time)
        return self._rendered(
            knowledge.user_updates, last["owner"], rows, as_of=time, knowledge=last
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
        interactions = self.given.interactions.filter(pa.array(rows))
        tables = knowledge.PromptTables(self._users_among(owners), self.given.items, interactions)
        return redacted(make(tables, **further, **self.style), self.redact)

    def _users_among(self, owners: pa.Array | pa.ChunkedArray) -> pa.Table | None:
        users, key = self.given.users, self.given.user.name
        return None if users is None else users.filter(_is_in(users[key].cast(pa.string()), owners))


@dataclass(frozen=True)
class InteractionsByUser:
    """Interactions by owner, on whole columns.

    Attributes:
        owners: ids as text of the U users who have any.
        codes: int64[rows], each interaction's place in ``owners``.
        times: int64[rows], microseconds since 1970. Without times: the earliest there is for what
            prompts show, and the latest for the rest.
    """

    owners: pa.Array
    codes: NDArray[np.int64]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, given: Inputs, history: int) -> InteractionsByUser:
        """The log of checked tables; without times, ``history`` bounds what prompts show."""
        users = given.interactions[given.user.name].combine_chunks().dictionary_encode()
        codes = users.indices.to_numpy().astype(np.int64, copy=False)
        if given.timed:
            times = _micros(given.interactions)
        else:
            shown = split(given, now(), history)["prompt"].to_numpy()
            times = np.where(shown, np.iinfo(np.int64).min, np.iinfo(np.int64).max)
        return cls(users.dictionary.cast(pa.string()), codes, times)

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

    def unseen(self, last: pa.Table, time: datetime) -> Mask:
        """bool[rows], what happened before a time and since a user's knowledge, if there is any.

        Knowledge as of a time does not know what happened at it.
        """
        found: Mask = ~self.seen(last) & self.before(time)
        return found & self.among(last["owner"])[self.codes]

    def seen(self, last: pa.Table) -> Mask:
        """bool[rows], what happened before a user's knowledge was made; nothing of the unknown."""
        since = np.append(_micros(last), np.iinfo(np.int64).min)
        found: Mask = self.times < since[self.rows_of(last)][self.codes]
        return found

    def rows_of(self, last: pa.Table) -> NDArray[np.int64]:
        """int64[U], each user's row of knowledge, -1 for none."""
        at = pc.index_in(self.owners, value_set=last["owner"].combine_chunks())
        rows: NDArray[np.int64] = pc.fill_null(at, -1).to_numpy()
        return rows


def stored_knowledge(project: DeclaredProject, time: datetime, *, texts: bool) -> pa.Table:
    """Knowledge of single users up to a time, every row, none of it planned.

    Beside it, ``asked_factors``, ``wording`` and ``seen``: what its prompt was made of.
    """
    context = StageContext.of(project)
    names = [*_OF_PROMPT, *_TIMES, *(_TEXTS if texts else [])]
    bare = pa.schema([schema.KNOWLEDGE.field(name) for name in names])
    rows = context.lake.read("knowledge", bare)
    rows = rows.filter(_IS_USER & (pc.field("event_timestamp") <= _at(time)))
    asked = found_for(rows, stored_asked(context).filter(_IS_USER))
    for name, column in zip(_MADE_OF, asked.columns, strict=True):
        rows = rows.append_column(name, column)
    return rows.append_column("planned", pa.array(np.zeros(rows.num_rows, bool)))


def coming_knowledge(prompts: pa.Table | None, like: pa.Table, made: datetime) -> pa.Table:
    """Prompts as the knowledge that they will become, its texts a filler.

    Args:
        prompts: of users and others; None for none.
        like: the rows to come have its columns.
        made: when they are made: after all that is stored, so of two as of one time they are newer.
    """
    if prompts is None:
        return like.slice(0, 0)
    prompts = prompts.filter(_IS_USER)
    count = prompts.num_rows
    factors = pc.max(pc.list_value_length(prompts["factors"])).as_py() or 0
    filler = pc.binary_join_element_wise(prompts["prompt_hash"], _FILLER * factors, " ")
    columns = {
        **{name: prompts[name] for name in (*_OF_PROMPT, "event_timestamp")},
        "created_timestamp": pa.repeat(_at(made), count),
        "text": filler,
        "factors": pa.nulls(count, schema.KNOWLEDGE.field("factors").type),
        **{name: pa.nulls(count, like.field(name).type) for name in _MADE_OF},
        "planned": pa.array(np.ones(count, bool)),
    }
    return pa.table({name: columns[name] for name in like.column_names}, schema=like.schema)


def of_owners(rows: pa.Table, owners: pa.Array | pa.ChunkedArray | None) -> pa.Table:
    """The rows of these owners; all without any named."""
    return rows if owners is None else rows.filter(_is_in(rows["owner"], owners))


def without(rows: pa.Table, owners: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of all but these owners."""
    return rows.filter(pc.invert(_is_in(rows["owner"], owners)))


def _newest(rows: pa.Table) -> pa.Table:
    """The newest row of each owner; texts are not sorted along."""
    numbers = pa.array(np.arange(rows.num_rows))
    numbered = rows.select(["owner", *_TIMES]).append_column("row", numbers)
    is_newest = np.zeros(rows.num_rows, bool)
    is_newest[newest(numbered, ["owner"])["row"].to_numpy()] = True
    return rows.filter(pa.array(is_newest))


def same(prompts: pa.Table, rows: pa.Table) -> pa.Table:
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
