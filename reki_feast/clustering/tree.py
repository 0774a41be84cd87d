"""The cluster tree: creation, growth and insertion of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast.clustering.kernel import Maps
from reki_feast.clustering.tree_kernels import (
    DENSE,
    FREE,
    NODE,
    ROWS,
    Ints,
    Tree,
    insert_points,
)

__all__ = [
    "FREE",
    "MIN_POINTS",
    "NODE",
    "ROWS",
    "Ints",
    "Tree",
    "empty",
    "grown",
    "insert",
    "with_room",
]


def _min_points(slope: float = 6.0, free: int = 32) -> npt.NDArray[np.int64]:
    """For each path length, the number of points below which such a path is rebalanced.

    A path may have ``free + slope * log2(points)`` nodes: half as long again as in shuffled data.
    """
    height = np.arange(free + int(31 * slope))
    return np.ceil(2.0 ** np.maximum((height - free) / slope, 0)).astype(np.int64)


MIN_POINTS = _min_points()


def empty(width: int) -> Tree:
    """A tree without points, for maps of ``width`` = t * psi."""
    return Tree(
        nodes=np.zeros(0, NODE),
        sums=np.zeros((1, width), np.uint32),
        free=np.empty(1, np.int32),
        state=np.array([0, 1, 0, 0], np.int64),
    )


def with_room(tree: Tree, points: int) -> Tree:
    """The tree with capacity for so many points in all."""
    rows = points // DENSE + 8
    return tree._replace(
        nodes=grown(tree.nodes, 2 * points, 2 * tree.points),
        sums=grown(tree.sums, rows, int(tree.state[ROWS])),
        free=grown(tree.free, rows, int(tree.state[FREE])),
    )


def grown(array: npt.NDArray[Any], wanted: int, used: int) -> npt.NDArray[Any]:
    """The array if it is long enough, else a copy at least half as long again.

    Only the ``used`` elements are copied: memory that is never written is not allocated.
    """
    if len(array) >= wanted:
        return array
    more = np.zeros((max(wanted, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    more[:used] = array[:used]
    return more


def insert(
    tree: Tree,
    maps: Maps,
    last: int,
    min_points: npt.NDArray[np.int64] = MIN_POINTS,
    beam: int = 1,
) -> None:
    """Insert the points from the first one not in the tree up to ``last`` (not included).

    Args:
        tree: Has capacity for ``last`` points.
        maps: ``[points, t]``.
        last: number of points in the tree afterwards.
        min_points: ``min_points[h]``: points below which a node with a path of h nodes under it is
            rebalanced.
        beam: Nodes of a level that the search continues from; 1 is the paper's descent.
    """
    # numba caches no function on disk that has arrays as defaults: hence this wrapper
    insert_points(tree, maps, last, min_points, beam)
