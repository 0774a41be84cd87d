"""Stored Feast values to numpy arrays, many at a time.

Feast's stores write serialized messages: ``None`` where nothing is stored, and empty bytes for a
value that is null.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from reki_feast.errors import StoreError
from reki_feast.stores.online import protobuf

EncodedColumn = Sequence[bytes | None]
_INT64_MAX = np.iinfo(np.int64).max
#: A scalar's tag, its field in feast.types.Value, and its type in an array.
_SCALARS: dict[ValueType, tuple[int, str, str]] = {
    ValueType.INT32: (0x18, "int32_val", "int32"),
    ValueType.INT64: (0x20, "int64_val", "int64"),
    ValueType.DOUBLE: (0x29, "double_val", "float64"),
    ValueType.FLOAT: (0x35, "float_val", "float32"),
    ValueType.BOOL: (0x38, "bool_val", "bool"),
    ValueType.UNIX_TIMESTAMP: (0x40, "unix_timestamp_val", "int64"),
}
#: Lists that become matrices.
LISTS = {ValueType.FLOAT_LIST, ValueType.DOUBLE_LIST}
#: Scalars that become arrays.
SCALARS = frozenset(_SCALARS)
_HINT = "materialize the view again: its rows were written under an earlier declaration"


def decode(stored: EncodedColumn, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """Stored values of a feature as an array.

    Args:
        stored: serialized ``feast.types.Value`` messages.
        kind: one of ``LISTS`` or ``SCALARS``.

    Returns:
        (n,) or (n, d), zeros where there is none, and the (n,) validity mask.

    Raises:
        StoreError: a value of another kind, lists that differ in length, or a kind that is no
            number.
    """
    if kind == ValueType.FLOAT_LIST:
        return vectors(stored)
    return double_vectors(stored) if kind == ValueType.DOUBLE_LIST else scalars(stored, kind)


def nanoseconds(stored: EncodedColumn) -> np.ndarray:
    """Stored ``google.protobuf.Timestamp`` messages as nanoseconds since 1970.

    Returns:
        (n,) int64; 0 where nothing is stored; the nearest int64 where one is too small.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    output = np.zeros(len(stored), np.int64)
    present = [message for message in stored if message]
    if present:
        times = _times(present)
        if times is None:
            times = np.array([_nanoseconds(message) for message in present], np.int64)
        output[np.fromiter(map(bool, stored), np.bool_, len(stored))] = times
    return output


def _times(present: list[bytes]) -> np.ndarray | None:
    """Times of messages of seconds, nanos or both; None where a message has another form."""
    numbers, counts = _numbers(present)
    if (counts % 2).any():
        return None
    fields, values = numbers[0::2], numbers[1::2]
    row = np.repeat(np.arange(len(present)), counts // 2)
    first, second = fields == 0x08, fields == 0x10
    parts = np.zeros((2, len(present)), np.int64)
    parts[0, row[first]] = values[first]
    parts[1, row[second]] = values[second]
    limit = _INT64_MAX // 10**9 - 1
    if not (first | second).all() or parts[0].max() > limit or parts[0].min() < -limit:
        return None
    total: np.ndarray = parts[0] * 10**9 + parts[1]
    return total


def _nanoseconds(message: bytes) -> int:
    time = Timestamp.FromString(message)
    exact: int = time.seconds * 10**9 + time.nanos
    return max(-_INT64_MAX, min(_INT64_MAX, exact))


def _numbers(present: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Decode messages that are nothing but varints (a tag is one, too).

    Returns:
        The numbers of all messages, int64, and (k,) how many each has. Where a message is something
        else that count is odd, which fields and their values never are.
    """
    joined = np.frombuffer(b"".join(present), np.uint8)
    limits = protobuf.offsets_of(np.fromiter(map(len, present), np.int64, len(present)))
    ends = joined < 128
    stops = np.flatnonzero(ends)
    starts = np.concatenate([[0], stops[:-1] + 1])
    sizes = stops - starts + 1
    if not ends[limits[1:] - 1].all() or sizes.max() > 10:
        return np.zeros(len(present), np.int64), np.ones(len(present), np.int64)
    positions = np.arange(len(joined)) - np.repeat(starts, sizes)
    bits = (joined & 127).astype(np.uint64) << (positions * 7).astype(np.uint64)
    counts = np.add.reduceat(ends, limits[:-1], dtype=np.int64)
    return np.add.reduceat(bits, starts).view(np.int64), counts


def vectors(stored: EncodedColumn, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Stored lists of floats as one matrix.

    Args:
        stored: serialized ``feast.types.Value`` messages.
        width: d where no row has a value.

    Returns:
        (n, d) float32, rows of zeros where there is none, and the (n,) validity mask.

    Raises:
        StoreError: the lists differ in length, or a value is no list of floats.
    """
    present = [message for message in stored if message]
    if not present:
        return np.zeros((len(stored), width or 0), np.float32), np.zeros(len(stored), np.bool_)
    matrix = _equal_lengths(present)
    if matrix is None:
        matrix = _parsed_lists(present)
    mask = np.fromiter(map(bool, stored), np.bool_, len(stored))
    if len(present) == len(stored):
        return matrix, mask
    output = np.zeros((len(stored), matrix.shape[1]), np.float32)
    output[mask] = matrix
    return output, mask


def _equal_lengths(present: list[bytes]) -> np.ndarray | None:
    """The matrix, if all lists are packed and of one length, as Feast writes them."""
    size = len(present[0])
    count = len(Value.FromString(present[0]).float_list_val.val)
    body = count * 4
    inner = b"\x0a" + protobuf.varint(body)
    head = b"\x82\x01" + protobuf.varint(len(inner) + body) + inner
    if not count or size != len(head) + body or set(map(len, present)) != {size}:
        return None
    joined = np.frombuffer(b"".join(present), np.uint8).reshape(len(present), size)
    if (joined[:, : len(head)] != np.frombuffer(head, np.uint8)).any():
        return None
    return joined[:, len(head) :].copy().view("<f4")


def _parsed_lists(present: list[bytes]) -> np.ndarray:
    lists = [_floats(message) for message in present]
    lengths = sorted(set(map(len, lists)))
    if len(lengths) > 1:
        raise StoreError(
            "The vectors of a feature have one length",
            detail=f"vectors of {lengths[0]} and of {lengths[-1]} floats",
            hint=_HINT,
        )
    with np.errstate(over="ignore"):  # of doubles
        return np.array(lists, np.float64).reshape(len(lists), lengths[0]).astype(np.float32)


def _floats(message: bytes) -> Sequence[float]:
    value = Value.FromString(message)
    field = value.WhichOneof("val")
    if field not in ("float_list_val", "double_list_val"):
        raise StoreError("A vector is a list of floats", detail=f"a {field}", hint=_HINT)
    numbers: Sequence[float] = getattr(value, field).val
    return numbers


def double_vectors(stored: EncodedColumn) -> tuple[np.ndarray, np.ndarray]:
    """Stored lists of doubles as one matrix.

    Returns:
        (n, d) float64, rows of zeros where there is none, and the (n,) validity mask.

    Raises:
        StoreError: the lists differ in length, or a value is no list of doubles.
    """
    present = [message for message in stored if message]
    valid = np.fromiter(map(bool, stored), np.bool_, len(stored))
    if not present:
        return np.zeros((len(stored), 0)), valid
    width = len(Value.FromString(present[0]).double_list_val.val)
    # Messages of one length that begin alike differ in nothing but their numbers.
    head = len(present[0]) - 8 * width
    alike = all(message[:head] == present[0][:head] for message in present)
    if len(set(map(len, present))) > 1 or not alike:
        lengths = {len(Value.FromString(message).double_list_val.val) for message in present}
        raise StoreError(
            "The vectors of a feature have one length",
            detail=f"vectors of {min(lengths)} and of {max(lengths)} doubles",
            hint=_HINT,
        )
    matrix = np.zeros((len(stored), width))
    matrix[valid] = np.frombuffer(b"".join([m[head:] for m in present]), "<f8").reshape(-1, width)
    return matrix, valid


def scalars(stored: EncodedColumn, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """Stored numbers as an array.

    Args:
        stored: serialized ``feast.types.Value`` messages.
        kind: INT32, INT64, FLOAT, DOUBLE, BOOL or UNIX_TIMESTAMP.

    Returns:
        (n,) of the kind's type (times: int64 seconds since 1970), 0 where there is none; and the
        (n,) validity mask.

    Raises:
        StoreError: a value of another kind, or a kind that is no number.
    """
    if kind not in _SCALARS:
        raise StoreError(
            "Only numbers go into arrays", detail=kind.name, hint="leave the feature out"
        )
    tag, field, dtype = _SCALARS[kind]
    mask = np.fromiter(map(bool, stored), np.bool_, len(stored))
    output = np.zeros(len(stored), dtype)
    present = [message for message in stored if message]
    if present:
        fixed = kind in (ValueType.FLOAT, ValueType.DOUBLE)
        values = _fixed(present, tag, output.dtype) if fixed else _varints(present, tag)
        output[mask] = _read(present, field, dtype) if values is None else values
    if kind is ValueType.UNIX_TIMESTAMP:  # Feast stores a null time as the smallest int64
        mask &= output != NULL_TIMESTAMP_INT_VALUE
        output[~mask] = 0
    return output, mask


def _fixed(present: list[bytes], tag: int, dtype: np.dtype) -> np.ndarray | None:
    """Numbers of fixed width; None where a message has another form."""
    if set(map(len, present)) != {dtype.itemsize + 1}:
        return None
    joined = np.frombuffer(b"".join(present), np.uint8).reshape(len(present), -1)
    if (joined[:, 0] != tag).any():
        return None
    return np.ascontiguousarray(joined[:, 1:]).view(dtype.newbyteorder("<")).ravel()


def _varints(present: list[bytes], tag: int) -> np.ndarray | None:
    """Varints; None where a message has another form."""
    numbers, counts = _numbers(present)
    if (counts != 2).any() or (numbers[0::2] != tag).any():
        return None
    return numbers[1::2]


def _read(present: list[bytes], field: str, dtype: str) -> np.ndarray:
    values = [Value.FromString(message) for message in present]
    for value in values:
        if value.WhichOneof("val") != field:
            other = value.WhichOneof("val")
            raise StoreError(f"The feature is stored as {field}", detail=f"a {other}", hint=_HINT)
    return np.array([getattr(value, field) for value in values], dtype)
