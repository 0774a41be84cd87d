"""The reading half of the Redis online store."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, TypeAlias

from feast import FeatureService, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.redis import RedisClient, RedisOnlineStore
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from typing_extensions import override

from reki_feast.stores import _feast
from reki_feast.stores.address import RedisLocation
from reki_feast.stores.connecting import redis_errors
from reki_feast.stores.defaults import default_values
from reki_feast.stores.online.lifetimes import max_age

from .exchange import Exchange, Result, run, run_async
from .layouts import layout_of, stored_name
from .reading import ReadRequest, ViewQuery, ViewRead, fill, view_read
from .requests import OnlineRequest, RequestCache, UncacheableRegistry
from .response import QuickResponse
from .wire import execute, execute_async

Row: TypeAlias = "tuple[datetime | None, dict[str, Value] | None]"
Reading: TypeAlias = Exchange[ReadRequest, list[Any], Result]


class RedisReader(RedisOnlineStore):
    """Feast's Redis store, read by packed commands whose replies become the response.

    The response is that of Feast's own store, but for ids that Redis does not have: NOT_FOUND, with
    the view's default vector or null, where Feast's store says PRESENT and null.
    """

    def __init__(self) -> None:
        super().__init__()
        self._requests = RequestCache()

    @abstractmethod
    def bind(self, config: RepoConfig) -> RepoConfig:
        """Take note of the repo's folder before a client is made; returns the config."""

    @abstractmethod
    def location(self, options: Any) -> RedisLocation:
        """The Redis of the online store's options."""

    @override
    def get_online_features(
        self,
        config: RepoConfig,
        features: Any,
        entity_rows: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Features of entities, by the state of this registry alone.

        Raises:
            StoreError: views are in different spaces, an id does not come through, or Redis fails.
        """
        names, versions = full_feature_names, include_feature_view_version_metadata
        if _is_precomputed(features):
            self._requests.context(registry, project, features, names)  # in one space
            uncacheable: Any = UncacheableRegistry(registry)
            return super().get_online_features(
                config, features, entity_rows, uncacheable, project, names, versions
            )
        request = self._requests.request(registry, project, features, entity_rows, names)
        return self._run(config, self._response(config, request, names, versions))

    @override
    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: Any,
        entity_rows: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """``get_online_features``, asynchronously."""
        names, versions = full_feature_names, include_feature_view_version_metadata
        if _is_precomputed(features):
            self._requests.context(registry, project, features, names)  # in one space
            uncacheable: Any = UncacheableRegistry(registry)
            return await super().get_online_features_async(
                config, features, entity_rows, uncacheable, project, names, versions
            )
        request = self._requests.request(registry, project, features, entity_rows, names)
        return await self._run_async(config, self._response(config, request, names, versions))

    @override
    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """The rows of one view as Feast's store returns them, with defaults filled in."""
        return self._run(config, self._rows(config, table, entity_keys, requested_features))

    @override
    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """``online_read``, asynchronously."""
        reading = self._rows(config, table, entity_keys, requested_features)
        return await self._run_async(config, reading)

    @override
    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """The part of Feast's own ``get_online_features`` that reads from Redis."""
        request = self._request(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        replies = self._replies(config, request)
        names, versions = full_feature_names, include_feature_view_version_metadata
        fill(online_features_response, request, replies, names, versions)

    @override
    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: Any,
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        request = self._request(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        replies = await self._replies_async(config, request)
        names, versions = full_feature_names, include_feature_view_version_metadata
        fill(online_features_response, request, replies, names, versions)

    def _run(self, config: RepoConfig, reading: Reading[Result]) -> Result:
        return run(reading, lambda request: self._replies(config, request))

    async def _run_async(self, config: RepoConfig, reading: Reading[Result]) -> Result:
        return await run_async(reading, lambda request: self._replies_async(config, request))

    def _replies(self, config: RepoConfig, request: ReadRequest) -> list[Any]:
        if not request.count:
            return []
        with self._redis_errors(config):
            options = config.online_store
            if options.client == RedisClient.glide and (fields := request.hash_fields()):
                return list(_feast.read_hash_fields(self, config, fields))
            return execute(self._get_client(options), request.commands, request.count)

    async def _replies_async(self, config: RepoConfig, request: ReadRequest) -> list[Any]:
        if not request.count:
            return []
        with self._redis_errors(config):
            client = await self._get_client_async(config.online_store)
            return await execute_async(client, request.commands, request.count)

    def _response(
        self, config: RepoConfig, request: OnlineRequest, full_names: bool, versions: bool
    ) -> Reading[OnlineResponse]:
        context = request.context
        _feast.check_versioned_read_support(self, context.views)
        with _timed():
            reading = self._request(config, context.views, request.join_keys, context.join_key_of)
            fill(request.response, reading, (yield reading), full_names, versions)
        return self._completed(request, full_names)

    def _rows(
        self,
        config: RepoConfig,
        view: FeatureView,
        keys: Sequence[EntityKey],
        features: Sequence[str] | None,
    ) -> Reading[list[Row]]:
        names = list(features or [field.name for field in view.features])
        version = config.entity_key_serialization_version
        entities = [serialize_entity_key(key, version) for key in keys]
        request = ReadRequest([ViewRead(_query(config, view, names), entities)])
        (rows,) = request.rows((yield request))
        columns = [*rows.columns, rows.timestamps]
        if rows.expired:  # as if they were not stored
            columns = [
                [None if old else value for value, old in zip(column, rows.expired, strict=True)]
                for column in columns
            ]
        values, stored = list(zip(*columns, strict=True)), stored_name(config, view)
        read = _feast.convert_redis_values_to_protobuf(
            self, values, stored, [*names, f"_ts:{stored}"]
        )
        return _with_defaults(view, read)

    def _request(
        self, config: RepoConfig, views: Any, join_keys: Any, join_key_of: Any
    ) -> ReadRequest:
        version = config.entity_key_serialization_version
        return ReadRequest(
            [
                view_read(_query(config, view, features), join_keys, join_key_of, version)
                for view, features in views
            ]
        )

    def _redis_errors(self, config: RepoConfig) -> AbstractContextManager[None]:
        return redis_errors(self.location(self.bind(config).online_store))

    def _completed(self, request: OnlineRequest, full_names: bool) -> OnlineResponse:
        """The response with the features of on-demand views, without columns not asked for."""
        context, response = request.context, request.response
        if context.on_demand:
            _feast.augment_response_with_on_demand_transforms(
                response, context.refs, context.on_demand, full_names, context.types
            )
        _feast.drop_unneeded_columns(response, request.names)
        return QuickResponse(response, {**context.types})


def _query(config: RepoConfig, view: FeatureView, features: Sequence[str]) -> ViewQuery:
    layout = layout_of(config, view, features)
    return ViewQuery(view, list(features), layout, max_age(view, config.online_store))


def _is_precomputed(features: Any) -> bool:
    """Whether a service's vectors may be stored ready-made; Feast's own code reads those."""
    return isinstance(features, FeatureService) and bool(features.precompute_online)


def _with_defaults(view: FeatureView, rows: list[Row]) -> list[Row]:
    defaults = default_values(view)
    for _, values in rows if defaults else []:
        for name in defaults.keys() & (values or {}).keys():
            if values is not None and values[name].WhichOneof("val") is None:
                values[name] = defaults[name]
    return rows


@contextmanager
def _timed() -> Iterator[None]:
    """Report to Feast's metrics how long a read took."""
    start = time.monotonic()
    yield
    _feast.track_online_store_read(time.monotonic() - start)
