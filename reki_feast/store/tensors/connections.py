"""The reader's own connections to the Redis that Feast's online store names."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import redis
from feast import FeatureStore
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from redis import asyncio as redis_asyncio

from reki_feast.errors import StoreError
from reki_feast.store.address import Place, from_configured
from reki_feast.store.connecting import client_of, reached
from reki_feast.store.online import wire
from reki_feast.store.redis_online import RekiRedisOnlineStore

#: Seconds to wait for Redis, where neither the caller nor the repo says.
PATIENCE = 1.0
_SLOW = "raise `timeout` of the TensorReader, or ask for fewer rows at once"


class Connections:
    """Pools of connections: one for all threads, one for each event loop."""

    def __init__(self, store: FeatureStore, timeout: float | None) -> None:
        """Nothing is opened yet.

        Raises:
            StoreError: the online store is not Redis.
        """
        self._options, self._place = _place(store)
        patience = PATIENCE if timeout is None else timeout
        waits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), patience)
        given = self._place.options if timeout is None else {}
        self._waits = {name: given.get(name, wait) for name, wait in waits.items()}
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
        with reached(self._place, _SLOW):
            with self._lock:
                self._client = self._client or self._made(redis)
            return wire.ask(self._client, commands, count)

    async def ask_async(self, commands: bytes, count: int) -> list[Any]:
        """The same, on the running event loop."""
        loop = asyncio.get_running_loop()
        with reached(self._place, _SLOW):
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
        kind, master = self._options.redis_type, self._options.sentinel_master
        return client_of(library, self._place, kind, master, **self._waits)


def _place(store: FeatureStore) -> tuple[RedisOnlineStoreConfig, Place]:
    """The online store's options, and where its Redis is."""
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
        return options, online.place(options)
    return options, from_configured(options.connection_string)
