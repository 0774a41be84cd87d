"""The nearest rows by the product of every vector with the query."""

from __future__ import annotations

import numpy as np

from .metrics import Metric
from .table import Snapshot

#: Where fewer rows than this share are considered, only their vectors are multiplied.
_FEW = 0.25
#: Numbers that are multiplied at once: so few that BLAS does it in the caller's thread. Its other
#: threads would be waited for, which takes longer than the work where processors are busy.
_NUMBERS = 1 << 17
#: Neighbours of which the largest alone is looked at first.
_BLOCK = 64


def candidates(
    rows: Snapshot, query: np.ndarray, metric: Metric, count: int, allowed: np.ndarray | None
) -> np.ndarray:
    """Numbers of rows among which the nearest are, for all that float32 may round.

    Args:
        rows: all.
        query: (d,) float32.
        metric: how near.
        count: how many nearest rows.
        allowed: (n,) mask of the rows that are considered; None: all.
    """
    length = float(np.linalg.norm(query.astype(np.float64)))
    slack = 2 * metric.rounding(len(query), rows.longest, length)
    if allowed is None and rows.holes:
        allowed = rows.alive
    if allowed is None:
        return _largest(_nearness(rows.vectors, rows.squares, query, metric), count, slack)
    numbers = np.flatnonzero(allowed)
    if len(numbers) <= _FEW * len(allowed):
        nearness = _nearness(rows.vectors[numbers], rows.squares[numbers], query, metric)
        few: np.ndarray = numbers[_largest(nearness, count, slack)]
        return few
    nearness = _nearness(rows.vectors, rows.squares, query, metric)
    nearness[~allowed] = -np.inf
    found = _largest(nearness, count, slack)
    many: np.ndarray = found[allowed[found]]
    return many


def _nearness(
    vectors: np.ndarray, squares: np.ndarray, query: np.ndarray, metric: Metric
) -> np.ndarray:
    """(n,) float32, as ``Metric.nearness`` has it."""
    output = np.empty(len(vectors), np.float32)
    step = max(1, _NUMBERS // len(query))
    for start in range(0, len(vectors), step):
        part = output[start : start + step]
        np.dot(vectors[start : start + step], query, out=part)
        metric.nearness(part, squares[start : start + step])
    return output


def _largest(values: np.ndarray, count: int, slack: float) -> np.ndarray:
    """Where the largest values are, and those that are less by ``slack`` at most."""
    if count >= len(values):
        return np.arange(len(values))
    blocks = len(values) // _BLOCK
    if blocks < 4 * count:
        return np.flatnonzero(values >= _at(values, count) - slack)
    # So many blocks have a value of at least the least of their largest.
    most = values[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(1)
    some = np.flatnonzero(values >= _at(most, count) - slack)
    kept: np.ndarray = some[values[some] >= _at(values[some], count) - slack]
    return kept


def _at(values: np.ndarray, count: int) -> np.floating:
    """The smallest of so many largest values."""
    at = len(values) - count
    least: np.floating = np.partition(values, at)[at]
    return least
