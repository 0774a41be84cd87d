"""Knowledge made elsewhere: tables of groups and who is in them, or of entities."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, lake, schema
from reki_feast import knowledge as known
from reki_feast.errors import KnowledgeError
from reki_feast.pipeline.stored import Times, state
from reki_feast.project import Project, now
from reki_feast.report import Report, Table
from reki_feast.schema import KINDS, Kind

_KEYS = ["kind", "channel", "owner"]


def import_knowledge(project: Project, files: dict[str, str], *, as_of: Times = None) -> Report:
    """Take the knowledge of some files; no model is asked.

    Args:
        project: whose lake takes it.
        files: any of ``groups`` with ``user_groups`` and ``item_groups``, ``users``, ``items``;
            paths of files that DuckDB can read.
        as_of: what the knowledge was made from happened before; the scenario's first by default.

    Raises:
        KnowledgeError: a table has the wrong shape; nothing is stored.
    """
    time = _time(project, as_of)
    if not files:
        mend = "reki import-knowledge --groups FILE --user-groups FILE, or --items FILE"
        raise KnowledgeError("there is something to import", found="no file named", mend=mend)
    tables = {name: _read(project, path) for name, path in files.items()}
    knowledge, members = _imported(project, tables, time)
    before = state(project, time)
    fresh = known.changed(knowledge, before.knowledge, [*_KEYS, "grouped"])
    moved = known.moved(members, before.members)
    project.lake.append("knowledge", fresh)
    project.lake.append("members", moved)
    rows = [
        (kind, channel, *_counts(knowledge, members, kind, channel))
        for kind in KINDS
        for channel in known.channels(knowledge, kind)
    ]
    return Report(
        f"{project.name}: {fresh.num_rows:,} texts and {moved.num_rows:,} memberships are new",
        tables=[Table("imported", ("kind", "channel", "texts", "members"), rows)],
        next=["reki encode"],
    )


def _imported(
    project: Project, tables: dict[str, pa.Table], time: datetime
) -> tuple[pa.Table, pa.Table]:
    said = project.declared.scenario
    keys = {"user": said.user_key, "item": said.item_key}
    how: dict[str, Any] = {"as_of": time, "created": now(), "factors": project.known_factors()}
    knowledge, members = [schema.KNOWLEDGE.empty_table()], [schema.MEMBERS.empty_table()]
    if "groups" in tables:
        texts, pairs = extract.import_groups(tables["groups"], _maps(tables), keys=keys, **how)
        knowledge.append(texts)
        members.append(pairs)
    elif {"user_groups", "item_groups"} & tables.keys():
        rule = "a map of groups comes with the groups' knowledge"
        raise KnowledgeError(rule, found="no --groups", mend="add --groups FILE")
    for kind in KINDS:
        if f"{kind}s" in tables:
            table = tables[f"{kind}s"]
            knowledge.append(extract.import_entities(table, kind, keys[kind], **how))
    return pa.concat_tables(knowledge), pa.concat_tables(members)


def _maps(tables: dict[str, pa.Table]) -> dict[tuple[str, str], pa.Table]:
    """A map for each channel that a file has a column of groups for."""
    found: dict[tuple[str, str], pa.Table] = {}
    for kind in KINDS:
        table = tables.get(f"{kind}_groups")
        if table is None:
            continue
        named = [c for c in schema.KNOWLEDGE_CHANNELS if f"{c}_group_id" in table.column_names]
        found |= {(kind, channel): table for channel in named or ["knowledge"]}
    return found


def _counts(knowledge: pa.Table, members: pa.Table, kind: Kind, channel: str) -> tuple[int, int]:
    of = (pc.field("kind") == kind) & (pc.field("channel") == channel)
    return knowledge.filter(of).num_rows, members.filter(of).num_rows


def _time(project: Project, as_of: Times) -> datetime:
    times = list(as_of or project.declared.scenario.as_of)
    if not times:
        rule = "imported knowledge has an as-of time: what it was made from happened before"
        raise KnowledgeError(rule, found="none", mend="reki import-knowledge … --as-of 2026-01-31")
    return min(times)


def _read(project: Project, path: str) -> pa.Table:
    """A file named on the command line: a relative path starts where the user stands."""
    quoted = str(Path(path).absolute()).replace("'", "''")
    return lake.query(f"select * from '{quoted}'", root=project.root)
