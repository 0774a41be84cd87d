"""Every form of address, with a real Redis behind it; and servers that don't answer."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64
from redis import asyncio as redis_asyncio

from reki_feast.errors import StoreError
from reki_feast.stores import connecting
from reki_feast.stores.address import from_configured, from_url
from reki_feast.stores.readiness import look_at_online
from reki_feast.stores.serving import TensorReader
from tests.redis_server import HOST, plain_server
from tests.stores.online.conftest import OURS

ODD = "p%a:s/s?w#o[r]d @,=\"'ü"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
Configured = Callable[..., FeatureStore]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """Makes a repo with a view, its online store at an address."""

    def make(address: str, **options: Any) -> FeatureStore:
        config = RepoConfig(
            project="addressed",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": OURS, "connection_string": address, **options},
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
        source = FileSource(name="src", path="none.parquet", timestamp_field="time")
        fields = [Field(name="user_id", dtype=Int64), Field(name="n", dtype=Int64)]
        store.apply([user, FeatureView(name="v", entities=[user], schema=fields, source=source)])
        return store

    return make


def serves(store: FeatureStore) -> None:
    """Writes, and reads in all four ways."""
    store.write_to_online_store("v", pd.DataFrame({"user_id": [1, 2], "n": [7, 8], "time": NOW}))
    rows = [{"user_id": 2}, {"user_id": 9}]
    assert store.get_online_features(["v:n"], rows).to_dict()["n"] == [8, None]

    async def read() -> tuple[list[Any], list[Any]]:
        online: Any = store._get_provider().online_store
        found = await store.get_online_features_async(["v:n"], rows)
        await (await online._get_client_async(store.config.online_store)).aclose()
        async with TensorReader(store, ["v:n"], kind="numpy", timeout=60) as reader:
            batch = await reader.read_async({"user_id": [2, 9]})
        return found.to_dict()["n"], batch["n"].tolist()

    assert asyncio.run(read()) == ([8, None], [8, 0])
    with TensorReader(store, ["v:n"], kind="numpy", timeout=60) as reader:
        assert reader.read({"user_id": [2, 9]})["n"].tolist() == [8, 0]
    store._get_provider().online_store._client.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """A server with a socket file and a user whose password has odd signs; port and file."""
    folder = Path(tempfile.mkdtemp(prefix="r s"))  # short: a socket's path has 107 bytes at most
    options = ("--unixsocket", str(folder / "redis.sock"), "--bind", HOST, "-::1")
    try:
        with (
            plain_server(tmp_path_factory.mktemp("guarded"), *options) as port,
            redis.Redis(HOST, port) as client,
        ):
            client.execute_command("ACL", "SETUSER", "me:u", "on", f">{ODD}", "~*", "+@all")
            yield port, str(folder / "redis.sock")
    finally:
        shutil.rmtree(folder)


USER = f"{quote('me:u', safe='')}:{quote(ODD, safe='')}@"


@pytest.mark.parametrize(
    "url",
    [
        "redis://{user}127.0.0.1:{port}/3?client_name=shop&health_check_interval=1",
        "redis://localhost:{port}?db=2&protocol=3&max_connections=3&socket_keepalive=yes",
        "redis://127.0.0.1:{port}?username={name}&password={word}&retry_on_timeout=true",
        "unix://{file}?db=1",
        "unix://{user}{file}",
    ],
)
@pytest.mark.parametrize("by", ["variable", "file"])
def test_urls(
    guarded: tuple[int, str],
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    by: str,
) -> None:
    port, file = guarded
    again = quote(quote("me:u", safe="")), quote(quote(ODD, safe=""))  # redis-py unquotes twice
    address = url.format(user=USER, port=port, file=quote(file), name=again[0], word=again[1])
    if by == "variable":
        monkeypatch.setenv("REDIS_URL", address)
    serves(configured("elsewhere:1" if by == "variable" else address))


def test_feasts_form(guarded: tuple[int, str], configured: Configured) -> None:
    secret = from_url(f"redis://{USER}h").connection_string.removeprefix("h:6379,")
    serves(configured(f"127.0.0.1:{guarded[0]},db=3,{secret}"))


@pytest.mark.parametrize("form", ["redis://[::1]:{port}", "[::1]:{port},db=1"])
def test_ipv6(guarded: tuple[int, str], configured: Configured, form: str) -> None:
    try:
        socket.create_connection(("::1", guarded[0]), 1).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    serves(configured(form.format(port=guarded[0])))


@pytest.mark.parametrize("kind", ["redis_cluster", "redis_sentinel"])
def test_a_url_of_a_cluster_and_of_a_sentinel(
    request: pytest.FixtureRequest,
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    address = request.getfixturevalue(f"{kind.removeprefix('redis_')}_address")
    monkeypatch.setenv("REDIS_URL", f"redis://{address}/0?socket_timeout=90")
    store = configured("localhost", redis_type=kind)
    store.write_to_online_store("v", pd.DataFrame({"user_id": [1], "n": [7], "time": NOW}))
    assert store.get_online_features(["v:n"], [{"user_id": 1}]).to_dict()["n"] == [7]
    with TensorReader(store, ["v:n"], kind="numpy", timeout=60) as reader:
        assert reader.read({"user_id": [1]})["n"].tolist() == [7]
    store._get_provider().online_store._client.close()  # type: ignore[attr-defined]


def forwarded(client: Any, server: socket.socket) -> None:
    """What one side says, to the other, until one goes."""

    def pump(source: Any, sink: Any) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pump, args=(server, client), daemon=True)
    back.start()
    pump(client, server)
    back.join()
    client.close()
    server.close()


@pytest.fixture(scope="module")
def encrypted(
    tmp_path_factory: pytest.TempPathFactory, redis_address: str
) -> Iterator[tuple[int, Path]]:
    """TLS before the run's Redis, as a proxy gives it; its port, and its certificate.

    The embedded redis-server is built without TLS.
    """
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([openssl, "req", *made, *files, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    host, port = redis_address.split(":")

    def serve(raw: socket.socket) -> None:
        try:
            client = context.wrap_socket(raw, server_side=True)
        except OSError:  # a client that does not trust us
            raw.close()
            return
        forwarded(client, socket.create_connection((host, int(port))))

    with socket.create_server((HOST, 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(
                        target=serve, args=(listener.accept()[0],), daemon=True
                    ).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], folder / "cert.pem"
        listener.shutdown(socket.SHUT_RDWR)


TLS_OPTIONS = ["ssl_cert_reqs=none", "ssl_ca_certs={cert}&ssl_min_version=TLSv1_2"]
TLS_OPTIONS += ["ssl_ca_certs={cert}&ssl_check_hostname=no&ssl_ciphers=HIGH"]


@pytest.mark.parametrize("options", TLS_OPTIONS)
def test_tls(encrypted: tuple[int, Path], configured: Configured, options: str) -> None:
    port, cert = encrypted
    query = options.format(cert=quote(str(cert), safe=""))
    serves(configured(f"rediss://localhost:{port}/0?{query}"))


def test_tls_in_feasts_form(encrypted: tuple[int, Path], configured: Configured) -> None:
    serves(configured(f"localhost:{encrypted[0]},ssl=true,ssl_cert_reqs=none"))


def test_doctor_takes_the_same_address(
    encrypted: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"rediss://localhost:{encrypted[0]}?ssl_cert_reqs=none"
    monkeypatch.setenv("REDIS_URL", address)
    assert look_at_online(Path("none")).where == f"localhost:{encrypted[0]} answers"
    monkeypatch.setenv("REDIS_URL", f"{address}&decode_responses=yes")
    with pytest.raises(StoreError, match="option decode_responses"):
        look_at_online(Path("none"))


def test_a_certificate_that_nobody_vouches_for(
    encrypted: tuple[int, Path], configured: Configured
) -> None:
    store = configured(f"rediss://localhost:{encrypted[0]}")
    with pytest.raises(StoreError, match=r"(?s)answers\n.*CERTIFICATE_VERIFY_FAILED"):
        store.get_online_features(["v:n"], [{"user_id": 1}])


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that accepts and says nothing, as a Redis without TLS is to a TLS client."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_handshakes_have_the_time_to_connect(
    silent: int, configured: Configured, scheme: str, asynchronous: bool
) -> None:
    """With the time of an answer, a minute, this test would be killed."""
    store = configured(f"{scheme}://127.0.0.1:{silent}/1?socket_connect_timeout=0.2")
    wanted = "TLS there" if scheme == "rediss" else "see that"
    read = read_async if asynchronous else read_sync
    with pytest.raises(StoreError, match=rf"(?s)127\.0\.0\.1:{silent} answers in time.*{wanted}"):
        read(store)


def read_sync(store: FeatureStore) -> None:
    store.get_online_features(["v:n"], [{"user_id": 1}])


def read_async(store: FeatureStore) -> None:
    asyncio.run(asynchronously(store))


async def asynchronously(store: FeatureStore) -> None:
    online: Any = store._get_provider().online_store
    try:
        await store.get_online_features_async(["v:n"], [{"user_id": 1}])
    finally:
        await (await online._get_client_async(store.config.online_store)).aclose()


@pytest.mark.parametrize(
    ("address", "waits"),
    [
        ("h", (5.0, 60.0)),
        ("redis://h", (5.0, 60.0)),
        ("rediss://h?socket_timeout=90", (5.0, 90.0)),
        ("redis://h?socket_timeout=2", (2.0, 2.0)),
        ("redis://h?socket_connect_timeout=9", (9.0, 60.0)),
        ("unix:///s?socket_connect_timeout=0.5", (0.5, 60.0)),
    ],
)
@pytest.mark.parametrize("library", [redis, redis_asyncio])
def test_every_connection_has_a_limit(
    address: str, waits: tuple[float, float], library: Any
) -> None:
    client = connecting.make_client(library, from_configured(address))
    made = client.connection_pool.make_connection()
    assert (made.socket_connect_timeout, made.socket_timeout) == waits
    assert made.retry.get_retries() == 1


@pytest.mark.parametrize("kind", ["redis", "redis_cluster", "redis_sentinel"])
def test_a_server_that_is_down_is_not_waited_for(
    configured: Configured, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pause between tries: redis-py's own add up to ten seconds."""
    pauses: list[float] = []
    monkeypatch.setattr("redis.retry.sleep", pauses.append)
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    store = configured(f"127.0.0.1:{port}", redis_type=kind)
    with pytest.raises(StoreError, match=r"(?s)answers\n  detail: .*hint:   see that it runs"):
        store.get_online_features(["v:n"], [{"user_id": 1}])
    assert not any(pauses)


def test_a_wrong_password(guarded: tuple[int, str], configured: Configured) -> None:
    store = configured(f"redis://nobody:wrong@127.0.0.1:{guarded[0]}")
    with pytest.raises(StoreError, match=r"(?s)AuthenticationError.*correct user and password in"):
        store.get_online_features(["v:n"], [{"user_id": 1}])


def test_an_option_that_redis_py_does_not_know(configured: Configured) -> None:
    store = configured("localhost:6379,sockt_timeout=1")
    with pytest.raises(StoreError, match=r"(?s)has options of redis-py.*sockt_timeout"):
        store.get_online_features(["v:n"], [{"user_id": 1}])
