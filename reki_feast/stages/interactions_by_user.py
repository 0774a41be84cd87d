"""Interactions by owner, on whole columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reki_feast.project import now
from reki_feast.stages.user_knowledge import is_among, timestamp
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.snapshot_times import split

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class InteractionsByUser:
    """Interactions by owner, on whole columns.

    Attributes:
        owners: ids as text of the U users who have any.
        codes: int64[rows], each interaction's place in ``owners``.
        times: int64[rows], microseconds since 1970. Without times: the earliest there is for what
            prompts show, and the latest for the rest.
    """

    owners: pa.Array
    codes: NDArray[np.int64]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, given: Inputs, history: int) -> InteractionsByUser:
        """The log of checked tables; without times, ``history`` bounds what prompts show."""
        users = given.interactions[given.user.name].combine_chunks().dictionary_encode()
        codes = users.indices.to_numpy().astype(np.int64, copy=False)
        if given.timed:
            times = _micros(given.interactions)
        else:
            shown = split(given, now(), history)["prompt"].to_numpy()
            times = np.where(shown, np.iinfo(np.int64).min, np.iinfo(np.int64).max)
        return cls(users.dictionary.cast(pa.string()), codes, times)

    def among(self, owners: pa.Array | pa.ChunkedArray) -> Mask:
        """bool[U], which users are among these."""
        found: Mask = is_among(self.owners, owners).to_numpy(zero_copy_only=False)
        return found

    def choose(self, chosen: Mask) -> pa.Array:
        """The owners that a mask of users holds."""
        return self.owners.filter(pa.array(chosen))

    def count(self, rows: Mask) -> NDArray[np.int64]:
        """int64[U], how many of these rows each user has."""
        return np.bincount(self.codes[rows], minlength=len(self.owners))

    def before(self, time: datetime) -> Mask:
        """bool[rows], what happened before a time, not at it."""
        found: Mask = self.times < timestamp(time).value
        return found

    def unseen(self, last: pa.Table, time: datetime) -> Mask:
        """bool[rows], what happened before a time and since a user's knowledge, if there is any.

        Knowledge as of a time does not know what happened at it.
        """
        found: Mask = ~self.seen(last) & self.before(time)
        return found & self.among(last["owner"])[self.codes]

    def seen(self, last: pa.Table) -> Mask:
        """bool[rows], what happened before a user's knowledge was made; nothing of the unknown."""
        since = np.append(_micros(last), np.iinfo(np.int64).min)
        found: Mask = self.times < since[self.rows_of(last)][self.codes]
        return found

    def rows_of(self, last: pa.Table) -> NDArray[np.int64]:
        """int64[U], each user's row of knowledge, -1 for none."""
        at = pc.index_in(self.owners, value_set=last["owner"].combine_chunks())
        rows: NDArray[np.int64] = pc.fill_null(at, -1).to_numpy()
        return rows


def _micros(rows: pa.Table) -> NDArray[np.int64]:
    times: NDArray[np.int64] = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    return times
