"""Looking up what held at a time, for many keys and times at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
Doubles: TypeAlias = npt.NDArray[np.float64]
#: The step of time. A snapshot knows only what happened before its as-of time, so that a row of a
#: training table never meets its own label: a snapshot that is to know an interaction is as of one
#: tick later.
TICK = timedelta(microseconds=1)


def after(time: datetime) -> datetime:
    """The first as-of time that knows what happened at a time."""
    return time + TICK


def place_before(keys: Indices, times: Indices, key: Indices, time: Indices) -> Indices:
    """How many of the rows ``(keys, times)``, sorted, come before each ``(key, time)``.

    A binary search of all pairs together, inside the rows of each one's key: what is looked up
    takes the time, not the number of rows.
    """
    low, high = np.searchsorted(keys, key), np.searchsorted(keys, key, side="right")
    pairs = np.flatnonzero(low < high)  # those whose place is not found yet
    while len(pairs):
        bottom, top = low[pairs], high[pairs]
        middle = (bottom + top) // 2
        is_before = times[middle] < time[pairs]
        bottom, top = np.where(is_before, middle + 1, bottom), np.where(is_before, top, middle)
        low[pairs], high[pairs] = bottom, top
        pairs = pairs[bottom < top]
    return low.astype(np.int64)


def place_at(keys: Indices, times: Indices, key: Indices, time: Indices) -> Indices:
    """The place of the last of the rows ``(keys, times)``, sorted, of each key up to a time.

    Returns:
        ``[n]``; -1 where a key has no row yet.
    """
    place = place_before(keys, times, key, time + 1) - 1
    found = place >= 0
    found[found] = keys[place[found]] == key[found]
    return np.where(found, place, -1)


def earlier(key: Indices, time: Indices, value: Doubles) -> tuple[Doubles, Doubles]:
    """Count and sum ``[n]`` of the values of rows with the same key and a strictly earlier time.

    >>> key, time, value = np.array([0, 1, 0, 0]), np.array([1, 1, 2, 2]), np.array([1.0, 5, 2, 4])
    >>> [part.tolist() for part in earlier(key, time, value)]
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """
    order = _order(key, time)
    is_new_key = _differs(key[order])
    start, end = _run_start(is_new_key), _run_start(is_new_key | _differs(time[order]))
    sums = np.zeros(len(key) + 1)
    np.cumsum(value[order], out=sums[1:])
    count, total = np.empty(len(key)), np.empty(len(key))
    count[order] = end - start
    total[order] = sums[end] - sums[start]
    return count, total


def _order(key: Indices, time: Indices) -> Indices | slice:
    """By key, then by time; rows of one key and time keep their order."""
    ordered = (key[1:] > key[:-1]) | ((key[1:] == key[:-1]) & (time[1:] >= time[:-1]))
    return slice(None) if ordered.all() else np.lexsort((time, key))


def _differs(values: Indices) -> npt.NDArray[np.bool_]:
    """Whether each differs from the one before it."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _run_start(is_first: npt.NDArray[np.bool_]) -> Indices | npt.NDArray[np.int32]:
    """The place of the first row of each row's run."""
    small = np.int32 if len(is_first) < 1 << 31 else np.int64  # half the memory
    places = np.arange(len(is_first), dtype=small)
    places[~is_first] = 0
    return np.maximum.accumulate(places)
