"""The cluster tree of StreaKHC as arrays, and the compiled insertion of a new point.

Han, Zhu, Ting, Zhan and Li, "Streaming Hierarchical Clustering Based on Point-Set Kernel", KDD
2022, algorithm 1. A node represents the points under it; a new point descends from the root, each
time to the child whose points it is more similar to, and splits the leaf it reaches. Similarity is
the cosine between the point's feature map and the sum of the node's maps (equation 4).

Two additions to the paper: a greedy descent errs near the root, where a point's own cluster is a
small part of both children, and never revises what the first points decided. So the search may
continue from several nodes of a level (a beam); and a node whose points have doubled is rotated
where its grandchild's average similarity to its child is larger than to its sibling. Both lift
dendrogram purity above the paper's.

Point k is leaf 2k; its insertion created the internal node 2k - 1. So leaves are even, internal
nodes odd, and no further bookkeeping is needed to distinguish them.

What makes it fast:

* A point's map is t small integers. The dot product with a node's sum is t look-ups; of two
  children only one is looked up, since the parent's is known and is the sum of the two.
* Sums are stored in rows of ``sums``, and only where both children of a node have at least
  ``DENSE`` points, for one of the two. There are fewer than n / DENSE such nodes in any tree.
  Smaller nodes are compared point by point.
* A sum's squared norm follows from the dot products of the descent.
* A node is considered for rotation only when its points have doubled (:func:`_rotate`).
* A path is never much longer than the logarithm of the points below it
  (:func:`_lowest_too_deep`), so no order of arrival makes the insertion of a point slow.

All kernels, and the constants compiled into them, are in this one file: numba's cache on disk
notices changes of the file of a function, not of the functions and constants that it uses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reki_feast.clustering.compiled import compiled
from reki_feast.clustering.kernel import Maps

Ints = npt.NDArray[np.int32]
Sums = npt.NDArray[np.uint32]

#: A node's sum is kept in a row when it and its sibling have at least so many points.
DENSE = 16
#: Relative difference up to which similarities tie; the smaller child then gets the point.
_EQUAL = 1e-9
#: Up to so many pairs are compared one by one; beyond, a sum pays.
_FEW_PAIRS = 16
_NONE = -1
_ROOT_ROW = 0
# indices of Tree.state
POINTS, ROWS, FREE, REBALANCED = 0, 1, 2, 3


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
    """A binary tree over n points, in arrays with spare capacity.

    Attributes:
        nodes: of :data:`NODE`. ``left`` and ``right``: an inner node's children. ``parent``: -1
            for the root. ``size``: points under a node. ``norm2``: squared norm of its sum of
            maps, a whole number. ``row``: the row of ``sums`` that holds that sum, -1 without one.
            ``near``, of a leaf: the point whose leaf this one split when it came, -1 for the first.
        sums: uint32 ``[rows, t * psi]``; row 0 is the root's.
        free: int32 ``[rows]``, free rows.
        state: int64: points, rows in use, free rows, paths rebalanced so far.
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


@compiled
def first_leaf(tree: Tree, node: int) -> int:
    """The leftmost leaf under a node."""
    nodes = tree.nodes
    while node % 2 == 1:
        node = nodes[node].left
    return node


@compiled
def next_leaf(tree: Tree, leaf: int, top: int) -> int:
    """The next leaf under ``top``, -1 after the last; climbs, so needs no stack."""
    nodes = tree.nodes
    node = leaf
    while node != top:
        parent = nodes[node].parent
        if nodes[parent].left == node:
            return first_leaf(tree, nodes[parent].right)
        node = parent
    return _NONE


class SearchTrace(NamedTuple):
    """The nodes visited by a search, in arrays with spare capacity; the first is the root.

    Attributes:
        node: int32, its number.
        back: int32, index of its parent in the trace, -1 for the root.
        dot: int64, its sum's dot product with the point.
        similarity: float64, that divided by the sum's norm.
    """

    node: Ints
    back: Ints
    dot: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]


@compiled
def insert_points(
    tree: Tree, maps: Maps, last: int, min_points: npt.NDArray[np.int64], beam: int
) -> None:
    """Insert points into the tree; see :func:`reki_feast.clustering.tree.insert`."""
    nodes = tree.nodes
    t = maps.shape[1]
    psi = tree.sums.shape[1] // t
    trace = _new_trace(512 * beam)
    chosen = np.empty(beam, np.int32)
    path = np.empty(256, np.int32)
    scratch = np.empty(tree.sums.shape[1], np.uint32)
    cells = np.empty(t, np.int32)
    for k in range(tree.state[POINTS], last):
        for j in range(t):
            cells[j] = j * psi + maps[k, j]
        if k == 0:
            nodes[0].parent, nodes[0].size, nodes[0].norm2, nodes[0].row = _NONE, 1, t, _ROOT_ROW
            nodes[0].near = _NONE
            _add(tree.sums[_ROOT_ROW], cells)
            tree.state[POINTS] = 1
            continue
        trace.node[0], trace.back[0] = (1 if k > 1 else 0), _NONE
        trace.dot[0] = _dot_with_sum(tree.sums[_ROOT_ROW], cells)
        found, trace = _search(tree, maps, k, cells, trace, chosen)
        leaf, dot = trace.node[found], trace.dot[found]
        depth, place = 0, trace.back[found]
        while place >= 0:
            depth, place = depth + 1, trace.back[place]
        if depth + 1 > len(path):
            path = np.empty(2 * depth, np.int32)
        place = trace.back[found]
        for step in range(depth - 1, -1, -1):
            path[step], place = place, trace.back[place]
        for step in range(depth):  # a sum that an ancestor stores from now on lacks this point yet
            place = path[step]
            path[step] = trace.node[place]
            _add_point(tree, maps, cells, path[step], trace.dot[place])
        _split(tree, t, k, leaf, dot, cells)
        top = _lowest_too_deep(tree, path, depth, min_points)
        if top >= 0:
            path[depth] = 2 * k - 1
            _rebalance(tree, maps, path[: depth + 1], top)
        node = nodes[2 * k - 1].parent
        while node >= 0:
            if nodes[node].size & (nodes[node].size - 1) == 0:
                _rotate(tree, maps, node, scratch)
            node = nodes[node].parent


@compiled
def _new_trace(room: int) -> SearchTrace:
    return SearchTrace(
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int64),
        np.empty(room, np.float64),
    )


@compiled
def _search(
    tree: Tree, maps: Maps, k: int, cells: Ints, trace: SearchTrace, chosen: Ints
) -> tuple[int, SearchTrace]:
    """Beam search: index in the trace of the leaf most similar to point k, and the trace.

    Level by level, the search continues from the ``len(chosen)`` most similar nodes; of all leaves
    visited the most similar one is found. The trace may be reallocated.
    """
    beam = len(chosen)
    chosen[0] = 0
    open_nodes, start, end, best = 1, 0, 1, _NONE
    if trace.node[0] % 2 == 0:
        return 0, trace
    while open_nodes > 0:
        if end + 2 * beam > len(trace.node):
            longer = _new_trace(2 * len(trace.node))
            longer.node[:end], longer.back[:end] = trace.node[:end], trace.back[:end]
            longer.dot[:end], longer.similarity[:end] = trace.dot[:end], trace.similarity[:end]
            trace = longer
        start = end
        for one in range(open_nodes):
            _visit_children(tree, maps, k, cells, trace, chosen[one], end)
            end += 2
        # the best of the level, best first; leaves among them are candidates, not expanded
        open_nodes, pending = 0, min(beam, end - start)
        for rank in range(pending):
            top = start + rank
            for place in range(top + 1, end):
                if _is_better(tree, trace, place, top):
                    top = place
            _swap(trace, start + rank, top)
            if trace.node[start + rank] % 2 == 1:
                chosen[open_nodes] = start + rank
                open_nodes += 1
            elif best < 0 or _is_better(tree, trace, start + rank, best):
                best = start + rank
    return best, trace


@compiled
def _visit_children(
    tree: Tree, maps: Maps, k: int, cells: Ints, trace: SearchTrace, place: int, end: int
) -> None:
    """Append the two children of a node of the trace at ``end``."""
    nodes = tree.nodes
    node, dot = trace.node[place], trace.dot[place]
    a, b = nodes[node].left, nodes[node].right
    if nodes[a].row >= 0:
        dot_a = _dot_with_sum(tree.sums[nodes[a].row], cells)
    elif nodes[b].row >= 0:
        dot_a = dot - _dot_with_sum(tree.sums[nodes[b].row], cells)
    elif nodes[a].size <= nodes[b].size:
        dot_a = _dot_with_points(tree, maps, a, k)
    else:
        dot_a = dot - _dot_with_points(tree, maps, b, k)
    trace.node[end], trace.back[end], trace.dot[end] = a, place, dot_a
    trace.similarity[end] = dot_a / np.sqrt(nodes[a].norm2)
    trace.node[end + 1], trace.back[end + 1], trace.dot[end + 1] = b, place, dot - dot_a
    trace.similarity[end + 1] = (dot - dot_a) / np.sqrt(nodes[b].norm2)


@compiled
def _is_better(tree: Tree, trace: SearchTrace, one: int, other: int) -> bool:
    """Whether a node is more similar to the point than another; ties go to the smaller one."""
    similarity, other_similarity = trace.similarity[one], trace.similarity[other]
    if abs(similarity - other_similarity) <= _EQUAL * max(similarity, other_similarity):
        sizes = tree.nodes[trace.node[one]].size, tree.nodes[trace.node[other]].size
        return bool(sizes[0] < sizes[1])
    return bool(similarity > other_similarity)


@compiled
def _swap(trace: SearchTrace, one: int, other: int) -> None:
    trace.node[one], trace.node[other] = trace.node[other], trace.node[one]
    trace.back[one], trace.back[other] = trace.back[other], trace.back[one]
    trace.dot[one], trace.dot[other] = trace.dot[other], trace.dot[one]
    trace.similarity[one], trace.similarity[other] = trace.similarity[other], trace.similarity[one]


@compiled
def _add_point(tree: Tree, maps: Maps, cells: Ints, node: int, dot: int) -> None:
    """Add a point to a node of its path."""
    nodes = tree.nodes
    nodes[node].size += 1
    nodes[node].norm2 += 2 * dot + len(cells)
    if nodes[node].row >= 0:
        _add(tree.sums[nodes[node].row], cells)
    if nodes[nodes[node].left].row < 0 and nodes[nodes[node].right].row < 0:
        _store_one_sum(tree, maps, node)


@compiled
def _store_one_sum(tree: Tree, maps: Maps, node: int) -> None:
    """Store the sum of one child where both have ``DENSE`` points."""
    child = _new_row(tree, node)
    if child >= 0:
        _sum_of_points(tree, maps, child, tree.sums[tree.nodes[child].row])


@compiled
def _new_row(tree: Tree, node: int) -> int:
    """Allocate a row for the smaller child where both have ``DENSE`` points and none has one.

    Rows that are not needed are freed. Returns the child whose row is to be filled; -1 for none.
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
    """Join the most similar two of a node's child and two grandchildren.

    Similarity here is average linkage: the dot product of two sums over the number of pairs. The
    remaining grandchild takes the place of the child.
    """
    nodes = tree.nodes
    for side in range(2):
        inner = nodes[node].left if side == 0 else nodes[node].right
        sibling = nodes[node].right if side == 0 else nodes[node].left
        if inner % 2 == 0:
            continue
        a, b = nodes[inner].left, nodes[inner].right
        within = (nodes[inner].norm2 - nodes[a].norm2 - nodes[b].norm2) / 2
        across = (nodes[node].norm2 - nodes[inner].norm2 - nodes[sibling].norm2) / 2
        dot_a = _dot(tree, maps, a, sibling, scratch) if nodes[a].size <= nodes[b].size else -1.0
        if dot_a < 0:
            dot_a = across - _dot(tree, maps, b, sibling, scratch)
        dot_b = across - dot_a
        size_a, size_b, size_c = (
            float(nodes[a].size),
            float(nodes[b].size),
            float(nodes[sibling].size),
        )
        similarity_a, similarity_b = dot_a / (size_a * size_c), dot_b / (size_b * size_c)
        if max(similarity_a, similarity_b) <= within / (size_a * size_b) * (1 + _EQUAL):
            continue
        kept, moved, dot = (a, b, dot_a) if similarity_a >= similarity_b else (b, a, dot_b)
        _give_row(tree, inner)
        nodes[inner].left, nodes[inner].right = kept, sibling
        nodes[node].left, nodes[node].right = inner, moved
        nodes[sibling].parent, nodes[moved].parent = inner, node
        nodes[inner].size = nodes[kept].size + nodes[sibling].size
        nodes[inner].norm2 = nodes[kept].norm2 + nodes[sibling].norm2 + 2 * dot
        _store_one_sum(tree, maps, inner)
        _store_one_sum(tree, maps, node)
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
        _sum_of_points(tree, maps, other, scratch)
    dot = 0
    leaf = first_leaf(tree, small)
    while leaf >= 0:
        if few:
            dot += _dot_with_points(tree, maps, other, leaf // 2)
        else:
            for j in range(t):
                dot += total[j * psi + maps[leaf // 2, j]]
        leaf = next_leaf(tree, leaf, small)
    return float(dot)


@compiled
def _split(tree: Tree, t: int, k: int, leaf: int, dot: int, cells: Ints) -> None:
    """Insert point k beside the leaf that it reached, under a new node in its place."""
    nodes = tree.nodes
    inner, new = 2 * k - 1, 2 * k
    parent = nodes[leaf].parent
    nodes[inner].left, nodes[inner].right, nodes[inner].parent = leaf, new, parent
    nodes[inner].size, nodes[inner].norm2, nodes[inner].row = 2, 2 * t + 2 * dot, _NONE
    nodes[new].parent, nodes[new].size, nodes[new].norm2, nodes[new].row = inner, 1, t, _NONE
    nodes[leaf].parent = inner
    if parent >= 0:
        if nodes[parent].left == leaf:
            nodes[parent].left = inner
        else:
            nodes[parent].right = inner
    else:
        nodes[inner].row, nodes[leaf].row = _ROOT_ROW, _NONE
        _add(tree.sums[_ROOT_ROW], cells)
    nodes[2 * k].near = leaf // 2
    tree.state[POINTS] = k + 1


@compiled
def _dot_with_sum(total: Sums, cells: Ints) -> int:
    dot = 0
    for j in range(len(cells)):
        dot += total[cells[j]]
    return dot


@compiled
def _add(total: Sums, cells: Ints) -> None:
    for j in range(len(cells)):
        total[cells[j]] += np.uint32(1)


@compiled
def _dot_with_points(tree: Tree, maps: Maps, node: int, k: int) -> int:
    """Dot product of point k with a node's sum, point by point."""
    t = maps.shape[1]
    own = maps[k]
    dot = 0
    leaf = first_leaf(tree, node)
    while leaf >= 0:
        other = maps[leaf // 2]
        same = np.int32(0)
        for j in range(t):
            same += np.int32(own[j] == other[j])
        dot += int(same)
        leaf = next_leaf(tree, leaf, node)
    return dot


@compiled
def _sum_of_points(tree: Tree, maps: Maps, node: int, total: Sums) -> None:
    """Overwrite ``total`` with a node's sum, point by point."""
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
    """Allocate a row of ``sums`` for a node; False when none is left, which only costs time."""
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
def _lowest_too_deep(tree: Tree, path: Ints, depth: int, min_points: npt.NDArray[np.int64]) -> int:
    """Index in ``path`` of the lowest node with too long a path below it, -1 if none."""
    nodes = tree.nodes
    for place in range(depth - 1, -1, -1):
        below = depth - place
        if below >= len(min_points) or nodes[path[place]].size < min_points[below]:
            return place
    return _NONE


@compiled
def _rebalance(tree: Tree, maps: Maps, path: Ints, top: int) -> None:
    """Replace the inner nodes below ``path[top]`` by a balanced tree over their other subtrees.

    The subtrees keep their shape and their order, which is that of falling similarity to the end
    of the path; each range of the order becomes a node, split where the points halve.
    """
    nodes = tree.nodes
    depth = len(path)
    width = tree.sums.shape[1]
    # suffix[i]: sum of the path's i-th node from the top, i.e. of the parts i and after
    parts = depth - top + 1
    suffix = np.zeros((parts + 1, width), np.uint32)
    current = tree.sums[_ROOT_ROW].copy()
    scratch = np.empty(width, np.uint32)
    subtrees = np.empty(parts, np.int32)
    for place in range(depth):
        node = path[place]
        next_node = path[place + 1] if place + 1 < depth else nodes[node].left
        other = nodes[node].left if nodes[node].right == next_node else nodes[node].right
        if place >= top:
            suffix[place - top] = current
            subtrees[place - top] = other
        if nodes[next_node].row >= 0:
            current[:] = tree.sums[nodes[next_node].row]
        elif nodes[other].row >= 0:
            current -= tree.sums[nodes[other].row]
        elif nodes[next_node].size <= nodes[other].size:
            _sum_of_points(tree, maps, next_node, current)
        else:
            _sum_of_points(tree, maps, other, scratch)
            current -= scratch
    suffix[parts - 1] = current
    subtrees[parts - 1] = nodes[path[depth - 1]].left
    before = np.zeros(parts + 1, np.int64)
    for i in range(parts):
        before[i + 1] = before[i] + nodes[subtrees[i]].size
    for place in range(top + 1, depth):
        _give_row(tree, path[place])
    _build(tree, path[top:], subtrees, before, suffix)
    tree.state[REBALANCED] += 1


@compiled
def _build(
    tree: Tree,
    free_nodes: Ints,
    parts: Ints,
    before: npt.NDArray[np.int64],
    suffix: Sums,
) -> None:
    """Build a balanced tree over ordered parts; ``free_nodes[0]`` is its root."""
    nodes = tree.nodes
    count = len(parts)
    low = np.empty(count, np.int32)
    high = np.empty(count, np.int32)
    owner = np.empty(count, np.int32)
    low[0], high[0], owner[0] = 0, count, free_nodes[0]
    pending, used = 1, 1
    while pending > 0:
        pending -= 1
        low_end, high_end, node = low[pending], high[pending], owner[pending]
        cut = _halving(before, low_end, high_end)
        for side in range(2):
            start, end = (low_end, cut) if side == 0 else (cut, high_end)
            if end - start == 1:
                child = parts[start]
            else:
                child = free_nodes[used]
                used += 1
                nodes[child].size = before[end] - before[start]
                nodes[child].norm2 = _norm2(suffix[start], suffix[end])
                low[pending], high[pending], owner[pending] = start, end, child
                pending += 1
            nodes[child].parent = node
            if side == 0:
                nodes[node].left = child
            else:
                nodes[node].right = child
        _store_part_sum(tree, node, suffix, low_end, cut, high_end)


@compiled
def _store_part_sum(
    tree: Tree, node: int, suffix: Sums, low_end: int, cut: int, high_end: int
) -> None:
    """As :func:`_store_one_sum`, from suffix sums."""
    child = _new_row(tree, node)
    if child >= 0:
        start, end = (low_end, cut) if child == tree.nodes[node].left else (cut, high_end)
        total = tree.sums[tree.nodes[child].row]
        for j in range(len(total)):
            total[j] = suffix[start, j] - suffix[end, j]


@compiled
def _halving(before: npt.NDArray[np.int64], low_end: int, high_end: int) -> int:
    """The cut of the range that halves its points best."""
    total = before[high_end] + before[low_end]
    best = low_end + 1
    for cut in range(low_end + 1, high_end):
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
