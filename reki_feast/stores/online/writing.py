"""Write rows to Redis: those newer than what is stored, by the rule of Feast's own store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import pyarrow as pa

from .commands import contents
from .exchange import Exchange
from .layouts import Layout
from .rows import RowBlock
from .wire import Packed, open_pipeline

T = TypeVar("T")
#: Packed commands, and how many replies they have.
WriteRequest: TypeAlias = "tuple[Packed, int]"


class OverwriteRules(NamedTuple):
    """Which rows are written.

    Attributes:
        only_newer: only rows newer than the stored one; all rows when False (``skip_dedup``).
        same_time: also rows of the very time of the stored one.
    """

    only_newer: bool = True
    same_time: bool = False


class _Prepared(NamedTuple):
    """Rows, and the commands that read the event times stored for them."""

    rows: RowBlock
    read_timestamps: pa.BinaryArray


def write_stream(
    client: Any, layout: Layout, batches: Iterable[RowBlock], rules: OverwriteRules
) -> Iterator[int]:
    """Write batches of rows over one connection; yields how many distinct rows each had.

    The next batch is prepared while Redis works on one, so two are in memory.

    Raises:
        redis.RedisError: Redis cannot be reached, or refuses; batches before stay written.
    """
    with open_pipeline(client) as pipeline:
        pending = 0  # replies that have not been read
        for rows, read_timestamps in _ahead(_prepared(layout, batches, rules)):
            if rules.only_newer:
                pipeline.send(contents(read_timestamps))
                pipeline.replies(pending)
                stored = layout.timestamps(pipeline.replies(len(rows)))
                rows = rows.taken(_to_write(stored, rows.times, rules))
            else:
                pipeline.replies(pending)
            pipeline.send(contents(layout.write(rows)))
            pending = len(rows) * layout.replies_per_row
            yield len(read_timestamps)
        pipeline.replies(pending)


def write(
    layout: Layout, batches: Iterable[RowBlock], rules: OverwriteRules
) -> Exchange[WriteRequest, list[Any], None]:
    """Write batches of rows; every request may be sent twice without harm."""
    for batch in batches:
        rows = distinct(batch, rules)
        if rules.only_newer:
            stored = yield contents(layout.read_timestamps(rows)), len(rows)
            rows = rows.taken(_to_write(layout.timestamps(stored), rows.times, rules))
        yield contents(layout.write(rows)), len(rows) * layout.replies_per_row


def distinct(rows: RowBlock, rules: OverwriteRules) -> RowBlock:
    """One row an entity: the one that would stay if the rows were written one after another."""
    codes = rows.entities.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    if len(rows) == 0 or len(rows) == codes.max() + 1:
        return rows
    position = np.arange(len(rows))
    if not rules.only_newer:
        order = np.lexsort((position, codes))
    else:  # the newest; of one time the first, or the last where that one overwrites
        times = rows.times.clip(0)  # times before 1970 count as none: rows replace each other
        tied = np.where(rules.same_time | (times == 0), position, -position)
        order = np.lexsort((tied, times, codes))
    last = np.append(codes[order][1:] != codes[order][:-1], True)
    return rows.taken(np.sort(order[last]))


def _prepared(
    layout: Layout, batches: Iterable[RowBlock], rules: OverwriteRules
) -> Iterator[_Prepared]:
    for batch in batches:
        if len(batch):
            rows = distinct(batch, rules)
            yield _Prepared(rows, layout.read_timestamps(rows))


def _to_write(stored: np.ndarray, times: np.ndarray, rules: OverwriteRules) -> np.ndarray:
    """Which rows are written, by the times stored; times before 1970 count as none."""
    older = times < stored if rules.same_time else times <= stored
    return ~(older & (stored > 0))


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each made in a thread of its own while the caller uses the one before."""
    done = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1, "reki-rows") as maker:
        future = maker.submit(next, iterator, done)
        while (item := future.result()) is not done:
            future = maker.submit(next, iterator, done)
            yield cast("T", item)
