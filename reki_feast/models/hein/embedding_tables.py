"""De-duplicated embedding tables: each channel's distinct vectors, and a row index per entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from reki_feast.encoding import Floats, vector_matrix
from reki_feast.errors import CondenseError, EncodeError
from reki_feast.models.hein.network import HeinSet
from reki_feast.schema import Kind

_ROWS = 8192  # vectors processed at a time


@dataclass(frozen=True)
class EmbeddingTable:
    """A channel's representations, each distinct one stored once.

    Group knowledge has a hundred distinct vectors for thousands of users, so HEIN runs on far
    fewer rows than there are entities.

    Attributes:
        vectors: ``[d + 1, p]``, standardised; row 0 is the mean, for entities without the channel.
        codes: ``[n]`` int64, inverse index: the row of ``vectors`` of each entity.
    """

    vectors: Tensor
    codes: Tensor


#: The embedding tables of users, or of items, by channel.
EmbeddingTables = Mapping[str, EmbeddingTable]


def make_tables(heins: HeinSet, table: pa.Table, kind: Kind) -> dict[str, EmbeddingTable]:
    """The embedding tables of the channels of users or items, in the order of the table's rows.

    Raises:
        CondenseError: A channel is missing, of another length than m, or holds NaN or infinity.
    """
    check_channels(table, kind, heins.channels(kind))
    tables = {}
    for channel in heins.channels(kind):
        values, valid = channel_matrix(table, kind, channel, heins.input_size)
        distinct, inverse = _distinct(values)
        codes = np.zeros(table.num_rows, np.int64)
        codes[valid] = inverse + 1
        standard = heins.standardise(kind, channel, torch.from_numpy(distinct))
        vectors = torch.cat([standard.new_zeros(1, heins.read_size), standard])
        tables[channel] = EmbeddingTable(vectors, torch.from_numpy(codes))
    return tables


def reindex_by_id(
    tables: EmbeddingTables, table: pa.Table, ids: pa.Array, kind: Kind, key: str
) -> dict[str, EmbeddingTable]:
    """Embedding tables whose codes follow entity indices: 0 unknown, then ``ids``.

    Raises:
        CondenseError: An id is in the table twice, or none of ``ids`` is in it.
    """
    encoded = table[key]
    repeated = len(encoded) - len(pc.unique(encoded))
    if repeated:
        raise CondenseError(
            f"a {kind} has one representation",
            detail=f"{repeated} rows repeat an id",
            hint="train on one snapshot",
        )
    rows = pc.index_in(ids, value_set=encoded)
    if rows.null_count == len(rows):
        raise CondenseError(
            f"some {kind}s of the interactions have a representation",
            detail=f"none of {len(rows)} ids is among the {table.num_rows} encoded ones",
            hint="check that both tables use the same ids",
        )
    return reindex_by_row(tables, rows.fill_null(-1).to_numpy(zero_copy_only=False))


def reindex_by_row(
    tables: EmbeddingTables, rows: npt.NDArray[np.int64]
) -> dict[str, EmbeddingTable]:
    """Embedding tables whose codes follow entity indices: 0 unknown, then ``rows``, -1 for none."""
    # One code more for entities without a row: the mean.
    index = torch.from_numpy(np.append(-1, rows).astype(np.int64))
    mean = torch.zeros(1, dtype=torch.int64)
    return {
        channel: EmbeddingTable(table.vectors, torch.cat([table.codes, mean])[index])
        for channel, table in tables.items()
    }


def vector_size(table: pa.Table, channels: Sequence[str]) -> int:
    """Floats m of the vectors of channels; 0 where none has any."""
    for channel in channels:
        lengths = pc.list_value_length(table[channel]).drop_null()
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def check_filled(table: pa.Table, kind: Kind, channels: Sequence[str]) -> None:
    """Raise CondenseError where a channel has no vector."""
    for channel in channels:
        if table[channel].null_count == table.num_rows:
            raise CondenseError(
                "a channel that HEIN reads has vectors",
                detail=f"{kind} {channel}: none",
                hint="encode it, or leave it out of the pairs",
            )


def check_channels(table: pa.Table, kind: Kind, channels: Sequence[str]) -> None:
    """Raise CondenseError unless the table has all of the channels."""
    missing = [channel for channel in channels if channel not in table.schema.names]
    if missing:
        raise CondenseError(
            f"{kind} representations have every channel of the pairs",
            detail=f"{', '.join(missing)} missing from {table.schema.names}",
            hint="encode those channels, or train HEIN anew",
        )


def channel_matrix(
    table: pa.Table, kind: Kind, channel: str, size: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A channel's vectors ``[k, size]``, checked, and the validity mask ``[n]`` of its rows.

    Raises:
        CondenseError: The vectors are of another length, or hold NaN or infinity.
    """
    try:
        values, valid = vector_matrix(table[channel])
    except EncodeError as error:
        raise CondenseError(
            [replace(fault, detail=f"{kind} {channel}: {fault.detail}") for fault in error.problems]
        ) from error
    if not len(values):
        return np.empty((0, size), np.float32), valid
    if values.shape[1] != size:
        raise CondenseError(
            "all channels have vectors of m floats",
            detail=f"{kind} {channel}: {values.shape[1]} floats instead of {size}",
            hint="encode all channels with the encoder HEIN was trained with, or train it anew",
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        entity_id = table.column(0).filter(pa.array(valid))[int(bad.argmax())].as_py()
        raise CondenseError(
            "representations are finite",
            detail=f"NaN or infinity in {int(bad.sum())} vectors of {kind} {channel}, "
            f"the first of id {entity_id!r}",
            hint="encode them again",
        )
    return values, valid


def _distinct(values: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Distinct rows in order of appearance, and the inverse index; rows are compared bit by bit.

    By a 64-bit hash of each row, and then a check that rows of one hash are equal.
    """
    if not values.size:
        return values, np.empty(0, np.int64)
    words = np.ascontiguousarray(values).view(np.uint32)
    starts = range(0, len(words), _ROWS)
    for seed in count():
        draw = np.random.default_rng(seed).integers(1 << 63, size=words.shape[1], dtype=np.uint64)
        weights = 2 * draw + 1
        hashes = np.concatenate([words[at : at + _ROWS] @ weights for at in starts])
        inverse = pa.array(hashes).dictionary_encode().indices.to_numpy().astype(np.int64)
        _, first = np.unique(inverse, return_index=True)
        copy_of = first[inverse]
        if all((words[at : at + _ROWS] == words[copy_of[at : at + _ROWS]]).all() for at in starts):
            break
    return values[first], inverse
