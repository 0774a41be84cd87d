"""The bytes of packed rows: a view's vectors as raw numbers.

A value, little-endian::

    int64      event time, nanoseconds since 1970
    uint32     numbers of the 1st feature (0xFFFFFFFF for null), of the 2nd, …
    float32    the numbers of the 1st feature, of the 2nd, …

in the order of the view's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.protos.feast.types.Value_pb2 import Value

from reki_feast.errors import StoreError
from reki_feast.stores.online import protobuf

NULL = 0xFFFFFFFF
TIME = 8  # bytes of the event time
#: Tags of a Value message's float list, and of the numbers in the list.
LIST, NUMBERS = b"\x82\x01", b"\x0a"


class Unpacked(NamedTuple):
    """The contents of packed rows.

    Attributes:
        times: (n,) int64 nanoseconds; 0 for a row that is not stored.
        vectors: feature to its (n, d) float32 numbers and their validity mask (n,).
    """

    times: np.ndarray
    vectors: dict[str, tuple[np.ndarray, np.ndarray]]


def unpack(values: Sequence[bytes | None], features: Sequence[str]) -> Unpacked:
    """Decode packed rows.

    Args:
        values: n stored values, None for a row that is not stored.
        features: the names of all the view's features, in their order.

    Raises:
        StoreError: a value has another form or other features, or the vectors of a feature
            differ in length.
    """
    present = np.fromiter((row is not None for row in values), bool, len(values))
    stored = [row for row in values if row is not None]
    if len({len(row) for row in stored}) > 1:
        return _unpack_uneven(stored, present, features)
    start = TIME + 4 * len(features)
    table = np.frombuffer(b"".join(stored), np.uint8).reshape(len(stored), -1 if stored else start)
    if table.shape[1] < start:
        raise _unreadable(features)
    times = _scatter(table[:, :TIME].copy().view("<i8")[:, 0], present)
    lengths = table[:, TIME:start].copy().view("<u4")
    if (lengths != lengths[:1]).any():
        return _unpack_uneven(stored, present, features)
    sizes = [
        0 if n == NULL else int(n) for n in (lengths[0] if len(stored) else [0] * len(features))
    ]
    if start + 4 * sum(sizes) != table.shape[1]:
        raise _unreadable(features)
    vectors = {}
    for number, (name, size) in enumerate(zip(features, sizes, strict=True)):
        numbers = np.ascontiguousarray(table[:, start : start + 4 * size]).view("<f4")
        valid = present & (not len(stored) or bool(lengths[0, number] != NULL))
        vectors[name] = (_scatter(numbers.reshape(len(stored), size), present), valid)
        start += 4 * size
    return Unpacked(times, vectors)


def _unpack_uneven(
    stored: Sequence[bytes], present: np.ndarray, features: Sequence[str]
) -> Unpacked:
    """As ``unpack``, for rows some of whose vectors are null."""
    start = TIME + 4 * len(features)
    if any(len(row) < start for row in stored):
        raise _unreadable(features)
    times = np.array(
        [int.from_bytes(row[:TIME], "little", signed=True) for row in stored], np.int64
    )
    lengths = np.array([np.frombuffer(row, "<u4", len(features), TIME) for row in stored])
    sizes = np.where(lengths == NULL, 0, lengths).astype(np.int64)
    if any(start + 4 * n != len(row) for n, row in zip(sizes.sum(1), stored, strict=True)):
        raise _unreadable(features)
    firsts = start + 4 * (np.cumsum(sizes, axis=1) - sizes)
    vectors = {}
    for number, name in enumerate(features):
        valid = lengths[:, number] != NULL
        distinct = set(lengths[valid, number].tolist())
        if len(distinct) > 1:
            raise StoreError(
                f"The stored vectors of feature {name} have one length",
                detail=f"{min(distinct)} and {max(distinct)} numbers",
                hint="materialize the view again, from its beginning",
            )
        size = int(next(iter(distinct), 0))
        numbers = np.zeros((len(stored), size), np.float32)
        for row in np.flatnonzero(valid).tolist():
            numbers[row] = np.frombuffer(stored[row], "<f4", size, int(firsts[row, number]))
        vectors[name] = (_scatter(numbers, present), _scatter(valid, present))
    return Unpacked(_scatter(times, present), vectors)


def messages(numbers: np.ndarray, valid: np.ndarray) -> list[bytes]:
    """Vectors as the Value messages of Feast's own layout; empty where not valid.

    Args:
        numbers: (n, d) float32.
        valid: (n,) validity mask.
    """
    inner = protobuf.varint(4 * numbers.shape[1])
    body = len(inner) + 1 + 4 * numbers.shape[1] if numbers.shape[1] else 0
    head = LIST + protobuf.varint(body) + (NUMBERS + inner if body else b"")
    rows = np.ascontiguousarray(numbers, "<f4")
    return [head + row.tobytes() if v else b"" for row, v in zip(rows, valid.tolist(), strict=True)]


def lengths_and_numbers(values: pa.BinaryArray) -> tuple[np.ndarray, pa.BinaryArray]:
    """How many numbers each Value message has (NULL for null), and the numbers' bytes."""
    sizes = pc.binary_length(values).to_numpy(zero_copy_only=False)
    numbers, lengths = values, np.zeros(len(values), np.uint32)
    for size, first in zip(*np.unique(sizes, return_index=True), strict=True):
        # The numbers are the end of a message; messages of one size have equally many.
        count = len(Value.FromString(values[first].as_py()).float_list_val.val)
        same = sizes == size
        lengths[same] = count if size else NULL
        tail = pc.binary_slice(values, int(size) - 4 * count, int(size))
        numbers = tail if same.all() else pc.if_else(pa.array(same), tail, numbers)
    return lengths, numbers


def _scatter(rows: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows where a mask is true, zeros elsewhere."""
    if present.all():
        return rows
    out = np.zeros((len(present), *rows.shape[1:]), rows.dtype)
    out[present] = rows
    return out


def _unreadable(features: Sequence[str]) -> StoreError:
    return StoreError(
        f"A packed row has the features {', '.join(features)} of its view",
        detail="a row of another form: the view's features have changed since it was written",
        hint="materialize the view again, from its beginning",
    )
