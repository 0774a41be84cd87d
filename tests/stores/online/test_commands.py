"""Commands of columns are what redis-py would send."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers import Encoder
from redis.connection import PythonRespSerializer

from reki_feast.stores.online.commands import command, concat, contents, escape_glob

TEXTS = st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=300)), min_size=1, max_size=9)


def packed(*arguments: bytes) -> bytes:
    encoder: Any = Encoder("utf-8", "strict", decode_responses=False)  # type: ignore[no-untyped-call]
    serializer: Any = PythonRespSerializer(6_000, encoder.encode)
    return b"".join(serializer.pack(*arguments))


@given(TEXTS, st.binary(min_size=1, max_size=5))
def test_each_row_is_one_command(rows: list[tuple[bytes, bytes]], field: bytes) -> None:
    keys, values = (pa.array(column, pa.binary()) for column in zip(*rows, strict=True))
    found = command(b"HSET", keys, field, values)
    expected = [packed(b"HSET", key, field, value) for key, value in rows]
    assert found.to_pylist() == expected
    assert bytes(contents(found)) == b"".join(expected)


@given(TEXTS, st.integers(0, 9), st.integers(0, 9))
def test_the_bytes_of_a_slice(rows: list[tuple[bytes, bytes]], start: int, length: int) -> None:
    some = pa.array([value for _, value in rows], pa.binary()).slice(start, length)
    assert bytes(contents(some)) == b"".join(some.to_pylist())


def test_no_row() -> None:
    empty = command(b"GET", pa.array([], pa.binary()))
    assert len(empty) == 0
    assert bytes(contents(empty)) == b""


def test_neighbouring_constants_are_one() -> None:
    column = pa.array([b"x", b"yy"], pa.binary())
    assert concat([b"a", b"b", column, b"c", column]).to_pylist() == [b"abxcx", b"abyycyy"]


def test_no_wildcard_is_left() -> None:
    assert escape_glob(b"a*[b]?\\") == b"a\\*\\[b\\]\\?\\\\"
