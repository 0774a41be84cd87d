"""What Feast's test suite is run against; ``FULL_REPO_CONFIGS_MODULE`` names this module.

``AVAILABLE_OFFLINE_STORES`` and ``AVAILABLE_ONLINE_STORES`` are made when the suite asks for them:
they subclass what only Feast's source has. Three variables say which stores are meant::

    REKI_SUITE_STORES   stock or ours
    REKI_SUITE_REDIS    connection string of a running Redis
    REKI_SUITE_KEY      what the online store is called: redis, or sqlite for tests of SQLite alone

The names of the classes are the same for either kind, so that a test bears one name in both runs.
"""

from __future__ import annotations

import os
from functools import partialmethod
from importlib import import_module
from typing import Any

SUITE = "tests.universal.feature_repos"
TYPES = {
    "stock": {"offline": "duckdb", "online": "redis"},
    "ours": {
        "offline": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore",
        "online": "reki_feast.stores.redis_online.RekiRedisOnlineStore",
    },
}
ENGINE = "reki_feast.stores.engine.RekiComputeEngine"


def __getattr__(name: str) -> Any:
    makers = {
        "AVAILABLE_OFFLINE_STORES": offline_stores,
        "AVAILABLE_ONLINE_STORES": online_stores,
    }
    if name not in makers:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return makers[name]()


def offline_stores() -> list[tuple[str, type]]:
    """DuckDB over Parquet files."""
    base: Any = import_module(f"{SUITE}.universal.data_sources.file").FileDataSourceCreator
    creator = type("DuckDB", (base,), {"create_offline_store_config": lambda self: offline()})
    if os.environ["REKI_SUITE_STORES"] == "ours":
        use_ours(type(base.__name__, (creator,), {}))
    return [("local", creator)]


def offline() -> Any:
    """The options of the offline store, checked as ``feature_store.yaml`` is."""
    configured = import_module("feast.repo_config").get_offline_config_from_type(kind("offline"))
    return configured(type=kind("offline"))


def use_ours(creator: type) -> None:
    """Let tests use our stores and engine where they mean no store of their own.

    For those the suite has no setting: it takes files read by Dask, and the local engine.
    """
    home: Any = import_module(f"{SUITE}.universal.data_sources.file")
    known: Any = import_module(f"{SUITE}.repo_configuration")
    home.FileDataSourceCreator = creator
    known.OFFLINE_STORE_TO_PROVIDER_CONFIG["file"] = ("local", creator)
    configs: Any = import_module(f"{SUITE}.integration_test_repo_config")
    base = configs.IntegrationTestRepoConfig
    made = partialmethod(base.__init__, batch_engine={"type": ENGINE})
    configs.IntegrationTestRepoConfig = type(base.__name__, (base,), {"__init__": made})


def online_stores() -> dict[str, tuple[str, type]]:
    """Redis, under the name that makes the suite choose it."""
    base: type = import_module(f"{SUITE}.universal.online_store_creator").OnlineStoreCreator
    options = {"type": kind("online"), "connection_string": os.environ["REKI_SUITE_REDIS"]}
    methods = {"create_online_store": lambda self: options, "teardown": lambda self: None}
    return {os.environ["REKI_SUITE_KEY"]: (kind("online"), type("Redis", (base,), methods))}


def kind(part: str) -> str:
    """The type of a part, as ``feature_store.yaml`` names it."""
    return TYPES[os.environ["REKI_SUITE_STORES"]][part]
