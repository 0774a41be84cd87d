"""Queries of the user's tables in DuckDB: one setup, UTC, paths that start at the project."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reki_feast.errors import Problem, SourceError
from reki_feast.masking import masked, without_literals
from reki_feast.permissions import spill_folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: A process has one working directory.
_ONE_DIRECTORY = threading.Lock()


def query(
    sql: str, *, root: Path, setup: Iterable[str] = (), tables: Mapping[str, pa.Table] | None = None
) -> pa.Table:
    """Run a query in DuckDB; relative paths in it start at ``root``; times are UTC.

    Raises:
        SourceError: DuckDB cannot run it (missing file, wrong column, bad syntax).
    """
    with contextlib.closing(DuckDBSession(root, setup)) as session:
        return session.query(sql, tables)


class DuckDBSession:
    """Queries that share one DuckDB, whose setup is run once; not for several threads at a time.

    What does not fit into memory is spilled into a folder for temporary files, readable by this
    user alone; ``SET temp_directory`` in the setup names another place.

    Args:
        root: relative paths in queries start there; times are UTC.
        setup: statements to run before the first query.
    """

    def __init__(self, root: Path, setup: Iterable[str] = ()) -> None:
        self._root, self._setup = root, tuple(setup)
        self._connection: DuckDBPyConnection | None = None
        self._has_macros = False  # which may read files
        self._of_tables: dict[tuple[str, ...], bool] = {}

    def query(
        self, sql: str, tables: Mapping[str, Any] | None = None, *, here: bool = False
    ) -> pa.Table:
        """Run a query; it may name the tables.

        Args:
            sql: the query.
            tables: Arrow tables, or objects that stream as Arrow, by name.
            here: streams are read in the calling thread.

        Raises:
            SourceError: DuckDB cannot run it, or the setup.
        """
        import duckdb

        self.open()
        assert self._connection is not None
        connection = self._connection
        try:
            alone = _one_thread(connection) if here else contextlib.nullcontext()
            at_root = here or not self._reads_only(sql, tables or {})
            with working_in(self._root) if at_root else contextlib.nullcontext(), alone:
                for name, table in (tables or {}).items():
                    connection.register(name, table)
                return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(_query_fault(sql, str(error), self._root)) from error
        finally:
            for name in tables or {}:
                connection.unregister(name)

    def _reads_only(self, sql: str, tables: Iterable[str]) -> bool:
        """Whether a query reads some tables and nothing else: no file, so in no folder.

        So do those that judge pushed rows: a service that pushes keeps its working directory.
        """
        assert self._connection is not None
        key = (sql, *tables)
        if key not in self._of_tables:
            parsed = self._connection.execute("select json_serialize_sql(?)", [sql]).fetchall()
            names_only = _names_only(json.loads(parsed[0][0]), {*tables})
            self._of_tables[key] = names_only and not self._has_macros
        return self._of_tables[key]

    def open(self) -> None:
        """Run the setup, unless that is done.

        Raises:
            SourceError: DuckDB cannot run a statement of it.
        """
        import duckdb

        if self._connection is not None:
            return
        folder = spill_folder()
        connection = duckdb.connect(config={"temp_directory": str(folder / "spill")})
        weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True)
        connection.execute("set TimeZone = 'UTC'")
        for number, statement in enumerate(self._setup, start=1):
            try:
                with working_in(self._root):
                    connection.execute(statement)
            except duckdb.Error as error:
                connection.close()
                place = f"statement {number} of {len(self._setup)}"
                raise SourceError(_setup_fault(statement, str(error), place)) from error
        if self._setup:
            found = connection.sql("select count(*) from duckdb_functions() where not internal")
            self._has_macros = found.fetchall()[0][0] > 0
        self._connection = connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


@contextlib.contextmanager
def _one_thread(connection: DuckDBPyConnection) -> Iterator[None]:
    """Let DuckDB work in the calling thread alone for a while."""
    before = connection.sql("select current_setting('threads')").fetchall()[0][0]
    connection.execute("set threads = 1")
    try:
        yield
    finally:
        connection.execute(f"set threads = {before}")


def _names_only(node: Any, tables: set[str]) -> bool:
    """Whether a parsed query reads from no function, and from no other table."""
    if isinstance(node, list):
        return all(_names_only(one, tables) for one in node)
    if not isinstance(node, dict):
        return True
    if node.get("error") or node.get("type") == "TABLE_FUNCTION":
        return False
    if node.get("type") == "BASE_TABLE":
        place = node["catalog_name"], node["schema_name"]
        if any(place) or node["table_name"] not in tables:
            return False
    return all(_names_only(one, tables) for one in node.values())


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Set the process's working directory for a while; other threads see it, too.

    DuckDB looks for relative paths there before it does in ``file_search_path``, and databases to
    attach nowhere else. To rewrite paths in a query would miss those that it computes. Who asks
    for other paths meanwhile names them in full.
    """
    with _ONE_DIRECTORY:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _query_fault(sql: str, error: str, root: Path) -> Problem:
    one_line = masked(" ".join(error.split()))
    hint = f"relative paths start at {root}; try the query alone in duckdb"
    return Problem(
        "a source is a query DuckDB can run", f"{one_line} in «{' '.join(sql.split())}»", hint
    )


def _setup_fault(statement: str, error: str, place: str) -> Problem:
    """Statements hold passwords of databases, and DuckDB's messages quote them."""
    message = masked(without_literals(statement, " ".join(error.split())))
    hint = "try the statements alone in duckdb"
    if "ownload extension" in error:
        hint = (
            "DuckDB downloads its extensions; where it may not, install one from a file, or let a "
            "Python function give the tables: see the README, Tables elsewhere"
        )
    detail = f"{message} in {place}, «{without_literals(statement)}»"
    return Problem("Sources.setup holds statements DuckDB can run", detail, hint)
