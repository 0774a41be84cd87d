"""The stores as somebody uses them who has nothing else of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from reki_feast import stores
from reki_feast.errors import StoreError
from reki_feast.stores import TensorReader, apply_and_materialize, default_tag
from tests.stores.conftest import OURS

DAY = datetime(2026, 3, 1, tzinfo=UTC)
DEFAULT = [0.25, -1.0]
FEATURES = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String
from reki_feast.stores import default_tag

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
taste = FeatureView(
    name="taste",
    entities=[customer],
    ttl=timedelta(days=30),
    schema=[Field(name="vector", dtype=Array(Float32)), Field(name="city", dtype=String)],
    source=FileSource(path="taste.parquet", timestamp_field="event_timestamp"),
    tags={"team": "search", **default_tag({"vector": [0.25, -1.0]})},
)
vectors = FeatureService(name="vectors", features=[taste[["vector"]]])
"""
REFS = ["taste:vector", "taste:city"]


@pytest.fixture
def store(tmp_path: Path, redis_address: str) -> FeatureStore:
    """A plain Feast repo, applied and materialized: customers 1 and 2, of one day."""
    table = {
        "customer_id": [1, 2],
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
        "city": ["Lund", "Graz"],
        "event_timestamp": [DAY] * 2,
    }
    pq.write_table(pa.table(table), tmp_path / "taste.parquet")
    options = {
        "project": f"plain{''.join(filter(str.isalnum, tmp_path.name))}",
        "provider": "local",
        "registry": {
            "path": "registry.db",
            "registry_store_type": "reki_feast.stores.registry.WholeFileRegistryStore",
        },
        "offline_store": OURS["offline"],
        "online_store": {
            **OURS["online"],
            "connection_string": redis_address,
            "enforce_ttl": "all",
        },
        "batch_engine": {"type": "reki_feast.stores.engine.RekiComputeEngine"},
        "entity_key_serialization_version": 3,
    }
    (tmp_path / "feature_store.yaml").write_text(json.dumps(options))
    (tmp_path / "features.py").write_text(FEATURES)
    return FeatureStore(repo_path=str(tmp_path))


@pytest.fixture
def served(store: FeatureStore, tmp_path: Path) -> FeatureStore:
    """The same with rows of today, which the ttl has not outlived."""
    table = pq.read_table(tmp_path / "taste.parquet")
    now = pa.array([datetime.now(UTC)] * 2, pa.timestamp("us", "UTC"))
    at = table.schema.get_field_index("event_timestamp")
    pq.write_table(table.set_column(at, "event_timestamp", now), tmp_path / "taste.parquet")
    apply_and_materialize(tmp_path, datetime.now(UTC))
    return FeatureStore(repo_path=str(tmp_path))


@pytest.mark.parametrize(
    ("customer", "after", "vector", "city"),
    [
        (1, timedelta(days=1), [1.0, 2.0], "Lund"),
        (2, timedelta(0), [3.0, 4.0], "Graz"),
        (3, timedelta(days=1), DEFAULT, None),  # unknown
        (1, timedelta(days=-1), DEFAULT, None),  # before the first row
        (1, timedelta(days=31), DEFAULT, None),  # older than the ttl
    ],
)
def test_joins(
    store: FeatureStore,
    tmp_path: Path,
    customer: int,
    after: timedelta,
    vector: list[float],
    city: str | None,
) -> None:
    apply_and_materialize(tmp_path, DAY)
    rows = pd.DataFrame({"customer_id": [customer], "event_timestamp": [DAY + after]})
    job = FeatureStore(repo_path=str(tmp_path)).get_historical_features(rows, REFS)
    assert job.to_arrow().select(["vector", "city"]).to_pydict() == {
        "vector": [vector],
        "city": [city],
    }


def test_online(served: FeatureStore) -> None:
    rows = [{"customer_id": one} for one in (2, 3)]
    response = served.get_online_features(REFS, rows).to_dict()
    assert response["vector"] == [[3.0, 4.0], DEFAULT]
    assert response["city"] == ["Graz", None]


def test_arrays(served: FeatureStore) -> None:
    with TensorReader(served, "vectors", kind="numpy") as reader:
        batch = reader.read({"customer_id": [3, 1]})
    assert batch["vector"].tolist() == [DEFAULT, [1.0, 2.0]]


def test_rows_older_than_the_ttl_get_the_default(store: FeatureStore, tmp_path: Path) -> None:
    apply_and_materialize(tmp_path, DAY)
    aged = FeatureStore(repo_path=str(tmp_path)).get_online_features(REFS, [{"customer_id": 1}])
    assert aged.to_dict()["vector"] == [DEFAULT]


def test_stores_that_do_not_know_the_tag_ignore_it(tmp_path: Path, store: FeatureStore) -> None:
    config = json.loads((tmp_path / "feature_store.yaml").read_text())
    config["online_store"] = {"type": "sqlite", "path": str(tmp_path / "online.db")}
    (tmp_path / "feature_store.yaml").write_text(json.dumps(config))
    apply_and_materialize(tmp_path, DAY)
    rows = [{"customer_id": one} for one in (1, 3)]
    stock = FeatureStore(repo_path=str(tmp_path)).get_online_features(["taste:vector"], rows)
    assert stock.to_dict()["vector"] == [[1.0, 2.0], None]


def test_the_tag_beside_others() -> None:
    tags = {"team": "search", **default_tag({"a": [1], "b": (0.5, 2.0)})}
    assert tags == {"team": "search", "reki.default": '{"a": [1], "b": [0.5, 2.0]}'}


def test_a_default_that_does_not_fit_is_refused_by_name(served: FeatureStore) -> None:
    view = served.get_feature_view("taste")
    view.tags["reki.default"] = '{"vector": 1}'
    served.apply([view])
    with pytest.raises(StoreError, match=r"(?s)reki\.default of feature view taste.*default_tag"):
        served.get_online_features(REFS, [{"customer_id": 9}])


#: Imports all modules of the stores, and says which others of the package came with them.
IMPORTS = """
import pkgutil, sys
for missing in sys.argv[1:]:
    sys.modules[missing] = None
import reki_feast.stores as stores
for module in pkgutil.walk_packages(stores.__path__, "reki_feast.stores."):
    if not (module.name.startswith("reki_feast.stores.training") and "torch" in sys.argv):
        __import__(module.name)
for name in stores.__all__ if len(sys.argv) == 1 else ():
    getattr(stores, name)
print(*sorted({".".join(name.split(".")[:2]) for name in sys.modules if "reki_feast." in name}))
"""
#: What may stand beneath the stores.
BENEATH = {"errors", "files", "lazy", "permissions"}


@pytest.mark.parametrize("missing", [(), ("torch",)], ids=["whole", "without torch"])
def test_they_import_nothing_of_the_rest(missing: tuple[str, ...]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS, *missing]
    done: Any = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {f"reki_feast.{one}" for one in {"stores", *BENEATH}}


def test_all_public_names_are_documented() -> None:
    for name in stores.__all__:
        assert getattr(stores, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = stores.Nothing
