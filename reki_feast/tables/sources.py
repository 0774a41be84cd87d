"""The user's tables as they come: out of an SQL query, or out of a Python function.

A function gives Arrow: a table, batches, or whatever streams as Arrow (pandas, polars, ADBC, …). It
runs in the project's folder, and batches of it are read one by one in the thread that called it,
since clients of databases belong to one thread. What they raise is told as a fault of the source.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from reki_feast.errors import Problem, RekiError, SourceError
from reki_feast.masking import masked
from reki_feast.tables.duckdb_session import DuckDBSession

#: A query, or a function without arguments.
Source = str | Callable[[], Any]
#: A process has one working directory.
_ONE_DIRECTORY = threading.Lock()
#: The name that rows bear in queries over them.
ROWS = "__given"
_FORMS = (
    "give a pyarrow.Table, RecordBatches one by one, or what streams as Arrow, such as a DataFrame"
)


class Given:
    """One source of a project, opened: the query that reads it, and its columns.

    Args:
        source: a query, or a function.
        session: runs queries.
        root: the project's folder.

    Raises:
        SourceError: the query cannot be run, or the function fails or gives no table.
    """

    def __init__(self, source: Source, session: DuckDBSession, root: Path) -> None:
        self._session = session
        self._failed: Exception | None = None
        if isinstance(source, str):
            self.sql = source.strip().rstrip(";")
            self._function: Callable[[], Any] | None = None
            return
        self.sql, self._function = f"select * from {ROWS}", source
        self._root = root
        with _working_in(root):
            self._rows = self._opened(source)

    @property
    def columns(self) -> pa.Schema:
        """The columns that there are, in DuckDB's types."""
        return self.dry(f"select * from ({self.sql}\n)").schema

    def dry(self, sql: str) -> pa.Table:
        """What a query over :attr:`sql` gives, without any row.

        Raises:
            SourceError: DuckDB cannot run it.
        """
        empty = None if self._function is None else {ROWS: self._rows.schema.empty_table()}
        return self._session.query(f"select * from ({sql}\n) limit 0", empty)

    def read(self, sql: str | None = None) -> pa.Table:
        """All rows, or what a query over :attr:`sql` gives; once.

        Raises:
            SourceError: DuckDB cannot run it, or the function fails meanwhile.
        """
        if self._function is None:
            return self._session.query(sql or self.sql)
        rows = self._rows if isinstance(self._rows, pa.Table) else _Stream(self._pulled(self._rows))
        try:
            streams = isinstance(rows, _Stream)
            return self._session.query(sql or self.sql, {ROWS: rows}, here=streams)
        except SourceError as error:
            if self._failed is not None:
                raise SourceError(self._fault(self._failed)) from self._failed
            found = error.problems[0].detail.split(" in «")[0]
            raise SourceError(self._rule, detail=found, hint=_FORMS) from error

    def _pulled(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The same batches, each of them made in the project's folder."""

        def batches() -> Iterator[pa.RecordBatch]:
            while True:
                with _working_in(self._root):
                    batch = next(reader, None)
                if batch is None:
                    return
                yield batch

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def _opened(self, function: Callable[[], Any]) -> pa.Table | pa.RecordBatchReader:
        try:
            found = function()
            if isinstance(found, pa.RecordBatch):
                return pa.Table.from_batches([found])
            if isinstance(found, pa.Table | pa.RecordBatchReader):
                return found
            if hasattr(found, "__arrow_c_stream__"):
                return pa.RecordBatchReader.from_stream(found)
            if isinstance(found, Iterable) and not isinstance(found, str | bytes | dict):
                return self._batched(iter(found))
        except RekiError:
            raise
        except Exception as error:  # whatever the user's own code raises
            raise SourceError(self._fault(error)) from error
        raise SourceError(self._rule, detail=type(found).__name__, hint=_FORMS)

    def _batched(self, parts: Iterator[Any]) -> pa.RecordBatchReader:
        """A reader of batches, the first of which says what columns there are."""
        first = next(parts, None)
        if first is None:
            hint = "give one batch at least, without rows if there are none"
            raise SourceError(self._rule, detail="no batch", hint=hint)
        self._check(first, getattr(first, "schema", None))
        batches = self._guarded(itertools.chain([first], parts), first.schema)
        return pa.RecordBatchReader.from_batches(first.schema, batches)

    def _guarded(self, parts: Iterator[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Each batch, of the first one's columns; a failure is kept, since streams tell half."""
        try:
            for part in parts:
                self._check(part, schema)
                yield from part.to_batches() if isinstance(part, pa.Table) else [part]
        except Exception as error:
            self._failed = error
            raise

    def _check(self, part: Any, schema: pa.Schema | None) -> None:
        if not isinstance(part, pa.Table | pa.RecordBatch):
            raise SourceError(self._rule, detail=f"{type(part).__name__} in it", hint=_FORMS)
        if schema is not None and not part.schema.equals(schema):
            raise SourceError(
                f"batches of {self._name} have the columns of the first one",
                detail=f"{_described(part.schema)} after {_described(schema)}",
                hint="give each batch the same schema: pa.RecordBatch.from_pylist(rows, schema=…)",
            )

    @property
    def _name(self) -> str:
        return f"the function {getattr(self._function, '__name__', self._function)}"

    @property
    def _rule(self) -> str:
        return f"{self._name} gives an Arrow table or batches"

    def _fault(self, error: Exception) -> Problem:
        if isinstance(error, SourceError):
            return error.problems[0]
        frames = traceback.extract_tb(error.__traceback__)
        code = getattr(self._function, "__code__", None)
        own = [one for one in frames if code is not None and one.filename == code.co_filename]
        place = f", line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else ""
        said = masked(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return Problem(
            self._rule, f"{said}{place}", "call it alone in Python to see the whole error"
        )


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Set the process's working directory while a user's function runs, which counts on it.

    Other threads see it, too; a query is no reason for it (:mod:`reki_feast.tables.sql_paths`).
    """
    with _ONE_DIRECTORY, contextlib.chdir(folder):
        yield


class _Stream:
    """Hides what a reader is, but for its stream: DuckDB would read it in threads of its own."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader

    def __arrow_c_stream__(self, requested: object = None) -> object:
        return self._reader.__arrow_c_stream__(requested)


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
