"""TensorReader against what Feast's own read gives, over a real Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis
import torch
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import (
    Array,
    Bool,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.errors import StoreError
from reki_feast.stores import embedded, materialize_views
from reki_feast.stores.online import wire
from reki_feast.stores.online.layouts import HashLayout, PackedLayout
from reki_feast.stores.serving import TensorReader
from tests.redis_server import HOST, plain_server

NOW = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 9, 1, tzinfo=UTC)
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
SHOP = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
ROWS = 12
#: Features of view `numbers`: type, values of user 0, 1, …, what their tensor is.
NUMBERS: dict[str, tuple[Any, list[Any], torch.dtype]] = {
    "i32": (Int32, [n - 5 for n in range(ROWS)], torch.int32),
    "i64": (Int64, [(n - 5) << 40 for n in range(ROWS)], torch.int64),
    "f32": (Float32, [n / 3 for n in range(ROWS)], torch.float32),
    "f64": (Float64, [n / 7 for n in range(ROWS)], torch.float64),
    "flag": (Bool, [n % 2 == 0 for n in range(ROWS)], torch.bool),
    "seen": (
        UnixTimestamp,
        [datetime(2026, 1, 1 + n, tzinfo=UTC) for n in range(ROWS)],
        torch.int64,
    ),
    "vec": (
        Array(Float32),
        [None if n == 4 else [n / 3, -n, 0.5] for n in range(ROWS)],
        torch.float32,
    ),
    "dvec": (
        Array(Float64),
        [None if n == 5 else [n / 7, 1e300] for n in range(ROWS)],
        torch.float64,
    ),
}


def make(folder: Path, address: str, project: str, **online: Any) -> FeatureStore:
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store={"type": "redis", "connection_string": address, **online},
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def view(
    folder: Path, name: str, entities: list[Entity], fields: dict[str, Any], **more: Any
) -> FeatureView:
    keys = {"user_id": Int64, "shop": String}
    schema = {entity.join_key: keys[entity.join_key] for entity in entities} | fields
    source = FileSource(name=f"{name}_source", path=str(folder / "x"), timestamp_field="time")
    fields_ = [Field(name=field, dtype=kind) for field, kind in schema.items()]
    return FeatureView(name=name, entities=entities, schema=fields_, source=source, **more)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, redis_address: str) -> FeatureStore:
    """Feast's own store, written by Feast: numbers by user, visits by user and shop, one global."""
    folder = tmp_path_factory.mktemp("tensors")
    made = make(folder, redis_address, "tensors")
    numbers = view(folder, "numbers", [USER], {name: kind for name, (kind, *_) in NUMBERS.items()})
    visits = view(folder, "visits", [USER, SHOP], {"count": Int64, "taste": Array(Float32)})
    world = view(folder, "world", [], {"day": Int64})
    texts = view(folder, "texts", [USER], {"text": String, "tags": Array(String), "age": Int64})
    services = [
        FeatureService(name="numbers", features=[numbers]),
        FeatureService(name="all", features=[numbers, visits, world]),
        FeatureService(name="texts", features=[texts]),
    ]
    made.apply([USER, SHOP, numbers, visits, world, texts, *services])
    table = {name: values for name, (_, values, _) in NUMBERS.items()}
    made.write_to_online_store(
        "numbers", pd.DataFrame({"user_id": range(ROWS), **table, "time": NOW})
    )
    pairs = [(user, shop) for user in range(4) for shop in ("a", "ü", "long name")]
    made.write_to_online_store(
        "visits",
        pd.DataFrame(
            {
                "user_id": [user for user, _ in pairs],
                "shop": [shop for _, shop in pairs],
                "count": range(len(pairs)),
                "taste": [[float(n), 0.25] for n in range(len(pairs))],
                "time": NOW,
            }
        ),
    )
    _write_world(made, world)
    return made


def _write_world(store: FeatureStore, world: FeatureView) -> None:
    """As materialize does; Feast's write_to_online_store takes another key, and reads neither."""
    key = EntityKey(join_keys=["__dummy_id"], entity_values=[Value(string_val="")])
    row = (key, {"day": Value(int64_val=77)}, NOW, None)
    store._get_provider().online_write_batch(store.config, world, [row], None)


def expected(
    store: FeatureStore, refs: Any, ids: Mapping[str, Any], **options: Any
) -> dict[str, list[Any]]:
    return store.get_online_features(refs, dict(ids), **options).to_dict()


def seconds(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


@pytest.fixture(scope="module")
def numbers(store: FeatureStore) -> Iterator[TensorReader]:
    with TensorReader(store, "numbers", defaults={"vec": [0] * 3, "dvec": [0] * 2}) as reader:
        yield reader


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.integers(-1, ROWS), min_size=1, max_size=20))
def test_equal_to_feasts_own_read(
    store: FeatureStore, numbers: TensorReader, ids: list[int]
) -> None:
    """Repeated, unsorted and unknown ids, every type, nulls among known rows."""
    batch = numbers.read({"user_id": ids})
    stock = expected(store, store.get_feature_service("numbers"), {"user_id": ids})
    assert list(batch) == list(NUMBERS)
    for name, (_, _, dtype) in NUMBERS.items():
        tensor, known = batch[name], batch.known[name]
        assert tensor.dtype == dtype, name
        assert known.tolist() == [value is not None for value in stock[name]], name
        for row, value in enumerate(stock[name]):
            zero = [0] * tensor.shape[1] if tensor.ndim == 2 else 0
            assert tensor[row].tolist() == (zero if value is None else seconds(value)), name


@settings(max_examples=15, deadline=None)
@given(
    ids=st.lists(
        st.tuples(st.integers(-1, 4), st.sampled_from(["a", "ü", "long name", "?"])),
        min_size=1,
        max_size=12,
    )
)
def test_several_join_keys_and_none(store: FeatureStore, ids: list[tuple[int, str]]) -> None:
    columns = {"shop": [shop for _, shop in ids], "user_id": [user for user, _ in ids]}
    refs = ["world:day", "visits:count", "numbers:i64"]
    stock = expected(store, refs, columns)
    with TensorReader(store, refs) as reader:
        batch = reader.read(columns)
    assert list(batch) == ["day", "count", "i64"]
    for name in batch:
        assert batch[name].tolist() == [value or 0 for value in stock[name]]
        assert batch.known[name].tolist() == [value is not None for value in stock[name]]


class TestIds:
    @pytest.mark.parametrize(
        "ids",
        [
            [3, 0, 3],
            (3, 0, 3),
            np.array([3, 0, 3]),
            np.array([3, 0, 3], np.int32),
            torch.tensor([3, 0, 3]),
            pa.array([3, 0, 3]),
            pa.chunked_array([[3], [0, 3]]),
            pd.Series([3, 0, 3]),
            [np.int64(3), 0, np.int64(3)],
        ],
        ids=lambda ids: type(ids).__name__,
    )
    def test_in_any_kind_of_column(self, numbers: TensorReader, ids: Any) -> None:
        batch = numbers.read({"user_id": ids})
        assert batch["i32"].tolist() == [-2, -5, -2]

    def test_texts_in_any_kind_of_column(self, store: FeatureStore) -> None:
        with TensorReader(store, ["visits:count"]) as reader:
            for shops in (["ü", "a"], np.array(["ü", "a"]), pa.array(["ü", "a"])):
                assert reader.read({"user_id": [1], "shop": shops})["count"].tolist() == [4, 3]

    def test_one_id_goes_with_every_row(self, store: FeatureStore) -> None:
        with TensorReader(store, "all") as reader:
            batch = reader.read({"user_id": [2], "shop": ["a", "ü", "no", "a"]})
        assert {len(tensor) for tensor in batch.values()} == {4}
        assert batch["i32"].tolist() == [-3] * 4
        assert batch["count"].tolist() == [6, 7, 0, 6]
        assert batch["day"].tolist() == [77] * 4
        assert batch["taste"].tolist() == [[6, 0.25], [7, 0.25], [0, 0], [6, 0.25]]
        assert batch.known["taste"].tolist() == [True, True, False, True]

    def test_none_are_needed_without_entities(self, store: FeatureStore) -> None:
        with TensorReader(store, ["world:day"]) as reader:
            assert reader.read({})["day"].tolist() == [77]

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ({}, "ids have a column shop\n  detail: no column"),
            ({"user_id": [1]}, "ids have a column shop\n  detail: only user_id"),
            ({"user_id": [1], "shop": ["a"], "x": [1]}, "join keys of the features: shop, user_id"),
            ({"user_id": [1, 2], "shop": ["a"] * 3}, "detail: user_id: 2, shop: 3"),
            ({"user_id": [], "shop": ["a"]}, "user_id has an id at least"),
            ({"user_id": [1], "shop": "abc"}, "shop is a column of ids\n  detail: 'abc'"),
            ({"user_id": 7, "shop": ["a"]}, "user_id is a column of ids\n  detail: 7"),
            ({"user_id": np.ones((2, 2)), "shop": ["a"]}, "user_id is a column of ids"),
            ({"user_id": ["x"], "shop": ["a"]}, "Ids have the types of their join keys"),
            ({"user_id": [1, None], "shop": ["a"]}, r"join keys \(.*user_id: INT64.*\)"),
        ],
    )
    def test_that_do_not_fit(self, store: FeatureStore, ids: Any, message: str) -> None:
        with TensorReader(store, "all") as reader, pytest.raises(StoreError, match=message):
            reader.read(ids)

    def test_given_twice_are_asked_once_in_one_round_trip(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def counted(client: Any, commands: bytes, count: int, execute: Any = wire.execute) -> Any:
            asked.append(count)
            return execute(client, commands, count)

        monkeypatch.setattr(wire, "execute", counted)
        with TensorReader(store, "all", kind="numpy") as reader:
            batch = reader.read({"user_id": [1] * 50, "shop": ["a", "b"] * 25})
        assert asked == [1 + 2 + 1]  # a user, two visits, the world
        assert batch["count"].tolist() == [3, 0] * 25


class TestDefaults:
    def test_of_the_view_and_of_the_caller(self, store: FeatureStore, published: Any) -> None:
        """In the view's tag; the caller's wins; else zero."""
        ours, stock_ids = _materialized(store, published)
        unknown = type(published.ids["user"][0])(77)
        ids = {"user_id": [stock_ids[3], unknown]}
        with TensorReader(ours, ["reki:user_aug"]) as reader:
            batch = reader.read(ids)
        assert batch["user_aug"].tolist() == [[1, 3, 0, 0], [0.5, -0.5, 0.25, 0]]
        assert batch.known["user_aug"].tolist() == [True, False]
        with TensorReader(ours, ["reki:user_aug"], defaults={"user_aug": np.ones(4)}) as reader:
            assert reader.read(ids)["user_aug"].tolist() == [[1, 3, 0, 0], [1, 1, 1, 1]]
        with TensorReader(ours, ["reki_user_representation:history"]) as reader:
            assert reader.read({"user_id": [unknown]})["history"].tolist() == [[0, 0, 0]]  # the tag

    def test_of_scalars(self, store: FeatureStore) -> None:
        defaults = {"f32": float("nan"), "i64": -1, "flag": True}
        with TensorReader(
            store, ["numbers:f32", "numbers:i64", "numbers:flag"], defaults=defaults
        ) as reader:
            batch = reader.read({"user_id": [1, 999]})
        assert torch.isnan(batch["f32"]).tolist() == [False, True]
        assert batch["i64"].tolist() == [-4 << 40, -1]
        assert batch["flag"].tolist() == [False, True]

    def test_lengths_may_be_learnt_by_reading(self, store: FeatureStore) -> None:
        with TensorReader(store, ["numbers:vec"]) as reader:
            with pytest.raises(StoreError, match=r'vec is known(.|\n)*defaults=\{"vec"'):
                reader.read({"user_id": [999]})
            assert reader.read({"user_id": [1, 999]})["vec"].shape == (2, 3)
            assert reader.read({"user_id": [999, 998]})["vec"].tolist() == [[0] * 3] * 2

    def test_lengths_that_differ_from_the_registrys(self, store: FeatureStore) -> None:
        with (
            TensorReader(store, ["numbers:vec"], defaults={"vec": [0.0] * 5}) as reader,
            pytest.raises(StoreError, match=r"vec have 5 numbers(.|\n)*detail: 3 in Redis"),
        ):
            reader.read({"user_id": [1]})


def _materialized(store: FeatureStore, published: Any) -> tuple[FeatureStore, list[Any]]:
    """Our store over a published scenario."""
    folder = published.folder.parent
    options: Any = store.config.online_store
    kind = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
    project = f"p{folder.parent.name}".replace("_", "")
    ours = make(folder, options.connection_string, project, type=kind)
    ours.apply([*published.entities(), *published.views().views()])
    ids: list[Any] = published.ids["user"]
    ours.write_to_online_store(
        "reki",
        pd.DataFrame(
            {"user_id": ids, "user_aug": [[1.0, n, 0, 0] for n in range(len(ids))]}
        ).assign(event_timestamp=NOW, created_timestamp=NOW),
    )
    return ours, ids


class TestNames:
    def test_full(self, store: FeatureStore) -> None:
        refs = ["numbers:i32", "visits:count"]
        ids = {"user_id": [1], "shop": ["a"]}
        with TensorReader(store, refs, full_feature_names=True) as reader:
            batch = reader.read(ids)
        assert list(batch) == ["numbers__i32", "visits__count"]
        assert set(batch) <= set(expected(store, refs, ids, full_feature_names=True))

    def test_a_view_twice_under_other_names_and_keys(self, store: FeatureStore) -> None:
        numbers = store.get_feature_view("numbers")[["i32"]]
        friend = numbers.with_name("friend").with_join_key_map({"user_id": "friend_id"})
        store.apply(FeatureService(name="friends", features=[numbers, friend]))
        with TensorReader(store, "friends", full_feature_names=True) as reader:
            batch = reader.read({"user_id": [0, 1], "friend_id": [2, 99]})
        assert batch["numbers__i32"].tolist() == [-5, -4]
        assert batch["friend__i32"].tolist() == [-3, 0]
        assert batch.known["friend__i32"].tolist() == [True, False]
        with pytest.raises(StoreError, match="full_feature_names=True"):
            TensorReader(store, "friends")

    def test_a_service_may_be_given_itself(self, store: FeatureStore) -> None:
        with TensorReader(store, store.get_feature_service("numbers")) as reader:
            assert set(reader.read({"user_id": [0]})) == set(NUMBERS)

    def test_refs_of_one_view_in_any_order(self, store: FeatureStore) -> None:
        refs = ["numbers:vec", "world:day", "numbers:i32"]
        with TensorReader(store, refs) as reader:
            batch = reader.read({"user_id": [3]})
        assert list(batch) == ["vec", "day", "i32"]
        assert batch["i32"].tolist() == [-2]
        assert repr(batch) == "FeatureBatch(vec: (1, 3), day: (1,), i32: (1,))"


class TestConstruction:
    @pytest.mark.parametrize(
        ("service", "options", "message"),
        [
            ("texts", {}, r"1\. Tensors hold numbers(.|\n)*text: STRING(.|\n)*tags: STRING_LIST"),
            ("nothing", {}, "nothing"),
            ([], {}, "no features are named"),
            (["numbers"], {}, "Invalid feature reference 'numbers'"),
            (["nowhere:x"], {}, "nowhere"),
            (["numbers:x"], {}, "Feature view numbers has a feature x"),
            (["numbers:i32", "numbers:i32"], {}, "full_feature_names"),
            (["numbers:i32"], {"defaults": {"i23": 0}}, "detail: 'i23'; features i32"),
            (["numbers:i32"], {"defaults": {"i32": [0]}}, r"one number\n  detail: shape \(1,\)"),
            (["numbers:vec"], {"defaults": {"vec": 0}}, r"a vector\n  detail: shape \(\)"),
            (["numbers:i32"], {"kind": "jax"}, 'kind="torch" or kind="numpy"'),
        ],
    )
    def test_what_cannot_be_read(
        self, store: FeatureStore, service: Any, options: Any, message: str
    ) -> None:
        with pytest.raises(StoreError, match=message):
            TensorReader(store, service, **options)

    def test_a_default_is_as_long_as_the_registry_says(
        self, published: Any, make_store: Callable[..., FeatureStore]
    ) -> None:
        store = make_store()
        store.apply([*published.entities(), *published.views().views()])
        with pytest.raises(StoreError, match="is a vector of 4 numbers"):
            TensorReader(store, ["reki:user_aug"], defaults={"user_aug": [0.0]})

    @pytest.mark.filterwarnings("ignore:On demand feature view is an experimental:RuntimeWarning")
    def test_on_demand_views(self, store: FeatureStore) -> None:
        store.apply(_doubled())
        with pytest.raises(StoreError, match="detail: on-demand feature view doubled"):
            TensorReader(store, ["numbers:i32", "doubled:twice"])

    def test_another_online_store(self, make_store: Callable[..., FeatureStore]) -> None:
        store = make_store(online={"type": "sqlite"})
        with pytest.raises(StoreError, match=r"detail: online store .*Sqlite"):
            TensorReader(store, "all")

    def test_the_registry_is_asked_once(
        self, tmp_path: Path, redis_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make(tmp_path, redis_address, "asked")
        first = view(tmp_path, "first", [USER], {"a": Int64, "b": Float32})
        store.apply([USER, first, FeatureService(name="s", features=[first[["a"]]])])
        with TensorReader(store, "s") as reader:
            with monkeypatch.context() as patch:
                patch.setattr(store, "_registry", None)
                assert list(reader.read({"user_id": [1]})) == ["a"]
            store.apply(FeatureService(name="s", features=[first]))
            assert list(reader.read({"user_id": [1]})) == ["a"]
            reader.refresh()
            assert list(reader.read({"user_id": [1]})) == ["a", "b"]


def _doubled() -> Any:
    source = RequestSource(name="given", schema=[Field(name="x", dtype=Int64)])

    decorated: Any = on_demand_feature_view(
        sources=[source], schema=[Field(name="twice", dtype=Int64)]
    )

    def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": inputs["x"] * 2})

    return decorated(doubled)


class TestOutputs:
    def test_numpy_without_torch(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)  # an import fails
        with TensorReader(store, "numbers", kind="numpy") as reader:
            batch = reader.read({"user_id": [1, 2]})
        assert isinstance(batch["vec"], np.ndarray)
        assert batch["vec"].dtype == np.float32
        assert batch.known["vec"].tolist() == [True, True]

    @pytest.mark.parametrize("ids", [[1], [1, 2], [1, 1], [4, 99]])
    def test_may_be_written_to(self, numbers: TensorReader, ids: list[int]) -> None:
        batch = numbers.read({"user_id": ids})
        for name in batch:
            batch[name][:] = 0
            batch.known[name][:] = False
        assert not batch["vec"].any()


class TestCallers:
    def test_many_threads(self, numbers: TensorReader) -> None:
        def read(seed: int) -> bool:
            ids = np.random.default_rng(seed).integers(0, ROWS, 30)
            found = numbers.read({"user_id": ids})["i32"]
            return bool(found.tolist() == (ids - 5).tolist())

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(read, range(100)))

    def test_many_coroutines_on_one_loop_after_another(self, store: FeatureStore) -> None:
        async def read(reader: TensorReader) -> list[list[int]]:
            async with reader:
                batches = [reader.read_async({"user_id": [n, 2]}) for n in range(ROWS)]
                return [batch["i32"].tolist() for batch in await asyncio.gather(*batches)]

        reader = TensorReader(store, ["numbers:i32"])
        for _ in range(2):
            assert asyncio.run(read(reader)) == [[n - 5, -3] for n in range(ROWS)]

    def test_after_closing(self, store: FeatureStore) -> None:
        with TensorReader(store, ["numbers:i32"]) as reader:
            reader.read({"user_id": [1]})
        assert reader.read({"user_id": [1]})["i32"].tolist() == [-4]
        reader.close()
        reader.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[tuple[Path, embedded.ServerAddress]]:
    folder = tmp_path / "redis"
    yield folder, embedded.start(folder)
    embedded.stop(folder)


class TestRedisInTrouble:
    @pytest.fixture
    def reader(
        self, tmp_path: Path, own_redis: tuple[Path, embedded.ServerAddress]
    ) -> Iterator[TensorReader]:
        store = make(tmp_path, own_redis[1].connection_string, "trouble")
        some = view(tmp_path, "some", [USER], {"a": Int64})
        store.apply([USER, some])
        with TensorReader(store, ["some:a"], timeout=1.0) as reader:
            assert reader.read({"user_id": [1]})["a"].tolist() == [0]
            yield reader

    def test_gone(
        self, reader: TensorReader, own_redis: tuple[Path, embedded.ServerAddress]
    ) -> None:
        embedded.stop(own_redis[0])
        message = rf"Redis at {own_redis[1].path} answers\n  detail: ConnectionError"
        with pytest.raises(StoreError, match=message) as caught:
            reader.read({"user_id": [1]})
        assert isinstance(caught.value.__cause__, redis.ConnectionError)
        with pytest.raises(StoreError, match=message):
            asyncio.run(reader.read_async({"user_id": [1]}))

    def test_too_slow_and_well_again(
        self, reader: TensorReader, own_redis: tuple[Path, embedded.ServerAddress]
    ) -> None:
        pid = embedded.status(own_redis[0]).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreError, match=r"answers in time\n(.|\n)*raise `timeout`"):
                reader.read({"user_id": [1]})
            with pytest.raises(StoreError, match="answers in time"):
                asyncio.run(_closing(reader))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert reader.read({"user_id": [1]})["a"].tolist() == [0]

    def test_a_connection_that_was_cut_is_opened_again(
        self, reader: TensorReader, own_redis: tuple[Path, embedded.ServerAddress]
    ) -> None:
        with redis.Redis(unix_socket_path=own_redis[1].path) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert reader.read({"user_id": [1]})["a"].tolist() == [0]

    def test_a_time_in_the_connection_string(
        self, tmp_path: Path, own_redis: tuple[Path, embedded.ServerAddress]
    ) -> None:
        store = make(tmp_path, f"{own_redis[1].connection_string},socket_timeout=0.05", "trouble")
        given = {None: (0.05, 1.0), 0.3: (0.3, 0.3)}
        store.apply([USER, view(tmp_path, "some", [USER], {"a": Int64})])
        for timeout, (answer, connect) in given.items():
            reader = TensorReader(store, ["some:a"], timeout=timeout)
            assert reader._connections._timeouts == {
                "socket_timeout": answer,
                "socket_connect_timeout": connect,
            }


async def _closing(reader: TensorReader) -> None:
    try:
        await reader.read_async({"user_id": [1]})
    finally:
        await reader.aclose()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A cluster of one node that serves all slots."""
    with plain_server(tmp_path / "cluster", "--cluster-enabled", "yes") as port:
        _serve_all_slots(port)
        yield f"{HOST}:{port}"


def _serve_all_slots(port: int) -> None:
    with redis.Redis(HOST, port) as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        while client.cluster("INFO")["cluster_state"] != "ok":
            time.sleep(0.05)


def test_a_cluster(tmp_path: Path, cluster: str) -> None:
    store = make(tmp_path, cluster, "cluster", redis_type="redis_cluster")
    some = view(tmp_path, "some", [USER], {"a": Int64, "v": Array(Float32)})
    store.apply([USER, some])
    table = pd.DataFrame({"user_id": range(9), "a": range(9), "v": [[n, 0.5] for n in range(9)]})
    store.write_to_online_store("some", table.assign(time=NOW))

    async def read(reader: TensorReader) -> Any:
        async with reader:
            return await reader.read_async({"user_id": [3, 99, 8]})

    with TensorReader(store, ["some:v", "some:a"]) as reader:
        for batch in (reader.read({"user_id": [3, 99, 8]}), asyncio.run(read(reader))):
            assert batch["a"].tolist() == [3, 0, 8]
            assert batch["v"].tolist() == [[3, 0.5], [0, 0], [8, 0.5]]
    store._get_provider().online_store._client.close()  # type: ignore[attr-defined]


class TestLayouts:
    @pytest.mark.parametrize("entities", [[b"a", b"b"], [b"a", b"long", b""]])
    def test_hash_commands_are_those_of_redis(
        self, entities: list[bytes], redis_address: str
    ) -> None:
        host, port = redis_address.split(":")
        kinds = [ValueType.INT64, ValueType.FLOAT]
        one = HashLayout("proj", "view", ["f"], with_timestamps=False)
        two = HashLayout("proj", "view", ["f", "g"], with_timestamps=False)
        with redis.Redis(host, int(port)) as client:
            for layout, types in ((one, kinds[:1]), (two, kinds)):
                commands, count = layout.read(entities)
                assert count == len(entities)
                columns = layout.columns(wire.execute(client, commands, count), types, None)
                assert len(columns) == len(types)
                assert all(not valid.any() for _, valid in columns)

    @pytest.mark.parametrize("cluster", [False, True])
    @pytest.mark.parametrize("nulls", [False, True])
    def test_packed_rows(self, redis_address: str, cluster: bool, nulls: bool) -> None:
        host, port = redis_address.split(":")
        layout = PackedLayout("packedproj", "view", ["f", "g"], ["g"], cluster=cluster)
        with redis.Redis(host, int(port)) as client:
            for n, key in enumerate((b"a", b"bcd")):
                client.set(b"reki1:packedproj:view:" + key, _packed(n, null=nulls and n == 1))
            commands, count = layout.read([b"bcd", b"?", b"a"])
            replies = wire.execute(client, commands, count)
            (column,) = layout.columns(replies, [ValueType.FLOAT_LIST], None)
            client.delete(b"reki1:packedproj:view:a", b"reki1:packedproj:view:bcd")
        assert column.valid.tolist() == [not nulls, False, True]
        assert column.values.tolist() == [[0 if nulls else 1, 0], [0, 0], [0, 0]]


def test_the_packed_layout(tmp_path: Path, redis_address: str) -> None:
    """Written by our store; a view that has more than vectors stands beside it in hashes."""
    kind = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
    store = make(tmp_path, redis_address, "packed", type=kind, layout="packed")
    fields = {"v": Array(Float32), "w": Array(Float32)}
    mixed = {"x": Array(Float32), "a": Int64}
    views = [view(tmp_path, "vectors", [USER], fields), view(tmp_path, "mixed", [USER], mixed)]
    store.apply([USER, *views, FeatureService(name="s", features=[views[0][["w"]], views[1]])])
    table = {"user_id": range(5), "v": [[0.5] * 3] * 5, "w": [[float(n), 0.25] for n in range(5)]}
    store.write_to_online_store("vectors", pd.DataFrame(table).assign(time=NOW))
    table = {"user_id": range(5), "x": [[float(n)] for n in range(5)], "a": range(5)}
    store.write_to_online_store("mixed", pd.DataFrame(table).assign(time=NOW))
    ids = {"user_id": [3, 99, 0, 3]}
    with TensorReader(store, "s") as reader:
        batch = reader.read(ids)
    assert list(batch) == ["w", "x", "a"]
    assert batch["w"].tolist() == [[3, 0.25], [0, 0], [0, 0.25], [3, 0.25]]
    assert batch["x"].tolist() == [[3], [0], [0], [3]]
    assert batch["a"].tolist() == [3, 0, 0, 3]
    assert {tuple(mask.tolist()) for mask in batch.known.values()} == {(True, False, True, True)}
    with TensorReader(store, ["vectors:v"], defaults={"v": [1, 2, 3]}) as reader:
        assert reader.read({"user_id": [99]})["v"].tolist() == [[1, 2, 3]]


def _packed(number: int, null: bool) -> bytes:
    widths = (3, 0xFFFFFFFF) if null else (3, 2)
    numbers: Sequence[float] = [9, 9, 9] if null else [9, 9, 9, number, 0]
    return struct.pack(f"<q2I{len(numbers)}f", 1, *widths, *numbers)


def test_vectors_of_several_lengths_in_redis(tmp_path: Path, redis_address: str) -> None:
    store = make(tmp_path, redis_address, "ragged")
    fields = {"v": Array(Float32), "d": Array(Float64)}
    store.apply([USER, view(tmp_path, "some", [USER], fields)])
    table = {"user_id": [1, 2], "v": [[1.0], [1.0, 2.0]], "d": [[1.0], [1.0, 2.0]], "time": NOW}
    store.write_to_online_store("some", pd.DataFrame(table))
    for name, kind in (("v", "floats"), ("d", "doubles")):
        message = rf"detail: feature {name}: vectors of 1 and of 2 {kind}"
        with (
            TensorReader(store, [f"some:{name}"]) as reader,
            pytest.raises(StoreError, match=message),
        ):
            reader.read({"user_id": [1, 2]})


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb")
def test_what_our_store_materialized(
    published: Any, make_store: Callable[..., FeatureStore]
) -> None:
    store = make_store()
    views = published.views()
    service = FeatureService(name="ctr", features=[views.user, views.item])
    store.apply([*published.entities(), *views.views(), service])
    materialize_views(store, ["reki", "reki_item"], END)
    users, items = published.ids["user"], published.ids["item"]
    with TensorReader(store, "ctr") as reader:
        batch = reader.read({"user_id": users[5:6], "sku": items})
    assert batch["user_aug"].tolist() == [[1, 5, 0, 0]] * len(items)
    assert batch["item_aug"].tolist() == [[1, n, 0, 0] for n in range(len(items))]
