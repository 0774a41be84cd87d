"""The tree's arrays against what they stand for, and its walk against the rule in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.clustering import shape
from reki_feast.clustering.kernel import IsolationKernel, Maps
from reki_feast.clustering.tree import (
    FREE,
    MIN_POINTS,
    NODE,
    ROWS,
    Tree,
    empty,
    grown,
    insert,
    with_room,
)
from reki_feast.clustering.tree import _min_points as min_points
from reki_feast.clustering.tree_kernels import DENSE, REBALANCED

Least = npt.NDArray[np.int64]
Draw = np.random.Generator
#: Centres a subset: values of a map are below.
PSI = 32
#: No path is too long.
NEVER = np.zeros(4_000, np.int64)
#: Paths of no more than 2 + log2(points): nearly every point makes one too long.
STRICT = min_points(slope=1, free=2)
TABLES = {"as it is": MIN_POINTS, "strict": STRICT}


def caterpillar(n: int, t: int, draw: Draw) -> Maps:
    """Later points resemble each other ever more: a tree of n levels but for its guards."""
    maps = draw.integers(1, PSI, (n, t))
    return np.where(np.arange(n)[:, None] * t // n >= np.arange(t), 0, maps).astype(np.uint8)


def of_line(points: npt.NDArray[Any], t: int, draw: Draw) -> Maps:
    column = np.asarray(points, np.float32)[:, None]
    return IsolationKernel.draw(column, t, min(PSI, len(points)), draw).map(column)


#: Maps of n points, in an order of arrival.
STREAMS: dict[str, Callable[[int, int, Draw], Maps]] = {
    "random": lambda n, t, draw: draw.integers(0, 6, (n, t)).astype(np.uint8),
    "few values": lambda n, t, draw: draw.integers(0, 2, (n, t)).astype(np.uint8),
    "duplicates": lambda n, t, draw: draw.integers(0, 6, (1 + n // 8, t)).astype(np.uint8)[
        draw.integers(0, 1 + n // 8, n)
    ],
    "equal": lambda n, t, draw: np.ones((n, t), np.uint8),
    "by class": lambda n, t, draw: (
        np.where(draw.random((n, t)) < 0.8, np.sort(draw.integers(0, 6, n))[:, None], 0)
    ).astype(np.uint8),
    "sorted line": lambda n, t, draw: of_line(np.sort(draw.random(n)), t, draw),
    "growing outliers": lambda n, t, draw: of_line(1.02 ** np.arange(n), t, draw),
    "caterpillar": caterpillar,
}


def build(maps: Maps, least: Least = MIN_POINTS, rows: int | None = None, beam: int = 1) -> Tree:
    """All points inserted; ``rows`` bounds the rows of sums there are."""
    tree = with_room(empty(maps.shape[1] * PSI), len(maps))
    if rows is not None:
        tree = tree._replace(sums=tree.sums[:rows].copy(), free=tree.free[:rows].copy())
    insert(tree, maps, len(maps), least, beam)
    return tree


def check(tree: Tree, maps: Maps) -> None:
    """All that the tree's docstrings promise."""
    n, t = maps.shape
    assert tree.points == n
    nodes, leaves, rows = tree.nodes, [], []
    ones = np.zeros((n, t * PSI), np.int64)
    np.put_along_axis(ones, maps + np.arange(t) * PSI, 1, axis=1)
    total: dict[int, npt.NDArray[np.int64]] = {}
    order = [tree.root] if n else []
    for node in order:  # grows while it is gone through
        if node % 2:
            a, b = int(nodes["left"][node]), int(nodes["right"][node])
            assert nodes["parent"][[a, b]].tolist() == [node, node]
            kept = [child for child in (a, b) if nodes["row"][child] >= 0]
            assert len(kept) <= (min(nodes["size"][a], nodes["size"][b]) >= DENSE)
            order += [a, b]
        else:
            leaves.append(node // 2)
    for node in reversed(order):
        if node % 2:
            total[node] = total[int(nodes["left"][node])] + total[int(nodes["right"][node])]
        else:
            total[node] = ones[node // 2]
        assert nodes["size"][node] * t == total[node].sum()
        assert nodes["norm2"][node] == (total[node] ** 2).sum()
        if nodes["row"][node] >= 0:
            rows.append(int(nodes["row"][node]))
            assert (tree.sums[nodes["row"][node]] == total[node]).all()
    assert sorted(leaves) == list(range(n))
    assert sorted(order) == list(range(max(2 * n - 1, 0)))
    if n:
        assert nodes["parent"][tree.root] == -1
        assert nodes["row"][tree.root] == 0
        near = nodes["near"][: 2 * n : 2]
        assert near[0] == -1
        assert (near[1:] < np.arange(1, n)).all()
        assert (near[1:] >= 0).all()
    given_back = tree.free[: tree.state[FREE]].tolist()
    assert (
        sorted(rows + given_back)
        == list(range(max(int(tree.state[ROWS]), len(rows))))[(0 if n else 1) :]
    )
    assert len(rows) <= n // DENSE + 1
    assert tree.state[ROWS] <= len(tree.sums)


streams = st.sampled_from(sorted(STREAMS))


@settings(deadline=None, max_examples=120)
@given(
    streams, st.sampled_from(sorted(TABLES)), st.integers(0, 150), st.integers(1, 12), st.integers()
)
def test_the_arrays_are_what_they_stand_for(
    stream: str, table: str, n: int, t: int, seed: int
) -> None:
    maps = STREAMS[stream](n, t, np.random.default_rng(abs(seed))) if n else np.empty((0, t), "u1")
    check(build(maps, TABLES[table]), maps)


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize("stream", sorted(STREAMS))
def test_larger_trees_too_and_without_rows_to_spare(stream: str, table: str) -> None:
    maps = STREAMS[stream](1_000, 20, np.random.default_rng(1))
    tree = build(maps, TABLES[table])
    check(tree, maps)
    assert tree.state[ROWS] > 3
    for rows in (1, 3):
        poor = build(maps, TABLES[table], rows)
        check(poor, maps)
        for field in set(NODE.names or ()) - {"row"}:
            assert poor.nodes[field].tolist() == tree.nodes[field].tolist(), field


@pytest.mark.parametrize("stream", sorted(STREAMS))
def test_points_may_come_in_any_parts(stream: str) -> None:
    maps = STREAMS[stream](300, 20, np.random.default_rng(2))
    whole, tree = build(maps, STRICT), empty(20 * PSI)
    for last in (0, 1, 2, 3, 50, 51, 299, 300, 300):
        tree = with_room(tree, last)
        insert(tree, maps, last, STRICT)
        check(tree, maps[:last])
    assert tree.nodes[:599].tolist() == whole.nodes[:599].tolist()


@dataclass(eq=False)
class Plain:
    """A node of a tree grown by the rule as the paper and :mod:`tree` word it."""

    total: npt.NDArray[np.int64]
    size: int = 1
    point: int = -1
    left: Plain | None = None
    right: Plain | None = None
    parent: Plain | None = None

    @property
    def children(self) -> tuple[Plain, Plain]:
        assert self.left is not None
        assert self.right is not None
        return self.left, self.right

    def norm2(self) -> int:
        return int(self.total @ self.total)

    def adopt(self, left: Plain, right: Plain) -> None:
        self.left, self.right = left, right
        self.size, self.total = left.size + right.size, left.total + right.total
        left.parent = right.parent = self

    def shape(self) -> Any:
        if self.point >= 0:
            return self.point
        return tuple(child.shape() for child in self.children)


def grow(maps: Maps, least: Least = MIN_POINTS, beam: int = 1) -> Plain:
    """Every point by the rule, each sum taken anew."""
    ones = np.zeros((len(maps), maps.shape[1] * PSI), np.int64)
    np.put_along_axis(ones, maps + np.arange(maps.shape[1]) * PSI, 1, axis=1)
    root = Plain(ones[0], point=0)
    for k in range(1, len(maps)):
        node = reach(root, ones[k], beam)
        way = list(ancestors(node))[::-1]
        inner, above = Plain(node.total), node.parent
        inner.adopt(node, Plain(ones[k], point=k))
        if above is None:
            root = inner
        else:
            left, right = above.children
            above.left, above.right = (inner, right) if left is node else (left, inner)
            inner.parent = above
        for one in way:
            one.size, one.total = one.size + 1, one.total + ones[k]
        below = range(len(way), 0, -1)
        long = [
            one.size < (least[h] if h < len(least) else math.inf)
            for one, h in zip(way, below, strict=True)
        ]
        if any(long):
            lowest = max(place for place, too_long in enumerate(long) if too_long)
            balance([*way, inner][lowest:])
        up = inner.parent
        while up is not None:
            if up.size in {2**power for power in range(20)}:
                rotate(up)
            up = up.parent
    return root


def reach(root: Plain, one: npt.NDArray[np.int64], beam: int) -> Plain:
    """The best leaf met when each level goes on from its ``beam`` best nodes."""
    going, leaves = [root], []
    while going:
        level = [child for node in going if node.point < 0 for child in node.children]
        leaves += [node for node in going if node.point >= 0]
        for rank in range(min(beam, len(level))):
            top = first_best(one, level[rank:]) + rank
            level[rank], level[top] = level[top], level[rank]
        going = level[:beam]
    return leaves[first_best(one, leaves)]


def first_best(one: npt.NDArray[np.int64], nodes: list[Plain]) -> int:
    best = 0
    for place, node in enumerate(nodes):
        best = place if is_nearer(one, node, nodes[best]) else best
    return best


def is_nearer(one: npt.NDArray[np.int64], a: Plain, b: Plain) -> bool:
    like_a = int(one @ a.total) / math.sqrt(a.norm2())
    like_b = int(one @ b.total) / math.sqrt(b.norm2())
    if abs(like_a - like_b) <= 1e-9 * max(like_a, like_b):
        return a.size < b.size
    return like_a > like_b


def ancestors(node: Plain) -> Iterator[Plain]:
    while node.parent is not None:
        node = node.parent
        yield node


def rotate(node: Plain) -> None:
    """The two most alike by average linkage, of a child and its sister's children, join."""

    def like(x: Plain, y: Plain) -> float:
        return int(x.total @ y.total) / (x.size * y.size)

    for inner, aunt in (node.children, node.children[::-1]):
        if inner.point < 0:
            a, b = inner.children
            stays, leaves = (a, b) if like(a, aunt) >= like(b, aunt) else (b, a)
            if like(stays, aunt) > like(a, b) * (1 + 1e-9):
                inner.adopt(stays, aunt)
                node.adopt(inner, leaves)
                return


def balance(way: list[Plain]) -> None:
    """What hangs from a path, from the top down, as a tree split where the points halve."""
    parts = [
        next(child for child in up.children if child is not down) for up, down in pairwise(way)
    ]
    parts += way[-1].children[::-1]
    spare = iter(way[1:])
    waiting = [(way[0], parts)]
    made = []
    while waiting:
        node, here = waiting.pop()
        sizes = [part.size for part in here]
        cut = min(range(1, len(here)), key=lambda at: abs(sum(sizes[:at]) - sum(sizes[at:])))
        sides = []
        for side in (here[:cut], here[cut:]):
            sides.append(side[0] if len(side) == 1 else next(spare))
            if len(side) > 1:
                waiting.append((sides[-1], side))
        made.append((node, sides))
    for node, (left, right) in reversed(made):
        node.adopt(left, right)


def nested(tree: Tree) -> Any:
    left, right = tree.nodes["left"].tolist(), tree.nodes["right"].tolist()

    def under(node: int) -> Any:
        return (under(left[node]), under(right[node])) if node % 2 else node // 2

    return under(tree.root)


@settings(deadline=None, max_examples=60)
@given(
    streams,
    st.sampled_from(sorted(TABLES)),
    st.integers(1, 40),
    st.integers(1, 12),
    st.sampled_from([1, 2, 5]),
    st.integers(),
)
def test_the_walk_is_the_rule(
    stream: str, table: str, n: int, t: int, beam: int, seed: int
) -> None:
    maps = STREAMS[stream](n, t, np.random.default_rng(abs(seed)))
    found = build(maps, TABLES[table], beam=beam)
    check(found, maps)
    assert nested(found) == grow(maps, TABLES[table], beam).shape()


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize("stream", sorted(STREAMS))
def test_the_walk_is_the_rule_where_sums_are_kept(stream: str, table: str, beam: int) -> None:
    maps = STREAMS[stream](250, 20, np.random.default_rng(4))
    tree = build(maps, TABLES[table], beam=beam)
    assert (tree.nodes["row"] > 0).any()
    assert nested(tree) == grow(maps, TABLES[table], beam).shape()


def test_a_beam_finds_what_one_path_misses() -> None:
    draw = np.random.default_rng(6)
    centres = draw.integers(0, 6, (60, 40))
    mine = draw.integers(0, 60, 1_500)
    noisy = np.where(
        draw.random((1_500, 40)) < 0.6, centres[mine], draw.integers(0, 6, (1_500, 40))
    )
    maps = noisy.astype(np.uint8)
    purity = [
        shape.dendrogram_purity(build(maps, beam=beam), mine.astype(np.int64)) for beam in (1, 8)
    ]
    assert purity[1] > purity[0] + 0.1


def deepest(n: int) -> float:
    """The longest path that is let be, and a few nodes that rotations and balancing may add."""
    return 32 + 6 * math.log2(n) + 4


def walks(maps: Maps, least: Least) -> list[int]:
    """How many nodes each point meets on its way down, as the tree is when it comes."""
    tree = with_room(empty(maps.shape[1] * PSI), len(maps))
    met = []
    for k in range(len(maps)):
        insert(tree, maps, k + 1, least)
        met.append(len(shape.path(tree, k)))
    return met


@pytest.mark.parametrize("stream", sorted(STREAMS))
def test_no_order_of_arrival_makes_a_path_long(stream: str) -> None:
    for n in (500, 2_000):
        maps = STREAMS[stream](n, 100, np.random.default_rng(5))
        assert shape.depths(build(maps)).max() <= deepest(n)
        assert shape.depths(build(maps, beam=4)).max() <= deepest(n)
        met = walks(maps, MIN_POINTS)
        assert max(met) <= deepest(n)
        assert sum(met) <= 6 * n * math.log2(n)


def test_a_stream_that_would_make_it_long_is_balanced() -> None:
    maps = caterpillar(1_000, 100, np.random.default_rng(5))
    let_be, guarded = build(maps, NEVER), build(maps)
    assert shape.depths(let_be).max() > 2 * deepest(1_000)
    assert let_be.state[REBALANCED] == 0
    assert 0 < guarded.state[REBALANCED] < 50
    assert shape.depths(guarded).max() <= deepest(1_000)
    strict = build(maps, STRICT)
    assert strict.state[REBALANCED] > 100
    assert shape.depths(strict).max() <= 2 * math.log2(1_000)


def test_equal_points_make_a_balanced_tree() -> None:
    tree = build(np.zeros((1_024, 3), np.uint8))
    assert shape.depths(tree).tolist() == [10] * 1_024


def test_a_longer_array_begins_with_what_was_used_and_grows_by_half() -> None:
    short = np.arange(10)
    assert grown(short, 10, 8) is short
    assert len(grown(short, 11, 8)) == 15
    assert grown(short, 40, 8)[:12].tolist() == [*range(8), 0, 0, 0, 0]
    assert len(grown(short, 40, 8)) == 40
