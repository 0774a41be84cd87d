"""Nearest vectors in memory, against brute force, while rows come, change and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.stores.search import (
    IndexOptions,
    Metric,
    Query,
    QueryError,
    Rows,
    VectorIndex,
    graph,
    metric_of,
)
from reki_feast.stores.search.saved import SavedGraph

PATIENCE = 60.0
EXACT = IndexOptions(exact_rows=1_000_000)


def key(number: int) -> bytes:
    return b"%d" % number


def filled(vectors: np.ndarray, options: IndexOptions = EXACT) -> VectorIndex:
    index = VectorIndex(vectors.shape[1], options)
    index.put(rows(range(len(vectors)), vectors))
    return index


def rows(numbers: Sequence[int], vectors: np.ndarray) -> Rows:
    times = np.array(numbers, np.int64)
    return Rows([key(number) for number in numbers], vectors, times)


def brute(stored: dict[int, np.ndarray], query: np.ndarray, metric: Metric) -> np.ndarray:
    """All distances, the smallest first."""
    vectors = np.array([*stored.values()], np.float64).reshape(len(stored), len(query))
    one = query.astype(np.float64)
    products = (vectors * one).sum(1)
    if metric is Metric.INNER_PRODUCT:
        return np.sort(-products)
    if metric is Metric.L2:
        return np.sort(np.sqrt(((vectors - one) ** 2).sum(1)))
    lengths = np.sqrt((vectors**2).sum(1) * (one**2).sum())
    return np.sort(
        1 - np.array([p / n if n else 0.0 for p, n in zip(products, lengths, strict=True)])
    )


numbers = st.integers(0, 60)
#: Whole numbers give ties; those far from zero differ by less than float32 sums keep.
coordinates = st.one_of(
    st.integers(-2, 2).map(float), st.floats(4_000, 4_001, width=32), st.floats(-1, 1, width=32)
)
vectors = st.lists(coordinates, min_size=3, max_size=3).map(lambda v: np.array(v, np.float32))
changes = st.lists(
    st.tuples(st.just("put"), st.dictionaries(numbers, vectors, min_size=1))
    | st.tuples(st.just("remove"), st.sets(numbers)),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(changes, vectors, st.integers(1, 70), st.sampled_from(Metric))
def test_equal_to_brute_force_after_any_changes(
    made: Any, query: np.ndarray, count: int, metric: Metric
) -> None:
    index, stored = VectorIndex(3, EXACT), dict[int, np.ndarray]()
    for kind, what in made:
        if kind == "put":
            index.put(rows([*what], np.array([*what.values()])))
            stored |= what
        else:
            index.remove([key(number) for number in what])
            stored = {n: vector for n, vector in stored.items() if n not in what}
    found = index.nearest(Query(query, count, metric))
    expected = brute(stored, query, metric)[:count]
    np.testing.assert_allclose(found.distances, expected, rtol=1e-12, atol=1e-12)
    assert len(set(found.keys)) == len(found.keys) == len(expected)
    for name, distance in zip(found.keys, found.distances, strict=True):
        one = stored[int(name)].reshape(1, -1)
        np.testing.assert_allclose(metric.distances(one, query), distance)
    since = Query(query, count, metric, since=30)
    recent = {n: vector for n, vector in stored.items() if n >= 30}
    np.testing.assert_allclose(
        index.nearest(since).distances, brute(recent, query, metric)[:count], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("offset", [0.0, 3_000.0])
def test_many_rows_are_equal_to_brute_force(metric: Metric, offset: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30_000, 16)).astype(np.float32) + np.float32(offset)
    index = filled(vectors)
    index.remove([key(n) for n in range(0, 30_000, 7)])
    stored = {n: vectors[n] for n in range(30_000) if n % 7}
    for count in (1, 50, 600):
        query = rng.standard_normal(16).astype(np.float32) + np.float32(offset)
        found = index.nearest(Query(query, count, metric))
        expected = brute(stored, query, metric)[:count]
        np.testing.assert_allclose(found.distances, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("cosine", Metric.COSINE),
        ("COSINE", Metric.COSINE),
        ("IP", Metric.INNER_PRODUCT),
        ("inner_product", Metric.INNER_PRODUCT),
        ("dot", Metric.INNER_PRODUCT),
        ("l2", Metric.L2),
        ("euclidean", Metric.L2),
        ("", Metric.L2),
        (None, Metric.L2),
    ],
)
def test_metrics_have_the_names_that_feast_and_others_give_them(
    name: str | None, metric: Metric
) -> None:
    assert metric_of(name) is metric


@pytest.mark.parametrize(
    ("metric", "distances", "scores"),
    [
        (Metric.COSINE, [0.0, 1.0, 2.0, 1.0], [1.0, 0.0, -1.0, 0.0]),
        (Metric.INNER_PRODUCT, [-2.0, 0.0, 4.0, 0.0], [2.0, 0.0, -4.0, 0.0]),
        (Metric.L2, [1.0, 13**0.5, 4.0, 2.0], [-1.0, -(13**0.5), -4.0, -2.0]),
    ],
)
def test_distances_and_scores(metric: Metric, distances: list[float], scores: list[float]) -> None:
    vectors = np.array([[1, 0], [0, 3], [-2, 0], [0, 0]], np.float32)
    told = metric.distances(vectors, np.array([2, 0], np.float32))
    assert told.tolist() == pytest.approx(distances)
    assert metric.scores(told).tolist() == pytest.approx(scores)


def test_a_metric_of_no_name_is_refused() -> None:
    with pytest.raises(QueryError, match="'hamming'"):
        metric_of("hamming")


needs_faiss = pytest.mark.skipif(not graph.is_installed(), reason="no faiss")


def clustered(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(50, width))
    noise = rng.normal(size=(count, width)) * 0.5
    return (centres[rng.integers(50, size=count)] + noise).astype(np.float32)


def alike(vectors: np.ndarray, metric: Metric) -> np.ndarray:
    """Vectors whose lengths are alike, as graphs for the inner product need them."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths if metric is Metric.INNER_PRODUCT else vectors


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.01)


def with_graph(vectors: np.ndarray, metric: Metric, folder: Path | None = None) -> VectorIndex:
    index = filled(vectors, IndexOptions(exact_rows=500, folder=folder))
    index.nearest(Query(vectors[0], 1, metric))
    until(lambda: index.is_approximate(metric))
    return index


def recall(index: VectorIndex, stored: dict[int, np.ndarray], metric: Metric) -> float:
    names, hits = [*stored], 0
    matrix = np.array([*stored.values()])
    for query in clustered(40, seed=5):
        found = index.nearest(Query(query, 50, metric))
        assert [*found.distances] == sorted(found.distances)
        assert len(found.keys) == 50
        nearest = np.argsort(metric.distances(matrix, query), kind="stable")[:50]
        hits += len({int(name) for name in found.keys} & {names[n] for n in nearest})
    return hits / 50 / 40


@needs_faiss
@pytest.mark.parametrize("metric", Metric)
def test_a_graph_finds_the_nearest_and_follows_what_changes(metric: Metric) -> None:
    vectors = alike(clustered(3_000), metric)
    index, stored = with_graph(vectors, metric), dict(enumerate(vectors))
    assert recall(index, stored, metric) >= 0.99
    gone = [*range(0, 3_000, 5)]
    index.remove([key(n) for n in gone])
    other = alike(clustered(600, seed=2), metric)
    index.put(rows(range(2_700, 3_300), other))
    stored = {n: vector for n, vector in stored.items() if n % 5} | dict(
        zip(range(2_700, 3_300), other, strict=True)
    )
    assert index.is_approximate(metric)
    assert recall(index, stored, metric) >= 0.99


@needs_faiss
def test_a_graph_that_mostly_changed_is_built_anew(tmp_path: Path) -> None:
    index = with_graph(clustered(1_500), Metric.L2, tmp_path)
    before = index._graphs[Metric.L2].graph
    vectors = clustered(1_500, seed=3)
    for start in range(0, 1_500, 100):
        numbers = range(start, start + 100)
        index.put(rows(numbers, vectors[start : start + 100]))
    until(lambda: index._graphs[Metric.L2].graph is not before)
    assert recall(index, dict(enumerate(vectors)), Metric.L2) >= 0.99


@needs_faiss
def test_rows_that_change_while_a_graph_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, tune = threading.Event(), threading.Event(), graph.Graph.tune

    def held(self: graph.Graph, *arguments: Any) -> bool:
        begun.set()
        assert go_on.wait(PATIENCE)
        return tune(self, *arguments)

    monkeypatch.setattr(graph.Graph, "tune", held)
    vectors = clustered(1_000)
    index = filled(vectors, IndexOptions(exact_rows=500))
    index.nearest(Query(vectors[0], 1))
    assert begun.wait(PATIENCE)
    index.remove([key(n) for n in range(100)])
    other = clustered(150, seed=4)
    index.put(rows(range(950, 1_100), other))
    go_on.set()
    until(lambda: index.is_approximate(Metric.L2))
    stored = {n: vectors[n] for n in range(100, 950)} | dict(
        zip(range(950, 1_100), other, strict=True)
    )
    assert recall(index, stored, Metric.L2) >= 0.99


@needs_faiss
def test_few_considered_rows_are_compared_one_by_one() -> None:
    vectors = clustered(2_000)
    index = with_graph(vectors, Metric.L2)
    for since in (1_999, 1_900, 1_000, 100, 0):
        stored = {n: vectors[n] for n in range(since, 2_000)}
        found = index.nearest(Query(vectors[3], 20, Metric.L2, since=since))
        expected = brute(stored, vectors[3], Metric.L2)[:20]
        np.testing.assert_allclose(found.distances, expected, rtol=1e-9, atol=1e-9)


@needs_faiss
def test_a_graph_that_finds_too_little_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()
    monkeypatch.setattr(graph.Graph, "tune", lambda self, *_: tried.set())
    vectors = clustered(1_000)
    index = filled(vectors, IndexOptions(exact_rows=500))
    index.nearest(Query(vectors[0], 1))
    assert tried.wait(PATIENCE)
    until(lambda: not index._graphs[Metric.L2].is_building)
    assert not index.is_approximate(Metric.L2)
    expected = brute(dict(enumerate(vectors)), vectors[0], Metric.L2)[:50]
    np.testing.assert_allclose(index.nearest(Query(vectors[0], 50)).distances, expected, atol=1e-9)


@needs_faiss
class TestKeptOnDisk:
    """A graph in a folder."""

    def saved(self, folder: Path, vectors: np.ndarray) -> list[Path]:
        with_graph(vectors, Metric.COSINE, folder)
        until(lambda: (folder / "cosine.npz").exists())
        return sorted(folder.iterdir())

    def test_is_loaded_with_what_changed_meanwhile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, vectors = tmp_path / "deep" / "graphs", clustered(1_000)
        kept = self.saved(folder, vectors)
        assert [path.name for path in kept] == ["cosine.faiss", "cosine.npz"]
        modes = {path.stat().st_mode & 0o777 for path in kept}
        assert (modes, folder.stat().st_mode & 0o777) == ({0o600}, 0o700)
        monkeypatch.setattr(VectorIndex, "_built", None)  # not built again
        changed = vectors.copy()
        changed[:50] = clustered(50, seed=8)
        changed = np.concatenate([changed[:900], clustered(60, seed=9)])
        order = np.random.default_rng(3).permutation(len(changed))
        index = VectorIndex(8, IndexOptions(exact_rows=500, folder=folder))
        index.put(rows(order.tolist(), changed[order]))
        index.nearest(Query(changed[0], 1, Metric.COSINE))
        until(lambda: index.is_approximate(Metric.COSINE))
        assert recall(index, dict(enumerate(changed)), Metric.COSINE) >= 0.99

    def test_is_deleted_with_any_row(self, tmp_path: Path) -> None:
        vectors = clustered(1_000)
        self.saved(tmp_path, vectors)
        index = with_graph(vectors, Metric.COSINE, tmp_path)
        index.remove([key(3)])
        assert [*tmp_path.iterdir()] == []

    @pytest.mark.parametrize("damaged", ["cosine.faiss", "cosine.npz"])
    def test_is_built_anew_where_it_is_damaged(self, tmp_path: Path, damaged: str) -> None:
        vectors = clustered(1_000)
        self.saved(tmp_path, vectors)
        whole = (tmp_path / damaged).read_bytes()
        for content in (whole[: len(whole) // 2], b"", None):
            if content is None:
                (tmp_path / damaged).unlink()
            else:
                (tmp_path / damaged).write_bytes(content)
            assert SavedGraph(tmp_path, Metric.COSINE).load(filled(vectors).table) is None
            assert (
                recall(
                    with_graph(vectors, Metric.COSINE, tmp_path),
                    dict(enumerate(vectors)),
                    Metric.COSINE,
                )
                >= 0.99
            )

    def test_is_not_used_for_other_rows(self, tmp_path: Path) -> None:
        self.saved(tmp_path, clustered(1_000))
        other = filled(clustered(1_000, seed=7))
        assert SavedGraph(tmp_path, Metric.COSINE).load(other.table) is None
        wider = filled(clustered(1_000, width=9))
        assert SavedGraph(tmp_path, Metric.COSINE).load(wider.table) is None

    def test_goes_on_where_the_folder_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        vectors = clustered(1_000)
        index = with_graph(vectors, Metric.COSINE, tmp_path / "file")
        assert recall(index, dict(enumerate(vectors)), Metric.COSINE) >= 0.99
