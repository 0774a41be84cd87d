"""From what Feast asks of an offline store to a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd
from duckdb import DuckDBPyConnection
from feast import FeatureView, FileSource, RepoConfig
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import compute_non_entity_date_range

from reki_feast.errors import StoreError
from reki_feast.stores.checkpoint import Checkpoint
from reki_feast.stores.names import case_problems

from .asof import check_distinct, historical, result_columns
from .changes import NewRows, digests
from .entities import Entities, entities_of
from .keys import check_floats, check_frame, check_keys
from .latest import KeySample, SourceColumns, all_rows, files_after, latest_rows
from .plan import ViewTable, entities_in_range, plan_joins, tables_of
from .query import Query, QueryLimits, name
from .retrieval import DuckDBRetrievalJob, OnDemandColumns, OutputLocation
from .sources import Source, open_keyed, written_names
from .vectorized import column_of, formula_columns, hidden_refs


@dataclass(frozen=True)
class HistoricalRequest:
    """What ``get_historical_features`` is asked for.

    Attributes:
        views: feature views whose sources are readable.
        refs: features asked for, ``view:feature``.
        entity_rows: a data frame, an Arrow table or SQL; None for the rows of `date_range`.
        on_demand: on-demand views to compute; the result is without the inputs of formulas that
            hide them, which Feast added to `refs`.
        full_names: whether columns are named ``view__feature``.
        created_by_then: only rows that were created before the entity row's time.
        date_range: start and end, where there are no entity rows.
    """

    views: Sequence[FeatureView]
    refs: Sequence[str]
    entity_rows: Any
    on_demand: Sequence[OnDemandFeatureView] = ()
    full_names: bool = False
    created_by_then: bool = False
    date_range: tuple[datetime | None, datetime | None] = (None, None)


def historical_job(config: RepoConfig, request: HistoricalRequest) -> DuckDBRetrievalJob:
    """The job of a point-in-time join; reads schemas only, and columns of keys that are floats.

    Raises:
        StoreError: a source, a column or the column of times is missing, or the keys of the two
            sides cannot be compared.
    """
    limits, refs, full_names = limits_of(config), request.refs, request.full_names
    with limits.connect() as connection:
        tables = tables_of(connection, request.views, limits.folder)
        entities = _entities(connection, tables, request)
        check_keys(connection, entities, tables)
        views = plan_joins(entities, tables, refs, full_names)
    columns = result_columns(entities, views)
    computed, others = formula_columns(request.on_demand, refs, columns, full_names)
    hidden = hidden_refs(request.on_demand, refs)
    check_distinct((*columns, *(name for one in computed for name in one.outputs.values())))
    query = Query(
        historical(entities, views, request.created_by_then),
        columns,
        entities.types,
        {**entities.tables, **_merged(table.source.tables for table in tables)},
        tuple(statement for view in views for statement in view.source.setup),
        limits,
    )
    shown = [ref for ref in refs if ref not in hidden]
    return DuckDBRetrievalJob(
        query,
        _place(config),
        OnDemandColumns(computed, [column_of(ref, columns) for ref in hidden], others, full_names),
        metadata=lambda: _metadata(query, entities, shown),
    )


def _entities(
    connection: DuckDBPyConnection, tables: Sequence[ViewTable], request: HistoricalRequest
) -> Entities:
    if request.entity_rows is not None:
        return entities_of(connection, request.entity_rows)
    start, end = compute_non_entity_date_range(list(request.views), *request.date_range)
    return replace(entities_in_range(connection, tables, start, end), span=(start, end))


class Pull(NamedTuple):
    """Each key's last row within a range of event times, or those of them that are new.

    Attributes:
        job: the rows.
        files: digests of the files that it reads; empty where they cannot be told.
        whole: whether it has all keys.
    """

    job: DuckDBRetrievalJob
    files: frozenset[str]
    whole: bool


def pull_latest(
    config: RepoConfig,
    source: FileSource,
    asked: SourceColumns,
    bounds: tuple[datetime, datetime],
    since: Checkpoint | None = None,
    sample: KeySample | None = None,
) -> Pull:
    """The job of each key's last row within a range.

    Args:
        config: of the repo.
        source: one that is readable.
        asked: columns.
        bounds: event times of the first and the last rows.
        since: leave out rows that it brought online; it covers the range. All rows come where one
            of its files was changed or is gone.
        sample: only of some keys.

    Raises:
        StoreError: the source or a column is missing, or a key has floats too large to be exact.
    """
    table = _keyed(config, source, asked).holding(asked.columns, "copy_0")
    found = digests(table.files)
    changes = None
    if since is not None and found and since.files.issubset(found):
        changes = _changes(config, table, asked, bounds[1], since, found)
    sql = latest_rows(asked, table, *bounds, changes, sample)
    setup = (*table.setup, *([sample.setup] if sample else []))
    query = Query(sql, asked.columns, {}, table.tables, setup, limits_of(config))
    job = DuckDBRetrievalJob(query, _place(config), one_batch=True)
    return Pull(job, frozenset(found), changes is None)


def _changes(
    config: RepoConfig,
    table: Source,
    asked: SourceColumns,
    end: datetime,
    since: Checkpoint,
    found: Sequence[str],
) -> NewRows:
    new = {number for number, digest in enumerate(found) if digest not in since.files}
    late = Query("", limits=limits_of(config)).rows(files_after(asked, table, since.end, end))
    return NewRows(new, since.end, new | {number for (number,) in late})


def all_job(
    config: RepoConfig,
    source: FileSource,
    asked: SourceColumns,
    start: datetime | None,
    end: datetime | None,
) -> DuckDBRetrievalJob:
    """The job of all rows of a range.

    Raises:
        StoreError: the source or a column is missing, or a key has floats too large to be exact.
    """
    table = _keyed(config, source, asked)
    sql = all_rows(asked, table, start, end)
    query = Query(sql, asked.columns, tables=table.tables, limits=limits_of(config))
    return DuckDBRetrievalJob(query, _place(config), one_batch=True)


def _keyed(config: RepoConfig, source: FileSource, asked: SourceColumns) -> Source:
    """The source, with the columns and with keys that are whole."""
    limits = limits_of(config)
    with limits.connect() as connection:
        found = asked.checked(
            open_keyed(connection, source, limits.folder, asked.keys), source.path
        )
        for key in asked.keys:
            what = f"{key} in {source.path}"
            check_floats(connection, what, name(key), found.types[key], found.scan)
    return found


def check_columns(config: RepoConfig, source: FileSource) -> None:
    """See that a table's columns differ by more than case; one that is not there is let pass.

    Raises:
        StoreError: some don't.
    """
    limits = limits_of(config)
    with limits.connect() as connection:
        names = written_names(connection, source, limits.folder)
    hint = "rename one of them in the table; a view cannot tell them apart"
    if faults := case_problems(f"Source {source.path}", names, hint):
        raise StoreError(faults)


def frame_of(config: RepoConfig, rows: Any, views: Sequence[FeatureView]) -> Any:
    """Entity rows as Feast's own store takes them: a data frame.

    Raises:
        StoreError: there are no entity rows, DuckDB cannot run their SQL, or a key of `views` has
            floats too large to be exact.
    """
    if rows is None:
        raise StoreError(
            "Retrieval without entity rows is of Parquet sources",
            detail="a view with another source, or an on-demand view in Substrait",
            hint="pass entity_df",
        )
    if isinstance(rows, str):
        rows = Query(rows.strip().rstrip(";"), limits=limits_of(config)).arrow()
    frame = rows if isinstance(rows, pd.DataFrame) else rows.to_pandas(integer_object_nulls=True)
    check_frame(frame, views)
    return frame


def limits_of(config: RepoConfig) -> QueryLimits:
    """What the repo's file lets DuckDB take."""
    store = config.offline_store
    folder = str(config.repo_path) if config.repo_path else ""
    return QueryLimits(store.memory_limit, store.threads, store.temp_directory, folder)


def _place(config: RepoConfig) -> OutputLocation:
    store = config.offline_store
    folder = str(config.repo_path) if config.repo_path else ""
    return OutputLocation(folder, store.staging_location, store.staging_location_endpoint_override)


def _metadata(query: Query, entities: Entities, refs: Sequence[str]) -> RetrievalMetadata:
    span = entities.span
    if span is None:  # of entity rows that SQL makes: it takes a query
        ends = f"SELECT min(t), max(t) FROM (SELECT {entities.at} AS t FROM {entities.relation})"
        span = query.rows(ends)[0]
    return RetrievalMetadata(list(refs), entities.keys, *span)


def _merged(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: table for some in tables for key, table in some.items()}
