"""What ours writes is what the stock store writes, key by key and field by field."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Map,
    String,
    UnixTimestamp,
)
from feast.utils import _convert_arrow_to_proto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reki_feast.errors import StoreError
from reki_feast.schema import VECTOR
from reki_feast.stores.defaults import SCENARIO_TAG

DAY = datetime(2026, 3, 1, tzinfo=UTC)
MICROS = pa.timestamp("us", "UTC")
OURS, STOCK = 11, 12  # databases of the one Redis
Batch = Sequence[pa.RecordBatch]

#: name, Feast's type, Arrow's type, values
COLUMNS: list[tuple[str, FeastType, pa.DataType, list[Any]]] = [
    ("vector", Array(Float32), pa.list_(pa.float32()), [[1.5, -2.0], [0.1, float("nan")], None]),
    ("ragged", Array(Float32), pa.list_(pa.float32()), [[], [1.0], [1.0, 2.0, 3.0]]),
    ("doubles", Array(Float64), pa.list_(pa.float64()), [[1.5], [0.1, -0.0], None]),
    ("text", String, pa.string(), ["", "naïve “q”\r\n", None]),
    ("long", String, pa.large_string(), ["x" * 5_000, "y", "z" * 70_000]),
    ("raw", Bytes, pa.binary(), [b"", b"\x00\r\n$-1\r\n", None]),
    ("count", Int64, pa.int64(), [0, -1, 1 << 62]),
    ("small", Int32, pa.int32(), [0, -1, 2_000_000_000]),
    ("real", Float32, pa.float32(), [0.0, 0.1, None]),
    ("double", Float64, pa.float64(), [-0.0, 1e300, None]),
    ("yes", Bool, pa.bool_(), [True, False, None]),
    ("when", UnixTimestamp, MICROS, [DAY, DAY - timedelta(days=30_000), DAY]),
    ("names", Array(String), pa.list_(pa.string()), [["a", ""], [], None]),
    ("ids", Array(Int64), pa.list_(pa.int64()), [[1, -5], [0], [1 << 40]]),
    ("tags", Map, pa.string(), ['{"a": "b"}', '{"c": 1}', None]),  # as messages
]


def make_view(name: str, keys: dict[str, FeastType], columns: Any, **options: Any) -> FeatureView:
    entity = [
        Entity(name=f"e_{key}", join_keys=[key], value_type=kind.to_value_type())
        for key, kind in keys.items()
    ]
    schema = [Field(name=n, dtype=t) for n, t in [*keys.items(), *((c[0], c[1]) for c in columns)]]
    source = FileSource(path="none.parquet", timestamp_field="event_timestamp")
    view = FeatureView(name=name, entities=entity, schema=schema, source=source, **options)
    view.entity_columns = schema[: len(keys)]
    return view


def batch(rows: int, columns: Any, start: int = 0, when: datetime = DAY) -> pa.RecordBatch:
    ids = np.arange(start, start + rows)
    data: dict[str, pa.Array] = {
        "user_id": pa.array(ids),
        "shop": pa.array([f"shop {n} é" for n in ids]),
        "event_timestamp": pa.array([when + timedelta(seconds=int(n)) for n in ids], MICROS),
    }
    for name, _, kind, values in columns:
        data[name] = pa.array([values[n % len(values)] for n in ids], kind)
    return pa.RecordBatch.from_pydict(data)


@pytest.fixture
def stores(tmp_path: Path, redis_address: str) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Ours and the stock store, each with an empty database; (store, config, client)."""
    made = []

    def make(**options: Any) -> tuple[Any, Any]:
        both = []
        for database, kind in (
            (OURS, "reki_feast.stores.redis_online.RekiRedisOnlineStore"),
            (STOCK, "redis"),
        ):
            address = f"{redis_address},db={database}"
            online = {"type": kind, "connection_string": address, **options}
            if kind == "redis":
                online.pop("layout", None)
            config = RepoConfig(
                project="shop",
                registry=str(tmp_path / "r.db"),
                provider="local",
                online_store=online,
                entity_key_serialization_version=3,
            )
            store: Any = FeatureStore(config=config)._get_provider().online_store
            client = store._get_client(config.online_store)
            client.flushdb()
            made.append(client)
            both.append((store, config, client))
        return both[0], both[1]

    yield make
    for client in made:
        client.close()


def contents(client: redis.Redis) -> dict[bytes, Any]:
    kinds = {key: client.type(key) for key in client.scan_iter()}
    return {k: client.hgetall(k) if t == b"hash" else client.get(k) for k, t in kinds.items()}


def stock_write(stock: Any, view: FeatureView, batches: Batch) -> None:
    store, config, _ = stock
    kinds = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
    for one in batches:
        store.online_write_batch(config, view, _convert_arrow_to_proto(one, view, kinds), None)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column[0])
@pytest.mark.parametrize(
    "keys", [{"user_id": Int64}, {"shop": String}, {"user_id": Int64, "shop": String}]
)
def test_every_type_and_key(stores: Any, column: Any, keys: dict[str, FeastType]) -> None:
    ours, stock = stores()
    view = make_view("v", keys, [column])
    batches = [batch(7, [column]), batch(5, [column], 7)]
    assert ours[0].write_arrow(ours[1], view, batches) == 12
    stock_write(stock, view, batches)
    found = contents(ours[2])
    assert len(found) == 12
    assert found == contents(stock[2])


@pytest.mark.parametrize("options", [{}, {"skip_dedup": True}, {"key_ttl_seconds": 1_000}])
def test_several_features_and_views_of_one_entity(stores: Any, options: Any) -> None:
    ours, stock = stores(**options)
    for name, columns in (("a", COLUMNS[:4]), ("b", COLUMNS[4:])):
        view = make_view(name, {"user_id": Int64}, columns)
        batches = [batch(9, columns)]
        ours[0].write_arrow(ours[1], view, batches)
        stock_write(stock, view, batches)
    assert contents(ours[2]) == contents(stock[2])
    ends = [{k: c.ttl(k) > 900 for k in c.scan_iter()} for _, _, c in (ours, stock)]
    assert ends[0] == ends[1]
    assert set(ends[0].values()) == {"key_ttl_seconds" in options}


ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 99)), max_size=8),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("options", [{}, {"skip_dedup": True}])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(data=st.data())
def test_of_several_rows_of_an_entity_the_same_one_stays(
    stores: Any, options: Any, data: st.DataObject
) -> None:
    """Batches in which ids and times repeat, in any order."""
    ours, stock = stores(**options)
    view = make_view("v", {"user_id": Int64}, [("n", Int64)])
    batches = [
        pa.RecordBatch.from_pydict(
            {
                "user_id": pa.array([id for id, _, _ in rows], pa.int64()),
                "n": pa.array([n for _, _, n in rows], pa.int64()),
                "event_timestamp": pa.array([t * 1_000_000 for _, t, _ in rows], MICROS),
            }
        )
        for rows in data.draw(ROWS)
        if rows
    ]
    ours[0].write_arrow(ours[1], view, batches)
    stock_write(stock, view, batches)
    assert contents(ours[2]) == contents(stock[2])


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("options", [{}, {"skip_dedup": True}, {"key_ttl_seconds": 1_000}])
def test_messages_are_written_as_well(stores: Any, options: Any, asynchronous: bool) -> None:
    """`store.push` and `write_to_online_store` hand over messages, not columns."""
    ours, stock = stores(**options)
    view = make_view("v", {"user_id": Int64}, COLUMNS)
    kinds = {"user_id": ValueType.INT64}
    rows = _convert_arrow_to_proto(batch(9, COLUMNS), view, kinds)
    rows[3][1].pop("text")  # a row without one of the features
    rows += _convert_arrow_to_proto(batch(4, COLUMNS, 2, DAY + timedelta(1)), view, kinds)
    rows += _convert_arrow_to_proto(batch(4, COLUMNS, 5, DAY - timedelta(1)), view, kinds)
    told: list[int] = []
    for (store, config, _), progress in ((ours, told.append), (stock, None)):
        if asynchronous:

            async def main(store: Any = store, config: Any = config, tell: Any = progress) -> None:
                await store.online_write_batch_async(config, view, rows, tell)
                await (await store._get_client_async(config.online_store)).aclose()

            asyncio.run(main())
        else:
            store.online_write_batch(config, view, rows, progress)
    assert contents(ours[2]) == contents(stock[2])
    assert sum(told) == 17


def test_a_row_of_ours_of_the_same_time_replaces_the_stored_one(stores: Any) -> None:
    """New weights give a snapshot new vectors; the stock store keeps the old ones."""
    ours, _ = stores()
    for tags, expected in (({}, b"old"), ({SCENARIO_TAG: "movies"}, b"new")):
        view = make_view(f"v{len(tags)}", {"user_id": Int64}, [("s", String)], tags=tags)
        for text in ("old", "new"):
            one = [batch(3, [("s", String, pa.string(), [text])])]
            ours[0].write_arrow(ours[1], view, one)
        values = [v for row in contents(ours[2]).values() for v in row.values()]
        assert any(value.endswith(expected) for value in values)
        older = [batch(3, [("s", String, pa.string(), ["older"])], when=DAY - timedelta(1))]
        ours[0].write_arrow(ours[1], view, older)
        values = [v for row in contents(ours[2]).values() for v in row.values()]
        assert not any(value.endswith(b"older") for value in values)


def test_long_batches_go_in_parts(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reki_feast.stores import redis_online
    from reki_feast.stores.online import rows

    ours, stock = stores()
    sizes: list[int] = []
    whole = rows.rows_of_batch

    def watched(view: FeatureView, part: pa.RecordBatch, version: int) -> Any:
        sizes.append(part.num_rows)
        return whole(view, part, version)

    monkeypatch.setattr(redis_online, "BATCH_BYTES", 100_000)
    monkeypatch.setattr(redis_online, "rows_of_batch", watched)
    texts = [("s", String, pa.string(), ["x" * 9_000, "y" * 200_000, "z"])]
    view = make_view("v", {"user_id": Int64}, texts)
    ours[0].write_arrow(ours[1], view, [batch(40, texts)])
    stock_write(stock, view, [batch(40, texts)])
    assert sum(sizes) == 40
    assert 1 in sizes
    assert max(sizes) < 10
    assert contents(ours[2]) == contents(stock[2])


@pytest.mark.parametrize(
    ("column", "error", "match"),
    [
        (("n", Int64, pa.string(), ["a"]), ValueError, "invalid literal for int"),
        (("missing", Int64, pa.int64(), [1]), ValueError, "Column other not found"),
    ],
)
def test_what_feast_refuses_is_refused_with_its_words(
    stores: Any, column: Any, error: type[Exception], match: str
) -> None:
    ours, stock = stores()
    name = "other" if column[0] == "missing" else column[0]
    view = make_view("v", {"user_id": Int64}, [(name, column[1])])
    for call in (
        lambda: ours[0].write_arrow(ours[1], view, [batch(3, [column])]),
        lambda: stock_write(stock, view, [batch(3, [column])]),
    ):
        with pytest.raises(error, match=match):
            call()
    assert contents(ours[2]) == {}


def test_no_row_and_no_batch(stores: Any) -> None:
    ours, _ = stores()
    view = make_view("v", {"user_id": Int64}, COLUMNS)
    assert ours[0].write_arrow(ours[1], view, []) == 0
    assert ours[0].write_arrow(ours[1], view, [batch(0, COLUMNS)]) == 0
    ours[0].online_write_batch(ours[1], view, [], None)
    assert contents(ours[2]) == {}


def test_redis_refuses_in_the_middle(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, say: what was written stays, and the error says how far it came."""
    ours, _ = stores()
    store, config, client = ours
    view = make_view("v", {"user_id": Int64}, COLUMNS[:1])
    batches = [batch(50, COLUMNS[:1], 50 * n) for n in range(6)]

    def until_full() -> Iterator[pa.RecordBatch]:
        for number, one in enumerate(batches):
            if number == 4:
                client.config_set("maxmemory", 1)
            yield one

    try:
        with pytest.raises(
            StoreError, match=r"(?s)Redis takes the rows of feature view v.*OOM.*again"
        ):
            store.write_arrow(config, view, until_full())
    finally:
        client.config_set("maxmemory", 0)
    assert 0 < len(contents(client)) < 300
    store.write_arrow(config, view, batches)
    assert len(contents(client)) == 300


def test_vectors_of_our_own_tables_take_the_quick_way(
    stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message is made: the stock conversion is not called."""
    from reki_feast.stores.online import rows

    monkeypatch.setattr(rows, "convert_arrow_to_proto", None)
    ours, _ = stores()
    columns = [("user_aug", Array(Float32), VECTOR, [[0.5] * 32]), COLUMNS[3]]
    view = make_view("v", {"user_id": Int64}, columns)
    assert ours[0].write_arrow(ours[1], view, [batch(20, columns)]) == 20


@pytest.mark.parametrize("kind", ["redis_cluster", "redis_sentinel"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cluster_and_a_server_behind_a_sentinel(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, asynchronous: bool
) -> None:
    """Columns and messages end as what the stock store writes there."""
    address = request.getfixturevalue(f"{kind.removeprefix('redis_')}_address")
    view = make_view("v", {"user_id": Int64}, COLUMNS[:4])
    batches = [batch(9, COLUMNS[:4]), batch(5, COLUMNS[:4], 6, DAY + timedelta(1))]
    rows = _convert_arrow_to_proto(batches[0], view, {"user_id": ValueType.INT64})
    found = []
    for own, store_type in enumerate(
        ("redis", "reki_feast.stores.redis_online.RekiRedisOnlineStore")
    ):
        config = RepoConfig(
            project=f"{kind}{own}",
            registry=str(tmp_path / "r.db"),
            provider="local",
            online_store={"type": store_type, "connection_string": address, "redis_type": kind},
            entity_key_serialization_version=3,
        )
        store: Any = FeatureStore(config=config)._get_provider().online_store
        client = store._get_client(config.online_store)
        mine = b"*" + config.project.encode()
        for key in client.scan_iter(mine):
            client.delete(key)
        if asynchronous:

            async def main(store: Any = store, config: Any = config) -> None:
                await store.online_write_batch_async(config, view, rows, None)
                remote = await store._get_client_async(config.online_store)
                await remote.aclose()
                if kind == "redis_sentinel":  # whose own connections a client leaves open
                    for sentinel in remote.connection_pool.sentinel_manager.sentinels:
                        await sentinel.aclose()

            asyncio.run(main())
        elif own:
            store.write_arrow(config, view, batches)
        else:
            stock_write((store, config, client), view, batches)
        found.append({k[: -len(mine) + 1]: client.hgetall(k) for k in client.scan_iter(mine)})
        client.close()
    assert len(found[0]) == (9 if asynchronous else 11)
    assert found[0] == found[1]
