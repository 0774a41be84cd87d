"""A repo to read from, and Redis servers of other kinds: a cluster, and one behind a sentinel."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import redis
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.types import (
    Array,
    Bool,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)

from reki_feast.stores.defaults import default_tag
from tests.redis_server import HOST, free_port, plain_server, serving, until

SLOTS = 16_384


@pytest.fixture
def lone_redis(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Starts a server of the test's own and gives its address; called again, ends it."""
    stack = contextlib.ExitStack()
    started: list[str] = []

    def start_or_end() -> str:
        if started:
            stack.close()
        else:
            started.append(f"{HOST}:{stack.enter_context(plain_server(tmp_path / 'lone'))}")
        return started[0]

    with stack:
        yield start_or_end


@pytest.fixture(scope="session")
def cluster_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster, ``host:port``; one node has all slots."""
    options = ("--cluster-enabled", "yes", "--cluster-announce-ip", HOST)
    with (
        plain_server(tmp_path_factory.mktemp("cluster"), *options) as port,
        redis.Redis(HOST, port) as client,
    ):
        client.execute_command("CLUSTER ADDSLOTS", *range(SLOTS))
        until(lambda: client.cluster("INFO")["cluster_state"] == "ok")
        yield f"{HOST}:{port}"


@pytest.fixture(scope="session")
def sentinel_address(tmp_path_factory: pytest.TempPathFactory, redis_address: str) -> Iterator[str]:
    """A sentinel that names the run's Redis ``mymaster``; ``host:port`` of the sentinel."""
    folder, port = tmp_path_factory.mktemp("sentinel"), free_port()
    host, watched = redis_address.split(":")
    file = folder / "sentinel.conf"
    file.write_text(f"bind {HOST}\nport {port}\nsentinel monitor mymaster {host} {watched} 1\n")
    with serving(folder, str(file), "--sentinel"), redis.Redis(HOST, port) as client:
        until(lambda: client.sentinel_master("mymaster")["port"] == int(watched))
        yield f"{HOST}:{port}"


OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
DAY = datetime(2026, 3, 1, tzinfo=UTC)
KNOWN = 20  # rows of each view
KEYS: dict[str, tuple[str, FeastType]] = {
    "user": ("user_id", Int64),
    "item": ("sku", String),
    "shop": ("shop_id", Int32),
}
#: view: entities, features
VIEWS: dict[str, tuple[list[str], dict[str, FeastType]]] = {
    "users": (
        ["user"],
        {"vec": Array(Float32), "n": Int64, "s": String, "when": UnixTimestamp, "yes": Bool},
    ),
    "items": (["item"], {"ivec": Array(Float32), "tags": Array(String)}),
    "pairs": (["user", "item"], {"score": Float64}),
    "shops": (["shop"], {"size": Int64}),
    "world": ([], {"g": Float32}),
    "reki": (["user"], {"user_aug": Array(Float32), "text": String}),
    "vectors": (["user", "item"], {"left": Array(Float32), "right": Array(Float32)}),
}
DEFAULTS = {"user_aug": [0.5, -0.5]}


class Repo(NamedTuple):
    """One repo twice, over one Redis: with the stock store and with ours."""

    stock: FeatureStore
    ours: FeatureStore

    @staticmethod
    def views() -> dict[str, tuple[list[str], list[str]]]:
        """Each view's join keys and features."""
        return {name: ([KEYS[e][0] for e in of], [*has]) for name, (of, has) in VIEWS.items()}

    @staticmethod
    def value(name: str, row: int) -> Any:
        """The join key of a row (rows from KNOWN on are nowhere), or its number of request data."""
        entity = next((e for e, (key, _) in KEYS.items() if key == name), "user")
        return float(row) if name == "factor" else key_of(entity, row)


def key_of(entity: str, row: int) -> Any:
    return f"ключ {row}" if entity == "item" else (1 << 33) * (entity == "user") + row


def value_of(kind: FeastType, row: int) -> Any:
    """Row 7 lacks all of its values, and row 8 has those that protobuf leaves out."""
    if row == 7:
        return None
    number = 0 if row == 8 else row
    values: dict[Any, Any] = {
        Array(Float32): [number / 4, -1.5],
        Array(String): ["a"] * number,
        String: "s" * number,
        UnixTimestamp: DAY + timedelta(days=number),
        Bool: bool(number % 2),
    }
    return values.get(kind, number)


def feature_views() -> list[FeatureView]:
    source = FileSource(path="none.parquet", timestamp_field="event_timestamp")
    entities = {
        e: Entity(name=e, join_keys=[k], value_type=t.to_value_type()) for e, (k, t) in KEYS.items()
    }
    return [
        FeatureView(
            name=name,
            entities=[entities[e] for e in of],
            schema=[Field(name=n, dtype=t) for n, t in [*(KEYS[e] for e in of), *features.items()]],
            source=source,
            tags=default_tag({"user_aug": DEFAULTS["user_aug"]}) if name == "reki" else {},
        )
        for name, (of, features) in VIEWS.items()
    ]


def on_demand_view(users: FeatureView) -> OnDemandFeatureView:
    request = RequestSource(name="request", schema=[Field(name="factor", dtype=Float64)])

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[users, request], schema=[Field(name="scaled", dtype=Float64)], mode="pandas"
    )
    def scaled(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": rows["n"] * rows["factor"]})

    view: OnDemandFeatureView = scaled
    return view


def services(views: list[FeatureView]) -> list[FeatureService]:
    users, items, pairs, *_ = views
    friend = users.with_name("friend").with_join_key_map({"user_id": "friend_id"})
    me = users.with_name("me")
    return [
        FeatureService(name="every", features=[*views]),
        FeatureService(name="friends", features=[friend[["n"]], me[["vec", "s"]], pairs]),
        FeatureService(name="narrow", features=[items[["tags"]]]),
    ]


def write(store: FeatureStore, view: FeatureView) -> None:
    """Rows 0 … KNOWN - 1, a minute apart, by way of the store's own ``online_write_batch``."""
    of, features = VIEWS[view.name]
    names = [KEYS[e][0] for e in of] or ["__dummy_id"]
    keys = [
        python_values_to_proto_values(
            [key_of(e, r) for r in range(KNOWN)], KEYS[e][1].to_value_type()
        )
        for e in of
    ] or [python_values_to_proto_values([""], ValueType.STRING)]
    columns = {
        name: python_values_to_proto_values(
            [value_of(t, r) for r in range(KNOWN)], t.to_value_type()
        )
        for name, t in features.items()
    }
    rows = [
        (
            EntityKey(join_keys=names, entity_values=key),
            {name: column[row] for name, column in columns.items()},
            DAY + timedelta(minutes=row, microseconds=123_457 * row),
            None,
        )
        for row, key in enumerate(zip(*keys, strict=True))
    ]
    online: Any = store._get_provider()
    online.online_write_batch(store.config, view, rows, None)


@pytest.fixture(scope="session")
def make_repo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Repo]:
    """Makes the repo over a Redis, written by the stock store; ``options`` are of both stores."""

    def make(address: str, layout: str = "hash", versions: bool = False, **options: Any) -> Repo:
        folder = tmp_path_factory.mktemp("repo")
        both = []
        for kind, own in (("redis", {}), (OURS, {"layout": layout})):
            config = RepoConfig(
                project=folder.name,
                provider="local",
                registry={
                    "path": str(folder / f"{kind}.db"),
                    "enable_online_feature_view_versioning": versions,
                },
                online_store={"type": kind, "connection_string": address, **options, **own},
                entity_key_serialization_version=3,
            )
            store = FeatureStore(config=config)
            views = feature_views()
            entities = [
                Entity(name=e, join_keys=[k], value_type=t.to_value_type())
                for e, (k, t) in KEYS.items()
            ]
            with warnings.catch_warnings():  # on-demand views are experimental, says Feast
                warnings.filterwarnings("ignore", "On demand feature view", RuntimeWarning)
                store.apply([*entities, *views, on_demand_view(views[0]), *services(views)])
            both.append(store)
        for store in both[: 1 if layout == "hash" else 2]:
            for view in store.list_feature_views():
                write(store, view)
        return Repo(*both)

    return make


@pytest.fixture(scope="session")
def repo(make_repo: Callable[..., Repo], redis_address: str) -> Repo:
    """The repo over the run's Redis."""
    return make_repo(redis_address)
