"""Knowledge made elsewhere: tables of groups and who is in them, or of entities.

Texts pass the gates that make sense without a prompt. Those that fail are quarantined: they do not
become knowledge, and stand with what is wrong in the table ``imported``, as all that were looked at
do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge as extract
from reki_feast import schema
from reki_feast.errors import KnowledgeError
from reki_feast.knowledge import by_entity
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.project import DeclaredProject, now
from reki_feast.results import FailedText, ImportedGateCount, ImportedTexts, ImportResult
from reki_feast.schema import KINDS
from reki_feast.stages.exclusive import writing
from reki_feast.stages.observed import stage
from reki_feast.stages.snapshots import Times, state
from reki_feast.tables import duckdb_session

_TEXT = ["kind", "channel", "owner", "grouped"]
_LEFT_OUT = (
    "quarantined texts are no knowledge: who has no other gets the default vector; mend them in "
    "the file and import it again, or take all texts as they are with --no-gates"
)


@stage
@writing
def import_knowledge(
    project: DeclaredProject, files: dict[str, str], *, as_of: Times = None, gates: bool = True
) -> ImportResult:
    """Take the knowledge of some files; no model is asked.

    A text that fails a gate is quarantined, and the import goes on: its owner, or the members of
    its group, keep what is known of them, or get the default vector.

    Args:
        project: whose lake takes it.
        files: any of ``groups`` with ``user_groups`` and ``item_groups``, ``users``, ``items``;
            paths of files that DuckDB can read.
        as_of: what the knowledge was made from happened before; the scenario's first by default.
        gates: whether texts must pass the gates; otherwise all are taken.

    Raises:
        KnowledgeError: a table has the wrong shape; nothing is stored.
    """
    time = _time(project, as_of)
    if not files:
        hint = "reki import-knowledge --groups FILE --user-groups FILE, or --items FILE"
        raise KnowledgeError("there is something to import", detail="no file named", hint=hint)
    tables = {name: _read(project, path) for name, path in files.items()}
    knowledge, members = _imported(project, tables, time)
    looked_at = _screened(project, knowledge, gates=gates)
    passed = knowledge.filter(pc.equal(looked_at["gate"], ""))
    before = state(project, time)
    fresh = by_entity.changed_rows(passed, before.knowledge, _TEXT)
    moved = by_entity.changed_members(members, before.members)
    project.lake.append("knowledge", fresh)
    project.lake.append("members", moved)
    judged = by_entity.changed_rows(looked_at, imported(project, time), _TEXT)
    project.lake.append("imported", judged)
    failed = knowledge.num_rows - passed.num_rows
    gate_counts, examples = quarantined_texts(looked_at)
    return ImportResult(
        project=project.name,
        texts=fresh.num_rows,
        memberships=moved.num_rows,
        imported=_imported_texts(knowledge, members, looked_at),
        imported_gates=gate_counts,
        imported_examples=examples,
        notes=[_LEFT_OUT] if failed else [],
        next=[*(["reki quality"] if failed else []), "reki encode"],
    )


def imported(project: DeclaredProject, as_of: datetime | None = None) -> pa.Table:
    """What the gates said last of each text made elsewhere, as ``schema.IMPORTED``."""
    return project.lake.snapshot("imported", schema.IMPORTED, _TEXT, as_of)


def quarantined_texts(
    looked_at: pa.Table, examples: int = 3
) -> tuple[list[ImportedGateCount], list[FailedText]]:
    """How many texts failed each gate, and some of them.

    Args:
        looked_at: ``schema.IMPORTED``.
        examples: of each gate, at most.
    """
    failed = looked_at.filter(pc.not_equal(looked_at["gate"], "")).to_pylist()
    by_gate = {gate: [row for row in failed if row["gate"] == gate] for gate in _gates_of(failed)}
    some = [
        FailedText(gate, row["kind"], row["owner"], row["fault"], row["text"])
        for gate, rows in by_gate.items()
        for row in rows[:examples]
    ]
    return [ImportedGateCount(gate, len(rows)) for gate, rows in by_gate.items()], some


def _gates_of(failed: list[dict[str, Any]]) -> list[str]:
    """The gates that some text failed, the commonest first."""
    return [gate for gate, _ in Counter(row["gate"] for row in failed).most_common()]


def _screened(project: DeclaredProject, knowledge: pa.Table, *, gates: bool) -> pa.Table:
    """What the gates say of each text, as ``schema.IMPORTED``; without gates all passed."""
    # also where the declared model is the echo, whose own answers may be alike
    limits = replace(project.answer_rules(), duplicates=project.declared.gates.duplicates)
    verdicts = extract.screen(knowledge, limits) if gates else None
    factors = len(project.known_factors())
    rows = []
    for n, row in enumerate(knowledge.to_pylist()):
        gate, fault = (verdicts[n].gate, verdicts[n].fault) if verdicts else ("", "")
        row["coverage"] = len(row["factors"] or ()) / factors if factors else None
        row |= {"gate": gate, "fault": fault, "text": row["text"] if gate else None}
        rows.append({**row, "hash": schema.content_hash(row["hash"], gate)})
    return pa.Table.from_pylist(rows, schema=schema.IMPORTED)


def _imported_texts(
    knowledge: pa.Table, members: pa.Table, looked_at: pa.Table
) -> list[ImportedTexts]:
    rows = []
    for kind in KINDS:
        for channel in by_entity.channels(knowledge, kind):
            of = (pc.field("kind") == kind) & (pc.field("channel") == channel)
            failed = looked_at.filter(of & (pc.field("gate") != "")).num_rows
            passed = knowledge.filter(of).num_rows - failed
            count = members.filter(of).num_rows
            rows.append(ImportedTexts(kind, channel, passed, failed, count))
    return rows


def _imported(
    project: DeclaredProject, tables: dict[str, pa.Table], time: datetime
) -> tuple[pa.Table, pa.Table]:
    scenario = project.declared.scenario
    keys = {"user": scenario.user_key, "item": scenario.item_key}
    times, factors = Timestamps(time, now()), project.known_factors()
    knowledge, members = [schema.KNOWLEDGE.empty_table()], [schema.MEMBERS.empty_table()]
    if "groups" in tables:
        texts, pairs = extract.import_groups(
            tables["groups"], _maps(tables), times=times, factors=factors, keys=keys
        )
        knowledge.append(texts)
        members.append(pairs)
    elif {"user_groups", "item_groups"} & tables.keys():
        rule = "a map of groups comes with the groups' knowledge"
        raise KnowledgeError(rule, detail="no --groups", hint="add --groups FILE")
    for kind in KINDS:
        if f"{kind}s" in tables:
            table = tables[f"{kind}s"]
            knowledge.append(
                extract.import_entities(table, kind, keys[kind], times=times, factors=factors)
            )
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


def _time(project: DeclaredProject, as_of: Times) -> datetime:
    times = list(as_of or project.declared.scenario.as_of)
    if not times:
        rule = "imported knowledge has an as-of time: what it was made from happened before"
        raise KnowledgeError(rule, detail="none", hint="reki import-knowledge … --as-of 2026-01-31")
    return min(times)


def _read(project: DeclaredProject, path: str) -> pa.Table:
    """A file named on the command line: a relative path starts where the user stands."""
    quoted = str(Path(path).absolute()).replace("'", "''")
    return duckdb_session.query(f"select * from '{quoted}'", root=project.root)
