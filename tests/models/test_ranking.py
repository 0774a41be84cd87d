"""MAP and NDCG of lists against plain loops and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from reki_feast.models.ranking import RankScore, map_at, ndcg_at, rank_score

Metric = Callable[[npt.ArrayLike, npt.ArrayLike, int], float]


@st.composite
def ranked_lists(draw: st.DrawFn) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Labels 0 to 2 and scores with ties, ``[n, c]``."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 9)))
    size = shape[0] * shape[1]
    labels = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    scores = draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=size, max_size=size))
    return np.reshape(labels, shape), np.reshape(scores, shape)


def one_by_one(labels: list[int], scores: list[float], k: int) -> tuple[float, float]:
    """Average precision and NDCG of a list."""
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))[:k]
    hits, precisions, gain = 0, [], 0.0
    for rank, n in enumerate(order, start=1):
        if labels[n] > 0:
            hits += 1
            precisions.append(hits / rank)
        gain += (2 ** labels[n] - 1) / math.log2(rank + 1)
    best = sorted(labels, reverse=True)[:k]
    most = sum((2**y - 1) / math.log2(rank + 1) for rank, y in enumerate(best, start=1))
    return sum(precisions) / max(hits, 1), gain / most if most else 0.0


@settings(deadline=None, max_examples=50)
@given(ranked_lists(), st.integers(1, 12))
def test_all_lists_at_once_are_lists_one_by_one(
    lists: tuple[npt.NDArray[Any], npt.NDArray[Any]], k: int
) -> None:
    labels, scores = lists
    each = [one_by_one(*pair, k) for pair in zip(labels.tolist(), scores.tolist(), strict=True)]
    expected = np.mean(each, axis=0).tolist()
    assert [map_at(labels, scores, k), ndcg_at(labels, scores, k)] == pytest.approx(expected)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.booleans(), min_size=10, max_size=10), st.permutations(range(10)))
def test_ndcg_is_scikit_learns_and_map_of_all_its_average_precision(
    labels: list[bool], scores: list[int]
) -> None:
    for k in (1, 3, 7, 10):
        assert ndcg_at([labels], [scores], k) == pytest.approx(ndcg_score([labels], [scores], k=k))
    if any(labels):
        expected = average_precision_score(labels, scores)
        assert map_at([labels], [scores], 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "k", "mean_precision", "gain"),
    [
        ([1, 0, 0, 0], 1, 1, 1),
        ([0, 0, 0, 1], 3, 0, 0),
        ([1, 0, 0, 1], 3, 1, 1 / (1 + 1 / math.log2(3))),  # the last one is out of sight of MAP
        ([0, 1, 1, 0], 3, (1 / 2 + 2 / 3) / 2, (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))),
        ([0, 0, 0, 0], 3, 0, 0),
    ],
)
def test_by_hand(labels: list[int], k: int, mean_precision: float, gain: float) -> None:
    scores = [[4, 3, 2, 1]]
    assert map_at([labels], scores, k) == pytest.approx(mean_precision)
    assert ndcg_at([labels], scores, k) == pytest.approx(gain)


def test_a_list_without_positives_halves_the_mean_of_two() -> None:
    assert map_at([[1, 0], [0, 0]], [[2, 1]] * 2, 2) == 0.5
    assert ndcg_at([[1, 0], [0, 0]], [[2, 1]] * 2, 2) == 0.5


def test_ties_stay_as_they_are() -> None:
    assert map_at([[0, 1], [1, 0]], np.zeros((2, 2)), 2) == (1 / 2 + 1) / 2


def test_a_score_of_everything() -> None:
    labels = [[0, 1, 0, 0, 1, 0, 0, 1, 0, 0]]
    scores = [[float(n) for n in range(10, 0, -1)]]
    found = rank_score(labels, scores)
    map3, map7 = map_at(labels, scores, 3), map_at(labels, scores, 7)
    ndcg3, ndcg7 = ndcg_at(labels, scores, 3), ndcg_at(labels, scores, 7)
    assert found == RankScore(map3=map3, map7=map7, ndcg3=ndcg3, ndcg7=ndcg7, lists=1)
    assert (map3, map7) == (1 / 2, (1 / 2 + 2 / 5) / 2)
    assert math.isnan(rank_score(np.empty((0, 10)), np.empty((0, 10))).map3)


@pytest.mark.parametrize("metric", [map_at, ndcg_at])
def test_what_cannot_be_scored(metric: Metric) -> None:
    with pytest.raises(ValueError, match=r"a score for each label .*\(1, 2\) and \(1, 1\)"):
        metric([[1, 0]], [[1]], 1)
    with pytest.raises(ValueError, match=r"\(2,\) and \(2,\)"):
        metric([1, 0], [1, 0], 1)
    with pytest.raises(ValueError, match="the first k of a list, from 1: 0"):
        metric([[1]], [[1]], 0)
