"""Groups of bounded size over a cluster tree: formed once, kept as points come.

A plain cut of a tree at a size leaves a group for every stray point. Here strays of one
neighbourhood share a group, so that groups are at least half full (but for the last one), and n
points make at most 2 n / cap + 1 of them: what collective extraction pays for is groups
(REKI, arXiv 2408.10520, section 4.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reki_feast.clustering.compiled import compiled
from reki_feast.clustering.kernel import Maps
from reki_feast.clustering.shape import Labels
from reki_feast.clustering.tree import Ints, Tree
from reki_feast.errors import ClusterError


def partition(tree: Tree, cap: int) -> Labels:
    """Groups of at most ``cap`` points, numbered from 0 in the order of their first points.

    From the leaves up, what is not yet in a group of its own joins its sister's rest while both
    together fit; where they do not, the larger becomes a group, and the smaller one too if it is
    half full.

    Args:
        tree: n points.
        cap: points of a group, at most.

    Returns:
        Int64 ``[n]``, the group of each point.

    Raises:
        ClusterError: ``cap`` is below 1.
    """
    _has_room(cap)
    if not tree.points:
        return np.empty(0, np.int64)
    labels = np.empty(tree.points, np.int64)
    _partition(tree, cap, tree.root, labels)
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[codes]


@compiled
def _partition(tree: Tree, cap: int, root: int, labels: Labels) -> None:
    nodes = tree.nodes
    count = 2 * len(labels) - 1
    order = np.empty(count, np.int32)
    order[0], seen, ends = root, 0, 1
    while seen < ends:  # parents before children
        node = order[seen]
        seen += 1
        if node % 2 == 1:
            order[ends], order[ends + 1] = nodes[node].left, nodes[node].right
            ends += 2
    rest = np.ones(count, np.int32)
    closed = np.zeros(count, np.bool_)
    closed[root] = True
    for place in range(count - 1, -1, -1):
        node = order[place]
        if node % 2 == 0:
            continue
        a, b = nodes[node].left, nodes[node].right
        large, small = (a, b) if rest[a] >= rest[b] else (b, a)
        rest[node] = rest[a] + rest[b]
        if rest[node] > cap:
            closed[large] = True
            rest[node] = rest[small]
            if 2 * rest[small] > cap:
                closed[small] = True
                rest[node] = 0
    group = np.empty(count, np.int64)
    for place in range(count):
        node = order[place]
        group[node] = node if closed[node] else group[nodes[node].parent]
        if node % 2 == 0:
            labels[node // 2] = group[node]


@dataclass(frozen=True)
class Admitted:
    """How groups took in new points.

    Attributes:
        labels: int64 ``[n]``, the group of every point, old ones included.
        split: pairs of a group and the new one that was split off it, in order.
        moved: int64, the points that were known and are now in another group.
    """

    labels: Labels
    split: list[tuple[int, int]]
    moved: Labels


def admit(
    tree: Tree, labels: Labels, cap: int, live: npt.NDArray[np.bool_] | None = None
) -> Admitted:
    """Put points that came since into groups: each into that of the leaf it split.

    A group that passes ``cap`` is split where the tree parts its points most evenly; the larger
    part stays the group, so that few points move.

    Args:
        tree: n points.
        labels: int64 ``[k]``, groups of the first k points; none: :func:`partition` forms them.
        cap: points of a group, at most.
        live: bool ``[n]``, the points that count and may move; the others only show the way to
            those that came after them. None: all.

    Returns:
        The groups of all n points, and what has changed.

    Raises:
        ClusterError: ``cap`` is below 1.
    """
    _has_room(cap)
    if not len(labels):
        return Admitted(partition(tree, cap), [], np.empty(0, np.int64))
    known = len(labels)
    found = np.empty(tree.points, np.int64)
    found[:known] = labels
    _follow(found, known, np.ascontiguousarray(tree.nodes["near"][: 2 * tree.points : 2]))
    joined = found.copy()
    split: list[tuple[int, int]] = []
    fresh = int(labels.max()) + 1
    counted = np.arange(len(found)) if live is None else np.flatnonzero(live)
    sizes = np.bincount(found[counted])
    in_order = counted[np.argsort(found[counted], kind="stable")]
    by_group = np.split(in_order, np.cumsum(sizes)[:-1])
    under = np.zeros(max(2 * tree.points - 1, 0), np.int64)
    for group in np.flatnonzero(sizes > cap).tolist():
        waiting = [(group, by_group[group])]
        while waiting:
            one, members = waiting.pop()
            if len(members) <= cap:
                continue
            leaving = _smaller_half(tree, members, under)
            found[leaving] = fresh
            split.append((one, fresh))
            staying = np.setdiff1d(members, leaving, assume_unique=True)
            waiting += [(one, staying), (fresh, leaving)]
            fresh += 1
    return Admitted(found, split, np.flatnonzero(joined[:known] != found[:known]))


def _has_room(cap: int) -> None:
    if cap < 1:
        raise ClusterError(
            "a group holds 1 point or more", detail=f"cap={cap}", hint="raise the cap"
        )


@compiled
def _follow(labels: Labels, known: int, near: Ints) -> None:
    for point in range(known, len(labels)):
        labels[point] = labels[near[point]]


def _smaller_half(tree: Tree, members: Labels, under: Labels) -> Labels:
    """The members on the smaller side of the link of the tree that parts them most evenly.

    Args:
        tree: n points.
        members: some of them, rising.
        under: ``[2 n - 1]``, zeros, and so again afterwards.
    """
    inside = np.zeros(len(members), np.bool_)
    _part_evenly(tree, members, under, inside)
    half, count = 2 * int(inside.sum()), len(members)
    leaves_inside = half < count or (half == count and not inside[0])
    leaving: Labels = members[inside if leaves_inside else ~inside]
    return leaving


@compiled
def _part_evenly(tree: Tree, members: Labels, under: Labels, inside: npt.NDArray[np.bool_]) -> None:
    """Mark the members under that node; of several the one of the lowest number."""
    nodes, count = tree.nodes, len(members)
    for point in members:
        node = 2 * point
        while node >= 0:
            under[node] += 1
            node = nodes[node].parent
    best, most = -1, -1
    for point in members:
        node = 2 * point
        while node >= 0:
            even = min(under[node], count - under[node])
            if even > most or (even == most and node < best):
                best, most = node, even
            node = nodes[node].parent
    for place in range(count):
        node = 2 * members[place]
        while node >= 0:
            under[node] = 0
            inside[place] |= node == best
            node = nodes[node].parent


def central(maps: Maps, members: Labels, count: int) -> Labels:
    """The members nearest to their centre: most alike to the sum of their maps, earlier ones first.

    Args:
        maps: ``[n, t]`` of :class:`~reki_feast.clustering.kernel.IsolationKernel`.
        members: points, rising.
        count: how many, at most.

    Returns:
        Points, the nearest first.
    """
    mine = maps[members].astype(np.int64)
    cells = mine + np.arange(mine.shape[1]) * (int(mine.max(initial=0)) + 1)
    shared = np.bincount(cells.ravel())[cells].sum(axis=1)
    nearest: Labels = members[np.argsort(-shared, kind="stable")[:count]]
    return nearest
