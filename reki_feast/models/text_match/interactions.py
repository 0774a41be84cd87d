"""Interactions as arrays, and what was to be expected of each before it happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.schema import TIMESTAMP
from reki_feast.tables.asof import Doubles, Indices, earlier, place_before

#: Of one interaction, or of many.
Number = TypeVar("Number", float, Doubles)

#: Weight, in interactions, of what is expected where little is known.
PRIOR = 10.0
DAY = 86_400_000_000  # microseconds
_LEAST, _MOST = 0.02, 0.98


@dataclass(frozen=True)
class InteractionIndex:
    """n interactions in the order of users, then of time.

    Attributes:
        users: ids; the user of code u is ``users[u]``.
        items: ids; the item of code i is ``items[i]``.
        user: ``[n]``, code of the user.
        item: ``[n]``, code of the item.
        time: ``[n]``, microseconds since 1970.
        liked: ``[n]``, 1 or 0.
        expected: ``[n]``, chance that it is liked, of what was known before: see :func:`expected`.
    """

    users: pa.Array
    items: pa.Array
    user: Indices
    item: Indices
    time: Indices
    liked: Doubles
    expected: Doubles

    def __len__(self) -> int:
        return len(self.user)

    @property
    def residual(self) -> Doubles:
        """By how much ``[n]`` each was liked more than expected."""
        return self.liked - self.expected

    def take(self, rows: Indices | slice) -> InteractionIndex:
        """Some of the interactions, in this order; what was expected of each stays."""
        names = ("user", "item", "time", "liked", "expected")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def by_users(self, most: int) -> Iterator[InteractionIndex]:
        """The same as logs of some users each, with ``most`` interactions or of one user."""
        starts = np.searchsorted(self.user, np.arange(len(self.users) + 1))
        first = 0
        while first < len(self.users):
            fits = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
            last = max(fits, first + 1)
            rows = slice(int(starts[first]), int(starts[last]))
            users = self.users.slice(first, last - first)
            yield replace(self.take(rows), users=users, user=self.user[rows] - first)
            first = last

    def seen(self, user: Indices, before: Indices) -> tuple[Doubles, Doubles]:
        """Count ``[k]`` of users' interactions before given times, and how many were liked."""
        sums = np.concatenate([[0.0], np.cumsum(self.liked)])
        start = np.searchsorted(self.user, user)
        end = place_before(self.user, self.time, user, before)
        return (end - start).astype(np.float64), sums[end] - sums[start]


def make_log(
    interactions: pa.Table, items: pa.Array, *, user: str, item: str
) -> tuple[InteractionIndex, Indices]:
    """A log of checked interactions with times, and which row each of it was.

    Args:
        interactions: ``user``, ``item``, ``liked`` and ``event_timestamp``.
        items: ids of all items, those of the interactions among them.
        user: name of the user's key column.
        item: name of the item's key column.
    """
    users, user_code = _codes(interactions[user])
    item_code = pc.index_in(interactions[item], value_set=items).to_numpy().astype(np.int64)
    time = interactions["event_timestamp"].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    order = np.lexsort((item_code, time, user_code))
    user_code, item_code, time = user_code[order], item_code[order], time[order]
    liked = interactions["liked"].to_numpy()[order].astype(np.float64)
    chance = expected(user_code, item_code, time, liked)
    return InteractionIndex(users, items, user_code, item_code, time, liked, chance), order


def expected(user: Indices, item: Indices, time: Indices, liked: Doubles) -> Doubles:
    """The chance ``[n]`` that each interaction is liked: user's rate + item's rate - the mean rate.

    The user's rate counts strictly earlier interactions. The item's and the mean count those of
    days before (UTC), so that whoever brings a user up to date between two runs needs no count
    that others change meanwhile. All lean on the mean where little is known.
    """
    day = time // DAY
    count, total = earlier(np.zeros_like(user), day, liked)
    mean = (total + 1) / (count + 2)
    of_user = shrunk(*earlier(user, time, liked), mean)
    of_item = shrunk(*earlier(item, day, liked), mean)
    return chance_of(of_user, of_item, mean)


def chance_of(of_user: Number, of_item: Number, mean: Number) -> Number:
    """What two rates and the mean rate say of an interaction, kept off 0 and 1."""
    chance: Number = np.clip(of_user + of_item - mean, _LEAST, _MOST)
    return chance


def shrunk(count: Number, total: Number, mean: Number | float) -> Number:
    """Means that lean on ``mean`` where little was counted.

    >>> shrunk(np.array([5.0, 0.0]), np.array([3.0, 0.0]), 0.6).tolist()
    [0.6, 0.6]
    """
    rate: Number = (total + PRIOR * mean) / (count + PRIOR)
    return rate


def _codes(column: pa.ChunkedArray) -> tuple[pa.Array, Indices]:
    """Sorted distinct ids, and each row's place among them."""
    ids = pc.unique(column)
    ids = ids.take(pc.array_sort_indices(ids))
    return ids, pc.index_in(column, value_set=ids).to_numpy().astype(np.int64)
