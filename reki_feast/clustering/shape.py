"""What a cluster tree says: the order of its leaves, cuts, paths, and its purity."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from reki_feast.clustering.compiled import compiled
from reki_feast.clustering.tree import Ints, Tree

Labels = npt.NDArray[np.int64]


def leaf_order(tree: Tree) -> tuple[Ints, Ints]:
    """Points from left to right, and for each node the place of its first one.

    The points of a node are ``points[start[node] : start[node] + size[node]]``.

    Args:
        tree: n points.

    Returns:
        Int32 ``[n]``, the points; int32 ``[2 n - 1]``, by node the place of its first point.
    """
    points = np.empty(tree.points, np.int32)
    start = np.zeros(max(2 * tree.points - 1, 0), np.int32)
    if tree.points:
        _leaf_order(tree, tree.root, points, start)
    return points, start


@compiled
def _leaf_order(tree: Tree, root: int, points: Ints, start: Ints) -> None:
    nodes = tree.nodes
    waiting = np.empty(tree.state[0], np.int32)
    waiting[0], count, done = root, 1, 0
    while count > 0:
        count -= 1
        node = waiting[count]
        start[node] = done
        while node % 2 == 1:
            waiting[count] = nodes[node].right
            count += 1
            node = nodes[node].left
            start[node] = done
        points[done] = node // 2
        done += 1


def cut_by_size(tree: Tree, max_size: int) -> Labels:
    """The largest nodes of at most ``max_size`` points, numbered from left to right."""
    points, start = leaf_order(tree)
    size, parent = tree.nodes["size"][: len(start)], tree.nodes["parent"][: len(start)]
    max_size = min(max_size, tree.points)  # fits the int32 of sizes
    above = np.where(parent >= 0, size[parent], tree.points + 1)
    return _numbered(points, start[(size <= max_size) & (above > max_size)])


def cut_by_count(tree: Tree, n_clusters: int) -> Labels:
    """``n_clusters`` nodes, always the one with most points taken apart, numbered left to right."""
    points, start = leaf_order(tree)
    nodes = tree.nodes
    heap = [(-tree.points, 0, tree.root)]
    while len(heap) < n_clusters:
        _, _, node = heapq.heappop(heap)
        for child in (int(nodes["left"][node]), int(nodes["right"][node])):
            heapq.heappush(heap, (-int(nodes["size"][child]), int(start[child]), child))
    return _numbered(points, start[[node for _, _, node in heap]])


def _numbered(points: Ints, starts: Ints) -> Labels:
    first = np.zeros(len(points), np.int64)
    first[starts] = 1
    labels = np.empty(len(points), np.int64)
    labels[points] = np.cumsum(first) - 1
    return labels


def path(tree: Tree, point: int) -> list[int]:
    """The nodes from the root to a point's leaf.

    Args:
        tree: n points.
        point: number of a point, 0 to n - 1.

    Returns:
        Numbers of nodes, the root first.
    """
    found = [2 * point]
    while (above := int(tree.nodes["parent"][found[-1]])) >= 0:
        found.append(above)
    return found[::-1]


def depths(tree: Tree) -> Ints:
    """``[n]``, the number of inner nodes above each point's leaf."""
    found = np.zeros(tree.points, np.int32)
    _depths(tree, found)
    return found


@compiled
def _depths(tree: Tree, found: Ints) -> None:
    for point in range(len(found)):
        node = tree.nodes[2 * point].parent
        while node >= 0:
            found[point] += 1
            node = tree.nodes[node].parent


def dendrogram_purity(tree: Tree, classes: Labels) -> float:
    """Expected dendrogram purity (Han et al., section 5.1), exact instead of sampled.

    Of two different points of one class drawn at random: the expected share of that class among
    the points under their lowest common ancestor. 1 where no class has two points.

    Args:
        tree: n points.
        classes: ``[n]`` codes from 0.
    """
    if tree.points < 2:
        return 1.0
    points, start = leaf_order(tree)
    in_order = classes[points]
    by_class = np.argsort(in_order, kind="stable")
    ends = np.cumsum(np.bincount(in_order))
    return float(_purity(tree, in_order, start, by_class, ends))


@compiled
def _purity(tree: Tree, classes: Labels, start: Ints, by_class: Labels, ends: Labels) -> float:
    """For each node the classes of its smaller child; how many more the larger has is looked up."""
    nodes = tree.nodes
    count = np.zeros(len(ends), np.int64)
    total, pairs = 0.0, 0.0
    for node in range(1, 2 * len(classes) - 1, 2):
        left, right = nodes[node].left, nodes[node].right
        small = left if nodes[left].size <= nodes[right].size else right
        size = nodes[node].size
        places = range(start[small], start[small] + nodes[small].size)
        for place in places:
            count[classes[place]] += 1
        for place in places:
            one = classes[place]
            if count[one] == 0:
                continue
            of_class = by_class[(ends[one - 1] if one > 0 else 0) : ends[one]]
            low, high = np.searchsorted(of_class, np.array([start[node], start[node] + size]))
            across = float(count[one]) * float(high - low - count[one])
            total += across * float(high - low) / float(size)
            pairs += across
            count[one] = 0
    return total / pairs if pairs > 0 else 1.0
