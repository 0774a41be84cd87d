"""Bytes to a real Redis and back; what goes wrong is redis-py's own error."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from reki_feast.stores.online.wire import execute, execute_async, open_pipeline

ONCE = Retry(NoBackoff(), 0)


def single(name: bytes, arguments: list[bytes]) -> bytes:
    """One packed command."""
    parts = [name, *arguments]
    head = b"*%d\r\n" % len(parts)
    return head + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def client(address: str, **options: object) -> redis.Redis:
    host, port = address.split(":")
    return redis.Redis(host=host, port=int(port), db=9, **options)  # type: ignore[arg-type]


def test_replies_come_in_order(redis_address: str) -> None:
    one = client(redis_address)
    names = [b"w%d" % n for n in range(3_000)]
    big = b"x\r\n$-1\r\n" * 40_000  # more than one chunk, and looks like replies
    setting = b"".join(single(b"SET", [n, n * 2]) for n in names) + single(b"SET", [b"big", big])
    assert set(execute(one, setting, 3_001)) == {b"OK"}
    asking = b"".join(single(b"GET", [name]) for name in [*names, b"none", b"big"])
    assert execute(one, asking, 3_002) == [*(name * 2 for name in names), None, big]
    hashes = single(b"HSET", [b"h", b"f", b"v"]) + single(b"HMGET", [b"h", b"f", b"g"])
    assert execute(one, hashes, 2) in ([1, [b"v", None]], [0, [b"v", None]])
    one.close()


def test_nothing_to_ask() -> None:
    assert execute(None, b"", 0) == []
    assert asyncio.run(execute_async(None, b"", 0)) == []


def test_the_same_asynchronously(redis_address: str) -> None:
    async def main() -> list[object]:
        host, port = redis_address.split(":")
        one: Any = redis.asyncio.Redis(host=host, port=int(port), db=9)
        many = b"".join(single(b"ECHO", [b"%d" % n * 500]) for n in range(2_000))
        found = await execute_async(one, many, 2_000)
        with pytest.raises(redis.ResponseError, match="unknown command"):
            await execute_async(one, single(b"NONSENSE", []), 1)
        assert await one.ping()
        await one.aclose()
        return found

    assert asyncio.run(main()) == [b"%d" % n * 500 for n in range(2_000)]


def test_an_error_among_replies_leaves_the_pool_clean(redis_address: str) -> None:
    one = client(redis_address)
    wrong = single(b"SET", [b"s", b"v"]) + single(b"HGET", [b"s", b"f"]) + single(b"GET", [b"s"])
    for _ in range(3):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            execute(one, wrong, 3)
        assert execute(one, single(b"GET", [b"s"]), 1) == [b"v"]
    one.close()


def test_a_link_takes_commands_while_replies_are_open(redis_address: str) -> None:
    one = client(redis_address)
    with open_pipeline(one) as line:
        line.send(single(b"ECHO", [b"a"]))
        line.send(single(b"ECHO", [b"b"]) + single(b"ECHO", [b"c"]))
        assert line.replies(2) == [b"a", b"b"]
        line.send(single(b"ECHO", [b"d"]))
        assert line.replies(2) == [b"c", b"d"]
    one.close()


@contextmanager
def server(answer: bytes) -> Iterator[tuple[str, int]]:
    """Takes connections one after another, answers a command with this, or hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                with caller:
                    while (said := caller.recv(4_096)) and b"CLIENT" in said:
                        caller.sendall(b"+OK\r\n" * said.count(b"CLIENT"))
                    caller.sendall(answer)
                    if answer:
                        done.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            done.set()
            with socket.create_connection(listener.getsockname()):
                pass
            thread.join()


OPTIONS = {"retry": ONCE, "protocol": 2}


def test_redis_hangs_up() -> None:
    with server(b"") as (host, port):
        one = redis.Redis(host, port, **OPTIONS)  # type: ignore[arg-type]
        with pytest.raises(redis.ConnectionError, match="closed by server|reset by peer"):
            execute(one, single(b"GET", [b"a"]), 1)


def test_redis_answers_too_late() -> None:
    with server(b"$3\r\nab") as (host, port):
        one = redis.Redis(host, port, socket_timeout=1.0, **OPTIONS)  # type: ignore[arg-type]
        with pytest.raises(redis.TimeoutError, match="Timeout reading"):
            execute(one, single(b"GET", [b"a"]), 1)


def test_it_does_so_asynchronously() -> None:
    async def main(host: str, port: int) -> None:
        one = redis.asyncio.Redis(
            host=host,
            port=port,
            socket_timeout=1.0,
            protocol=2,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )
        await execute_async(one, single(b"GET", [b"a"]), 1)

    with server(b"$3\r\nab") as place, pytest.raises(redis.TimeoutError, match="Timeout reading"):
        asyncio.run(main(*place))
    with server(b"") as place, pytest.raises(redis.ConnectionError, match=r"closed|reset|Error"):
        asyncio.run(main(*place))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(redis.ConnectionError, match="refused"):
        execute(redis.Redis("127.0.0.1", port, retry=ONCE), single(b"GET", [b"a"]), 1)


def test_tries_again_as_often_as_told(redis_address: str) -> None:
    """A pooled connection that the server has dropped is found out and replaced."""
    one = client(redis_address, retry=Retry(NoBackoff(), 2))
    assert execute(one, single(b"ECHO", [b"a"]), 1) == [b"a"]
    other = client(redis_address)
    other.client_kill_filter(_type="normal", skipme=True)
    assert execute(one, single(b"ECHO", [b"b"]), 1) == [b"b"]
    one.close()
    other.close()


def test_the_server_is_loading_or_a_replica() -> None:
    for answer, error in [
        (b"-LOADING Redis is loading the dataset\r\n", redis.BusyLoadingError),
        (b"-READONLY You can't write against a replica.\r\n", redis.ReadOnlyError),
    ]:
        with server(answer) as (host, port):
            one = redis.Redis(host, port, **OPTIONS)  # type: ignore[arg-type]
            with pytest.raises(error, match=answer[1:8].decode()):
                execute(one, single(b"SET", [b"a", b"b"]), 1)
