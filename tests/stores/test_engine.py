"""`feast materialize` through our engine: the same rows as Feast's own, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import (
    BatchFeatureView,
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
from feast.data_format import ParquetFormat
from feast.infra.compute_engines.backends.pandas_backend import PandasBackend
from feast.types import Array, Float32, Int64, String
from feast.utils import _convert_arrow_to_proto

from reki_feast.errors import StoreError
from reki_feast.stores import count_online, embedded, redis_online
from reki_feast.stores.online import rows as online_rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb",
    "ignore:Batch feature views are experimental:RuntimeWarning",
)

ENGINE = {"type": "reki_feast.stores.engine.RekiComputeEngine"}
REDIS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
DUCKDB = {"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 9, 1, tzinfo=UTC)
SNAPSHOTS = [datetime(2026, month, 1, tzinfo=UTC) for month in (3, 5, 7)]
MICROS = pa.timestamp("us", "UTC")
#: Beside the rows, and written by one HSET before and after them.
CHECKPOINTS = b"reki checkpoints shop"

MakeStore = Callable[..., FeatureStore]


@pytest.fixture
def make(tmp_path: Path, redis_address: str) -> Iterator[MakeStore]:
    """Makes a store of one project on a database of its own: 13 ours, 14 stock."""
    clients: list[redis.Redis] = []

    def store(
        *,
        stock: bool = False,
        online: Any = None,
        engine: Any = ENGINE,
        address: str = "",
        **options: Any,
    ) -> FeatureStore:
        place = address or f"{redis_address},db={14 if stock else 13}"
        server = {"type": "redis" if stock else REDIS, "connection_string": place, **options}
        config = RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / f"{len(clients)}{stock}.db"),
            repo_path=tmp_path,
            online_store=online or server,
            offline_store={"type": "duckdb"} if stock else DUCKDB,
            entity_key_serialization_version=3,
            **({} if stock else {"batch_engine": engine}),
        )
        made = FeatureStore(config=config)
        if not online and not address:
            client(made).flushdb()
        return made

    def client(made: FeatureStore) -> redis.Redis:
        one = made._get_provider().online_store._get_client(made.config.online_store)  # type: ignore[attr-defined]
        clients.append(one)
        found: redis.Redis = one
        return found

    store.client = client  # type: ignore[attr-defined]
    yield store
    for one in clients:
        one.close()


def contents(make: Any, store: FeatureStore) -> dict[bytes, Any]:
    """All rows; how far they are is beside them."""
    client = make.client(store)
    kinds = {key: client.type(key) for key in client.scan_iter() if key != CHECKPOINTS}
    return {k: client.hgetall(k) if t == b"hash" else client.get(k) for k, t in kinds.items()}


def table(ids: Any, when: Any, seed: int = 0, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(seed)
    count = len(ids)
    vectors = pa.array(rng.normal(size=count * 4).astype(np.float32))
    times = [when] * count if isinstance(when, datetime) else when
    return pa.table(
        {
            "uid": ids,
            "vec": pa.FixedSizeListArray.from_arrays(vectors, 4).cast(pa.list_(pa.float32())),
            "text": [f"{seed} {n}" if n % 3 else None for n in range(count)],
            "at": pa.array(times, MICROS),
            "made": pa.array([END + timedelta(hours=seed)] * count, MICROS),
            **columns,
        }
    )


def write(folder: Path, *tables: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    for one in tables:
        pq.write_table(one, folder / f"{len(list(folder.iterdir()))}.parquet", row_group_size=50)
    return folder


def view(path: Path, kind: Any = FeatureView, *, text: bool = True, **options: Any) -> Any:
    """A view whose columns have other names in its source."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(
        path=str(path),
        file_format=ParquetFormat(),
        timestamp_field="at",
        created_timestamp_column="made",
        field_mapping={"uid": "user_id", "vec": "user_aug"},
    )
    schema = [Field(name="user_id", dtype=Int64), Field(name="user_aug", dtype=Array(Float32))]
    schema += [Field(name="text", dtype=String)] if text else []
    return kind(
        name="v", entities=[user], schema=schema, source=source, ttl=timedelta(0), **options
    )


def apply(store: FeatureStore, made: Any) -> None:
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    store.apply([user, made])


def snapshots(folder: Path) -> Path:
    """Three snapshots; the second has some rows twice, made at another time."""
    ids = np.arange(300)
    return write(
        folder,
        *(table(ids[n * 20 :], when, n) for n, when in enumerate(SNAPSHOTS)),
        table(ids[:90], SNAPSHOTS[1], 7),
    )


@pytest.mark.parametrize("size", [None, 64])
def test_the_same_rows_as_feasts_own(make: Any, tmp_path: Path, size: int | None) -> None:
    ours, stock = make(), make(stock=True)
    ours.config.materialization_config.online_write_batch_size = size
    folder = snapshots(tmp_path / "v")
    for begin, end in [(BEGIN, SNAPSHOTS[0]), (SNAPSHOTS[0], SNAPSHOTS[1]), (BEGIN, END)]:
        for store in (ours, stock):
            apply(store, view(folder))
            store.materialize(begin, end)
        assert len(contents(make, ours)) == 300
        assert contents(make, ours) == contents(make, stock)


def test_nothing_in_the_range(make: Any, tmp_path: Path) -> None:
    store = make()
    apply(store, view(snapshots(tmp_path / "v")))
    store.materialize(BEGIN, BEGIN + timedelta(days=1))
    assert contents(make, store) == {}
    assert store.get_feature_view("v").materialization_intervals


def test_no_table_is_made_of_the_whole(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of the size asked for reach the store one after another; no message is made."""
    sizes: list[int] = []
    whole = online_rows.rows_of_batch

    def watched(made: Any, batch: pa.RecordBatch, version: int) -> Any:
        sizes.append(batch.num_rows)
        return whole(made, batch, version)

    monkeypatch.setattr(redis_online, "rows_of_batch", watched)
    monkeypatch.setattr(online_rows, "convert_arrow_to_proto", None)
    store = make()
    store.config.materialization_config.online_write_batch_size = 3_000
    write(tmp_path / "v", *(table(np.arange(10_000) + n, SNAPSHOTS[0], n) for n in (0, 10_000)))
    apply(store, view(tmp_path / "v"))
    store.materialize(BEGIN, END)
    assert sum(sizes) == 20_000
    assert max(sizes) <= 3_000
    assert count_online(store, "v") == 20_000


KINDS = {
    "plain": lambda path: view(path),
    "not plain": lambda path: view(path, BatchFeatureView, mode="pandas", online=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "online", [None, {"type": "sqlite", "path": "online.db"}], ids=["redis", "sqlite"]
)
def test_every_arrow_batch_is_written(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, online: Any
) -> None:
    """Feast's local engine writes the first batch only: see `test_feast_alone_loses_rows`."""
    in_sevens(monkeypatch)
    store = make(online=online)
    apply(store, KINDS[kind](write(tmp_path / "v", table(np.arange(50), SNAPSHOTS[0]))))
    store.materialize(BEGIN, END)
    found = store.get_online_features(["v:text"], [{"user_id": n} for n in range(50)]).to_dict()
    assert found["text"] == [f"0 {n}" if n % 3 else None for n in range(50)]


def test_feast_alone_loses_rows(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect itself; should it go, so may a part of our engine."""
    in_sevens(monkeypatch)
    store = make(stock=True)
    apply(store, view(write(tmp_path / "v", table(np.arange(50), SNAPSHOTS[0]))))
    store.materialize(BEGIN, END)
    assert len(contents(make, store)) == 7


def in_sevens(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PandasBackend.to_arrow

    def cut(self: PandasBackend, frame: pd.DataFrame) -> pa.Table:
        made: pa.Table = whole(self, frame)  # type: ignore[no-untyped-call]
        return pa.Table.from_batches(made.to_batches(max_chunksize=7))

    monkeypatch.setattr(PandasBackend, "to_arrow", cut)


def test_a_column_without_a_quick_form_goes_feasts_way(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(batch: Any, *rest: Any) -> Any:
        calls.append(batch.num_rows)
        return _convert_arrow_to_proto(batch, *rest)

    monkeypatch.setattr(online_rows, "convert_arrow_to_proto", counted)
    ours, stock = make(), make(stock=True)
    ids = np.arange(40)
    numbers = pa.array([1, None] * 20, pa.int64())  # declared as text
    folder = write(tmp_path / "v", table(ids, SNAPSHOTS[0], text=numbers))
    for store in (ours, stock):
        apply(store, view(folder))
        store.materialize(BEGIN, END)
    assert contents(make, ours) == contents(make, stock)
    assert calls == [40]


def test_a_view_without_entities(make: Any, tmp_path: Path) -> None:
    """Feast's own engine finds no column of the entity that it makes up."""
    ours, stock = make(), make(stock=True)
    made = view(snapshots(tmp_path / "v"))
    everywhere = FeatureView(
        name="g",
        entities=[],
        schema=[Field(name="text", dtype=String)],
        source=made.batch_source,
        ttl=timedelta(0),
    )
    stock.apply([everywhere])
    with pytest.raises(ValueError, match="Column __dummy_id not found"):
        stock.materialize(BEGIN, END)
    ours.apply([everywhere])
    ours.materialize(BEGIN, END)
    found = ours.get_online_features(["g:text"], [{"row": 1}]).to_dict()
    assert found["text"][0] in [f"2 {n}" if n % 3 else None for n in range(260)]
    write(tmp_path / "v", table([1, 2], SNAPSHOTS[2] + timedelta(days=1), 9))
    ours.materialize_incremental(END)
    assert ours.get_online_features(["g:text"], [{"row": 1}]).to_dict()["text"] == ["9 1"]


def test_a_view_that_is_not_online_writes_nothing(make: Any, tmp_path: Path) -> None:
    store = make()
    apply(store, view(snapshots(tmp_path / "v"), online=False))
    with pytest.raises(ValueError, match="not configured to be served online"):
        store.materialize(BEGIN, END, feature_views=["v"])
    store.materialize(BEGIN, END)
    assert contents(make, store) == {}


def test_a_missing_column_fails_and_writes_nothing(make: Any, tmp_path: Path) -> None:
    store = make()
    folder = write(tmp_path / "v", table(np.arange(5), SNAPSHOTS[0]))
    apply(store, view(folder))
    for file in folder.iterdir():
        pq.write_table(pq.read_table(file).drop(["text"]), file)
    with pytest.raises(StoreError, match="text"):
        store.materialize(BEGIN, END)
    assert contents(make, store) == {}
    assert not store.get_feature_view("v").materialization_intervals


class TestRedisGoesAway:
    """In the middle of `materialize`; a server of the test's own."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[Path]:
        place = tmp_path / "server"
        yield place
        embedded.stop(place)

    def test_it_says_so_and_goes_on_when_run_again(
        self, make: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = online_rows.rows_of_batch
        seen: list[int] = []

        def stopping(made: Any, batch: pa.RecordBatch, version: int) -> Any:
            seen.append(batch.num_rows)
            if len(seen) == 6:
                embedded.stop(folder)
            return whole(made, batch, version)

        path = write(tmp_path / "v", table(np.arange(10_000), SNAPSHOTS[0]))
        store = make(address=embedded.start(folder).connection_string)
        store.config.materialization_config.online_write_batch_size = 1_000
        apply(store, view(path))
        monkeypatch.setattr(redis_online, "rows_of_batch", stopping)
        match = r"(?s)Redis takes the rows of feature view v.*Connection.*materialize again"
        with pytest.raises(StoreError, match=match):
            store.materialize(BEGIN, END)
        assert not store.get_feature_view("v").materialization_intervals
        monkeypatch.undo()

        again = make(address=embedded.start(folder).connection_string)
        apply(again, view(path))
        written = count_online(again, "v")
        assert 3_000 <= written < 10_000
        ids = [{"user_id": n} for n in range(10_000)]
        texts = again.get_online_features(["v:text"], ids[:1_000]).to_dict()["text"]
        assert texts[1] == "0 1"
        client = make.client(again)
        client.config_resetstat()
        again.materialize(BEGIN, END)
        assert client.info("commandstats")["cmdstat_hset"]["calls"] == 10_000 - written + 2
        assert count_online(again, "v") == 10_000


def test_incremental_writes_only_what_is_newer(make: Any, tmp_path: Path) -> None:
    store = make()
    client = make.client(store)
    folder = write(tmp_path / "v", table(np.arange(500), SNAPSHOTS[0]))
    apply(store, view(folder, text=False))
    store.materialize(BEGIN, SNAPSHOTS[0])
    write(folder, table(np.arange(490, 520), SNAPSHOTS[1], 1))
    client.config_resetstat()
    store.materialize_incremental(END)
    assert client.info("commandstats")["cmdstat_hset"]["calls"] == 30 + 1
    client.config_resetstat()
    store.materialize_incremental(END + timedelta(days=1))
    assert client.info("commandstats")["cmdstat_hset"]["calls"] == 0 + 1
    assert len(contents(make, store)) == 520


class TestPacked:
    def test_vectors_are_packed_and_texts_are_not(self, make: Any, tmp_path: Path) -> None:
        store = make(layout="packed")
        folder = snapshots(tmp_path / "v")
        for text, kind in ((True, b"hash"), (False, b"string")):
            make.client(store).flushdb()
            apply(store, view(folder, text=text))
            store.materialize(BEGIN, END)
            assert {make.client(store).type(key) for key in contents(make, store)} == {kind}
            assert count_online(store, "v") == 300

    def test_old_rows_do_not_replace_new_ones(self, make: Any, tmp_path: Path) -> None:
        store = make(layout="packed")
        apply(store, view(snapshots(tmp_path / "v"), text=False))
        store.materialize(BEGIN, END)
        newest = contents(make, store)
        client = make.client(store)
        client.config_resetstat()
        store.materialize(BEGIN, SNAPSHOTS[1])
        assert "cmdstat_set" not in client.info("commandstats")
        assert contents(make, store) == newest
        client.delete(*list(newest)[:10])
        store.materialize(BEGIN, END)
        assert client.info("commandstats")["cmdstat_set"]["calls"] == 10
        assert contents(make, store) == newest

    def test_they_can_be_given_an_end(self, make: Any, tmp_path: Path) -> None:
        store = make(layout="packed", key_ttl_seconds=1_000)
        apply(store, view(snapshots(tmp_path / "v"), text=False))
        store.materialize(BEGIN, END)
        client = make.client(store)
        assert all(900 < client.ttl(key) <= 1_000 for key in contents(make, store))

    def test_messages_are_packed_too(self, make: Any, tmp_path: Path) -> None:
        store = make(layout="packed")
        apply(store, view(snapshots(tmp_path / "v"), text=False))
        store.materialize(BEGIN, END)
        whole = contents(make, store)
        make.client(store).flushdb()
        frame = pa.concat_tables(pq.read_table(f) for f in sorted((tmp_path / "v").iterdir()))
        frame = frame.rename_columns({"uid": "user_id", "vec": "user_aug"}).drop(["text"])
        store.write_to_online_store("v", frame.sort_by([("made", "descending")]).to_pandas())
        assert contents(make, store) == whole

    def test_only_the_rows_of_a_view_are_deleted(self, make: Any, tmp_path: Path) -> None:
        store = make(layout="packed")
        made = view(snapshots(tmp_path / "v"), text=False)
        apply(store, made)
        store.materialize(BEGIN, END)
        client = make.client(store)
        client.set(b"reki1:shop:w:x", b"another view")
        client.set(b"reki1:my_shop:v:x", b"another project")
        store._get_provider().online_store.delete_table(store.config, made)
        assert set(client.scan_iter()) == {b"reki1:shop:w:x", b"reki1:my_shop:v:x"}
        store.materialize(BEGIN, END)
        store.teardown()
        assert set(client.scan_iter()) == {b"reki1:shop:w:x", b"reki1:my_shop:v:x"}
