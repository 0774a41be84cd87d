"""What references mean is remembered for one store and one state of its registry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
    utils,
)
from feast.types import Int64, String
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.stores.online import requests
from reki_feast.stores.online.requests import RequestCache, UncacheableRegistry, rows_to_columns

OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
SOURCE = FileSource(path="none.parquet", timestamp_field="event_timestamp")
FEAST_FAILS = pytest.mark.xfail(strict=True, reason="Feast 0.67 remembers by names alone")


def view(**features: Any) -> FeatureView:
    schema = [Field(name="user_id", dtype=Int64)]
    schema += [Field(name=name, dtype=dtype) for name, dtype in features.items()]
    return FeatureView(name="v", entities=[USER], schema=schema, source=SOURCE)


@pytest.fixture(autouse=True)
def feasts_cache() -> Iterator[dict[Any, Any]]:
    """Feast's own cache, empty; and again after the test."""
    found: Any = utils
    found._feature_resolution_cache.clear()
    yield found._feature_resolution_cache
    found._feature_resolution_cache.clear()


def store(folder: Path, kind: str, address: str, ttl: int = 600, **features: Any) -> FeatureStore:
    folder.mkdir(exist_ok=True)
    config = RepoConfig(
        project="shop",
        provider="local",
        registry={"path": str(folder / "r.db"), "cache_ttl_seconds": ttl},
        online_store={"type": kind, "connection_string": f"{address},db=10"},
        entity_key_serialization_version=3,
    )
    made = FeatureStore(config=config)
    made.apply([USER, view(**features)])
    return made


def columns(one: FeatureStore, features: Any = ("v:a",), **options: Any) -> list[str]:
    asked = list(features) if isinstance(features, tuple) else features
    found = one.get_online_features(asked, [{"user_id": 1}], **options).proto
    return sorted(found.metadata.feature_names.val)


@pytest.mark.parametrize("kind", [pytest.param("redis", marks=FEAST_FAILS), OURS])
def test_two_stores_of_one_project_name(tmp_path: Path, redis_address: str, kind: str) -> None:
    """Their registries are of one age, by a clock that ticks slowly enough."""
    first = store(tmp_path / "1", kind, redis_address, a=Int64)
    second = store(tmp_path / "2", kind, redis_address, a=String)
    registries: list[Any] = [first.registry, second.registry]
    registries[1].cached_registry_proto_created = registries[0].cached_registry_proto_created
    for one, expected in ((first, ValueType.INT64), (second, ValueType.STRING)):
        found = one.get_online_features(["v:a"], [{"user_id": 1}])
        assert found._feature_types["a"] == expected


def test_feasts_own_cache_stays_as_it_is(
    tmp_path: Path, redis_address: str, feasts_cache: dict[Any, Any]
) -> None:
    one = store(tmp_path, OURS, redis_address, a=Int64)
    v = one.get_feature_view("v")
    one.apply([FeatureService(name="ready", features=[v], precompute_online=True)])
    columns(one)
    with pytest.raises(RuntimeError, match="pre-computed vectors could not be read"):
        columns(one, one.get_feature_service("ready"))
    assert feasts_cache == {}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The references that were worked out, not remembered."""
    asked: list[Any] = []
    whole: Any = requests._context

    def watched(registry: Any, project: str, features: Any, full_names: bool) -> Any:
        asked.append(features)
        return whole(registry, project, features, full_names)

    monkeypatch.setattr(requests, "_context", watched)
    return asked


def test_worked_out_once(tmp_path: Path, redis_address: str, counted: list[Any]) -> None:
    one = store(tmp_path, OURS, redis_address, a=Int64, b=String)
    v = one.get_feature_view("v")
    one.apply([FeatureService(name="s", features=[v])])
    asked: list[Any] = [("v:a",), ("v:a", "v:b"), one.get_feature_service("s")]
    for _ in range(3):
        for features in asked:
            columns(one, features)
            columns(one, features, full_feature_names=True)
        columns(
            one, one.get_feature_service("s", allow_cache=True)
        )  # another object that says the same
    assert len(counted) == 2 * len(asked)


def test_worked_out_anew_when_the_registry_changes(
    tmp_path: Path, redis_address: str, counted: list[Any]
) -> None:
    one = store(tmp_path, OURS, redis_address, a=Int64)
    columns(one)
    other = FeatureStore(config=one.config)
    other.apply([view(a=String, b=Int64)])
    one.refresh_registry()  # type: ignore[no-untyped-call]
    found = one.get_online_features(["v:a"], [{"user_id": 1}])
    assert found._feature_types["a"] == ValueType.STRING
    assert columns(one, ("v:b",)) == ["b", "user_id"]
    assert len(counted) == 3


def test_worked_out_anew_when_its_time_is_up(
    tmp_path: Path, redis_address: str, counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = store(tmp_path, OURS, redis_address, a=Int64)
    columns(one)
    monkeypatch.setattr(one.registry, "is_cache_valid", lambda: False)
    columns(one)
    columns(one)
    assert len(counted) == 3


def test_a_registry_without_a_state_is_asked_each_time(
    tmp_path: Path, redis_address: str, counted: list[Any]
) -> None:
    one = store(tmp_path, OURS, redis_address, a=Int64)
    asking = RequestCache()
    for _ in range(2):
        asking.context(UncacheableRegistry(one.registry), "shop", ["v:a"], False)
    assert len(counted) == 2


def test_what_was_read_over_a_change_is_not_remembered(
    tmp_path: Path, redis_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = store(tmp_path, OURS, redis_address, a=Int64)
    registry: Any = one.registry
    whole: Any = requests._context
    asked = 0

    def slow(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        registry.cached_registry_proto_created += timedelta(microseconds=1)
        return whole(*args)

    monkeypatch.setattr(requests, "_context", slow)
    asking = RequestCache()
    for _ in range(3):
        asking.context(registry, "shop", ["v:a"], False)
    assert asked == 3


def test_no_more_is_remembered_than_fits(
    tmp_path: Path, redis_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CACHE_SIZE", 2)
    one = store(tmp_path, OURS, redis_address, a=Int64, b=String, c=Int64)
    asking = RequestCache()
    for name in "abcabc":
        context = asking.context(one.registry, "shop", [f"v:{name}"], False)
        assert context.refs == [f"v:{name}"]
        assert len(asking._cached.contexts) <= 2


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.lists(
            st.fixed_dictionaries(dict.fromkeys(names, st.integers())), min_size=1
        )
    )
)
def test_columns_of_rows(rows: list[dict[str, int]]) -> None:
    found = rows_to_columns(rows)
    assert list(found) == list(rows[0])
    assert [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)] == rows
