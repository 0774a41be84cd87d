"""A repo's Redis is looked at before a run has paid for rows that it does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from reki_feast.errors import StoreError
from reki_feast.stores import embedded
from reki_feast.stores.readiness import check_writable, look_at_online
from tests.redis_server import HOST, free_port, plain_server
from tests.stores.online.conftest import OURS

CONFIG = """
project: looked
provider: local
registry: registry.db
online_store: {{type: {kind}, {where}}}
entity_key_serialization_version: 3
"""
KINDS = ["redis", OURS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with plain_server(tmp_path_factory.mktemp("looked at")) as port:
        yield port


@pytest.fixture
def admin(server: int) -> Iterator[redis.Redis]:
    """The server as it was before, whatever a test sets."""
    with redis.Redis(HOST, server) as client:
        client.acl_setuser("writer", enabled=True, passwords=["+pw"], keys=["*looked"])
        yield client
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("writer")


@pytest.fixture
def repo_at(tmp_path: Path) -> Callable[..., Path]:
    """Makes a repo whose online store is a Redis, and that names no view."""

    def make(address: str, kind: str = OURS, more: str = "") -> Path:
        where = f"connection_string: '{address}'{more}"
        (tmp_path / "feature_store.yaml").write_text(CONFIG.format(kind=kind, where=where))
        return tmp_path

    return make


def allow(admin: redis.Redis, *rights: str) -> None:
    admin.acl_setuser("writer", enabled=True, keys=["*looked"], commands=["-@all", *rights])


WRITER = "{}:{},username=writer,password=pw"
CAN_WRITE = ("+@connection", "+hget", "+hmget", "+hset")


@pytest.mark.parametrize("kind", KINDS)
def test_who_may_write_rows_may(
    repo_at: Callable[..., Path], admin: redis.Redis, server: int, kind: str
) -> None:
    allow(admin, *CAN_WRITE, "+del")
    check_writable(repo_at(WRITER.format(HOST, server), kind))
    assert admin.dbsize() == 0


REFUSED: dict[str, tuple[Callable[[redis.Redis], object], str]] = {
    "account": (
        lambda admin: allow(admin, "+@connection", "+@read", "+del"),
        r"(?s)allows its user the command.*'hset'.*ACL SETUSER",
    ),
    "replica": (
        lambda admin: admin.replicaof(HOST, "1"),
        r"(?s)takes what is written.*name the primary in",
    ),
    "full": (
        lambda admin: admin.config_set("maxmemory", 1),
        r"(?s)has memory for what is written.*raise its maxmemory",
    ),
    "password": (
        lambda admin: admin.acl_setuser("writer", passwords=["+other", "-pw"]),
        r"(?s)knows the user and the password.*correct user and password in",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", list(REFUSED))
def test_who_may_not_is_told_why(
    repo_at: Callable[..., Path], admin: redis.Redis, server: int, why: str, kind: str
) -> None:
    allow(admin, *CAN_WRITE, "+del")
    spoil, said = REFUSED[why]
    spoil(admin)
    with pytest.raises(StoreError, match=said) as found:
        check_writable(repo_at(WRITER.format(HOST, server), kind))
    assert "pw" not in str(found.value)
    assert admin.dbsize() == 0


def test_packed_rows_want_another_right(
    repo_at: Callable[..., Path], admin: redis.Redis, server: int
) -> None:
    allow(admin, *CAN_WRITE, "+del")
    repo = repo_at(WRITER.format(HOST, server), more=", layout: packed")
    with pytest.raises(StoreError, match=r"(?s)the command.*'set'"):
        check_writable(repo)
    allow(admin, *CAN_WRITE, "+del", "+set")
    check_writable(repo)


@pytest.mark.parametrize("look", [check_writable, look_at_online])
def test_nobody_is_there(repo_at: Callable[..., Path], look: Callable[[Path], object]) -> None:
    port = free_port()
    with pytest.raises(StoreError, match=rf"{port} answers\n.*Connection refused"):
        look(repo_at(f"{HOST}:{port}"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "allkeys-random", "volatile-ttl"])
def test_a_server_that_may_drop_rows_is_remarked(
    repo_at: Callable[..., Path], admin: redis.Redis, server: int, policy: str, kind: str
) -> None:
    admin.config_set("maxmemory", 100 << 20)
    admin.config_set("maxmemory-policy", policy)
    found = look_at_online(repo_at(f"{HOST}:{server}", kind))
    assert found.where == f"{HOST}:{server} answers"
    assert len(found.remarks) == (policy != "noeviction")
    for remark in found.remarks:
        assert f"(maxmemory 100.00M, maxmemory-policy {policy}): set" in remark


def test_who_may_not_be_told_the_policy_is_told_nothing(
    repo_at: Callable[..., Path], admin: redis.Redis, server: int
) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")
    allow(admin, "+@connection")
    assert look_at_online(repo_at(WRITER.format(HOST, server))).remarks == ()


def test_an_embedded_server_is_started_for_rows_alone(repo_at: Callable[..., Path]) -> None:
    repo = repo_at("embedded:redis")
    assert look_at_online(repo).where.startswith("embedded, ")
    assert not (repo / "redis").exists()
    try:
        check_writable(repo)
        status = embedded.status(repo / "redis")
    finally:
        embedded.stop(repo / "redis")
    assert (status.running, status.keys) == (True, 0)


def test_other_stores_are_passed_by(tmp_path: Path) -> None:
    config = CONFIG.format(kind="sqlite", where="path: online.db")
    (tmp_path / "feature_store.yaml").write_text(config)
    check_writable(tmp_path)
    assert look_at_online(tmp_path).where == "none is used: the online store is sqlite"
    assert [path.name for path in tmp_path.iterdir()] == ["feature_store.yaml"]
