"""Which prompts a snapshot takes: of everybody, or only of those about whom there is news.

By default a prompt is written for each user with a history, and one that is unchanged finds its
answer in the ledger. The scenario's ``Freshness`` spares more. A user with fewer than ``min_new``
interactions since the last knowledge is left alone, as long as that knowledge is what would be
asked for today: its prompt, written again as of its own time, has the same hash, and the answer
holds. With ``incremental`` the others are asked with their last knowledge and what is new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, schema
from reki_feast import inputs as sources
from reki_feast.extract.prompts import redacted
from reki_feast.extract.redact import Redact
from reki_feast.inputs import Inputs
from reki_feast.pipeline.news import Users, coming_knowledge, of_owners, stored_knowledge
from reki_feast.pipeline.stored import groups_of, state
from reki_feast.project import Project
from reki_feast.schema import KINDS

Unanswered = Callable[[pa.Table], pa.Table]

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
        notes: what could not be done, as sentences.
    """

    prompts: pa.Table
    left_alone: int = 0
    updated: int = 0
    notes: tuple[str, ...] = ()


def prompts_at(
    project: Project,
    given: Inputs,
    time: datetime,
    how: dict[str, Any],
    *,
    first: bool,
    unanswered: Unanswered,
    planned: pa.Table | None = None,
    redact: Redact | None = None,
) -> Prompted:
    """The prompts of every generator at one time.

    Args:
        project: whose generators, and whose knowledge so far.
        given: its tables.
        time: what happened then or later is not seen.
        how: ``wording`` and ``templates``.
        first: whether it is the first time of a run. An item's prompt tells no time, so it is
            only written then: its answer serves every later snapshot.
        unanswered: of a table of prompts, those that have no answer that holds today.
        planned: prompts of earlier times whose knowledge is not made yet. Their users count as
            known from then on; a filler stands for the text.
        redact: strikes out what may not leave; the project's own by default. Hashes are of what
            is left, so no prompt is compared before.

    Raises:
        FactorsError, SourceError, DeclarationError: as ``extract.user_prompts``.
        LakeError: stored knowledge cannot be read.
    """
    declared, strike = project.declared, redact or project.redact()
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    found = Prompted(schema.PROMPTS.empty_table())
    if declared.individual("user"):
        found = _of_users(project, given, time, how, unanswered, planned, strike)
    tables = []
    if declared.individual("item") and first:
        tables.append(extract.item_prompts(given.items, as_of=time, **how))
    if kinds:
        shown = groups_of(project, time).filter(pc.field("kind").isin(kinds))
        peopled = state(project, time).members["group"].unique()
        shown = shown.filter(pc.is_in(shown["group"], value_set=peopled))
        tables.append(extract.group_prompts(shown, given.items, as_of=time, **how))
    others = (redacted(table, strike) for table in tables)
    prompts = pa.concat_tables([found.prompts, *others])
    return Prompted(prompts, found.left_alone, found.updated, found.notes)


def _of_users(
    project: Project,
    given: Inputs,
    time: datetime,
    how: dict[str, Any],
    unanswered: Unanswered,
    planned: pa.Table | None,
    redact: Redact,
) -> Prompted:
    said = project.declared.freshness
    is_default = said.min_new == 1 and not said.incremental
    if is_default or not given.timed:
        rows = sources.split(given, time, project.declared.scenario.history)
        prompts = extract.user_prompts(given.users, given.items, rows, as_of=time, **how)
        notes = () if is_default else (_POSITIONS,)
        return Prompted(redacted(prompts, redact), notes=notes)
    stored = stored_knowledge(project, time, texts=said.incremental)
    coming = coming_knowledge(planned, stored)
    users = Users(given, how, stored, coming, redact, incremental=said.incremental)
    return _fresh(users, time, said.min_new, unanswered)


def _fresh(users: Users, time: datetime, min_new: int, unanswered: Unanswered) -> Prompted:
    """What was asked at this very time is asked again; else it is what is new that decides.

    Knowledge made at ``time`` is not old: with it, a re-run would see no news and ask otherwise.
    """
    log, old, now = users.log, users.known(time), users.at(time)
    again, updated_again = users.again(now)
    growth = log.count(log.news(old, time))
    is_known = log.among(old["owner"])
    has_grown = is_known & (growth >= min_new)
    doubtful = is_known & ~has_grown & ~log.among(now["owner"])
    if not users.incremental:
        # without news the whole history still makes the prompt that was answered
        doubtful &= growth > 0
    stands = log.among(_standing(users, of_owners(old, log.choose(doubtful)), unanswered))
    is_open = ~stands & ~log.among(again["owner"])
    updates = users.update(of_owners(old, log.choose(is_open & has_grown)), time)
    whole = users.whole(log.choose(is_open & ~log.among(updates["owner"])), time)
    return Prompted(
        pa.concat_tables([again, whole, updates]),
        left_alone=int(np.sum(stands & (growth > 0))),
        updated=updated_again + updates.num_rows,
    )


def _standing(users: Users, old: pa.Table, unanswered: Unanswered) -> pa.ChunkedArray:
    """Owners whose old knowledge is what would be asked for today; planned knowledge is."""
    made = old.filter(~pc.field("planned"))
    tables = [schema.PROMPTS.empty_table()]
    for time in made["event_timestamp"].unique():
        tables.append(users.again(made.filter(pc.field("event_timestamp") == time))[0])
    prompts = pa.concat_tables(tables)
    waiting = unanswered(prompts) if prompts.num_rows else prompts
    hashes = waiting["prompt_hash"].combine_chunks()
    held = prompts.filter(pc.invert(pc.is_in(prompts["prompt_hash"], value_set=hashes)))
    planned = old.filter(pc.field("planned"))
    return pa.chunked_array([*held["owner"].chunks, *planned["owner"].chunks], pa.string())
