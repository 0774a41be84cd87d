"""Many packed commands to Redis at once, and their replies.

redis-py opens the connections (TLS, passwords, sentinels, pools, retries). Packing a command and
parsing a reply take it microseconds each, as long as Redis needs for a whole command; so the bytes
go straight to its connection's socket and the replies through hiredis. A cluster's commands go
through redis-py's own pipeline, which knows the nodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import hiredis
from redis import asyncio as redis_asyncio
from redis import exceptions
from redis.cluster import RedisCluster

from reki_feast.stores._redis import socket_of, stream_of

#: Bytes read from a socket at once.
CHUNK = 1 << 16
Packed = bytes | bytearray | memoryview


class CommandPipeline(Protocol):
    """A connection for one caller: commands may be sent ahead, replies come in their order."""

    def send(self, commands: Packed) -> None:
        """Send whole commands.

        Raises:
            redis.ConnectionError: Redis cannot be reached.
            redis.TimeoutError: it does not accept them in time.
        """

    def replies(self, count: int) -> list[Any]:
        """The next ``count`` replies; bytes, int, None, or lists of them.

        Raises:
            redis.ResponseError: one of them is an error.
            redis.ConnectionError: Redis closed the connection.
            redis.TimeoutError: it does not answer in time.
        """


@contextmanager
def open_pipeline(client: Any) -> Iterator[CommandPipeline]:
    """A connection of a client's pool, to send and receive on; closed after an error.

    Args:
        client: ``redis.Redis`` or ``redis.RedisCluster``.
    """
    if isinstance(client, RedisCluster):
        yield _ClusterPipeline(client)
        return
    with _connection(client) as connection:
        yield _SocketPipeline(connection)


@contextmanager
def _connection(client: Any) -> Iterator[Any]:
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()  # drops replies that are still to come
        raise
    finally:
        pool.release(connection)


def execute(client: Any, commands: Packed, count: int) -> list[Any]:
    """Send commands and wait for their replies; retried as the client is configured.

    Args:
        client: ``redis.Redis`` or ``redis.RedisCluster``.
        commands: whole commands, which may be sent twice without harm.
        count: how many replies they have.

    Raises:
        redis.RedisError: as the methods of ``CommandPipeline`` do.
    """
    if not count:
        return []
    if isinstance(client, RedisCluster):
        cluster = _ClusterPipeline(client)
        cluster.send(commands)
        return cluster.replies(count)
    with _connection(client) as connection:

        def once() -> list[Any]:
            pipeline = _SocketPipeline(connection)
            pipeline.send(commands)
            return pipeline.replies(count)

        # The connection's own retries, as in redis-py's pipelines: a sentinel's client has none.
        replies: list[Any] = connection.retry.call_with_retry(once, connection.disconnect)
        return replies


async def execute_async(client: Any, commands: Packed, count: int) -> list[Any]:
    """``execute`` with a client of ``redis.asyncio``."""
    if not count:
        return []
    if isinstance(client, redis_asyncio.RedisCluster):
        return list(await _queued(client.pipeline(), commands).execute())

    pool = client.connection_pool
    connection = await pool.get_connection()

    async def once() -> list[Any]:
        await connection.send_packed_command([bytes(commands)])
        return await _replies_async(connection, count)

    async def failed(_: Exception) -> None:
        await connection.disconnect(nowait=True)

    try:
        replies: list[Any] = await connection.retry.call_with_retry(once, failed)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
    return replies


class _SocketPipeline:
    """A connection's own socket."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._parser = _ReplyParser()
        self._buffer = bytearray(CHUNK)

    def send(self, commands: Packed) -> None:
        self._connection.send_packed_command([commands])

    def replies(self, count: int) -> list[Any]:
        socket, buffer = socket_of(self._connection), self._buffer
        replies: list[Any] = []
        with _socket_errors():
            while not self._parser.take(replies, count):
                self._parser.feed(buffer, socket.recv_into(buffer))
        return replies


async def _replies_async(connection: Any, count: int) -> list[Any]:
    stream, limit = stream_of(connection), connection.socket_timeout
    parser, replies = _ReplyParser(), list[Any]()
    with _socket_errors():
        while not parser.take(replies, count):
            reading = stream.read(CHUNK)
            data = await (asyncio.wait_for(reading, limit) if limit else reading)
            parser.feed(data, len(data))
    return replies


@contextmanager
def _socket_errors() -> Iterator[None]:
    """Errors of a socket as those of redis-py."""
    try:
        yield
    except TimeoutError as error:
        raise exceptions.TimeoutError("Timeout reading from socket") from error
    except OSError as error:
        raise exceptions.ConnectionError(f"Error while reading from socket: {error}") from error


class _ClusterPipeline:
    """A cluster: every command is unpacked and goes through redis-py's pipeline."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._replies: deque[Any] = deque()

    def send(self, commands: Packed) -> None:
        with self._client.pipeline() as pipeline:
            self._replies.extend(_queued(pipeline, commands).execute())

    def replies(self, count: int) -> list[Any]:
        return [self._replies.popleft() for _ in range(count)]


class _IncompleteReply:
    """What hiredis returns while a reply is not complete."""


_INCOMPLETE = _IncompleteReply()
#: Types of what hiredis returns beside replies.
_SPECIAL = (_IncompleteReply, Exception, hiredis.PushNotification)
_ERRORS: dict[str, type[Exception]] = {
    "LOADING": exceptions.BusyLoadingError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
}


class _ReplyParser:
    """Replies out of the bytes of a socket, by hiredis."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=_error,
            notEnoughData=_INCOMPLETE,
        )

    def feed(self, data: Packed, size: int) -> None:
        """Take bytes that were received; none mean that Redis closed the connection."""
        if not size:
            raise exceptions.ConnectionError("Connection closed by server.")
        self._reader.feed(data, 0, size)  # type: ignore[arg-type]

    def take(self, replies: list[Any], count: int) -> bool:
        """Move complete replies to a list; whether it has ``count`` of them."""
        gets, add = self._reader.gets, replies.append
        for _ in range(count - len(replies)):
            reply = gets()
            if isinstance(reply, _SPECIAL):
                if reply is _INCOMPLETE:
                    return False
                if isinstance(reply, Exception):
                    raise reply
                continue  # a push notification
            add(reply)
        return len(replies) == count or self.take(replies, count)

    def __iter__(self) -> Iterator[Any]:
        """All complete replies."""
        while (reply := self._reader.gets()) is not _INCOMPLETE:
            yield reply


def _error(message: str) -> Exception:
    return _ERRORS.get(message.split(" ", 1)[0], exceptions.ResponseError)(message)


def _queued(pipeline: Any, commands: Packed) -> Any:
    """A pipeline of redis-py with the commands; packed, they parse as replies that are lists."""
    parser = _ReplyParser()
    data = bytes(commands)
    parser.feed(data, len(data))
    for name, *arguments in parser:
        pipeline.execute_command(name.decode(), *arguments)
    return pipeline
