"""Which prompts a snapshot takes: of everybody about whom there is news, and of what is new.

A user is left alone with fewer than ``min_new`` interactions that the last knowledge does not tell
of, as long as that knowledge answers what the scenario says today: its factors, templates, words
and the user's profile. Other titles, or items that the catalogue has no more, are no news, unless
``Freshness(catalogue=True)`` says so. A prompt without news finds its answer in the ledger. With
``incremental`` users with news are asked with their last knowledge and what is new. An item, or a
group of items, is asked about again when its own text changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge, schema
from reki_feast.knowledge.prompts.building import redacted
from reki_feast.knowledge.prompts.redaction import Redactor
from reki_feast.project import now
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import PromptStyle, StageContext
from reki_feast.stages.prompt_inputs import (
    NEW,
    Unanswered,
    asked_groups,
    made_of,
    stored_asked,
    with_new_words,
)
from reki_feast.stages.refresh import StoredUsers
from reki_feast.stages.snapshots import groups_of, state, up_to
from reki_feast.stages.user_knowledge import (
    coming_knowledge,
    of_owners,
    same,
    stored_knowledge,
    without,
)
from reki_feast.tables.inputs import Inputs, of_users, without_ids, without_users

#: Users whose prompts are in memory at a time.
PART = 1 << 16
_ASKING = ["owner", "kind", "prompt_hash", "event_timestamp"]
_NONE = pa.array([], pa.string())
_POSITIONS = (
    "interactions carry no event_timestamp: what is new since a user was asked is unknown, "
    "so Freshness(min_new, incremental) does nothing"
)


@dataclass(frozen=True)
class Prompted:
    """The prompts of one snapshot.

    Attributes:
        prompts: ``schema.PROMPTS``.
        left_alone: users with news, but too little of it; their knowledge stands.
        updated: users whose prompt is their last knowledge and what is new.
        unchanged: users and items whose prompt, and its answer, are known to be as they were.
        reworded: users and groups whose prompt would be another only by the catalogue's words.
        notes: what could not be done, as sentences.
        asked: :data:`reki_feast.stages.prompt_inputs.NEW`, what the prompts are made of, and those
            whose answers stand and of which that was not known.
    """

    prompts: pa.Table
    left_alone: int = 0
    updated: int = 0
    unchanged: int = 0
    reworded: int = 0
    notes: tuple[str, ...] = ()
    asked: pa.Table = field(default_factory=NEW.empty_table, compare=False)


@dataclass(frozen=True)
class Prompting:
    """How a command writes prompts, and which of them it need not ask.

    Attributes:
        context: whose generators, tables and knowledge so far.
        style: how prompts are written.
        unanswered: of a table of prompts, those that have no answer that is valid today.
        redact: strikes out what may not leave. Hashes are of what is left, so no prompt is
            compared before.
        unchanged: ids, as text, of those of a kind whose prompt as of a time need not be written.
    """

    context: StageContext
    style: PromptStyle
    unanswered: Unanswered
    redact: Redactor
    unchanged: Callable[[Kind, datetime], pa.Array] = lambda kind, time: _NONE


@dataclass(frozen=True)
class UserPart:
    """Some of the users, where all of their prompts may not fit into memory.

    Attributes:
        ids: in the key's type; of the first part, the users of all others.
        is_first: it has all that is not in others, items and groups too.
        later: how many users are in the parts after it.
    """

    ids: pa.Array
    is_first: bool
    later: int

    def given(self, tables: Inputs) -> Inputs:
        """The tables of these users."""
        return of_users(tables, self.ids, invert=self.is_first)

    def stored(self, rows: pa.Table) -> pa.Table:
        """The knowledge of these users."""
        owners = self.ids.cast(pa.string())
        return without(rows, owners) if self.is_first else of_owners(rows, owners)


def user_parts(context: StageContext) -> list[UserPart | None]:
    """The users whose prompts are written together; None: all."""
    key = context.tables.user.name
    ids = pc.unique(context.tables.interactions[key])
    if not context.declared.individual("user") or len(ids) <= PART:
        return [None]
    ids = ids.take(pc.array_sort_indices(ids))
    starts = range(PART, len(ids), PART)
    later = [UserPart(ids.slice(at, PART), False, max(len(ids) - at - PART, 0)) for at in starts]
    return [UserPart(ids.slice(PART), True, len(ids) - PART), *later]


def counted(found: Sequence[Prompted]) -> Prompted:
    """The counts and notes of several together, without prompts."""
    return Prompted(
        schema.PROMPTS.empty_table(),
        left_alone=sum(one.left_alone for one in found),
        updated=sum(one.updated for one in found),
        unchanged=sum(one.unchanged for one in found),
        reworded=sum(one.reworded for one in found),
        notes=tuple(dict.fromkeys(note for one in found for note in one.notes)),
    )


def prompts_at(
    prompting: Prompting,
    time: datetime,
    *,
    first: bool,
    planned: pa.Table | None = None,
    part: UserPart | None = None,
) -> Prompted:
    """The prompts of every generator at one time.

    Args:
        prompting: how they are written.
        time: what happened then or later is not seen.
        first: whether it is the first time of a run. An item's prompt tells no time, so it is
            only written then: its answer serves every later snapshot.
        planned: prompts of earlier times whose knowledge is not made yet. Their users count as
            known from then on; a filler stands for the text.
        part: of some users alone; None: all.

    Raises:
        FactorsError, SourceError, DeclarationError: as ``knowledge.user_prompts``.
        LakeError: stored knowledge cannot be read.
    """
    context, style = prompting.context, prompting.style
    declared = context.declared
    found = [Prompted(schema.PROMPTS.empty_table())]
    if declared.individual("user"):
        found.append(_of_users(prompting, time, planned, part))
    is_whole = part is None or part.is_first
    if declared.individual("item") and first and is_whole:
        unchanged = prompting.unchanged("item", time)
        items = without_ids(context.tables.items, context.tables.item.name, unchanged)
        asked = knowledge.item_prompts(items, as_of=time, **style)
        prompts = redacted(asked, prompting.redact)
        found.append(Prompted(prompts, unchanged=len(unchanged), asked=made_of(prompts)))
    if is_whole and any(declared.collective(kind) for kind in KINDS):
        found.append(_of_groups(prompting, time))
    return replace(
        counted(found),
        prompts=pa.concat_tables([one.prompts for one in found]),
        asked=pa.concat_tables([one.asked for one in found]),
    )


def _of_groups(prompting: Prompting, time: datetime) -> Prompted:
    """Groups of items are shown by their texts, groups of users by the items they met most."""
    context, style = prompting.context, prompting.style
    declared = context.declared
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    shown = groups_of(context, time).filter(pc.field("kind").isin(kinds))
    peopled = state(context, time).members["group"].unique()
    shown = shown.filter(pc.is_in(shown["group"], value_set=peopled))
    found = knowledge.group_prompts(shown, context.tables.items, as_of=time, **style)
    prompts = redacted(found, prompting.redact)
    is_user = pc.equal(prompts["kind"], "user")
    users, items = prompts.filter(is_user), prompts.filter(pc.invert(is_user))
    asked = asked_groups(shown.filter(pc.field("kind") == "user"), users, style)
    if not declared.freshness.catalogue:
        before = up_to(stored_asked(context), time)
        is_open = pc.invert(with_new_words(asked, before, prompting.unanswered))
        users, asked = users.filter(is_open), asked.filter(is_open)
    return Prompted(
        pa.concat_tables([users, items]),
        reworded=prompts.num_rows - users.num_rows - items.num_rows,
        asked=pa.concat_tables([asked, made_of(items)]),
    )


def _of_users(
    prompting: Prompting, time: datetime, planned: pa.Table | None, part: UserPart | None
) -> Prompted:
    context = prompting.context
    freshness, is_timed = context.declared.freshness, context.tables.timed
    stored = stored_knowledge(context, time, texts=freshness.incremental and is_timed)
    unchanged = prompting.unchanged("user", time)
    stored = without(stored, unchanged)
    given = without_users(context.tables, unchanged)
    if part is not None:
        stored, given = part.stored(stored), part.given(given)
    created = max(now(), context.lake.next_made())
    users = StoredUsers(
        context,
        prompting.style,
        stored,
        coming_knowledge(planned, stored, created),
        given,
        prompting.redact,
    )
    found = _fresh(users, time, freshness.min_new if is_timed else 1, prompting.unanswered)
    does_nothing = not is_timed and (freshness.min_new > 1 or freshness.incremental)
    left_out = len(unchanged) if part is None or part.is_first else 0
    return replace(found, unchanged=left_out, notes=(_POSITIONS,) if does_nothing else ())


def _fresh(users: StoredUsers, time: datetime, min_new: int, unanswered: Unanswered) -> Prompted:
    """What was asked at this very time is asked again; else it is what is new that decides.

    Knowledge made at ``time`` is not old: with it, a re-run would see no news and ask otherwise.
    """
    log, old, now = users.log, users.earlier(time), users.at(time)
    again, updated_again = users.again(now)
    last = pa.concat_tables([now, without(old, now["owner"])])
    growth = users.growth(last, time)
    little = log.among(last["owner"]) & (growth < min_new) & ~log.among(again["owner"])
    quiet = schema.PROMPTS.empty_table()
    if not users.incremental:
        # without news the whole history still makes the prompt that was answered
        quiet = users.whole(log.choose(little & (growth == 0)), time)
    kept = same(quiet, last)
    doubtful = little & ~log.among(kept["owner"])
    standing = _standing(users, of_owners(last, log.choose(doubtful)), unanswered)
    stands = log.among(standing.owners)
    is_open = ~stands & ~log.among(pa.concat_tables([again, kept])["owner"])
    updates = users.update(
        of_owners(old, log.choose(is_open & users.may_update(old, time, min_new))), time
    )
    otherwise = of_owners(quiet, log.choose(is_open))
    is_open &= ~log.among(pa.concat_tables([updates, otherwise])["owner"])
    prompts = [again, kept, otherwise, users.whole(log.choose(is_open), time), updates]
    all_updates = pa.concat_tables([updated_again, updates])
    return Prompted(
        pa.concat_tables(prompts),
        left_alone=int(np.sum(stands & (growth > 0))),
        updated=all_updates.num_rows,
        reworded=len(set(quiet["owner"].to_pylist()) & set(standing.owners.to_pylist())),
        asked=pa.concat_tables(
            [users.asked(pa.concat_tables(prompts), time, all_updates), *standing.asked]
        ),
    )


@dataclass(frozen=True)
class _StandingKnowledge:
    """Owners whose knowledge stands; what was found of the making of its prompts."""

    owners: pa.ChunkedArray
    asked: list[pa.Table]


def _standing(users: StoredUsers, rows: pa.Table, unanswered: Unanswered) -> _StandingKnowledge:
    """Of old knowledge, that which answers what would be asked today; planned knowledge does."""
    is_planned = rows["planned"]
    made = rows.filter(pc.invert(is_planned))
    as_said = users.as_said(made)
    unclear = made if users.catalogue else made.filter(pc.is_null(made["wording"]))
    tables, asked = [made.filter(as_said).select(_ASKING)], []
    for time in unclear["event_timestamp"].unique():
        of_time = unclear.filter(pc.field("event_timestamp") == time)
        prompts, updates = users.again(of_time)
        tables.append(prompts.select(_ASKING))
        asked.append(users.asked(prompts, time.as_py(), updates))
    prompts = pa.concat_tables(tables, promote_options="default")
    waiting = unanswered(prompts)["prompt_hash"].combine_chunks() if prompts.num_rows else _NONE
    standing = prompts.filter(pc.invert(pc.is_in(prompts["prompt_hash"], value_set=waiting)))
    planned = rows.filter(is_planned)
    return _StandingKnowledge(
        pa.chunked_array([*standing["owner"].chunks, *planned["owner"].chunks], pa.string()), asked
    )
