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
from reki_feast.schema import content_hash
from reki_feast.stages.context import PromptStyle, StageContext
from reki_feast.stages.interactions_by_user import InteractionsByUser, Mask
from reki_feast.stages.prompt_inputs import made_of
from reki_feast.stages.user_knowledge import (
    is_among,
    newest_of_owners,
    of_owners,
    owner_and_prompt,
    same,
    timestamp,
    without,
)
from reki_feast.tables.inputs import Inputs

_MANY = np.iinfo(np.int64).max


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
            is_update = is_among(owners, updates["owner"])
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
        return newest_of_owners(self.stored.filter(pc.field("event_timestamp") == timestamp(time)))

    def earlier(self, time: datetime, owners: pa.Array | None = None) -> pa.Table:
        """The newest knowledge of each owner made as of an earlier time, stored or planned.

        Returns:
            Columns as ``stored``; ``planned``: its prompt is, or will be, asked as it is today.
        """
        stored, planned = (of_owners(table, owners) for table in (self.stored, self.planned))
        is_before = pc.field("event_timestamp") < timestamp(time)
        found, coming = newest_of_owners(stored.filter(is_before)), planned.filter(is_before)
        if not coming.num_rows:
            return found
        # an answer that is stored already does not come anew
        is_stored = pc.is_in(owner_and_prompt(coming), value_set=owner_and_prompt(found))
        will_hold = pc.is_in(owner_and_prompt(found), value_set=owner_and_prompt(coming))
        at = found.schema.get_field_index("planned")
        found = found.set_column(at, "planned", will_hold)
        return newest_of_owners(pa.concat_tables([found, coming.filter(pc.invert(is_stored))]))

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
        return (
            None if users is None else users.filter(is_among(users[key].cast(pa.string()), owners))
        )
