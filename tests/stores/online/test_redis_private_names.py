"""What the stores use of redis-py beside its documented names, and what they override.

A new version that lacks or changes one fails here by name, before a store bypasses it silently.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import pytest
from redis import Connection, SSLConnection, UnixDomainSocketConnection
from redis import asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import AbstractConnection

from reki_feast.stores import _redis
from reki_feast.stores.online.reader import RedisReader
from reki_feast.stores.online.response import QuickResponse
from reki_feast.stores.redis_online import RekiRedisOnlineStore

#: A class of redis-py, a method of it and its parameters.
METHODS: list[tuple[type, str, list[str]]] = [
    (AbstractConnection, "_get_socket", ["self"]),
    (AbstractConnection, "send_packed_command", ["self", "command", "check_health"]),
    (AbstractConnection, "update_current_socket_timeout", ["self", "relaxed_timeout"]),
    (
        AbstractConnection,
        "connect_check_health",
        ["self", "check_health", "retry_socket_connect"],
    ),
    (AsyncConnection, "connect_check_health", ["self", "check_health", "retry_socket_connect"]),
    (AsyncConnection, "send_packed_command", ["self", "command", "check_health"]),
    (redis_asyncio.UnixDomainSocketConnection, "_connect", ["self"]),
]
ATTRIBUTES = ("socket_timeout", "socket_connect_timeout", "retry")
#: Classes of the stores that override methods of Feast or redis-py.
OVERRIDING = [
    RedisReader,
    RekiRedisOnlineStore,
    QuickResponse,
    *(getattr(_redis, name) for name in dir(_redis) if name.startswith("_Limited")),
]


@pytest.mark.parametrize(("owner", "name", "parameters"), METHODS)
def test_methods_of_redis_have_these_parameters(
    owner: type, name: str, parameters: list[str]
) -> None:
    method = getattr(owner, name, None)
    assert method is not None, f"{owner.__module__}.{owner.__name__}.{name} is gone"
    assert list(inspect.signature(method).parameters) == parameters


@pytest.mark.parametrize("kind", [Connection, SSLConnection, UnixDomainSocketConnection])
def test_a_connection_has_a_socket_and_time_limits(kind: Any) -> None:
    connection = kind()
    assert connection._sock is None
    assert all(hasattr(connection, name) for name in ATTRIBUTES)
    assert {_redis._LimitedHandshake, kind} <= {*_redis.limited(kind).__mro__}


@pytest.mark.parametrize(
    "kind",
    [
        redis_asyncio.Connection,
        redis_asyncio.SSLConnection,
        redis_asyncio.UnixDomainSocketConnection,
    ],
)
def test_an_asyncio_connection_has_streams_and_time_limits(kind: Any) -> None:
    connection = kind()
    assert (connection._reader, connection._writer) == (None, None)
    assert all(hasattr(connection, name) for name in ATTRIBUTES)
    assert {_redis._LimitedAsyncHandshake, kind} <= {*_redis.limited(kind).__mro__}


@pytest.mark.parametrize("owner", OVERRIDING)
def test_what_is_overridden_is_marked_and_there(owner: type) -> None:
    """Each override has the parameters of the method that it replaces, or takes any."""
    bases = owner.__mro__[1:]
    methods = {n: m for n, m in vars(owner).items() if isinstance(m, FunctionType)}
    overridden = {n for n in methods if n != "__init__" and any(n in vars(b) for b in bases)}
    assert overridden == {n for n, m in methods.items() if getattr(m, "__override__", False)}
    for name in sorted(overridden):
        base: Any = next(vars(b)[name] for b in bases if name in vars(b))
        parameters = inspect.signature(methods[name]).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            expected = list(inspect.signature(base).parameters)
            assert list(parameters)[: len(expected)] == expected, f"{owner.__name__}.{name}"
        assert inspect.iscoroutinefunction(methods[name]) == inspect.iscoroutinefunction(base)
