"""Feast's Redis online store, with the default vector for ids it does not know.

In ``feature_store.yaml``::

    online_store:
      type: reki_feast.store.redis_online.RekiRedisOnlineStore
      connection_string: embedded:../data/redis   # or host:port,db=0,password=…, or a URL

``REDIS_URL`` in the environment wins over ``connection_string``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import redis
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig, _versioned_fv_name
from feast.online_response import OnlineResponse
from pydantic import StrictStr
from redis import asyncio as redis_asyncio

from reki_feast.errors import StoreError

from .address import Place, place_of
from .connecting import FAILURES, client_of, refusal
from .defaults import SCENARIO_TAG
from .names import check_views
from .online.hashed import HashLayout
from .online.packed import PackedLayout, delete_packed, packable
from .online.reader import RedisReader
from .online.requests import Request
from .online.rows import Written, in_parts, rows_of_batch, rows_of_messages
from .online.scored import with_scores
from .online.writing import Layout, Rules, write, write_once, write_once_async

#: Bytes of a batch on its way to Redis; a batch of long texts is written in parts.
BATCH_BYTES = 32 << 20


class RekiRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The options of the stock store; ``connection_string`` may also say ``embedded``."""

    type: StrictStr = "reki_feast.store.redis_online.RekiRedisOnlineStore"  # type: ignore[assignment]

    connection_string: StrictStr = "embedded"
    """Feast's ``host:port,db=…``, a URL that redis-py takes, or ``embedded`` or
    ``embedded:FOLDER`` (from the repo's folder) for a Redis server that is started when first
    needed."""

    layout: Literal["hash", "packed"] = "hash"
    """``packed`` keeps views of vectors in half the memory, for readers of this package only."""

    enforce_ttl: Literal["reki", "all"] = "reki"
    """Whose rows are no longer read once they are older than their view's ttl: those of views that
    this package makes, or of all views."""


class RekiRedisOnlineStore(RedisReader):
    """The stock store; an id without a vector gets the view's default, status NOT_FOUND.

    What it writes is what the stock store writes: either may read the other's.
    """

    _repo: Path | None = None
    _place: Place | None = None

    def _get_client(self, online_store_config: Any) -> Any:
        if not self._client:
            self._client = self._made(redis, online_store_config)
        return self._client

    async def _get_client_async(self, online_store_config: Any) -> Any:
        if not self._client_async:
            self._client_async = self._made(redis_asyncio, online_store_config)
        return self._client_async

    def _made(self, library: Any, options: Any) -> Any:
        return client_of(library, self.place(options), options.redis_type, options.sentinel_master)

    def _get_glide_client(self, online_store_config: Any) -> Any:
        if self._glide_client:
            return self._glide_client
        address = {"connection_string": self.place(online_store_config).connection_string}
        return super()._get_glide_client(online_store_config.model_copy(update=address))

    def place(self, config: Any) -> Place:
        """Where Redis is; found out once.

        Raises:
            StoreError: the address cannot be used, or the embedded server does not start.
        """
        if self._place is None:
            self._place = place_of(config.connection_string, self._repo)
        return self._place

    def at(self, config: RepoConfig) -> RepoConfig:
        """Remember where the repo is; the client is made where only its options are known."""
        self._repo = Path(config.repo_path) if config.repo_path else None
        return config

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows newer than those stored, as the stock store does.

        A row of our views replaces one of the same time, too: new weights give a snapshot new
        vectors, and the old ones must not stay.
        """
        layout, rules = self._layout(config, table), self._rules(config, table)
        with self._reached(config):
            client = self._get_client(config.online_store)
            for rows in rows_of_messages(data, config.entity_key_serialization_version):
                write_once(client, layout, rows, rules)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same, asynchronously."""
        layout, rules = self._layout(config, table), self._rules(config, table)
        with self._reached(config):
            client = await self._get_client_async(config.online_store)
            for rows in rows_of_messages(data, config.entity_key_serialization_version):
                await write_once_async(client, layout, rows, rules)
        if progress:
            progress(len(data))

    def write_arrow(
        self, config: RepoConfig, table: FeatureView, batches: Iterable[pa.RecordBatch]
    ) -> int:
        """Write Arrow batches without a Python object a value; how many rows they had.

        Args:
            config: the repo.
            table: the view; the batches have its join keys, features and event time.
            batches: rows, bounded in number; long ones are written in parts.

        Raises:
            StoreError: Redis went away or refused. Rows written before stay.
        """
        layout, rules = self._layout(config, table), self._rules(config, table)
        version = config.entity_key_serialization_version
        parts = (part for batch in batches for part in in_parts(batch, BATCH_BYTES))
        rows = (rows for part in parts for rows in rows_of_batch(table, part, version))
        done = 0
        try:
            client = self._get_client(self.at(config).online_store)
            for count in write(client, layout, rows, rules):
                done += count
        except FAILURES as error:
            place = self.place(config.online_store)
            up = ("answers", f"see that it is up, and that {place.origin} names it")
            cause, mend = refusal(error, place.origin) or up
            raise StoreError(
                f"Redis takes the rows of feature view {table.name}: it {cause}",
                found=f"{type(error).__name__} at {place.shown} after {done:,} rows: {error}",
                mend=f"{mend}; then materialize again: rows that stand there are not written twice",
            ) from error
        return done

    def _answer(self, request: Request, full_names: bool) -> OnlineResponse:
        if request.context.on_demand:
            request = with_scores(request, full_names)
        return super()._answer(request, full_names)

    def _layout(self, config: RepoConfig, table: FeatureView) -> Layout:
        options: Any = config.online_store
        name, ttl = _versioned_fv_name(table, config), options.key_ttl_seconds
        if self.packs(config, table):
            return PackedLayout(config.project, name, [f.name for f in table.features], ttl)
        return HashLayout(config.project, name, ttl)

    def _rules(self, config: RepoConfig, table: FeatureView) -> Rules:
        options: Any = config.online_store
        return Rules(compare=not options.skip_dedup, renew=SCENARIO_TAG in table.tags)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Delete the rows of views that are gone, as the stock store does.

        Raises:
            StoreError: a view that DuckDB is to read has names that differ by case only.
        """
        if "duckdb" in str(config.offline_store.type):
            check_views(tables_to_keep)
        with self._reached(config):
            super().update(
                config,
                tables_to_delete,
                tables_to_keep,
                entities_to_delete,
                entities_to_keep,
                partial,
            )

    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        """The stock deletion."""
        super().delete_entity_values(self.at(config), join_keys)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete a view's rows."""
        if self.packs(config, table):
            self._delete_packed(config, table)
        else:
            super().delete_table(self.at(config), table)

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Delete the rows of views that are removed."""
        for table in tables:
            if self.packs(config, table):
                self._delete_packed(config, table)
        super().teardown(self.at(config), tables, entities)

    def packs(self, config: RepoConfig, table: FeatureView) -> bool:
        """Whether a view's rows are packed: ``layout: packed``, and vectors are all it has."""
        options: Any = config.online_store
        return options.layout == "packed" and packable(table)

    def _delete_packed(self, config: RepoConfig, table: FeatureView) -> None:
        client = self._get_client(self.at(config).online_store)
        delete_packed(client, config.project, _versioned_fv_name(table, config))
