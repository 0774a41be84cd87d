"""Rows to be written to Redis, as columns of Feast's serialized messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from feast import FeatureView, ValueType
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from reki_feast.stores._feast import convert_arrow_to_proto, validate_vector_field_lengths
from reki_feast.stores.ids import check_column

from .encoding import encode, timestamps
from .keys import VERSION, RedisKeys
from .protobuf import Unsupported

if TYPE_CHECKING:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

#: A row of ``online_write_batch``: entity, values, event time, created time.
FeastRow = tuple["EntityKey", dict[str, "Value"], datetime, datetime | None]


@dataclass(frozen=True)
class RowBlock:
    """n rows of one view.

    Attributes:
        entities: (n,) serialized entity keys, without the project.
        values: feature to (n,) serialized Value messages; null is empty.
        timestamps: (n,) serialized Timestamp messages of the event times.
        times: (n,) int64, the event times in nanoseconds.
    """

    entities: pa.BinaryArray
    values: dict[str, pa.BinaryArray]
    timestamps: pa.BinaryArray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.entities)

    def taken(self, which: np.ndarray) -> RowBlock:
        """The rows at some positions, or where a mask says so."""
        mask = which.dtype == bool
        if mask and which.all():
            return self
        at = pa.array(np.flatnonzero(which) if mask else which)
        values = {name: column.take(at) for name, column in self.values.items()}
        return RowBlock(self.entities.take(at), values, self.timestamps.take(at), self.times[at])


def rows_of_batch(view: FeatureView, batch: pa.RecordBatch, version: int) -> Iterator[RowBlock]:
    """The rows of an Arrow batch; by Feast's own conversion where a column has no fast one here.

    Args:
        view: its join keys, features and event time are columns of the batch.
        batch: n rows.
        version: of the serialization of entity keys.

    Raises:
        ValueError: a column is missing, or its values do not fit the view's types.
        StoreError: a key's column has ids that the key's type would change.
    """
    validate_vector_field_lengths(batch, view)
    batch = _with_dummy(view, batch)
    keys = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
    for name, kind in keys.items():
        check_column(name, _column(batch, name), kind)
    try:
        if version != VERSION:
            raise Unsupported(f"entity keys of version {version}")
        yield _columns(view, batch, keys)
    except Unsupported:
        yield from rows_of_messages(convert_arrow_to_proto(batch, view, keys), version)


def _columns(view: FeatureView, batch: pa.RecordBatch, keys: Mapping[str, ValueType]) -> RowBlock:
    source: Any = view.batch_source
    entities = RedisKeys("", keys).of_columns({name: _column(batch, name) for name in keys})
    values = {
        field.name: encode(_column(batch, field.name), field.dtype.to_value_type())
        for field in view.features
    }
    event_times, times = timestamps(_column(batch, source.timestamp_field))
    return RowBlock(entities, values, event_times, times)


def rows_of_messages(data: Sequence[FeastRow], version: int) -> Iterator[RowBlock]:
    """Rows as Feast passes them; neighbours with the same features make one block."""
    for names, neighbours in groupby(data, key=lambda row: tuple(row[1])):
        rows = list(neighbours)
        messages = [_timestamp(time) for _, _, time, _ in rows]
        times = [time.seconds * 1_000_000_000 + time.nanos for time in messages]
        yield RowBlock(
            _binary(serialize_entity_key(entity, version) for entity, *_ in rows),
            {n: _binary(row[1][n].SerializeToString() for row in rows) for n in names},
            _binary(time.SerializeToString() for time in messages),
            np.array(times, np.int64),
        )


def in_slices(batch: pa.RecordBatch, limit: int) -> Iterator[pa.RecordBatch]:
    """A batch, or slices of it of at most ``limit`` bytes each (or of one row)."""
    if batch.nbytes > limit and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from in_slices(batch.slice(0, half), limit)
        yield from in_slices(batch.slice(half), limit)
    else:
        yield batch


def _with_dummy(view: FeatureView, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A view without entities has one row, of Feast's dummy entity."""
    if DUMMY_ENTITY_ID not in view.join_keys or DUMMY_ENTITY_ID in batch.schema.names:
        return batch
    return batch.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * batch.num_rows))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        raise ValueError(f"Column {name} not found in table")  # as Feast says it
    return batch.column(name)


def _binary(values: Iterable[bytes]) -> pa.BinaryArray:
    return pa.array(list(values), pa.binary())


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(make_tzaware(time))
    return message
