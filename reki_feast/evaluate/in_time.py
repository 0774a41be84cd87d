"""Do columns help a model tomorrow? Trained on a log's first part in time, tested on its last.

Two small models stand for a user's own: a logistic regression and boosted trees. Each is trained
with plain columns alone and with each set of further columns beside them. What they gain is told
with its p, by a bootstrap over users: rows of one user are not independent.

Controls are sets like others: :func:`noise`, and columns made of permuted texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from reki_feast.errors import EvaluateError
from reki_feast.recommend.metrics import auc

Floats: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
#: How often `reki run` is scheduled: at midnight UTC, at each full hour, at each interaction.
Schedule = Literal["nightly", "hourly", "event"]

#: Rows that a minute is enough for; of a longer log some users are drawn.
MOST_ROWS = 100_000
#: Share of the rows trained on, the last in time, by which the number of trees is chosen.
CHOOSING = 0.1
TREES = 150
#: Resamples weighed at once: their weights fit the processor's cache.
_CHUNK = 16
#: Microseconds.
_EVERY: Mapping[Schedule, int] = {"nightly": 86_400_000_000, "hourly": 3_600_000_000, "event": 1}


@dataclass(frozen=True)
class Gain:
    """AUC on the later rows of one model with plain columns, and with a set beside them.

    Attributes:
        plain: of plain columns alone.
        ours: with the set.
        p: two-sided, that the set gains or loses nothing.
    """

    plain: float
    ours: float
    p: float

    @property
    def gain(self) -> float:
        """What the set adds."""
        return self.ours - self.plain


@dataclass(frozen=True)
class SetGain:
    """What one set of columns brings each model."""

    name: str
    width: int
    logistic: Gain
    trees: Gain


@dataclass(frozen=True)
class InTime:
    """What sets of columns bring, tested on a log's last part.

    Attributes:
        cut: time from which rows were tested.
        train: rows trained on.
        test: rows tested on.
        test_users: their users.
        rows: of the whole log; more than ``train + test`` where only some users were drawn.
        sets: in the order given.
    """

    cut: int
    train: int
    test: int
    test_users: int
    rows: int
    sets: tuple[SetGain, ...]

    @property
    def sampled(self) -> bool:
        """Whether only some users' rows were looked at."""
        return self.train + self.test < self.rows


def gain_in_time(
    plain: Floats,
    sets: Mapping[str, Floats],
    labels: npt.ArrayLike,
    users: npt.ArrayLike,
    times: npt.ArrayLike,
    *,
    test: float = 0.2,
    seed: int = 0,
    rounds: int = 1000,
) -> InTime:
    """Train on the first rows in time without and with each set, test on the last.

    A log of 100,000 rows takes less than a minute on two cores; of a longer one users are drawn
    until there are so many. Columns may have NaN.

    Args:
        plain: ``[n, c]``, columns that a model has anyway, as those of
            :func:`~reki_feast.evaluate.running.running`.
        sets: further columns ``[n, d]`` by name.
        labels: ``[n]``.
        users: ``[n]``, a code a user.
        times: ``[n]``, numbers that rise with time.
        test: share of the rows to test on.
        seed: of the bootstrap and of the draw of users.
        rounds: resamples of the bootstrap.

    Raises:
        EvaluateError: too little lies before or after the cut to train and test on.
    """
    every = np.asarray(labels).astype(bool), np.asarray(users), np.asarray(times)
    drawn = _drawn(every[1], seed)
    likes, who, when = (part[drawn] for part in every)
    cut = np.quantile(when, 1 - test, method="higher")
    late = when >= cut
    _check_labels(likes, late)
    split = _Split(likes, late, _choosing(when, late), who, rounds, seed)
    before = _tested(plain[drawn], split)
    found = []
    for name, columns in sets.items():
        after = _tested(np.concatenate([plain[drawn], columns[drawn]], axis=1), split)
        pairs = zip(before, after, strict=True)
        gains = [Gain(a.auc, b.auc, two_sided(b.spread - a.spread)) for a, b in pairs]
        found.append(SetGain(name, columns.shape[1], *gains))
    counts = int((~late).sum()), int(late.sum()), len(np.unique(who[late])), len(every[0])
    return InTime(int(cut), *counts, tuple(found))


def noise(rows: int, width: int, seed: int) -> Floats:
    """Columns that mean nothing, ``[rows, width]``: what a set's width alone costs a model."""
    return np.random.default_rng(seed).standard_normal((rows, width), np.float32)


def score_auc(score: npt.ArrayLike, labels: npt.ArrayLike, rows: npt.ArrayLike) -> float:
    """AUC of one column on some rows; those of them that found none (NaN) are left out.

    Higher on rows that a job would train on than on later ones, it has seen their labels.

    Args:
        score: ``[n]``.
        labels: ``[n]``.
        rows: ``[n]``, true for those that count.
    """
    values, likes = np.asarray(score, np.float64), np.asarray(labels).astype(bool)
    there = np.asarray(rows, bool) & np.isfinite(values)
    return auc(likes[there], values[there])


def share_found(
    users: npt.ArrayLike,
    items: npt.ArrayLike,
    times: npt.ArrayLike,
    cut: int,
    schedule: Schedule,
) -> float:
    """Share of the rows from ``cut`` on whose user and item both have a state then.

    They have one when both had an interaction before the last scheduled run; NaN without such rows.

    Args:
        users: ``[n]``, a code a user.
        items: ``[n]``, a code an item.
        times: ``[n]``, microseconds since 1970, UTC.
        cut: the same.
        schedule: when runs happen.
    """
    when = np.asarray(times, np.int64)
    late = when >= cut
    if not late.any():
        return float("nan")
    run = when - when % _EVERY[schedule]
    known = [_first(np.asarray(key), when) < run for key in (users, items)]
    return float((known[0] & known[1])[late].mean())


def resampled_auc(
    scores: Sequence[npt.NDArray[Any]],
    labels: npt.ArrayLike,
    users: npt.ArrayLike,
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> Scores:
    """AUC ``[scores, rounds]`` of each score over the same resamples of the users.

    A user drawn twice has each of his rows twice. NaN where a resample has one class alone.

    Args:
        scores: ``[n]`` each.
        labels: ``[n]``.
        users: ``[n]``, a code a user.
        rounds: resamples.
        seed: of the draws.
    """
    likes = np.asarray(labels).astype(bool)
    codes, owner = np.unique(np.asarray(users), return_inverse=True)
    ranked = [_Ranked.of(np.asarray(score), likes, owner) for score in scores]
    chunks = [
        np.stack([one.auc(counts) for one in ranked])
        for counts in _draws(len(codes), rounds, np.random.default_rng(seed))
    ]
    return np.concatenate(chunks, axis=1)


def two_sided(differences: npt.ArrayLike) -> float:
    """p of bootstrapped differences: how seldom they lie on the other side of 0.

    >>> two_sided([0.1] * 999), two_sided([0.1, -0.1, 0.2]), two_sided([0.0, 0.0])
    (0.002, 1.0, 1.0)
    """
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    least = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (1 + least) / (1 + len(values))))


@dataclass(frozen=True)
class _Split:
    """Rows and their parts: ``late`` ones are tested, ``choosing`` ones stop the trees."""

    labels: Mask
    late: Mask
    choosing: Mask
    users: npt.NDArray[Any]
    rounds: int
    seed: int

    @property
    def first(self) -> Mask:
        """What trains trees: all that is early where the rest would be of one class."""
        rows = ~self.late & ~self.choosing
        return rows if len(np.unique(self.labels[rows])) > 1 else ~self.late


def _drawn(users: npt.NDArray[Any], seed: int) -> npt.NDArray[np.int64]:
    """Rows to look at, in order: all of so many users that there are not too many."""
    if len(users) <= MOST_ROWS:
        return np.arange(len(users))
    codes, owner, counts = np.unique(users, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(codes))
    within = np.cumsum(counts[order]) <= MOST_ROWS
    within[0] = True
    return np.flatnonzero(np.isin(owner, order[within]))


def _check_labels(labels: Mask, late: Mask) -> None:
    for part, where in ((~late, "before"), (late, "after")):
        count, likes = int(part.sum()), int(labels[part].sum())
        if not 0 < likes < count:
            raise EvaluateError(
                "a gain in time takes liked and other rows before the cut and after it",
                found=f"{likes} liked of {count} rows {where} it",
                mend="test on another share of the rows, or wait for more interactions",
            )


def _choosing(when: npt.NDArray[Any], late: Mask) -> Mask:
    """The last rows before the cut."""
    start = np.quantile(when[~late], 1 - CHOOSING, method="higher")
    return np.asarray(~late & (when >= start))


@dataclass(frozen=True)
class _Tested:
    """AUC on the later rows, and on resamples of their users."""

    auc: float
    spread: Scores


def _tested(x: Floats, split: _Split) -> list[_Tested]:
    """What each model makes of the columns; one that is empty before the cut says nothing."""
    known = np.isfinite(x[split.first]).any(axis=0)
    given = np.where(known, x, np.float32(0))
    scores = [_logistic(given, split), _trees(given, split)]
    labels, users = split.labels[split.late], split.users[split.late]
    spread = resampled_auc(scores, labels, users, rounds=split.rounds, seed=split.seed)
    return [_Tested(auc(labels, score), own) for score, own in zip(scores, spread, strict=True)]


def _logistic(x: Floats, split: _Split) -> Scores:
    from sklearn.linear_model import LogisticRegression  # takes a second

    early = x[~split.late]
    mean, spread = np.nanmean(early, axis=0), np.nanstd(early, axis=0)
    z = np.nan_to_num((x - mean) / np.where(spread > 0, spread, 1.0))
    model = LogisticRegression(C=0.1, max_iter=1000).fit(z[~split.late], split.labels[~split.late])
    return np.asarray(model.decision_function(z[split.late]))


def _trees(x: Floats, split: _Split) -> Scores:
    """As many trees as the last rows before the cut have use for; these train none.

    scikit-learn would choose by rows drawn at random, which are no later ones.
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
    model.fit(x[split.first], split.labels[split.first])
    chosen = [
        auc(split.labels[split.choosing], score)
        for score in model.staged_decision_function(x[split.choosing])
    ]
    trees = int(np.argmax(np.nan_to_num(chosen, nan=0.5)))
    staged = model.staged_decision_function(x[split.late])
    return np.asarray(next(islice(staged, trees, None))).ravel()


def _first(key: npt.NDArray[Any], when: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The time ``[n]`` of the first row with each row's key."""
    codes, owner = np.unique(key, return_inverse=True)
    first = np.full(len(codes), np.iinfo(np.int64).max)
    np.minimum.at(first, owner, when)
    return first[owner]


def _draws(users: int, rounds: int, rng: np.random.Generator) -> Iterator[Scores]:
    """How often each user was drawn, ``[resamples, users]``, some resamples at a time."""
    for start in range(0, rounds, _CHUNK):
        size = min(_CHUNK, rounds - start)
        drawn = rng.integers(0, users, (size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users)
        yield counts.reshape(size, users).astype(np.float64)


@dataclass(frozen=True)
class _Ranked:
    """Rows by their score, equal scores being one rank."""

    owner: npt.NDArray[np.int64]
    liked: Scores
    starts: npt.NDArray[np.int64]

    @staticmethod
    def of(score: npt.NDArray[Any], labels: Mask, owner: npt.NDArray[np.int64]) -> _Ranked:
        order = np.argsort(score, kind="stable")
        values = score[order]
        new = np.concatenate([[True], values[1:] != values[:-1]])
        return _Ranked(owner[order], labels[order].astype(np.float64), np.flatnonzero(new))

    def auc(self, counts: Scores) -> Scores:
        """AUC ``[resamples]`` of rows that count as often as their users were drawn."""
        weights = counts[:, self.owner]
        liked = weights * self.liked
        other = weights - liked
        if len(self.starts) < len(self.owner):
            liked, other = (np.add.reduceat(part, self.starts, axis=1) for part in (liked, other))
        below = np.cumsum(other, axis=1)
        pairs = liked.sum(axis=1) * below[:, -1]
        above = np.einsum("rg,rg->r", liked, below - other / 2)
        return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)
