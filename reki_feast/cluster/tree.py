"""The cluster tree of StreaKHC as arrays, and the compiled walk that a new point takes.

Han, Zhu, Ting, Zhan and Li, "Streaming Hierarchical Clustering Based on Point-Set Kernel", KDD
2022, algorithm 1. A node stands for the points under it; a new point goes down from the root, each
time to the child whose points it resembles more, and splits the leaf it reaches. Resemblance is
the cosine between the point's map and the sum of the node's maps (equation 4).

What the paper lacks: a greedy walk errs near the root, where a point's own cluster is a small part
of both children, and never takes back what the first points decided. So the search may go on from
several nodes of a level (a beam); and a node whose points have doubled is rotated where its
grandchild's average similarity to its child is larger than to its sister. Both lift dendrogram
purity above the paper's.

Point k is leaf 2k; its coming made the internal node 2k - 1. So leaves are even, internal nodes
odd, and no further bookkeeping tells them apart.

What makes it fast:

* A point's map is t small integers. The dot product with a node's sum is t look-ups; of two
  children only one is looked up, since the parent's is known and the two add up to it.
* Sums are kept in rows of ``sums``, and only where both children of a node have at least ``DENSE``
  points, for one of the two. There are fewer than n / DENSE such nodes in any tree. Smaller nodes
  are compared point by point.
* A sum's squared norm follows from the dot products met on the way down.
* A node is looked at for a better shape only when its points have doubled (:func:`_rotate`).
* A path is never much longer than the logarithm of the points below it
  (:func:`_lowest_too_deep`), so no order of arrival makes a point's walk long.

All of it stands in one file: numba's cache notices changes in the file of a function, not in those
it calls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reki_feast.cluster.compiled import compiled
from reki_feast.cluster.kernel import Maps

Ints = npt.NDArray[np.int32]
Sums = npt.NDArray[np.uint32]

#: A node's sum is kept in a row when it and its sibling have at least so many points.
DENSE = 16
#: Similarities are equal up to this relative difference; then the smaller child gets the point.
_EQUAL = 1e-9
#: Up to so many pairs are compared one by one; beyond, a sum pays.
_FEW_PAIRS = 16
_NONE = -1
_ROOT_ROW = 0
# places in Tree.state
POINTS, ROWS, FREE, REBALANCED = 0, 1, 2, 3


def _least_points(slope: float = 6.0, free: int = 32) -> npt.NDArray[np.int64]:
    """For each length of path, the points a node needs for such a path below it to be let be.

    A path of ``free + slope * log2(points)``: half as long again as shuffled data make.
    """
    height = np.arange(free + int(31 * slope))
    return np.ceil(2.0 ** np.maximum((height - free) / slope, 0)).astype(np.int64)


LEAST = _least_points()


#: One node, 32 bytes side by side, so that a step of a walk costs one cache line.
NODE = np.dtype(
    [
        ("left", np.int32),
        ("right", np.int32),
        ("parent", np.int32),
        ("size", np.int32),
        ("norm2", np.float64),
        ("row", np.int32),
        ("near", np.int32),
    ]
)


class Tree(NamedTuple):
    """A binary tree over n points, in arrays with room for more.

    Attributes:
        nodes: of :data:`NODE`. ``left`` and ``right``: an inner node's children. ``parent``: -1
            for the root. ``size``: points under a node. ``norm2``: squared norm of its sum of
            maps, a whole number. ``row``: the row of ``sums`` that holds that sum, -1 without one.
            ``near``, of a leaf: the point whose leaf this one split when it came, -1 for the first.
        sums: uint32 ``[rows, t * psi]``; row 0 is the root's.
        free: int32 ``[rows]``, rows given back.
        state: int64: points, rows in use, rows in ``free``, paths rebalanced so far.
    """

    nodes: npt.NDArray[Any]
    sums: Sums
    free: Ints
    state: npt.NDArray[np.int64]

    @property
    def points(self) -> int:
        """Points in the tree."""
        return int(self.state[POINTS])

    @property
    def root(self) -> int:
        """The root's number; there is one as soon as there is a point."""
        return 1 if self.points > 1 else 0


def empty(width: int) -> Tree:
    """A tree without points, for maps of ``width`` = t * psi."""
    return Tree(
        nodes=np.zeros(0, NODE),
        sums=np.zeros((1, width), np.uint32),
        free=np.empty(1, np.int32),
        state=np.array([0, 1, 0, 0], np.int64),
    )


def with_room(tree: Tree, points: int) -> Tree:
    """The tree with room for so many points in all."""
    rows = points // DENSE + 8
    return tree._replace(
        nodes=grown(tree.nodes, 2 * points, 2 * tree.points),
        sums=grown(tree.sums, rows, int(tree.state[ROWS])),
        free=grown(tree.free, rows, int(tree.state[FREE])),
    )


def grown(array: npt.NDArray[Any], wanted: int, used: int) -> npt.NDArray[Any]:
    """The array if it is long enough, else a longer one, by half at least, of the same beginning.

    Only the ``used`` places are copied: what is never written takes no memory.
    """
    if len(array) >= wanted:
        return array
    more = np.zeros((max(wanted, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    more[:used] = array[:used]
    return more


@compiled
def first_leaf(tree: Tree, node: int) -> int:
    """The leftmost leaf under a node."""
    nodes = tree.nodes
    while node % 2 == 1:
        node = nodes[node].left
    return node


@compiled
def next_leaf(tree: Tree, leaf: int, top: int) -> int:
    """The leaf after this one under ``top``, -1 after the last; climbs, so needs no stack."""
    nodes = tree.nodes
    node = leaf
    while node != top:
        above = nodes[node].parent
        if nodes[above].left == node:
            return first_leaf(tree, nodes[above].right)
        node = above
    return _NONE


class Trail(NamedTuple):
    """The nodes that a search met, in arrays with room for more; the first is the root.

    Attributes:
        node: int32, its number.
        back: int32, where in the trail its parent stands, -1 for the root.
        dot: int64, its sum's dot product with the point.
        like: float64, that divided by the sum's norm.
    """

    node: Ints
    back: Ints
    dot: npt.NDArray[np.int64]
    like: npt.NDArray[np.float64]


def insert(
    tree: Tree,
    maps: Maps,
    last: int,
    least: npt.NDArray[np.int64] = LEAST,
    beam: int = 1,
) -> None:
    """Put the points from the first one not in the tree to ``last`` (not included) into it.

    Args:
        tree: has room for ``last`` points.
        maps: ``[points, t]``.
        last: number of points in the tree afterwards.
        least: ``least[h]``: points a node must have for a path of h nodes below it to be let be.
        beam: nodes of a level that the search for a leaf goes on from; 1 is the paper's walk.
    """
    _insert(tree, maps, last, least, beam)  # numba keeps nothing on disk for arrays as defaults


@compiled
def _insert(tree: Tree, maps: Maps, last: int, least: npt.NDArray[np.int64], beam: int) -> None:
    nodes = tree.nodes
    t = maps.shape[1]
    psi = tree.sums.shape[1] // t
    trail = _trail(512 * beam)
    chosen = np.empty(beam, np.int32)
    path = np.empty(256, np.int32)
    scratch = np.empty(tree.sums.shape[1], np.uint32)
    at = np.empty(t, np.int32)
    for k in range(tree.state[POINTS], last):
        for j in range(t):
            at[j] = j * psi + maps[k, j]
        if k == 0:
            nodes[0].parent, nodes[0].size, nodes[0].norm2, nodes[0].row = _NONE, 1, t, _ROOT_ROW
            nodes[0].near = _NONE
            _add(tree.sums[_ROOT_ROW], at)
            tree.state[POINTS] = 1
            continue
        trail.node[0], trail.back[0] = (1 if k > 1 else 0), _NONE
        trail.dot[0] = _look_up(tree.sums[_ROOT_ROW], at)
        found, trail = _search(tree, maps, k, at, trail, chosen)
        leaf, dot = trail.node[found], trail.dot[found]
        depth, place = 0, trail.back[found]
        while place >= 0:
            depth, place = depth + 1, trail.back[place]
        if depth + 1 > len(path):
            path = np.empty(2 * depth, np.int32)
        place = trail.back[found]
        for step in range(depth - 1, -1, -1):
            path[step], place = place, trail.back[place]
        for step in range(depth):  # a sum that a node above begins to keep lacks this point yet
            place = path[step]
            path[step] = trail.node[place]
            _join(tree, maps, at, path[step], trail.dot[place])
        _split(tree, t, k, leaf, dot, at)
        top = _lowest_too_deep(tree, path, depth, least)
        if top >= 0:
            path[depth] = 2 * k - 1
            _rebalance(tree, maps, path[: depth + 1], top)
        node = nodes[2 * k - 1].parent
        while node >= 0:
            if nodes[node].size & (nodes[node].size - 1) == 0:
                _rotate(tree, maps, node, scratch)
            node = nodes[node].parent


@compiled
def _trail(room: int) -> Trail:
    return Trail(
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int64),
        np.empty(room, np.float64),
    )


@compiled
def _search(
    tree: Tree, maps: Maps, k: int, at: Ints, trail: Trail, chosen: Ints
) -> tuple[int, Trail]:
    """Where in the trail the leaf stands that point k belongs to; the trail, perhaps a longer one.

    Level by level, the search goes on from the ``len(chosen)`` nodes that the point resembles
    most; of all leaves that it meets the one that resembles most is found.
    """
    beam = len(chosen)
    chosen[0] = 0
    going, start, end, best = 1, 0, 1, _NONE
    if trail.node[0] % 2 == 0:
        return 0, trail
    while going > 0:
        if end + 2 * beam > len(trail.node):
            longer = _trail(2 * len(trail.node))
            longer.node[:end], longer.back[:end] = trail.node[:end], trail.back[:end]
            longer.dot[:end], longer.like[:end] = trail.dot[:end], trail.like[:end]
            trail = longer
        start = end
        for one in range(going):
            _meet_children(tree, maps, k, at, trail, chosen[one], end)
            end += 2
        # the best of the level, best first; leaves among them are found, not gone on from
        going, waiting = 0, min(beam, end - start)
        for rank in range(waiting):
            top = start + rank
            for place in range(top + 1, end):
                if _is_better(tree, trail, place, top):
                    top = place
            _swap(trail, start + rank, top)
            if trail.node[start + rank] % 2 == 1:
                chosen[going] = start + rank
                going += 1
            elif best < 0 or _is_better(tree, trail, start + rank, best):
                best = start + rank
    return best, trail


@compiled
def _meet_children(
    tree: Tree, maps: Maps, k: int, at: Ints, trail: Trail, place: int, end: int
) -> None:
    """Write the two children of a node of the trail to ``end`` and behind it."""
    nodes = tree.nodes
    node, dot = trail.node[place], trail.dot[place]
    a, b = nodes[node].left, nodes[node].right
    if nodes[a].row >= 0:
        dot_a = _look_up(tree.sums[nodes[a].row], at)
    elif nodes[b].row >= 0:
        dot_a = dot - _look_up(tree.sums[nodes[b].row], at)
    elif nodes[a].size <= nodes[b].size:
        dot_a = _compare(tree, maps, a, k)
    else:
        dot_a = dot - _compare(tree, maps, b, k)
    trail.node[end], trail.back[end], trail.dot[end] = a, place, dot_a
    trail.like[end] = dot_a / np.sqrt(nodes[a].norm2)
    trail.node[end + 1], trail.back[end + 1], trail.dot[end + 1] = b, place, dot - dot_a
    trail.like[end + 1] = (dot - dot_a) / np.sqrt(nodes[b].norm2)


@compiled
def _is_better(tree: Tree, trail: Trail, one: int, other: int) -> bool:
    """Whether a node of the trail resembles the point more than another; of equals the smaller."""
    like, than = trail.like[one], trail.like[other]
    if abs(like - than) <= _EQUAL * max(like, than):
        sizes = tree.nodes[trail.node[one]].size, tree.nodes[trail.node[other]].size
        return bool(sizes[0] < sizes[1])
    return bool(like > than)


@compiled
def _swap(trail: Trail, one: int, other: int) -> None:
    trail.node[one], trail.node[other] = trail.node[other], trail.node[one]
    trail.back[one], trail.back[other] = trail.back[other], trail.back[one]
    trail.dot[one], trail.dot[other] = trail.dot[other], trail.dot[one]
    trail.like[one], trail.like[other] = trail.like[other], trail.like[one]


@compiled
def _join(tree: Tree, maps: Maps, at: Ints, node: int, dot: int) -> None:
    """Add a point to a node on its way."""
    nodes = tree.nodes
    nodes[node].size += 1
    nodes[node].norm2 += 2 * dot + len(at)
    if nodes[node].row >= 0:
        _add(tree.sums[nodes[node].row], at)
    if nodes[nodes[node].left].row < 0 and nodes[nodes[node].right].row < 0:
        _keep_one_row(tree, maps, node)


@compiled
def _keep_one_row(tree: Tree, maps: Maps, node: int) -> None:
    """See that one child's sum is in a row where both have ``DENSE`` points."""
    child = _new_row(tree, node)
    if child >= 0:
        _gather(tree, maps, child, tree.sums[tree.nodes[child].row])


@compiled
def _new_row(tree: Tree, node: int) -> int:
    """Give a row to the smaller child where both have ``DENSE`` points and none has one.

    Rows that are not needed are given back. The child whose row is to be filled; -1 for none.
    """
    nodes = tree.nodes
    a, b = nodes[node].left, nodes[node].right
    if min(nodes[a].size, nodes[b].size) < DENSE:
        _give_row(tree, a)
        _give_row(tree, b)
        return _NONE
    if nodes[a].row >= 0:
        _give_row(tree, b)
        return _NONE
    if nodes[b].row >= 0:
        return _NONE
    small = a if nodes[a].size <= nodes[b].size else b
    return small if _take_row(tree, small) else _NONE


@compiled
def _rotate(tree: Tree, maps: Maps, node: int, scratch: Sums) -> None:
    """Bring together the two of a node's child and two grandchildren that resemble most.

    Resemblance here is average linkage: the dot product of two sums over the pairs it counts. The
    grandchild left over takes the child's place.
    """
    nodes = tree.nodes
    for side in range(2):
        inner = nodes[node].left if side == 0 else nodes[node].right
        aunt = nodes[node].right if side == 0 else nodes[node].left
        if inner % 2 == 0:
            continue
        a, b = nodes[inner].left, nodes[inner].right
        within = (nodes[inner].norm2 - nodes[a].norm2 - nodes[b].norm2) / 2
        across = (nodes[node].norm2 - nodes[inner].norm2 - nodes[aunt].norm2) / 2
        dot_a = _dot(tree, maps, a, aunt, scratch) if nodes[a].size <= nodes[b].size else -1.0
        if dot_a < 0:
            dot_a = across - _dot(tree, maps, b, aunt, scratch)
        dot_b = across - dot_a
        size_a, size_b, size_c = float(nodes[a].size), float(nodes[b].size), float(nodes[aunt].size)
        like_a, like_b = dot_a / (size_a * size_c), dot_b / (size_b * size_c)
        if max(like_a, like_b) <= within / (size_a * size_b) * (1 + _EQUAL):
            continue
        stays, leaves, dot = (a, b, dot_a) if like_a >= like_b else (b, a, dot_b)
        _give_row(tree, inner)
        nodes[inner].left, nodes[inner].right = stays, aunt
        nodes[node].left, nodes[node].right = inner, leaves
        nodes[aunt].parent, nodes[leaves].parent = inner, node
        nodes[inner].size = nodes[stays].size + nodes[aunt].size
        nodes[inner].norm2 = nodes[stays].norm2 + nodes[aunt].norm2 + 2 * dot
        _keep_one_row(tree, maps, inner)
        _keep_one_row(tree, maps, node)
        return


@compiled
def _dot(tree: Tree, maps: Maps, small: int, other: int, scratch: Sums) -> float:
    """Dot product of two nodes' sums, over the points of the first."""
    nodes = tree.nodes
    t = maps.shape[1]
    psi = len(scratch) // t
    few = nodes[small].size * nodes[other].size <= _FEW_PAIRS
    total = scratch
    if nodes[other].row >= 0:
        total = tree.sums[nodes[other].row]
    elif not few:
        _gather(tree, maps, other, scratch)
    dot = 0
    leaf = first_leaf(tree, small)
    while leaf >= 0:
        if few:
            dot += _compare(tree, maps, other, leaf // 2)
        else:
            for j in range(t):
                dot += total[j * psi + maps[leaf // 2, j]]
        leaf = next_leaf(tree, leaf, small)
    return float(dot)


@compiled
def _split(tree: Tree, t: int, k: int, leaf: int, dot: int, at: Ints) -> None:
    """Put point k beside the leaf that it reached, under a new node in the leaf's place."""
    nodes = tree.nodes
    inner, new = 2 * k - 1, 2 * k
    above = nodes[leaf].parent
    nodes[inner].left, nodes[inner].right, nodes[inner].parent = leaf, new, above
    nodes[inner].size, nodes[inner].norm2, nodes[inner].row = 2, 2 * t + 2 * dot, _NONE
    nodes[new].parent, nodes[new].size, nodes[new].norm2, nodes[new].row = inner, 1, t, _NONE
    nodes[leaf].parent = inner
    if above >= 0:
        if nodes[above].left == leaf:
            nodes[above].left = inner
        else:
            nodes[above].right = inner
    else:
        nodes[inner].row, nodes[leaf].row = _ROOT_ROW, _NONE
        _add(tree.sums[_ROOT_ROW], at)
    nodes[2 * k].near = leaf // 2
    tree.state[POINTS] = k + 1


@compiled
def _look_up(total: Sums, at: Ints) -> int:
    dot = 0
    for j in range(len(at)):
        dot += total[at[j]]
    return dot


@compiled
def _add(total: Sums, at: Ints) -> None:
    for j in range(len(at)):
        total[at[j]] += np.uint32(1)


@compiled
def _compare(tree: Tree, maps: Maps, node: int, k: int) -> int:
    """Dot product of point k with a node's sum, point by point."""
    t = maps.shape[1]
    mine = maps[k]
    dot = 0
    leaf = first_leaf(tree, node)
    while leaf >= 0:
        other = maps[leaf // 2]
        same = np.int32(0)
        for j in range(t):
            same += np.int32(mine[j] == other[j])
        dot += int(same)
        leaf = next_leaf(tree, leaf, node)
    return dot


@compiled
def _gather(tree: Tree, maps: Maps, node: int, total: Sums) -> None:
    """A node's sum, point by point, in place of what ``total`` held."""
    t = maps.shape[1]
    psi = len(total) // t
    total[:] = np.uint32(0)
    leaf = first_leaf(tree, node)
    while leaf >= 0:
        for j in range(t):
            total[j * psi + maps[leaf // 2, j]] += np.uint32(1)
        leaf = next_leaf(tree, leaf, node)


@compiled
def _take_row(tree: Tree, node: int) -> bool:
    """Give a node a row of ``sums``; False when none is left, which only costs time."""
    nodes = tree.nodes
    if tree.state[FREE] > 0:
        tree.state[FREE] -= 1
        nodes[node].row = tree.free[tree.state[FREE]]
        return True
    if tree.state[ROWS] < len(tree.sums):
        nodes[node].row = tree.state[ROWS]
        tree.state[ROWS] += 1
        return True
    return False


@compiled
def _give_row(tree: Tree, node: int) -> None:
    nodes = tree.nodes
    if nodes[node].row >= 0:
        tree.free[tree.state[FREE]] = nodes[node].row
        tree.state[FREE] += 1
        nodes[node].row = _NONE


@compiled
def _lowest_too_deep(tree: Tree, path: Ints, depth: int, least: npt.NDArray[np.int64]) -> int:
    """The place in ``path`` of the lowest node with too long a path below it, -1 if none has."""
    nodes = tree.nodes
    for place in range(depth - 1, -1, -1):
        below = depth - place
        if below >= len(least) or nodes[path[place]].size < least[below]:
            return place
    return _NONE


@compiled
def _rebalance(tree: Tree, maps: Maps, path: Ints, top: int) -> None:
    """Replace the inner nodes below ``path[top]`` by a balanced tree over what hangs from them.

    What hangs from the path keeps its shape and its order, which is that of falling resemblance to
    the path's end; each part of the order becomes a node, split where the points halve.
    """
    nodes = tree.nodes
    depth = len(path)
    width = tree.sums.shape[1]
    # suffix[i]: sum of the path's i-th node from the top, i.e. of the parts i and after
    parts = depth - top + 1
    suffix = np.zeros((parts + 1, width), np.uint32)
    current = tree.sums[_ROOT_ROW].copy()
    scratch = np.empty(width, np.uint32)
    hanging = np.empty(parts, np.int32)
    for place in range(depth):
        node = path[place]
        down = path[place + 1] if place + 1 < depth else nodes[node].left
        other = nodes[node].left if nodes[node].right == down else nodes[node].right
        if place >= top:
            suffix[place - top] = current
            hanging[place - top] = other
        if nodes[down].row >= 0:
            current[:] = tree.sums[nodes[down].row]
        elif nodes[other].row >= 0:
            current -= tree.sums[nodes[other].row]
        elif nodes[down].size <= nodes[other].size:
            _gather(tree, maps, down, current)
        else:
            _gather(tree, maps, other, scratch)
            current -= scratch
    suffix[parts - 1] = current
    hanging[parts - 1] = nodes[path[depth - 1]].left
    before = np.zeros(parts + 1, np.int64)
    for i in range(parts):
        before[i + 1] = before[i] + nodes[hanging[i]].size
    for place in range(top + 1, depth):
        _give_row(tree, path[place])
    _build(tree, path[top:], hanging, before, suffix)
    tree.state[REBALANCED] += 1


@compiled
def _build(
    tree: Tree,
    spare: Ints,
    parts: Ints,
    before: npt.NDArray[np.int64],
    suffix: Sums,
) -> None:
    """A balanced tree over parts in order; ``spare[0]`` is its root, the others its inner nodes."""
    nodes = tree.nodes
    count = len(parts)
    low = np.empty(count, np.int32)
    high = np.empty(count, np.int32)
    owner = np.empty(count, np.int32)
    low[0], high[0], owner[0] = 0, count, spare[0]
    waiting, used = 1, 1
    while waiting > 0:
        waiting -= 1
        lo, hi, node = low[waiting], high[waiting], owner[waiting]
        cut = _halving(before, lo, hi)
        for side in range(2):
            start, end = (lo, cut) if side == 0 else (cut, hi)
            if end - start == 1:
                child = parts[start]
            else:
                child = spare[used]
                used += 1
                nodes[child].size = before[end] - before[start]
                nodes[child].norm2 = _norm2(suffix[start], suffix[end])
                low[waiting], high[waiting], owner[waiting] = start, end, child
                waiting += 1
            nodes[child].parent = node
            if side == 0:
                nodes[node].left = child
            else:
                nodes[node].right = child
        _keep_part_row(tree, node, suffix, lo, cut, hi)


@compiled
def _keep_part_row(tree: Tree, node: int, suffix: Sums, lo: int, cut: int, hi: int) -> None:
    """As :func:`_keep_one_row`, from sums at hand."""
    child = _new_row(tree, node)
    if child >= 0:
        start, end = (lo, cut) if child == tree.nodes[node].left else (cut, hi)
        total = tree.sums[tree.nodes[child].row]
        for j in range(len(total)):
            total[j] = suffix[start, j] - suffix[end, j]


@compiled
def _halving(before: npt.NDArray[np.int64], lo: int, hi: int) -> int:
    """The cut inside lo..hi that leaves the most equal numbers of points on both sides."""
    total = before[hi] + before[lo]
    best = lo + 1
    for cut in range(lo + 1, hi):
        if abs(2 * before[cut] - total) < abs(2 * before[best] - total):
            best = cut
    return best


@compiled
def _norm2(start: Sums, end: Sums) -> float:
    total = 0.0
    for j in range(len(start)):
        value = np.float64(start[j] - end[j])
        total += value * value
    return total
