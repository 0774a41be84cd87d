"""Stores for any Feast repo: DuckDB offline, Redis online, a compute engine, readers of tensors.

``feature_store.yaml`` names them by their modules::

    offline_store: {type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}
    online_store:  {type: reki_feast.stores.redis_online.RekiRedisOnlineStore}
    batch_engine:  {type: reki_feast.stores.engine.RekiComputeEngine}

They need nothing else of this package. Names are imported on first use: ``reki_feast.stores``
alone imports neither Feast nor torch, which ``JoinedRows`` and ``StreamedRows`` need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .defaults import default_tag
    from .duckdb_offline import RekiDuckDBOfflineStore, RekiDuckDBOfflineStoreConfig
    from .engine import RekiComputeEngine, RekiComputeEngineConfig
    from .materialize import (
        Count,
        apply_and_materialize,
        count_online,
        materialize_views,
        verify_materialized,
    )
    from .redis_online import RekiRedisOnlineStore, RekiRedisOnlineStoreConfig
    from .registry import WholeFileRegistryStore
    from .serving import FeatureBatch, TensorReader
    from .training import JoinedRows, StreamedRows

__all__ = [
    "Count",
    "FeatureBatch",
    "JoinedRows",
    "RekiComputeEngine",
    "RekiComputeEngineConfig",
    "RekiDuckDBOfflineStore",
    "RekiDuckDBOfflineStoreConfig",
    "RekiRedisOnlineStore",
    "RekiRedisOnlineStoreConfig",
    "StreamedRows",
    "TensorReader",
    "WholeFileRegistryStore",
    "apply_and_materialize",
    "count_online",
    "default_tag",
    "materialize_views",
    "verify_materialized",
]

_MODULES = {
    "FeatureBatch": "serving",
    "JoinedRows": "training",
    "RekiComputeEngine": "engine",
    "RekiComputeEngineConfig": "engine",
    "RekiDuckDBOfflineStore": "duckdb_offline",
    "RekiDuckDBOfflineStoreConfig": "duckdb_offline",
    "RekiRedisOnlineStore": "redis_online",
    "RekiRedisOnlineStoreConfig": "redis_online",
    "StreamedRows": "training",
    "TensorReader": "serving",
    "WholeFileRegistryStore": "registry",
    "default_tag": "defaults",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'materialize')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
