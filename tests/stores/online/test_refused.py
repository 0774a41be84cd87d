"""A Redis that is full, drops keys, or does not let its user do something: the cause is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from feast import FeatureStore

from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import materialize_views
from reki_feast.stores.connecting import refusal
from reki_feast.stores.counting import count_online, verify_materialized
from reki_feast.stores.serving import TensorReader
from tests.redis_server import HOST, plain_server
from tests.stores.conftest import LATER, Published

USERS = 3000
#: Bytes: what an empty server takes, and not all of the rows.
LITTLE = 1_500_000
ROWS = [{"user_id": 1 << 40}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with plain_server(tmp_path_factory.mktemp("full redis")) as port:
        yield port


@pytest.fixture
def admin(server: int) -> Iterator[redis.Redis]:
    """The server as it was before, whatever a test sets."""
    with redis.Redis(HOST, server) as client:
        yield client
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.flushall()
        for user in ("reader", "nobody"):
            client.acl_deluser(user)


@pytest.fixture
def at(tmp_path: Path, make_store: Callable[..., FeatureStore]) -> Callable[..., FeatureStore]:
    """Makes a repo of published tables over a server."""
    keys = Key("user_id", pa.int64()), Key("sku", pa.string())
    published = Published(tmp_path / "movies", *keys, users=USERS).write()

    def make(
        address: str, kind: str = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
    ) -> Any:
        store = make_store({"type": kind, "connection_string": address}, project="refused")
        objects: list[Any] = [*published.entities(), *published.views()]
        store.apply(objects)
        return store

    return make


def read(store: FeatureStore) -> None:
    store.get_online_features(["reki:user_aug"], ROWS).to_dict()


def read_tensors(store: FeatureStore) -> None:
    with TensorReader(store, ["reki:user_aug"], kind="numpy", timeout=60) as reader:
        reader.read({"user_id": [1 << 40]})


def write(store: FeatureStore) -> None:
    materialize_views(store, ["reki"], LATER)


def count(store: FeatureStore) -> None:
    count_online(store, "reki")


def user(admin: redis.Redis, *rights: str) -> None:
    admin.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=list(rights))


ALL = {"read": read, "tensors": read_tensors, "write": write, "count": count}
WRONG = r"(?s)knows the user and the password.*AuthenticationError.*correct user and password in"
MAY_NOT = r"(?s)allows its user the command.*NOPERM.*'{}'.*(give the user of|ACL SETUSER)"


@pytest.mark.parametrize("what", list(ALL))
@pytest.mark.parametrize(
    "address", ["redis://reader:wrong@{}:{}", "{}:{},username=reader,password=wrong"]
)
def test_a_wrong_password(
    at: Callable[..., FeatureStore], admin: redis.Redis, server: int, address: str, what: str
) -> None:
    user(admin, "+@all")
    store = at(address.format(HOST, server))
    with pytest.raises(StoreError, match=WRONG) as found:
        ALL[what](store)
    assert "memory" not in str(found.value)
    assert "wrong" not in str(found.value)


def test_no_password_where_one_is_wanted(at: Callable[..., FeatureStore], tmp_path: Path) -> None:
    with plain_server(tmp_path / "redis") as port, redis.Redis(HOST, port) as client:
        client.config_set("requirepass", "secret")
        for what in (read, write):
            with pytest.raises(StoreError, match=WRONG):
                what(at(f"{HOST}:{port}"))


@pytest.mark.parametrize(
    ("what", "rights", "command"),
    [("write", ["+@read", "+@connection"], "hset"), ("read", ["+@connection"], "hmget")],
)
def test_an_account_that_may_not(
    at: Callable[..., FeatureStore],
    admin: redis.Redis,
    server: int,
    what: str,
    rights: list[str],
    command: str,
) -> None:
    user(admin, *rights)
    store = at(f"redis://reader:pw@{HOST}:{server}")
    with pytest.raises(StoreError, match=MAY_NOT.format(command)):
        ALL[what](store)


def test_an_account_that_only_reads_serves(
    at: Callable[..., FeatureStore], admin: redis.Redis, server: int
) -> None:
    write(at(f"{HOST}:{server}"))
    user(admin, "+@read", "+@connection")
    for what in (read, read_tensors, count):
        what(at(f"redis://reader:pw@{HOST}:{server}"))


def test_a_full_server(at: Callable[..., FeatureStore], admin: redis.Redis, server: int) -> None:
    store = at(f"{HOST}:{server}")
    admin.config_set("maxmemory", LITTLE)
    with pytest.raises(
        StoreError, match=r"(?s)has memory for what is written.*raise its maxmemory"
    ):
        write(store)
    read(store)


@pytest.mark.parametrize("kind", ["redis", "reki_feast.stores.redis_online.RekiRedisOnlineStore"])
def test_a_server_that_drops_keys(
    at: Callable[..., FeatureStore], admin: redis.Redis, server: int, kind: str
) -> None:
    """Also where the engine is ours: it is not what loses rows."""
    admin.config_set("maxmemory", LITTLE)
    admin.config_set("maxmemory-policy", "allkeys-lru")
    wanted = r"(?s)rows online of 3000 .*Redis dropped .* allkeys-lru.*maxmemory-policy noeviction"
    with pytest.raises(StoreError, match=wanted) as found:
        write(at(f"{HOST}:{server}", kind))
    assert "batch_engine" not in str(found.value)


OURS = {"type": "reki_feast.stores.engine.RekiComputeEngine"}
LOST = {"local": "set `batch_engine", "ours": "see that nothing else deletes rows there"}


@pytest.mark.parametrize("engine", list(LOST))
def test_only_an_engine_that_loses_rows_is_blamed(
    at: Callable[..., FeatureStore], admin: redis.Redis, server: int, engine: str
) -> None:
    store = at(f"{HOST}:{server}")
    config: Any = store.config
    config.batch_engine_config, config._batch_engine = (
        {"local": "local", "ours": OURS}[engine],
        None,
    )
    store._provider = None
    write(store)
    admin.config_resetstat()
    admin.flushall()
    wanted = rf"0 rows online of 3000 ids in the source\n  hint:   {LOST[engine]}"
    with pytest.raises(StoreError, match=wanted):
        verify_materialized(store, ["reki"], end=LATER)


#: An error, and what the mend begins with; None where Redis did not refuse.
REFUSED: list[tuple[Exception, str | None]] = [
    (redis.exceptions.OutOfMemoryError("OOM command not allowed"), "raise its maxmemory"),
    (redis.ReadOnlyError("You can't write against a read only replica."), "name the primary in x"),
    (redis.ResponseError("MISCONF Redis is configured to save"), "see that its disk has room"),
    (redis.AuthenticationError("invalid username-password pair"), "correct user and password in x"),
    (redis.exceptions.NoPermissionError("NOPERM no right"), "give the user of x"),
    (redis.ResponseError("ERR unknown command"), None),
    (redis.ConnectionError("Connection refused"), None),
]


@pytest.mark.parametrize("beneath", [False, True])
@pytest.mark.parametrize(("error", "begins"), REFUSED)
def test_the_mend_of_a_refusal(error: Exception, begins: str | None, *, beneath: bool) -> None:
    """A cluster's client raises an error of its own, with the cause beneath it."""
    if beneath:
        cause, error = error, redis.exceptions.ClusterError("cannot be connected")
        error.__cause__ = cause
    found = refusal(error, "x")
    assert (found is None) == (begins is None)
    assert found is None or found[1].startswith(begins or "")
