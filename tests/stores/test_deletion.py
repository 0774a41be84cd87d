"""Rows of entities are listed and deleted in any repo's online store that this package knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64

from reki_feast.stores.deletion import EntityRows
from tests.stores.conftest import OURS

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

WHEN = datetime(2026, 6, 1, tzinfo=UTC)
CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
SKU = Entity(name="sku", join_keys=["sku"], value_type=ValueType.INT64)
STORES: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "ours": lambda redis, _: {**OURS["online"], "connection_string": redis},
    "packed": lambda redis, _: {**OURS["online"], "connection_string": redis, "layout": "packed"},
    "redis": lambda redis, _: {"type": "redis", "connection_string": redis},
    "sqlite": lambda _, folder: {"type": "sqlite", "path": str(folder / "online.db")},
}


def view(folder: Path, name: str, entities: list[Entity], **features: Any) -> FeatureView:
    return FeatureView(
        name=name,
        entities=entities,
        schema=[Field(name=feature, dtype=dtype) for feature, dtype in features.items()],
        source=FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="t"),
    )


@pytest.fixture(params=STORES)
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    redis_address: str,
    make_store: Callable[..., FeatureStore],
) -> FeatureStore:
    made = make_store(online=STORES[request.param](redis_address, tmp_path))
    rows: dict[str, dict[str, Any]] = {
        "age": {"customer_id": ["a*", "b"], "years": [30, 40]},
        "taste": {"customer_id": ["a*", "c"], "v": [[1.0, 2.0], [3.0, 4.0]]},
        "pair": {"customer_id": ["a*", "b"], "sku": [7, 7], "n": [1, 2]},
    }
    for name, columns in rows.items():
        pd.DataFrame({**columns, "t": WHEN}).to_parquet(tmp_path / f"{name}.parquet")
    age = view(tmp_path, "age", [CUSTOMER], years=Int64)
    taste = view(tmp_path, "taste", [CUSTOMER], v=Array(Float32))
    pair = view(tmp_path, "pair", [CUSTOMER, SKU], n=Int64)
    made.apply([CUSTOMER, SKU, age, taste, pair])
    for name, columns in rows.items():
        made.write_to_online_store(name, df=pd.DataFrame({**columns, "t": WHEN}))
    return made


def test_rows_of_entities(store: FeatureStore) -> None:
    rows = EntityRows(store)
    by_name = {v.name: v for v in store.list_feature_views()}
    customers = [by_name["age"], by_name["taste"]]
    assert rows.is_supported
    assert rows.ids(customers, "customer_id") == {"a*", "b", "c"}
    assert rows.ids([by_name["pair"]], "sku") == {"7"}

    deleted = rows.delete(customers, "customer_id", ["a*", "nobody"])
    assert deleted == {"age": {"a*"}, "taste": {"a*"}}
    assert rows.ids(customers, "customer_id") == {"b", "c"}
    assert rows.ids([by_name["pair"]], "customer_id") == {"a*", "b"}
    assert rows.delete([by_name["pair"]], "sku", ["7"]) == {"pair": {"7"}}
    assert rows.ids([by_name["pair"]], "customer_id") == set()
    assert rows.delete(customers, "customer_id", []) == {}
    rows.compact()
    found = store.get_online_features(["age:years"], [{"customer_id": "b"}]).to_dict()
    assert found["years"] == [40]


def test_another_store_is_not_supported(
    make_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    made = make_store(online={"type": "remote", "path": "http://localhost:1"})
    rows = EntityRows(made)
    assert not rows.is_supported
    views = [view(tmp_path, "age", [CUSTOMER], years=Int64)]
    assert rows.ids(views, "customer_id") == set()
    assert rows.delete(views, "customer_id", ["a"]) == {}
    rows.compact()
