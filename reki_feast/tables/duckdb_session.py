"""Queries of the user's tables in DuckDB: one setup, UTC, paths that start at the project."""

from __future__ import annotations

import contextlib
import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reki_feast.errors import Problem, SourceError
from reki_feast.masking import masked, without_literals
from reki_feast.permissions import spill_folder
from reki_feast.tables.sql_paths import at_root

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


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
        self._start = root
        self._connection: DuckDBPyConnection | None = None

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
            with _one_thread(connection) if here else contextlib.nullcontext():
                for name, table in (tables or {}).items():
                    connection.register(name, table)
                return connection.sql(at_root(sql, self._start)).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(_query_fault(sql, str(error), self._root)) from error
        finally:
            for name in tables or {}:
                connection.unregister(name)

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
        self._start = _plain(self._root.absolute(), folder)
        _search_in(connection, self._start)
        for number, statement in enumerate(self._setup, start=1):
            try:
                connection.execute(at_root(statement, self._start))
            except duckdb.Error as error:
                connection.close()
                place = f"statement {number} of {len(self._setup)}"
                raise SourceError(_setup_fault(statement, str(error), place)) from error
        _search_in(connection, self._start)
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


def _plain(root: Path, folder: Path) -> Path:
    """The root, or a link to it where DuckDB would read its name as a pattern or as a list."""
    if not set(str(root)) & set("*?[]{},"):
        return root
    link = folder / "root"
    link.symlink_to(root)
    return link


def _search_in(connection: DuckDBPyConnection, root: Path) -> None:
    """Have relative paths that a query computes start at the root."""
    found = connection.sql("select current_setting('file_search_path')").fetchall()[0][0] or ""
    own = [str(root / one.strip()) for one in found.split(",") if one.strip()]
    folders = ",".join(dict.fromkeys([str(root), *own])).replace("'", "''")
    connection.execute(f"set file_search_path = '{folders}'")


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
            "Python function give the tables: see docs/how-to/postgres.md"
        )
    detail = f"{message} in {place}, «{without_literals(statement)}»"
    return Problem("Sources.setup holds statements DuckDB can run", detail, hint)
