"""Columns of values in Feast's bytes: the same as Feast's own way gives, value by value."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from feast.type_map import python_values_to_proto_values
from feast.utils import make_tzaware
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.stores.online import protobuf
from reki_feast.stores.online.encoding import encode, timestamps
from reki_feast.stores.online.protobuf import Unsupported

NAN = float("nan")
NEW_YEAR = datetime(2020, 1, 1, 0, 0, 0, 5)
BEFORE = datetime(1960, 1, 1, 0, 0, 0, 5)


def feasts(column: pa.Array, kind: ValueType) -> list[bytes]:
    with np.errstate(all="ignore"):
        protos = python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kind)
    return [proto.SerializeToString() for proto in protos]


def same(column: pa.Array, kind: ValueType) -> None:
    encoded = encode(column, kind)
    assert encoded.type == pa.binary()
    assert encoded.null_count == 0
    encoded.validate(full=True)
    assert encoded.to_pylist() == feasts(column, kind)


SCALARS: list[tuple[list[Any], pa.DataType, ValueType]] = [
    ([1, 0, -1, None, 2**31 - 1], pa.int64(), ValueType.INT32),
    ([1, 0, -1, 127, 128, 2**63 - 1, -(2**63)], pa.int64(), ValueType.INT64),
    ([1, None, 0], pa.int8(), ValueType.INT64),
    ([1, 2**63 - 1], pa.uint64(), ValueType.INT64),
    ([1.9, -1.9, NAN, None, 2.0**62], pa.float64(), ValueType.INT64),
    ([1.5, NAN], pa.float32(), ValueType.INT32),
    ([1, 0.5, NAN, None], pa.float16(), ValueType.FLOAT),
    ([1.1, NAN, None, -0.0], pa.float32(), ValueType.FLOAT),
    ([1e300, -1e300, float("inf"), 1e-50, 0.1], pa.float64(), ValueType.FLOAT),
    ([2**24 + 1, 2**60 + 1, -1], pa.int64(), ValueType.FLOAT),
    ([1, None], pa.int32(), ValueType.FLOAT),
    ([0.0, -0.0, 0.1, NAN, None], pa.float64(), ValueType.DOUBLE),
    ([2**60 + 1, 0, -3], pa.int64(), ValueType.DOUBLE),
    ([2**60 + 1, None], pa.int64(), ValueType.DOUBLE),
    ([True, False, None], pa.bool_(), ValueType.BOOL),
    ([None, None], pa.bool_(), ValueType.BOOL),
    (["a", "", None, "é漢\0", "x" * 300], pa.string(), ValueType.STRING),
    (["a", None, "x" * 30], pa.large_string(), ValueType.STRING),
    (["a", None, "x" * 30], pa.string_view(), ValueType.STRING),
    (["a", None, "a"], pa.dictionary(pa.int8(), pa.string()), ValueType.STRING),
    ([12, -5, 0], pa.int64(), ValueType.STRING),
    ([b"x", b"", None], pa.binary(), ValueType.BYTES),
    ([b"", b"", None], pa.binary(), ValueType.BYTES),  # null to Feast, as nothing else is there
    ([b"ab", None], pa.binary(2), ValueType.BYTES),
    ([b"ab", None], pa.large_binary(), ValueType.BYTES),
    ([b"ab", None], pa.binary_view(), ValueType.BYTES),
    ([NEW_YEAR, BEFORE, None], pa.timestamp("us"), ValueType.UNIX_TIMESTAMP),
    ([NEW_YEAR, BEFORE, None], pa.timestamp("ns"), ValueType.UNIX_TIMESTAMP),
    ([NEW_YEAR, BEFORE], pa.timestamp("us", "Asia/Tokyo"), ValueType.UNIX_TIMESTAMP),
    ([0, -1, None, 9 * 10**12], pa.timestamp("s"), ValueType.UNIX_TIMESTAMP),
    ([date(2020, 1, 1), None], pa.date32(), ValueType.UNIX_TIMESTAMP),
    ([date(1950, 1, 1), None], pa.date64(), ValueType.UNIX_TIMESTAMP),
    ([5, 0, -1], pa.int64(), ValueType.UNIX_TIMESTAMP),
    ([None, None], pa.null(), ValueType.INT64),
    ([None, None], pa.null(), ValueType.FLOAT_LIST),
]
LISTS: list[tuple[list[Any], pa.DataType, ValueType]] = [
    ([[1.0, 2.0], None, []], pa.float32(), ValueType.FLOAT_LIST),
    ([[1.0, 2.0], None, [3.0, 4.0]], pa.float32(), ValueType.FLOAT_LIST),
    ([[1.0, None, NAN], [None]], pa.float32(), ValueType.FLOAT_LIST),
    ([[1e300, 0.1], [-1e-50]], pa.float64(), ValueType.FLOAT_LIST),
    ([[1.0], [0.5]], pa.float16(), ValueType.FLOAT_LIST),
    ([[0.0] * 31, [0.0] * 32, [0.0] * 33, [0.0] * 5000], pa.float32(), ValueType.FLOAT_LIST),
    ([[], []], pa.float32(), ValueType.FLOAT_LIST),
    ([None, None], pa.float32(), ValueType.FLOAT_LIST),
    ([[1.1, None], None, []], pa.float32(), ValueType.DOUBLE_LIST),
    ([[1.1, NAN], [2.0, 3.0]], pa.float64(), ValueType.DOUBLE_LIST),
    ([[1, -2, 300], None, [], [2**31 - 1]], pa.int64(), ValueType.INT32_LIST),
    ([[1, -2, 300], None, [], [2**63 - 1]], pa.int64(), ValueType.INT64_LIST),
    ([[1], [255]], pa.uint8(), ValueType.INT64_LIST),
    ([["a", None, ""], None, [], ["x" * 200]], pa.string(), ValueType.STRING_LIST),
    ([["a", "b"], ["c", "d"]], pa.large_string(), ValueType.STRING_LIST),
    ([[b"a", None, b""], None, []], pa.binary(), ValueType.BYTES_LIST),
    ([[True, None, False], None, []], pa.bool_(), ValueType.BOOL_LIST),
]


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.float16():
        return pa.array([None if v is None else np.float16(v) for v in values], kind)
    return pa.array(values, kind)


@pytest.mark.parametrize(("values", "arrow", "kind"), SCALARS)
def test_scalars_as_feast(values: list[Any], arrow: pa.DataType, kind: ValueType) -> None:
    column = array(values, arrow)
    same(column, kind)
    same(column[1:], kind)
    same(column[:0], kind)


@pytest.mark.parametrize(("values", "element", "kind"), LISTS)
@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_lists_as_feast(make: Any, values: list[Any], element: Any, kind: ValueType) -> None:
    column = array_of_lists(values, make(element))
    same(column, kind)
    same(column[1:], kind)
    same(column[:0], kind)


def array_of_lists(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind.value_type != pa.float16():
        return pa.array(values, kind)
    return pa.array([[np.float16(v) for v in row] for row in values], kind)


@pytest.mark.parametrize("element", [1.5, NAN, None])
def test_lists_of_fixed_size_as_feast(element: float | None) -> None:
    rows = [[1.0, 2.0], None, [3.0, element], None, [5.0, 6.0]]
    column = pa.array(rows, pa.list_(pa.float32(), 2))
    same(column, ValueType.FLOAT_LIST)
    same(column[1:4], ValueType.FLOAT_LIST)


def test_what_null_lists_hide_is_left_out() -> None:
    hidden = pa.array([False, True, False])
    flat = pa.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], pa.float32())
    ragged = pa.ListArray.from_arrays(pa.array([0, 2, 3, 6], pa.int32()), flat, mask=hidden)
    equal = pa.FixedSizeListArray.from_arrays(flat, 2, mask=hidden)
    for column in (ragged, equal, ragged[1:], equal[1:]):
        same(column, ValueType.FLOAT_LIST)
    assert encode(equal, ValueType.FLOAT_LIST)[1].as_py() == b""


def test_large_integers_beside_nulls_stay_exact() -> None:
    """Feast's way goes through doubles, which round them."""
    column = pa.array([2**53 + 1, None])
    assert encode(column, ValueType.INT64)[0].as_py() == feasts(column[:1], ValueType.INT64)[0]
    assert feasts(column, ValueType.INT64)[0] == feasts(pa.array([2**53]), ValueType.INT64)[0]


REFUSED: list[tuple[pa.Array, ValueType, str]] = [
    (pa.array([2**40]), ValueType.INT32, "out of the range of INT32"),
    (pa.array([2**63], pa.uint64()), ValueType.INT64, "not in range"),
    (pa.array([float("inf")]), ValueType.INT64, "out of the range of INT64"),
    (pa.array([1.0], pa.float32()), ValueType.DOUBLE, "float as DOUBLE"),
    (pa.array([1], pa.int32()), ValueType.DOUBLE, "int32 as DOUBLE"),
    (pa.array([1.0]), ValueType.BOOL, "double as BOOL"),
    (pa.array(["x"]), ValueType.BYTES, "string as text or bytes"),
    (pa.array(["x"]), ValueType.FLOAT, "string as FLOAT"),
    (pa.array([NEW_YEAR]), ValueType.INT64, r"timestamp\[us\] as INT64"),
    (pa.array([1.0]), ValueType.FLOAT_LIST, "double as FLOAT_LIST"),
    (pa.array([[1]]), ValueType.FLOAT_LIST, "lists of int64 as FLOAT_LIST"),
    (pa.array([[1, None]]), ValueType.INT64_LIST, "nulls in lists of int64"),
    (pa.array([[2**40]]), ValueType.INT32_LIST, "out of the range of INT32_LIST"),
    (pa.array([[1.0]]), ValueType.INT64_LIST, "double as INT64_LIST"),
    (pa.array([[b"a"]]), ValueType.STRING_LIST, "binary as text or bytes"),
    (pa.array([[1]]), ValueType.BOOL_LIST, "int64 as BOOL"),
]


@pytest.mark.parametrize(("column", "kind", "why"), REFUSED)
def test_what_feast_refuses_is_left_to_it(column: pa.Array, kind: ValueType, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        encode(column, kind)
    with pytest.raises((TypeError, ValueError, AssertionError, OverflowError), match=r"."):
        feasts(column, kind)


LEFT: list[tuple[pa.Array, ValueType, str]] = [
    (pa.array(["5"]), ValueType.INT64, "string as INT64"),
    (pa.array([True]), ValueType.STRING, "bool as text or bytes"),
    (pa.array([1, None]), ValueType.STRING, "int64 as text or bytes"),
    (pa.array([1, None]), ValueType.UNIX_TIMESTAMP, "nulls among int64 as times"),
    (pa.array([[NEW_YEAR]]), ValueType.UNIX_TIMESTAMP_LIST, "no fast form of UNIX_TIMESTAMP_LIST"),
    (pa.array(["{}"]), ValueType.JSON, "no fast form of JSON"),
    (pa.array([[1.0]]), ValueType.FLOAT, "list<.*> as FLOAT"),
]


@pytest.mark.parametrize(("column", "kind", "why"), LEFT)
def test_what_is_odd_is_left_to_feast(column: pa.Array, kind: ValueType, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        encode(column, kind)
    assert len(feasts(column, kind)) == len(column)


INT_32 = st.integers(-(2**31), 2**31 - 1)
#: Whole numbers that a double holds, as Feast's way turns them into doubles where nulls are.
INT_53 = st.integers(-(2**53), 2**53)
FLOAT_32 = st.floats(width=32)
TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
MICROS = st.integers(-(10**17), 10**17)
DRAWN_SCALARS = [
    (INT_32, pa.int32(), ValueType.INT32),
    (INT_53, pa.int64(), ValueType.INT64),
    (FLOAT_32, pa.float32(), ValueType.FLOAT),
    (st.floats(), pa.float64(), ValueType.FLOAT),
    (st.floats(), pa.float64(), ValueType.DOUBLE),
    (st.booleans(), pa.bool_(), ValueType.BOOL),
    (TEXT, pa.string(), ValueType.STRING),
    (st.binary(max_size=200), pa.binary(), ValueType.BYTES),
    (MICROS, pa.timestamp("us"), ValueType.UNIX_TIMESTAMP),
]
DRAWN_LISTS = [
    (st.none() | FLOAT_32, pa.float32(), ValueType.FLOAT_LIST),
    (st.none() | st.floats(), pa.float64(), ValueType.DOUBLE_LIST),
    (INT_32, pa.int32(), ValueType.INT32_LIST),
    (st.integers(-(2**63), 2**63 - 1), pa.int64(), ValueType.INT64_LIST),
    (st.none() | TEXT, pa.string(), ValueType.STRING_LIST),
    (st.none() | st.binary(max_size=9), pa.binary(), ValueType.BYTES_LIST),
    (st.none() | st.booleans(), pa.bool_(), ValueType.BOOL_LIST),
]


def sliced(data: st.DataObject, values: st.SearchStrategy[Any], kind: pa.DataType) -> pa.Array:
    """A column out of the midst of a longer one."""
    column = pa.array(data.draw(st.lists(st.none() | values, max_size=12)), kind)
    start = data.draw(st.integers(0, len(column)))
    return column[start : data.draw(st.integers(start, len(column)))]


@pytest.mark.parametrize(("values", "arrow", "kind"), DRAWN_SCALARS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_scalars_as_feast(
    values: st.SearchStrategy[Any], arrow: pa.DataType, kind: ValueType, data: st.DataObject
) -> None:
    same(sliced(data, values, arrow), kind)


@pytest.mark.parametrize(("values", "arrow", "kind"), DRAWN_LISTS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_lists_as_feast(
    values: st.SearchStrategy[Any], arrow: pa.DataType, kind: ValueType, data: st.DataObject
) -> None:
    column = sliced(data, st.lists(values, max_size=6), pa.list_(arrow))
    same(column, kind)
    same(pc.take(column, pa.array(range(len(column) - 1, -1, -1), pa.int32())), kind)


def feasts_times(column: pa.Array) -> list[Timestamp]:
    times = pd.to_datetime(column.to_numpy(zero_copy_only=False))
    messages = [Timestamp() for _ in times]
    for message, time in zip(messages, times, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas tells that it cuts nanoseconds
            message.FromDatetime(make_tzaware(time.to_pydatetime()))
    return messages


def same_times(column: pa.Array) -> None:
    stored, nanos = timestamps(column)
    expected = feasts_times(column)
    assert stored.to_pylist() == [message.SerializeToString() for message in expected]
    assert nanos.tolist() == [message.seconds * 10**9 + message.nanos for message in expected]


@pytest.mark.parametrize(
    ("values", "arrow"),
    [
        ([NEW_YEAR, BEFORE], pa.timestamp("us")),
        ([NEW_YEAR, BEFORE], pa.timestamp("us", "America/New_York")),
        ([datetime(1970, 1, 1), datetime(1970, 1, 1, 0, 0, 1)], pa.timestamp("s")),
        ([datetime(1969, 12, 31, 23, 59, 59, 999000), NEW_YEAR], pa.timestamp("ms")),
        ([1, -1, 1999, 10**18 + 1], pa.timestamp("ns")),
        ([date(2020, 1, 1), date(1960, 2, 29)], pa.date32()),
        ([], pa.timestamp("us", "UTC")),
    ],
)
def test_timestamps_as_feast(values: list[Any], arrow: pa.DataType) -> None:
    same_times(pa.array(values, arrow))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-(9 * 10**15), 9 * 10**15), max_size=9), st.integers(0, 9))
def test_any_timestamps_as_feast(micros: list[int], start: int) -> None:
    same_times(pa.array(micros, pa.timestamp("us", "UTC"))[start:])


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array([NEW_YEAR, None]), "1 nulls among timestamp"),
        (pa.array([1, 2]), "int64 as times"),
        (pa.array([datetime(2300, 1, 1, tzinfo=UTC)]), "beyond int64"),
        (pa.array([datetime(1600, 1, 1)]), "beyond int64"),
    ],
)
def test_other_timestamps_are_left_to_feast(column: pa.Array, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        timestamps(column)


def test_more_bytes_than_a_column_holds() -> None:
    with pytest.raises(Unsupported, match="2147483648 bytes in one column"):
        protobuf.binary(np.empty(0, np.uint8), np.array([0, 2**31]))
    megabyte = pa.scalar(bytes(1 << 20))
    with pytest.raises(Unsupported, match="array cannot contain more"):
        protobuf.concat(megabyte, pa.array([b"x"] * 2048))
