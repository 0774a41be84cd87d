"""Figures for ``feast monitor run``: Feast's own of numbers and texts, and norms of vectors.

Feast takes a feature of type ``Array(Float32)`` for a number. Of such a column these are figures:

- under the feature's name: the norms of the vectors; rows without a vector of their own (null,
  empty, or the view's default vector) count as null, so the null rate is the share of defaults;
- ``FEATURE__age_days``: how old the rows are now;
- ``FEATURE__drift``: 1 minus the cosine between the mean vector of the rows in the window, and
  that of all rows before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection
from feast import FeatureStore, FileSource, RepoConfig
from feast.monitoring.monitoring_utils import empty_numeric_metric

from reki_feast.stores._feast import categorical_stats, numeric_stats
from reki_feast.stores.defaults import default_vectors

from .build import limits_of
from .entities import instant
from .query import duckdb_errors, name, text
from .sources import Source, missing_columns, open_source

#: DuckDB's types of lists and arrays of numbers.
_VECTOR = re.compile(r"(FLOAT|DOUBLE|DECIMAL\(.*\)|U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?)\[\d*\]")
AGE, DRIFT = "__age_days", "__drift"
_ROWS = "monitored"


@dataclass(frozen=True)
class MonitoredWindow:
    """What ``compute_monitoring_metrics`` is asked for.

    Attributes:
        features: names of the features, each with ``numeric`` or ``categorical``.
        timestamp: the column of event times.
        start: event time of the first rows; None: of all.
        end: event time of the last rows; None: of all.
        bins: bars of a histogram.
        top: values of a text that are listed.
    """

    features: Sequence[tuple[str, str]]
    timestamp: str
    start: datetime | None
    end: datetime | None
    bins: int
    top: int


def newest_time(config: RepoConfig, source: FileSource, timestamp: str) -> datetime | None:
    """The latest event time of a source; None without rows.

    Raises:
        StoreError: the source cannot be read.
    """
    limits = limits_of(config)
    with duckdb_errors(), limits.connect() as connection:
        found = open_source(connection, source, limits.folder, "source_0")
        sql = f"SELECT max({name(timestamp)}::TIMESTAMPTZ) FROM {found.scan}"
        [[last]] = connection.execute(sql).fetchall()
    return None if last is None else last.astimezone(UTC)


def window_metrics(
    config: RepoConfig, source: FileSource, asked: MonitoredWindow
) -> list[dict[str, Any]]:
    """Figures of each feature in a window of event times, as Feast's stores give them.

    Args:
        config: of the repo.
        source: Parquet files.
        asked: features and the window.

    Raises:
        StoreError: the source or a column is missing.
    """
    limits = limits_of(config)
    with duckdb_errors(), limits.connect() as connection:
        found = open_source(connection, source, limits.folder, "source_0")
        columns = _columns(source, found, asked)
        vectors = [one for one in columns.values() if one.is_vector]
        defaults = _defaults(config, source) if vectors else {}
        _copy_window(connection, found, asked, columns, defaults)
        numeric = [feature for feature, kind in asked.features if kind == "numeric"]
        ages = [f"{one.feature}{AGE}" for one in vectors]
        metrics = numeric_stats(connection, _ROWS, [*numeric, *ages], asked.bins)
        for feature, kind in asked.features:
            if kind == "categorical":
                metrics.append(categorical_stats(connection, _ROWS, feature, asked.top))
        of = {one["feature_name"]: one for one in metrics}
        for one in vectors:
            sql = one.own(defaults)
            drift = _drift(connection, found, asked, one, sql)
            metrics.append(_drift_metric(of[one.feature], one.feature, drift))
    return metrics


@dataclass(frozen=True)
class _Column:
    """A feature's column.

    Attributes:
        feature: name of the feature.
        column: name of the column in the source.
        element: DuckDB's type of the numbers of its vectors; empty where it holds none.
    """

    feature: str
    column: str
    element: str

    @property
    def is_vector(self) -> bool:
        """Whether it holds vectors."""
        return bool(self.element)

    @property
    def vector(self) -> str:
        """SQL of the vector in double precision."""
        return f"{name(self.column)}::DOUBLE[]"

    def own(self, defaults: Mapping[str, Sequence[float]]) -> str:
        """The SQL condition that a row has a vector of its own."""
        whole = f"len({self.vector}) > 0 AND list_count({self.vector}) = len({self.vector})"
        if self.feature not in defaults:
            return whole
        # as text, and in the column's precision: a number literal is a decimal first, and rounds
        default = text(str(list(defaults[self.feature])))
        kind = f"{self.element}[]"
        return f"{whole} AND {name(self.column)}::{kind} <> {default}::{kind}"


def _columns(source: FileSource, found: Source, asked: MonitoredWindow) -> dict[str, _Column]:
    mapped = {new: old for old, new in (source.field_mapping or {}).items()}
    columns = {feature: mapped.get(feature, feature) for feature, _ in asked.features}
    wanted = [asked.timestamp, *columns.values()]
    if missing := [column for column in wanted if column not in found.types]:
        raise missing_columns(source.path, missing, found.types)
    vectors = {column: _VECTOR.fullmatch(found.types[column]) for column in columns.values()}
    return {
        feature: _Column(feature, column, vector[1] if (vector := vectors[column]) else "")
        for feature, column in columns.items()
    }


def _defaults(config: RepoConfig, source: FileSource) -> dict[str, tuple[float, ...]]:
    """Default vectors by feature, as the views of a source declare them."""
    views = FeatureStore(config=config).list_feature_views()
    found: dict[str, tuple[float, ...]] = {}
    for view in views:
        if view.batch_source is not None and view.batch_source.name == source.name:
            found |= default_vectors(view)
    return found


def _copy_window(
    connection: DuckDBPyConnection,
    found: Source,
    asked: MonitoredWindow,
    columns: Mapping[str, _Column],
    defaults: Mapping[str, Sequence[float]],
) -> None:
    """Make the table that figures are of: numbers and texts as they are, vectors as norms."""
    at = f"{name(asked.timestamp)}::TIMESTAMPTZ"
    now = instant(datetime.now(UTC))
    shown = []
    for one in columns.values():
        if not one.is_vector:
            shown.append(f"{name(one.column)} AS {name(one.feature)}")
            continue
        own = one.own(defaults)
        # not list_dot_product: it refuses nulls within vectors, also of rows that nobody asks for
        norm = f"sqrt(list_sum(list_transform({one.vector}, lambda x: x * x)))"
        shown.append(f"CASE WHEN {own} THEN {norm} END AS {name(one.feature)}")
        age = f"epoch({now} - {at}) / 86400"
        shown.append(f"CASE WHEN {own} THEN {age} END AS {name(one.feature + AGE)}")
    bounds = [f"{at} IS NOT NULL"]
    bounds += [f"{at} >= {instant(asked.start)}"] if asked.start else []
    bounds += [f"{at} <= {instant(asked.end)}"] if asked.end else []
    connection.execute(
        f"CREATE TEMP TABLE {_ROWS} AS SELECT {', '.join(shown)} FROM {found.scan}"
        f" WHERE {' AND '.join(bounds)}"
    )


def _drift(
    connection: DuckDBPyConnection, found: Source, asked: MonitoredWindow, one: _Column, own: str
) -> float | None:
    """1 minus the cosine of the two means; None where there is nothing before the window."""
    if asked.start is None:
        return None
    at, start = f"{name(asked.timestamp)}::TIMESTAMPTZ", instant(asked.start)
    until = f" AND {at} <= {instant(asked.end)}" if asked.end else ""
    rows = f"FROM {found.scan} WHERE {own}{until}"
    width = f"SELECT max(len({one.vector})) {rows} AND {at} >= {start}"
    [[length]] = connection.execute(width).fetchall()
    if length is None:
        return None
    means = ", ".join(f"avg(v[{n}])" for n in range(1, length + 1))
    sql = (
        f"SELECT earlier, [{means}] FROM (SELECT {at} < {start} AS earlier, {one.vector} AS v"
        f" {rows}) WHERE len(v) = {length} GROUP BY earlier"
    )
    by_part = dict(connection.execute(sql).fetchall())
    if len(by_part) < 2:
        return None
    before, within = np.array(by_part[True]), np.array(by_part[False])
    scale = np.linalg.norm(before) * np.linalg.norm(within)
    return float(1 - before @ within / scale) if scale > 0 else None


def _drift_metric(norms: Mapping[str, Any], feature: str, drift: float | None) -> dict[str, Any]:
    """One number as Feast has distributions: of no spread."""
    counts = {key: norms[key] for key in ("row_count", "null_count", "null_rate")}
    places = ("mean", "min_val", "max_val", "p50", "p75", "p90", "p95", "p99")
    values = dict.fromkeys(places, drift)
    spread = None if drift is None else 0.0
    return {**empty_numeric_metric(f"{feature}{DRIFT}"), **counts, **values, "stddev": spread}
