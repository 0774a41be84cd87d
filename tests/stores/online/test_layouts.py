"""Layouts of rows in Redis: what is written is read, listed and deleted; the packed bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from feast import FeatureView, Field, FileSource, ValueType
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import Array, Float32, Float64, Int64
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.errors import StoreError
from reki_feast.stores.online.layouts import HashLayout, Layout, PackedLayout
from reki_feast.stores.online.layouts.packed import packable
from reki_feast.stores.online.layouts.packing import messages, unpack
from reki_feast.stores.online.rows import RowBlock
from reki_feast.stores.online.wire import execute

FLOATS = st.floats(width=32, allow_nan=False)


def value(numbers: list[float] | None) -> bytes:
    if numbers is None:
        return b""
    return bytes(Value(float_list_val=FloatList(val=numbers)).SerializeToString())


def rows(*features: list[list[float] | None], times: list[int] | None = None) -> RowBlock:
    count = len(features[0])
    binary = pa.binary()
    return RowBlock(
        pa.array([b"e%d" % n for n in range(count)], binary),
        {f"f{n}": pa.array([value(v) for v in f], binary) for n, f in enumerate(features)},
        pa.array([b""] * count, binary),
        np.array(times or range(1, count + 1), np.int64),
    )


def stored(some: RowBlock, ttl: int | None = None) -> list[list[bytes]]:
    """The arguments of the commands that write."""
    import hiredis

    reader = hiredis.Reader()
    layout = PackedLayout("shop", "v", list(some.values), key_ttl=ttl)
    reader.feed(b"".join(layout.write(some).to_pylist()))
    return [reader.gets() for _ in range(len(some))]


def test_a_row_is_what_the_docstring_says() -> None:
    some = rows([[1.5, -2.0]], [None], [[]], [[0.25]], times=[-7])
    assert stored(some, ttl=60) == [
        [
            b"SET",
            b"reki1:shop:v:e0",
            struct.pack("<q4I3f", -7, 2, 0xFFFFFFFF, 0, 1, 1.5, -2.0, 0.25),
            b"EX",
            b"60",
        ]
    ]
    assert PackedLayout("shop", "v", []).prefix == b"reki1:shop:v:"


@given(st.data())
def test_what_is_packed_is_unpacked(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    features = []
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.sampled_from([0, 1, 3, 31, 40]))
        vector = st.lists(FLOATS, min_size=size, max_size=size)
        features.append(data.draw(st.lists(st.none() | vector, min_size=count, max_size=count)))
    times = data.draw(st.lists(st.integers(-(2**60), 2**60), min_size=count, max_size=count))
    some = rows(*features, times=times)
    there = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    found = [row[2] if t else None for row, t in zip(stored(some), there, strict=True)]
    names = list(some.values)
    got = unpack(found, names)
    assert got.times.tolist() == [time if t else 0 for time, t in zip(times, there, strict=True)]
    for name, feature in zip(names, features, strict=True):
        numbers, known = got.vectors[name]
        assert known.tolist() == [t and v is not None for v, t in zip(feature, there, strict=True)]
        for row, numbers_in in enumerate(feature):
            if known[row]:
                assert numbers[row].tolist() == numbers_in
            assert not numbers[row].any() or known[row]
        assert messages(numbers, known) == [
            value(v) if k else b"" for v, k in zip(feature, known, strict=True)
        ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_row_is_there(count: int) -> None:
    got = unpack([None] * count, ["a", "b"])
    assert got.times.tolist() == [0] * count
    assert got.vectors["a"][1].tolist() == [False] * count
    assert got.vectors["b"][0].shape == (count, 0)


@pytest.mark.parametrize(
    ("found", "features", "match"),
    [
        ([b"short"], ["a"], "another form"),
        ([struct.pack("<qI2f", 1, 2, 0.0, 0.0)], ["a", "b"], "another form"),
        ([struct.pack("<q2I", 1, 2, 0)], ["a", "b"], "another form"),
        ([struct.pack("<qIf", 1, 1, 0.0), struct.pack("<qI2f", 1, 2, 0, 0)], ["a"], "1 and 2 numb"),
        ([b"x", struct.pack("<qIf", 1, 1, 0.0)], ["a"], "another form"),
        ([struct.pack("<qI", 1, 1), struct.pack("<qIf", 1, 1, 0)], ["a"], "another form"),
    ],
)
def test_what_is_not_of_this_form_is_refused(
    found: list[bytes], features: list[str], match: str
) -> None:
    with pytest.raises(StoreError, match=match):
        unpack(found, features)


def test_rows_are_written_whole() -> None:
    some = rows([[1.0]])
    with pytest.raises(StoreError, match=r"(?s)all features of its view.*no f1"):
        PackedLayout("shop", "v", ["f0", "f1"]).write(some)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([Array(Float32)], True),
        ([Array(Float32)] * 3, True),
        ([Array(Float64)], False),
        ([Array(Float32), Int64], False),
    ],
)
def test_which_views_are_packed(types: list[Any], expected: bool) -> None:
    view = FeatureView(
        name="v",
        entities=[],
        schema=[Field(name=f"f{n}", dtype=t) for n, t in enumerate(types)],
        source=FileSource(path="none.parquet", timestamp_field="t"),
    )
    assert packable(view) is expected


def test_times_as_redis_hands_them_out() -> None:
    layout = PackedLayout("shop", "v", ["f0"])
    replies = [struct.pack("<q", -5), b"", struct.pack("<q", 1 << 60)]
    assert layout.timestamps(replies).tolist() == [-5, 0, 1 << 60]
    some = rows([[1.0]])
    assert layout.read_timestamps(some).to_pylist() == [
        b"*4\r\n$8\r\nGETRANGE\r\n$15\r\nreki1:shop:v:e0\r\n$1\r\n0\r\n$1\r\n7\r\n"
    ]


def entity(number: int) -> bytes:
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=number)])
    return bytes(serialize_entity_key(key, 3))


def layouts(view: str) -> list[Layout]:
    return [
        HashLayout("layouts", view, ["f0", "f1"]),
        PackedLayout("layouts", view, ["f0", "f1"], ["f0", "f1"]),
        PackedLayout("layouts", view, ["f0", "f1"], ["f0", "f1"], cluster=True, key_ttl=60),
        HashLayout("layouts", view, ["f0", "f1"], key_ttl=60),
    ]


@pytest.mark.parametrize("number", range(len(layouts("v"))))
def test_a_layout_reads_lists_and_deletes_what_it_writes(redis_address: str, number: int) -> None:
    host, port = redis_address.split(":")
    mine, other = layouts("mine")[number], layouts("other")[number]
    second = 1_700_000_000 * 10**9
    keys = [entity(7), entity(8)]
    some = rows([[1.5, -2.0], None], [[0.25], [0.5]], times=[second, 2 * second])
    some = RowBlock(
        pa.array(keys, pa.binary()),
        some.values,
        pa.array([b"\x08\x80\xe2\xcf\xaa\x06", b"\x08\x80\xc4\x9f\xd5\x0c"], pa.binary()),
        some.times,
    )
    with redis.Redis(host, int(port)) as client:
        for layout in (mine, other):
            commands = b"".join(layout.write(some).to_pylist())
            execute(client, commands, len(some) * layout.replies_per_row)
        asked = b"".join(mine.read_timestamps(some).to_pylist())
        assert mine.timestamps(execute(client, asked, 2)).tolist() == [second, 2 * second]

        replies = execute(client, *mine.read([*keys, entity(9)]))
        found = mine.rows(replies)
        assert found.columns[0][0] == value([1.5, -2.0])
        assert [message or b"" for message in found.columns[1]] == [
            value([0.25]),
            value([0.5]),
            b"",
        ]
        assert [*found.timestamps] == [*some.timestamps.to_pylist(), None]
        vectors = mine.columns(replies, [ValueType.FLOAT_LIST] * 2, None)
        assert vectors[0].values.tolist() == [[1.5, -2.0], [0, 0], [0, 0]]
        assert [column.valid.tolist() for column in vectors] == [[1, 0, 0], [1, 1, 0]]
        aged = mine.columns(replies, [ValueType.FLOAT_LIST] * 2, 3600 * 10**9)
        assert aged[1].valid.tolist() == [False, True, False]  # the other row is of the future

        assert sorted(mine.entities(client, ["user_id"])) == sorted(keys)
        assert mine.delete(client, [entity(7), entity(9)]) == {"mine": {entity(7)}}
        assert [*mine.entities(client, ["user_id"])] == [entity(8)]
        assert sorted(other.entities(client, ["user_id"])) == sorted(keys)
        gone = mine.delete(client, keys, all_views=True) | other.delete(client, keys)
        assert gone["mine"] == {entity(8)}
        assert not [*mine.entities(client, ["user_id"]), *other.entities(client, ["user_id"])]
