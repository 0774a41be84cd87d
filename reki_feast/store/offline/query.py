"""A query for DuckDB and the ways to its rows: a table, a stream of batches, Parquet files."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from reki_feast.errors import StoreError
from reki_feast.store.names import case_faults

from .types import conform, shown_schema


@dataclass(frozen=True)
class Limits:
    """What a query may take; None leaves it to DuckDB.

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
        folder = self._spill()
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

    def _spill(self) -> Path:
        """A folder for one connection: two that share one would write into the same files.

        It is this user's alone, which those that DuckDB makes are not.
        """
        folder = Path(
            self.temp_directory or tempfile.gettempdir(), f"reki-duckdb-{uuid.uuid4().hex}"
        )
        with suppress(OSError):  # DuckDB will tell, if it needs it
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        return folder


@dataclass(frozen=True)
class Query:
    """SQL with the Arrow tables it names. Each call below runs it anew, on its own connection.

    Attributes:
        sql: one SELECT.
        columns: names of its columns; by default those that DuckDB gives.
        types: Arrow types of columns that are not shown as DuckDB gives them.
        tables: Arrow tables and datasets, by the names they have in the SQL.
        setup: statements to run before.
        limits: what it may take.
    """

    sql: str
    columns: tuple[str, ...] = ()
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    limits: Limits = Limits()

    @classmethod
    def of(cls, table: pa.Table | pa.RecordBatchReader, limits: Limits = Limits()) -> Query:
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
        with _told(), self._open() as connection:
            table = connection.execute(self.sql).fetch_arrow_table()
        return conform(table, shown_schema(table.schema, self.columns, self.types))

    def batches(self, rows: int) -> pa.RecordBatchReader:
        """The rows as a stream, about `rows` at a time; what was read need not stay in memory.

        Raises:
            StoreError: DuckDB cannot run the query; also while reading.
        """
        with _told():
            connection = self._open()
            reader = connection.execute(self.sql).fetch_record_batch(rows)
        schema = shown_schema(reader.schema, self.columns, self.types)
        return pa.RecordBatchReader.from_batches(schema, _stream(connection, reader, schema))

    def copy(self, place: Path, options: str = "") -> None:
        """Write the rows as Parquet, straight from DuckDB.

        Raises:
            StoreError: DuckDB cannot run the query, or cannot write there; or columns differ in
                their names by case only, and would get others.
        """
        mend = "pass full_feature_names=True, or rename the column of the entity rows"
        if faults := case_faults("What DuckDB writes", self.columns, mend):
            raise StoreError(faults)
        with _told(), self._open() as connection:
            connection.execute(f"COPY ({self.sql}) TO {text(str(place))} (FORMAT parquet{options})")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What another SELECT over the same tables gives, as Python values."""
        with _told(), self._open() as connection:
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
    with _told():
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
    with _told(), connection:
        for batch in reader:
            yield conform(batch, schema)


@contextmanager
def _told() -> Iterator[None]:
    """DuckDB's errors as ours; in the middle of a stream pyarrow hands them on as OSErrors."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise StoreError(
            "DuckDB can run the offline store's query",
            found=str(error).strip().split("\n\n")[0],
            mend="mend what it names; `job.to_sql()` shows the query",
        ) from error
