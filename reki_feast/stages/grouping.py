"""Entities to groups: their embeddings, a cluster tree a channel, who is in which group.

State (:mod:`reki_feast.stages.group_state`) lives in ``clusters/`` of the scenario's data, a file
a channel. Tables are written before the state that made them, and both follow from the same
inputs: a run cut short goes on.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.declare import Collective
from reki_feast.errors import ClusterError
from reki_feast.knowledge import by_entity
from reki_feast.project import GROUPS, DeclaredProject
from reki_feast.report import Progress, Silent
from reki_feast.results import FormGroupsResult
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_points import (
    check_width,
    count_moved,
    current_points,
    mean_drift,
    newcomers,
    of_catalogue,
    retire_met,
)
from reki_feast.stages.group_reports import Formed, drift_notes, group_updates
from reki_feast.stages.group_rows import GroupSnapshot, changed_groups, member_rows, shown_items
from reki_feast.stages.group_state import (
    CHANNELS,
    folder,
    formed_until,
    fresh,
    load,
    save,
)
from reki_feast.stages.group_vectors import Vectors
from reki_feast.stages.snapshots import choose_times, state, wanted_times
from reki_feast.tables.snapshot_times import split


def group(
    context: StageContext, times: list[datetime], progress: Progress | None = None
) -> list[Formed]:
    """Bring the groups of every collective generator up to each time, oldest first.

    Known entities keep their places; new ones go down the tree that is there. A time earlier than
    what the groups have seen is served by what was stored then.

    Raises:
        ClusterError: groups have seen later times, and none are stored for this one; or vectors
            changed their length.
        CondenseError: embeddings cannot be learnt from the interactions.
        SourceError: a table or column is wrong.
    """
    wanted = [one for kind in schema.KINDS if (one := context.declared.collective(kind))]
    if not wanted:
        return []
    # several runs that ask form groups one at a time
    with context.write_lock("forming groups", GROUPS):
        return _formed(context, times, wanted, progress or Silent())


def _formed(
    context: StageContext,
    times: list[datetime],
    wanted: list[Collective],
    progress: Progress,
) -> list[Formed]:
    formed = []
    for time in times:
        seen = _seen(context, time)
        snapshot = GroupSnapshot(context, time, seen, Vectors(context, seen, time, progress))
        for one in wanted:
            if _is_past(context, one.kind, time):
                continue
            for channel in CHANNELS[one.kind]:  # one at a time: the tree of a million is gigabytes
                made = _bring_up(snapshot, one, channel)
                formed += [made] if made else []
    return formed


def form_groups(project: DeclaredProject, *, progress: Progress | None = None) -> FormGroupsResult:
    """Bring the groups up to the snapshots that a run would make; no model is asked.

    Raises:
        RekiError: as :func:`group`.
    """
    context = StageContext.of(project)
    times = wanted_times(context, None)
    choose_times(context, times)
    formed = group(context, times, progress)
    notes = [*drift_notes(context, formed), *context.tables.notices]
    return FormGroupsResult(project=context.name, groups=group_updates(formed), notes=notes)


def _seen(context: StageContext, time: datetime) -> pa.Table:
    """The interactions that prompts of a time may be made from."""
    rows = split(context.tables, time, context.declared.scenario.history)
    if not pc.all(rows["prompt"], min_count=0).as_py():  # what is filtered is a copy
        rows = rows.filter(rows["prompt"])
    return rows.drop_columns(["prompt", "sample"])


def _is_past(project: DeclaredProject, kind: Kind, time: datetime) -> bool:
    """Whether groups have seen later times; then rows as of this one are there, or it cannot be."""
    latest = formed_until(project, kind)
    if latest is None or time >= latest:
        return False
    members = state(project, time).members
    if members.filter(pc.field("kind") == kind).num_rows:
        return True
    raise ClusterError(
        "groups follow time: earlier snapshots are formed before later ones",
        detail=f"{kind} groups have seen {latest:%Y-%m-%d %H:%M}, none are stored as of "
        f"{time:%Y-%m-%d %H:%M}",
        hint=f"ask for a later time; or move {folder(project)} away to form groups anew",
    )


def _bring_up(snapshot: GroupSnapshot, how: Collective, channel: str) -> Formed | None:
    """Place new entities, and store members, shown items and state; nothing without any entity."""
    from reki_feast.clustering import admit

    context, vectors, time = snapshot.context, snapshot.vectors, snapshot.time
    kind = how.kind
    clusters = load(context, kind, channel)
    ids, matrix = vectors.items() if kind == "item" else vectors.users(liked=channel == "liked")
    if kind == "item":
        ids, matrix = of_catalogue(ids, matrix, context.tables)
    if not len(ids) and clusters is None:
        return None
    clusters = clusters or fresh(context, matrix.shape[1])
    names = ids.cast(pa.string())
    check_width(context, clusters, matrix, kind)
    cold = vectors.is_cold(ids) if kind == "item" else np.zeros(len(ids), np.bool_)
    met = retire_met(clusters, names, cold)
    drift = mean_drift(clusters, names, matrix)
    came = newcomers(clusters, names, context.declared.training.seed)
    clusters.tree.partial_fit(matrix[came])
    clusters.ids = pa.concat_arrays([clusters.ids, names.take(pa.array(came))])
    clusters.placed = np.concatenate([clusters.placed, matrix[came]])
    clusters.cold = np.concatenate([clusters.cold, cold[came]])
    clusters.live = np.concatenate([clusters.live, np.ones(len(came), np.bool_)])
    current = current_points(clusters, context.tables, kind)
    admitted = admit(clusters.tree.tree_, clusters.labels, how.max_size, current)
    clusters.labels = admitted.labels
    left = count_moved(clusters, met)
    stored = state(context, time).members
    members = member_rows(clusters, current, kind, channel, time)
    context.lake.append("members", by_entity.changed_members(members, stored))
    shown = shown_items(snapshot, clusters, current, members, how, channel)
    changed = changed_groups(context, shown, kind, channel, time, how.refresh)
    context.lake.append("groups", changed)
    is_later, clusters.as_of = clusters.as_of != time, time
    if len(came) or admitted.split or changed.num_rows or is_later:
        save(context, clusters, kind, channel)
    return Formed(
        kind=kind,
        channel=channel,
        time=time,
        entities=int(current.sum()),
        groups=len(np.unique(clusters.labels[current])),
        new=len(came) - len(met),
        met=len(met),
        split=len(admitted.split),
        moved=int(current[admitted.moved].sum()) + left,
        asked=changed.num_rows,
        drift=drift,
        kernel_drift=clusters.tree.drift_,
        next_drift=mean_drift(clusters, names, matrix),
    )
