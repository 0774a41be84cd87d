"""Protobuf's encoding of many messages at once: numbers and bytes in, one binary column out.

A message is made of pieces; a piece is a binary column, too, with a row for each message. Where a
message lacks a piece, the row is empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Offsets of a binary column are 32 bits wide.
MAX_BYTES = 2**31 - 1


class Unsupported(Exception):  # noqa: N818 - not an error: it selects Feast's own conversion
    """A column has no fast conversion here; the caller uses Feast's own. The message says why."""


def binary(data: np.ndarray | pa.Buffer, offsets: np.ndarray) -> pa.BinaryArray:
    """A binary column without nulls: row i is ``data[offsets[i]:offsets[i + 1]]``.

    Args:
        data: bytes.
        offsets: (n + 1,), integers.

    Raises:
        Unsupported: more bytes than a binary column can have.
    """
    if offsets[-1] > MAX_BYTES:
        raise Unsupported(f"{offsets[-1]} bytes in one column")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """(n,) sizes to (n + 1,) offsets, int64."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def rows(matrix: np.ndarray, valid: np.ndarray) -> pa.BinaryArray:
    """Rows of equally many bytes.

    Args:
        matrix: (k, w) uint8, a row for each valid one of the column.
        valid: (n,) validity mask, k of them true; the others become empty.
    """
    return binary(np.ascontiguousarray(matrix), offsets_of(valid * matrix.shape[1]))


def numbers(tag: bytes, values: np.ndarray, valid: np.ndarray) -> pa.BinaryArray:
    """A tag and a number of fixed width in each row.

    Args:
        tag: the field's.
        values: (n,), of the field's width and kind.
        valid: (n,) validity mask; the others become empty.
    """
    if not valid.all():
        values = values[valid]
    width = values.dtype.itemsize
    matrix = np.empty((len(values), len(tag) + width), np.uint8)
    matrix[:, : len(tag)] = np.frombuffer(tag, np.uint8)
    matrix[:, len(tag) :] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, width)
    return rows(matrix, valid)


def varints(tag: bytes, values: np.ndarray, valid: np.ndarray) -> pa.BinaryArray:
    """A tag and a varint in each row.

    Args:
        tag: the field's; may be empty.
        values: (n,), integers; negative ones take ten bytes.
        valid: (n,) validity mask; the others become empty.
    """
    left = values.astype(np.int64, copy=False).view(np.uint64)
    sizes = _sizes(left)
    width = int(sizes.max(initial=1))
    matrix = np.empty((len(left), len(tag) + width), np.uint8)
    matrix[:, : len(tag)] = np.frombuffer(tag, np.uint8)
    for digit in range(width):
        more = (sizes > digit + 1).view(np.uint8) << 7
        matrix[:, len(tag) + digit] = ((left >> np.uint64(7 * digit)) & np.uint64(127)) | more
    sizes = (sizes + len(tag)) * valid
    if sizes.min(initial=matrix.shape[1]) == matrix.shape[1]:
        return rows(matrix, valid)
    counted = np.arange(matrix.shape[1]) < sizes[:, None]
    return binary(matrix[counted], offsets_of(sizes))


def _sizes(values: np.ndarray) -> np.ndarray:
    """Bytes of each varint."""
    sizes = np.ones(len(values), np.int64)
    limit, largest = 7, int(values.max(initial=0))
    while limit < 64 and largest >> limit:
        sizes += values >> np.uint64(limit) != 0
        limit += 7
    return sizes


def varint(value: int) -> bytes:
    """One number that is not negative.

    >>> varint(300)
    b'\\xac\\x02'
    """
    output = bytearray()
    while value > 127:
        output.append(value & 127 | 128)
        value >>= 7
    output.append(value)
    return bytes(output)


def headed(tag: bytes, column: pa.Array) -> pa.BinaryArray:
    """A tag, the length and the bytes themselves; null rows become empty.

    Args:
        tag: the field's.
        column: binary.
    """
    sizes = pc.binary_length(column).fill_null(0).to_numpy()
    return concat(varints(tag, sizes, validity(column)), column)


def concat(*pieces: Any) -> pa.BinaryArray:
    """The pieces of each row, one after another.

    Args:
        pieces: binary columns (nulls count as empty) or scalars.

    Raises:
        Unsupported: more bytes than a binary column can have.
    """
    try:
        return pc.binary_join_element_wise(*pieces, pa.scalar(b""), null_handling="skip")
    except pa.ArrowException as error:
        raise Unsupported(str(error)) from error


def validity(column: pa.Array) -> np.ndarray:
    """The validity mask of a column: (n,) bool."""
    if not column.null_count:
        return np.ones(len(column), np.bool_)
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
