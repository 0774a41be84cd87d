"""Feast's DuckDB offline store at DuckDB's speed, with a default vector where a row finds none.

In ``feature_store.yaml``::

    offline_store:
      type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from feast import FeatureView, FileSource, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from pydantic import PositiveInt, StrictStr
from typing_extensions import override

from .batches import write_in_batches
from .checkpoint import Checkpoint
from .offline import stock
from .offline.build import (
    HistoricalRequest,
    Pull,
    all_job,
    check_columns,
    frame_of,
    historical_job,
    pull_latest,
)
from .offline.latest import KeySample, SourceColumns
from .offline.monitoring import MonitoredWindow, newest_time, window_metrics
from .offline.sources import is_readable
from .spaces import check_one_space


class RekiDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """The options of Feast's store, which mean the same, and DuckDB's limits.

    Attributes:
        memory_limit: for example ``4GB``; beyond it DuckDB spills to disk. By default 80 % of the
            machine's memory.
        threads: number of threads; by default one a core.
        temp_directory: folder to spill into; by default the system's folder for such files.
    """

    type: StrictStr = "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"
    memory_limit: StrictStr | None = None
    threads: PositiveInt | None = None
    temp_directory: StrictStr | None = None


class RekiDuckDBOfflineStore(DuckDBOfflineStore):
    """Feast's DuckDB store, with the same rows by one query of DuckDB's own.

    More than Feast's: entity rows by SQL, or none at all (``start_date``, ``end_date``); streams
    of batches; a default vector instead of null where a row of a training table has no vector yet
    (unknown id, before the first snapshot, older than the view's ttl).

    Less than Feast's: the vectors that match scores of texts are computed of stay out of the rows.
    Refs that name them before the scores get them; after the scores, Feast names what it adds.

    `feast monitor run` has figures of vectors, too (:mod:`reki_feast.stores.offline.monitoring`).

    Sources other than Parquet, and on-demand views in Substrait, are left to Feast's store.

    Tables on their way to the online store arrive in one Arrow batch, or are written in batches:
    Feast 0.67 writes only the first batch of a table that has several.
    """

    @staticmethod
    @override
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The point-in-time join, with defaults filled in.

        Args:
            config: of the repo.
            feature_views: the views to join.
            feature_refs: the features to join, ``view:feature``.
            entity_df: a pandas data frame, an Arrow table, or a SELECT for DuckDB, in which
                relative paths start in the working folder or else in the repo's. None for one row
                for each key and time at which a view has a row between `start_date` and `end_date`.
            registry: of the repo.
            project: the Feast project.
            full_feature_names: name columns ``view__feature``.
            filter_by_created_timestamp: only rows created by the entity row's time.
            start_date: with no entity rows: from then; by default the longest ttl, or 30 days.
            end_date: with no entity rows: until then; by default now.

        Raises:
            StoreError: views are in different spaces, a source, a column or the column of times is
                missing, or an id would not come through: a float too large to be exact, a number
                to be compared with text.
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        check_one_space([*feature_views, *on_demand])
        ours = all(is_readable(view.batch_source) for view in feature_views)
        if ours and all(view.mode != "substrait" for view in on_demand):
            request = HistoricalRequest(
                feature_views,
                feature_refs,
                entity_df,
                on_demand,
                full_feature_names,
                filter_by_created_timestamp,
                (start_date, end_date),
            )
            return historical_job(config, request)
        job = DuckDBOfflineStore.get_historical_features(
            config,
            feature_views,
            feature_refs,
            frame_of(config, entity_df, feature_views),
            registry,
            project,
            full_feature_names,
            filter_by_created_timestamp,
        )
        return stock.with_defaults(job, feature_views, feature_refs, full_feature_names)

    @override
    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Feast's check, which `feast apply` makes, and that columns differ by more than case.

        Raises:
            StoreError: some don't.
        """
        super().validate_data_source(config, data_source)
        if is_readable(data_source):
            check_columns(config, data_source)

    @staticmethod
    @override
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
        """The last row of each key; its table has one Arrow batch.

        Raises:
            StoreError: the source or a column is missing.
        """
        write_in_batches(config)
        if not is_readable(data_source):
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
            return stock.in_one_batch(job)
        asked = SourceColumns(
            join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column
        )
        return pull_latest(config, data_source, asked, (start_date, end_date)).job

    @staticmethod
    def pull_since(
        config: RepoConfig,
        data_source: FileSource,
        asked: SourceColumns,
        bounds: tuple[datetime, datetime],
        since: Checkpoint | None,
    ) -> Pull:
        """``pull_latest_from_table_or_query`` of a Parquet source, without what is online.

        Args:
            config: of the repo.
            data_source: Parquet files.
            asked: columns of the rows.
            bounds: event times of the first and the last rows.
            since: covers `bounds`; rows that it brought online are left out, but where one of its
                files was changed or is gone.

        Raises:
            StoreError: the source or a column is missing.
        """
        return pull_latest(config, data_source, asked, bounds, since)

    @staticmethod
    def pull_sample(
        config: RepoConfig,
        data_source: FileSource,
        asked: SourceColumns,
        bounds: tuple[datetime, datetime],
        sample: KeySample,
    ) -> RetrievalJob:
        """``pull_latest_from_table_or_query`` of a Parquet source, for some keys.

        Raises:
            StoreError: the source or a column is missing.
        """
        return pull_latest(config, data_source, asked, bounds, sample=sample).job

    @staticmethod
    @override
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
        """All rows of a range; their table has one Arrow batch.

        Raises:
            StoreError: the source or a column is missing.
        """
        write_in_batches(config)
        if not is_readable(data_source):
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
            return stock.in_one_batch(job)
        asked = SourceColumns(
            join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column
        )
        return all_job(config, data_source, asked, start_date, end_date)

    @staticmethod
    @override
    def compute_monitoring_metrics(
        config: RepoConfig,
        data_source: DataSource,
        feature_columns: list[tuple[str, str]],
        timestamp_field: str,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        histogram_bins: int = 20,
        top_n: int = 10,
    ) -> list[dict[str, Any]]:
        """Figures of each feature in a range of event times; of a vector those of its norm.

        Raises:
            StoreError: the source or a column is missing.
        """
        if not is_readable(data_source):
            return DuckDBOfflineStore.compute_monitoring_metrics(
                config,
                data_source,
                feature_columns,
                timestamp_field,
                start_date,
                end_date,
                histogram_bins,
                top_n,
            )
        asked = MonitoredWindow(
            feature_columns, timestamp_field, start_date, end_date, histogram_bins, top_n
        )
        return window_metrics(config, data_source, asked)

    @staticmethod
    @override
    def get_monitoring_max_timestamp(
        config: RepoConfig, data_source: DataSource, timestamp_field: str
    ) -> datetime | None:
        """The latest event time of a source.

        Raises:
            StoreError: the source is missing.
        """
        if not is_readable(data_source):
            return DuckDBOfflineStore.get_monitoring_max_timestamp(
                config, data_source, timestamp_field
            )
        return newest_time(config, data_source, timestamp_field)
