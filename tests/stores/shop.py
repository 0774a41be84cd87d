"""A table that grows, and the rows of it that are online: as they are, and as they should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, String

from reki_feast.stores import redis_online
from reki_feast.stores.counting import BEGINNING
from reki_feast.stores.online import rows as online_rows

ENGINE = {"type": "reki_feast.stores.engine.RekiComputeEngine"}
REDIS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
DUCKDB = {"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"}
DAY_1 = datetime(2026, 3, 1, tzinfo=UTC)
MICROS = pa.timestamp("us", "UTC")
SCENARIO = {"reki.scenario": "shop"}
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
#: Of the server in use, of the other one, and of what a full run leaves.
OURS, OTHER, TWIN = 9, 10, 11


def day(number: float) -> datetime:
    return DAY_1 + timedelta(days=number)


class Killed(BaseException):
    """As a signal that ends the process: nobody catches it."""


class Tap:
    """On the way of rows to Redis: counts them, and ends a run in the midst of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, self.left = 0, -1
        whole = online_rows.rows_of_batch

        def watched(view: Any, batch: pa.RecordBatch, version: int) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.rows += batch.num_rows
            return whole(view, batch, version)

        monkeypatch.setattr(redis_online, "rows_of_batch", watched)


class Shop:
    """A table, and a store that it is materialized to; beside it the twin, which gets all rows.

    Args:
        folder: an empty one.
        address: of Redis.
        tap: on the way online.
        created: whether the view knows when rows were made.
        tags: of the view; by default those with which a row replaces one of the same time.
        ttl_days: of the view.
        online: the online store, if not ours.
        offline: the offline store, if not ours.
        options: of the online store.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        tap: Tap,
        *,
        created: bool = True,
        tags: Any = None,
        ttl_days: float = 0,
        online: Any = None,
        offline: Any = None,
        **options: Any,
    ) -> None:
        self.folder, self.address, self.tap, self.options = folder, address, tap, options
        self.created, self.tags = created, SCENARIO if tags is None else tags
        self.ttl = timedelta(days=ttl_days)
        self.online, self.offline = online or {"type": REDIS}, offline or DUCKDB
        self.features = ["vec"]
        self.clients = {db: self._client(db) for db in (OURS, OTHER, TWIN)}
        for client in self.clients.values():
            client.flushdb()
        self.table = folder / "table"
        self.table.mkdir()
        self.name, self.files = "v", 0
        self.stores = {db: self._store(db) for db in self.clients}
        self.apply()

    def _client(self, db: int) -> redis.Redis:
        host, port = self.address.split(":")
        return redis.Redis(host, int(port), db=db)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()

    def _store(self, db: int, user: str = "") -> FeatureStore:
        server = {**self.online, **self.options}
        if "path" not in server:
            server["connection_string"] = f"{self.address},db={db}{user}"
        registry = "twin.db" if db == TWIN else "registry.db"
        return FeatureStore(
            config=RepoConfig(
                project="shop",
                provider="local",
                registry=str(self.folder / registry),
                repo_path=self.folder,
                online_store=server,
                offline_store=self.offline,
                batch_engine=ENGINE,
                entity_key_serialization_version=3,
            )
        )

    def limit(self, keys: str) -> None:
        """From now on, materialize as a user who may use some keys only."""
        self.clients[OURS].acl_setuser(
            "limited", enabled=True, passwords=["+pw"], keys=[keys], categories=["+@all"]
        )
        self.stores[OURS] = self._store(OURS, ",username=limited,password=pw")

    def view(self) -> FeatureView:
        source = FileSource(
            path=str(self.table),
            file_format=ParquetFormat(),
            timestamp_field="at",
            created_timestamp_column="made" if self.created else "",
            field_mapping={"uid": "user_id"},
        )
        kinds: dict[str, Any] = {"vec": Array(Float32), "text": String}
        features = [Field(name=name, dtype=kinds[name]) for name in self.features]
        return FeatureView(
            name=self.name,
            entities=[USER],
            schema=[Field(name="user_id", dtype=Int64), *features],
            source=source,
            ttl=self.ttl,
            tags=self.tags,
        )

    def apply(self) -> None:
        for db in (OURS, TWIN):
            self.stores[db].apply([USER, self.view()])

    def add(
        self, ids: Any, at: float, made: float, name: str = "", *, vectors: bool = True
    ) -> Path:
        """A file of rows, as of a day and made at another; their vectors tell the file."""
        ids, self.files = list(ids), self.files + 1
        count, value = len(ids), float(self.files)
        rows_vectors = [[value, float(one)] if vectors else None for one in ids]
        rows = pa.table(
            {
                "uid": pa.array(ids, pa.int64()),
                "vec": pa.array(rows_vectors, pa.list_(pa.float32())),
                "text": [f"{self.files}"] * count,
                "at": pa.array([day(at)] * count, MICROS),
                "made": pa.array([day(made)] * count, MICROS),
            }
        )
        path = self.table / f"{name or self.files}.parquet"
        pq.write_table(rows, path, compression="none", use_dictionary=False)
        return path

    def full(self, end: float, start: datetime = BEGINNING) -> None:
        self.stores[OURS].materialize(start, day(end))

    def incremental(self, end: float) -> None:
        """And see that it leaves what a full run would."""
        self.twin(end)
        self.tap.rows = 0
        self.stores[OURS].materialize_incremental(day(end))
        assert self.rows() == self.rows(TWIN)

    def twin(self, end: float) -> None:
        """What a full run leaves, from the rows that are online now."""
        ours: Any = self.clients[OURS]
        twin = self.clients[TWIN]
        twin.flushdb()
        for key in ours.scan_iter():
            twin.restore(key, 0, ours.dump(key))
        self.stores[TWIN].materialize(BEGINNING, day(end))

    def rows(self, db: int = OURS) -> dict[bytes, Any]:
        client = self.clients[db]
        keys = [key for key in client.scan_iter() if not key.startswith(b"reki checkpoints ")]
        is_hash = {key: client.type(key) == b"hash" for key in keys}
        return {key: client.hgetall(key) if is_hash[key] else client.get(key) for key in keys}

    def values(self, ids: Any) -> list[float | None]:
        """Which file each id's row online is of."""
        asked = [{"user_id": one} for one in ids]
        found = self.stores[OURS].get_online_features([f"{self.name}:vec"], asked).to_dict()["vec"]
        return [vector and vector[0] for vector in found]
