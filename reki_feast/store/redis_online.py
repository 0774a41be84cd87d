"""Feast's Redis online store, with the default vector for ids it does not know.

In ``feature_store.yaml``::

    online_store:
      type: reki_feast.store.redis_online.RekiRedisOnlineStore
      connection_string: embedded:../data/redis   # or host:port,db=0,password=…

``REDIS_URL`` in the environment wins over ``connection_string``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig, _versioned_fv_name
from feast.online_response import OnlineResponse
from pydantic import StrictStr
from redis import RedisError

from reki_feast.errors import StoreError

from .address import connection_string
from .defaults import SCENARIO_TAG
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
    """Feast's ``host:port,db=…``, or ``embedded`` or ``embedded:FOLDER`` (from the repo's folder)
    for a Redis server that is started when first needed."""

    layout: Literal["hash", "packed"] = "hash"
    """``packed`` keeps views of vectors in half the memory, for readers of this package only."""


class RekiRedisOnlineStore(RedisReader):
    """The stock store; an id without a vector gets the view's default, status NOT_FOUND.

    What it writes is what the stock store writes: either may read the other's.
    """

    _repo: Path | None = None
    _address: str = ""

    def _get_client(self, online_store_config: Any) -> Any:
        return super()._get_client(self._located(online_store_config))

    async def _get_client_async(self, online_store_config: Any) -> Any:
        return await super()._get_client_async(self._located(online_store_config))

    def _get_glide_client(self, online_store_config: Any) -> Any:
        return super()._get_glide_client(self._located(online_store_config))

    def _located(self, config: RedisOnlineStoreConfig) -> RedisOnlineStoreConfig:
        """The options with a connection string Redis clients understand; found out once."""
        if not self._address:
            self._address = connection_string(config.connection_string, self._repo)
        return config.model_copy(update={"connection_string": self._address})

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
        client = self._get_client(self.at(config).online_store)
        layout, rules = self._layout(config, table), self._rules(config, table)
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
        client = await self._get_client_async(self.at(config).online_store)
        layout, rules = self._layout(config, table), self._rules(config, table)
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
        client = self._get_client(self.at(config).online_store)
        layout, rules = self._layout(config, table), self._rules(config, table)
        version = config.entity_key_serialization_version
        parts = (part for batch in batches for part in in_parts(batch, BATCH_BYTES))
        rows = (rows for part in parts for rows in rows_of_batch(table, part, version))
        done = 0
        try:
            for count in write(client, layout, rows, rules):
                done += count
        except RedisError as error:
            raise StoreError(
                f"Redis takes the rows of feature view {table.name}",
                found=f"{type(error).__name__} after {done:,} rows: {error}",
                mend="see that Redis is up and has memory, then materialize again: rows that "
                "stand there are not written twice",
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
