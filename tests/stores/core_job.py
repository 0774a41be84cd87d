"""What a serving machine does, as a process of its own: ``core_job.py FOLDER SCENARIO [--bare]``.

Applies, materializes, joins and reads a plain Feast repo and a published scenario, and prints what
came of it as JSON. ``--bare`` refuses every import that ``pip install reki-feast`` does not bring.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

REFUSED = (
    "torch",
    "safetensors",
    "sklearn",
    "scipy",
    "numba",
    "sentence_transformers",
    "transformers",
    "openai",
    "httpx2",
    "datasketch",
    "py3langid",
)
DAY = datetime(2026, 1, 1, tzinfo=UTC)

CONFIG = """
project: NAME
provider: local
registry:
  path: registry.db
  registry_store_type: reki_feast.stores.registry.WholeFileRegistryStore
offline_store:
  type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore
online_store:
  type: reki_feast.stores.redis_online.RekiRedisOnlineStore
  connection_string: embedded:redis
batch_engine:
  type: reki_feast.stores.engine.RekiComputeEngine
entity_key_serialization_version: 3
"""
#: With nothing of this package but the tag, which docs/reference/stores.md documents.
PLAIN = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
source = FileSource(path="rows.parquet", timestamp_field="event_timestamp")
taste = FeatureView(
    name="taste",
    entities=[customer],
    ttl=timedelta(days=60),
    schema=[Field(name="vector", dtype=Array(Float32)), Field(name="visits", dtype=Int64)],
    source=source,
    tags={"reki.default": '{"vector": [0.5, -0.5]}'},
)
service = FeatureService(name="service", features=[taste])
"""
SCENARIO = """
from feast import Entity, FeatureService, ValueType
from reki_feast.views import reki_match, reki_views

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["sku"], value_type=ValueType.INT64)
match, users, items = reki_match(FOLDER, user=user, item=item)
reki, reki_item, user_text, item_text, user_vectors, item_vectors = reki_views(
    FOLDER, user=user, item=item
)
service = FeatureService(name="service", features=[match, reki, reki_item])
"""


class Refusing(importlib.abc.MetaPathFinder):
    """The import system of a machine that lacks some packages."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(folder: Path, scenario: Path) -> None:
    """Do the work in a folder, and print what came of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {
        "customer_id": [1, 2, 2],
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())),
        "visits": [10, 20, 30],
        "event_timestamp": [DAY, DAY, DAY + timedelta(days=30)],
    }
    plain = repo(folder, "plain", PLAIN)
    pq.write_table(pa.table(rows), plain / "rows.parquet")
    reki = repo(folder, "reki", SCENARIO.replace("FOLDER", repr(str(scenario))))
    known = 1 << 40
    found = {
        "plain": served(plain, [{"customer_id": n} for n in (1, 2, 99)], DAY),
        "reki": served(
            reki,
            [{"user_id": known + n, "sku": known + n} for n in (0, 1, 99)],
            datetime(2026, 7, 1, tzinfo=UTC),
        ),
        "loaded": sorted({name.partition(".")[0] for name in sys.modules} & {*REFUSED}),
    }
    print(json.dumps(found, default=str))  # noqa: T201


def repo(folder: Path, name: str, features: str) -> Path:
    """Lay a Feast repo down."""
    (folder / name).mkdir(parents=True)
    (folder / name / "feature_store.yaml").write_text(CONFIG.replace("NAME", name))
    (folder / name / f"{name}_features.py").write_text(features)
    return folder / name


def served(repo: Path, rows: list[dict[str, int]], when: datetime) -> dict[str, Any]:
    """Apply and materialize a repo, then read its service in every way."""
    import pandas as pd
    from feast import FeatureStore
    from feast.cli.cli import cli

    from reki_feast.stores import TensorReader, embedded

    os.chdir(repo)
    cli(["apply"], standalone_mode=False)
    store = FeatureStore(str(repo))
    try:
        store.materialize(datetime(1970, 1, 2, tzinfo=UTC), DAY + timedelta(days=300))
        asked = pd.DataFrame(rows).assign(event_timestamp=when)
        service = store.get_feature_service("service")
        joined = store.get_historical_features(asked, service).to_arrow()
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        batch = TensorReader(store, "service", kind="numpy").read(columns)
        return {
            "joined": joined.sort_by(next(iter(rows[0]))).to_pydict(),
            "online": store.get_online_features(service, rows).to_dict(),
            "arrays": {name: batch[name].tolist() for name in batch},
            "known": {name: mask.tolist() for name, mask in batch.known.items()},
        }
    finally:
        embedded.stop(repo / "redis")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if "--bare" in sys.argv:
        sys.meta_path.insert(0, Refusing())
    main(Path(sys.argv[1]), Path(sys.argv[2]))
