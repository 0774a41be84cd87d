"""Feast's DuckDB offline store, with the default vector where a training row finds none.

In ``feature_store.yaml``::

    offline_store:
      type: reki_feast.store.duckdb_offline.RekiDuckDBOfflineStore
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import ibis
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from pydantic import StrictStr

from .batches import write_in_batches
from .defaults import default_vectors


class RekiDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """The options of the stock store; they mean the same."""

    type: StrictStr = "reki_feast.store.duckdb_offline.RekiDuckDBOfflineStore"


class RekiDuckDBOfflineStore(DuckDBOfflineStore):
    """The stock store, and two things more.

    A row of a training table that has no vector yet (unknown id, before the first snapshot, older
    than the view's ttl) gets the view's default vector instead of null.

    Tables on their way to the online store arrive in one Arrow batch, or are written in batches:
    Feast 0.67 writes only the first batch of a table that has several.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """The stock point-in-time join, with defaults filled in."""
        job = DuckDBOfflineStore.get_historical_features(
            config,
            feature_views,
            feature_refs,
            entity_df,
            registry,
            project,
            full_feature_names,
            filter_by_created_timestamp,
        )
        filled = _defaults_by_column(feature_views, feature_refs, full_feature_names)
        if filled and isinstance(job, IbisRetrievalJob):
            job.table = _fill(job.table, filled)
        return job

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The stock rows, in one Arrow batch."""
        job = DuckDBOfflineStore.pull_latest_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        return _all_rows_written(config, job)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The stock rows, in one Arrow batch."""
        job = DuckDBOfflineStore.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        return _all_rows_written(config, job)


class OneBatchRetrievalJob(IbisRetrievalJob):
    """A job whose Arrow table has one batch (Arrow's limit of 2 GiB of text a batch allowing)."""

    @classmethod
    def of(cls, job: IbisRetrievalJob) -> OneBatchRetrievalJob:
        """The same job, read in one batch."""
        one = cls.__new__(cls)
        one.__dict__.update(job.__dict__)
        return one

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return super()._to_arrow_internal(timeout).combine_chunks()


def _all_rows_written(config: RepoConfig, job: RetrievalJob) -> RetrievalJob:
    """Keep Feast from dropping every Arrow batch but the first when it writes online."""
    write_in_batches(config)
    return OneBatchRetrievalJob.of(job) if isinstance(job, IbisRetrievalJob) else job


def _defaults_by_column(
    views: list[FeatureView], refs: list[str], full_names: bool
) -> dict[str, tuple[float, ...]]:
    """Default vectors by the column they appear in, named as Feast names it."""
    found = {}
    for view in views:
        projection: Any = view.projection
        asked = projection.name_to_use()
        shown = projection.name_alias or view.name
        for feature, vector in default_vectors(view).items():
            if f"{asked}:{feature}" in refs:
                found[f"{shown}__{feature}" if full_names else feature] = vector
    return found


def _fill(table: Any, defaults: dict[str, tuple[float, ...]]) -> Any:
    """Coalesce the columns of an ibis table with their defaults, exact to the bit.

    As text: DuckDB reads a number literal as a decimal first, and a decimal rounds.
    """
    return table.mutate(
        **{
            column: ibis.coalesce(
                table[column], ibis.literal(str(list(vector))).cast("array<float32>")
            )
            for column, vector in defaults.items()
        }
    )
