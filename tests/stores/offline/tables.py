"""Views over small Parquet files, asked through Feast's DuckDB store and through ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, Int64, String, UnixTimestamp

DAY = datetime(2026, 3, 1, tzinfo=UTC)
STOCK = {"type": "duckdb"}
OURS = {"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"}

USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
SHOP = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)

USERS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("vector", pa.list_(pa.float32())),
        ("word", pa.string()),
        ("seen", pa.timestamp("us", "UTC")),
        ("event_timestamp", pa.timestamp("us", "UTC")),
        ("created", pa.timestamp("us", "UTC")),
    ]
)
SHOPS = pa.schema([("shop", pa.string()), ("Score", pa.int64()), ("at", pa.timestamp("us", "UTC"))])


def hour(number: float) -> datetime:
    return DAY + timedelta(hours=number)


def users_view(path: Path | str, created: bool = True, **options: Any) -> FeatureView:
    source = FileSource(
        path=str(path),
        timestamp_field="event_timestamp",
        created_timestamp_column="created" if created else "",
        **{key: options.pop(key) for key in ("field_mapping", "file_format") if key in options},
    )
    fields: dict[str, Any] = {
        "user_id": Int64,
        "vector": Array(Float32),
        "word": String,
        "seen": UnixTimestamp,
    }
    schema = [Field(name=name, dtype=kind) for name, kind in fields.items()]
    return FeatureView(
        **{"name": "users", "entities": [USER], "schema": schema, "source": source, **options}
    )


def shops_view(path: Path | str, **options: Any) -> FeatureView:
    source = FileSource(path=str(path), timestamp_field="at", field_mapping={"Score": "score"})
    schema = [Field(name="shop", dtype=String), Field(name="score", dtype=Int64)]
    return FeatureView(name="shops", entities=[SHOP], schema=schema, source=source, **options)


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=3)
    return path


def user(key: int | None, at: float | None, word: str, made: float | None = 0) -> dict[str, Any]:
    return {
        "user_id": key,
        "vector": [float(len(word)), 0.5],
        "word": word,
        "seen": DAY,
        "event_timestamp": None if at is None else hour(at),
        "created": None if made is None else hour(made),
    }


def bag(table: pa.Table) -> list[str]:
    """The rows in no order, as Feast gives them."""
    return sorted(map(repr, table.to_pylist()))


@dataclass
class Stores:
    """Feast's store and ours over one registry."""

    stock: FeatureStore
    ours: FeatureStore

    def apply(self, *views: Any) -> Stores:
        self.ours.apply([USER, SHOP, *views])
        return self

    def both(self, rows: pd.DataFrame, refs: Any, **options: Any) -> tuple[pa.Table, pa.Table]:
        """What Feast's store gives, and what ours does."""
        expected, found = (
            store.get_historical_features(rows.copy(), refs, **options).to_arrow()
            for store in (self.stock, self.ours)
        )
        return expected, found

    def agree(self, rows: pd.DataFrame, refs: Any, **options: Any) -> pa.Table:
        """Asserts that they give the same; returns it."""
        expected, found = self.both(rows, refs, **options)
        assert found.schema == expected.schema
        assert bag(found) == bag(expected)
        return found


def config(folder: Path, offline: dict[str, Any]) -> RepoConfig:
    return RepoConfig(
        project="p",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store=None,
        offline_store=offline,
        entity_key_serialization_version=3,
    )
