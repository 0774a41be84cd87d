"""``TensorReader.nearest``: ids, scores and features of the rows nearest to a vector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
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
from feast.filter_models import ComparisonFilter
from feast.types import Array, Float32, Int64, String

from reki_feast.errors import StoreError
from reki_feast.stores import TensorReader
from reki_feast.stores.search import QueryError

OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROWS, WIDTH = 50, 3
VECTORS = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
QUERY = np.array([0.5, -0.25, 1.0], np.float32)
ITEM = Entity(name="item", join_keys=["sku"], value_type=ValueType.STRING)
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)


def searched(name: str, entity: Entity, metric: str | None = None) -> FeatureView:
    vector = Field(
        name=f"{name}_vector",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=WIDTH,
        vector_search_metric=metric,
    )
    plain = [Field(name=f"{name}_year", dtype=Int64), Field(name=f"{name}_genre", dtype=String)]
    source = FileSource(path="none.parquet", timestamp_field="event_timestamp")
    return FeatureView(name=name, entities=[entity], schema=[vector, *plain], source=source)


def rows(name: str, key: str, ids: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            key: ids,
            f"{name}_vector": [vector.tolist() for vector in VECTORS],
            f"{name}_year": [2000 + n for n in range(ROWS)],
            f"{name}_genre": ["drama" if n % 2 else "crime" for n in range(ROWS)],
            "event_timestamp": [NOW] * ROWS,
        }
    )


SKUS = [f"ключ {n}" for n in range(ROWS)]
USERS = [(1 << 40) + n for n in range(ROWS)]


@pytest.fixture(params=[OURS, "redis"], ids=["ours", "stock"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_address: str) -> FeatureStore:
    """Users and items with vectors; a service of both, and one of items alone."""
    config = RepoConfig(
        project="n" + tmp_path.name.replace("_", "").replace("-", ""),
        provider="local",
        registry=str(tmp_path / "registry.db"),
        repo_path=tmp_path,
        online_store={"type": request.param, "connection_string": redis_address},
        entity_key_serialization_version=3,
    )
    made = FeatureStore(config=config)
    users, items = searched("users", USER), searched("items", ITEM, "cosine")
    numbers = [users[["users_vector", "users_year"]], items[["items_vector", "items_year"]]]
    made.apply([USER, ITEM, users, items])
    made.apply([FeatureService(name="ctr", features=numbers)])
    made.write_to_online_store("users", rows("users", "user_id", USERS))
    made.write_to_online_store("items", rows("items", "sku", SKUS))
    return made


def nearest(metric: str, count: int, of: Callable[[int], bool] = lambda n: True) -> list[int]:
    products = VECTORS @ QUERY
    scores = {
        "cosine": products / np.linalg.norm(VECTORS, axis=1),
        "inner_product": products,
        "L2": -np.linalg.norm(VECTORS - QUERY, axis=1),
    }[metric]
    return [n for n in np.argsort(-scores, kind="stable").tolist() if of(n)][:count]


@pytest.mark.parametrize("query", [QUERY, QUERY.tolist(), torch.from_numpy(QUERY)], ids=type)
def test_ids_scores_and_features(store: FeatureStore, query: Any) -> None:
    reader = TensorReader(store, "ctr")
    found = reader.nearest(query, 7, view="items")
    expected = nearest("cosine", 7)
    assert found.ids == {"sku": [SKUS[n] for n in expected]}
    lengths = np.linalg.norm(VECTORS, axis=1) * np.linalg.norm(QUERY)
    cosines = (VECTORS @ QUERY / lengths)[expected]
    assert found.scores.dtype == torch.float32
    np.testing.assert_allclose(found.scores.numpy(), cosines, rtol=1e-5)
    assert [*found.features] == ["items_vector", "items_year"]  # none of users
    np.testing.assert_array_equal(found.features["items_vector"].numpy(), VECTORS[expected])
    assert found.features["items_year"].tolist() == [2000 + n for n in expected]
    assert found.features.known["items_year"].all()
    reader.close()


@pytest.mark.parametrize("metric", ["L2", "inner_product", "cosine"])
def test_of_another_view_and_metric_on_an_event_loop(store: FeatureStore, metric: str) -> None:
    async def both() -> Any:
        async with TensorReader(store, "ctr", kind="numpy") as reader:
            asked = [reader.nearest_async(QUERY, 5, metric=metric, view="users") for _ in range(3)]
            return await asyncio.gather(*asked)

    for found in asyncio.run(both()):
        expected = nearest(metric, 5)
        assert found.ids == {"user_id": [USERS[n] for n in expected]}
        assert isinstance(found.scores, np.ndarray)
        assert (np.diff(found.scores) <= 0).all()
        assert found.features["users_year"].tolist() == [2000 + n for n in expected]


def test_filters_by_features_that_are_not_in_the_service(store: FeatureStore) -> None:
    with TensorReader(store, ["items:items_vector"], kind="numpy") as reader:
        crime = ComparisonFilter(type="eq", key="items_genre", value="crime")
        found = reader.nearest(QUERY, 10, filters=crime)
        assert found.ids["sku"] == [SKUS[n] for n in nearest("cosine", 10, lambda n: n % 2 == 0)]


def test_nothing_may_be_found(store: FeatureStore) -> None:
    none = ComparisonFilter(type="eq", key="items_genre", value="none")
    with TensorReader(store, "ctr") as reader:
        for found in (
            reader.nearest(QUERY, filters=none, view="items"),
            asyncio.run(reader.nearest_async(QUERY, filters=none, view="items")),
        ):
            assert found.ids == {"sku": []}
            assert found.scores.shape == (0,)
            assert found.features["items_vector"].shape == (0, WIDTH)
            assert found.features["items_year"].dtype == torch.int64


def test_under_other_names(store: FeatureStore) -> None:
    users = store.get_feature_view("users")
    friend = users.with_name("friend").with_join_key_map({"user_id": "friend_id"})
    service = FeatureService(name="friends", features=[friend[["users_vector"]]])
    store.apply(service)
    with TensorReader(store, service, kind="numpy") as reader:
        found = reader.nearest(QUERY, 3, metric="L2", view="friend")
        assert found.ids == {"friend_id": [USERS[n] for n in nearest("L2", 3)]}
        assert found.features["users_vector"].shape == (3, WIDTH)


@pytest.mark.parametrize(
    ("query", "view", "says"),
    [
        (QUERY, None, "None; users, items have one"),
        (QUERY, "shops", "'shops'"),
        (["a"], "items", "a list, an array or a tensor of numbers"),
        (QUERY[:2], "items", r"a vector of 3 finite numbers.*\n.*shape \(2,\)"),
    ],
)
def test_what_does_not_fit(store: FeatureStore, query: Any, view: str | None, says: str) -> None:
    reader = TensorReader(store, "ctr")
    with pytest.raises(QueryError, match=says):
        reader.nearest(query, view=view)


def test_without_a_vector_index_there_is_no_search(store: FeatureStore) -> None:
    plain = FeatureView(
        name="plain",
        entities=[USER],
        schema=[Field(name="n", dtype=Int64)],
        source=FileSource(path="none.parquet", timestamp_field="event_timestamp"),
    )
    store.apply(plain)
    with pytest.raises(StoreError, match="with a vector index is searched\n.*none have one"):
        TensorReader(store, ["plain:n"]).nearest(QUERY)
