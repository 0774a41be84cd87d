"""The reading half of the Redis online store."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from feast import FeatureService, FeatureView, RepoConfig, utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.redis import (
    RedisClient,
    RedisOnlineStore,
    RedisType,
    _versioned_fv_name,
)
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from reki_feast.store.address import Place, from_configured
from reki_feast.store.connecting import reached
from reki_feast.store.defaults import default_values
from reki_feast.store.lifetimes import lifetime

from .read_layouts import Layout, PackedRows, hash_rows
from .reading import Asked, Part, fill, hashes, part_of
from .requests import Request, Requests, Unremembered
from .response import QuickResponse
from .wire import ask, ask_async

Row = tuple[datetime | None, dict[str, Value] | None]


class RedisReader(RedisOnlineStore):
    """The stock store, which reads by packed commands and makes its answer of the bytes found.

    The answer is the stock store's, but for ids that Redis does not know: NOT_FOUND, with the
    view's default vector or null, where the stock store says PRESENT and null.
    """

    def __init__(self) -> None:
        super().__init__()
        self._requests = Requests()

    def at(self, config: RepoConfig) -> RepoConfig:
        """Take note of where the repo is, before a client is made."""
        return config

    def place(self, config: Any) -> Place:
        """Where Redis is."""
        return from_configured(config.connection_string)

    def _reached(self, config: RepoConfig) -> AbstractContextManager[None]:
        return reached(self.place(self.at(config).online_store))

    def packs(self, config: RepoConfig, table: FeatureView) -> bool:  # noqa: ARG002
        """Whether a view's rows are packed."""
        return False

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
        """What Feast's own gives, by the state of this registry alone."""
        names, versions = full_feature_names, include_feature_view_version_metadata
        if _precomputed(features):
            alone: Any = Unremembered(registry)
            return super().get_online_features(
                config, features, entity_rows, alone, project, names, versions
            )
        request = self._requests.request(registry, project, features, entity_rows, names)
        context = request.context
        self._check_versioned_read_support(context.views)  # type: ignore[no-untyped-call]
        with _timed():
            self._read_features_per_fv(
                config,
                context.views,
                request.join_keys,
                context.join_key_of,
                request.response,
                names,
                versions,
            )
        return self._answer(request, names)

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
        """The same, asynchronously."""
        names, versions = full_feature_names, include_feature_view_version_metadata
        if _precomputed(features):
            alone: Any = Unremembered(registry)
            return await super().get_online_features_async(
                config, features, entity_rows, alone, project, names, versions
            )
        request = self._requests.request(registry, project, features, entity_rows, names)
        context = request.context
        self._check_versioned_read_support(context.views)  # type: ignore[no-untyped-call]
        with _timed():
            await self._read_features_per_fv_async(
                config,
                context.views,
                request.join_keys,
                context.join_key_of,
                request.response,
                names,
                versions,
            )
        return self._answer(request, names)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """The rows of one view as the stock store gives them, with defaults filled in."""
        asked = Asked([self._part_of_keys(config, table, entity_keys, requested_features)])
        return self._rows(config, asked, self._replies(config, asked))

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """The same, asynchronously."""
        asked = Asked([self._part_of_keys(config, table, entity_keys, requested_features)])
        return self._rows(config, asked, await self._replies_async(config, asked))

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
        """Add the views' columns to the response; their rows are asked for in one go."""
        names, versions = full_feature_names, include_feature_view_version_metadata
        asked = self._asked(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        fill(online_features_response, asked, self._replies(config, asked), names, versions)

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
        names, versions = full_feature_names, include_feature_view_version_metadata
        asked = self._asked(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        replies = await self._replies_async(config, asked)
        fill(online_features_response, asked, replies, names, versions)

    def _asked(self, config: RepoConfig, views: Any, given: Any, join_key_of: Any) -> Asked:
        version = config.entity_key_serialization_version
        return Asked(
            [
                part_of(
                    view,
                    features,
                    self._rows_of(config, view, features),
                    given,
                    join_key_of,
                    version,
                    lifetime(view, config.online_store),
                )
                for view, features in views
            ]
        )

    def _part_of_keys(
        self,
        config: RepoConfig,
        view: FeatureView,
        keys: Sequence[EntityKey],
        features: Sequence[str] | None,
    ) -> Part:
        names = list(features or [field.name for field in view.features])
        version = config.entity_key_serialization_version
        entities = [serialize_entity_key(key, version) for key in keys]
        span = lifetime(view, config.online_store)
        return Part(view, names, self._rows_of(config, view, names), entities, None, span)

    def _rows_of(self, config: RepoConfig, view: FeatureView, features: Sequence[str]) -> Layout:
        name, options = _versioned_fv_name(view, config), config.online_store
        if self.packs(config, view):
            every = [field.name for field in view.features]
            cluster = options.redis_type == RedisType.redis_cluster
            return PackedRows(config.project, name, every, features, cluster)
        return hash_rows(config.project, name, tuple(features))

    def _replies(self, config: RepoConfig, asked: Asked) -> list[Any]:
        if not asked.count:
            return []
        with self._reached(config):
            options = config.online_store
            if options.client == RedisClient.glide and (plain := hashes(asked)):
                return list(self._read_hash_fields(config, plain))
            return ask(self._get_client(options), asked.commands, asked.count)

    async def _replies_async(self, config: RepoConfig, asked: Asked) -> list[Any]:
        if not asked.count:
            return []
        with self._reached(config):
            client = await self._get_client_async(config.online_store)
            return await ask_async(client, asked.commands, asked.count)

    def _rows(self, config: RepoConfig, asked: Asked, replies: Sequence[Any]) -> list[Row]:
        (part,), (found,) = asked.parts, asked.found(replies)
        name = _versioned_fv_name(part.view, config)
        columns = [*found.columns, found.times]
        if found.old:  # as if they were not there
            columns = [
                [None if old else value for value, old in zip(column, found.old, strict=True)]
                for column in columns
            ]
        values = zip(*columns, strict=True)
        rows: list[Row] = self._convert_redis_values_to_protobuf(
            list(values), name, [*part.features, f"_ts:{name}"]
        )
        return _filled(part.view, rows)

    def _answer(self, request: Request, full_names: bool) -> OnlineResponse:
        """The response with what on-demand views add, and without what nobody asked for."""
        context, response = request.context, request.response
        if context.on_demand:
            utils._augment_response_with_on_demand_transforms(
                response, context.refs, context.on_demand, full_names, context.types
            )
        utils._drop_unneeded_columns(response, request.names)
        return QuickResponse(response, {**context.types})


def _precomputed(features: Any) -> bool:
    """Whether a service's answers may stand in Redis ready-made; Feast's own code reads those."""
    return isinstance(features, FeatureService) and bool(features.precompute_online)


def _filled(view: FeatureView, rows: list[Row]) -> list[Row]:
    defaults = default_values(view)
    for _, values in rows if defaults else []:
        for name in defaults.keys() & (values or {}).keys():
            if values is not None and values[name].WhichOneof("val") is None:
                values[name] = defaults[name]
    return rows


@contextmanager
def _timed() -> Iterator[None]:
    """Tell Feast's metrics how long it took; they are off unless a feature server loaded them."""
    start = time.monotonic()
    yield
    if metrics := sys.modules.get("feast.metrics"):
        metrics.track_online_store_read(time.monotonic() - start)
