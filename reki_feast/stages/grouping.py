"""Entities to groups: their embeddings, a cluster tree a channel, who is in which group.

State (:mod:`reki_feast.stages.group_state`) lives in ``clusters/`` of the scenario's data, a file
a channel. Tables are written before the state that made them, and both follow from the same
inputs: a run cut short goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge, schema
from reki_feast.declare import Collective
from reki_feast.errors import ClusterError
from reki_feast.knowledge import by_entity
from reki_feast.project import GROUPS, DeclaredProject, now
from reki_feast.report import Progress, Silent
from reki_feast.results import FormGroupsResult, GroupUpdate
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_state import (
    CHANNELS,
    ClusterState,
    Flags,
    Floats,
    folder,
    fresh,
    group_id,
    load,
    name_of,
    save,
)
from reki_feast.stages.group_vectors import Vectors
from reki_feast.stages.snapshots import choose_times, groups_of, state, wanted_times
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.snapshot_times import split

#: From here on the report says that groups no longer fit: drift of the kernel, and of vectors.
_DRIFTED = 0.5


@dataclass(frozen=True)
class Formed:
    """What happened to the groups of one channel at one time.

    Attributes:
        kind: whose groups.
        channel: which channel.
        time: as of when.
        entities: members of all groups.
        groups: number of groups.
        new: entities that came.
        met: items placed anew, because somebody met them for the first time.
        split: groups that passed their cap.
        moved: known entities that are in another group now.
        asked: groups whose shown items are new or changed enough to ask again.
        drift: mean cosine distance between the vectors known entities have now and those they were
            placed by.
        kernel_drift: :attr:`StreaKHC.drift_`.
        next_drift: the drift with those that came among the known ones.
    """

    kind: Kind
    channel: str
    time: datetime
    entities: int
    groups: int
    new: int
    met: int
    split: int
    moved: int
    asked: int
    drift: float
    kernel_drift: float
    next_drift: float


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
    clusters = {
        (one.kind, channel): load(context, one.kind, channel)
        for one in wanted
        for channel in CHANNELS[one.kind]
    }
    formed = []
    for time in times:
        seen = _seen(context, time)
        snapshot = _Snapshot(context, time, seen, Vectors(context, seen, time, progress))
        for one in wanted:
            slots = [(one.kind, channel) for channel in CHANNELS[one.kind]]
            if _is_past(context, [clusters[slot] for slot in slots], one.kind, time):
                continue
            for slot in slots:
                clusters[slot], made = _bring_up(snapshot, one, slot[1], clusters[slot])
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


def group_updates(formed: list[Formed]) -> list[GroupUpdate]:
    """What happened, as rows of a result."""
    return [
        GroupUpdate(
            as_of=one.time,
            of=name_of(one.kind, one.channel),
            members=one.entities,
            groups=one.groups,
            new=one.new,
            anew=one.met,
            splits=one.split,
            moved=one.moved,
            changed=one.asked,
            drift=round(one.drift, 3),
        )
        for one in formed
    ]


def unchanged_groups(formed: list[Formed]) -> list[Formed]:
    """What happens to groups when they are brought up to the same times again: they stay."""
    last = [one for one in formed if one.time == formed[-1].time]
    return [
        replace(one, new=0, met=0, split=0, moved=0, asked=0, drift=one.next_drift) for one in last
    ]


def drift_notes(project: DeclaredProject, formed: list[Formed]) -> list[str]:
    """A sentence for each channel whose groups no longer fit what they were formed from."""
    last = {(one.kind, one.channel): one for one in formed}.values()
    where = folder(project)
    return [
        f"groups of {name_of(one.kind, one.channel)}: vectors moved by {one.drift:.2f} (cosine), "
        f"new ones by {one.kernel_drift:.2f} (kernel) since the groups were formed; they are kept. "
        f"Move {where} away to form them anew"
        for one in last
        if max(one.drift, one.kernel_drift) > _DRIFTED
    ]


def _seen(context: StageContext, time: datetime) -> pa.Table:
    """The interactions that prompts of a time may be made from."""
    rows = split(context.tables, time, context.declared.scenario.history)
    return rows.filter(rows["prompt"]).drop_columns(["prompt", "sample"])


def _is_past(
    project: DeclaredProject, clusters: Sequence[ClusterState | None], kind: Kind, time: datetime
) -> bool:
    """Whether groups have seen later times; then rows as of this one are there, or it cannot be."""
    latest = [one.as_of for one in clusters if one is not None and one.as_of is not None]
    if not latest or time >= max(latest):
        return False
    members = state(project, time).members
    if members.filter(pc.field("kind") == kind).num_rows:
        return True
    raise ClusterError(
        "groups follow time: earlier snapshots are formed before later ones",
        detail=f"{kind} groups have seen {max(latest):%Y-%m-%d %H:%M}, none are stored as of "
        f"{time:%Y-%m-%d %H:%M}",
        hint=f"ask for a later time; or move {folder(project)} away to form groups anew",
    )


@dataclass(frozen=True)
class _Snapshot:
    """What groups of one time are formed from: the interactions before it, and vectors."""

    context: StageContext
    time: datetime
    seen: pa.Table
    vectors: Vectors


def _bring_up(
    snapshot: _Snapshot, how: Collective, channel: str, clusters: ClusterState | None
) -> tuple[ClusterState | None, Formed | None]:
    """Place new entities, and store members, shown items and state; nothing without any entity."""
    from reki_feast.clustering import admit

    context, vectors, time = snapshot.context, snapshot.vectors, snapshot.time
    kind = how.kind
    ids, matrix = vectors.items() if kind == "item" else vectors.users(liked=channel == "liked")
    if kind == "item":
        ids, matrix = _of_catalogue(ids, matrix, context.tables)
    if not len(ids) and clusters is None:
        return None, None
    clusters = clusters or fresh(context, matrix.shape[1])
    names = ids.cast(pa.string())
    _check_width(context, clusters, matrix, kind)
    cold = vectors.is_cold(ids) if kind == "item" else np.zeros(len(ids), np.bool_)
    met = _retired(clusters, names, cold)
    drift = _drift(clusters, names, matrix)
    came = _newcomers(clusters, names, context.declared.training.seed)
    clusters.tree.partial_fit(matrix[came])
    clusters.ids = pa.concat_arrays([clusters.ids, names.take(pa.array(came))])
    clusters.placed = np.concatenate([clusters.placed, matrix[came]])
    clusters.cold = np.concatenate([clusters.cold, cold[came]])
    clusters.live = np.concatenate([clusters.live, np.ones(len(came), np.bool_)])
    current = _current(clusters, context.tables, kind)
    admitted = admit(clusters.tree.tree_, clusters.labels, how.max_size, current)
    clusters.labels = admitted.labels
    left = _left(clusters, met)
    stored = state(context, time).members
    members = _members(clusters, current, kind, channel, time)
    context.lake.append("members", by_entity.changed_members(members, stored))
    shown = _shown(snapshot, clusters, current, members, how, channel)
    changed = _changed(context, shown, kind, channel, time, how.refresh)
    context.lake.append("groups", changed)
    is_later, clusters.as_of = clusters.as_of != time, time
    if len(came) or admitted.split or changed.num_rows or is_later:
        save(context, clusters, kind, channel)
    return clusters, Formed(
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
        next_drift=_drift(clusters, names, matrix),
    )


def _of_catalogue(ids: pa.Array, matrix: Floats, given: Inputs) -> tuple[pa.Array, Floats]:
    """Vectors of items that the catalogue lacks are left out: nothing could be said of them."""
    inside = pc.is_in(ids, value_set=given.items[given.item.name].combine_chunks())
    if pc.all(inside, min_count=0).as_py():
        return ids, matrix
    return ids.filter(inside), matrix[inside.to_numpy(zero_copy_only=False)]


def _current(clusters: ClusterState, given: Inputs, kind: Kind) -> Flags:
    """Points that count now: an item that left the catalogue keeps its place, and shows no group.

    Where it comes back, it is in the group that it was in.
    """
    if kind == "user":
        return clusters.live
    keys = given.items[given.item.name].cast(pa.string()).combine_chunks()
    inside = pc.is_in(clusters.ids, value_set=keys)
    current: Flags = clusters.live & inside.to_numpy(zero_copy_only=False)
    return current


def _retired(clusters: ClusterState, names: pa.Array, cold: Flags) -> npt.NDArray[np.int64]:
    """Points of cold items that were met since: they lose them, to be placed anew."""
    points = np.flatnonzero(clusters.cold & clusters.live)
    warm = names.filter(pa.array(~cold))
    met = points[np.asarray(pc.is_in(clusters.names(points), value_set=warm), np.bool_)]
    clusters.live[met] = False
    return met


def _left(clusters: ClusterState, met: npt.NDArray[np.int64]) -> int:
    """How many of those that lost a point are in another group now, by their last one."""
    wanted = clusters.names(met)
    points = np.flatnonzero(pc.is_in(clusters.ids, value_set=wanted))
    last = dict(zip(clusters.names(points).to_pylist(), points.tolist(), strict=True))
    labels = clusters.labels
    pairs = zip(wanted.to_pylist(), met.tolist(), strict=True)
    return sum(int(labels[last[name]] != labels[point]) for name, point in pairs)


def _newcomers(clusters: ClusterState, names: pa.Array, seed: int) -> npt.NDArray[np.int64]:
    """Rows of entities that are not placed, in an order that no sorting of ids can make bad."""
    present = clusters.names(np.flatnonzero(clusters.live))
    rows = np.flatnonzero(pc.invert(pc.is_in(names, value_set=present))).astype(np.int64)
    return np.random.default_rng([seed, len(present)]).permutation(rows)


def _drift(clusters: ClusterState, names: pa.Array, matrix: Floats) -> float:
    points = np.flatnonzero(clusters.live)
    at = pc.fill_null(pc.index_in(clusters.names(points), value_set=names), -1).to_numpy()
    then, today = points[at >= 0], at[at >= 0]
    if not len(then):
        return 0.0
    a, b = clusters.placed[then].astype(np.float64), matrix[today].astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(norms > 0, norms, 1)
    return float(np.clip(1 - cosines[norms > 0], 0, 2).mean()) if (norms > 0).any() else 0.0


def _check_width(
    project: DeclaredProject, clusters: ClusterState, matrix: Floats, kind: Kind
) -> None:
    if len(clusters.ids) and len(matrix) and matrix.shape[1] != clusters.placed.shape[1]:
        raise ClusterError(
            f"vectors of {kind}s keep their length: groups were formed by it",
            detail=f"{matrix.shape[1]} floats, {clusters.placed.shape[1]} before",
            hint="hand in vectors of the old length (attributes add to it); or move "
            f"{folder(project)} away to form groups anew",
        )


def _members(
    clusters: ClusterState, current: Flags, kind: Kind, channel: str, time: datetime
) -> pa.Table:
    points = np.flatnonzero(current)
    count, (groups, at) = len(points), np.unique(clusters.labels[points], return_inverse=True)
    names = pa.array([group_id(label, kind, channel) for label in groups.tolist()], pa.string())
    columns = {
        "kind": pa.repeat(kind, count),
        "channel": pa.repeat(channel, count),
        "owner": clusters.names(points),
        "group": names.take(pa.array(at)),
        "event_timestamp": pa.repeat(pa.scalar(time, schema.TIMESTAMP), count),
        "created_timestamp": pa.repeat(pa.scalar(now(), schema.TIMESTAMP), count),
    }
    return pa.table(columns).cast(schema.MEMBERS)


def _shown(
    snapshot: _Snapshot,
    clusters: ClusterState,
    current: Flags,
    members: pa.Table,
    how: Collective,
    channel: str,
) -> Iterator[tuple[str, list[str]]]:
    """Each group and the items it is shown by."""
    from reki_feast.clustering import central

    if how.kind == "user":
        seen, tables = snapshot.seen, snapshot.context.tables
        rows = seen.filter(pc.equal(seen["liked"], channel == "liked"))
        keys = {"user": tables.user.name, "item": tables.item.name}
        table = knowledge.most_clicked(rows, members, **keys, d=how.shown)
        yield from zip(table["group"].to_pylist(), table["shown"].to_pylist(), strict=True)
        return
    counted = np.flatnonzero(current)
    if not len(counted):
        return
    order = counted[np.argsort(clusters.labels[counted], kind="stable")]
    for points in np.split(order, np.flatnonzero(np.diff(clusters.labels[order])) + 1):
        name = group_id(int(clusters.labels[points[0]]), how.kind, channel)
        shown = clusters.names(central(clusters.tree.maps_, points, how.shown))
        yield name, shown.drop_null().to_pylist()


def _changed(
    project: DeclaredProject,
    shown: Iterator[tuple[str, list[str]]],
    kind: Kind,
    channel: str,
    time: datetime,
    refresh: float,
) -> pa.Table:
    """Groups that are new, or whose shown items changed by more than a share."""
    stored = groups_of(project, time).filter(
        (pc.field("kind") == kind) & (pc.field("channel") == channel)
    )
    before = dict(zip(stored["group"].to_pylist(), stored["shown"].to_pylist(), strict=True))
    times = {"event_timestamp": time, "created_timestamp": now()}
    rows = [
        {
            "kind": kind,
            "channel": channel,
            "group": name,
            "shown": items,
            "hash": schema.content_hash(*items),
            **times,
        }
        for name, items in shown
        if _share_new(items, before.get(name, [])) > refresh
    ]
    return pa.Table.from_pylist(rows, schema=schema.GROUPS)


def _share_new(items: list[str], before: list[str]) -> float:
    """Share of the items that were not shown before.

    >>> _share_new(["a", "b"], ["b", "c"]), _share_new(["a"], [])
    (0.5, 1.0)
    """
    return len(set(items) - set(before)) / len(items) if items else 0.0
