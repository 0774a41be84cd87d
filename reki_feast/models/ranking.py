"""Metrics of reranked lists, in numpy: MAP and NDCG of the first k.

Definitions are those of KAR's reranking experiments (arXiv 2306.10933), which REKI's (arXiv
2408.10520) follow. A list is ranked by falling score; candidates with equal scores keep their
order. A list without positives contributes 0 to the mean.

scikit-learn's are other metrics: :func:`sklearn.metrics.ndcg_score` has the gain y instead of
``2^y - 1`` and averages over ties, and there is no MAP of the first k. Where the definitions
coincide (labels 0 and 1, no ties) the values do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RankScore:
    """Metrics of a model on some lists; NaN without lists.

    Attributes:
        map3: :func:`map_at` 3.
        map7: :func:`map_at` 7.
        ndcg3: :func:`ndcg_at` 3.
        ndcg7: :func:`ndcg_at` 7.
        lists: number of lists.
    """

    map3: float
    map7: float
    ndcg3: float
    ndcg7: float
    lists: int


def rank_score(labels: npt.ArrayLike, scores: npt.ArrayLike) -> RankScore:
    """Score the ranking of lists by ``scores`` ``[n, c]``, against ``labels`` ``[n, c]``."""
    ranked = _ranked(labels, scores)
    map3, map7 = _map(ranked, 3), _map(ranked, 7)
    return RankScore(map3, map7, _ndcg(ranked, 3), _ndcg(ranked, 7), len(ranked))


def map_at(labels: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> float:
    """Mean over lists of the average precision of the first k; NaN without lists.

    Average precision is the mean of the precisions at the positives **among the first k**: what
    the first k leave out does not lower it. Without a positive among them it is 0.

    >>> map_at([[1, 0, 1, 1]], [[4, 3, 2, 1]], 3) == (1 + 2 / 3) / 2
    True

    Args:
        labels: ``[n, c]``, positive where above 0.
        scores: ``[n, c]``.
        k: at least 1; more than c is as c.
    """
    return _map(_ranked(labels, scores), k)


def ndcg_at(labels: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> float:
    """Mean over lists of the normalised discounted cumulative gain; NaN without lists.

    The gain of a label y at rank r is ``(2^y - 1) / log2(r + 1)``, summed over the first k ranks
    and divided by that sum in the best order of the whole list.

    >>> round(ndcg_at([[0, 1, 0]], [[3, 2, 1]], 3), 4)
    0.6309

    Args:
        labels: ``[n, c]``, at least 0.
        scores: ``[n, c]``.
        k: at least 1; more than c is as c.
    """
    return _ndcg(_ranked(labels, scores), k)


def _map(ranked: npt.NDArray[np.float64], k: int) -> float:
    hits = _first(ranked, k) > 0
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return _mean((precision * hits).sum(axis=1) / hits.sum(axis=1).clip(1))


def _ndcg(ranked: npt.NDArray[np.float64], k: int) -> float:
    best = -np.sort(-ranked, axis=1)
    gained, best_gain = (_discounted(_first(labels, k)) for labels in (ranked, best))
    return _mean(np.divide(gained, best_gain, out=np.zeros_like(gained), where=best_gain > 0))


def _discounted(labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    discounts = 1 / np.log2(np.arange(2, labels.shape[1] + 2))
    gains: npt.NDArray[np.float64] = (np.exp2(labels) - 1) @ discounts
    return gains


def _ranked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Labels by falling score."""
    truth, values = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 2 or truth.shape != values.shape:
        raise ValueError(f"a score for each label [n, c]: {truth.shape} and {values.shape}")
    return np.take_along_axis(truth, (-values).argsort(axis=1, kind="stable"), axis=1)


def _first(ranked: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    if k < 1:
        raise ValueError(f"the first k of a list, from 1: {k}")
    return ranked[:, :k]


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
