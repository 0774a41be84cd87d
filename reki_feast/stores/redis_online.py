"""Feast's Redis online store, with default vectors for ids that are not stored.

In ``feature_store.yaml``::

    online_store:
      type: reki_feast.stores.redis_online.RekiRedisOnlineStore
      connection_string: embedded:../data/redis   # or host:port,db=0,password=…, or a URL

``REDIS_URL`` in the environment takes precedence over ``connection_string``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import redis
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.online_response import OnlineResponse
from pydantic import StrictStr
from redis import asyncio as redis_asyncio
from typing_extensions import override

from reki_feast.errors import StoreError

from .address import RedisLocation, from_configured, resolve
from .connecting import FAILURES, make_client, refusal
from .defaults import SCENARIO_TAG
from .names import check_views
from .online.checkpoints import CheckpointSlot, delete_checkpoint, delete_checkpoints
from .online.exchange import Exchange, run, run_async
from .online.layouts import all_layouts, layout_of, packed_layout
from .online.requests import OnlineRequest
from .online.rows import FeastRow, in_slices, rows_of_batch, rows_of_messages
from .online.searching import RedisSearcher
from .online.vectorized import compute_on_demand
from .online.wire import execute, execute_async
from .online.writing import OverwriteRules, WriteRequest, write, write_stream
from .versions import living_versions

#: Bytes of rows that are encoded at once; a batch of long texts is written in slices.
BATCH_BYTES = 32 << 20


class RekiRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The options of Feast's store, and those below."""

    type: StrictStr = "reki_feast.stores.redis_online.RekiRedisOnlineStore"  # type: ignore[assignment]

    connection_string: StrictStr = "embedded"
    """Feast's ``host:port,db=…``, a URL that redis-py accepts, or ``embedded`` or
    ``embedded:FOLDER`` (relative to the repo's folder) for a Redis server that is started when
    first needed."""

    layout: Literal["hash", "packed"] = "hash"
    """``packed`` stores views of vectors in half the memory; only this package reads them."""

    enforce_ttl: Literal["reki", "all"] = "reki"
    """Which views' rows are no longer read once they are older than the view's ttl: those with the
    tag ``reki.scenario``, or all."""

    vector_enabled: bool = True
    """Whether views are searched by vectors, as other stores of Feast have it."""

    search_exact_rows: int = 100_000
    """Vector searches are exact up to so many rows; above, by a graph if faiss is installed."""

    search_folder: StrictStr | None = "data/search"
    """Where such graphs are kept, relative to the repo's folder; null: in memory alone."""


class RekiRedisOnlineStore(RedisSearcher):
    """Feast's store; an id that is not stored gets the view's default, status NOT_FOUND.

    It writes what Feast's store writes: either may read the other's rows.
    """

    _repo: Path | None = None
    _location: RedisLocation | None = None

    @override
    def _get_client(self, online_store_config: Any) -> Any:
        if not self._client:
            self._client = self._make_client(redis, online_store_config)
        return self._client

    @override
    async def _get_client_async(self, online_store_config: Any) -> Any:
        if not self._client_async:
            self._client_async = self._make_client(redis_asyncio, online_store_config)
        return self._client_async

    def _make_client(self, library: Any, options: Any) -> Any:
        location = self.location(options)
        return make_client(library, location, options.redis_type, options.sentinel_master)

    @override
    def _get_glide_client(self, online_store_config: Any) -> Any:
        if self._glide_client:
            return self._glide_client
        address = {"connection_string": self.location(online_store_config).connection_string}
        return super()._get_glide_client(online_store_config.model_copy(update=address))

    @override
    def location(self, options: Any) -> RedisLocation:
        """The Redis of the online store's options; resolved once.

        Raises:
            StoreError: the address cannot be used, or the embedded server does not start.
        """
        if self._location is None:
            self._location = resolve(options.connection_string, self._repo)
        return self._location

    @override
    def bind(self, config: RepoConfig) -> RepoConfig:
        """Take note of the repo's folder, which Feast does not pass where it makes a client."""
        self._repo = Path(config.repo_path) if config.repo_path else None
        return config

    @override
    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows newer than those stored, as Feast's store does.

        A row of a view with the tag ``reki.scenario`` also replaces one of the same time: new
        weights give a snapshot new vectors, and the old ones must not stay.
        """
        with self._redis_errors(config):
            client = self._get_client(config.online_store)
            run(self._write(config, table, data), lambda request: execute(client, *request))
        if progress:
            progress(len(data))

    @override
    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """``online_write_batch``, asynchronously."""
        with self._redis_errors(config):
            client = await self._get_client_async(config.online_store)
            writing = self._write(config, table, data)
            await run_async(writing, lambda request: execute_async(client, *request))
        if progress:
            progress(len(data))

    def write_arrow(
        self, config: RepoConfig, table: FeatureView, batches: Iterable[pa.RecordBatch]
    ) -> int:
        """Write Arrow batches without a Python object a value; how many rows they had.

        Args:
            config: the repo.
            table: the view; the batches have its join keys, features and event time.
            batches: rows, bounded in number; long ones are written in slices.

        Raises:
            StoreError: Redis closed the connection or refused. Rows written before stay.
        """
        version = config.entity_key_serialization_version
        slices = (part for batch in batches for part in in_slices(batch, BATCH_BYTES))
        rows = (block for part in slices for block in rows_of_batch(table, part, version))
        written = 0
        try:
            client = self._get_client(self.bind(config).online_store)
            for count in write_stream(
                client, layout_of(config, table), rows, _rules(config, table)
            ):
                written += count
        except FAILURES as error:
            raise _not_written(error, table, self.location(config.online_store), written) from error
        return written

    @contextmanager
    def checkpoint(self, config: RepoConfig, table: FeatureView) -> Iterator[CheckpointSlot]:
        """Where it is kept how far a view's rows are online.

        Raises:
            StoreError: Redis closed the connection or refused.
        """
        with self._redis_errors(config):
            client = self._get_client(config.online_store)
            yield CheckpointSlot(client, config, table, _rules(config, table))

    def void_checkpoint(self, config: RepoConfig, table: FeatureView) -> None:
        """Have the next materialization write all rows of a view: others than it knows are online.

        Raises:
            StoreError: Redis closed the connection or refused.
        """
        with self._redis_errors(config):
            delete_checkpoint(self._get_client(config.online_store), config, table)

    def _write(
        self, config: RepoConfig, table: FeatureView, data: list[FeastRow]
    ) -> Exchange[WriteRequest, list[Any], None]:
        rows = rows_of_messages(data, config.entity_key_serialization_version)
        return write(layout_of(config, table), rows, _rules(config, table))

    @override
    def _completed(self, request: OnlineRequest, full_names: bool) -> OnlineResponse:
        if request.context.on_demand:
            request = compute_on_demand(request, full_names)
        return super()._completed(request, full_names)

    @override
    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Delete the rows of removed views, as Feast's store does.

        Raises:
            StoreError: a view that DuckDB is to read has names that differ by case only.
        """
        if "duckdb" in str(config.offline_store.type):
            check_views(tables_to_keep)
        with self._redis_errors(config):
            super().update(
                config,
                tables_to_delete,
                tables_to_keep,
                entities_to_delete,
                entities_to_keep,
                partial,
            )

    @override
    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        """Delete all rows of some join keys, as Feast's store does."""
        delete_checkpoints(self._get_client(self.bind(config).online_store), config)
        super().delete_entity_values(config, join_keys)

    @override
    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete a view's rows, in all its spaces."""
        client = self._get_client(self.bind(config).online_store)
        for view in living_versions(table):
            delete_checkpoint(client, config, view)
            for layout in all_layouts(config, view):
                layout.delete_all(client, view.join_keys)

    @override
    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Delete the rows of all views."""
        client = self._get_client(self.bind(config).online_store)
        for table in tables:
            for view in living_versions(table):
                packed_layout(config, view).delete_all(client, view.join_keys)
        super().teardown(config, tables, entities)


def location_of(online: RedisOnlineStore, config: RepoConfig) -> RedisLocation:
    """The Redis of a repo's online store, which is Feast's own or this package's.

    Raises:
        StoreError: the address cannot be used, or the embedded server does not start.
    """
    options: Any = config.online_store
    if isinstance(online, RekiRedisOnlineStore):
        return online.location(online.bind(config).online_store)
    return from_configured(options.connection_string)


def _rules(config: RepoConfig, table: FeatureView) -> OverwriteRules:
    options: Any = config.online_store
    return OverwriteRules(only_newer=not options.skip_dedup, same_time=SCENARIO_TAG in table.tags)


def _not_written(
    error: Exception, table: FeatureView, location: RedisLocation, written: int
) -> StoreError:
    unreachable = ("answers", f"see that it is up, and that {location.origin} names it")
    problem, hint = refusal(error, location.origin) or unreachable
    return StoreError(
        f"Redis takes the rows of feature view {table.name}: it {problem}",
        detail=f"{type(error).__name__} at {location.display} after {written:,} rows: {error}",
        hint=f"{hint}; then materialize again: rows that are stored are not written twice",
    )
