"""Vector search of the Redis online store, against brute force, over a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)

from reki_feast.errors import StoreError
from reki_feast.stores.defaults import default_tag
from reki_feast.stores.deletion import EntityRows
from reki_feast.stores.search import Metric, QueryError, graph
from reki_feast.stores.spaces import space_tag
from reki_feast.stores.versions import versions_tag

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WIDTH = 4
PATIENCE = 60.0
OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
ITEM = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
SKU = Entity(name="sku", join_keys=["sku"], value_type=ValueType.STRING)
SOURCE = FileSource(path="none.parquet", timestamp_field="event_timestamp")
VECTOR = Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=WIDTH)


def view(name: str, fields: Sequence[Field] = (), entities: Any = (ITEM,), **rest: Any) -> Any:
    return FeatureView(
        name=name, entities=[*entities], schema=[VECTOR, *fields], source=SOURCE, **rest
    )


@dataclass
class Documents:
    """A view of a repo, and what was written to it."""

    store: FeatureStore
    view: FeatureView
    rows: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def write(self, rows: dict[Any, dict[str, Any]], when: datetime = NOW) -> None:
        """Rows by id, a tuple where there are several join keys."""
        write(self.store, self.view, rows, when)
        for one, values in rows.items():
            self.rows[one] = values

    def search(self, query: Any, top_k: int = 3, **options: Any) -> dict[str, Any]:
        features = options.pop("features", [f.name for f in self.view.features])
        response = self.store.retrieve_online_documents_v2(
            features=[f"{self.view.name}:{name}" for name in features],
            query=list(query),
            top_k=top_k,
            **options,
        )
        found: dict[str, Any] = response.to_dict()
        return found

    def until(self, holds: Callable[[dict[str, Any]], bool], query: Any = (0.0,) * WIDTH) -> None:
        """Wait for a search of all rows to say something."""
        end = time.monotonic() + PATIENCE
        while not holds(self.search(query, 1000)):
            assert time.monotonic() < end, self.search(query, 1000)
            time.sleep(0.01)


def write(store: FeatureStore, to: FeatureView, rows: dict[Any, Any], when: datetime) -> None:
    keys = sorted(to.entity_columns, key=lambda column: column.name)
    data = []
    for one, values in rows.items():
        ids = one if isinstance(one, tuple) else (one,)
        messages = [
            python_values_to_proto_values([value], key.dtype.to_value_type())[0]
            for key, value in zip(keys, ids, strict=True)
        ]
        entity = EntityKey(join_keys=[key.name for key in keys], entity_values=messages)
        kinds = {f.name: f.dtype.to_value_type() for f in to.features}
        features = {
            name: python_values_to_proto_values([values.get(name)], kind)[0]
            for name, kind in kinds.items()
        }
        data.append((entity, features, when, None))
    online: Any = store._get_provider()
    online.online_write_batch(store.config, to, data, None)


def brute(rows: dict[Any, Any], query: Any, metric: str, top_k: int) -> tuple[list[Any], Any]:
    """Ids and distances; ties in the order of the ids."""
    ids = sorted(one for one in rows if rows[one].get("vector") is not None)
    if not ids:
        return [], np.zeros(0, np.float32)
    vectors = np.array([rows[one]["vector"] for one in ids], np.float32).astype(np.float64)
    one = np.array(query, np.float32).astype(np.float64)
    products, lengths = vectors @ one, np.linalg.norm(vectors, axis=1) * np.linalg.norm(one)
    distances = {
        "L2": np.linalg.norm(vectors - one, axis=1),
        "inner_product": -products,
        "cosine": 1 - np.divide(products, lengths, out=np.zeros(len(ids)), where=lengths > 0),
    }[metric].astype(np.float32)
    order = np.argsort(distances, kind="stable")[:top_k]
    return [ids[n] for n in order], distances[order]


@pytest.fixture
def documents(tmp_path: Any, redis_address: str) -> Callable[..., Documents]:
    """Makes a repo with one view."""

    def make(of: FeatureView, versions: bool = False, **online: Any) -> Documents:
        config = RepoConfig(
            project="s" + tmp_path.name.replace("_", "").replace("-", ""),
            provider="local",
            repo_path=tmp_path,
            registry={
                "path": str(tmp_path / "registry.db"),
                "enable_online_feature_view_versioning": versions,
                "registry_store_type": "reki_feast.stores.registry.WholeFileRegistryStore",
            },
            online_store={"type": OURS, "connection_string": redis_address, **online},
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply([ITEM, SKU, of])
        return Documents(store, store.get_feature_view(of.name))

    return make


def random_rows(count: int, seed: int = 0, of: Callable[[int], Any] = int) -> dict[Any, Any]:
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return {of(n): {"vector": vectors[n].tolist()} for n in range(count)}


@pytest.mark.parametrize("layout", ["hash", "packed"])
@pytest.mark.parametrize("metric", ["L2", "cosine", "inner_product"])
def test_nearest_rows_are_those_of_brute_force(
    documents: Callable[..., Documents], layout: str, metric: str
) -> None:
    docs = documents(view("docs"), layout=layout)
    docs.write(random_rows(300) | {1000: {"vector": [0.0] * WIDTH}, 1001: {}})
    for seed, top_k in ((1, 1), (2, 10), (3, 299), (4, 1000)):
        query = np.random.default_rng(seed).standard_normal(WIDTH)
        found = docs.search(query, top_k, distance_metric=metric)
        ids, distances = brute(docs.rows, query, metric, top_k)
        assert found["item_id"] == ids
        np.testing.assert_allclose(found["distance"], distances, rtol=1e-6, atol=1e-6)
        assert found["vector"] == [docs.rows[one]["vector"] for one in ids]


@pytest.mark.parametrize("layout", ["hash", "packed"])
def test_join_keys_of_any_type_and_number(documents: Callable[..., Documents], layout: str) -> None:
    both = documents(view("docs", entities=[ITEM, SKU]), layout=layout)
    both.write(random_rows(40, of=lambda n: (n % 7 - 3, f"ключ {n}")))
    query = [0.1, 0.2, 0.3, 0.4]
    found = both.search(query, 40, features=["vector", "item_id", "sku"])
    ids, _ = brute(both.rows, query, "L2", 40)
    assert list(zip(found["item_id"], found["sku"], strict=True)) == ids


def test_rows_that_are_equally_near_keep_their_features(
    documents: Callable[..., Documents],
) -> None:
    docs = documents(view("docs", [Field(name="n", dtype=Int64)]))
    docs.write({n: {"vector": [float(n % 2)] * WIDTH, "n": n} for n in range(30, 0, -1)})
    found = docs.search([0.0] * WIDTH, 30)
    assert found["n"] == found["item_id"] == [*range(2, 31, 2), *range(1, 31, 2)]


def test_feast_pairs_features_with_the_entities_that_they_are_sorted_to(tmp_path: Any) -> None:
    """Why the entity keys of documents begin with the distance: leave that out when this fails."""
    config = RepoConfig(
        project="text",
        provider="local",
        repo_path=tmp_path,
        registry=str(tmp_path / "registry.db"),
        online_store={
            "type": "sqlite",
            "path": str(tmp_path / "online.db"),
            "text_search_enabled": True,
        },
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    text = view("docs", [Field(name="text", dtype=String)])
    store.apply([ITEM, text])
    words = {9: "pear", 1: "pear apple plum quince", 4: "plum"}
    write(store, store.get_feature_view("docs"), {n: {"text": words[n]} for n in words}, NOW)
    found = store.retrieve_online_documents_v2(
        features=["docs:text"], query_string="pear", top_k=3
    ).to_dict()
    assert (found["item_id"], found["text"]) == ([9, 1], [words[1], words[9]])


FIELDS = {
    "category": String,
    "raw": Bytes,
    "year": Int32,
    "big": Int64,
    "price": Float64,
    "weight": Float32,
    "fresh": Bool,
    "seen": UnixTimestamp,
}
BIG = 2**60


def values_of(n: int) -> dict[str, Any]:
    if n % 5 == 4:
        return {}
    return {
        "category": f"c{n % 3}",
        "raw": bytes([n % 3]),
        "year": 2000 + n,
        "big": BIG + n,
        "price": n / 4,
        "weight": n / 10,
        "fresh": n % 2 == 0,
        "seen": NOW + timedelta(days=n),
    }


def comparison(key: str, kind: str, value: Any) -> ComparisonFilter:
    return ComparisonFilter(type=kind, key=key, value=value)


def every(*parts: Any) -> CompoundFilter:
    return CompoundFilter(type="and", filters=list(parts))


def some(*parts: Any) -> CompoundFilter:
    return CompoundFilter(type="or", filters=list(parts))


DAY_9 = (NOW + timedelta(days=9)).timestamp()
FILTERS: list[tuple[Any, Callable[[int, dict[str, Any]], bool]]] = [
    (comparison("category", "eq", "c1"), lambda n, v: v["category"] == "c1"),
    (comparison("category", "eq", "none"), lambda n, v: False),
    (comparison("category", "ne", "c1"), lambda n, v: v["category"] != "c1"),
    (comparison("category", "ne", "none"), lambda n, v: True),
    (comparison("category", "gte", "c1"), lambda n, v: v["category"] >= "c1"),
    (comparison("category", "in", ["c0", "c2", "x"]), lambda n, v: v["category"] != "c1"),
    (comparison("category", "in", []), lambda n, v: False),
    (comparison("category", "nin", ["c0", "c2"]), lambda n, v: v["category"] == "c1"),
    (comparison("category", "nin", []), lambda n, v: True),
    (comparison("raw", "eq", b"\1"), lambda n, v: n % 3 == 1),
    (comparison("year", "gt", 2010), lambda n, v: n > 10),
    (comparison("year", "in", [2003, 2005, 2009.0]), lambda n, v: n in (3, 5)),
    (comparison("year", "nin", [2003]), lambda n, v: n != 3),
    (comparison("big", "eq", BIG + 7), lambda n, v: n == 7),
    (comparison("big", "lt", 2**70), lambda n, v: True),
    (comparison("price", "lte", 2.5), lambda n, v: n <= 10),
    (comparison("weight", "eq", 0.3), lambda n, v: n == 3),
    (comparison("fresh", "eq", True), lambda n, v: n % 2 == 0),
    (comparison("seen", "gte", NOW + timedelta(days=9)), lambda n, v: n >= 9),
    (comparison("seen", "gte", "2026-03-10"), lambda n, v: n >= 9),
    (comparison("seen", "lt", DAY_9), lambda n, v: n < 9),
    (every(comparison("category", "eq", "c1"), comparison("year", "lt", 2010)),
     lambda n, v: n % 3 == 1 and n < 10),
    (some(comparison("year", "lt", 2003), every(comparison("price", "gt", 4))),
     lambda n, v: n < 3 or n > 16),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_filters_are_those_of_feast_and_a_null_matches_none(
    filtered: Documents, number: int
) -> None:
    condition, holds = FILTERS[number]
    rows = {n: row for n, row in filtered.rows.items() if n % 5 != 4 and holds(n, row)}
    query = [0.1, -0.2, 0.3, 0.4]
    for top_k in (2, 30):
        found = filtered.search(query, top_k, features=["year"], filters=condition)
        assert found.get("item_id", []) == brute(rows, query, "L2", top_k)[0]


def test_filters_by_join_key_by_event_time_and_by_nothing(filtered: Documents) -> None:
    query = [0.0] * WIDTH
    filtered.write({500: {"vector": [9.0] * WIDTH}}, NOW + timedelta(days=2))
    filtered.until(lambda found: 500 in found["item_id"])
    for condition, ids in (
        (comparison("item_id", "in", [3, 500, 9]), {3, 9, 500}),
        (comparison("event_timestamp", "gt", NOW), {500}),
        (comparison("event_timestamp", "eq", NOW.timestamp()), {*range(20)}),
        (every(), {*range(20), 500}),
    ):
        found = filtered.search(query, 100, filters=condition)
        assert set(found["item_id"]) == ids


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (comparison("nothing", "eq", 1), "A filter names a number, time or text .*'nothing'"),
        (comparison("vector", "eq", 1), "'vector' is FLOAT_LIST"),
        (comparison("category", "eq", 1), "with a text\n.*1 \\(int\\)"),
        (comparison("year", "gt", "new"), "with a number\n.*'new' \\(str\\)"),
        (comparison("seen", "gt", "soon"), "with a time, such as .*\n.*'soon'"),
        (comparison("category", "in", "c1"), "type in has a list of values"),
    ],
)
def test_filters_that_do_not_fit(filtered: Documents, condition: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){says}"):
        filtered.search([0.0] * WIDTH, filters=condition)


@pytest.fixture
def filtered(documents: Callable[..., Documents]) -> Documents:
    """Rows with features of each type; every fifth has the vector alone."""
    docs = documents(view("docs", [Field(name=n, dtype=t) for n, t in FIELDS.items()]))
    docs.write({n: {**row, **values_of(n)} for n, row in random_rows(20).items()})
    return docs


DAY = timedelta(days=1)


def ids(expected: Sequence[int]) -> Callable[[dict[str, Any]], bool]:
    """Whether these were found; Feast leaves ids out where there are none."""
    return lambda found: found.get("item_id", []) == expected


def test_what_is_written_deleted_and_flushed_is_followed(
    documents: Callable[..., Documents], lone_redis: Callable[[], str]
) -> None:
    address = lone_redis()
    docs = documents(view("docs"), connection_string=address)
    docs.write({1: {"vector": [1.0] * WIDTH}})
    assert docs.search([0.0] * WIDTH)["item_id"] == [1]
    other = FeatureStore(config=docs.store.config)  # as another process would
    write(other, docs.view, {2: {"vector": [0.5] * WIDTH}}, NOW)
    docs.until(ids([2, 1]))
    stock = docs.store.config.model_copy(
        update={"online_config": {"type": "redis", "connection_string": address}}
    )
    write(FeatureStore(config=stock), docs.view, {1: {"vector": [0.0] * WIDTH}}, NOW + DAY)
    docs.until(ids([1, 2]))
    write(other, docs.view, {2: {}}, NOW + DAY)  # a null is no document
    docs.until(ids([1]))
    host, port = address.split(":")
    with redis.Redis(host, int(port)) as client:
        client.delete(*client.keys())
        docs.until(ids([]))
        write(other, docs.view, {n: {"vector": [float(n)] * WIDTH} for n in range(3)}, NOW)
        docs.until(ids([0, 1, 2]))
        client.flushall()
        docs.until(ids([]))
        write(other, docs.view, {7: {"vector": [float(7)] * WIDTH}}, NOW)
        docs.until(ids([7]))
        for key in client.scan_iter():
            client.pexpire(key, 30)
        docs.until(ids([]))
        write(other, docs.view, {8: {"vector": [float(7)] * WIDTH}}, NOW)
        docs.until(ids([8]))
        client.client_kill_filter(_type="normal", skipme=True)  # all connections are cut
        write(other, docs.view, {9: {"vector": [float(9)] * WIDTH}}, NOW)
        docs.until(ids([8, 9]))
    online: Any = docs.store._get_provider().online_store
    online.delete_table(docs.store.config, docs.view)
    docs.until(ids([]))


def test_a_server_that_tells_of_no_changes_is_read_again_now_and_then(
    documents: Callable[..., Documents],
    lone_redis: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reki_feast.stores.online.tracking.POLL_S", 0.05)
    host, port = lone_redis().split(":")
    with redis.Redis(host, int(port)) as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+pw"], keys=["*"],
            commands=["+@all", "-client|tracking"],
        )  # fmt: skip
    docs = documents(view("docs"), connection_string=f"redis://reader:pw@{host}:{port}/0")
    docs.write({1: {"vector": [1.0] * WIDTH}})
    assert docs.search([0.0] * WIDTH)["item_id"] == [1]
    docs.write({2: {"vector": [0.5] * WIDTH}})
    docs.until(lambda found: found["item_id"] == [2, 1])


def test_in_a_cluster(
    documents: Callable[..., Documents],
    cluster_address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reki_feast.stores.online.tracking.POLL_S", 0.05)
    docs = documents(view("docs"), connection_string=cluster_address, redis_type="redis_cluster")
    docs.write(random_rows(30))
    assert docs.search([0.0] * WIDTH)["item_id"] == brute(docs.rows, [0.0] * WIDTH, "L2", 3)[0]
    docs.write({99: {"vector": [0.0] * WIDTH}})
    docs.until(lambda found: found["item_id"][0] == 99)


def test_rows_older_than_the_ttl_are_no_documents(documents: Callable[..., Documents]) -> None:
    old = view("docs", ttl=timedelta(hours=1))
    docs = documents(old, enforce_ttl="all")
    now = datetime.now(UTC)
    docs.write({1: {"vector": [0.0] * WIDTH}}, now - timedelta(hours=2))
    docs.write({2: {"vector": [1.0] * WIDTH}}, now)
    assert docs.search([0.0] * WIDTH)["item_id"] == [2]


def test_default_vectors_are_no_documents(documents: Callable[..., Documents]) -> None:
    docs = documents(view("docs", tags=default_tag({"vector": [0.0] * WIDTH})))
    docs.write({1: {"vector": [1.0] * WIDTH}, 2: {}})
    found = docs.search([0.0] * WIDTH)
    assert (found["item_id"], found["vector"]) == ([1], [[1.0] * WIDTH])


def test_a_view_without_rows_has_no_documents(documents: Callable[..., Documents]) -> None:
    docs = documents(view("docs", [Field(name="n", dtype=Int64)]))
    found = docs.search([0.0] * WIDTH, filters=comparison("n", "eq", 1))
    assert found == {"vector": [], "n": [], "distance": []}


def test_doubles_are_searched_too(documents: Callable[..., Documents]) -> None:
    doubles = FeatureView(
        name="docs",
        entities=[ITEM],
        schema=[Field(name="vector", dtype=Array(Float64), vector_index=True)],
        source=SOURCE,
    )
    docs = documents(doubles)
    docs.write(random_rows(20))
    query = [0.3, 0.1, 0.2, 0.0]
    assert docs.search(query, 5)["item_id"] == brute(docs.rows, query, "L2", 5)[0]


def test_the_metric_of_the_field_goes_first(documents: Callable[..., Documents]) -> None:
    field = Field(
        name="vector", dtype=Array(Float32), vector_index=True, vector_search_metric="COSINE"
    )
    docs = documents(FeatureView(name="docs", entities=[ITEM], schema=[field], source=SOURCE))
    docs.write(random_rows(20))
    query = [0.3, 0.1, 0.2, 0.0]
    found = docs.search(query, 5, distance_metric="L2")
    assert found["item_id"] == brute(docs.rows, query, "cosine", 5)[0]


@pytest.mark.parametrize(
    ("query", "top_k", "options", "says"),
    [
        ([1.0], 3, {}, r"a vector of 4 finite numbers.*\n.*shape \(1,\)"),
        ([float("nan")] * 4, 3, {}, "not finite"),
        ([0.0] * 4, 0, {}, "one row at least"),
        ([0.0] * 4, 3, {"distance_metric": "wrong"}, "by cosine, inner_product or L2\n.*'wrong'"),
        ([0.0] * 4, 3, {"query_string": "words"}, "searches by a vector\n.*query_string 'words'"),
    ],
)
def test_queries_that_do_not_fit(
    documents: Callable[..., Documents], query: Any, top_k: int, options: Any, says: str
) -> None:
    docs = documents(view("docs"))
    docs.write(random_rows(3))
    with pytest.raises(QueryError, match=says):
        docs.search(query, top_k, **options)


def test_a_view_without_a_vector_index_is_not_searched(
    documents: Callable[..., Documents],
) -> None:
    plain = FeatureView(
        name="docs",
        entities=[ITEM],
        schema=[Field(name="vector", dtype=Array(Float32))],
        source=SOURCE,
    )
    with pytest.raises(QueryError, match="vector_index=True\n.*none has"):
        documents(plain).search([0.0] * WIDTH)


def test_searches_may_be_switched_off(documents: Callable[..., Documents]) -> None:
    with pytest.raises(QueryError, match="vector_enabled: false"):
        documents(view("docs"), vector_enabled=False).search([0.0] * WIDTH)


def test_vectors_of_two_lengths_are_refused(documents: Callable[..., Documents]) -> None:
    field = Field(name="vector", dtype=Array(Float32), vector_index=True)
    docs = documents(FeatureView(name="docs", entities=[ITEM], schema=[field], source=SOURCE))
    docs.write({1: {"vector": [1.0] * 4}, 2: {"vector": [1.0] * 3}})
    with pytest.raises(StoreError, match="have one length"):
        docs.search([0.0] * 4)
    docs.write({1: {"vector": [1.0] * 3}}, NOW + DAY)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            assert docs.search([0.0] * 3)["item_id"] == [1, 2]
            break
        except StoreError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_redis_that_is_down_is_told(
    documents: Callable[..., Documents], lone_redis: Callable[[], str]
) -> None:
    docs = documents(view("docs"), connection_string=lone_redis())
    lone_redis()
    with pytest.raises(StoreError, match="Redis at .* answers"):
        docs.search([0.0] * WIDTH)


@pytest.mark.skipif(not graph.is_installed(), reason="no faiss")
def test_many_rows_are_searched_by_a_graph_that_forget_deletes(
    documents: Callable[..., Documents], tmp_path: Path
) -> None:
    docs = documents(view("docs"), search_exact_rows=100)
    docs.write(random_rows(400))
    query = [0.1, 0.2, 0.3, 0.4]
    ids = brute(docs.rows, query, "L2", 20)[0]
    kept = tmp_path / "data" / "search"
    end = time.monotonic() + PATIENCE
    while not [*kept.glob("docs-*/L2.npz")]:
        assert docs.search(query, 20)["item_id"] == ids
        assert time.monotonic() < end
        time.sleep(0.02)
    online: Any = docs.store._get_provider().online_store
    (searched,) = online.searched._views.values()
    assert searched.index.is_approximate(Metric.L2)
    assert docs.search(query, 20)["item_id"] == ids
    rows = EntityRows(docs.store)
    rows.compact()
    assert not [*kept.glob("*/*")]
    rows.delete([docs.view], "item_id", {str(ids[0])})
    docs.until(lambda found: ids[0] not in found["item_id"])
    assert docs.search(query, 19)["item_id"] == ids[1:]


def test_versions_and_spaces_of_a_view_are_searched_apart(
    documents: Callable[..., Documents],
) -> None:
    before = view("docs", tags=space_tag("shop", "v1-aa"))
    docs = documents(before, versions=True)
    docs.write({1: {"vector": [1.0] * WIDTH}, 2: {"vector": [2.0] * WIDTH}})
    tags = {**space_tag("shop", "v2-bb"), **versions_tag([docs.view])}
    docs.store.apply(view("docs", tags=tags))
    docs.view = docs.store.get_feature_view("docs")
    assert docs.search([0.0] * WIDTH)["distance"] == []
    docs.write({1: {"vector": [3.0] * WIDTH}})
    docs.until(lambda found: found["distance"] == [6.0])
    found = docs.store.retrieve_online_documents_v2(
        features=["docs@v1:vector"], query=[0.0] * WIDTH, top_k=3
    ).to_dict()
    assert (found["item_id"], found["distance"]) == ([1, 2], [2.0, 4.0])


def test_what_feast_makes_of_it_for_clients_of_openai(
    documents: Callable[..., Documents],
) -> None:
    class Embedder:
        async def aembed(self, texts: list[str]) -> list[list[float]]:
            return [[float(len(text))] * WIDTH for text in texts]

    docs = documents(view("docs", [Field(name="text", dtype=String)]))
    docs.write({n: {"vector": [float(n)] * WIDTH, "text": f"t{n}"} for n in (9, 4, 1)})
    docs.store.embedding_provider = Embedder()  # type: ignore[assignment]
    found = asyncio.run(docs.store.openai_search("docs", "four", max_num_results=2))
    assert [one["attributes"] for one in found["data"]] == [{"text": "t4"}, {"text": "t1"}]
    assert [one["score"] for one in found["data"]] == [1.0, 1 / 7.0]
    assert [one["file_id"].rsplit("_", 1)[1] for one in found["data"]] == ["4", "1"]
