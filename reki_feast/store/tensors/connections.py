"""The reader's own connections to the Redis that Feast's online store names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import redis
from feast import FeatureStore
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from redis import asyncio as redis_asyncio
from redis.backoff import NoBackoff

from reki_feast.errors import StoreError
from reki_feast.store.online import wire
from reki_feast.store.redis_online import RekiRedisOnlineStore

#: Seconds to wait for Redis, where neither the caller nor the repo says.
PATIENCE = 1.0


class Connections:
    """Pools of connections: one for all threads, one for each event loop."""

    def __init__(self, store: FeatureStore, timeout: float | None) -> None:
        """Nothing is opened yet.

        Raises:
            StoreError: the online store is not Redis.
        """
        self._options = _options(store)
        nodes, given = RedisOnlineStore._parse_connection_string(self._options.connection_string)
        self._nodes = [(node["host"], int(node["port"])) for node in nodes]
        patience = PATIENCE if timeout is None else timeout
        waits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), patience)
        self._given = {**waits, **given} if timeout is None else {**given, **waits}
        self._client: Any = None
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._lock = Lock()

    @property
    def cluster(self) -> bool:
        """Whether the keys lie on several nodes."""
        return self._options.redis_type == RedisType.redis_cluster

    def ask(self, commands: bytes, count: int) -> list[Any]:
        """Send commands, wait for their replies.

        Raises:
            StoreError: Redis does not answer, or not in time.
        """
        with _reached(self._nodes):
            with self._lock:
                self._client = self._client or self._made(redis)
            return wire.ask(self._client, commands, count)

    async def ask_async(self, commands: bytes, count: int) -> list[Any]:
        """The same, on the running event loop."""
        loop = asyncio.get_running_loop()
        with _reached(self._nodes):
            with self._lock:
                client = self._by_loop.get(loop) or self._made(redis_asyncio)
                self._by_loop[loop] = client
            return await wire.ask_async(client, commands, count)

    def close(self) -> None:
        """Close the threads' connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the running event loop's connections."""
        with self._lock:
            client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _made(self, library: Any) -> Any:
        """A client of ``redis``, or of ``redis.asyncio``, which has the same names."""
        # Again where a connection was found closed, as after a restart; never after a timeout.
        again = library.retry.Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        if self.cluster:
            nodes = [library.cluster.ClusterNode(host, port) for host, port in self._nodes]
            return library.RedisCluster(startup_nodes=nodes, retry=again, **self._given)
        if self._options.redis_type == RedisType.redis_sentinel:
            sentinel = library.Sentinel(self._nodes, retry=again, **self._given)
            return sentinel.master_for(self._options.sentinel_master)
        host, port = self._nodes[0]
        return library.Redis(host=host, port=port, retry=again, **self._given)


def _options(store: FeatureStore) -> RedisOnlineStoreConfig:
    """The online store's options, with an address that Redis clients understand."""
    online: Any = store._get_provider().online_store
    options = store.config.online_store
    if not isinstance(online, RedisOnlineStore) or not isinstance(options, RedisOnlineStoreConfig):
        raise StoreError(
            "TensorReader reads from Redis",
            found=f"online store {type(online).__module__}.{type(online).__name__}",
            mend="online_store: {type: reki_feast.store.redis_online.RekiRedisOnlineStore} "
            "in feature_store.yaml",
        )
    if isinstance(online, RekiRedisOnlineStore):
        online.at(store.config)
        return online._located(options)
    return options


@contextmanager
def _reached(nodes: list[tuple[str, int]]) -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        slow = isinstance(error, redis.TimeoutError)
        place = ", ".join(f"{host}:{port}" for host, port in nodes)
        raise StoreError(
            f"Redis at {place} answers{' in time' if slow else ''}",
            found=f"{type(error).__name__}: {error}",
            mend="raise `timeout` of the TensorReader, or ask for fewer rows at once"
            if slow
            else "see that it runs, and that connection_string of feature_store.yaml names it",
        ) from error
