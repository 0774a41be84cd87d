"""Answers made of bytes, and turned to Python values, as Feast's own classes do it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import FloatList, StringList, Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.stores.online.layouts import FetchedRows
from reki_feast.stores.online.response import QuickResponse, add_column, add_view

WHEN = datetime(2026, 3, 1, tzinfo=UTC)
ONE = uuid.UUID(int=5)
COLUMNS: list[tuple[ValueType, list[Any]]] = [
    (ValueType.INT32, [1, 0, -1]),
    (ValueType.INT64, [1 << 40, 0, None]),
    (ValueType.FLOAT, [0.1, 0.0, None]),
    (ValueType.DOUBLE, [0.1, -0.0]),
    (ValueType.BOOL, [True, False, None]),
    (ValueType.STRING, ["", "é", None]),
    (ValueType.BYTES, [b"\x00", b"a"]),
    (ValueType.UNIX_TIMESTAMP, [WHEN, None]),
    (ValueType.INT32_LIST, [[1, 2], [], None]),
    (ValueType.INT64_LIST, [[1 << 40]]),
    (ValueType.FLOAT_LIST, [[0.1, 2.0], [], None]),
    (ValueType.DOUBLE_LIST, [[0.1]]),
    (ValueType.BOOL_LIST, [[True, False]]),
    (ValueType.STRING_LIST, [["a", ""], None]),
    (ValueType.BYTES_LIST, [[b"a"]]),
    (ValueType.UNIX_TIMESTAMP_LIST, [[WHEN]]),
    (ValueType.STRING_SET, [{"a", "b"}]),
    (ValueType.UUID, [ONE, None]),
    (ValueType.UUID_LIST, [[ONE]]),
    (ValueType.DECIMAL, [Decimal("1.5")]),
    (ValueType.JSON, [{"a": 1}]),
    (ValueType.MAP, [{"a": 1.5}]),
    (ValueType.STRUCT, [{"a": 1}]),
]


def both(name: str, values: list[Value], kind: ValueType | None) -> tuple[Any, Any]:
    proto = GetOnlineFeaturesResponse()
    add_column(proto, name, values)
    types = {} if kind is None else {name: kind}
    return QuickResponse(proto, types), OnlineResponse(proto, types)


@pytest.mark.parametrize(("kind", "values"), COLUMNS, ids=lambda v: getattr(v, "name", ""))
def test_every_type(kind: ValueType, values: list[Any]) -> None:
    for hint in (kind, None):
        ours, feasts = both("c", python_values_to_proto_values(values, kind), hint)
        found = ours.to_dict()["c"]
        assert found == feasts.to_dict()["c"]
        assert list(map(type, found)) == list(map(type, feasts.to_dict()["c"]))
        assert ours.to_dict(True) == feasts.to_dict(True)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([Value(string_val=str(ONE))], ValueType.UUID),
        ([Value(string_list_val=StringList(val=[str(ONE)]))], ValueType.UUID_LIST),
        ([Value(int64_val=1), Value(string_val="a"), Value()], ValueType.INT64),
        ([Value(), Value()], ValueType.INT64),
        ([], ValueType.INT64),
    ],
)
def test_values_that_are_not_what_their_type_says(values: list[Value], kind: ValueType) -> None:
    ours, feasts = both("c", values, kind)
    assert ours.to_dict() == feasts.to_dict()


def test_without_the_entity_of_views_that_have_none() -> None:
    assert both("__dummy_id", [Value(string_val="")], None)[0].to_dict() == {}


FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=40)
VALUES = st.none() | st.just(Value()) | FLOATS.map(lambda v: Value(float_list_val=FloatList(val=v)))
TIMES = st.none() | st.builds(
    Timestamp, seconds=st.integers(-(10**9), 2**33), nanos=st.integers(0, 999_999_999)
)


def stored(message: Any) -> bytes | None:
    return None if message is None else message.SerializeToString()


@given(
    st.lists(st.tuples(VALUES, VALUES, TIMES), max_size=8),
    st.tuples(VALUES, VALUES),
)
def test_any_rows(rows: list[tuple[Any, Any, Any]], defaults: tuple[Any, Any]) -> None:
    """Made of bytes as it would be made of messages; the rule of what is not there, too."""
    columns = [[row[n] for row in rows] for n in (0, 1)]
    times = [time for *_, time in rows]
    response, made = GetOnlineFeaturesResponse(), GetOnlineFeaturesResponse()
    there = add_view(
        response,
        ["a", "b"],
        FetchedRows(
            [[stored(v) for v in column] for column in columns], [stored(t) for t in times]
        ),
        [stored(default) for default in defaults],
    )
    count = 0
    for name, column, default in zip("ab", columns, defaults, strict=True):
        made.metadata.feature_names.val.append(name)
        vector = made.results.add()
        for value, time in zip(column, times, strict=True):
            null = value is None or value.WhichOneof("val") is None
            lacking = time is None or (null and default is not None)
            vector.values.append((default if lacking else value) or Value())
            vector.statuses.append(FieldStatus.NOT_FOUND if lacking else FieldStatus.PRESENT)
            vector.event_timestamps.append(time or Timestamp())
            count += not lacking
    assert response == made
    assert there == count
