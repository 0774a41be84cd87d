"""The Redis keys of many entities at once: Feast's entity key, version 3, and the project.

A key is the number of join keys, their names, their values, each with its type and length, and the
project's name (``feast.infra.key_encoding_utils.serialize_entity_key``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from pyarrow import types

from reki_feast.stores._feast import serialize_val
from reki_feast.stores.ids import check_ids
from reki_feast.stores.online import encoding, protobuf
from reki_feast.stores.online.protobuf import Unsupported

#: The serialization of entity keys that is written here.
VERSION = 3
_WORD = struct.Struct("<I").pack
#: How numbers are packed: INT32 in 4 bytes, the others in 8.
_PACKED = {ValueType.INT32: "<i", ValueType.INT64: "<q", ValueType.UNIX_TIMESTAMP: "<q"}
#: Fields of feast.types.Value whose values are encoded without Feast's own code.
_FIELDS = {
    ValueType.INT32: "int32_val",
    ValueType.INT64: "int64_val",
    ValueType.STRING: "string_val",
}


class RedisKeys:
    """The keys of one project's entities with these join keys.

    Args:
        project: Feast's.
        join_keys: each join key's type, in any order.
    """

    def __init__(self, project: str, join_keys: Mapping[str, ValueType]) -> None:
        self._kinds = {name: join_keys[name] for name in sorted(join_keys)}
        self._prefix = serialize_entity_key_prefix(list(join_keys))
        self._project = project.encode()

    def of_columns(self, columns: Mapping[str, pa.Array]) -> pa.BinaryArray:
        """The keys of the columns' rows.

        Args:
            columns: at least the join keys, n rows each.

        Returns:
            (n,) binary.

        Raises:
            Unsupported: a type without a fast conversion here, or a null among the join keys.
        """
        pieces: list[Any] = [pa.scalar(self._prefix)]
        for name, kind in self._kinds.items():
            pieces += _pieces(columns[name], kind)
        return protobuf.concat(*pieces, pa.scalar(self._project))

    def of_values(self, columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
        """The keys of a few hundred entities.

        Args:
            columns: at least the join keys, n values each: what Feast takes for the join key's
                type, or ``feast.types.Value`` messages.

        Raises:
            Unsupported: a null among the join keys, or a type that cannot be a join key.
            StoreError: an id that its join key's type would change.
            TypeError: as Feast, where a value cannot be of the join key's type.
            ValueError: likewise; or columns of different lengths.
        """
        parts = [_parts(name, columns[name], kind) for name, kind in self._kinds.items()]
        prefix, project = self._prefix, self._project
        if len(parts) == 1:
            return [prefix + part + project for part in parts[0]]
        return [prefix + b"".join(row) + project for row in zip(*parts, strict=True)]


def _pieces(column: pa.Array, kind: ValueType) -> list[Any]:
    """A column's part of the keys: type, length, value."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind in (ValueType.STRING, ValueType.BYTES):
        texts = encoding.texts(column, kind)
        if texts.null_count:
            raise Unsupported("nulls among join keys")
        sizes = pc.binary_length(texts).to_numpy().astype("<u4")
        return [protobuf.numbers(_WORD(kind.value), sizes, protobuf.validity(texts)), texts]
    if kind not in _PACKED:
        raise Unsupported(f"no keys of {kind.name}")
    numbers, valid = encoding.integers(column, kind)
    if column.null_count or not valid.all():
        raise Unsupported("nulls among join keys")
    packed = numbers.astype(np.dtype(_PACKED[kind]))
    return [protobuf.numbers(_WORD(kind.value) + _WORD(packed.itemsize), packed, valid)]


def _parts(name: str, column: Sequence[Any], kind: ValueType) -> list[bytes]:
    """The parts of Python values, one a row."""
    column = _unwrapped(column, kind)
    python_types = set(map(type, column))
    is_integer = bool not in python_types and all(
        issubclass(each, (int, np.integer)) for each in python_types
    )
    if kind in _PACKED and is_integer:
        pack = struct.Struct("<II" + _PACKED[kind][1:]).pack
        code, size = kind.value, struct.calcsize(_PACKED[kind])
        with suppress(struct.error):  # out of range: Feast raises its own error
            return [pack(code, size, value) for value in column]
    if kind is ValueType.STRING and python_types <= {str, np.str_}:
        return _texts([text.encode() for text in column], kind)
    if kind is ValueType.BYTES and python_types == {bytes} and all(column):
        return _texts(column, kind)
    messages = list(column)
    if python_types != {Value}:
        check_ids(name, messages, kind)
        messages = python_values_to_proto_values(messages, kind)
    return [_message(value) for value in messages]


def _unwrapped(column: Sequence[Any], kind: ValueType) -> Sequence[Any]:
    """The values of messages that are all of the kind."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        return cast(list[int], column.tolist())
    if kind not in _FIELDS or any(type(value) is not Value for value in column):
        return column
    field = _FIELDS[kind]
    if {value.WhichOneof("val") for value in column} == {field}:
        return [getattr(value, field) for value in column]
    return column


def _texts(column: Sequence[bytes], kind: ValueType) -> list[bytes]:
    head = _WORD(kind.value)
    return [head + _WORD(len(value)) + value for value in column]


def _message(value: Value) -> bytes:
    """One value as Feast encodes it."""
    field = value.WhichOneof("val")
    if field is None:
        raise Unsupported("nulls among join keys")
    data, kind = serialize_val(field, value, 3)
    return _WORD(kind) + _WORD(len(data)) + data
