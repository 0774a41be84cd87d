"""redis-py's clients of an address, with a time limit on each connection and no pauses.

redis-py waits for ever unless told otherwise, and tries a server that is down four times, with
pauses of seconds between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import redis
from redis import asyncio as redis_asyncio
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster

from reki_feast.errors import StoreError

from .address import CONFIGURED, Place

#: Seconds to connect, handshakes of TLS and of Redis included, where nobody says.
CONNECT = 5.0
#: Seconds to wait for a piece of an answer, where nobody says.
ANSWER = 60.0
#: What redis-py raises; its clusters have an error apart.
FAILURES = (redis.RedisError, redis.exceptions.RedisClusterException)
#: An error's kind and how it begins; what Redis does that does not refuse so; the mend.
_REFUSALS: tuple[tuple[type[Exception], str, str, str], ...] = (
    (
        redis.exceptions.OutOfMemoryError,
        "",
        "has memory for what is written",
        "raise its maxmemory, or name a Redis with more in {0}; `layout: packed` in "
        "feature_store.yaml halves the memory of vectors",
    ),
    (
        redis.exceptions.NoPermissionError,
        "",
        "allows its user what is asked",
        "give the user of {0} the right that is named (ACL SETUSER), or name one there who may: "
        "an account that only reads can serve, not materialize",
    ),
    (
        redis.AuthenticationError,
        "",
        "knows the user and the password",
        "correct user and password in {0}",
    ),
    (redis.ReadOnlyError, "", "takes what is written", "name the primary in {0}, not a replica"),
    (
        redis.ResponseError,
        "MISCONF",
        "can keep on disk what is written",
        "see that its disk has room and its folder can be written; its own log tells more",
    ),
)
_SLOW = "see that Redis is well; socket_timeout in the address is how long to wait for it"


def client_of(
    library: Any, place: Place, kind: str = "redis", master: str = "", **waits: float
) -> Any:
    """A client of ``redis``, or of ``redis.asyncio``, which has the same names.

    Args:
        library: one of the two modules.
        place: where Redis is.
        kind: ``redis_type`` of the online store: one server, a cluster or a sentinel.
        master: the sentinel's name for the server.
        waits: ``socket_timeout`` and ``socket_connect_timeout``; by default as the address says.

    Raises:
        StoreError: the address has an option that redis-py does not know.
        redis.RedisError: the cluster cannot be reached.
    """
    named = {**limits(place.options), **place.options, **waits}
    # Again where a connection was found closed, as after a restart; after a timeout if told to.
    faults = (redis.ConnectionError, *([redis.TimeoutError] * named.pop("retry_on_timeout", False)))
    again = library.retry.Retry(NoBackoff(), 1, supported_errors=faults)
    try:
        if kind == "redis_cluster":
            return _cluster(library, place, {**named, "retry": again})
        if kind == "redis_sentinel":
            asking = {**{n: v for n, v in named.items() if n.startswith("socket_")}, "retry": again}
            sentinel = library.Sentinel(place.nodes, sentinel_kwargs=asking, retry=again, **named)
            for one in sentinel.sentinels:
                _make_prompt(one)
            client = sentinel.master_for(master)
        else:
            where = dict(zip(("host", "port"), place.nodes[0], strict=True)) if place.nodes else {}
            client = library.Redis(**where, retry=again, **named)
            # which redis-py forgets for a socket file
            wait = {"socket_connect_timeout": named["socket_connect_timeout"]}
            client.connection_pool.connection_kwargs.update(wait)
    except TypeError as error:
        raise StoreError(
            f"{place.origin} has options of redis-py",
            found=str(error),
            mend="correct the name, or leave the option out",
        ) from error
    return _make_prompt(client)


def limits(options: Mapping[str, Any]) -> dict[str, float]:
    """The time limits of an address that names none, or one of them.

    >>> limits({})
    {'socket_timeout': 60.0, 'socket_connect_timeout': 5.0}
    >>> limits({"socket_timeout": 0.1})
    {'socket_timeout': 60.0, 'socket_connect_timeout': 0.1}
    """
    connect = min(CONNECT, options.get("socket_timeout") or CONNECT)
    return {"socket_timeout": ANSWER, "socket_connect_timeout": connect}


@contextmanager
def reached(place: Place, slow: str = _SLOW) -> Iterator[None]:
    """Redis's errors as ours.

    Args:
        place: where Redis is.
        slow: the mend where it answers too late.

    Raises:
        StoreError: Redis does not answer, not in time, or refuses.
    """
    try:
        yield
    except FAILURES as error:
        late = isinstance(error, redis.TimeoutError)
        does = f"answers{' in time' if late else ''}"
        rule, mend = refusal(error, place.origin) or (does, _mend(error, place, slow))
        raise StoreError(
            f"Redis at {place.shown} {rule}", found=f"{type(error).__name__}: {error}", mend=mend
        ) from error


def refusal(error: BaseException, origin: str = CONFIGURED) -> tuple[str, str] | None:
    """What Redis does that does not refuse, and the mend; None where it did not refuse."""
    seen: list[BaseException] = []
    while error not in seen:  # a cluster's client has the cause beneath an error of its own
        seen.append(error)
        for kind, begins, rule, mend in _REFUSALS:
            if isinstance(error, kind) and str(error).startswith(begins):
                return rule, mend.format(origin)
        error = error.__cause__ or error.__context__ or error
    return None


def evicting(client: Any) -> str:
    """How a server has dropped keys to make room; nothing where it has not, or does not tell."""
    try:
        said = {**client.info("memory"), **client.info("stats")}
    except FAILURES:
        return ""
    policy, dropped = said.get("maxmemory_policy", "noeviction"), said.get("evicted_keys", 0)
    if policy == "noeviction" or not dropped:
        return ""
    most = said.get("maxmemory_human", "unknown")
    return f"Redis dropped {dropped:,} keys (maxmemory {most}, maxmemory-policy {policy})"


def _mend(error: Exception, place: Place, slow: str) -> str:
    if isinstance(error, redis.TimeoutError) and "connecting" not in str(error):
        return slow
    where = f"see that it runs, and that {place.origin} names it"
    if not place.nodes:
        return where
    if place.tls:
        return f"{where}; does it speak TLS there, as the address says?"
    return f"{where}; where it wants TLS, write rediss:// for redis://"


def _cluster(library: Any, place: Place, named: dict[str, Any]) -> Any:
    named.pop("db", None)  # a cluster has one
    if library is redis_asyncio:
        nodes = [library.cluster.ClusterNode(host, port) for host, port in place.nodes]
        return library.RedisCluster(startup_nodes=nodes, **named)
    # A URL has redis-py make the nodes' connections of a class that is given.
    tls = named.pop("ssl", False)
    kind = redis.SSLConnection if tls else redis.Connection
    nodes = [library.cluster.ClusterNode(host, port) for host, port in place.nodes]
    named = {n: v for n, v in named.items() if tls or not n.startswith("ssl_")}
    one = Place(place.nodes[:1], {}).shown
    return RedisCluster(
        url=f"redis://{one}", startup_nodes=nodes, connection_class=_prompt(kind), **named
    )


def _make_prompt(client: Any) -> Any:
    pool = client.connection_pool
    pool.connection_class = _prompt(pool.connection_class)
    return client


@lru_cache
def _prompt(kind: type) -> type:
    """A class of connections whose handshakes have the time to connect, not that of an answer."""
    made: type = _Prompt
    if issubclass(kind, redis_asyncio.UnixDomainSocketConnection):
        made = _PromptAsyncFile
    elif issubclass(kind, redis_asyncio.connection.AbstractConnection):
        made = _PromptAsync
    return type(kind.__name__, (made, kind), {})


class _Prompt:
    """redis-py gives the handshakes of TLS and of Redis the time of an answer."""

    def connect_check_health(self: Any, *given: Any, **named: Any) -> None:
        if self._sock:
            return
        answer, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            super().connect_check_health(*given, **named)  # type: ignore[misc]
        finally:
            self.socket_timeout = answer
        self.update_current_socket_timeout(-1)  # to that of an answer


class _PromptAsync:
    async def connect_check_health(self: Any, *given: Any, **named: Any) -> None:
        if self.is_connected:
            return
        answer, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            await super().connect_check_health(*given, **named)  # type: ignore[misc]
        finally:
            self.socket_timeout = answer


class _PromptAsyncFile(_PromptAsync):
    async def _connect(self: Any) -> None:
        """redis-py shakes hands here, too, and says of any fault in it that it cannot connect."""
        opening = asyncio.open_unix_connection(path=self.path)
        wait = self.socket_connect_timeout
        self._reader, self._writer = await asyncio.wait_for(opening, wait)
