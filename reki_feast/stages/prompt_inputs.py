"""What prompts were made of: stored when they are asked, so that a later run can tell why anew.

A prompt's hash covers every word of it, titles of the catalogue too. Whether a user has news, or
the scenario says something else, is told by what the prompt was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.knowledge.prompts.fingerprints import group_fingerprint
from reki_feast.project import DeclaredProject, now
from reki_feast.schema import ASKED, Kind, content_hash
from reki_feast.stages.context import PromptStyle
from reki_feast.tables.parts import newest

Unanswered = Callable[[pa.Table], pa.Table]

SLOT = ["kind", "channel", "owner", "grouped"]
#: As :data:`schema.ASKED`, before it is stored.
NEW = pa.schema([field for field in ASKED if field.name != "created_timestamp"])
_BETWEEN = "\x1f"


def made_of(
    prompts: pa.Table, wording: pa.Array | None = None, seen: pa.Array | None = None
) -> pa.Table:
    """Rows of :data:`NEW`, one a prompt."""
    count = prompts.num_rows
    columns = {
        **{name: prompts[name] for name in (*SLOT, "prompt_hash", "event_timestamp")},
        "factors": joined_factors(prompts),
        "wording": pa.nulls(count, pa.string()) if wording is None else wording,
        "seen": pa.nulls(count, pa.int64()) if seen is None else seen,
    }
    return pa.table([columns[name] for name in NEW.names], schema=NEW)


def joined_factors(prompts: pa.Table) -> pa.ChunkedArray:
    """The factors of each prompt, as one text."""
    return pc.binary_join(prompts["factors"], _BETWEEN)


def remember(project: DeclaredProject, rows: pa.Table) -> None:
    """Store rows of :data:`NEW` that are not stored yet.

    Raises:
        LakeError: the data folder cannot be read or written.
    """
    fresh = rows.filter(pc.invert(pc.is_in(_whole(rows), value_set=_whole(stored_asked(project)))))
    created = pa.repeat(pa.scalar(now(), schema.TIMESTAMP), fresh.num_rows)
    project.lake.append("asked", fresh.append_column("created_timestamp", created).cast(ASKED))


def stored_asked(project: DeclaredProject) -> pa.Table:
    """All rows of :data:`schema.ASKED`."""
    return project.lake.read("asked", ASKED)


def found_for(rows: pa.Table, asked: pa.Table) -> pa.Table:
    """What the prompts that rows of knowledge are answers to were made of.

    Args:
        rows: ``schema.KNOWLEDGE``, the columns of its slot and ``prompt_hash``.
        asked: ``schema.ASKED``, or :data:`NEW` with a prompt once.

    Returns:
        Columns ``factors``, ``wording`` and ``seen``, one row a row; null where nothing is stored,
        as for knowledge of an earlier version.
    """
    is_stored = "created_timestamp" in asked.column_names
    last = newest(asked, [*SLOT, "prompt_hash"]) if is_stored else asked
    at = pc.index_in(_of_prompt(rows), value_set=_of_prompt(last), skip_nulls=True)
    return last.select(["factors", "wording", "seen"]).combine_chunks().take(at)


def own_knowledge(project: DeclaredProject, kind: Kind, time: datetime) -> pa.Table:
    """Knowledge of single users, or items, up to a time that answers a prompt that is stored."""
    names = [*SLOT, "prompt_hash", "event_timestamp", "created_timestamp"]
    bare = pa.schema([schema.KNOWLEDGE.field(name) for name in names])
    is_own = (
        (pc.field("kind") == kind) & (pc.field("channel") == "knowledge") & ~pc.field("grouped")
    )
    rows = project.lake.read("knowledge", bare).filter(is_own)
    rows = rows.filter(pc.field("event_timestamp") <= pa.scalar(time, schema.TIMESTAMP))
    asked = found_for(rows, stored_asked(project).filter(pc.field("kind") == kind))
    return rows.filter(asked["factors"].is_valid())


def asked_groups(shown: pa.Table, prompts: pa.Table, style: PromptStyle) -> pa.Table:
    """Rows of :data:`NEW` for prompts of groups of users: the frame, and the items shown.

    Args:
        shown: ``schema.GROUPS`` rows that the prompts are of.
        prompts: of groups of users.
        style: how prompts are written.
    """
    channels = prompts["channel"].unique().to_pylist()
    frames = {channel: group_fingerprint(channel=channel, **style) for channel in channels}
    items = {
        (row["channel"], row["group"]): row["shown"]
        for row in shown.select(["channel", "group", "shown"]).to_pylist()
    }
    pairs = zip(prompts["channel"].to_pylist(), prompts["owner"].to_pylist(), strict=True)
    words = [content_hash(frames[pair[0]], *items[pair]) for pair in pairs]
    return made_of(prompts, pa.array(words, pa.string()))


def with_new_words(rows: pa.Table, asked: pa.Table, unanswered: Unanswered) -> pa.ChunkedArray:
    """bool, which prompts ask what was asked and answered before, if in other words.

    Args:
        rows: :data:`NEW`, of the prompts.
        asked: ``schema.ASKED``, stored up to now.
        unanswered: of prompts, those without an answer that holds today.
    """
    last = newest(asked, SLOT)
    at = pc.index_in(of_slot(rows), value_set=of_slot(last))
    before = last.combine_chunks().take(at)
    is_same = pa.chunked_array([pa.array([True] * rows.num_rows, pa.bool_())])
    for name in ("factors", "wording"):
        is_same = pc.and_(is_same, pc.fill_null(pc.equal(rows[name], before[name]), False))
    differs = pc.fill_null(pc.not_equal(rows["prompt_hash"], before["prompt_hash"]), False)
    is_same = pc.and_(is_same, differs)
    chosen = before.filter(is_same)
    waiting = unanswered(chosen)["prompt_hash"].combine_chunks()
    holds = pc.invert(pc.is_in(before["prompt_hash"], value_set=waiting))
    return pc.and_(is_same, pc.fill_null(holds, False))


def of_slot(rows: pa.Table) -> pa.Array:
    """What each row is about, as one text."""
    return _joined(rows, SLOT)


def _of_prompt(rows: pa.Table) -> pa.Array:
    return _joined(rows, [*SLOT, "prompt_hash"])


def _whole(rows: pa.Table) -> pa.Array:
    columns = [*SLOT, "prompt_hash", "factors", "wording", "seen"]
    return _joined(rows, columns, null="")


def _joined(rows: pa.Table, names: list[str], null: str | None = None) -> pa.Array:
    """Columns as one text; null where one is, unless something stands for null."""
    columns = [rows[name].cast(pa.string()) for name in names]
    if null is not None:
        columns = [pc.fill_null(column, null) for column in columns]
    return pc.binary_join_element_wise(*columns, _BETWEEN).combine_chunks()
