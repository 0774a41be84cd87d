"""Redis keys of columns and of values: Feast's own, key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.stores.online.keys import RedisKeys
from reki_feast.stores.online.protobuf import Unsupported

PROJECT = "köln_2"
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TYPES: dict[ValueType, tuple[st.SearchStrategy[Any], pa.DataType]] = {
    ValueType.INT32: (st.integers(-(2**31), 2**31 - 1), pa.int32()),
    ValueType.INT64: (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    ValueType.STRING: (TEXT, pa.string()),
    ValueType.BYTES: (st.binary(min_size=1, max_size=20), pa.binary()),
    ValueType.UNIX_TIMESTAMP: (
        st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
            lambda time: time.replace(microsecond=0)
        ),
        pa.timestamp("us"),
    ),
}


def feasts(
    kinds: Mapping[str, ValueType], columns: Mapping[str, Sequence[Any]], project: str = PROJECT
) -> list[bytes]:
    protos = [python_values_to_proto_values(list(columns[name]), kinds[name]) for name in kinds]
    rows = [
        EntityKey(join_keys=list(kinds), entity_values=row) for row in zip(*protos, strict=True)
    ]
    return [_redis_key(project, row, 3) for row in rows]


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(TEXT, st.sampled_from(sorted(TYPES, key=str)), min_size=1, max_size=4),
    st.integers(0, 5),
    TEXT,
    st.data(),
)
def test_any_keys_as_feast(
    kinds: dict[str, ValueType], count: int, project: str, data: st.DataObject
) -> None:
    columns = {
        name: data.draw(st.lists(TYPES[kind][0], min_size=count, max_size=count))
        for name, kind in kinds.items()
    }
    expected = feasts(kinds, columns, project)
    keys = RedisKeys(project, kinds)
    arrays = {name: pa.array(columns[name], TYPES[kind][1]) for name, kind in kinds.items()}
    stored = keys.of_columns({**arrays, "another": pa.nulls(count)})
    assert stored.type == pa.binary()
    assert stored.to_pylist() == expected
    assert keys.of_values({**columns, "another": [None]}) == expected
    protos = {name: python_values_to_proto_values(columns[name], kinds[name]) for name in kinds}
    assert keys.of_values(protos) == expected


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, 2, 3], pa.int16())[1:], ValueType.INT64),
        (pa.array([1, 2], pa.uint64()), ValueType.INT32),
        (pa.array([1.0, 2.0]), ValueType.INT64),
        (pa.array(["a", "", "ccc"], pa.large_string())[1:], ValueType.STRING),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ValueType.STRING),
        (pa.array([12, -5]), ValueType.STRING),
        (pa.array([b"a", b""]), ValueType.BYTES),
        (pa.array([datetime(1960, 1, 1, 0, 0, 0, 5)]), ValueType.UNIX_TIMESTAMP),
    ],
)
def test_columns_of_any_width_as_feast(column: pa.Array, kind: ValueType) -> None:
    expected = feasts({"id": kind}, {"id": column.to_numpy(zero_copy_only=False)})
    assert RedisKeys(PROJECT, {"id": kind}).of_columns({"id": column}).to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([1, 2]), ValueType.INT64),
        ([np.int64(1), 2, 3.0], ValueType.INT64),
        ([np.int32(1), np.uint8(2)], ValueType.INT32),
        (["12", 5], ValueType.INT64),
        (np.array(["a", "b"]), ValueType.STRING),
        ([7, "a"], ValueType.STRING),
        ([b"", b"a"], ValueType.BYTES),
        ([np.datetime64("1960-01-01T00:00:00.5")], ValueType.UNIX_TIMESTAMP),
        ([1_700_000_000], ValueType.UNIX_TIMESTAMP),
        ([Value(int64_val=5), 6], ValueType.INT64),
    ],
)
def test_values_of_any_type_as_feast(values: Sequence[Any], kind: ValueType) -> None:
    expected = feasts({"id": kind}, {"id": values})
    assert RedisKeys(PROJECT, {"id": kind}).of_values({"id": values}) == expected


def test_messages_keep_their_own_type() -> None:
    """Whoever hands Feast messages is taken at his word, whatever the join key's type."""
    values = [Value(int32_val=5), Value(string_val="5")]
    keys = RedisKeys(PROJECT, {"id": ValueType.INT64}).of_values({"id": values})
    assert keys == [
        feasts({"id": ValueType.INT32}, {"id": [5]})[0],
        feasts({"id": ValueType.STRING}, {"id": ["5"]})[0],
    ]


@pytest.mark.parametrize(
    ("column", "kind", "why"),
    [
        (pa.array([1, None]), ValueType.INT64, "nulls among join keys"),
        (pa.array([1.0, float("nan")]), ValueType.INT64, "nulls among join keys"),
        (pa.array(["a", None]), ValueType.STRING, "nulls among join keys"),
        (pa.array([b"", b""]), ValueType.BYTES, "nulls among join keys"),
        (pa.array([datetime(2020, 1, 1), None]), ValueType.UNIX_TIMESTAMP, "nulls among join keys"),
        (pa.array([1.0]), ValueType.FLOAT, "no keys of FLOAT"),
        (pa.array(["1"]), ValueType.INT64, "string as INT64"),
        (pa.array([2**40]), ValueType.INT32, "out of the range of INT32"),
    ],
)
def test_other_columns_are_left_to_feast(column: pa.Array, kind: ValueType, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        RedisKeys(PROJECT, {"id": kind}).of_columns({"id": column})


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], ValueType.INT64),
        ([1.0, float("nan")], ValueType.INT64),
        (["a", None], ValueType.STRING),
        ([b""], ValueType.BYTES),
        ([Value()], ValueType.STRING),
        ([None], ValueType.UNIX_TIMESTAMP),
    ],
)
def test_null_values_are_no_keys(values: list[Any], kind: ValueType) -> None:
    with pytest.raises(Unsupported, match="nulls among join keys"):
        RedisKeys(PROJECT, {"id": kind}).of_values({"id": values})


RAISED: list[tuple[list[Any], ValueType, type[Exception], str]] = [
    ([2**63], ValueType.INT64, ValueError, "out of range"),
    ([2**31], ValueType.INT32, ValueError, "out of range"),
    (["x"], ValueType.INT64, ValueError, "invalid literal"),
    (["x"], ValueType.BYTES, AssertionError, "not in"),
    ([1.5], ValueType.FLOAT, ValueError, "not supported"),
]


@pytest.mark.parametrize(("values", "kind", "error", "why"), RAISED)
def test_errors_are_feasts(
    values: list[Any], kind: ValueType, error: type[Exception], why: str
) -> None:
    ours: Callable[[], Any] = lambda: RedisKeys(PROJECT, {"id": kind}).of_values({"id": values})  # noqa: E731
    for keys in (ours, lambda: feasts({"id": kind}, {"id": values})):
        with pytest.raises(error, match=why):
            keys()


def test_columns_of_different_lengths() -> None:
    keys = RedisKeys(PROJECT, {"a": ValueType.INT64, "b": ValueType.INT64})
    with pytest.raises(ValueError, match="shorter"):
        keys.of_values({"a": [1, 2], "b": [1]})
