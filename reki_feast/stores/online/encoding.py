"""Arrow columns to serialized Feast values, a column at a time.

The bytes are those of Feast's own conversion over Python values and protobuf objects
(``feast.type_map.python_values_to_proto_values``). A column that this module does not support, or
that Feast would refuse, raises :class:`Unsupported`: the caller then uses Feast's conversion, which
raises its own error. One thing differs: Feast converts integers with nulls among them to doubles,
so that large ones lose their last digits; here they stay exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.value_type import ValueType
from pyarrow import types

from reki_feast.stores.online import protobuf
from reki_feast.stores.online.protobuf import Unsupported

_INT32 = np.iinfo(np.int32)
#: Whole seconds that a protobuf Timestamp and int64 nanoseconds can both represent.
_SECONDS = np.iinfo(np.int64).max // 10**9
#: Each kind's field of feast.types.Value: number << 3 | wire type.
TAGS = {
    ValueType.BYTES: b"\x0a",
    ValueType.STRING: b"\x12",
    ValueType.INT32: b"\x18",
    ValueType.INT64: b"\x20",
    ValueType.DOUBLE: b"\x29",
    ValueType.FLOAT: b"\x35",
    ValueType.BOOL: b"\x38",
    ValueType.UNIX_TIMESTAMP: b"\x40",
    ValueType.BYTES_LIST: b"\x5a",
    ValueType.STRING_LIST: b"\x62",
    ValueType.INT32_LIST: b"\x6a",
    ValueType.INT64_LIST: b"\x72",
    ValueType.DOUBLE_LIST: b"\x7a",
    ValueType.FLOAT_LIST: b"\x82\x01",
    ValueType.BOOL_LIST: b"\x8a\x01",
}


def encode(column: pa.Array, kind: ValueType) -> pa.BinaryArray:
    """Serialized ``feast.types.Value`` messages.

    Args:
        column: of any Arrow type.
        kind: the type that the feature declares.

    Returns:
        (n,) binary, without nulls: a value that is null to Feast is the empty message.

    Raises:
        Unsupported: this column has no fast form.
    """
    if kind not in TAGS:
        raise Unsupported(f"no fast form of {kind.name}")
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_null(column.type) or not len(column):
        return pa.repeat(pa.scalar(b""), len(column))
    if kind in _ELEMENTS:
        return _lists(column, kind)
    tag = TAGS[kind]
    if kind in (ValueType.FLOAT, ValueType.DOUBLE):
        return protobuf.numbers(tag, *floats(column, kind))
    if kind in (ValueType.STRING, ValueType.BYTES):
        return protobuf.headed(tag, texts(column, kind))
    return protobuf.varints(tag, *integers(column, kind))


def timestamps(column: pa.Array) -> tuple[pa.BinaryArray, np.ndarray]:
    """Serialized ``google.protobuf.Timestamp`` messages, cut to microseconds as Feast's are.

    Args:
        column: times (without a zone: UTC) or dates.

    Returns:
        (n,) binary, and (n,) int64: nanoseconds since 1970.

    Raises:
        Unsupported: another type, nulls, or times before 1678 or after 2261.
    """
    if not (types.is_timestamp(column.type) or types.is_date(column.type)) or column.null_count:
        raise Unsupported(f"{column.null_count} nulls among {column.type} as times")
    times = column.to_numpy(zero_copy_only=False)
    seconds = times.astype("datetime64[s]")
    whole = seconds.astype(np.int64)
    if len(whole) and (whole.max() >= _SECONDS or whole.min() <= -_SECONDS):
        raise Unsupported("times beyond int64 nanoseconds")
    micros = times.astype("datetime64[us]").astype(np.int64) - whole * 10**6
    nanos = micros * 1000
    messages = protobuf.concat(
        protobuf.varints(b"\x08", whole, whole != 0), protobuf.varints(b"\x10", nanos, nanos != 0)
    )
    return messages, whole * 10**9 + nanos


def integers(column: pa.Array, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 of an INT32, INT64, BOOL or UNIX_TIMESTAMP column, and the validity mask."""
    if kind is ValueType.UNIX_TIMESTAMP:
        return _seconds(column)
    if kind is ValueType.BOOL:
        if not types.is_boolean(column.type):
            raise Unsupported(f"{column.type} as BOOL")
        flags = column.fill_null(False).to_numpy(zero_copy_only=False)
        return flags.astype(np.int64), protobuf.validity(column)
    if types.is_floating(column.type):
        return _whole(column, kind)
    return _exact(column, kind), protobuf.validity(column)


def _exact(column: pa.Array, kind: ValueType) -> np.ndarray:
    """Integers of any width, null ones as 0."""
    if not types.is_integer(column.type):
        raise Unsupported(f"{column.type} as {kind.name}")
    try:
        values = column.fill_null(0).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise Unsupported(str(error)) from error
    return _ranged(values, kind)


def _ranged(values: np.ndarray, kind: ValueType) -> np.ndarray:
    """The values, if all are in the kind's range."""
    narrow = kind in (ValueType.INT32, ValueType.INT32_LIST)
    if narrow and len(values) and (values.max() > _INT32.max or values.min() < _INT32.min):
        raise Unsupported(f"numbers out of the range of {kind.name}")
    return np.asarray(values)


def _whole(column: pa.Array, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """Floats truncated to integers; NaN is null."""
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    valid = ~np.isnan(values)
    values[~valid] = 0
    if np.abs(values).max() >= 2.0**63:
        raise Unsupported(f"numbers out of the range of {kind.name}")
    return _ranged(values.astype(np.int64), kind), valid


def _seconds(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since 1970; Feast stores a null time as the smallest int64."""
    if types.is_timestamp(column.type) or types.is_date(column.type):
        times = column.to_numpy(zero_copy_only=False).astype("datetime64[s]")
        return times.astype(np.int64), np.ones(len(times), np.bool_)
    if column.null_count:
        raise Unsupported(f"nulls among {column.type} as times")
    return _exact(column, ValueType.UNIX_TIMESTAMP), protobuf.validity(column)


def floats(column: pa.Array, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """(n,) float32 or float64 of a FLOAT or DOUBLE column, and the validity mask; NaN is null."""
    exact = column.type in (pa.float64(), pa.int64())
    loose = types.is_floating(column.type) or types.is_integer(column.type)
    if not exact and not (loose and kind is ValueType.FLOAT):
        raise Unsupported(f"{column.type} as {kind.name}")
    values = column.to_numpy(zero_copy_only=False)
    valid = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), np.bool_)
    if types.is_integer(column.type):
        values = values.astype(np.float64)
    return _narrowed(values, "<f4" if kind is ValueType.FLOAT else "<f8"), valid


def _narrowed(values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # too large for float32: infinity, as in protobuf
        return values.astype(dtype, copy=False)


def texts(column: pa.Array, kind: ValueType) -> pa.BinaryArray:
    """The bytes of a STRING or BYTES column; null where Feast's value is null."""
    if kind is ValueType.BYTES:
        values = _as_binary(column, _is_binary)
        empty = not pc.any(pc.greater(pc.binary_length(values), 0)).as_py()
        return pa.nulls(len(values), pa.binary()) if empty else values  # as Feast does
    if types.is_integer(column.type) and not column.null_count:
        column = column.cast(pa.string())
    return _as_binary(column, _is_text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _as_binary(column: pa.Array, fits: Callable[[pa.DataType], bool]) -> pa.BinaryArray:
    if not fits(column.type):
        raise Unsupported(f"{column.type} as text or bytes")
    try:
        if types.is_string_view(column.type):
            column = column.cast(pa.string())
        return column.cast(pa.binary())
    except pa.ArrowException as error:
        raise Unsupported(str(error)) from error


def _lists(column: pa.Array, kind: ValueType) -> pa.BinaryArray:
    """Lists of any Arrow type: a header with the length before each row's elements."""
    if not (
        types.is_list(column.type)
        or types.is_large_list(column.type)
        or types.is_fixed_size_list(column.type)
    ):
        raise Unsupported(f"{column.type} as {kind.name}")
    counts = pc.list_value_length(column).fill_null(0).to_numpy()
    valid = protobuf.validity(column)
    data, ends = _ELEMENTS[kind](column.flatten(), kind)  # without values behind null lists
    offsets = ends[protobuf.offsets_of(counts)]
    sizes = np.diff(offsets)[valid]
    if len(sizes) and sizes.min() == sizes.max():
        return _equal(data[: offsets[-1]].reshape(len(sizes), -1), valid, kind)
    return protobuf.concat(_heads(sizes, valid, kind), protobuf.binary(data, offsets))


def _equal(data: np.ndarray, valid: np.ndarray, kind: ValueType) -> pa.BinaryArray:
    """Lists of one length: (k, size) bytes of their elements."""
    head = np.frombuffer(_head(data.shape[1], kind), np.uint8)
    matrix = np.empty((len(data), len(head) + data.shape[1]), np.uint8)
    matrix[:, : len(head)] = head
    matrix[:, len(head) :] = data
    return protobuf.rows(matrix, valid)


def _heads(sizes: np.ndarray, valid: np.ndarray, kind: ValueType) -> pa.BinaryArray:
    every = np.full(len(valid), -1, np.int64)
    every[valid] = sizes
    coded = pa.array(every).dictionary_encode()
    heads = [_head(size, kind) if size >= 0 else b"" for size in coded.dictionary.to_pylist()]
    return pa.array(heads, pa.binary()).take(coded.indices)


def _head(size: int, kind: ValueType) -> bytes:
    """The header of a list whose elements take so many bytes."""
    if kind in (ValueType.STRING_LIST, ValueType.BYTES_LIST) or not size:
        return TAGS[kind] + protobuf.varint(size)
    inner = b"\x0a" + protobuf.varint(size)  # numbers are packed
    return TAGS[kind] + protobuf.varint(len(inner) + size) + inner


def _float_elements(values: pa.Array, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """The elements' bytes, and where each ends; null ones are NaN."""
    if not types.is_floating(values.type):
        raise Unsupported(f"lists of {values.type} as {kind.name}")
    plain = values.to_numpy(zero_copy_only=False)
    array = np.ascontiguousarray(_narrowed(plain, "<f4" if kind is ValueType.FLOAT_LIST else "<f8"))
    return array.view(np.uint8), np.arange(len(array) + 1, dtype=np.int64) * array.itemsize


def _int_elements(values: pa.Array, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    if values.null_count:  # Feast has made them floats by then, and refuses them
        raise Unsupported(f"nulls in lists of {values.type}")
    return _parts(protobuf.varints(b"", _exact(values, kind), protobuf.validity(values)))


def _bool_elements(values: pa.Array, _: ValueType) -> tuple[np.ndarray, np.ndarray]:
    flags = integers(values, ValueType.BOOL)[0]
    return flags.astype(np.uint8), np.arange(len(flags) + 1, dtype=np.int64)


def _text_elements(values: pa.Array, kind: ValueType) -> tuple[np.ndarray, np.ndarray]:
    fits = _is_text if kind is ValueType.STRING_LIST else _is_binary
    return _parts(protobuf.headed(b"\x0a", _as_binary(values, fits).fill_null(b"")))


def _parts(column: pa.BinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """A new binary column's bytes and offsets."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32, len(column) + 1).astype(np.int64)
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), ends


_ELEMENTS = {
    ValueType.FLOAT_LIST: _float_elements,
    ValueType.DOUBLE_LIST: _float_elements,
    ValueType.INT32_LIST: _int_elements,
    ValueType.INT64_LIST: _int_elements,
    ValueType.BOOL_LIST: _bool_elements,
    ValueType.STRING_LIST: _text_elements,
    ValueType.BYTES_LIST: _text_elements,
}
