"""Looking up what held at a time, for many keys and times at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
#: The step of time. A snapshot knows only what happened before its as-of time, so that a row of a
#: training table never meets its own label: a snapshot that is to know an interaction is as of one
#: tick later.
TICK = timedelta(microseconds=1)


def after(time: datetime) -> datetime:
    """The first as-of time that knows what happened at a time."""
    return time + TICK


def place_before(keys: Indices, times: Indices, key: Indices, time: Indices) -> Indices:
    """How many of the rows ``(keys, times)``, sorted, come before each ``(key, time)``."""
    if not len(keys):
        return np.zeros(len(key), np.int64)
    instants = _distinct(times)
    rank = np.searchsorted(instants, times)
    wanted = np.searchsorted(instants, time)  # instants under it
    width = len(instants) + 1
    return np.searchsorted(keys * width + rank, key * width + wanted).astype(np.int64)


def _distinct(times: Indices) -> Indices:
    """Sorted; `np.unique` takes twenty times as long where most values differ."""
    ordered = np.sort(times)
    found: Indices = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    return found


def place_at(keys: Indices, times: Indices, key: Indices, time: Indices) -> Indices:
    """The place of the last of the rows ``(keys, times)``, sorted, of each key up to a time.

    Returns:
        ``[n]``; -1 where a key has no row yet.
    """
    place = place_before(keys, times, key, time + 1) - 1
    found = place >= 0
    found[found] = keys[place[found]] == key[found]
    return np.where(found, place, -1)
