"""Ranking and probability metrics of a click model, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve; ties count half. NaN where only one class is there.

    >>> auc([0, 1, 1], [0.1, 0.1, 0.9])
    0.75
    """
    truth, values = _pair(labels, scores)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts, dtype=np.float64)
    ranks = (ends - (counts - 1) / 2)[code]  # mean rank of each run of ties
    above = float(ranks[truth].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean negative log-likelihood, in nats; NaN without samples.

    >>> round(log_loss([1, 0], [0.5, 0.5]), 4)
    0.6931
    """
    truth, values = _pair(labels, probabilities)
    if len(truth) == 0:
        return float("nan")
    safe = np.clip(values, 1e-7, 1 - 1e-7)
    return float(-np.log(np.where(truth, safe, 1 - safe)).mean())


def _pair(
    labels: npt.ArrayLike, values: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    truth = np.asarray(labels).astype(bool).ravel()
    scores = np.asarray(values, np.float64).ravel()
    if len(truth) != len(scores):
        raise ValueError(f"as many labels as scores: {len(truth)} and {len(scores)}")
    return truth, scores
