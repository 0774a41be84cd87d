"""Gain in AUC of sets of columns with a temporal holdout: train on early rows, test on late ones.

Two small models stand in for a downstream model: a logistic regression and boosted trees. Each is
trained on baseline columns alone and with each set of further columns. Gains come with a p-value by
a bootstrap over users, since rows of one user are not independent.

Controls are sets like others: :func:`noise`, and scores of permuted texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from reki_feast.errors import EvaluateError
from reki_feast.models.bootstrap import interval, resampled_auc, two_sided
from reki_feast.models.metrics import auc

Floats: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
#: Schedule of `reki run`: at midnight UTC, at each full hour, at each interaction.
Schedule = Literal["nightly", "hourly", "event"]

#: Rows that take about a minute; of a longer log a sample of users is used.
MOST_ROWS = 100_000
#: Share of the training rows, the last in time, that choose the number of trees.
VALIDATION = 0.1
TREES = 150
#: Microseconds between runs.
_INTERVAL: Mapping[Schedule, int] = {"nightly": 86_400_000_000, "hourly": 3_600_000_000, "event": 1}


@dataclass(frozen=True)
class Gain:
    """AUC of one model on the later rows, with the baseline columns and with a set beside them.

    Attributes:
        plain: With the baseline columns alone.
        ours: With the set.
        p: Two-sided p-value of no difference.
        low: Lower end of the interval that holds 95 % of the bootstrapped differences.
        high: Upper end of it.
    """

    plain: float
    ours: float
    p: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """Difference in AUC."""
        return self.ours - self.plain


@dataclass(frozen=True)
class SetGain:
    """Gains of one set of columns, by model."""

    name: str
    width: int
    logistic: Gain
    trees: Gain


@dataclass(frozen=True)
class TemporalGains:
    """Gains of sets of columns, tested on the last part of a log.

    Attributes:
        cut: Time of the first test row.
        train: Number of training rows.
        test: Number of test rows.
        test_users: Number of users of the test rows.
        rows: Of the whole log; more than ``train + test`` where users were sampled.
        sets: In the order given.
    """

    cut: int
    train: int
    test: int
    test_users: int
    rows: int
    sets: tuple[SetGain, ...]

    @property
    def sampled(self) -> bool:
        """Whether users were sampled."""
        return self.train + self.test < self.rows


@dataclass(frozen=True)
class TimedLabels:
    """Rows of a log.

    Attributes:
        labels: ``[n]``.
        users: ``[n]``, a code a user.
        times: ``[n]``, numbers that rise with time.
    """

    labels: npt.ArrayLike
    users: npt.ArrayLike
    times: npt.ArrayLike


def temporal_gain(
    plain: Floats,
    sets: Mapping[str, Floats],
    log: TimedLabels,
    *,
    test: float = 0.2,
    seed: int = 0,
    rounds: int = 1000,
) -> TemporalGains:
    """Train on the first rows in time without and with each set, test on the last.

    A log of 100,000 rows takes less than a minute on two cores; of a longer one as many users are
    sampled. Columns may have NaN.

    Args:
        plain: ``[n, c]``, baseline columns that a model has anyway, as those of
            :func:`~reki_feast.models.running_features.running`.
        sets: further columns ``[n, d]`` by name.
        log: Labels, users and times of the rows.
        test: Share of the rows to test on.
        seed: Of the bootstrap and of the sample of users.
        rounds: Resamples of the bootstrap.

    Raises:
        EvaluateError: The rows before or after the cut are of one label.
    """
    columns = np.asarray(log.labels).astype(bool), np.asarray(log.users), np.asarray(log.times)
    rows = _sampled_rows(columns[1], seed)
    labels, users, times = (column[rows] for column in columns)
    cut = np.quantile(times, 1 - test, method="higher")
    late = times >= cut
    _check_labels(labels, late)
    split = _TimeSplit(labels, late, _validation_rows(times, late), users, rounds, seed)
    before = _fit_and_score(plain[rows], split)
    gains = []
    for name, added in sets.items():
        after = _fit_and_score(np.concatenate([plain[rows], added[rows]], axis=1), split)
        by_model = [_gain(a, b) for a, b in zip(before, after, strict=True)]
        gains.append(SetGain(name, added.shape[1], *by_model))
    counts = int((~late).sum()), int(late.sum()), len(np.unique(users[late])), len(columns[0])
    return TemporalGains(int(cut), *counts, tuple(gains))


def noise(rows: int, width: int, seed: int) -> Floats:
    """Random columns ``[rows, width]``: a control for what the width of a set costs a model."""
    return np.random.default_rng(seed).standard_normal((rows, width), np.float32)


def score_auc(score: npt.ArrayLike, labels: npt.ArrayLike, rows: npt.ArrayLike) -> float:
    """AUC of one column on some rows; rows without a value (NaN) are left out.

    A much higher AUC on training rows than on later ones indicates a leak of labels.

    Args:
        score: ``[n]``.
        labels: ``[n]``.
        rows: ``[n]``, mask of the rows to use.
    """
    values, positive = np.asarray(score, np.float64), np.asarray(labels).astype(bool)
    valid = np.asarray(rows, bool) & np.isfinite(values)
    return auc(positive[valid], values[valid])


def share_found(
    users: npt.ArrayLike,
    items: npt.ArrayLike,
    times: npt.ArrayLike,
    cut: int,
    schedule: Schedule,
) -> float:
    """Share of the rows from ``cut`` on whose user and item both have stored rows at their time.

    They have if both had an interaction before the last scheduled run; NaN without such rows.

    Args:
        users: ``[n]``, a code a user.
        items: ``[n]``, a code an item.
        times: ``[n]``, microseconds since 1970, UTC.
        cut: First time that counts, in the same unit.
        schedule: Of the runs.
    """
    when = np.asarray(times, np.int64)
    late = when >= cut
    if not late.any():
        return float("nan")
    run = when - when % _INTERVAL[schedule]
    stored = [_first_time(np.asarray(key), when) < run for key in (users, items)]
    return float((stored[0] & stored[1])[late].mean())


@dataclass(frozen=True)
class _TimeSplit:
    """Rows and their parts: ``late`` ones are tested, ``validation`` ones stop the trees."""

    labels: Mask
    late: Mask
    validation: Mask
    users: npt.NDArray[Any]
    rounds: int
    seed: int

    @property
    def train_trees(self) -> Mask:
        """Training rows of the trees: all early ones where the others would be of one class."""
        rows = ~self.late & ~self.validation
        return rows if len(np.unique(self.labels[rows])) > 1 else ~self.late


def _sampled_rows(users: npt.NDArray[Any], seed: int) -> npt.NDArray[np.int64]:
    """Row numbers to use, in order: all rows of a random sample of users."""
    if len(users) <= MOST_ROWS:
        return np.arange(len(users))
    codes, user, counts = np.unique(users, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(codes))
    within = np.cumsum(counts[order]) <= MOST_ROWS
    within[0] = True
    return np.flatnonzero(np.isin(user, order[within]))


def _check_labels(labels: Mask, late: Mask) -> None:
    for part, where in ((~late, "before"), (late, "after")):
        count, likes = int(part.sum()), int(labels[part].sum())
        if not 0 < likes < count:
            raise EvaluateError(
                "a gain in time takes liked and other rows before the cut and after it",
                detail=f"{likes} liked of {count} rows {where} it",
                hint="test on another share of the rows, or wait for more interactions",
            )


def _validation_rows(times: npt.NDArray[Any], late: Mask) -> Mask:
    """The last rows before the cut."""
    start = np.quantile(times[~late], 1 - VALIDATION, method="higher")
    return np.asarray(~late & (times >= start))


@dataclass(frozen=True)
class _ModelScore:
    """AUC of one model on the later rows, and on resamples of their users."""

    auc: float
    resampled: Scores


def _gain(before: _ModelScore, after: _ModelScore) -> Gain:
    differences = after.resampled - before.resampled
    return Gain(before.auc, after.auc, two_sided(differences), *interval(differences))


def _fit_and_score(x: Floats, split: _TimeSplit) -> list[_ModelScore]:
    """Scores of both models; a column without values before the cut is set to 0."""
    has_values = np.isfinite(x[split.train_trees]).any(axis=0)
    x = np.where(has_values, x, np.float32(0))
    scores = [_logistic(x, split), _trees(x, split)]
    labels, users = split.labels[split.late], split.users[split.late]
    resampled = resampled_auc(scores, labels, users, rounds=split.rounds, seed=split.seed)
    return [
        _ModelScore(auc(labels, score), aucs) for score, aucs in zip(scores, resampled, strict=True)
    ]


def _logistic(x: Floats, split: _TimeSplit) -> Scores:
    from sklearn.linear_model import LogisticRegression  # takes a second

    early = x[~split.late]
    mean, std = np.nanmean(early, axis=0), np.nanstd(early, axis=0)
    z = np.nan_to_num((x - mean) / np.where(std > 0, std, 1.0))
    model = LogisticRegression(C=0.1, max_iter=1000).fit(z[~split.late], split.labels[~split.late])
    return np.asarray(model.decision_function(z[split.late]))


def _trees(x: Floats, split: _TimeSplit) -> Scores:
    """Boosted trees, their number chosen on the last rows before the cut, which train none.

    scikit-learn's early stopping would validate on random rows instead of later ones.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_leaf_nodes=7,
        min_samples_leaf=100,
        max_bins=63,
        early_stopping=False,
        random_state=0,
    )
    model.fit(x[split.train_trees], split.labels[split.train_trees])
    aucs = [
        auc(split.labels[split.validation], score)
        for score in model.staged_decision_function(x[split.validation])
    ]
    trees = int(np.argmax(np.nan_to_num(aucs, nan=0.5)))
    staged = model.staged_decision_function(x[split.late])
    return np.asarray(next(islice(staged, trees, None))).ravel()


def _first_time(key: npt.NDArray[Any], when: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The time ``[n]`` of the first row with each row's key."""
    codes, inverse = np.unique(key, return_inverse=True)
    first = np.full(len(codes), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse, when)
    return first[inverse]
