"""A query for DuckDB and the ways to its rows: a table, a stream of batches, Parquet files."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from reki_feast.errors import StoreError
from reki_feast.permissions import spill_folder
from reki_feast.stores._duckdb import arrow_reader, arrow_table
from reki_feast.stores.names import case_problems

from .types import cast_rows, result_schema


@dataclass(frozen=True)
class QueryLimits:
    """DuckDB's limits for a query; None leaves one to DuckDB.

    Attributes:
        memory_limit: for example ``4GB``; beyond it DuckDB spills to disk.
        threads: number of threads.
        temp_directory: folder to spill into; by default the system's folder for such files.
        folder: where relative paths in SQL start that are not in the working folder.
    """

    memory_limit: str | None = None
    threads: int | None = None
    temp_directory: str | None = None
    folder: str = ""

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A database of its own, in memory, in UTC."""
        folder = spill_folder(self.temp_directory)
        options: dict[str, Any] = {"temp_directory": str(folder / "spill"), "threads": self.threads}
        options["memory_limit"] = self.memory_limit
        connection = duckdb.connect(config={k: v for k, v in options.items() if v is not None})
        weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True)
        connection.execute("SET TimeZone = 'UTC'")
        # An Arrow table counts as one row; DuckDB would then join by nested loops.
        connection.execute("SET asof_loop_join_threshold = 0")
        connection.execute("SET preserve_insertion_order = false")
        if self.folder and "," not in self.folder:  # a comma would part two folders
            connection.execute(f"SET file_search_path = {text(self.folder)}")
        return connection


@dataclass(frozen=True)
class Query:
    """SQL with the Arrow tables it names. Each call below runs it anew, on its own connection.

    Attributes:
        sql: one SELECT.
        columns: names of its columns; by default those that DuckDB gives.
        types: Arrow types by column, where the result's differ from DuckDB's.
        tables: Arrow tables and datasets, by the names they have in the SQL.
        setup: statements to run before.
        limits: DuckDB's.
    """

    sql: str
    columns: tuple[str, ...] = ()
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    limits: QueryLimits = QueryLimits()

    @classmethod
    def of(
        cls, table: pa.Table | pa.RecordBatchReader, limits: QueryLimits = QueryLimits()
    ) -> Query:
        """All rows of a table, or of a stream, which can be read once.

        >>> Query.of(pa.table({"a": [1, 2]})).arrow().to_pydict()
        {'a': [1, 2]}
        """
        names, tables = tuple(table.schema.names), {"rows_of_table": table}
        return cls("SELECT * FROM rows_of_table", names, tables=tables, limits=limits)

    def arrow(self) -> pa.Table:
        """All rows.

        Raises:
            StoreError: DuckDB cannot run the query.
        """
        with duckdb_errors(), self._open() as connection:
            table = arrow_table(connection, self.sql)
        return cast_rows(table, result_schema(table.schema, self.columns, self.types))

    def batches(self, rows: int) -> pa.RecordBatchReader:
        """The rows as a stream, about `rows` at a time; what was read need not stay in memory.

        Raises:
            StoreError: DuckDB cannot run the query; also while reading.
        """
        with duckdb_errors():
            connection = self._open()
            reader = arrow_reader(connection, self.sql, rows)
        schema = result_schema(reader.schema, self.columns, self.types)
        return pa.RecordBatchReader.from_batches(schema, _stream(connection, reader, schema))

    def copy(self, place: Path, options: str = "") -> None:
        """Write the rows as Parquet, straight from DuckDB.

        Raises:
            StoreError: DuckDB cannot run the query, or cannot write there; or columns differ in
                their names by case only, and would get others.
        """
        hint = "pass full_feature_names=True, or rename the column of the entity rows"
        if faults := case_problems("What DuckDB writes", self.columns, hint):
            raise StoreError(faults)
        with duckdb_errors(), self._open() as connection:
            connection.execute(f"COPY ({self.sql}) TO {text(str(place))} (FORMAT parquet{options})")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of another SELECT over the same tables, as Python values."""
        with duckdb_errors(), self._open() as connection:
            return connection.execute(sql).fetchall()

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = self.limits.connect()
        for name, table in self.tables.items():
            connection.register(name, table)
        for statement in self.setup:
            connection.execute(statement)
        return connection


def described(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Columns of a relation and DuckDB's names of their types.

    Raises:
        StoreError: DuckDB cannot read it.
    """
    with duckdb_errors():
        found = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in found}


def name(column: str) -> str:
    """A column's name in SQL.

    >>> print(name('a "b"'))
    "a ""b\"""
    """
    return '"' + column.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text in SQL.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def _stream(
    connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    with duckdb_errors(), connection:
        for batch in reader:
            yield cast_rows(batch, schema)


@contextmanager
def duckdb_errors() -> Iterator[None]:
    """Raise DuckDB's errors as StoreError; within a stream pyarrow raises them as OSError."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise StoreError(
            "DuckDB can run the offline store's query",
            detail=str(error).strip().split("\n\n")[0],
            hint="correct what it names; `job.to_sql()` shows the query",
        ) from error
