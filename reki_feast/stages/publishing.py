"""Vectors to Feast: the tables that the feature views read, and their manifest."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reki_feast import schema
from reki_feast.knowledge import by_entity
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.project import DeclaredProject, now
from reki_feast.report import attach_report
from reki_feast.results import MaterializedView, PublishedTable, PublishResult
from reki_feast.schema import KINDS, Key, Kind
from reki_feast.stages.absent import PUBLISHED, absent_notes
from reki_feast.stages.augmented_rows import write_augmented
from reki_feast.stages.context import StageContext
from reki_feast.stages.exclusive import writing
from reki_feast.stages.feast_repo import check_takes_rows
from reki_feast.stages.matching import fitted_scores, publish_scores, section_of
from reki_feast.stages.snapshots import channels, representation_hashes, state, times, up_to
from reki_feast.stages.stored_hein import StoredHein
from reki_feast.stages.training_data import trained_until
from reki_feast.tables.parts import newest

if TYPE_CHECKING:
    from reki_feast.models.text_match import Fitted

#: Times of a command line are whole seconds.
_SECOND = timedelta(seconds=1)


@writing
def publish(project: DeclaredProject, *, materialize: bool = False) -> PublishResult:
    """Write augmented vectors and knowledge as tables for Feast, then their manifest.

    Every stored representation gets a vector of weights that have seen no label of its time or
    later: rows are added where a vector is missing or was made by other weights. With
    ``materialize`` the project's Feast repo is applied and materialized, and the online rows are
    counted.

    Raises:
        CondenseError: there are no weights yet.
        StoreError: the Feast repo is missing or does not fit, or rows are missing online.
    """
    context = StageContext.of(project)
    hein = StoredHein.of(context)
    if materialize:
        check_takes_rows(context)
    rows = [row for kind in KINDS for row in _tables(context, hein, kind)]
    scored = fitted_scores(context)
    if scored is not None:
        rows += publish_scores(context, scored)
    context.lake.write_json("manifest", _manifest(context, hein, scored))
    result = PublishResult(
        project=context.name,
        folder=context.data,
        published=[PublishedTable(*row) for row in rows],
        notes=absent_notes(context),
    )
    if not materialize:
        return replace(result, next=_next(context))
    with attach_report(result.report):
        return replace(result, online=_materialized(context))


def _tables(context: StageContext, hein: StoredHein, kind: Kind) -> list[tuple[str, int, int]]:
    """Write the tables of a kind: the name, rows and how many are new, of each."""
    return [
        (f"{kind}_aug", *write_augmented(context, hein, kind)),
        (f"{kind}_knowledge", *_write_knowledge(context, kind)),
        (f"{kind}_representation", _conform_representation(context, kind), 0),
    ]


def _write_knowledge(context: StageContext, kind: Kind) -> tuple[int, int]:
    key, table = context.key(kind), f"{kind}_knowledge"
    made = schema.entity_knowledge(key, context.known_factors())
    context.lake.conform(table, made)
    bare, added = schema.representation(key, []), 0
    stored = context.lake.read(table, bare)
    for time in times(context, "knowledge", "members"):
        rows = _knowledge_at(context, kind, time)
        fresh = by_entity.changed_rows(rows, newest(up_to(stored, time), [key.name]), [key.name])
        if context.lake.append(table, fresh) is not None:
            stored, added = context.lake.read(table, bare), added + fresh.num_rows
    return stored.num_rows, added


def _knowledge_at(context: StageContext, kind: Kind, time: datetime) -> pa.Table:
    known = state(context, time)
    return by_entity.entity_table(
        known.knowledge,
        known.members,
        kind=kind,
        key=context.key(kind),
        factors=context.known_factors(),
        times=Timestamps(time, now()),
    )


def _conform_representation(context: StageContext, kind: Kind) -> int:
    """Give older parts the columns of channels that came since; the number of rows."""
    key = context.key(kind)
    made = schema.representation(key, channels(context, kind))
    rows: int = representation_hashes(context, key, kind).num_rows
    context.lake.conform(f"{kind}_representation", made)
    return rows


def _manifest(context: StageContext, hein: StoredHein, scored: Fitted | None) -> dict[str, Any]:
    scenario, made = context.declared.scenario, hein.manifest
    sides: dict[str, Any] = {kind: _side(context, hein, kind) for kind in KINDS}
    snapshots = times(context, "user_representation", "item_representation")
    return {
        "scenario": scenario.name,
        "description": scenario.summary or f"{scenario.item}s and their {scenario.user}s",
        "owner": scenario.owner,
        **sides,
        "m": made["m"],
        "pairs": [list(pair) for pair in made["pairs"]],
        **({} if scored is None else {"match": section_of(scored)}),
        "factors": list(context.known_factors()),
        "encoder": (context.lake.read_json("encoder") or {}).get("name", ""),
        "weights": hein.hashes[-1],
        "trained_until": trained_until(made),
        "snapshots": [time.isoformat() for time in snapshots],
    }


def _side(context: StageContext, hein: StoredHein, kind: Kind) -> dict[str, Any]:
    """The manifest's section of users, or of items."""
    key: Key = context.key(kind)
    published = context.lake.read_json("manifest") or {}
    is_published = published.get("weights") == hein.hashes[-1] and kind in published
    return {
        "key": key.name,
        "type": str(key.type),
        "channels": channels(context, kind),
        "q": hein.manifest["q"],
        # weights of one hash have one default vector
        "default": published[kind]["default"] if is_published else hein.default_vector(kind),
    }


def _materialized(project: DeclaredProject) -> list[MaterializedView]:
    from reki_feast.stores.materialize import apply_and_materialize

    counts = apply_and_materialize(project.feature_repo, _end(project))
    return [MaterializedView(count.view, count.source, count.online) for count in counts]


def _end(project: DeclaredProject) -> datetime:
    """Until when rows are materialized: now, or their last time where a clock went back."""
    tables = [f"{kind}_{name}" for kind in KINDS for name in PUBLISHED]
    return max(now(), project.lake.last("event_timestamp", *tables) or now())


def _next(project: DeclaredProject) -> list[str]:
    """What brings the rows online: all, since their as-of times may lie before the last time's end.

    A snapshot is as of its last interaction, and new weights make the vectors of old ones anew.
    """
    if not (project.feature_repo / "feature_store.yaml").exists():
        scores = (project.lake.read_json("manifest") or {}).get("match")
        makers = ["reki_match", "reki_views"] if scores else ["reki_views"]
        return [
            *(f'in your Feast repo: {name}("{project.data}", user=…, item=…)' for name in makers),
            "feast apply",
        ]
    return [
        f"cd {project.feature_repo}",
        "feast apply",
        f"feast materialize 1970-01-02T00:00:00 {_end(project) + _SECOND:%Y-%m-%dT%H:%M:%S}",
    ]
