"""Every private name of redis-py that the stores use, each with the reason.

redis-py may change them in any release: ``tests/stores/online/test_redis_private_names.py`` says
which one did. No other module names them.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

from redis import asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import AbstractConnection
from typing_extensions import override


def socket_of(connection: Any) -> Any:
    """The open socket of a connection: replies are read from it without redis-py's parser."""
    return connection._get_socket()


def stream_of(connection: Any) -> asyncio.StreamReader:
    """The open stream of an asyncio connection, read likewise."""
    stream: asyncio.StreamReader = connection._reader
    return stream


def limit_handshakes(pool: Any) -> None:
    """Let a pool's connections shake hands within the time limit of connecting.

    redis-py allows the handshakes of TLS and of Redis the time limit of a reply.
    """
    pool.connection_class = limited(pool.connection_class)


@lru_cache
def limited(connection_class: type) -> type:
    """A class of connections whose handshakes have the time limit of connecting."""
    base: type = _LimitedHandshake
    if issubclass(connection_class, redis_asyncio.UnixDomainSocketConnection):
        base = _LimitedAsyncSocketFile
    elif issubclass(connection_class, AsyncConnection):
        base = _LimitedAsyncHandshake
    return type(connection_class.__name__, (base, connection_class), {})


class _LimitedHandshake(AbstractConnection):
    @override
    def connect_check_health(self: Any, *args: Any, **kwargs: Any) -> None:
        if self._sock:
            return
        reply_timeout, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            super().connect_check_health(*args, **kwargs)
        finally:
            self.socket_timeout = reply_timeout
        self.update_current_socket_timeout(-1)  # to that of a reply


class _LimitedAsyncHandshake(AsyncConnection):
    @override
    async def connect_check_health(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.is_connected:
            return
        reply_timeout, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            await super().connect_check_health(*args, **kwargs)
        finally:
            self.socket_timeout = reply_timeout


class _LimitedAsyncSocketFile(_LimitedAsyncHandshake, redis_asyncio.UnixDomainSocketConnection):
    @override
    async def _connect(self: Any) -> None:
        """redis-py also shakes hands here, and reports any error of that as one of connecting."""
        opening = asyncio.open_unix_connection(path=self.path)
        streams = await asyncio.wait_for(opening, self.socket_connect_timeout)
        self._reader, self._writer = streams
