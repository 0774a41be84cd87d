"""``get_online_features`` of our store: the stock store's answer, but for what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import String
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from reki_feast.errors import StoreError
from reki_feast.stores.online import reader, wire

KNOWN = 20  # rows of each view
ALL_NULL = 7  # a row that is there and has no value
DEFAULT = Value(float_list_val=FloatList(val=[0.5, -0.5]))


def expected(
    repo: Any, response: OnlineResponse, rows: dict[str, list[int]], aliases: dict[str, str]
) -> GetOnlineFeaturesResponse:
    """The stock store's answer, with what it says of unknown rows set right."""
    proto = GetOnlineFeaturesResponse()
    proto.CopyFrom(response.proto)
    for column, vector in zip(proto.metadata.feature_names.val, proto.results, strict=True):
        name = column.rpartition("__")[2]
        of_view = next((keys for keys, features in repo.views().values() if name in features), None)
        if of_view is None:
            continue  # an entity, or an on-demand feature
        keys = [aliases.get(column, key) for key in of_view]
        for row, value in enumerate(vector.values):
            places = {rows[key][row] for key in keys if key in rows} or {0}
            known = len(places) == 1 and places < {*range(KNOWN)}
            null = value.WhichOneof("val") is None
            if not known or (null and name == "user_aug"):
                vector.statuses[row] = FieldStatus.NOT_FOUND
                if name == "user_aug":
                    value.CopyFrom(DEFAULT)
    return proto


async def close(store: FeatureStore) -> None:
    """Close the client of this event loop; the next loop's is another."""
    online: Any = store._get_provider().online_store
    client: Any = await online._get_client_async(store.config.online_store)
    await client.aclose()
    if manager := getattr(getattr(client, "connection_pool", None), "sentinel_manager", None):
        for sentinel in manager.sentinels:
            await sentinel.aclose()
    online._client_async = None


def read(store: FeatureStore, asynchronous: bool, *args: Any, **options: Any) -> OnlineResponse:
    if not asynchronous:
        return store.get_online_features(*args, **options)

    async def main() -> OnlineResponse:
        try:
            return await store.get_online_features_async(*args, **options)
        finally:
            await close(store)

    return asyncio.run(main())


def check(
    repo: Any,
    features: Any,
    rows: dict[str, list[int]],
    aliases: dict[str, str] | None = None,
    by_row: bool = False,
    asynchronous: bool = False,
    **options: Any,
) -> OnlineResponse:
    """Read by both stores, by their own services where ``features`` is a service's name."""
    given: Any = {name: [repo.value(name, row) for row in column] for name, column in rows.items()}
    if by_row:
        given = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    answers = []
    for store in repo:
        asked = features if isinstance(features, list) else store.get_feature_service(features)
        answers.append(read(store, asynchronous, asked, given, **options))
    stock, ours = answers
    assert ours.proto == expected(repo, stock, rows, aliases or {})
    again = OnlineResponse(ours.proto, stock._feature_types)
    assert ours.to_dict(True) == again.to_dict(True)
    return ours


class Batch:
    """GLIDE's own client is a package apart; this one takes its commands to redis-py."""

    def __init__(self, is_atomic: bool) -> None:
        assert not is_atomic
        self.commands: list[Any] = []

    def hmget(self, key: bytes, fields: list[Any]) -> None:
        self.commands.append((key, fields))


class Glide:
    def __init__(self, client: Any) -> None:
        self.client = client
        self.batches = 0

    def exec(self, batch: Batch, raise_on_error: bool) -> list[Any]:
        assert raise_on_error
        self.batches += 1
        return [self.client.hmget(key, fields) for key, fields in batch.commands]


def by_glide(repo: Any) -> Any:
    for store in repo:
        online = store._get_provider().online_store
        online._glide_sync = SimpleNamespace(Batch=Batch, GlideClusterClient=type(None))
        online._glide_client = Glide(online._get_client(store.config.online_store))
    return repo


@pytest.fixture(
    scope="module", params=["plain", "packed", "cluster", "packed cluster", "sentinel", "glide"]
)
def any_repo(request: pytest.FixtureRequest, make_repo: Callable[..., Any]) -> Any:
    """The repo over each kind of Redis and client, and in each layout."""
    kind = request.param
    layout = {"layout": "packed"} if "packed" in kind else {}
    if "cluster" in kind:
        address = request.getfixturevalue("cluster_address")
        return make_repo(address, redis_type="redis_cluster", **layout)
    if kind == "sentinel":
        return make_repo(request.getfixturevalue("sentinel_address"), redis_type="redis_sentinel")
    address = request.getfixturevalue("redis_address")
    if kind == "glide":
        return by_glide(make_repo(address, client="glide"))
    return make_repo(address, **layout)


@pytest.mark.parametrize("asynchronous", [False, True])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_features_of_any_entities(
    any_repo: Any, asynchronous: bool, data: st.DataObject
) -> None:
    views = any_repo.views()
    every = [f"{view}:{feature}" for view, (_, features) in views.items() for feature in features]
    refs = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    keys = {key for ref in refs for key in views[ref.partition(":")[0]][0]} or {"user_id"}
    count = data.draw(st.integers(1, 12))
    row = st.lists(st.integers(0, KNOWN + 4), min_size=count, max_size=count)
    rows = {key: data.draw(row) for key in data.draw(st.permutations(sorted(keys)))}
    check(
        any_repo,
        refs,
        rows,
        by_row=data.draw(st.booleans()),
        asynchronous=asynchronous,
        full_feature_names=data.draw(st.booleans()),
        include_feature_view_version_metadata=data.draw(st.booleans()),
    )


@pytest.mark.parametrize("layout", ["hash", "packed"])
def test_all_views_in_one_go(
    make_repo: Callable[..., Any], redis_address: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, asked = make_repo(redis_address, layout), list[int]()
    whole = wire.execute

    def watched(client: Any, commands: bytes, count: int) -> list[Any]:
        asked.append(count)
        return whole(client, commands, count)

    monkeypatch.setattr(reader, "execute", watched)
    check(repo, "every", {"user_id": [1, 2, 1], "sku": [1, 2, 1], "shop_id": [1, 2, 3]})
    # users, items, pairs, shops, world, reki, vectors
    assert asked == [2 + 2 + 2 + 3 + 1 + 2 + (2 if layout == "hash" else 1)]


def test_glide_reads_what_is_in_hashes(make_repo: Callable[..., Any], redis_address: str) -> None:
    for layout, batches in (("hash", 1), ("packed", 0)):
        repo = by_glide(make_repo(redis_address, layout, client="glide"))
        check(repo, ["vectors:left"], {"user_id": [1, 2], "sku": [1, 2]})
        assert repo.ours._get_provider().online_store._glide_client.batches == batches


def test_redis_goes_away(make_repo: Callable[..., Any], lone_redis: Callable[[], str]) -> None:
    repo = make_repo(lone_redis())
    host, port = lone_redis().split(":")
    rows = {"user_id": [repo.value("user_id", 1)]}
    theirs: Any = repo.stock._get_provider().online_store
    theirs._client = redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.ConnectionError, match="refused"):
        repo.stock.get_online_features(["users:n"], rows)
    with pytest.raises(StoreError, match=rf"(?s)Redis at {host}:{port} answers.*refused.*runs"):
        repo.ours.get_online_features(["users:n"], rows)


MANY = [*range(KNOWN), KNOWN, 3, 3, ALL_NULL, 0]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
class TestServices:
    def test_every_view(self, repo: Any, full: bool, asynchronous: bool) -> None:
        rows = {"user_id": MANY, "sku": MANY[::-1], "shop_id": MANY[3:] + MANY[:3]}
        check(repo, "every", rows, asynchronous=asynchronous, full_feature_names=full)

    def test_an_alias_with_another_key(self, repo: Any, full: bool, asynchronous: bool) -> None:
        rows = {"user_id": [1, KNOWN, 2], "sku": [1, 2, 2], "friend_id": [KNOWN, 5, 5]}
        aliases = {"n": "friend_id", "friend__n": "friend_id"}
        found = check(
            repo, "friends", rows, aliases, asynchronous=asynchronous, full_feature_names=full
        )
        assert found.to_dict()["friend__n" if full else "n"] == [None, 5, 5]

    def test_some_features_of_a_view(self, repo: Any, full: bool, asynchronous: bool) -> None:
        check(repo, "narrow", {"sku": MANY}, asynchronous=asynchronous, full_feature_names=full)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("refs", [["scaled:scaled"], ["users:s", "scaled:scaled", "reki:text"]])
def test_on_demand_views(repo: Any, refs: list[str], asynchronous: bool) -> None:
    rows = {"user_id": [3, 4, 4], "factor": [1, 3, 5]}
    found = check(repo, refs, rows, asynchronous=asynchronous)
    assert found.to_dict()["scaled"] == [3, 12, 20]


def test_request_data_alone(repo: Any) -> None:
    """A call that reads no view asks Redis nothing."""
    rows = {"user_id": [KNOWN + 1], "factor": [1]}
    check(repo, ["scaled:scaled"], rows)


def test_what_is_there_and_what_is_not(repo: Any) -> None:
    refs = ["reki:user_aug", "reki:text", "users:n"]
    found = check(repo, refs, {"user_id": [1, ALL_NULL, KNOWN]})
    assert found.to_dict() == {
        "user_id": [(1 << 33) + row for row in (1, ALL_NULL, KNOWN)],
        "user_aug": [[0.25, -1.5], [0.5, -0.5], [0.5, -0.5]],
        "text": ["s", None, None],
        "n": [1, None, None],
    }
    columns = dict(zip(found.proto.metadata.feature_names.val, found.proto.results, strict=True))
    yes, no = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    assert list(columns["user_aug"].statuses) == [yes, no, no]
    assert list(columns["text"].statuses) == [yes, yes, no]
    assert list(columns["n"].statuses) == [yes, yes, no]
    assert [t.seconds > 0 for t in columns["n"].event_timestamps] == [True, True, False]


def test_an_entity_known_to_another_view_only(repo: Any) -> None:
    """Its hash is there, without the view's event time."""
    online: Any = repo.ours._get_provider().online_store
    client = online._get_client(repo.ours.config.online_store)
    (key,) = online._generate_redis_keys_for_entities(repo.ours.config, [user_key(repo, 5)])
    stored = client.hgetall(key)
    client.hdel(key, "_ts:users")
    try:
        rows = {"user_id": [repo.value("user_id", 5)]}
        found = repo.ours.get_online_features(["users:n", "reki:text"], rows)
    finally:
        client.hset(key, mapping=stored)
    assert found.to_dict() == {**rows, "n": [None], "text": ["sssss"]}
    columns = zip(found.proto.metadata.feature_names.val, found.proto.results, strict=True)
    statuses = {name: list(vector.statuses) for name, vector in columns}
    assert statuses["n"] == [FieldStatus.NOT_FOUND]
    assert statuses["text"] == [FieldStatus.PRESENT]


def user_key(repo: Any, row: int) -> EntityKey:
    return EntityKey(
        join_keys=["user_id"], entity_values=[Value(int64_val=repo.value("user_id", row))]
    )


@pytest.mark.parametrize("features", [None, ["n", "vec"]])
@pytest.mark.parametrize("view", ["users", "reki"])
def test_online_read(repo: Any, view: str, features: list[str] | None) -> None:
    """The stock store's rows; asked for directly, defaults take the place of nulls."""
    keys = [user_key(repo, row) for row in (1, ALL_NULL, KNOWN, 1)]
    names = features if view == "users" else None
    answers = []
    for store in repo:
        table = store.get_feature_view(view)
        online = store._get_provider().online_store
        rows = online.online_read(store.config, table, keys, names and list(names))

        async def later(store: Any = store, table: Any = table, online: Any = online) -> Any:
            try:
                return await online.online_read_async(
                    store.config, table, keys, names and list(names)
                )
            finally:
                await close(store)

        assert asyncio.run(later()) == rows
        answers.append(rows)
    if view == "reki":
        for row in (1, 2):
            assert answers[1][row][1]["user_aug"] == DEFAULT
            answers[0][row][1]["user_aug"] = DEFAULT
    assert answers[1] == answers[0]


REFUSED: list[tuple[Any, Any, str]] = [
    (["users:n"], [], "list index out of range"),
    (["users:n"], {}, "pop from an empty set"),
    (["users:n"], {"sku": ["x"]}, "Missing join key values"),
    (["users:n"], {"user_id": []}, "Missing join key values"),
    (["users:n"], {"user_id": [None, 1]}, "not 'NoneType'"),
    (["users:n"], {"user_id": [1 << 63]}, "Value out of range"),
    (["users:n"], {"user_id": ["x"]}, "invalid literal for int"),
    (["users:n"], {"user_id": 5}, "no attribute 'val'"),
    (["items:tags"], {"sku": ["\ud800"]}, "surrogates not allowed"),
    (["users:n"], [{"user_id": 1}, {"user_id": 1, "sku": "x"}], "have the same keys"),
    (["users:n"], [{"user_id": 1, "sku": "x"}, {"user_id": 1}], "have the same columns"),
    (["users:n"], {"user_id": [1], "sku": ["x", "y"]}, "have the same columns"),
    (["users:nothing"], {"user_id": [1]}, "nothing not found in projection"),
    (["nobody:n"], {"user_id": [1]}, "nobody does not exist"),
    (["users"], {"user_id": [1]}, "Invalid feature reference"),
    ([], {"user_id": [1]}, "No features specified"),
    (["users:n", "users:n"], {"user_id": [1]}, "Duplicate features named n"),
    (["scaled:scaled"], {"user_id": [1]}, "factor.*not found in the entity rows"),
]


@pytest.mark.parametrize(("features", "rows", "words"), REFUSED)
def test_what_feast_refuses_is_refused_with_its_words(
    repo: Any, features: Any, rows: Any, words: str
) -> None:
    errors = []
    for store in repo:
        with pytest.raises(Exception, match=words) as error:
            store.get_online_features(features, rows)
        errors.append((error.type, str(error.value)))
    assert errors[0] == errors[1]


ACCEPTED: list[tuple[list[str], dict[str, Any]]] = [
    (["users:n"], {"user_id": [float(1 << 33), 2]}),
    (["users:n"], {"user_id": ["8589934593"]}),
    (["items:tags"], {"sku": ["", 5]}),
    (["items:tags"], {"sku": [Value(string_val="ключ 3"), Value(string_val="x")]}),
    (["users:n"], {"user_id": [Value(int64_val=(1 << 33) + 3)]}),
    (["shops:size"], {"shop_id": [3, 4, 3]}),
    (["users:n"], {"user_id": [1 << 33], "unheard_of": [3]}),
    (["pairs:score"], {"user_id": [1 << 33]}),
    (["world:g"], {"user_id": [1, 2]}),
    (["world:g"], {"__dummy_id": ["", ""]}),
]


@pytest.mark.parametrize(("features", "rows"), ACCEPTED)
def test_odd_rows_that_feast_takes(repo: Any, features: list[str], rows: dict[str, Any]) -> None:
    stock, ours = (store.get_online_features(features, rows) for store in repo)
    assert ours.to_dict(True) == stock.to_dict(True)
    assert ours.proto.metadata == stock.proto.metadata


def test_ready_made_answers(make_repo: Callable[..., Any], redis_address: str) -> None:
    """Feast's own code reads them; the rows they are made of, and they themselves, come by ours."""
    repo = make_repo(redis_address)
    service = FeatureService(name="ready", features=[repo.ours.get_feature_view("users")])
    service.precompute_online = True
    for store in repo:
        store.apply([service])
    keys = [repo.value("user_id", row) for row in (3, 4, 3)]
    answers = {}
    for writer in repo:
        assert writer.precompute_feature_service("ready") == KNOWN
        for number, store in enumerate(repo):
            asked = store.get_feature_service("ready")
            for asynchronous in (False, True):
                found = read(
                    store, asynchronous, asked, {"user_id": keys}, full_feature_names=True
                ).to_dict()
                assert found["users__n"] == [3, 4, 3]
            answers[number] = found
    assert answers[0] == answers[1]


def test_versions_of_a_view(
    tmp_path: Path, make_repo: Callable[..., Any], redis_address: str
) -> None:
    repo = make_repo(redis_address, versions=True)
    for store in repo:
        old = store.get_feature_view("shops")
        schema = [*old.entity_columns, *old.features, Field(name="colour", dtype=String)]
        shop = store.get_entity("shop")
        store.apply(
            [FeatureView(name="shops", entities=[shop], schema=schema, source=old.batch_source)]
        )
        assert store.get_feature_view("shops").current_version_number == 1
    rows = {"shop_id": [1, 2, KNOWN]}
    for refs in (["shops@v0:size"], ["shops:size"], ["shops@v0:size", "shops@v1:colour"]):
        stock, ours = (
            store.get_online_features(
                refs, rows, full_feature_names=True, include_feature_view_version_metadata=True
            )
            for store in repo
        )
        assert ours.proto.metadata == stock.proto.metadata
        assert ours.to_dict(True) == stock.to_dict(True)
    assert ours.to_dict()["shops@v0__size"] == [1, 2, None]


@pytest.mark.filterwarnings("ignore:Using entity name is deprecated:UserWarning")
def test_entities_by_their_names(repo: Any) -> None:
    stock, ours = (
        store.get_online_features(["users:n"], {"user": [(1 << 33) + 3]}) for store in repo
    )
    assert ours.proto == stock.proto
    assert ours.to_dict()["n"] == [3]


def test_what_the_feature_server_says(repo: Any) -> None:
    from feast.feature_server import GetOnlineFeaturesRequest, get_app

    body = GetOnlineFeaturesRequest(
        feature_service="every",
        entities={"user_id": [(1 << 33) + 1], "sku": ["ключ 1"], "shop_id": [1]},
        full_feature_names=True,
        include_feature_view_version_metadata=True,
    )
    answers = []
    for store in repo:
        route: Any = next(
            r for r in get_app(store).routes if getattr(r, "path", "") == "/get-online-features"
        )

        async def main(store: Any = store, route: Any = route) -> bytes:
            try:
                return bytes((await route.endpoint(body)).body)
            finally:
                await close(store)

        answers.append(asyncio.run(main()))
    assert answers[1] == answers[0]
    assert b'"reki__user_aug"' in answers[1]
