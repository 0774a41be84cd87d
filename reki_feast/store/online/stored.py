"""Stored Feast values to numpy arrays, many at a time.

What is read is what Feast's stores write: serialized messages; ``None`` where nothing is stored,
and empty bytes for a value that is null.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from reki_feast.errors import StoreError
from reki_feast.store.online import protobuf

Found = Sequence[bytes | None]
_MOST = np.iinfo(np.int64).max
#: A scalar's tag, its field in feast.types.Value, and its type in an array.
_SCALARS: dict[ValueType, tuple[int, str, str]] = {
    ValueType.INT32: (0x18, "int32_val", "int32"),
    ValueType.INT64: (0x20, "int64_val", "int64"),
    ValueType.DOUBLE: (0x29, "double_val", "float64"),
    ValueType.FLOAT: (0x35, "float_val", "float32"),
    ValueType.BOOL: (0x38, "bool_val", "bool"),
    ValueType.UNIX_TIMESTAMP: (0x40, "unix_timestamp_val", "int64"),
}
_MEND = "materialize the view again: the store holds what an earlier declaration wrote"


def nanoseconds(stored: Found) -> np.ndarray:
    """Stored ``google.protobuf.Timestamp`` messages as nanoseconds since 1970.

    Returns:
        (n,) int64; 0 where nothing is stored; the nearest int64 where one is too small.

    Raises:
        google.protobuf.message.DecodeError: bytes that are no such message.
    """
    output = np.zeros(len(stored), np.int64)
    known = [message for message in stored if message]
    if known:
        times = _times(known)
        if times is None:
            times = np.array([_nanoseconds(message) for message in known], np.int64)
        output[np.fromiter(map(bool, stored), np.bool_, len(stored))] = times
    return output


def _times(known: list[bytes]) -> np.ndarray | None:
    """Messages of seconds and nanos, or one of them; None where a message looks otherwise."""
    numbers, counts = _numbers(known)
    if (counts % 2).any():
        return None
    fields, values = numbers[0::2], numbers[1::2]
    row = np.repeat(np.arange(len(known)), counts // 2)
    first, second = fields == 0x08, fields == 0x10
    parts = np.zeros((2, len(known)), np.int64)
    parts[0, row[first]] = values[first]
    parts[1, row[second]] = values[second]
    limit = _MOST // 10**9 - 1
    if not (first | second).all() or parts[0].max() > limit or parts[0].min() < -limit:
        return None
    total: np.ndarray = parts[0] * 10**9 + parts[1]
    return total


def _nanoseconds(message: bytes) -> int:
    time = Timestamp.FromString(message)
    exact: int = time.seconds * 10**9 + time.nanos
    return max(-_MOST, min(_MOST, exact))


def _numbers(known: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Messages that are nothing but varints (a tag is one, too).

    Returns:
        The numbers of all messages, int64, and (k,) how many of them each has: odd, so never of
        fields and their values, where a message is something else.
    """
    joined = np.frombuffer(b"".join(known), np.uint8)
    limits = protobuf.offsets_of(np.fromiter(map(len, known), np.int64, len(known)))
    ends = joined < 128
    stops = np.flatnonzero(ends)
    starts = np.concatenate([[0], stops[:-1] + 1])
    sizes = stops - starts + 1
    if not ends[limits[1:] - 1].all() or sizes.max() > 10:
        return np.zeros(len(known), np.int64), np.ones(len(known), np.int64)
    places = np.arange(len(joined)) - np.repeat(starts, sizes)
    bits = (joined & 127).astype(np.uint64) << (places * 7).astype(np.uint64)
    counts = np.add.reduceat(ends, limits[:-1], dtype=np.int64)
    return np.add.reduceat(bits, starts).view(np.int64), counts


def vectors(found: Found, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Stored lists of floats as one matrix.

    Args:
        found: serialized ``feast.types.Value`` messages.
        width: d where no row is known.

    Returns:
        (n, d) float32, rows of zeros where unknown, and (n,) bool, true where known.

    Raises:
        StoreError: the lists differ in length, or a value is no list of floats.
    """
    known = [message for message in found if message]
    if not known:
        return np.zeros((len(found), width or 0), np.float32), np.zeros(len(found), np.bool_)
    matrix = _alike(known)
    if matrix is None:
        matrix = _parsed(known)
    mask = np.fromiter(map(bool, found), np.bool_, len(found))
    if len(known) == len(found):
        return matrix, mask
    output = np.zeros((len(found), matrix.shape[1]), np.float32)
    output[mask] = matrix
    return output, mask


def _alike(known: list[bytes]) -> np.ndarray | None:
    """The matrix, if all rows are packed lists of one length, as Feast writes them."""
    size = len(known[0])
    count = len(Value.FromString(known[0]).float_list_val.val)
    body = count * 4
    inner = b"\x0a" + protobuf.varint(body)
    head = b"\x82\x01" + protobuf.varint(len(inner) + body) + inner
    if not count or size != len(head) + body or set(map(len, known)) != {size}:
        return None
    joined = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), size)
    if (joined[:, : len(head)] != np.frombuffer(head, np.uint8)).any():
        return None
    return joined[:, len(head) :].copy().view("<f4")


def _parsed(known: list[bytes]) -> np.ndarray:
    lists = [_floats(message) for message in known]
    lengths = sorted(set(map(len, lists)))
    if len(lengths) > 1:
        raise StoreError(
            "the vectors of a feature have one length",
            found=f"vectors of {lengths[0]} and of {lengths[-1]} floats",
            mend=_MEND,
        )
    with np.errstate(over="ignore"):  # of doubles
        return np.array(lists, np.float64).reshape(len(lists), lengths[0]).astype(np.float32)


def _floats(message: bytes) -> Sequence[float]:
    value = Value.FromString(message)
    field = value.WhichOneof("val")
    if field not in ("float_list_val", "double_list_val"):
        raise StoreError("a vector is a list of floats", found=f"a {field}", mend=_MEND)
    numbers: Sequence[float] = getattr(value, field).val
    return numbers


def scalars(found: Found, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """Stored numbers as an array.

    Args:
        found: serialized ``feast.types.Value`` messages.
        kind: INT32, INT64, FLOAT, DOUBLE, BOOL or UNIX_TIMESTAMP.

    Returns:
        (n,) of the kind's type (times: int64 seconds since 1970), 0 where unknown; and (n,) bool,
        true where known.

    Raises:
        StoreError: a value of another kind, or a kind that is no number.
    """
    if kind not in _SCALARS:
        raise StoreError(
            "only numbers go into arrays", found=kind.name, mend="leave the feature out"
        )
    tag, field, dtype = _SCALARS[kind]
    mask = np.fromiter(map(bool, found), np.bool_, len(found))
    output = np.zeros(len(found), dtype)
    known = [message for message in found if message]
    if known:
        fixed = kind in (ValueType.FLOAT, ValueType.DOUBLE)
        values = _fixed(known, tag, output.dtype) if fixed else _varints(known, tag)
        output[mask] = _read(known, field, dtype) if values is None else values
    if kind is ValueType.UNIX_TIMESTAMP:  # to Feast the least int64 is a time that is null
        mask &= output != NULL_TIMESTAMP_INT_VALUE
        output[~mask] = 0
    return output, mask


def _fixed(known: list[bytes], tag: int, dtype: np.dtype) -> np.ndarray | None:
    """Numbers of fixed width; None where a message looks otherwise."""
    if set(map(len, known)) != {dtype.itemsize + 1}:
        return None
    joined = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), -1)
    if (joined[:, 0] != tag).any():
        return None
    return np.ascontiguousarray(joined[:, 1:]).view(dtype.newbyteorder("<")).ravel()


def _varints(known: list[bytes], tag: int) -> np.ndarray | None:
    """Varints; None where a message looks otherwise."""
    numbers, counts = _numbers(known)
    if (counts != 2).any() or (numbers[0::2] != tag).any():
        return None
    return numbers[1::2]


def _read(known: list[bytes], field: str, dtype: str) -> np.ndarray:
    values = [Value.FromString(message) for message in known]
    for value in values:
        if value.WhichOneof("val") != field:
            other = value.WhichOneof("val")
            raise StoreError(f"the feature is stored as {field}", found=f"a {other}", mend=_MEND)
    return np.array([getattr(value, field) for value in values], dtype)
