"""Matrices of floats as Arrow columns of lists, and back, without a Python loop over rows."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import EncodeError
from reki_feast.schema import VECTOR

Floats: TypeAlias = npt.NDArray[np.float32]

# An Arrow list column counts its floats in 32 bits, so long tables are laid out in chunks.
CHUNK_FLOATS = 1 << 28


def vector_array(matrix: Floats) -> pa.ChunkedArray:
    """A float32 matrix ``[n, m]`` as a column of lists, without a Python loop over rows.

    >>> vector_array(np.eye(2, dtype=np.float32)).to_pylist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    count, width = matrix.shape
    step = max(1, CHUNK_FLOATS // max(width, 1))
    chunks = []
    for start in range(0, count, step):
        part = np.ascontiguousarray(matrix[start : start + step], np.float32)
        offsets = np.arange(len(part) + 1, dtype=np.int32) * width
        chunks.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(part.ravel())))
    return pa.chunked_array(chunks, VECTOR)


def take_vectors(column: pa.ChunkedArray, index: pa.Array) -> pa.ChunkedArray:
    """The vectors at ``index``, null where it is null; in chunks, however long the column is."""
    width = len(column.drop_null()[0]) if column.null_count < len(column) else 1
    step = max(1, CHUNK_FLOATS // max(width, 1))
    taken = [column.take(index[at : at + step]) for at in range(0, len(index), step)]
    return pa.chunked_array([chunk for part in taken for chunk in part.chunks], VECTOR)


def vector_matrix(column: pa.ChunkedArray) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A column of lists as a float32 matrix of its non-null rows, and which rows those are.

    Returns:
        ``[k, m]`` and a mask ``[n]`` with k True.

    Raises:
        EncodeError: the vectors differ in length, or hold nulls.
    """
    valid = pc.is_valid(column).to_numpy()
    present = column.drop_null()
    lengths = pc.unique(pc.list_value_length(present)).to_pylist()
    if len(lengths) > 1:
        raise EncodeError("a channel's vectors have one length", detail=f"lengths {lengths[:5]}")
    flat = pc.list_flatten(present)
    if flat.null_count:
        raise EncodeError("a vector holds no nulls", detail=f"{flat.null_count} nulls")
    width = lengths[0] if lengths else 0
    return flat.to_numpy().astype(np.float32, copy=False).reshape(len(present), width), valid
