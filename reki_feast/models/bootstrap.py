"""Bootstrap of AUC over users.

The AUC of a resample is :func:`sklearn.metrics.roc_auc_score` with users' counts as sample
weights, to the last bits; here rows are sorted once for all resamples, instead of once for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Scores: TypeAlias = npt.NDArray[np.float64]

#: Resamples computed at once: their weights fit the processor's cache.
_CHUNK = 16


def resampled_auc(
    scores: Sequence[npt.NDArray[Any]],
    labels: npt.ArrayLike,
    users: npt.ArrayLike,
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> Scores:
    """AUC ``[scores, rounds]`` of each score over the same resamples of the users.

    A user drawn twice contributes each row twice. NaN where a resample has one class only.

    Args:
        scores: ``[n]`` each.
        labels: ``[n]``.
        users: ``[n]``, a code a user.
        rounds: resamples.
        seed: of the draws.
    """
    positive = np.asarray(labels).astype(bool)
    codes, user = np.unique(np.asarray(users), return_inverse=True)
    ranked = [_RankedRows.of(np.asarray(score), positive, user) for score in scores]
    chunks = [
        np.stack([one.auc(counts) for one in ranked])
        for counts in _resample_counts(len(codes), rounds, np.random.default_rng(seed))
    ]
    return np.concatenate(chunks, axis=1)


def two_sided(differences: npt.ArrayLike) -> float:
    """Two-sided p-value of bootstrapped differences from 0.

    >>> two_sided([0.1] * 999), two_sided([0.1, -0.1, 0.2]), two_sided([0.0, 0.0])
    (0.002, 1.0, 1.0)
    """
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    least = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (1 + least) / (1 + len(values))))


def interval(differences: npt.ArrayLike, share: float = 0.95) -> tuple[float, float]:
    """The interval that holds this share of bootstrapped differences; NaN where there are none.

    >>> interval([0.0, 0.5, 1.0], share=0.5)
    (0.25, 0.75)
    """
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def _resample_counts(users: int, rounds: int, rng: np.random.Generator) -> Iterator[Scores]:
    """Number of times each user was drawn, ``[resamples, users]``, in chunks of resamples."""
    for start in range(0, rounds, _CHUNK):
        size = min(_CHUNK, rounds - start)
        drawn = rng.integers(0, users, (size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users)
        yield counts.reshape(size, users).astype(np.float64)


@dataclass(frozen=True)
class _RankedRows:
    """Rows sorted by score.

    Attributes:
        user: ``[n]``, code of each row's user.
        positive: ``[n]``, 1 or 0.
        starts: First row of each run of equal scores.
    """

    user: npt.NDArray[np.int64]
    positive: Scores
    starts: npt.NDArray[np.int64]

    @staticmethod
    def of(
        score: npt.NDArray[Any], positive: npt.NDArray[np.bool_], user: npt.NDArray[np.int64]
    ) -> _RankedRows:
        order = np.argsort(score, kind="stable")
        values = score[order]
        new = np.concatenate([[True], values[1:] != values[:-1]])
        return _RankedRows(user[order], positive[order].astype(np.float64), np.flatnonzero(new))

    def auc(self, counts: Scores) -> Scores:
        """AUC ``[resamples]``, each row weighted by its user's count."""
        weights = counts[:, self.user]
        positive = weights * self.positive
        negative = weights - positive
        if len(self.starts) < len(self.user):
            parts = (positive, negative)
            positive, negative = (np.add.reduceat(part, self.starts, axis=1) for part in parts)
        below = np.cumsum(negative, axis=1)
        pairs = positive.sum(axis=1) * below[:, -1]
        above = np.einsum("rg,rg->r", positive, below - negative / 2)
        return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)
