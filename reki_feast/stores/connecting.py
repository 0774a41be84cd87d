"""redis-py's clients of an address, with time limits and without backoff.

redis-py's own defaults wait for ever, and try a server that is down four times, with pauses of
seconds between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from redis import asyncio as redis_asyncio
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster

from reki_feast.errors import StoreError

from ._redis import limit_handshakes, limited
from .address import CONFIGURED, RedisLocation

#: Default seconds to connect, handshakes of TLS and of Redis included.
CONNECT_TIMEOUT = 5.0
#: Default seconds to wait for a part of a reply.
REPLY_TIMEOUT = 60.0
#: What redis-py raises; clusters have a base class of their own.
FAILURES = (redis.RedisError, redis.exceptions.RedisClusterException)
#: The type of an error and how its message begins; what Redis would do otherwise; the hint.
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
        "allows its user the command",
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
        "can save on disk what is written",
        "see that its disk has room and its folder can be written; its own log says more",
    ),
)
_TIMEOUT_HINT = "see that Redis is well; socket_timeout in the address is how long to wait for it"


def make_client(
    library: Any,
    location: RedisLocation,
    redis_type: str = "redis",
    sentinel_master: str = "",
    **timeouts: float,
) -> Any:
    """A client of ``redis``, or of ``redis.asyncio``, which has the same names.

    Args:
        library: one of the two modules.
        location: the server.
        redis_type: of the online store's options: one server, a cluster or a sentinel.
        sentinel_master: the sentinel's name for the server.
        timeouts: ``socket_timeout`` and ``socket_connect_timeout``; by default the address's.

    Raises:
        StoreError: the address has an option that redis-py does not know.
        redis.RedisError: the cluster cannot be reached.
    """
    options = {**limits(location.options), **location.options, **timeouts}
    # Once more where a connection was closed, as by a restart; after a timeout if configured.
    on_timeout = [redis.TimeoutError] * options.pop("retry_on_timeout", False)
    errors = (redis.ConnectionError, *on_timeout)
    options["retry"] = library.retry.Retry(NoBackoff(), 1, supported_errors=errors)
    try:
        if redis_type == "redis_cluster":
            return _cluster(library, location, options)
        if redis_type == "redis_sentinel":
            return _sentinel_master(library, location, options, sentinel_master)
        return _single(library, location, options)
    except TypeError as error:
        raise StoreError(
            f"{location.origin} has options of redis-py",
            detail=str(error),
            hint="correct the name, or leave the option out",
        ) from error


def _single(library: Any, location: RedisLocation, options: dict[str, Any]) -> Any:
    nodes = location.nodes
    address = dict(zip(("host", "port"), nodes[0], strict=True)) if nodes else {}
    client = library.Redis(**address, **options)
    # redis-py drops this option for a socket file
    timeout = {"socket_connect_timeout": options["socket_connect_timeout"]}
    client.connection_pool.connection_kwargs.update(timeout)
    limit_handshakes(client.connection_pool)
    return client


def _sentinel_master(
    library: Any, location: RedisLocation, options: dict[str, Any], master: str
) -> Any:
    asking = {n: v for n, v in options.items() if n.startswith("socket_") or n == "retry"}
    sentinel = library.Sentinel(location.nodes, sentinel_kwargs=asking, **options)
    client = sentinel.master_for(master)
    for connected in [*sentinel.sentinels, client]:
        limit_handshakes(connected.connection_pool)
    return client


def _cluster(library: Any, location: RedisLocation, options: dict[str, Any]) -> Any:
    options.pop("db", None)  # a cluster has one
    nodes = [library.cluster.ClusterNode(host, port) for host, port in location.nodes]
    if library is redis_asyncio:
        return library.RedisCluster(startup_nodes=nodes, **options)
    # With a URL, redis-py makes the nodes' connections of the class that it is passed.
    tls = options.pop("ssl", False)
    connection_class = redis.SSLConnection if tls else redis.Connection
    options = {n: v for n, v in options.items() if tls or not n.startswith("ssl_")}
    return RedisCluster(
        url=f"redis://{RedisLocation(location.nodes[:1], {}).display}",
        startup_nodes=nodes,
        connection_class=limited(connection_class),
        **options,
    )


def limits(options: Mapping[str, Any]) -> dict[str, float]:
    """The default time limits of an address.

    >>> limits({})
    {'socket_timeout': 60.0, 'socket_connect_timeout': 5.0}
    >>> limits({"socket_timeout": 0.1})
    {'socket_timeout': 60.0, 'socket_connect_timeout': 0.1}
    """
    connect = min(CONNECT_TIMEOUT, options.get("socket_timeout") or CONNECT_TIMEOUT)
    return {"socket_timeout": REPLY_TIMEOUT, "socket_connect_timeout": connect}


@contextmanager
def redis_errors(location: RedisLocation, timeout_hint: str = _TIMEOUT_HINT) -> Iterator[None]:
    """Raise Redis's errors as ``StoreError``.

    Args:
        location: the server.
        timeout_hint: what to do where it replies too late.

    Raises:
        StoreError: Redis does not answer, not in time, or refuses.
    """
    try:
        yield
    except FAILURES as error:
        late = isinstance(error, redis.TimeoutError)
        answers = f"answers{' in time' if late else ''}"
        unreachable = answers, _unreachable_hint(error, location, timeout_hint)
        problem, hint = refusal(error, location.origin) or unreachable
        raise StoreError(
            f"Redis at {location.display} {problem}",
            detail=f"{type(error).__name__}: {error}",
            hint=hint,
        ) from error


def refusal(error: BaseException, origin: str = CONFIGURED) -> tuple[str, str] | None:
    """What a Redis that did not refuse would do, and the hint; None where it did not refuse."""
    seen: list[BaseException] = []
    while error not in seen:  # a cluster's client raises an error of its own from the cause
        seen.append(error)
        for kind, begins, problem, hint in _REFUSALS:
            if isinstance(error, kind) and str(error).startswith(begins):
                return problem, hint.format(origin)
        error = error.__cause__ or error.__context__ or error
    return None


def evictions(client: Any) -> str:
    """How many keys a server has evicted; empty where none, or where it does not say."""
    try:
        info = {**client.info("memory"), **client.info("stats")}
    except FAILURES:
        return ""
    policy, evicted = info.get("maxmemory_policy", "noeviction"), info.get("evicted_keys", 0)
    if policy == "noeviction" or not evicted:
        return ""
    limit = info.get("maxmemory_human", "unknown")
    return f"Redis dropped {evicted:,} keys (maxmemory {limit}, maxmemory-policy {policy})"


def eviction_warning(client: Any) -> str:
    """A warning of a server that evicts keys when it is full; empty where it does not say."""
    try:
        info = client.info("memory")
    except FAILURES:
        return ""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return ""
    limit = info["maxmemory_human"] if info.get("maxmemory") else "not set"
    return (
        f"a full Redis drops rows without an error (maxmemory {limit}, maxmemory-policy "
        f"{policy}): set maxmemory-policy noeviction, so that it refuses them"
    )


def _unreachable_hint(error: Exception, location: RedisLocation, timeout_hint: str) -> str:
    if isinstance(error, redis.TimeoutError) and "connecting" not in str(error):
        return timeout_hint
    hint = f"see that it runs, and that {location.origin} names it"
    if not location.nodes:
        return hint
    if location.tls:
        return f"{hint}; does it speak TLS there, as the address says?"
    return f"{hint}; where it wants TLS, write rediss:// for redis://"
