"""The one place that reads and writes tables.

A table is a folder of Parquet parts. A part appears whole or not at all (written beside, synced,
renamed), and a re-run adds parts: one that is there is replaced only to fit a newer schema, or to
forget somebody. Readers see the newest row of each key and as-of time: the one made last, also
where a clock went back since.

::

    data/movies/
      manifest.json                     what the Feast side needs: keys, channels, default vectors
      knowledge/20260101T000000Z-….parquet
      user_aug/20260101T000000Z-….parquet
      hein.json                         what the weights are, and which file holds them
      hein-….safetensors                weights, named by their digest
      made.json                         when the last rows were made

The folder is its owner's alone, unless a project declares a group (:mod:`reki_feast.rights`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import files, parquet
from reki_feast.errors import Fault, LakeError, SourceError
from reki_feast.locking import alone
from reki_feast.masking import masked, without_literals
from reki_feast.rights import OWNER, Rights, make_folder, mend
from reki_feast.schema import content_hash

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

MANIFEST_VERSION = 1
#: What makes the parts of tables anew, and the objects beside them.
_RUN = "reki run"
_CREATED, _TICK = "created_timestamp", timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAKERS = {"manifest": "reki publish", "hein": "reki train --retrain"}
#: A process has one working directory.
_ONE_DIRECTORY = threading.Lock()
Weights = npt.NDArray[np.float32]
#: Of some of a table's columns, which rows are meant.
Mask = Callable[[pa.Table], pa.Array | pa.ChunkedArray]


class Lake:
    """Tables, manifest and weights of one scenario under one folder.

    Args:
        root: the folder; made when something is written.
        rights: who may read and write what is stored.
    """

    def __init__(self, root: Path, rights: Rights = OWNER) -> None:
        self.root, self._rights = root, rights
        self._is_claimed = False

    def claim(self) -> None:
        """Make the folder ready to be written, once: what killed writers left goes.

        A folder, or file, that others can read beyond what is declared is taken from them, and a
        warning logged.

        Raises:
            LakeError: the folder cannot be made, or the declared group is none of this user's.
        """
        if self._is_claimed:
            return
        try:
            make_folder(self.root, self._rights)
            files.sweep_all(self.root)
            opened = mend(self.root, self._rights)
        except OSError as error:
            raise LakeError(files.unwritable(self.root, error)) from error
        if opened:
            also = f" and {len(opened) - 1:,} more" if len(opened) > 1 else ""
            said = "others could read %s%s; they no longer can"
            _log.warning(f"{said}: see Privacy(group=…, umask=…)", opened[0], also)
        self._is_claimed = True

    def parts(self, name: str) -> list[Path]:
        """The table's parts, oldest as-of time first.

        Raises:
            LakeError: the folder cannot be read.
        """
        folder = self.root / name
        try:
            return sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LakeError(files.unreadable(folder, error)) from error

    def append(self, name: str, table: pa.Table) -> Path | None:
        """Add rows as one new part; nothing is written for an empty table.

        Rows of ``created_timestamp`` not later than those that were added before are made later.

        Raises:
            LakeError: the folder cannot be written.
        """
        if table.num_rows == 0:
            return None
        self.claim()
        folder = self.root / name
        if not (folder / f"{_part_name(table)}.parquet").exists():
            table = self._made_last(table)
        path = folder / f"{_part_name(table)}.parquet"
        parquet.write_table(path, table)
        return path

    def _made_last(self, table: pa.Table) -> pa.Table:
        """Rows as made after all that are stored, whatever the clock said."""
        if _CREATED not in table.column_names:
            return table
        with alone(self.root / ".made.lock", "", tell=False):
            least = self.next_made()
            if pc.min(table[_CREATED]).as_py() < least:
                at = table.column_names.index(_CREATED)
                field = table.schema.field(at)
                made = pa.repeat(pa.scalar(least, field.type), table.num_rows)
                table = table.set_column(at, field, made)
            last = pc.max(table[_CREATED]).as_py()
            self.write_json("made", {"last": last.isoformat()})
        return table

    def next_made(self) -> datetime:
        """The earliest time at which rows can be made now: after all that are stored."""
        said = self.read_json("made")
        if said is not None:
            return datetime.fromisoformat(said["last"]) + _TICK
        tables = {path.parent.name for path in self.root.glob("*/*.parquet")}  # of before
        return (self.last(_CREATED, *tables) or _EPOCH) + _TICK

    def last(self, column: str, *tables: str) -> datetime | None:
        """The latest time in a column of some tables, by the ends of files; None without rows.

        Raises:
            LakeError: a part is damaged.
        """
        found = [_last(path, column) for name in tables for path in self.parts(name)]
        return max((time for time in found if time is not None), default=None)

    def replace(self, name: str, parts: Iterable[pa.Table]) -> None:
        """Put other rows in the place of all the table's; the old parts go when the new ones stand.

        Raises:
            LakeError: the folder cannot be written; the old parts stand.
        """
        old = set(self.parts(name))
        new = {self.append(name, part) for part in parts}
        for path in old - new:
            path.unlink(missing_ok=True)

    def read(self, name: str, schema: pa.Schema) -> pa.Table:
        """All rows of a table, cast to ``schema``; columns a part lacks are null.

        Raises:
            LakeError: a part is damaged or holds another table.
        """
        tables = [_read_part(path, schema) for path in self.parts(name)]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def conform(self, name: str, schema: pa.Schema) -> int:
        """Bring parts of an older schema to this one, so that readers of the folder see one.

        A part is replaced in one step by one with the same rows and the new columns null.

        Returns:
            How many parts were rewritten.
        """
        old = [path for path in self.parts(name) if not _conforms(path, schema)]
        for path in old:
            self.claim()
            parquet.write_table(path, _read_part(path, schema))
        return len(old)

    def size(self, name: str) -> tuple[int, int, int]:
        """Parts, rows and bytes of a table.

        Raises:
            LakeError: a part is damaged; all such faults together.
        """
        rows, parts = 0, self.parts(name)
        faults: list[Fault] = []
        for path in parts:
            try:
                with parquet.opened(path, _RUN) as file:
                    rows += file.metadata.num_rows
            except LakeError as error:
                faults += error.faults
        if faults:
            raise LakeError(faults)
        return len(parts), rows, sum(path.stat().st_size for path in parts)

    def ids(self, name: str) -> pa.Array:
        """Distinct values of a table's first column, as text; no other column is read.

        Raises:
            LakeError: a part is damaged.
        """
        parts = (_columns(path, None).column(0) for path in self.parts(name))
        return pa.chunked_array(
            [part.unique().cast(pa.string()) for part in parts], pa.string()
        ).unique()

    def check(self) -> None:
        """See that what stands beside the tables can be read: objects, arrays, the weights.

        Of arrays other than the weights the beginning and the length are looked at.

        Raises:
            LakeError: with all faults.
        """
        objects = sorted(self.root.glob("*.json"))
        looks: list[Callable[[], object]] = [partial(self.read_json, one.stem) for one in objects]
        arrays = sorted(self.root.rglob("*.safetensors"))
        others = [path for path in arrays if not path.name.startswith("hein")]
        looks += [partial(files.check_tensors, path) for path in others]
        faults: list[Fault] = []
        for look in [*looks, self.weights]:
            try:
                look()
            except LakeError as error:
                faults += error.faults
        if faults:
            raise LakeError(list(dict.fromkeys(faults)))

    def remove(self, name: str, gone: Mask, columns: Sequence[str] | None = None) -> int:
        """Remove rows for good; each part that has some is replaced in one step.

        A killed removal left some parts as they were; done again, it removes the rest. The last
        part stays, without rows if need be, so that there is a table to read.

        Args:
            name: of the table.
            gone: which rows go, bool ``[n]`` of a part's n rows.
            columns: what ``gone`` is shown of a part; by default the first column, an entity's key.

        Returns:
            How many rows went.

        Raises:
            LakeError: a part is damaged, or the folder cannot be written.
        """
        count = 0
        for path in self.parts(name):
            which = gone(_columns(path, columns))
            if going := pc.sum(which).as_py():
                stays = parquet.read_table(path, _RUN).filter(pc.invert(which))
                self._replace_part(path, stays)
                count += going
        return count

    def rewrite(self, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace each part by what ``change`` makes of it, if that is another table.

        Raises:
            LakeError: a part is damaged, or the folder cannot be written.
        """
        for path in self.parts(name):
            before = parquet.read_table(path, _RUN)
            if not (after := change(before)).equals(before):
                self._replace_part(path, after)

    def _replace_part(self, path: Path, rows: pa.Table) -> None:
        self.claim()
        if rows.num_rows or len(self.parts(path.parent.name)) == 1:
            self.claim()
            parquet.write_table(path, rows)
        else:
            path.unlink(missing_ok=True)

    def snapshot(
        self, name: str, schema: pa.Schema, keys: Sequence[str], as_of: datetime | None = None
    ) -> pa.Table:
        """The newest row of each key up to ``as_of``: by as-of time, then by time of making."""
        table = self.read(name, schema)
        if as_of is not None:
            table = table.filter(pc.field("event_timestamp") <= pa.scalar(as_of))
        return newest(table, keys)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A small JSON object beside the tables, ``manifest`` for what was published last.

        Raises:
            LakeError: the file is damaged or of another version.
        """
        maker = _MAKERS.get(name, _RUN)
        return files.read_json(self.root / f"{name}.json", MANIFEST_VERSION, maker)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace a JSON object in one step."""
        self.claim()
        files.write_json(self.root / f"{name}.json", {"version": MANIFEST_VERSION, **value})

    def write_tensors(self, path: Path, tensors: files.Tensors, about: Any) -> None:
        """Write arrays, and JSON-able data about them, to a file in this folder, in one step.

        Raises:
            LakeError: the folder cannot be written.
        """
        self.claim()
        files.write_tensors(path, tensors, about)

    def forget(self, *names: str) -> None:
        """Remove files that stand beside the tables; what is not there is no fault."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def write_weights(self, weights: Mapping[str, Weights], manifest: Mapping[str, Any]) -> None:
        """Store weights, and ``hein.json`` that names them; the pair changes in one step.

        Raises:
            LakeError: the folder cannot be written; the stored pair stands.
        """
        from safetensors.numpy import save

        raw = save(dict(weights))
        digest = _digest(raw)
        path = self._weights_path(digest)
        self.claim()
        files.atomically(path, lambda tmp: tmp.write_bytes(raw))
        self.write_json("hein", {"digest": digest, **manifest})
        for old in self.root.glob("hein*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)

    def weights(self) -> tuple[dict[str, Weights], dict[str, Any]] | None:
        """The stored weights and their manifest, None before the first training.

        Raises:
            LakeError: the weights are not those that the manifest names, or cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        for _ in range(3):  # new ones may come between the reading of one file and of the other
            manifest = self.read_json("hein")
            if manifest is None:
                return None
            path = self._weights_path(str(manifest.get("digest")))
            if not path.exists() and (self.root / "hein.safetensors").exists():
                path = self.root / "hein.safetensors"  # its name in the first versions
            try:
                raw = path.read_bytes()
                break
            except FileNotFoundError:
                continue
            except PermissionError as error:
                raise LakeError(files.unreadable(path, error)) from error
            except OSError as error:
                raise LakeError(_torn(path)) from error
        else:
            raise LakeError(_torn(path))
        if _digest(raw) != manifest.get("digest"):
            raise LakeError(_torn(path))
        try:
            return load(raw), manifest
        except SafetensorError as error:
            raise LakeError(_torn(path)) from error

    def _weights_path(self, digest: str) -> Path:
        return self.root / f"hein-{digest[:16]}.safetensors"


def newest(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Keep the newest row of each key, in order of first appearance.

    >>> from datetime import datetime, timezone
    >>> t = [datetime(2026, 1, day, tzinfo=timezone.utc) for day in (1, 2)]
    >>> rows = pa.table({"id": [7, 7], "event_timestamp": t[::-1], "created_timestamp": t})
    >>> newest(rows, ["id"])["event_timestamp"][0].as_py().day
    2
    """
    if table.num_rows == 0:
        return table
    order = [("event_timestamp", "ascending"), ("created_timestamp", "ascending")]
    ranked = table.append_column("__row", pa.array(np.arange(table.num_rows))).sort_by(order)
    last = ranked.select([*keys, "__row"]).group_by(list(keys), use_threads=False)
    rows = last.aggregate([("__row", "last")])["__row_last"]
    return table.take(rows.sort())


def query(
    sql: str, *, root: Path, setup: Iterable[str] = (), tables: Mapping[str, pa.Table] | None = None
) -> pa.Table:
    """Run a query in DuckDB; relative paths in it start at ``root``; times are UTC.

    Raises:
        SourceError: DuckDB cannot run it (missing file, wrong column, bad syntax).
    """
    with contextlib.closing(Session(root, setup)) as session:
        return session.query(sql, tables)


class Session:
    """Queries that share one DuckDB, whose setup is run once; not for several threads at a time.

    Args:
        root: relative paths in queries start there; times are UTC.
        setup: statements to run before the first query.
    """

    def __init__(self, root: Path, setup: Iterable[str] = ()) -> None:
        self._root, self._setup = root, tuple(setup)
        self._connection: DuckDBPyConnection | None = None

    def query(
        self, sql: str, tables: Mapping[str, Any] | None = None, *, here: bool = False
    ) -> pa.Table:
        """Run a query; it may name the tables.

        Args:
            sql: the query.
            tables: Arrow tables, or what streams as Arrow, by name.
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
            with working_in(self._root), alone:
                for name, table in (tables or {}).items():
                    connection.register(name, table)
                return connection.sql(sql).to_arrow_table()
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
        connection = duckdb.connect()
        connection.execute("set TimeZone = 'UTC'")
        for number, statement in enumerate(self._setup, start=1):
            try:
                with working_in(self._root):
                    connection.execute(statement)
            except duckdb.Error as error:
                connection.close()
                place = f"statement {number} of {len(self._setup)}"
                raise SourceError(_setup_fault(statement, str(error), place)) from error
        self._connection = connection

    def close(self) -> None:
        """Let the DuckDB go."""
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


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """DuckDB looks in the working directory before any search path: so that is what is set."""
    with _ONE_DIRECTORY:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _query_fault(sql: str, error: str, root: Path) -> Fault:
    one_line = masked(" ".join(error.split()))
    mend = f"relative paths start at {root}; try the query alone in duckdb"
    return Fault(
        "a source is a query DuckDB can run", f"{one_line} in «{' '.join(sql.split())}»", mend
    )


def _setup_fault(statement: str, error: str, place: str) -> Fault:
    """Statements hold passwords of databases, and what DuckDB says quotes them."""
    said = masked(without_literals(statement, " ".join(error.split())))
    mend = "try the statements alone in duckdb"
    if "ownload extension" in error:
        mend = (
            "DuckDB downloads its extensions; where it may not, install one from a file, or let a "
            "Python function give the tables: see the README, Tables elsewhere"
        )
    found = f"{said} in {place}, «{without_literals(statement)}»"
    return Fault("Sources.setup holds statements DuckDB can run", found, mend)


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _torn(path: Path) -> Fault:
    return Fault(
        "hein.json and the weights that it names belong together",
        f"{path} {'holds others' if path.exists() else 'is missing'}",
        "train again with `reki train --retrain`",
    )


def _part_name(table: pa.Table) -> str:
    """As-of time, then a digest of the rows' hashes or texts: the same rows give the same name."""
    as_of: datetime = pc.max(table["event_timestamp"]).as_py() if _timed(table) else datetime.min
    made = str(pc.max(table["created_timestamp"]).as_py()) if _timed(table) else ""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    names = ["hash"] if "hash" in table.column_names else texts
    digest = content_hash(made, *(str(x) for name in names for x in table[name].to_pylist()))
    return f"{as_of:%Y%m%dT%H%M%SZ}-{digest[:16]}"


def _last(path: Path, column: str) -> datetime | None:
    """The latest time of a column, None where there is no such column, or no row."""
    with parquet.opened(path, _RUN) as file:
        metadata = file.metadata
        columns = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
        if column not in columns or not metadata.num_rows:
            return None
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        ends = [group.column(columns.index(column)).statistics for group in groups]
        if any(end is None or not end.has_min_max for end in ends):
            return pc.max(_columns(path, [column]).column(0)).as_py()  # type: ignore[no-any-return]
        last: datetime = max(end.max for end in ends)
        return last


def _timed(table: pa.Table) -> bool:
    return {"event_timestamp", "created_timestamp"} <= set(table.column_names)


def _read_part(path: Path, schema: pa.Schema) -> pa.Table:
    table = parquet.read_table(path, _RUN)
    with parquet.told_as_damage(path, _RUN):
        return conformed(table, schema)


def _columns(path: Path, names: Sequence[str] | None) -> pa.Table:
    """Some columns of a part as they are; by default the first."""
    with parquet.opened(path, _RUN) as file:
        named = list(names or file.schema_arrow.names[:1])
        return file.read(columns=named).select(named)


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table's columns cast to a schema; those it lacks are null."""
    return pa.Table.from_arrays([_column(table, field) for field in schema], schema=schema)


def _conforms(path: Path, schema: pa.Schema) -> bool:
    with parquet.opened(path, _RUN) as file:
        return bool(file.schema_arrow.names == schema.names)


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return table[field.name].cast(field.type)
    return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
