"""Many commands to Redis at once, as bytes that are packed already, and their replies.

redis-py opens the connections (TLS, passwords, sentinels, pools, retries). Packing a command and
reading a reply take it microseconds each, as long as Redis needs for a whole command; so the bytes
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

#: Bytes taken from a socket at once.
CHUNK = 1 << 16
Packed = bytes | bytearray | memoryview


class Link(Protocol):
    """A connection for one caller: commands go out as one pleases, replies come in their order."""

    def send(self, commands: Packed) -> None:
        """Send whole commands.

        Raises:
            redis.ConnectionError: Redis cannot be reached.
            redis.TimeoutError: it does not take them in time.
        """

    def replies(self, count: int) -> list[Any]:
        """The next ``count`` replies; bytes, int, None, or lists of them.

        Raises:
            redis.ResponseError: one of them is an error.
            redis.ConnectionError: Redis went away.
            redis.TimeoutError: it does not answer in time.
        """


@contextmanager
def link(client: Any) -> Iterator[Link]:
    """A connection of a client's pool, to send and receive on; closed after an error.

    Args:
        client: ``redis.Redis`` or ``redis.RedisCluster``.
    """
    if isinstance(client, RedisCluster):
        yield _Pipelined(client)
        return
    with _connection(client) as connection:
        yield _Socket(connection)


@contextmanager
def _connection(client: Any) -> Iterator[Any]:
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()  # replies may be under way that nobody will read
        raise
    finally:
        pool.release(connection)


def ask(client: Any, commands: Packed, count: int) -> list[Any]:
    """Send commands and wait for their replies; tried again as often as the client is told to.

    Args:
        client: ``redis.Redis`` or ``redis.RedisCluster``.
        commands: whole commands, which may be sent twice without harm.
        count: how many replies they have.

    Raises:
        redis.RedisError: as the methods of ``Link`` do.
    """
    if not count:
        return []

    if isinstance(client, RedisCluster):
        with link(client) as line:
            line.send(commands)
            return line.replies(count)
    with _connection(client) as connection:

        def once() -> list[Any]:
            line = _Socket(connection)
            line.send(commands)
            return line.replies(count)

        # The connection's own retries, as in redis-py's pipelines: a sentinel's client has none.
        found: list[Any] = connection.retry.call_with_retry(once, connection.disconnect)
        return found


async def ask_async(client: Any, commands: Packed, count: int) -> list[Any]:
    """The same with a client of ``redis.asyncio``."""
    if not count:
        return []
    if isinstance(client, redis_asyncio.RedisCluster):
        pipe = client.pipeline()
        for name, *arguments in _arguments(commands):
            pipe.execute_command(name.decode(), *arguments)
        return list(await pipe.execute())

    pool = client.connection_pool
    connection = await pool.get_connection()

    async def once() -> list[Any]:
        await connection.send_packed_command([bytes(commands)])
        return await _replies_async(connection, count)

    async def failed(_: Exception) -> None:
        await connection.disconnect(nowait=True)

    try:
        found: list[Any] = await connection.retry.call_with_retry(once, failed)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
    return found


class _Socket:
    """A connection's own socket."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = _reader()
        self._buffer = bytearray(CHUNK)

    def send(self, commands: Packed) -> None:
        self._connection.send_packed_command([commands])

    def replies(self, count: int) -> list[Any]:
        socket, reader, buffer = self._connection._get_socket(), self._reader, self._buffer
        found: list[Any] = []
        try:
            while not _take(reader, found, count):
                size = socket.recv_into(buffer)
                if not size:
                    raise exceptions.ConnectionError("Connection closed by server.")
                reader.feed(buffer, 0, size)
        except TimeoutError as error:
            raise exceptions.TimeoutError("Timeout reading from socket") from error
        except OSError as error:
            raise exceptions.ConnectionError(f"Error while reading from socket: {error}") from error
        return found


async def _replies_async(connection: Any, count: int) -> list[Any]:
    stream, limit = connection._reader, connection.socket_timeout
    reader, found = _reader(), list[Any]()
    while not _take(reader, found, count):
        try:
            data = await (
                asyncio.wait_for(stream.read(CHUNK), limit) if limit else stream.read(CHUNK)
            )
        except asyncio.TimeoutError as error:
            raise exceptions.TimeoutError("Timeout reading from socket") from error
        except OSError as error:
            raise exceptions.ConnectionError(f"Error while reading from socket: {error}") from error
        if not data:
            raise exceptions.ConnectionError("Connection closed by server.")
        reader.feed(data)
    return found


class _Pipelined:
    """A cluster: every command is unpacked and goes through redis-py's pipeline."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._found: deque[Any] = deque()

    def send(self, commands: Packed) -> None:
        with self._client.pipeline() as pipe:
            for name, *arguments in _arguments(commands):
                pipe.execute_command(name.decode(), *arguments)
            self._found.extend(pipe.execute())

    def replies(self, count: int) -> list[Any]:
        return [self._found.popleft() for _ in range(count)]


class _More:
    """What the reader gives when a reply is not whole yet."""


_MORE = _More()
_ODD = (_More, Exception, hiredis.PushNotification)
_KINDS: dict[str, type[Exception]] = {
    "LOADING": exceptions.BusyLoadingError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
}


def _reader() -> Any:
    return hiredis.Reader(
        protocolError=exceptions.InvalidResponse, replyError=_fault, notEnoughData=_MORE
    )


def _take(reader: Any, found: list[Any], count: int) -> bool:
    """Move the replies that are whole to ``found``; whether all are there."""
    gets, add = reader.gets, found.append
    for _ in range(count - len(found)):
        reply = gets()
        if isinstance(reply, _ODD):
            if reply is _MORE:
                return False
            if isinstance(reply, Exception):
                raise reply
            continue  # news that nobody asked for
        add(reply)
    return len(found) == count or _take(reader, found, count)


def _fault(message: str) -> Exception:
    return _KINDS.get(message.split(" ", 1)[0], exceptions.ResponseError)(message)


def _arguments(commands: Packed) -> Iterator[list[bytes]]:
    """The commands' arguments; a packed command looks like a reply that is a list."""
    reader = _reader()
    reader.feed(bytes(commands))
    while (command := reader.gets()) is not _MORE:
        yield command
