"""Groups keep their cap, their number and their members; only splits move a known point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.clustering import StreaKHC, admit, central, partition
from reki_feast.clustering.kernel import Maps
from reki_feast.clustering.shape import Labels, leaf_order
from reki_feast.clustering.tree import Tree, empty, insert, with_room
from reki_feast.errors import ClusterError

caps, seeds = st.integers(1, 12), st.integers(0, 2**32)
T, PSI = 8, 3


def some_maps(n: int, seed: int) -> Maps:
    """Few values, so that many points are equal."""
    return np.random.default_rng(seed).integers(0, PSI, (n, T)).astype(np.uint8)


def with_points(tree: Tree, maps: Maps, last: int) -> Tree:
    tree = with_room(tree, last)
    insert(tree, maps, last)
    return tree


def grown(n: int, seed: int) -> Tree:
    return with_points(empty(T * PSI), some_maps(n, seed), n)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 80), caps, seeds)
def test_groups_fit_and_all_but_one_are_more_than_half_full(n: int, cap: int, seed: int) -> None:
    tree = grown(n, seed)
    labels = partition(tree, cap)
    assert labels.shape == (n,)
    assert labels.dtype == np.dtype(np.int64)
    sizes = np.bincount(labels)
    assert (sizes > 0).all()
    assert (sizes <= cap).all()
    assert (2 * sizes <= cap).sum() <= 1
    assert len(sizes) <= 2 * n / cap + 1
    _, first = np.unique(labels, return_index=True)
    assert first.tolist() == sorted(first.tolist())
    assert partition(grown(n, seed), cap).tolist() == labels.tolist()


@pytest.mark.parametrize("cap", [7, 80])
def test_groups_of_many_points(cap: int) -> None:
    points = np.random.default_rng(0).normal(size=(3_000, 4))
    fitted = StreaKHC(50, 13, random_state=0).fit(points)
    labels = partition(fitted.tree_, cap)
    sizes = np.bincount(labels)
    assert sizes.max() <= cap
    assert (2 * sizes <= cap).sum() <= 1
    assert len(sizes) < 1.6 * len(points) / cap


def test_neighbours_share_a_group() -> None:
    blobs = np.repeat(np.arange(10.0) * 100, 20)[:, None]
    order = np.random.default_rng(0).permutation(200)
    labels = partition(StreaKHC(50, 13, random_state=0).fit(blobs[order]).tree_, 20)
    pairs = set(zip(blobs[order, 0].tolist(), labels.tolist(), strict=True))
    assert len(pairs) == 10


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(0, 60), caps, seeds)
def test_a_known_point_moves_only_when_its_group_splits(
    known: int, more: int, cap: int, seed: int
) -> None:
    maps = some_maps(known + more, seed)
    tree = with_points(empty(T * PSI), maps, known)
    before = partition(tree, cap)
    after = admit(with_points(tree, maps, known + more), before, cap)
    check_admitted(before, after.labels, after.split, after.moved, cap)
    again = admit(
        with_points(with_points(empty(T * PSI), maps, known), maps, known + more), before, cap
    )
    assert again.labels.tolist() == after.labels.tolist()
    assert again.split == after.split


def check_admitted(
    before: Labels, labels: Labels, split: list[tuple[int, int]], moved: Labels, cap: int
) -> None:
    assert np.bincount(labels).max() <= cap
    known = labels[: len(before)]
    assert moved.tolist() == np.flatnonzero(known != before).tolist()
    fresh = [new for _, new in split]
    assert fresh == list(range(before.max() + 1, before.max() + 1 + len(split)))
    assert set(labels.tolist()) == {*before.tolist(), *fresh}  # no id is lost or empty
    origin = {group: group for group in before.tolist()}
    for old, new in split:
        origin[new] = origin[old]
    assert [origin[group] for group in known.tolist()] == before.tolist()
    assert set(known[moved].tolist()) <= set(fresh)


def test_a_new_point_joins_the_group_of_the_leaf_it_split() -> None:
    maps = some_maps(60, 1)
    tree = with_points(empty(T * PSI), maps, 40)
    before = partition(tree, 10)
    tree = with_points(tree, maps, 60)
    near = tree.nodes["near"][: 2 * 60 : 2].tolist()
    wanted = before.tolist()
    for point in range(40, 60):
        wanted.append(wanted[near[point]])
    found = admit(tree, before, 1_000)
    assert found.labels.tolist() == wanted
    assert found.split == []
    assert found.moved.tolist() == []


def test_the_larger_part_of_a_split_group_stays() -> None:
    maps = some_maps(200, 2)
    tree = with_points(empty(T * PSI), maps, 200)
    before = np.zeros(200, np.int64)
    found = admit(tree, before, 199)
    assert len(found.split) == 1
    assert 0 < (found.labels == 1).sum() <= (found.labels == 0).sum()
    side = found.labels[leaf_order(tree)[0]]
    assert (np.diff(np.r_[side, side[0]]) != 0).sum() == 2  # one subtree left


@pytest.mark.parametrize("n", [2, 8, 64])
def test_of_equal_parts_that_of_the_first_point_stays(n: int) -> None:
    maps = np.zeros((n, T), np.uint8)
    tree = with_points(empty(T * PSI), maps, n)
    found = admit(tree, np.zeros(n, np.int64), n // 2)
    assert np.bincount(found.labels).tolist() == [n // 2, n // 2]
    assert found.labels[0] == 0


def test_labels_may_have_gaps() -> None:
    maps = some_maps(50, 3)
    tree = with_points(empty(T * PSI), maps, 30)
    before = partition(tree, 6) * 10 + 3
    after = admit(with_points(tree, maps, 50), before, 6)
    check_admitted(before, after.labels, after.split, after.moved, 6)


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_without_labels_groups_are_formed(n: int) -> None:
    tree = grown(n, 4)
    found = admit(tree, np.empty(0, np.int64), 5)
    assert found.labels.tolist() == partition(tree, 5).tolist()
    assert (found.split, found.moved.tolist()) == ([], [])


@pytest.mark.parametrize("cap", [0, -3])
def test_a_cap_below_1_is_an_error(cap: int) -> None:
    tree = grown(5, 0)
    with pytest.raises(ClusterError, match=f"(?s)a group holds 1 point or more.*cap={cap}"):
        partition(tree, cap)
    with pytest.raises(ClusterError, match=f"(?s)a group holds 1 point or more.*cap={cap}"):
        admit(tree, np.zeros(5, np.int64), cap)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(0, 12), seeds)
def test_central_members_resemble_their_group_most(n: int, count: int, seed: int) -> None:
    maps = some_maps(n, seed)
    members = np.flatnonzero(np.random.default_rng(seed).random(n) < 0.6)
    like = {one: int((maps[one] == maps[members]).sum()) for one in members.tolist()}
    wanted = sorted(members.tolist(), key=lambda one: (-like[one], one))[:count]
    assert central(maps, members, count).tolist() == wanted


def test_points_that_are_not_live_neither_count_nor_move() -> None:
    fitted = StreaKHC(random_state=0).fit(np.random.default_rng(0).normal(size=(200, 3)))
    before = partition(fitted.tree_, 20)
    live = np.arange(400) % 2 == 0
    fitted.partial_fit(np.random.default_rng(1).normal(size=(200, 3)))
    after = admit(fitted.tree_, before, 20, live)
    assert np.bincount(after.labels[live]).max() <= 20
    assert live[after.moved].all()
    dead = np.flatnonzero(~live[:200])
    assert (after.labels[dead] == before[dead]).all()
