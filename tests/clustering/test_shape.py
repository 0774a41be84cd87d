"""Orders, cuts, paths and purity against the same said naively."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.clustering import shape
from reki_feast.clustering.shape import Labels
from reki_feast.clustering.tree import Tree, empty, insert, with_room

sizes, seeds = st.integers(1, 40), st.integers(0, 2**32)


def grown(n: int, seed: int = 0) -> Tree:
    """A tree of n random points."""
    tree = with_room(empty(8 * 3), n)
    maps = np.random.default_rng(seed).integers(0, 3, (n, 8)).astype(np.uint8)
    insert(tree, maps, n)
    return tree


def points_under(tree: Tree, node: int) -> list[int]:
    """From left to right."""
    if node % 2 == 0:
        return [node // 2]
    sides = (int(tree.nodes[side][node]) for side in ("left", "right"))
    return [point for child in sides for point in points_under(tree, child)]


def clusters(labels: Labels) -> list[list[int]]:
    return [np.flatnonzero(labels == label).tolist() for label in range(int(labels.max()) + 1)]


def of_nodes(tree: Tree, nodes: list[int]) -> list[list[int]]:
    """The nodes' points, nodes in the tree's order."""
    order = points_under(tree, tree.root)
    found = [points_under(tree, node) for node in nodes]
    return [sorted(points) for points in sorted(found, key=lambda points: order.index(points[0]))]


@settings(deadline=None, max_examples=40)
@given(sizes, seeds)
def test_the_points_of_a_node_lie_side_by_side(n: int, seed: int) -> None:
    tree = grown(n, seed)
    points, start = shape.leaf_order(tree)
    for node in range(2 * n - 1):
        here = slice(start[node], start[node] + tree.nodes["size"][node])
        assert points[here].tolist() == points_under(tree, node)


@settings(deadline=None, max_examples=40)
@given(sizes, seeds)
def test_paths_lead_from_the_root_to_the_leaf(n: int, seed: int) -> None:
    tree = grown(n, seed)
    depths = shape.depths(tree)
    for point in range(n):
        path = shape.path(tree, point)
        assert (path[0], path[-1]) == (tree.root, 2 * point)
        assert tree.nodes["parent"][path[1:]].tolist() == path[:-1]
        assert depths[point] == len(path) - 1


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(1, 50), seeds)
def test_a_cut_by_size_takes_the_largest_nodes_that_fit(n: int, most: int, seed: int) -> None:
    tree = grown(n, seed)

    def fitting(node: int) -> list[int]:
        if tree.nodes["size"][node] <= most:
            return [node]
        return [one for side in ("left", "right") for one in fitting(int(tree.nodes[side][node]))]

    assert clusters(shape.cut_by_size(tree, most)) == of_nodes(tree, fitting(tree.root))


@settings(deadline=None, max_examples=60)
@given(sizes, st.data(), seeds)
def test_a_cut_by_count_takes_the_most_populous_apart(
    n: int, data: st.DataObject, seed: int
) -> None:
    tree, count = grown(n, seed), data.draw(st.integers(1, n))
    order = points_under(tree, tree.root)
    nodes = [tree.root]
    while len(nodes) < count:
        first = {node: order.index(points_under(tree, node)[0]) for node in nodes}
        node = min(nodes, key=lambda one: (-tree.nodes["size"][one], first[one]))
        nodes.remove(node)
        nodes += [int(tree.nodes[side][node]) for side in ("left", "right")]
    assert clusters(shape.cut_by_count(tree, count)) == of_nodes(tree, nodes)


@pytest.mark.parametrize("most", [30, 2**31 - 1, 2**31, 10**12])
def test_a_cut_wider_than_the_tree_is_one_cluster(most: int) -> None:
    assert shape.cut_by_size(grown(30), most).tolist() == [0] * 30


def naive_purity(tree: Tree, classes: list[int]) -> float:
    shares = []
    for one, other in combinations(range(tree.points), 2):
        if classes[one] == classes[other]:
            common = set(shape.path(tree, one)) & set(shape.path(tree, other))
            lowest = min(common, key=lambda node: tree.nodes["size"][node])
            under = points_under(tree, lowest)
            shares.append(sum(classes[point] == classes[one] for point in under) / len(under))
    return sum(shares) / len(shares) if shares else 1.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), seeds)
def test_purity_is_the_mean_over_all_pairs(classes: list[int], seed: int) -> None:
    tree = grown(len(classes), seed)
    found = shape.dendrogram_purity(tree, np.array(classes))
    assert found == pytest.approx(naive_purity(tree, classes), abs=1e-12)


def test_purity_is_1_where_every_node_of_two_of_a_class_holds_no_other() -> None:
    tree = grown(64)
    halves = np.zeros(64, np.int64)
    halves[points_under(tree, int(tree.nodes["left"][tree.root]))] = 1
    assert shape.dendrogram_purity(tree, halves) == 1.0
    assert shape.dendrogram_purity(tree, np.arange(64)) == 1.0
    assert shape.dendrogram_purity(tree, np.arange(64) % 2) < 0.7


def test_a_tree_without_points_has_no_order_no_cut_no_depth() -> None:
    tree = empty(6)
    assert [len(part) for part in shape.leaf_order(tree)] == [0, 0]
    assert shape.cut_by_size(tree, 5).tolist() == []
    assert shape.depths(tree).tolist() == []
    assert shape.dendrogram_purity(tree, np.empty(0, np.int64)) == 1.0
