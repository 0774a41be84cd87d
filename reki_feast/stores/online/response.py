"""Feast's response to ``get_online_features``, made of the bytes that Redis stores.

A stored value or event time is already a message of the response, so a column of the response is
those bytes with a tag and a length before each; protobuf parses it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from feast import FeatureView, ValueType
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from typing_extensions import override

from .layouts import FetchedRows
from .protobuf import varint

#: Tags of a feature vector's values, statuses and event timestamps.
VALUE, STATUSES, TIME = b"\x0a", b"\x12", b"\x1a"
PRESENT, NOT_FOUND = bytes([FieldStatus.PRESENT]), bytes([FieldStatus.NOT_FOUND])
EXPIRED = bytes([FieldStatus.OUTSIDE_MAX_AGE])
#: Types whose values may be stored as plain text.
_TEXTUAL = {
    ValueType.UUID,
    ValueType.TIME_UUID,
    ValueType.UUID_LIST,
    ValueType.TIME_UUID_LIST,
    ValueType.UUID_SET,
    ValueType.TIME_UUID_SET,
}
_KINDS = ("int32", "int64", "float", "double", "bool", "string", "bytes")
#: Fields whose values Feast returns unchanged, and lists of them.
_SCALARS = {f"{kind}_val" for kind in _KINDS}
_LISTS = {f"{kind}_list_val" for kind in _KINDS}


class QuickResponse(OnlineResponse):
    """Feast's own; columns of one type are converted to Python values at once."""

    @override
    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        """Column by column, Python values.

        Args:
            include_event_timestamps: also ``<column>__ts``, seconds since 1970.
        """
        columns: dict[str, Any] = {}
        proto = self.proto
        for name, vector in zip(proto.metadata.feature_names.val, proto.results, strict=False):
            columns[name] = _natives(vector.values, self._feature_types.get(name))
            if include_event_timestamps:
                times = vector.event_timestamps
                columns[name + TIMESTAMP_POSTFIX] = [time.seconds for time in times]
        return columns


def add_column(response: GetOnlineFeaturesResponse, name: str, messages: Sequence[Value]) -> None:
    """Add a column of values that are all present."""
    response.metadata.feature_names.val.append(name)
    vector = response.results.add()
    vector.values.extend(messages)
    count = len(messages)
    vector.MergeFromString(_statuses(PRESENT * count) + (TIME + b"\0") * count)


def add_view(
    response: GetOnlineFeaturesResponse,
    names: Sequence[str],
    rows: FetchedRows,
    defaults: Sequence[bytes | None],
) -> int:
    """Add a view's columns; how many of their values are present.

    A row that is not stored has the default, status NOT_FOUND; one that is too old has it, too,
    status OUTSIDE_MAX_AGE. A null in a stored row has the default, status NOT_FOUND, if there is
    one; without a default it is null, status PRESENT, as with Feast's own store.

    Args:
        response: takes the columns.
        names: of the columns.
        rows: the rows.
        defaults: of each feature, the Value message; None for a feature without.
    """
    event_times = _repeated(TIME, [time or b"" for time in rows.timestamps])
    present = 0
    for name, column, default in zip(names, rows.columns, defaults, strict=True):
        values, statuses = _filled(column, rows, default)
        present += statuses.count(PRESENT)
        response.metadata.feature_names.val.append(name)
        response.results.add().MergeFromString(
            _repeated(VALUE, values) + _statuses(statuses) + event_times
        )
    return present


def add_version(response: GetOnlineFeaturesResponse, view: FeatureView) -> None:
    """Add a view's version, once."""
    name = view.projection.name_alias or view.projection.name
    views = response.metadata.feature_view_metadata
    if name not in [entry.name for entry in views]:
        views.add(name=name, version=getattr(view, "current_version_number", 0) or 0)


def _filled(
    column: Sequence[bytes | None], rows: FetchedRows, default: bytes | None
) -> tuple[Sequence[bytes], bytes]:
    """A feature's values without gaps, and their statuses."""
    timestamps = rows.timestamps
    if None not in timestamps and not rows.expired:
        if all(column):
            return column, PRESENT * len(column)  # type: ignore[return-value]
        if default is None:
            return [value or b"" for value in column], PRESENT * len(column)
    statuses = [
        NOT_FOUND if time is None or not (value or default is None) else PRESENT
        for value, time in zip(column, timestamps, strict=True)
    ]
    if rows.expired:
        statuses = [
            EXPIRED if expired else state
            for state, expired in zip(statuses, rows.expired, strict=True)
        ]
    replacement = default or b""
    values = [
        value or b"" if state is PRESENT else replacement
        for value, state in zip(column, statuses, strict=True)
    ]
    return values, b"".join(statuses)


def _repeated(tag: bytes, messages: Sequence[bytes]) -> bytes:
    """A repeated field."""
    heads = {size: tag + varint(size) for size in set(map(len, messages))}
    if len(heads) == 1:
        head = next(iter(heads.values()))
        return head + head.join(messages)
    return b"".join([heads[len(message)] + message for message in messages])


def _statuses(statuses: bytes) -> bytes:
    return STATUSES + varint(len(statuses)) + statuses if statuses else b""


def _natives(values: Sequence[Value], kind: ValueType | None) -> list[Any]:
    fields = [value.WhichOneof("val") for value in values]
    distinct = set(fields) - {None}
    field = distinct.pop() if len(distinct) == 1 else None
    if kind in _TEXTUAL or field not in _SCALARS | _LISTS:
        return [feast_value_type_to_python_type(value, kind) for value in values]
    if field in _SCALARS:
        read = attrgetter(field)
        return [read(v) if f else None for v, f in zip(values, fields, strict=True)]
    read = attrgetter(f"{field}.val")
    return [read(v)[:] if f else None for v, f in zip(values, fields, strict=True)]
