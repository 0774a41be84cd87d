"""Stored values to arrays, as protobuf reads them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, FloatList, Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE, python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.errors import StoreError
from reki_feast.stores.online.decoding import nanoseconds, scalars, vectors


def message(values: list[float]) -> bytes:
    return bytes(Value(float_list_val=FloatList(val=values)).SerializeToString())


FLOATS = st.floats(width=32, allow_nan=False)


@pytest.mark.parametrize("width", [1, 2, 29, 30, 31, 32, 33, 5000])
def test_vectors_of_one_length(width: int) -> None:
    rows = np.arange(3 * width, dtype=np.float32).reshape(3, width)
    found = [message(rows[0]), None, message(rows[1]), b"", message(rows[2])]
    matrix, known = vectors(found)
    assert matrix.dtype == np.float32
    assert known.tolist() == [True, False, True, False, True]
    np.testing.assert_array_equal(matrix[known], rows)
    assert not matrix[~known].any()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 40).flatmap(
        lambda d: st.lists(st.none() | st.lists(FLOATS, min_size=d, max_size=d))
    )
)
def test_any_vectors(rows: list[list[float] | None]) -> None:
    matrix, known = vectors([None if row is None else message(row) for row in rows])
    assert known.tolist() == [row is not None for row in rows]
    assert matrix[known].tolist() == [row for row in rows if row is not None]


def test_vectors_may_be_written_to() -> None:
    """torch warns of arrays that may not."""
    assert vectors([message([1.0])])[0].flags.writeable
    assert vectors([message([1.0]), None])[0].flags.writeable
    assert vectors([None], 2)[0].flags.writeable


def test_no_vector_known() -> None:
    matrix, known = vectors([None, b""], 3)
    assert matrix.tolist() == [[0.0] * 3] * 2
    assert known.tolist() == [False, False]
    assert vectors([None])[0].shape == (1, 0)
    assert vectors([], 3)[0].shape == (0, 3)


def test_vectors_that_others_wrote() -> None:
    """Protobuf may leave lists unpacked; doubles are taken, too."""
    unpacked = b"\x82\x01\x0a" + b"\x0d\x00\x00\x80\x3f" * 2
    doubles = Value(double_list_val=DoubleList(val=[1e300, 2.0])).SerializeToString()
    matrix, _ = vectors([unpacked, message([3.0, 4.0]), doubles])
    assert matrix.tolist() == [[1.0, 1.0], [3.0, 4.0], [float("inf"), 2.0]]


def test_an_alien_among_vectors_of_one_size() -> None:
    text = Value(string_val="x" * (len(message([1.0, 2.0])) - 2)).SerializeToString()
    assert len(text) == len(message([1.0, 2.0]))
    with pytest.raises(
        StoreError, match=r"list of floats\n  detail: a string_val\n  hint:   mater"
    ):
        vectors([message([1.0, 2.0]), text])


@pytest.mark.parametrize(
    "rows", [([1.0], [1.0, 2.0]), ([1.0, 2.0], [0.0]), ([1.0], [], [1.0, 2.0])]
)
def test_vectors_of_different_lengths(rows: tuple[list[float], ...]) -> None:
    low, high = min(map(len, rows)), max(map(len, rows))
    with pytest.raises(
        StoreError, match=f"one length\n  detail: vectors of {low} and of {high} fl"
    ):
        vectors([message(row) for row in rows])


INT_64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = [
    (ValueType.INT32, st.integers(-(2**31), 2**31 - 1), np.int32),
    (ValueType.INT64, INT_64, np.int64),
    (ValueType.FLOAT, FLOATS, np.float32),
    (ValueType.DOUBLE, st.floats(allow_nan=False), np.float64),
    (ValueType.BOOL, st.booleans(), np.bool_),
    (ValueType.UNIX_TIMESTAMP, INT_64.filter(lambda v: v != NULL_TIMESTAMP_INT_VALUE), np.int64),
]


@pytest.mark.parametrize(("kind", "values", "dtype"), SCALARS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_scalars(
    kind: ValueType, values: st.SearchStrategy[Any], dtype: type, data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(st.none() | values, max_size=9))
    protos = python_values_to_proto_values(drawn, kind)
    stored = [
        data.draw(st.sampled_from([b"", None])) if v is None else p.SerializeToString()
        for v, p in zip(drawn, protos, strict=True)
    ]
    output, known = scalars(stored, kind)
    assert output.dtype == dtype
    assert known.tolist() == [value is not None for value in drawn]
    assert output.tolist() == [value or 0 for value in drawn]


def test_a_time_that_is_null_is_unknown() -> None:
    stored = Value(unix_timestamp_val=NULL_TIMESTAMP_INT_VALUE).SerializeToString()
    output, known = scalars([stored, b"\x40\x07"], ValueType.UNIX_TIMESTAMP)
    assert (output.tolist(), known.tolist()) == ([0, 7], [False, True])


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (Value(int32_val=5), ValueType.INT64),
        (Value(int64_val=5), ValueType.BOOL),
        (Value(string_val="abc"), ValueType.FLOAT),
        (Value(float_val=1.0), ValueType.INT64),
        (Value(float_list_val=FloatList(val=[1.0])), ValueType.INT32),
    ],
)
def test_scalars_of_another_kind(stored: Value, kind: ValueType) -> None:
    with pytest.raises(
        StoreError, match=rf"detail: a {stored.WhichOneof('val')}\n  hint:   material"
    ):
        scalars([stored.SerializeToString()], kind)


def test_texts_go_into_no_array() -> None:
    with pytest.raises(StoreError, match=r"Only numbers go into arrays\n  detail: STRING"):
        scalars([None], ValueType.STRING)


SECONDS = st.integers(-62135596800, 253402300799)  # the years 1 to 9999
NANOS = st.integers(0, 999_999_999)
MOST = 2**63 - 1


@settings(deadline=None, max_examples=200)
@given(st.lists(st.none() | st.tuples(SECONDS | st.integers(-9, 9), NANOS | st.just(0))))
def test_any_times(times: list[tuple[int, int] | None]) -> None:
    stored = [t and Timestamp(seconds=t[0], nanos=t[1]).SerializeToString() for t in times]
    exact = [0 if t is None else t[0] * 10**9 + t[1] for t in times]
    assert nanoseconds(stored).tolist() == [max(-MOST, min(MOST, nanos)) for nanos in exact]


def test_no_times() -> None:
    assert nanoseconds([]).tolist() == []
    assert nanoseconds([None, b""]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("message", "nanos"),
    [
        (b"\x10\x05\x08\x01", 10**9 + 5),  # fields in another order
        (b"\x18\x07\x08\x02", 2 * 10**9),  # an unknown number
        (b"\x1a\x02\x08\x05", 0),  # an unknown text, which looks like seconds
    ],
)
def test_times_that_others_wrote(message: bytes, nanos: int) -> None:
    assert nanoseconds([message, b"\x08\x01"]).tolist() == [nanos, 10**9]


@pytest.mark.parametrize("garbage", [b"\xff", b"\x08", b"\x08" + b"\xff" * 11 + b"\x01"])
def test_garbage_is_no_time(garbage: bytes) -> None:
    with pytest.raises(DecodeError, match="Error parsing message"):
        nanoseconds([b"\x08\x01", garbage])
