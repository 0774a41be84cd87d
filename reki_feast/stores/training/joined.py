"""A training set in memory: rows by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from typing_extensions import override

from .columns import Nulls, columns_of, wanted_of
from .sources import Source, table_of


class JoinedRows(Dataset[dict[str, Any]]):
    """The rows of a historical join as a map-style dataset; batches are gathered by index.

    Lists of floats become ``(n, d)`` float32 (float64 for doubles), ints int64, bools bool, times
    int64 microseconds since 1970; text is left out. Where the table has a column in one piece, the
    tensor is a view of it.

    Example::

        rows = JoinedRows(store.get_historical_features(labels, service), label="label")
        loader = DataLoader(rows, batch_size=1024, shuffle=True, collate_fn=rows.collate)
        for batch in loader:
            loss(model(batch["user_aug"], batch["item_aug"]), batch["label"])

    Attributes:
        tensors: all rows, name to ``(n,)`` or ``(n, d)``; may share memory with the table, so not
            to be written to.
    """

    def __init__(
        self,
        source: Source,
        label: str | None = None,
        *,
        keep: Sequence[str] = (),
        nulls: Nulls = "error",
    ) -> None:
        """Read it all.

        Args:
            source: a retrieval job, an Arrow table, or Parquet: a file, a folder, a glob.
            label: a column of numbers that becomes float32, as losses want it.
            keep: columns to give as lists of Python values, such as texts.
            nulls: ``error``, or ``zero`` to read them as 0 and as vectors of zeros.

        Raises:
            StoreError: a column is missing or has nulls, vectors differ in length, or there is no
                such file.
        """
        table, wanted = table_of(
            source, lambda schema: wanted_of(schema, label=label, keep=keep, nulls=nulls)
        )
        self._columns = columns_of(table, wanted)
        self._length = len(table)
        self.tensors = dict(self._columns.tensors)

    def __len__(self) -> int:
        return self._length

    @override
    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row: numbers, vectors ``(d,)``, and what ``keep`` names."""
        if not -self._length <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        batch = self.__getitems__([row % self._length])
        return {name: column[0] for name, column in batch.items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Any]:
        """A batch, gathered at once; what a DataLoader calls."""
        return self._columns.taken(torch.as_tensor(rows, dtype=torch.int64)).as_dict()

    @staticmethod
    def collate(batch: Any) -> Any:
        """For ``DataLoader(collate_fn=…)``: the batch is gathered already."""
        return batch
