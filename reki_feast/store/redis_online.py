"""Feast's Redis online store, with the default vector for ids it does not know.

In ``feature_store.yaml``::

    online_store:
      type: reki_feast.store.redis_online.RekiRedisOnlineStore
      connection_string: embedded:../data/redis   # or host:port,db=0,password=…

``REDIS_URL`` in the environment wins over ``connection_string``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from pydantic import StrictStr

from .address import connection_string
from .defaults import SCENARIO_TAG, default_values

Row = tuple[datetime | None, dict[str, Value] | None]
Written = list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]


class RekiRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The options of the stock store; ``connection_string`` may also say ``embedded``."""

    type: StrictStr = "reki_feast.store.redis_online.RekiRedisOnlineStore"  # type: ignore[assignment]

    connection_string: StrictStr = "embedded"
    """Feast's ``host:port,db=…``, or ``embedded`` or ``embedded:FOLDER`` (from the repo's folder)
    for a Redis server that is started when first needed."""


class RekiRedisOnlineStore(RedisOnlineStore):
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

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """The stock read, with defaults filled in."""
        rows = super().online_read(self.at(config), table, entity_keys, requested_features)
        return _filled_rows(table, rows)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """The same, asynchronously."""
        self.at(config)
        rows = await super().online_read_async(config, table, entity_keys, requested_features)
        return _filled_rows(table, rows)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        *rest: Any,
    ) -> None:
        read_before = len(online_features_response.results)
        super()._read_features_per_fv(
            self.at(config),
            grouped_refs,
            join_key_values,
            entity_name_to_join_key_map,
            online_features_response,
            full_feature_names,
            *rest,
        )
        defaults = _defaults_by_name(grouped_refs, full_feature_names)
        _fill_response(online_features_response, read_before, defaults)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        *rest: Any,
    ) -> None:
        read_before = len(online_features_response.results)
        await super()._read_features_per_fv_async(
            self.at(config),
            grouped_refs,
            join_key_values,
            entity_name_to_join_key_map,
            online_features_response,
            full_feature_names,
            *rest,
        )
        defaults = _defaults_by_name(grouped_refs, full_feature_names)
        _fill_response(online_features_response, read_before, defaults)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Written,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The stock write; a row of our views replaces one of the same time.

        The stock store keeps the older of two rows with the same event timestamp. New weights give
        a snapshot new vectors, and the old ones must not stay.
        """
        self.at(config)
        if SCENARIO_TAG in table.tags:
            self._forget_times(config, table, data)
        super().online_write_batch(config, table, data, progress)

    def _forget_times(self, config: RepoConfig, table: FeatureView, data: Written) -> None:
        """Remove the time stamps of stored rows that bear the very time of the new ones."""
        client = self._get_client(config.online_store)
        versioned = config.registry.enable_online_feature_view_versioning
        stamp = f"_ts:{compute_versioned_name(table, versioned)}"
        keys = self._generate_redis_keys_for_entities(config, [entity for entity, *_ in data])
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, stamp)
            stored = pipe.execute()
            for key, (_, _, time, _), old in zip(keys, data, stored, strict=True):
                if old and Timestamp.FromString(old) == _stamp(time):
                    pipe.hdel(key, stamp)
            pipe.execute()

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Written,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The stock write, asynchronously."""
        await super().online_write_batch_async(self.at(config), table, data, progress)

    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        """The stock deletion."""
        super().delete_entity_values(self.at(config), join_keys)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """The stock deletion."""
        super().delete_table(self.at(config), table)


def _stamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(make_tzaware(time))
    return stamp


def _filled_rows(table: FeatureView, rows: list[Row]) -> list[Row]:
    defaults = default_values(table)
    if defaults:
        for _, values in rows:
            for name in defaults.keys() & (values or {}).keys():
                if values is not None and values[name].WhichOneof("val") is None:
                    values[name] = defaults[name]
    return rows


def _defaults_by_name(grouped_refs: Any, full_names: bool) -> dict[str, Value]:
    """Default values by the name they bear in the response."""
    named = {}
    for view, _ in grouped_refs:
        prefix = f"{view.projection.name_to_use()}__" if full_names else ""
        named.update({prefix + feature: v for feature, v in default_values(view).items()})
    return named


def _fill_response(response: Any, first: int, defaults: dict[str, Value]) -> None:
    """Put defaults where the features read (from index ``first`` on) have no value."""
    if not defaults:
        return
    names: Sequence[str] = response.metadata.feature_names.val[first:]
    for name, vector in zip(names, response.results[first:], strict=True):
        default = defaults.get(name)
        if default is None:
            continue
        for row, value in enumerate(vector.values):
            if value.WhichOneof("val") is None:
                value.CopyFrom(default)
                # The stock store says PRESENT, null, here.
                vector.statuses[row] = FieldStatus.NOT_FOUND
