"""Every private name of Feast that the stores call, each with the reason.

Feast may change them in any release: ``tests/stores/test_private_names.py`` says which one did. No
other module names them; there they have Feast's name without the underscore. Methods that our
subclasses override are marked by ``typing_extensions.override`` where they stand.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from feast.infra.key_encoding_utils import (
    # One value's bytes in an entity key, for the types that we encode one by one.
    _serialize_val as serialize_val,
)
from feast.infra.online_stores.helpers import (
    # The field of a feature in a Redis hash: we write and read the stock store's hashes.
    _mmh3 as mmh3,
)
from feast.infra.online_stores.online_store import OnlineStore
from feast.utils import (
    # Computes on-demand views into an answer that we filled ourselves.
    _augment_response_with_on_demand_transforms as augment_response_with_on_demand_transforms,
)
from feast.utils import (
    # Converts the Arrow columns that have no fast form of ours.
    _convert_arrow_to_proto as convert_arrow_to_proto,
)
from feast.utils import (
    # Removes join keys and inputs of on-demand views that nobody asked for.
    _drop_unneeded_columns as drop_unneeded_columns,
)
from feast.utils import (
    # What feature references mean; we keep the result for each store.
    _get_cached_request_context as get_cached_request_context,
)
from feast.utils import (
    # The views of a service or of references, read past the registry's cache.
    _get_feature_views_to_use as get_feature_views_to_use,
)
from feast.utils import (
    # A view's join keys out of a request, under the names of its projection.
    _get_table_entity_values as get_table_entity_values,
)
from feast.utils import (
    # Raises Feast's own error for join keys that do not fit.
    _get_unique_entities as get_unique_entities,
)
from feast.utils import (
    # ``view@v2:feature`` into its parts.
    _parse_feature_ref as parse_feature_ref,
)
from feast.utils import (
    # Raises Feast's own error for columns of a request that differ in length.
    _validate_entity_values as validate_entity_values,
)
from feast.utils import (
    # Raises Feast's own error for features whose names collide.
    _validate_feature_refs as validate_feature_refs,
)
from feast.utils import (
    # Raises Feast's own error for vectors longer than their view declares.
    _validate_vector_field_lengths as validate_vector_field_lengths,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import FeatureService, FeatureStore
    from feast.data_source import DataSource
    from feast.infra.compute_engines.dag.context import ExecutionContext
    from feast.infra.compute_engines.local.compute import LocalComputeEngine
    from feast.infra.registry.file import FileRegistryStore

__all__ = [
    "augment_response_with_on_demand_transforms",
    "backend_of",
    "build_feature_types",
    "categorical_stats",
    "check_versioned_read_support",
    "convert_arrow_to_proto",
    "convert_redis_values_to_protobuf",
    "drop_unneeded_columns",
    "file_of_registry",
    "get_cached_request_context",
    "get_feature_views_to_use",
    "get_table_entity_values",
    "get_unique_entities",
    "mmh3",
    "numeric_stats",
    "parse_feature_ref",
    "pending_feature_refs",
    "provider_of",
    "read_hash_fields",
    "redis_client_of",
    "serialize_val",
    "sqlite_connection_of",
    "track_feature_statuses",
    "track_online_store_read",
    "validate_entity_values",
    "validate_feature_refs",
    "validate_vector_field_lengths",
    "write_data_source",
]


def provider_of(store: FeatureStore) -> Any:
    """The provider of a repo: the way to its online store, offline store and engine."""
    return store._get_provider()


def redis_client_of(online: Any, options: Any) -> Any:
    """The client of a Redis online store, the stock one's or ours; made when first asked for."""
    return online._get_client(options)


def sqlite_connection_of(online: Any, config: Any) -> Any:
    """The connection of Feast's SQLite online store."""
    return online._get_conn(config)


def build_feature_types(views: Any) -> dict[str, Any]:
    """Types of features by their short and full names; an answer needs them."""
    return cast("dict[str, Any]", OnlineStore._build_feature_types(views))


def check_versioned_read_support(online: OnlineStore, views: Any) -> None:
    """Feast's refusal of versioned references in stores that keep no versions."""
    check: Any = online._check_versioned_read_support
    check(views)


def read_hash_fields(online: Any, config: Any, commands: Any) -> list[Any]:
    """Replies of HMGETs by the client that the repo names (``client: glide``)."""
    return cast("list[Any]", online._read_hash_fields(config, commands))


def convert_redis_values_to_protobuf(
    online: Any, values: list[Any], view: str, fields: list[str]
) -> list[Any]:
    """Rows of ``online_read``, out of the bytes of hashes."""
    return cast("list[Any]", online._convert_redis_values_to_protobuf(values, view, fields))


def backend_of(engine: LocalComputeEngine, context: ExecutionContext) -> Any:
    """The data frames that Feast's own plan computes with."""
    return engine._get_backend(context)


def pending_feature_refs(service: FeatureService) -> Sequence[Any]:
    """References of a service that Feast has not looked up yet."""
    return getattr(service, "_pending_feature_refs", None) or ()


def file_of_registry(registry: FileRegistryStore) -> Any:
    """The path that a registry is written to."""
    return registry._filepath


def write_data_source(rows: Any, source: DataSource, repo: str, allow_overwrite: bool) -> None:
    """Write a saved data set that is not Parquet."""
    from feast.infra.offline_stores.duckdb import _write_data_source

    _write_data_source(rows, source, repo, "overwrite", allow_overwrite)


def numeric_stats(
    connection: Any, table: str, features: list[str], bins: int
) -> list[dict[str, Any]]:
    """Feast's figures of numbers, of a table that is not a file of its own."""
    from feast.infra.offline_stores.duckdb import _duckdb_numeric_stats

    return _duckdb_numeric_stats(connection, table, features, "", bins)


def categorical_stats(connection: Any, table: str, feature: str, top: int) -> dict[str, Any]:
    """Feast's figures of texts, of a table that is not a file of its own."""
    from feast.infra.offline_stores.duckdb import _duckdb_categorical_stats

    return _duckdb_categorical_stats(connection, table, feature, "", top)


def track_online_store_read(seconds: float) -> None:
    """Tell Feast's metrics how long a read took, if a feature server has loaded them."""
    if metrics := sys.modules.get("feast.metrics"):
        metrics.track_online_store_read(seconds)


def track_feature_statuses(view: str, present: int, not_found: int) -> None:
    """Tell Feast's metrics how many values there were, if a feature server has loaded them."""
    if metrics := sys.modules.get("feast.metrics"):
        metrics.track_feature_statuses(view, present, not_found)
