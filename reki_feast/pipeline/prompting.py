"""Which prompts a snapshot takes: of everybody about whom there is news, and of what is new.

A user is left alone with fewer than ``min_new`` interactions that the last knowledge does not tell
of, as long as that knowledge answers what the scenario says today: its factors, templates, words
and the user's profile. Other titles, or items that the catalogue has no more, are no news, unless
``Freshness(catalogue=True)`` says so. A prompt without news finds its answer in the ledger. With
``incremental`` users with news are asked with their last knowledge and what is new. An item, or a
group of items, is asked about again when its own text changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, schema
from reki_feast.extract.prompts import redacted
from reki_feast.extract.redact import Redact
from reki_feast.inputs import Inputs
from reki_feast.pipeline.asked import (
    NEW,
    Unanswered,
    asked_groups,
    made_of,
    stored_asked,
    with_new_words,
)
from reki_feast.pipeline.news import (
    Users,
    coming_knowledge,
    of_owners,
    same,
    stored_knowledge,
    without,
)
from reki_feast.pipeline.stored import groups_of, state, up_to
from reki_feast.project import Project, now
from reki_feast.schema import KINDS

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
        reworded: users and groups whose prompt would be another only by the catalogue's words.
        notes: what could not be done, as sentences.
        asked: :data:`reki_feast.pipeline.asked.NEW`, what the prompts are made of, and those whose
            answers stand and of which that was not known.
    """

    prompts: pa.Table
    left_alone: int = 0
    updated: int = 0
    reworded: int = 0
    notes: tuple[str, ...] = ()
    asked: pa.Table = field(default_factory=NEW.empty_table, compare=False)


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
    found = [Prompted(schema.PROMPTS.empty_table())]
    if declared.individual("user"):
        found.append(_of_users(project, given, time, how, unanswered, planned, strike))
    if declared.individual("item") and first:
        prompts = redacted(extract.item_prompts(given.items, as_of=time, **how), strike)
        found.append(Prompted(prompts, asked=made_of(prompts)))
    if any(declared.collective(kind) for kind in KINDS):
        found.append(_of_groups(project, given, time, how, unanswered, strike))
    return Prompted(
        pa.concat_tables([one.prompts for one in found]),
        left_alone=sum(one.left_alone for one in found),
        updated=sum(one.updated for one in found),
        reworded=sum(one.reworded for one in found),
        notes=tuple(note for one in found for note in one.notes),
        asked=pa.concat_tables([one.asked for one in found]),
    )


def _of_groups(
    project: Project,
    given: Inputs,
    time: datetime,
    how: dict[str, Any],
    unanswered: Unanswered,
    redact: Redact,
) -> Prompted:
    """Groups of items are shown by their texts; groups of users by what stands for their taste."""
    declared = project.declared
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    shown = groups_of(project, time).filter(pc.field("kind").isin(kinds))
    peopled = state(project, time).members["group"].unique()
    shown = shown.filter(pc.is_in(shown["group"], value_set=peopled))
    prompts = redacted(extract.group_prompts(shown, given.items, as_of=time, **how), redact)
    is_user = pc.equal(prompts["kind"], "user")
    users, items = prompts.filter(is_user), prompts.filter(pc.invert(is_user))
    asked = asked_groups(shown.filter(pc.field("kind") == "user"), users, how)
    if not declared.freshness.catalogue:
        before = up_to(stored_asked(project), time)
        is_open = pc.invert(with_new_words(asked, before, unanswered))
        users, asked = users.filter(is_open), asked.filter(is_open)
    return Prompted(
        pa.concat_tables([users, items]),
        reworded=prompts.num_rows - users.num_rows - items.num_rows,
        asked=pa.concat_tables([asked, made_of(items)]),
    )


def _of_users(
    project: Project,
    given: Inputs,
    time: datetime,
    how: dict[str, Any],
    unanswered: Unanswered,
    planned: pa.Table | None,
    redact: Redact,
) -> Prompted:
    said, scenario = project.declared.freshness, project.declared.scenario
    incremental = said.incremental and given.timed
    stored = stored_knowledge(project, time, texts=incremental)
    users = Users(
        given,
        how,
        stored,
        coming_knowledge(planned, stored, max(now(), project.lake.next_made())),
        redact,
        incremental=incremental,
        rule=scenario.rating or scenario.liked,
        catalogue=said.catalogue,
    )
    found = _fresh(users, time, said.min_new if given.timed else 1, unanswered)
    does_nothing = not given.timed and (said.min_new > 1 or said.incremental)
    return replace(found, notes=(_POSITIONS,)) if does_nothing else found


def _fresh(users: Users, time: datetime, min_new: int, unanswered: Unanswered) -> Prompted:
    """What was asked at this very time is asked again; else it is what is new that decides.

    Knowledge made at ``time`` is not old: with it, a re-run would see no news and ask otherwise.
    """
    log, old, now = users.log, users.known(time), users.at(time)
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
    held = _held(users, of_owners(last, log.choose(doubtful)), unanswered)
    stands = log.among(held.owners)
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
        reworded=len(set(quiet["owner"].to_pylist()) & set(held.owners.to_pylist())),
        asked=pa.concat_tables(
            [users.asked(pa.concat_tables(prompts), time, all_updates), *held.asked]
        ),
    )


@dataclass(frozen=True)
class _Held:
    """Owners whose knowledge stands; what was found of the making of its prompts."""

    owners: pa.ChunkedArray
    asked: list[pa.Table]


def _held(users: Users, rows: pa.Table, unanswered: Unanswered) -> _Held:
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
    held = prompts.filter(pc.invert(pc.is_in(prompts["prompt_hash"], value_set=waiting)))
    planned = rows.filter(is_planned)
    return _Held(
        pa.chunked_array([*held["owner"].chunks, *planned["owner"].chunks], pa.string()), asked
    )
