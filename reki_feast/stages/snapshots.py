"""What the lake holds: knowledge as of a time, the times of its snapshots, the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.knowledge import by_entity as known
from reki_feast.project import DeclaredProject
from reki_feast.schema import Key, Kind
from reki_feast.stages.context import StageContext
from reki_feast.tables.snapshot_times import quantile_times, snapshot_times

Times = Sequence[datetime] | None

_OWNER = ["kind", "channel", "owner"]


@dataclass(frozen=True)
class State:
    """Knowledge, and who is in which group, as of one time."""

    knowledge: pa.Table
    members: pa.Table


def state(project: DeclaredProject, as_of: datetime | None = None) -> State:
    """The newest knowledge and memberships up to a time; of all times by default."""
    lake = project.lake
    return State(
        lake.snapshot("knowledge", schema.KNOWLEDGE, [*_OWNER, "grouped"], as_of),
        lake.snapshot("members", schema.MEMBERS, _OWNER, as_of),
    )


def groups_of(project: DeclaredProject, as_of: datetime | None = None) -> pa.Table:
    """What each group is shown by, the newest row up to a time; of all times by default."""
    return project.lake.snapshot("groups", schema.GROUPS, ["kind", "channel", "group"], as_of)


def times(project: DeclaredProject, *tables: str) -> list[datetime]:
    """The as-of times that rows of these tables bear, oldest first."""
    bare = pa.schema([pa.field("event_timestamp", schema.TIMESTAMP)])
    found: set[datetime] = set()
    for table in tables:
        found.update(project.lake.read(table, bare)["event_timestamp"].unique().to_pylist())
    return sorted(found)


def wanted_times(context: StageContext, as_of: Times) -> list[datetime]:
    """The snapshots that a run brings up to date.

    The first ones are chosen once (:func:`choose_times`) and wanted until HEIN is trained on them,
    so that a first run which was cut short goes on with the same, however the tables grew.
    """
    if as_of:
        return sorted(set(as_of))
    chosen = context.lake.read_json("snapshots")
    trained = context.lake.read_json("hein") is not None
    if chosen is not None and not trained and not context.declared.scenario.as_of:
        return [datetime.fromisoformat(text) for text in chosen["first"]]
    # groups are formed from interactions, so there are none at the start
    start = not any(context.declared.collective(kind) for kind in schema.KINDS)
    return snapshot_times(context.declared.scenario, context.tables, first=not trained, start=start)


def choose_times(project: DeclaredProject, chosen: list[datetime]) -> None:
    """Remember the first snapshots, when none are remembered."""
    if project.lake.read_json("snapshots") is None:
        project.lake.write_json("snapshots", {"first": [time.isoformat() for time in chosen]})


def choose_between(context: StageContext, wanted: Sequence[datetime]) -> None:
    """Choose, once, the snapshots between the first ones, of which no language model is asked.

    They end equal parts of the log, as many as there are blocks of weights: users' vectors follow
    their histories from early on, and HEIN learns of each interaction from the state of its time.
    """
    chosen = context.lake.read_json("snapshots") or {}
    if "between" in chosen or context.declared.scenario.as_of or not context.tables.timed:
        return
    parts = context.declared.training.blocks
    between = sorted({*quantile_times(context.tables, parts, before=wanted[-1])} - {*wanted})
    said = {**chosen, "between": [time.isoformat() for time in between]}
    context.lake.write_json("snapshots", said)


def between_times(project: DeclaredProject) -> list[datetime]:
    """The snapshots of :func:`choose_between`."""
    chosen = project.lake.read_json("snapshots") or {}
    return [datetime.fromisoformat(text) for text in chosen.get("between", ())]


def channels(project: DeclaredProject, kind: Kind) -> list[str]:
    """All channels of a kind: knowledge, then what the tables themselves tell."""
    bare = pa.schema([schema.KNOWLEDGE.field(name) for name in ("kind", "channel")])
    found = known.channels(project.lake.read("knowledge", bare), kind)
    if kind == "item":
        return [*found, "description"]
    encoder = project.declared.encoder
    own = {"history": encoder.history, schema.TASTE: encoder.taste}
    return [*found, *(name for name, there in own.items() if there)]


def preference_columns(project: DeclaredProject, kind: Kind) -> dict[str, str]:
    """By column, the factors that users' representations have a vector of its own for."""
    if kind == "item" or not project.declared.encoder.preferences:
        return {}
    return {schema.preference_column(factor): factor for factor in project.known_factors()}


def vector_columns(project: DeclaredProject, kind: Kind) -> list[str]:
    """All columns of vectors: the channels, then users' preferences."""
    return [*channels(project, kind), *preference_columns(project, kind)]


def representation(
    project: DeclaredProject, key: Key, kind: Kind, ids: pa.Array | None = None
) -> pa.Table:
    """All stored representations of a kind, of every snapshot; or those of some ids alone."""
    made, table = schema.representation(key, channels(project, kind)), f"{kind}_representation"
    if ids is None:
        return project.lake.read(table, made)
    found = [made.empty_table()]
    for path in project.lake.parts(table):  # one by one: all of them may not fit into memory
        rows = project.lake.read_parts([path], made)
        found.append(rows.filter(pc.is_in(rows[key.name], value_set=ids)))
    return pa.concat_tables(found)


def representation_hashes(project: DeclaredProject, key: Key, kind: Kind) -> pa.Table:
    """The same rows without their vectors: key, hash and times."""
    return project.lake.read(f"{kind}_representation", schema.representation(key, []))


def up_to(table: pa.Table, time: datetime) -> pa.Table:
    """The rows whose as-of time is not later."""
    return table.filter(pc.field("event_timestamp") <= pa.scalar(time, schema.TIMESTAMP))
