"""Which entities have a point in a cluster tree, which lost it, and which come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import ClusterError
from reki_feast.project import DeclaredProject
from reki_feast.schema import Kind
from reki_feast.stages.group_state import (
    ClusterState,
    Flags,
    Floats,
    folder,
)
from reki_feast.tables.inputs import Inputs

#: Vectors that are compared at a time.
_ROWS = 1 << 16


def of_catalogue(ids: pa.Array, matrix: Floats, given: Inputs) -> tuple[pa.Array, Floats]:
    """Vectors of items that the catalogue lacks are left out: nothing could be said of them."""
    inside = pc.is_in(ids, value_set=given.items[given.item.name].combine_chunks())
    if pc.all(inside, min_count=0).as_py():
        return ids, matrix
    return ids.filter(inside), matrix[inside.to_numpy(zero_copy_only=False)]


def current_points(clusters: ClusterState, given: Inputs, kind: Kind) -> Flags:
    """Points that count now: an item that left the catalogue keeps its place, and shows no group.

    Where it comes back, it is in the group that it was in.
    """
    if kind == "user":
        return clusters.live
    keys = given.items[given.item.name].cast(pa.string()).combine_chunks()
    inside = pc.is_in(clusters.ids, value_set=keys)
    current: Flags = clusters.live & inside.to_numpy(zero_copy_only=False)
    return current


def retire_met(clusters: ClusterState, names: pa.Array, cold: Flags) -> npt.NDArray[np.int64]:
    """Points of cold items that were met since: they lose them, to be placed anew."""
    points = np.flatnonzero(clusters.cold & clusters.live)
    warm = names.filter(pa.array(~cold))
    met = points[np.asarray(pc.is_in(clusters.names(points), value_set=warm), np.bool_)]
    clusters.live[met] = False
    return met


def count_moved(clusters: ClusterState, met: npt.NDArray[np.int64]) -> int:
    """How many of those that lost a point are in another group now, by their last one."""
    wanted = clusters.names(met)
    points = np.flatnonzero(pc.is_in(clusters.ids, value_set=wanted))
    last = dict(zip(clusters.names(points).to_pylist(), points.tolist(), strict=True))
    labels = clusters.labels
    pairs = zip(wanted.to_pylist(), met.tolist(), strict=True)
    return sum(int(labels[last[name]] != labels[point]) for name, point in pairs)


def newcomers(clusters: ClusterState, names: pa.Array, seed: int) -> npt.NDArray[np.int64]:
    """Rows of entities that are not placed, in an order that no sorting of ids can make bad."""
    present = clusters.names(np.flatnonzero(clusters.live))
    rows = np.flatnonzero(pc.invert(pc.is_in(names, value_set=present))).astype(np.int64)
    return np.random.default_rng([seed, len(present)]).permutation(rows)


def mean_drift(clusters: ClusterState, names: pa.Array, matrix: Floats) -> float:
    """Mean cosine distance between the vectors entities have now and those they were placed by."""
    points = np.flatnonzero(clusters.live)
    at = pc.fill_null(pc.index_in(clusters.names(points), value_set=names), -1).to_numpy()
    then, today = points[at >= 0], at[at >= 0]
    parts = [slice(start, start + _ROWS) for start in range(0, len(then), _ROWS)]
    found = [_distances(clusters.placed[then[part]], matrix[today[part]]) for part in parts]
    distances = np.concatenate([np.empty(0), *found])
    return float(np.clip(distances, 0, 2).mean()) if len(distances) else 0.0


def _distances(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    """Cosine distances of rows, but of those where one is 0."""
    one, other = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / np.where(norms > 0, norms, 1)
    distances: npt.NDArray[np.float64] = 1 - cosines[norms > 0]
    return distances


def check_width(
    project: DeclaredProject, clusters: ClusterState, matrix: Floats, kind: Kind
) -> None:
    """Vectors keep their length.

    Raises:
        ClusterError: they are not as long as those that the groups were formed by.
    """
    if len(clusters.ids) and len(matrix) and matrix.shape[1] != clusters.placed.shape[1]:
        raise ClusterError(
            f"vectors of {kind}s keep their length: groups were formed by it",
            detail=f"{matrix.shape[1]} floats, {clusters.placed.shape[1]} before",
            hint="hand in vectors of the old length (attributes add to it); or move "
            f"{folder(project)} away to form groups anew",
        )
