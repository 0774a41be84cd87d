"""The estimator: batches, repeatability, files, cuts, and points that cannot be clustered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from reki_feast import files
from reki_feast.clustering import StreaKHC, partition
from reki_feast.clustering.streakhc import EARLY_POINTS
from reki_feast.errors import ClusterError, LakeError

Points = npt.NDArray[np.float64]


def some(n: int, d: int = 4, *, seed: int = 0, at: float = 0.0) -> Points:
    return np.random.default_rng(seed).normal(at, 1.0, (n, d))


def model(seed: int | np.random.RandomState | None = 0) -> StreaKHC:
    """Small enough to be quick."""
    return StreaKHC(n_estimators=30, max_samples=7, random_state=seed)


def state(fitted: StreaKHC) -> dict[str, Any]:
    """All that a clustering is, comparable; rows of sums that are not in use left out."""
    tensors, about = fitted.to_arrays()
    values = {name: value.tobytes() for name, value in tensors.items() if name != "sums"}
    used = sorted(set(fitted.tree_.nodes["row"][: 2 * fitted.n_samples_seen_].tolist()) - {-1})
    return {**values, "sums": tensors["sums"][used].tobytes(), **about}


def same(one: StreaKHC, other: StreaKHC) -> bool:
    return state(one) == state(other)


@pytest.mark.parametrize("first", [1, 2, 7, 300, EARLY_POINTS - 1, EARLY_POINTS, 1_500])
def test_after_the_first_batch_it_does_not_matter_how_points_are_cut(first: int) -> None:
    """While young, too: centres are drawn again when the points have doubled, mid-batch or not."""
    points = some(2_200)
    whole = model().partial_fit(points[:first]).partial_fit(points[first:])
    for cuts in ([first + 1, first + 2, 2_199], [*range(first, 2_200, 97)], [first, first]):
        parts = model().partial_fit(points[:first])
        for part in np.split(points[first:], np.array(cuts) - first):
            parts.partial_fit(part)
        assert same(parts, whole)
    assert whole.n_samples_seen_ == 2_200


def test_one_by_one_is_as_two_batches() -> None:
    points = some(150)
    single = model()
    for point in points:
        single.partial_fit(point[None])
    assert same(single, model().partial_fit(points[:1]).partial_fit(points[1:]))


def test_the_first_batch_draws_the_centres() -> None:
    points = some(3_000)
    fit = model().fit(points)
    assert same(fit, model().partial_fit(points))
    assert same(model().partial_fit(points[:0]).partial_fit(points), fit)
    other = model().partial_fit(points[:2_000]).partial_fit(points[2_000:])
    assert (other.maps_ != fit.maps_).any()


def test_a_young_tree_is_built_again_until_it_has_grown_up() -> None:
    points = some(4_000)
    fitted, drawn = model().fit(points[:100]), []
    for upto in range(200, 4_001, 100):
        drawn.append(state(fitted)["drawn_from"])
        fitted.partial_fit(points[upto - 100 : upto])
    assert sorted(set(drawn)) == [100, 200, 400, 800, 1_600]
    tensors, _ = fitted.to_arrays()
    assert tensors["young"].shape == (0, 4)


def test_fit_begins_a_new_tree() -> None:
    fitted = model().fit(some(50))
    assert same(fitted.fit(some(40, 2, seed=1)), model().fit(some(40, 2, seed=1)))
    assert (fitted.n_samples_seen_, fitted.n_features_in_) == (40, 2)


def test_points_are_neither_changed_nor_kept() -> None:
    points = some(1_200).astype(np.float32)
    before = points.copy()
    fitted = model().fit(points)
    assert points.tolist() == before.tolist()
    kept = [value for value in vars(fitted).values() if isinstance(value, np.ndarray)]
    assert not any(np.shares_memory(points, value) for value in kept)
    assert all(value.base is None or value.base.nbytes <= value.nbytes for value in kept)


def test_a_seed_makes_everything_repeatable() -> None:
    points = some(500)
    assert same(model(3).fit(points), model(3).fit(points))
    assert (model(3).fit(points).maps_ != model(4).fit(points).maps_).any()
    shared = [model(np.random.RandomState(5)).fit(points) for _ in range(2)]
    assert same(*shared)
    assert (model(None).fit(points).maps_ != model(None).fit(points).maps_).any()


def test_the_kind_of_input_does_not_matter() -> None:
    points = np.random.default_rng(0).integers(0, 9, (60, 3))
    wanted = model().fit(points.astype(np.float64))
    for given_ in (points, points.astype(np.float32), points.tolist(), np.asfortranarray(points)):
        assert same(model().fit(given_), wanted)


def test_it_has_the_manners_of_scikit_learn() -> None:
    fitted = model(9).fit(some(100))
    check_is_fitted(fitted)
    copy = clone(fitted)
    assert copy.get_params() == {
        "n_estimators": 30,
        "max_samples": 7,
        "random_state": 9,
        "beam_width": 2,
    }
    assert not hasattr(copy, "n_features_in_")
    assert same(copy.fit(some(100)), fitted)
    copy.set_params(max_samples=3).fit(some(100))
    assert copy.maps_.max() == 2
    assert copy.fit_predict(some(100)).tolist() == copy.labels_.tolist()
    assert "max_samples=7" in repr(fitted)


@pytest.mark.parametrize("n", [0, 1, 2, 6])
def test_few_points(n: int) -> None:
    points = some(n)
    fitted = model().fit(points)
    assert fitted.n_samples_seen_ == n
    assert fitted.maps_.shape == (n, 30)
    assert fitted.labels_.tolist() == [0] * n
    assert sorted(fitted.cut(max_size=1).tolist()) == list(range(n))
    assert fitted.drift_ == 0.0
    assert fitted.dendrogram_purity([1] * n) == 1.0
    if n:
        assert fitted.maps_.max() == (n + 1) // 2 - 1  # half of the points are centres, below psi
        assert sorted(fitted.cut(n_clusters=n).tolist()) == list(range(n))
    assert fitted.partial_fit(some(40, seed=1)).n_samples_seen_ == n + 40


@pytest.mark.parametrize("n", [4, 8, 13, 20, 26])
def test_fewer_points_than_psi_are_told_apart_too(n: int) -> None:
    """With every point a centre, no two of them would be alike."""
    found = []
    for seed in range(10):
        classes = np.random.default_rng(seed).permutation(np.arange(n) % 2)
        fitted = StreaKHC(random_state=seed).fit(classes[:, None] * 9 + some(n, 2, seed=seed) / 5)
        found.append(fitted.dendrogram_purity(classes))
    assert np.mean(found) > 0.95


def test_equal_points() -> None:
    fitted = model().fit(np.ones((100, 3)))
    assert not fitted.maps_.any()
    assert sorted(np.bincount(fitted.cut(max_size=30)).tolist()) == [25] * 4


@pytest.mark.parametrize("n", [0, 1, 5, 700, 2_500])
def test_a_saved_stream_goes_on_as_if_never_saved(n: int, tmp_path: Path) -> None:
    points, later = some(n), some(1_200, seed=1)
    fitted = model().fit(points)
    fitted.save(tmp_path / "tree.safetensors")
    loaded = StreaKHC.load(tmp_path / "tree.safetensors")
    assert same(loaded, fitted)
    assert loaded.get_params() == fitted.get_params()
    for part in (later[:3], later[3:]):
        assert same(loaded.partial_fit(part), fitted.partial_fit(part))
        assert loaded.drift_ == fitted.drift_
        assert partition(loaded.tree_, 20).tolist() == partition(fitted.tree_, 20).tolist()


def test_parameters_of_numpy_are_saved_too(tmp_path: Path) -> None:
    fitted = StreaKHC(np.int64(5), np.int32(3), random_state=np.int64(2)).fit(some(9))  # type: ignore[arg-type]
    fitted.save(tmp_path / "tree")
    loaded = StreaKHC.load(tmp_path / "tree")
    assert loaded.get_params() == {
        "n_estimators": 5,
        "max_samples": 3,
        "random_state": 2,
        "beam_width": 2,
    }
    assert same(loaded.fit(some(9)), fitted)


def test_parts_put_together_leave_the_first_alone() -> None:
    fitted = model().fit(some(1_200))
    before = state(fitted)
    other = StreaKHC.from_arrays(*fitted.to_arrays())
    assert other.partial_fit(some(300)).n_samples_seen_ == 1_500
    assert state(fitted) == before


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tree.safetensors"
    model().fit(some(50)).save(path)
    whole = path.read_bytes()
    for raw in (whole[: len(whole) // 2], whole[:4], b"", b"no such thing at all"):
        path.write_bytes(raw)
        with pytest.raises(LakeError, match=r"(?s)file of arrays is whole.*tree\.safetensors"):
            StreaKHC.load(path)
    with pytest.raises(LakeError, match=r"(?s)file of arrays is whole.*absent"):
        StreaKHC.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"format": 2}, "format 2"),
        ({}, "format None"),
        ("weights", "format None"),
        ([1], "format None"),
        ({"format": 1}, "no beam_width, "),
    ],
)
def test_a_file_of_something_else_is_named(about: Any, found: str, tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "other", {"nodes": np.zeros(3)}, about)
    rule = r"(?s)a saved StreaKHC is of format 1, and whole.*detail: "
    with pytest.raises(ClusterError, match=rule + found):
        StreaKHC.load(tmp_path / "other")


BAD: dict[str, tuple[Any, str]] = {
    "NaN": ([[1, 2], [np.nan, 0], [3, np.nan]], "(?s)finite in float32.*2 of 3 rows.*first row 1"),
    "inf": ([[1, 2], [1, -np.inf]], "(?s)finite in float32.*1 of 2 rows.*first row 1"),
    "too large": ([[1e39, 2]], "(?s)finite in float32.*scale huge values"),
    "None": ([[None, 2]], "finite in float32"),
    "one row": ([1.0, 2.0], r"(?s)an array \[n, d\].*shape \(2,\)"),
    "a number": (3.0, r"(?s)an array \[n, d\].*shape \(\)"),
    "three axes": (np.zeros((2, 2, 2)), r"(?s)an array \[n, d\].*shape \(2, 2, 2\)"),
    "no columns": (np.zeros((3, 0)), r"(?s)an array \[n, d\].*shape \(3, 0\)"),
    "ragged": ([[1, 2], [3]], "rows of equal length"),
    "text": ([["a", "b"]], "(?s)numbers in rows.*could not convert"),
    "objects": ([[{}, 1]], "numbers in rows"),
    "complex": (np.ones((2, 2)) * 1j, "(?s)numbers in rows.*complex128"),
    "dates": (np.zeros((2, 2), "M8[s]"), "(?s)numbers in rows.*datetime64"),
    "wrong d": (np.zeros((2, 3)), "(?s)as many floats.*3 floats, 2 before"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_points_that_cannot_be_clustered_leave_the_tree_as_it_was(name: str) -> None:
    points, match = BAD[name]
    for n in (50, 1_200):
        fitted = model().fit(some(n, 2))
        before = state(fitted)
        with pytest.raises(ClusterError, match=match):
            fitted.partial_fit(points)
        assert state(fitted) == before
        untouched = model().fit(some(n, 2)).partial_fit(some(30, 2, seed=1))
        assert same(fitted.partial_fit(some(30, 2, seed=1)), untouched)


@pytest.mark.parametrize("name", sorted(set(BAD) - {"wrong d"}))
def test_nothing_begins_with_points_that_cannot_be_clustered(name: str) -> None:
    points, match = BAD[name]
    empty = model()
    with pytest.raises(ClusterError, match=match):
        empty.partial_fit(points)
    with pytest.raises(ClusterError, match="not fitted"):
        empty.cut(max_size=3)
    assert same(empty.partial_fit(some(20)), model().fit(some(20)))


@pytest.mark.parametrize("name", ["n_estimators", "max_samples"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "3", None, True])
def test_parameters_are_positive_integers(name: str, value: Any) -> None:
    with pytest.raises(ClusterError, match=f"{name} is an integer of 1 or more"):
        StreaKHC(**{name: value}).fit(some(5))


@pytest.mark.parametrize(
    "ask",
    [
        lambda it: it.labels_,
        lambda it: it.n_samples_seen_,
        lambda it: it.drift_,
        lambda it: it.tree_,
        lambda it: it.maps_,
        lambda it: it.dendrogram_purity([]),
        lambda it: it.save("nowhere"),
    ],
)
def test_a_tree_without_a_first_batch_says_so(ask: Any) -> None:
    with pytest.raises(ClusterError, match=r"(?s)not fitted.*call fit\(X\) first"):
        ask(model())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 120), st.data())
def test_cuts_obey(n: int, data: st.DataObject) -> None:
    fitted = model().fit(np.random.default_rng(n).integers(0, 4, (n, 2)))
    size, count = data.draw(st.integers(1, 130)), data.draw(st.integers(1, n))
    assert np.bincount(fitted.cut(max_size=size)).max() <= size
    assert np.unique(fitted.cut(n_clusters=count)).tolist() == list(range(count))


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({}, "(?s)by size or by count.*max_size=None, n_clusters=None"),
        ({"max_size": 3, "n_clusters": 2}, "(?s)by size or by count.*max_size=3, n_clusters=2"),
        ({"max_size": 0}, "max_size is an integer of 1 or more"),
        ({"max_size": 2.0}, "max_size is an integer of 1 or more"),
        ({"n_clusters": 0}, "n_clusters is an integer of 1 or more"),
        ({"n_clusters": True}, "n_clusters is an integer of 1 or more"),
        ({"n_clusters": 11}, "(?s)as many clusters as points.*n_clusters=11, 10 points"),
    ],
)
def test_cuts_that_cannot_be(asked: dict[str, Any], match: str) -> None:
    with pytest.raises(ClusterError, match=match):
        model().fit(some(10)).cut(**asked)


def test_labels_are_the_cut_at_80() -> None:
    fitted = model().fit(some(1_000))
    assert fitted.labels_.tolist() == fitted.cut(max_size=80).tolist()
    assert np.bincount(fitted.labels_).max() <= 80


def test_purity_takes_classes_of_any_kind_one_a_point() -> None:
    blobs = np.repeat([0.0, 50.0, 100.0], 30)[:, None] + some(90, 1)
    order = np.random.default_rng(1).permutation(90)
    names = np.repeat(["a", "b", "c"], 30)[order]
    fitted = StreaKHC(random_state=0).fit(blobs[order])
    assert fitted.dendrogram_purity(names) == 1.0
    assert fitted.dendrogram_purity(names.tolist()) == 1.0
    assert fitted.dendrogram_purity(np.random.default_rng(2).permutation(names)) < 0.6
    with pytest.raises(ClusterError, match=r"(?s)one class a point.*shape \(89,\), 90 points"):
        fitted.dendrogram_purity(names[1:])


def test_drift_tells_a_new_place_from_the_old_one() -> None:
    fitted = StreaKHC(random_state=0).fit(some(2_000))
    assert fitted.drift_ == 0.0
    alike = fitted.partial_fit(some(2_000, seed=1)).drift_
    assert 0 < alike < 0.1
    away = StreaKHC(random_state=0).fit(some(2_000)).partial_fit(some(2_000, seed=1, at=9.0)).drift_
    assert 0.5 < away <= 1


def test_drift_is_of_the_kernel_not_of_later_parameters() -> None:
    fitted = model().fit(some(2_000)).partial_fit(some(500, seed=1, at=9.0))
    before = fitted.drift_
    assert fitted.set_params(n_estimators=3).drift_ == before
