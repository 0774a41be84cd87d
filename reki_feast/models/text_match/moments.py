"""When an entity's row changes: as what it is made from changes, and as the weights do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reki_feast.tables.asof import Indices


@dataclass(frozen=True)
class Moments:
    """Rows to be made.

    Attributes:
        owner: ``[k]``, code of the user, or of the item.
        time: ``[k]``, the rows' times.
        place: ``[k]``, place of the state's last event, or of the item's text.
        block: ``[k]``, number of the block.
    """

    owner: Indices
    time: Indices
    place: Indices
    block: Indices

    def take(self, rows: Indices | slice) -> Moments:
        """Some of the rows."""
        return Moments(self.owner[rows], self.time[rows], self.place[rows], self.block[rows])

    def __len__(self) -> int:
        return len(self.owner)


def moments_of(
    cuts: Indices,
    owner: Indices,
    time: Indices,
    place: Indices,
    owners: int,
    found_at: Callable[[Indices, Indices], Indices],
) -> Moments:
    """These moments, and every owner at every cut, where there was something to know of it.

    Args:
        cuts: since when each block's weights hold, rising.
        owner: ``[m]``, codes.
        time: ``[m]``, since when what stands at ``place`` holds.
        place: ``[m]``.
        owners: number of them.
        found_at: gives the place that holds for owners at times, -1 for none.
    """
    every, when = np.repeat(np.arange(owners), len(cuts)), np.tile(cuts, owners)
    at = found_at(every, when)
    found = at >= 0
    owner = np.concatenate([owner, every[found]])
    time = np.concatenate([time, when[found]])
    place = np.concatenate([place, at[found]])
    order = np.lexsort((place, time, owner))
    owner, time, place = owner[order], time[order], place[order]
    last = np.ones(len(owner), bool)  # of two at one time, the one that knows more
    last[:-1] = np.diff(owner).astype(bool) | np.diff(time).astype(bool)
    owner, time, place = owner[last], time[last], place[last]
    block = np.searchsorted(cuts, time, side="right").astype(np.int64)
    return Moments(owner, time, place, block)
