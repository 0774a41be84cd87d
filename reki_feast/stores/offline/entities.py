"""Entity rows in DuckDB's terms: a data frame, an Arrow table, SQL, or what the sources hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL

from reki_feast.errors import StoreError

from .query import described, name
from .types import to_duckdb

#: Name of the registered table.
ROWS = "entity_rows"
_EXAMPLE = "SELECT user_id, event_timestamp FROM read_parquet('clicks.parquet')"


@dataclass(frozen=True)
class Entities:
    """The rows to join features to.

    Attributes:
        relation: what to select from; its columns are ``c0``, ``c1``, …
        columns: their names.
        kinds: DuckDB's types of them.
        time: name of the column of event times.
        types: Arrow types in which columns are shown.
        tables: what `relation` needs registered.
        span: first and last event time where known; None where it takes a query.
    """

    relation: str
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    time: str
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[datetime | None, datetime | None] | None = None

    def column(self, wanted: str) -> str:
        """A column's name within `relation`.

        Raises:
            StoreError: there is no such column.
        """
        if wanted not in self.columns:
            raise StoreError(
                f"The entity rows have column {wanted}",
                detail=f"columns {', '.join(self.columns)}",
                hint=f"add {wanted}, or name the key by `with_join_key_map`",
            )
        return f"c{self.columns.index(wanted)}"

    @property
    def at(self) -> str:
        """SQL of a row's event time."""
        return f"{self.column(self.time)}::TIMESTAMPTZ"

    @property
    def keys(self) -> list[str]:
        """The other columns."""
        return [column for column in self.columns if column != self.time]


def entities_of(
    connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame | pa.Table | str
) -> Entities:
    """Entity rows as someone hands them to ``get_historical_features``.

    Args:
        connection: of DuckDB; a table is registered with it.
        rows: a data frame or an Arrow table, which is not changed; or a SELECT for DuckDB, in
            which relative paths start in the working folder or else in the Feast repo's.

    Raises:
        StoreError: there is no time column, or a column is of no use to DuckDB.
    """
    if isinstance(rows, str):
        return _from_sql(connection, rows)
    if isinstance(rows, pd.DataFrame):
        rows = _from_frame(rows)
    elif not isinstance(rows, pa.Table):
        raise StoreError(
            "Entity rows are a pandas DataFrame, an Arrow table or SQL",
            detail=type(rows).__name__,
            hint="pass one of these as entity_df",
        )
    return _from_table(connection, rows)


def _from_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> Entities:
    query = f"(\n{sql.strip().rstrip(';')}\n)"
    kinds = described(connection, query)
    times = [column for column, kind in kinds.items() if kind.startswith("TIMESTAMP")]
    time = _time_column(list(kinds), times)
    renamed = ", ".join(f"{name(column)} AS c{n}" for n, column in enumerate(kinds))
    relation = f"(SELECT {renamed} FROM {query})"
    return Entities(relation, tuple(kinds), tuple(kinds.values()), time)


def _from_frame(frame: pd.DataFrame) -> pa.Table:
    times = [c for c in frame.columns if pd.api.types.is_datetime64_any_dtype(frame[c].dtype)]
    time = _time_column(list(frame.columns), times)
    shallow = frame.copy(deep=False)  # the caller's frame stays as it is
    shallow[time] = _times(frame[time], time)
    try:
        return pa.Table.from_pandas(shallow, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowException, ValueError) as error:
        raise StoreError(
            "Each column of the entity rows has one type",
            detail=str(error)[:300],
            hint="convert the column, or leave it out",
        ) from error


def _times(column: pd.Series, time: str) -> pd.Series:
    column = column.infer_objects()
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column
    if not pd.api.types.is_object_dtype(column) and not pd.api.types.is_string_dtype(column):
        raise StoreError(
            f"Column {time} of the entity rows has times",
            detail=str(column.dtype),
            hint="convert it by pandas.to_datetime",
        )
    try:
        return pd.to_datetime(column, utc=True)
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"Column {time} of the entity rows has times",
            detail=str(error)[:300],
            hint="convert it by pandas.to_datetime",
        ) from error


def _from_table(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> Entities:
    names = table.column_names
    if len(set(names)) < len(names):
        raise StoreError(
            "Columns of the entity rows have different names",
            detail=", ".join(n for n in dict.fromkeys(names) if names.count(n) > 1),
            hint="rename one of each",
        )
    times = [f.name for f in table.schema if pa.types.is_timestamp(f.type)]
    time = _time_column(names, times)
    table, types = to_duckdb(table)
    span = _span(table[time])
    table = table.rename_columns([f"c{n}" for n in range(len(names))])
    connection.register(ROWS, table)
    kinds = tuple(described(connection, ROWS).values())
    return Entities(ROWS, tuple(names), kinds, time, types, {ROWS: table}, span)


def _span(times: pa.ChunkedArray) -> tuple[datetime | None, datetime | None] | None:
    if not pa.types.is_timestamp(times.type):
        return None
    ends = pc.min_max(times.cast(pa.timestamp("us", "UTC"))).as_py()
    return ends["min"], ends["max"]


def _time_column(columns: Sequence[str], times: Sequence[str]) -> str:
    """The column of event times, found as Feast finds it."""
    if DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL in columns:
        return DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
    if len(times) == 1:
        return times[0]
    raise StoreError(
        f"The entity rows have a column {DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL}, or one of times",
        detail=f"{len(times)} columns of times among {', '.join(map(str, columns))}",
        hint=f"name it {DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL}, as in: {_EXAMPLE}",
    )


def instant(moment: datetime) -> str:
    """A time in SQL.

    >>> instant(datetime(2026, 1, 1, tzinfo=UTC))
    "TIMESTAMPTZ '2026-01-01 00:00:00+00:00'"
    """
    return f"TIMESTAMPTZ '{moment.astimezone(UTC).isoformat(sep=' ')}'"
