"""A training set that need not fit memory: batches out of Parquet, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info
from typing_extensions import Unpack, override

from reki_feast.errors import StoreError

from .columns import ColumnOptions, ColumnPlan, Columns, columns_of, concatenated, wanted_of
from .sources import Source, files_of, is_path, rows_of

#: Rows read at once.
READ = 16_384


class _Piece(NamedTuple):
    """Rows that one worker reads: a row group of a file."""

    file: str
    group: int


class StreamedRows(IterableDataset[dict[str, Any]]):
    """The rows of a historical join as batches, with a bounded part of them in memory.

    Columns become what ``JoinedRows`` makes of them. A DataLoader's workers share the row groups of
    the files; a job or table is read by a single one. Each row comes once; the last batch of each
    worker may be smaller.

    With ``shuffle_rows`` the row groups come in random order, and so many rows are held and given
    out at random. The order depends on ``seed``, ``set_epoch`` and the number of workers alone.

    Example::

        stream = StreamedRows("train/*.parquet", label="label", shuffle_rows=100_000)
        loader = DataLoader(stream, batch_size=None, num_workers=2)
        for epoch in range(3):
            stream.set_epoch(epoch)
            for batch in loader:
                ...
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 1024,
        *,
        shuffle_rows: int = 0,
        seed: int = 0,
        **columns: Unpack[ColumnOptions],
    ) -> None:
        """Look at the files' schema and sizes; a job is not run before the first batch.

        Args:
            source: Parquet (a file, a folder, a glob, several), a retrieval job, or an Arrow table.
            batch_size: rows a batch.
            shuffle_rows: rows held to be shuffled; 0 gives rows in their order.
            seed: of the order.
            columns: ``label``, ``keep``, ``nulls``, as for ``JoinedRows``; see ``ColumnOptions``.

        Raises:
            StoreError: there is no such file, a column is missing, or a number is out of range.
                Nulls and uneven vectors are found when their rows are read.
        """
        if batch_size < 1 or shuffle_rows < 0:
            raise StoreError(
                "A batch has a row at least, and shuffle_rows is not negative",
                detail=f"batch_size={batch_size}, shuffle_rows={shuffle_rows}",
                hint="raise them",
            )
        self._source = source
        self._batch_size = batch_size
        self._columns = columns
        self._shuffle_rows = shuffle_rows
        self._seed = seed
        # In shared memory, so that workers that live on from epoch to epoch see it.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._pieces: list[_Piece] = []
        if is_path(source):
            files = files_of(source)
            self._wanted(pq.read_schema(files[0]))
            self._pieces = [
                _Piece(file, group)
                for file in files
                for group in range(pq.read_metadata(file).num_row_groups)
            ]
        elif isinstance(source, pa.Table):
            self._wanted(source.schema)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the same epoch gives the same order again."""
        self._epoch.fill_(epoch)

    @override
    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches that fall to this worker.

        Raises:
            StoreError: a column has nulls, vectors differ in length, or several workers are to
                read what is not in files.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        epoch = int(self._epoch)
        held: list[Columns] = []
        rng = torch.Generator().manual_seed(_mixed(self._seed, epoch, worker))
        for part in self._parts(worker, workers, epoch):
            held.append(part)
            if sum(map(len, held)) >= max(self._shuffle_rows, self._batch_size):
                yield from self._given(held, rng, last=False)
        yield from self._given(held, rng, last=True)

    def _given(
        self, held: list[Columns], rng: torch.Generator, last: bool
    ) -> Iterator[dict[str, Any]]:
        """Batches of the rows held; what is left, less than a batch, stays held."""
        if not held:
            return
        rows = concatenated(held)
        held.clear()
        size, count = self._batch_size, len(rows)
        order = torch.randperm(count, generator=rng) if self._shuffle_rows else torch.arange(count)
        whole = count if last else count - count % size
        for first in range(0, whole, size):
            yield rows.taken(order[first : min(first + size, whole)]).as_dict()
        if whole < count:
            held.append(rows.taken(order[whole:]))

    def _parts(self, worker: int, workers: int, epoch: int) -> Iterator[Columns]:
        widths: dict[str, int] = {}
        wanted: ColumnPlan | None = None
        for batch in self._batches(worker, workers, epoch):
            wanted = wanted or self._wanted(batch.schema)
            for first in range(0, batch.num_rows, READ):
                table = pa.Table.from_batches([batch.slice(first, READ)])
                yield columns_of(table, wanted, widths)

    def _batches(self, worker: int, workers: int, epoch: int) -> Iterator[pa.RecordBatch]:
        if is_path(self._source):
            order = np.arange(len(self._pieces))
            if self._shuffle_rows:
                np.random.default_rng([self._seed, epoch]).shuffle(order)
            for number in order[worker::workers].tolist():
                yield from self._read(self._pieces[number])
            return
        if workers > 1:
            raise StoreError(
                "Several workers share the row groups of Parquet files",
                detail=f"{workers} workers and {type(self._source).__name__}",
                hint="persist the historical join to Parquet first, or num_workers=0",
            )
        yield from _batches_of(self._source)

    def _read(self, piece: _Piece) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(piece.file) as file:
            wanted = self._wanted(file.schema_arrow)
            yield from file.iter_batches(READ, row_groups=[piece.group], columns=wanted.names)

    def _wanted(self, schema: pa.Schema) -> ColumnPlan:
        return wanted_of(schema, **self._columns)


def _batches_of(source: Any) -> Iterator[pa.RecordBatch]:
    """A table's batches, or a job's, as they come where the job can stream."""
    if not isinstance(source, pa.Table) and hasattr(source, "to_batches"):
        yield from source.to_batches()
        return
    table = source if isinstance(source, pa.Table) else rows_of(source)
    yield from table.to_batches()


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
