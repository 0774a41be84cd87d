"""Recall of what users met later: by their preferences, and by what needs no language model.

Every way gives each user a score for every item. Items that the user met before are left out;
equal scores are in an order drawn once. Nothing is fitted, so the test is scored once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

POPULARITY, NEIGHBOURS = "popularity", "item-kNN on clicks"
MEAN, NEAREST = "history, mean of vectors", "history, nearest vector"
POOLED, PREFERENCES = "knowledge, one vector", "knowledge, by preference"
COMBINED = "history (mean) and knowledge"
ITEMS_KNOWN = "history, mean of items' knowledge"
#: The ways that read no text; and those that read the texts of what users met, without an LLM.
TEXTLESS, TITLES = (POPULARITY, NEIGHBOURS), (MEAN, NEAREST)

METRICS = ("recall10", "recall50", "ndcg10")
#: Users that are scored at a time; resamples of the bootstrap, and how many at a time.
_USERS, _ROUNDS, _CHUNK = 128, 1999, 64


@dataclass(frozen=True)
class Pairs:
    """Which user met which item: ``users`` and ``items`` ``[p]``, sorted by user, none twice."""

    users: Indices
    items: Indices

    @classmethod
    def of(cls, users: Indices, items: Indices) -> Pairs:
        """Of pairs in any order."""
        both = np.unique(np.stack([users, items]), axis=1)
        return cls(both[0], both[1])

    def of_users(self, first: int, last: int) -> Pairs:
        """Those of some users, numbered from 0."""
        start, end = np.searchsorted(self.users, [first, last])
        return Pairs(self.users[start:end] - first, self.items[start:end])


@dataclass(frozen=True)
class RecallData:
    """What is known before a time, and what some users liked after it.

    Attributes:
        users: who they are, in words.
        count: how many; ``liked``, ``met`` and ``later`` name them by numbers below it.
        items: ``[n, m]``, the vectors of the items; rows of 0 where there is none.
        log: what anybody liked before, users by other numbers.
        cold: items ``[n]`` that nobody met before.
        liked: what the users liked before.
        met: what they met before, ``liked`` and more.
        later: what they liked later, and had not met.
        knowledge: ``[count, m]``, a vector of each user's knowledge; None: nothing is known.
        preferences: by factor, the same of the texts of this factor, NaN where there is none.
        items_known: ``[n, m]``, the vectors of items' knowledge, rows of 0 where there is none;
            None: nothing is known.
    """

    users: str
    count: int
    items: Floats
    log: Pairs
    cold: Mask
    liked: Pairs
    met: Pairs
    later: Pairs
    knowledge: Floats | None = None
    preferences: Mapping[str, Floats] = field(default_factory=dict)
    items_known: Floats | None = None


#: A metric of each user by name: ``[count]``, NaN for users who are not tested.
UserMetrics: TypeAlias = "Mapping[str, Doubles]"


def scored(data: RecallData) -> dict[bool, dict[str, UserMetrics]]:
    """The metrics of each way: with all items as candidates (False), and with cold ones alone."""
    ways, order = _Ways(data), np.random.default_rng(0).permutation(len(data.items))
    every = {False: np.ones(len(data.items), bool), True: data.cold}
    found: dict[bool, dict[str, list[UserMetrics]]] = {False: {}, True: {}}
    for first in range(0, data.count, _USERS):
        last = min(first + _USERS, data.count)
        met, later = data.met.of_users(first, last), data.later.of_users(first, last)
        for name, scores in ways.scores(first, last):
            scores[met.users, met.items] = -np.inf
            for is_cold, by_way in found.items():
                ranks = _ranks(scores, later, every[is_cold], order)
                by_way.setdefault(name, []).append(_metrics(*ranks, last - first))
    return {
        is_cold: {name: _joined(parts) for name, parts in by_way.items()}
        for is_cold, by_way in found.items()
    }


def _joined(parts: list[UserMetrics]) -> UserMetrics:
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _ranks(
    scores: Floats, later: Pairs, candidates: Mask, order: Indices
) -> tuple[Indices, Indices]:
    """Users ``[p]``, and how many candidates come before each one's later item."""
    kept = candidates[later.items]
    users, items = later.users[kept], later.items[kept]
    columns = np.flatnonzero(candidates)
    rows, own = scores[users][:, columns], scores[users, items][:, None]
    before = (rows > own).sum(1)
    ties = (rows == own) & (order[columns] < order[items][:, None])
    return users, before + ties.sum(1)


def _metrics(users: Indices, ranks: Indices, count: int) -> Mapping[str, Doubles]:
    """Of each user; NaN without a later item among the candidates."""
    wanted = np.bincount(users, minlength=count).astype(np.float64)

    def summed(values: Doubles) -> Doubles:
        return np.bincount(users, values, minlength=count).astype(np.float64)

    gains = summed(np.where(ranks < 10, 1 / np.log2(ranks + 2.0), 0.0))
    best = np.cumsum(1 / np.log2(np.arange(10) + 2.0))
    ideal = best[np.clip(wanted, 1, 10).astype(np.int64) - 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        is_tested = np.where(wanted > 0, 1.0, np.nan)
        return {
            "recall10": summed((ranks < 10).astype(np.float64)) / wanted,
            "recall50": summed((ranks < 50).astype(np.float64)) / wanted,
            "ndcg10": is_tested * gains / ideal,
        }


class _Ways:
    """The scores of all ways, of some users at a time."""

    def __init__(self, data: RecallData) -> None:
        from scipy.sparse import coo_matrix, diags

        self._data, self._items = data, unit(data.items)

        def matrix(pairs: Pairs, users: int) -> Any:
            ones = np.ones(len(pairs.users), np.float32)
            return coo_matrix((ones, (pairs.users, pairs.items)), (users, len(data.items))).tocsr()

        self._clicks = matrix(data.liked, data.count)
        log = matrix(data.log, int(data.log.users.max(initial=-1)) + 1)
        self._popular = np.bincount(data.log.items, minlength=len(data.items)).astype(np.float32)
        scale = diags(1 / np.sqrt(np.maximum(self._popular, 1)))
        together = (scale @ log.T @ log @ scale).tolil()
        together.setdiag(0)
        self._alike: Any = together.tocsr()

    def scores(self, first: int, last: int) -> Iterator[tuple[str, Floats]]:
        """Of each way scores ``[last - first, n]``.

        Who has knowledge without preferences is searched for by the one vector.
        """
        data, items = self._data, self._items
        clicks = self._clicks[first:last]
        yield POPULARITY, np.tile(self._popular, (last - first, 1))
        yield NEIGHBOURS, (clicks @ self._alike).toarray().astype(np.float32)
        history = unit(clicks @ items) @ items.T
        yield MEAN, history.copy()
        yield NEAREST, self._nearest(data.liked.of_users(first, last), last - first)
        if data.items_known is not None:
            known = unit(data.items_known)
            yield ITEMS_KNOWN, unit(clicks @ known) @ known.T
        if data.knowledge is None:
            return
        pooled = unit(data.knowledge[first:last]) @ items.T
        yield POOLED, pooled.copy()
        merged = pooled
        if data.preferences:
            each = [unit(vectors[first:last]) @ items.T for vectors in data.preferences.values()]
            largest = np.fmax.reduce(each)
            merged = np.where(np.isnan(largest), pooled, largest)
            yield PREFERENCES, merged.copy()
        yield COMBINED, standardised(history) + standardised(merged)

    def _nearest(self, liked: Pairs, count: int) -> Floats:
        """The cosine of each item and the one of a user's that it is nearest to."""
        found = np.full((count, len(self._items)), -1.0, np.float32)
        if len(liked.users):
            users, starts = np.unique(liked.users, return_index=True)
            cosines = self._items[liked.items] @ self._items.T
            found[users] = np.maximum.reduceat(cosines, starts, axis=0)
        return found


def unit(vectors: Floats) -> Floats:
    """Vectors ``[k, m]`` of length 1; those of 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    made: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return made


def standardised(scores: Floats) -> Floats:
    """Scores ``[k, n]`` with mean 0 and deviation 1 over each user's items."""
    spread = scores.std(axis=1, keepdims=True)
    made: Floats = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return made


def gain_of(after: Doubles, before: Doubles, seed: int = 0) -> tuple[float, float]:
    """The mean difference over users, and its two-sided p by a bootstrap over users.

    Args:
        after: a metric ``[n]`` of each user.
        before: of the same users by another way.
        seed: of the resamples.
    """
    from reki_feast.models.bootstrap import two_sided

    differences = after - before
    draw, count = np.random.default_rng(seed), len(differences)
    resampled = [
        differences[draw.integers(0, count, (min(_CHUNK, _ROUNDS - start), count))].mean(1)
        for start in range(0, _ROUNDS, _CHUNK)
    ]
    return float(differences.mean()), two_sided(np.concatenate(resampled))
