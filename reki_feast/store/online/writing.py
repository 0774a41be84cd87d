"""Write rows to Redis: those newer than what is stored, as the stock store decides it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa

from .commands import data
from .rows import Rows
from .wire import ask, ask_async, link

T = TypeVar("T")


class Layout(Protocol):
    """How rows of a view stand in Redis."""

    @property
    def replies(self) -> int:
        """How many replies the writing of one row has."""

    def ask_times(self, rows: Rows) -> pa.BinaryArray:
        """Commands that ask for the event times stored, one a row."""

    def times(self, replies: list[Any]) -> np.ndarray:
        """The event times in those replies: (n,) int64 nanoseconds, 0 where there is none."""

    def write(self, rows: Rows) -> pa.BinaryArray:
        """Commands that write the rows."""


class Rules(NamedTuple):
    """Which rows are written.

    Attributes:
        compare: only rows newer than the stored one; all rows when False (``skip_dedup``).
        renew: rows of the very time of the stored one, too.
    """

    compare: bool = True
    renew: bool = False


class _Packed(NamedTuple):
    """Rows with the commands that ask for their times, made ahead."""

    rows: Rows
    asking: pa.BinaryArray


def write(client: Any, layout: Layout, batches: Iterable[Rows], rules: Rules) -> Iterator[int]:
    """Write batches of rows over one connection; how many rows of each were looked at.

    The next batch is made while Redis works on one, so two are in memory.

    Raises:
        redis.RedisError: Redis cannot be reached, or refuses; batches before stay written.
    """
    with link(client) as line:
        written = 0  # rows whose replies have not been read
        for rows, asking in _ahead(_packed(layout, batches, rules)):
            if rules.compare:
                line.send(data(asking))
                line.replies(written)
                rows = rows.taken(_newer(layout.times(line.replies(len(rows))), rows.times, rules))
            else:
                line.replies(written)
            line.send(data(layout.write(rows)))
            written = len(rows) * layout.replies
            yield len(asking)
        line.replies(written)


def write_once(client: Any, layout: Layout, rows: Rows, rules: Rules) -> None:
    """Write one batch; tried again as often as the client is told to.

    Raises:
        redis.RedisError: Redis cannot be reached, or refuses.
    """
    rows = distinct(rows, rules)
    if rules.compare:
        stored = layout.times(ask(client, data(layout.ask_times(rows)), len(rows)))
        rows = rows.taken(_newer(stored, rows.times, rules))
    ask(client, data(layout.write(rows)), len(rows) * layout.replies)


async def write_once_async(client: Any, layout: Layout, rows: Rows, rules: Rules) -> None:
    """The same with a client of ``redis.asyncio``."""
    rows = distinct(rows, rules)
    if rules.compare:
        stored = await ask_async(client, data(layout.ask_times(rows)), len(rows))
        rows = rows.taken(_newer(layout.times(stored), rows.times, rules))
    await ask_async(client, data(layout.write(rows)), len(rows) * layout.replies)


def distinct(rows: Rows, rules: Rules) -> Rows:
    """One row an entity: the one that would stay if the rows were written one after another."""
    codes = rows.entities.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    if len(rows) == 0 or len(rows) == codes.max() + 1:
        return rows
    place = np.arange(len(rows))
    if not rules.compare:
        order = np.lexsort((place, codes))
    else:  # the newest; of the same time the first, or the last where that renews
        times = rows.times.clip(0)  # times before 1970 count as none: rows replace each other
        tied = np.where(rules.renew | (times == 0), place, -place)
        order = np.lexsort((tied, times, codes))
    last = np.append(codes[order][1:] != codes[order][:-1], True)
    return rows.taken(np.sort(order[last]))


def _packed(layout: Layout, batches: Iterable[Rows], rules: Rules) -> Iterator[_Packed]:
    for rows in batches:
        if len(rows):
            one = distinct(rows, rules)
            yield _Packed(one, layout.ask_times(one))


def _newer(stored: np.ndarray, times: np.ndarray, rules: Rules) -> np.ndarray:
    """Which rows are to be written, by the times stored; times before 1970 count as none."""
    old = times < stored if rules.renew else times <= stored
    return ~(old & (stored > 0))


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each made in a thread of its own while its caller is busy with the one before."""
    done = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1, "reki-rows") as maker:
        coming = maker.submit(next, iterator, done)
        while (item := coming.result()) is not done:
            coming = maker.submit(next, iterator, done)
            yield cast("T", item)
