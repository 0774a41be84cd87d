"""Feast's answer to ``get_online_features``, made of the bytes that Redis holds.

A stored value or event time is already the message that the answer has at its place, so a column
of the answer is those bytes with a tag and a length before each; protobuf reads it in one go.
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

from .protobuf import varint
from .read_layouts import Found

#: Tags of a feature vector's values, statuses and event timestamps.
VALUE, STATUSES, TIME = b"\x0a", b"\x12", b"\x1a"
PRESENT, NOT_FOUND = bytes([FieldStatus.PRESENT]), bytes([FieldStatus.NOT_FOUND])
OLD = bytes([FieldStatus.OUTSIDE_MAX_AGE])
#: Types whose values may stand in the store as plain text.
_HINTED = {
    ValueType.UUID,
    ValueType.TIME_UUID,
    ValueType.UUID_LIST,
    ValueType.TIME_UUID_LIST,
    ValueType.UUID_SET,
    ValueType.TIME_UUID_SET,
}
_KINDS = ("int32", "int64", "float", "double", "bool", "string", "bytes")
#: Values that Feast hands out as they are, and lists of them.
_SCALARS = {f"{kind}_val" for kind in _KINDS}
_LISTS = {f"{kind}_list_val" for kind in _KINDS}


class QuickResponse(OnlineResponse):
    """Feast's own; columns of one type are turned to Python values at once."""

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


def add_known(response: GetOnlineFeaturesResponse, name: str, messages: Sequence[Value]) -> None:
    """Add a column that came with the call."""
    response.metadata.feature_names.val.append(name)
    vector = response.results.add()
    vector.values.extend(messages)
    rows = len(messages)
    vector.MergeFromString(_statuses(PRESENT * rows) + (TIME + b"\0") * rows)


def add_view(
    response: GetOnlineFeaturesResponse,
    names: Sequence[str],
    found: Found,
    defaults: Sequence[bytes | None],
) -> int:
    """Add a view's columns; how many of their values are there.

    A row that is not there has the default, status NOT_FOUND; one that is too old has it, too,
    status OUTSIDE_MAX_AGE. So has a null in a row that is there, if there is a default; without one
    it is PRESENT, null, as with the stock store.

    Args:
        response: takes the columns.
        names: of the columns.
        found: the rows.
        defaults: of each feature, the Value message; None for a feature without.
    """
    times = _repeated(TIME, [time or b"" for time in found.times])
    there = 0
    for name, column, default in zip(names, found.columns, defaults, strict=True):
        values, statuses = _filled(column, found, default)
        there += statuses.count(PRESENT)
        response.metadata.feature_names.val.append(name)
        response.results.add().MergeFromString(
            _repeated(VALUE, values) + _statuses(statuses) + times
        )
    return there


def add_version(response: GetOnlineFeaturesResponse, view: FeatureView) -> None:
    """Add a view's version, once."""
    name = view.projection.name_alias or view.projection.name
    known = response.metadata.feature_view_metadata
    if name not in [one.name for one in known]:
        known.add(name=name, version=getattr(view, "current_version_number", 0) or 0)


def _filled(
    column: Sequence[bytes | None], found: Found, default: bytes | None
) -> tuple[Sequence[bytes], bytes]:
    """A feature's values without gaps, and their statuses."""
    times = found.times
    if None not in times and not found.old:
        if all(column):
            return column, PRESENT * len(column)  # type: ignore[return-value]
        if default is None:
            return [value or b"" for value in column], PRESENT * len(column)
    states = [
        NOT_FOUND if time is None or not (value or default is None) else PRESENT
        for value, time in zip(column, times, strict=True)
    ]
    if found.old:
        states = [OLD if old else state for state, old in zip(states, found.old, strict=True)]
    instead = default or b""
    values = [
        value or b"" if state is PRESENT else instead
        for value, state in zip(column, states, strict=True)
    ]
    return values, b"".join(states)


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
    if kind in _HINTED or field not in _SCALARS | _LISTS:
        return [feast_value_type_to_python_type(value, kind) for value in values]
    if field in _SCALARS:
        read = attrgetter(field)
        return [read(v) if f else None for v, f in zip(values, fields, strict=True)]
    read = attrgetter(f"{field}.val")
    return [read(v)[:] if f else None for v, f in zip(values, fields, strict=True)]
