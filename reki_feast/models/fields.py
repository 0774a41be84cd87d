"""Categorical fields of users and items as integer codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from reki_feast.tables.asof import Indices

_LONGEST = 64  # values of a list that count: codes are as wide as the longest list


@dataclass(frozen=True)
class Fields:
    """Categorical fields of users or of items.

    Attributes:
        codes: ``[entities + 1, c]`` int64; row 0 is the unknown entity, code 0 an absent value.
        sizes: number of codes of each field, 0 included.
        widths: how many columns of ``codes`` each field has, more than one where an entity has
            many values; left out, one each.
    """

    codes: Tensor
    sizes: tuple[int, ...]
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.widths:
            object.__setattr__(self, "widths", (1,) * len(self.sizes))


def make_fields(
    table: pa.Table,
    key: str,
    ids: pa.Array,
    columns: Sequence[str],
    *,
    vocabularies: Mapping[str, pa.Array] | None = None,
) -> Fields:
    """Encode categorical columns of the entities ``ids`` as integers.

    Args:
        table: one row an entity.
        key: name of its key column.
        ids: the entities, in the order of their indices.
        columns: the categorical columns; nulls and entities not in the table get code 0. A list
            column gives an entity the first 64 values of its list.
        vocabularies: The values of each column, value n of code n + 1, others get code 0; None
            numbers the values that occur.
    """
    rows = pc.index_in(ids, value_set=table[key]).fill_null(-1).to_numpy(zero_copy_only=False)
    parts, sizes = [], []
    for column in columns:
        cells, size = _cell_codes(table[column], vocabularies[column] if vocabularies else None)
        absent = np.zeros((1, cells.shape[1]), np.int64)
        # The last row, which -1 takes, is that of entities without a row.
        parts.append(np.concatenate([absent, np.concatenate([cells, absent])[rows]]))
        sizes.append(size)
    codes = np.concatenate(parts, axis=1) if parts else np.zeros((len(ids) + 1, 0), np.int64)
    return Fields(torch.from_numpy(codes), tuple(sizes), tuple(part.shape[1] for part in parts))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column's cells are lists of values."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _cell_codes(column: pa.ChunkedArray, vocabulary: pa.Array | None) -> tuple[Indices, int]:
    """Codes ``[rows, width]`` of a column's cells and the number of codes."""
    if not is_list(column.type):
        codes, size = _value_codes(column, vocabulary)
        return codes[:, None], size
    codes, size = _value_codes(pc.list_flatten(column), vocabulary)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    cell = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = position < _LONGEST
    padded = np.zeros((len(lengths), int(lengths.clip(1, _LONGEST).max(initial=1))), np.int64)
    padded[cell[kept], position[kept]] = codes[kept]
    return padded, size


def _value_codes(values: pa.ChunkedArray, vocabulary: pa.Array | None) -> tuple[Indices, int]:
    if vocabulary is None:
        coded = values.combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        indices, vocabulary = coded.indices, coded.dictionary
    else:
        indices = pc.index_in(values, value_set=vocabulary)
    codes: Indices = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return codes, len(vocabulary) + 1
