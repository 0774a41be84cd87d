"""Stores for any Feast repo: DuckDB offline, Redis online, a compute engine, readers of tensors.

``feature_store.yaml`` names them by their modules::

    offline_store: {type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}
    online_store:  {type: reki_feast.stores.redis_online.RekiRedisOnlineStore}
    batch_engine:  {type: reki_feast.stores.engine.RekiComputeEngine}

They need nothing else of this package. Names are imported on first use: ``reki_feast.stores``
alone imports neither Feast nor torch, which ``JoinedRows`` and ``StreamedRows`` need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from .comparison import RowComparison, compare_online
    from .counting import Count, count_online, verify_materialized
    from .defaults import default_tag
    from .deletion import delete_version
    from .duckdb_offline import RekiDuckDBOfflineStore, RekiDuckDBOfflineStoreConfig
    from .engine import RekiComputeEngine, RekiComputeEngineConfig
    from .materialize import apply_and_materialize, materialize_views
    from .redis_online import RekiRedisOnlineStore, RekiRedisOnlineStoreConfig
    from .registry import WholeFileRegistryStore
    from .serving import FeatureBatch, Nearest, TensorReader
    from .spaces import space_tag
    from .training import JoinedRows, StreamedRows
    from .versions import pinned, versions_tag

__all__ = [
    "Count",
    "FeatureBatch",
    "JoinedRows",
    "Nearest",
    "RekiComputeEngine",
    "RekiComputeEngineConfig",
    "RekiDuckDBOfflineStore",
    "RekiDuckDBOfflineStoreConfig",
    "RekiRedisOnlineStore",
    "RekiRedisOnlineStoreConfig",
    "RowComparison",
    "StreamedRows",
    "TensorReader",
    "WholeFileRegistryStore",
    "apply_and_materialize",
    "compare_online",
    "count_online",
    "default_tag",
    "delete_version",
    "materialize_views",
    "pinned",
    "space_tag",
    "verify_materialized",
    "versions_tag",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "comparison": ["RowComparison", "compare_online"],
        "counting": ["Count", "count_online", "verify_materialized"],
        "defaults": ["default_tag"],
        "deletion": ["delete_version"],
        "duckdb_offline": ["RekiDuckDBOfflineStore", "RekiDuckDBOfflineStoreConfig"],
        "engine": ["RekiComputeEngine", "RekiComputeEngineConfig"],
        "materialize": ["apply_and_materialize", "materialize_views"],
        "redis_online": ["RekiRedisOnlineStore", "RekiRedisOnlineStoreConfig"],
        "registry": ["WholeFileRegistryStore"],
        "serving": ["FeatureBatch", "Nearest", "TensorReader"],
        "spaces": ["space_tag"],
        "training": ["JoinedRows", "StreamedRows"],
        "versions": ["pinned", "versions_tag"],
    },
)
