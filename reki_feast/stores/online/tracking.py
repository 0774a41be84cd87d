"""Which keys change in Redis, whoever changes them: the server's own client-side caching.

In its broadcasting mode (``CLIENT TRACKING ON BCAST PREFIX …``, Redis 6 and all that came of it)
the server tells of each key with a prefix that is written, deleted, expired or evicted, and of a
flush. Writers need not take part, and the server keeps no table for it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hiredis
from redis import exceptions
from redis.cluster import RedisCluster
from typing_extensions import override

from reki_feast.stores._redis import socket_of

from .wire import CHUNK

#: Seconds between two looks at all rows where the server does not tell which changed.
POLL_S = 10.0
#: How many times as long as a look takes the pause before the next one is, at least.
_PAUSES = 10


class Changes(ABC):
    """What changed since the last call."""

    @abstractmethod
    def wait(self, seconds: float) -> list[bytes] | None:
        """The keys that changed, as soon as there are some, or none after so many seconds.

        Returns:
            The keys; None where any may have changed.

        Raises:
            redis.RedisError: the connection is lost, and with it what changed meanwhile.
        """


@contextmanager
def following(client: Any, prefix: bytes) -> Iterator[Changes]:
    """Follow the keys with a prefix.

    Args:
        client: ``redis.Redis``, whose server tells of changes if it can; or
            ``redis.RedisCluster``, where all rows are looked at every few seconds.
        prefix: of the keys.

    Raises:
        redis.RedisError: Redis cannot be reached.
    """
    if isinstance(client, RedisCluster):
        yield Polling()
        return
    connection = client.connection_pool.get_connection()
    try:
        yield _tracking(connection, prefix)
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)


class Polling(Changes):
    """Anything may have changed, now and then."""

    def __init__(self) -> None:
        self._begun, self._next = time.monotonic(), 0.0

    @override
    def wait(self, seconds: float) -> list[bytes] | None:
        now = time.monotonic()
        if not self._next:  # a look ends, begun when this was made or told last
            self._next = now + max(POLL_S, _PAUSES * (now - self._begun))
        time.sleep(max(0.0, min(seconds, self._next - now)))
        if time.monotonic() < self._next:
            return []
        self._begun, self._next = time.monotonic(), 0.0
        return None


class Tracking(Changes):
    """What the server tells over a connection of its own (RESP3)."""

    def __init__(self, connection: Any, prefix: bytes) -> None:
        """Begin.

        Raises:
            redis.ResponseError: the server does not know the commands, or not for this user.
            redis.RedisError: Redis cannot be reached.
        """
        self._connection, self._buffer = connection, bytearray(CHUNK)
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse, replyError=exceptions.ResponseError
        )
        self._changed: list[bytes] | None = []
        self._awaited = 0
        self._ask("HELLO", "3")
        self._ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
        while self._awaited:
            self._receive(connection.socket_timeout)

    @override
    def wait(self, seconds: float) -> list[bytes] | None:
        if self._changed == [] and not self._receive(seconds):
            if self._awaited:
                raise exceptions.TimeoutError("Timeout reading from socket")
            self._ask("PING")  # a connection that was cut is silent, too
        changed, self._changed = self._changed, []
        return changed

    def _ask(self, *arguments: Any) -> None:
        packed = self._connection.pack_command(*arguments)
        self._connection.send_packed_command(packed, check_health=False)
        self._awaited += 1

    def _receive(self, seconds: float | None) -> bool:
        """Take in what came; whether anything did in time."""
        socket = socket_of(self._connection)
        try:
            socket.settimeout(seconds)
            size = socket.recv_into(self._buffer)
        except TimeoutError:
            return False
        except OSError as error:
            raise exceptions.ConnectionError(f"Error while reading from socket: {error}") from error
        if not size:
            raise exceptions.ConnectionError("Connection closed by server.")
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]
        while (reply := self._reader.gets()) is not False:
            self._take(reply)
        return True

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, hiredis.PushNotification):
            self._awaited -= 1
        elif reply[0] == b"invalidate":
            if reply[1] is None:
                self._changed = None
            elif self._changed is not None:
                self._changed += reply[1]


def _tracking(connection: Any, prefix: bytes) -> Changes:
    """What the server tells; or, if it does not, a look at all rows now and then."""
    try:
        return Tracking(connection, prefix)
    except exceptions.ResponseError:
        return Polling()
