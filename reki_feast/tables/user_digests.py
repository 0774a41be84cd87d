"""Digests of all that a project's tables tell of each user up to a time, on whole columns."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.schema import TIMESTAMP
from reki_feast.tables.digests import Hashes, mixed, row_digests
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.snapshot_times import split


class UserDigests:
    """Digests of users: of the profile, and of every interaction with its item's row, in order.

    Args:
        given: the project's tables.
        history: bounds what prompts show where interactions have no times.
    """

    def __init__(self, given: Inputs, history: int) -> None:
        self._given, rows = given, given.interactions
        users = rows[given.user.name].combine_chunks().dictionary_encode()
        self._owners = users.dictionary.cast(pa.string())
        self._codes = users.indices.to_numpy().astype(np.int64)
        # rows stand by user, and by time within a user
        starts = np.searchsorted(self._codes, np.arange(len(self._owners)))
        rank = (np.arange(len(self._codes)) - starts[self._codes]).astype(np.uint64)
        own = mixed(row_digests(rows.drop_columns([given.user.name, "order"])), self._items(), rank)
        self._starts = starts
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(own, dtype=np.uint64)])
        self._profiles = self._profile_digests()
        self._shown: npt.NDArray[np.bool_] | None = None
        if not given.timed:
            self._shown = split(given, datetime.min, history)["prompt"].to_numpy()

    def at(self, time: datetime) -> tuple[pa.Array, Hashes]:
        """Ids, as text, of the users with interactions before a time, and their digests."""
        count = np.bincount(self._codes[self._before(time)], minlength=len(self._owners))
        who = np.flatnonzero(count)
        first, last = self._starts[who], (self._starts + count)[who]
        told = self._sums[last] - self._sums[first]
        found = mixed(told, count[who].astype(np.uint64), self._profiles[who])
        return self._owners.take(pa.array(who)), found

    def _before(self, time: datetime) -> npt.NDArray[np.bool_]:
        if self._shown is not None:
            return self._shown
        early = pc.less(self._given.interactions["event_timestamp"], pa.scalar(time, TIMESTAMP))
        found: npt.NDArray[np.bool_] = early.to_numpy()
        return found

    def _items(self) -> Hashes:
        """Of each interaction the digest of its item's row."""
        given = self._given
        keys = given.items[given.item.name].combine_chunks()
        at = pc.index_in(given.interactions[given.item.name], value_set=keys).to_numpy()
        found: Hashes = row_digests(given.items)[at]
        return found

    def _profile_digests(self) -> Hashes:
        """Of each user the digest of the profile; 0 without one."""
        users, key = self._given.users, self._given.user.name
        if users is None:
            return np.zeros(len(self._owners), np.uint64)
        at = pc.index_in(self._owners, value_set=users[key].cast(pa.string()).combine_chunks())
        digests = np.append(row_digests(users), np.uint64(0))
        found: Hashes = digests[pc.fill_null(at, -1).to_numpy()]
        return found
