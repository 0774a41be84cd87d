"""A small Feast repo over the vectors of a benchmark, and what it joins to a table of interactions.

Published like a scenario: augmented vectors and a manifest, from which `reki_views` and
`reki_match` make their views. Beside them the representations, reduced to 32 principal components
a channel, as plain views: what a training job could read without HEIN.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
from feast.types import Array, Float32, Int64
from sklearn.decomposition import PCA

from reki_feast.encoding import Floats, vector_array, vector_matrix
from reki_feast.schema import ITEM_CHANNELS, KINDS, USER_CHANNELS, Key, Kind
from reki_feast.tables.parquet import write_table
from reki_feast.views import reki_match, reki_views

COMPONENTS = 32
USER, ITEM = Key("user_id", pa.int64()), Key("item_id", pa.int64())
KEYS: Mapping[Kind, Key] = {"user": USER, "item": ITEM}


@dataclass(frozen=True)
class Vectors:
    """What was condensed, of users and of items.

    Attributes:
        augmented: of :func:`reki_feast.schema.augmented`, at their as-of times.
        default: vector ``[q]`` of an unknown id.
        pairs: channel pairs, in the order of their floats.
    """

    augmented: Mapping[Kind, pa.Table]
    default: Mapping[Kind, Floats]
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Joined:
    """Columns ``[n, c]`` in the order of the rows asked for, and how long the join took."""

    columns: Floats
    seconds: float


def publish(
    folder: Path, vectors: Vectors, representations: Mapping[Kind, pa.Table]
) -> FeatureStore:
    """Write the tables and apply three feature services: ``vectors``, ``match``, ``raw``."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind, table in vectors.augmented.items():
        write_table(folder / "reki" / f"{kind}_aug" / "0000.parquet", table)
    (folder / "reki" / "manifest.json").write_text(json.dumps(_manifest(vectors, representations)))
    entities = {
        kind: Entity(name=kind, join_keys=[KEYS[kind].name], value_type=ValueType.INT64)
        for kind in KINDS
    }
    views = reki_views(folder / "reki", user=entities["user"], item=entities["item"])
    match = reki_match(views.user, views.item)
    raw: list[Any] = [
        _raw_view(folder, kind, entities[kind], representations[kind]) for kind in KINDS
    ]
    services = [
        FeatureService(name="vectors", features=[views.user, views.item]),
        FeatureService(name="match", features=[match]),
        FeatureService(name="raw", features=raw),
    ]
    store = FeatureStore(config=_config(folder))
    store.apply([*entities.values(), views.user, views.item, match, *raw, *services])
    return store


def join(store: FeatureStore, service: str, rows: pd.DataFrame) -> Joined:
    """One ``get_historical_features``: keys and times in, a float32 matrix out."""
    asked = rows.assign(row=np.arange(len(rows)))
    wanted = store.get_feature_service(service)
    began = time.perf_counter()
    table = store.get_historical_features(asked, wanted).to_arrow()
    seconds = time.perf_counter() - began
    place = np.argsort(table["row"].to_numpy())
    # Feast leaves what an on-demand view was computed from among the columns.
    names = [field.name for view in wanted.feature_view_projections for field in view.features]
    columns = np.concatenate([_matrix(table[name]) for name in names], axis=1)
    return Joined(columns[place], seconds)


def reduced(table: pa.Table) -> dict[str, Floats]:
    """Principal components ``[n, 32]`` of each channel of representations; absent ones are 0."""
    made = {}
    for name in _channels(table):
        vectors, there = vector_matrix(table[name])
        size = min(COMPONENTS, *vectors.shape)
        made[name] = np.zeros((table.num_rows, size), np.float32)
        made[name][there] = PCA(size, svd_solver="covariance_eigh").fit_transform(vectors)
    return made


def _raw_view(folder: Path, kind: Kind, entity: Entity, table: pa.Table) -> FeatureView:
    key, parts = KEYS[kind], reduced(table)
    rows = {
        key.name: table[key.name],
        "event_timestamp": table["event_timestamp"],
        **{f"{kind}_{name}": vector_array(part) for name, part in parts.items()},
    }
    path = folder / f"{kind}_raw.parquet"
    write_table(path, pa.table(rows))
    return FeatureView(
        name=f"{kind}_raw",
        entities=[entity],
        ttl=timedelta(days=36_500),
        schema=[
            Field(name=key.name, dtype=Int64),
            *(Field(name=f"{kind}_{name}", dtype=Array(Float32)) for name in parts),
        ],
        source=FileSource(
            name=f"{kind}_raw_source", path=str(path), timestamp_field="event_timestamp"
        ),
    )


def _manifest(vectors: Vectors, representations: Mapping[Kind, pa.Table]) -> dict[str, object]:
    snapshots: set[datetime] = set()
    for table in vectors.augmented.values():
        snapshots.update(table["event_timestamp"].unique().to_pylist())
    sides: dict[str, object] = {
        kind: {
            "key": KEYS[kind].name,
            "type": "int64",
            "q": len(vectors.default[kind]),
            "channels": _channels(representations[kind]),
            "default": [float(x) for x in vectors.default[kind]],
        }
        for kind in KINDS
    }
    return {
        "version": 1,
        "scenario": "crm",
        "m": 1,
        "pairs": [list(pair) for pair in vectors.pairs],
        "snapshots": [time.isoformat() for time in sorted(snapshots)],
        **sides,
    }


def _config(folder: Path) -> RepoConfig:
    return RepoConfig(
        project="crm",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
        entity_key_serialization_version=3,
    )


def _channels(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name in USER_CHANNELS + ITEM_CHANNELS]


def _matrix(column: pa.ChunkedArray) -> Floats:
    """A column of numbers or vectors as ``[n, c]``; rows without a vector are NaN."""
    if not pa.types.is_list(column.type):
        numbers: npt.NDArray[np.float32] = column.to_numpy().astype(np.float32)
        return numbers[:, None]
    vectors, there = vector_matrix(column)
    if there.all():
        return vectors
    rows = np.full((len(column), vectors.shape[1]), np.nan, np.float32)
    rows[there] = vectors
    return rows
