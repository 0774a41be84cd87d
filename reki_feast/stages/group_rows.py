"""Rows of groups: who is a member, which items a group is shown by, and which changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge, schema
from reki_feast.declare import Collective
from reki_feast.project import DeclaredProject, now
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_state import (
    ClusterState,
    Flags,
    group_id,
)
from reki_feast.stages.group_vectors import Vectors
from reki_feast.stages.snapshots import groups_of


@dataclass(frozen=True)
class GroupSnapshot:
    """What groups of one time are formed from: the interactions before it, and vectors."""

    context: StageContext
    time: datetime
    seen: pa.Table
    vectors: Vectors


def member_rows(
    clusters: ClusterState, current: Flags, kind: Kind, channel: str, time: datetime
) -> pa.Table:
    """``schema.MEMBERS``: who is in which group as of a time."""
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


def shown_items(
    snapshot: GroupSnapshot,
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


def changed_groups(
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
