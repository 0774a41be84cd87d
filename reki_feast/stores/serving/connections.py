"""The reader's own connections to the Redis of Feast's online store."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import redis
from feast import FeatureStore
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis import asyncio as redis_asyncio

from reki_feast.errors import StoreError
from reki_feast.stores._feast import provider_of
from reki_feast.stores.address import RedisLocation
from reki_feast.stores.connecting import make_client, redis_errors
from reki_feast.stores.online import wire
from reki_feast.stores.redis_online import location_of

#: Default seconds to wait for Redis.
TIMEOUT = 1.0
_TIMEOUT_HINT = "raise `timeout` of the TensorReader, or ask for fewer rows at once"


class Connections:
    """Pools of connections: one for all threads, one for each event loop."""

    def __init__(self, store: FeatureStore, timeout: float | None) -> None:
        """Nothing is opened yet.

        Raises:
            StoreError: the online store is not Redis.
        """
        self._options, self._location = _redis_of(store)
        seconds = TIMEOUT if timeout is None else timeout
        configured = self._location.options if timeout is None else {}
        names = ("socket_timeout", "socket_connect_timeout")
        self._timeouts = {name: configured.get(name, seconds) for name in names}
        self._client: Any = None
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._lock = Lock()

    def execute(self, commands: bytes, count: int) -> list[Any]:
        """Send commands, wait for their replies.

        Raises:
            StoreError: Redis does not answer, or not in time.
        """
        with redis_errors(self._location, _TIMEOUT_HINT):
            with self._lock:
                self._client = self._client or self._make_client(redis)
            return wire.execute(self._client, commands, count)

    async def execute_async(self, commands: bytes, count: int) -> list[Any]:
        """``execute`` on the running event loop."""
        loop = asyncio.get_running_loop()
        with redis_errors(self._location, _TIMEOUT_HINT):
            with self._lock:
                client = self._by_loop.get(loop) or self._make_client(redis_asyncio)
                self._by_loop[loop] = client
            return await wire.execute_async(client, commands, count)

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

    def _make_client(self, library: Any) -> Any:
        kind, master = self._options.redis_type, self._options.sentinel_master
        return make_client(library, self._location, kind, master, **self._timeouts)


def _redis_of(store: FeatureStore) -> tuple[RedisOnlineStoreConfig, RedisLocation]:
    """The online store's options, and its Redis."""
    online, options = provider_of(store).online_store, store.config.online_store
    if not isinstance(online, RedisOnlineStore) or not isinstance(options, RedisOnlineStoreConfig):
        raise StoreError(
            "TensorReader reads from Redis",
            detail=f"online store {type(online).__module__}.{type(online).__name__}",
            hint="online_store: {type: reki_feast.stores.redis_online.RekiRedisOnlineStore} "
            "in feature_store.yaml",
        )
    return options, location_of(online, store.config)
