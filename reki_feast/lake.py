"""The one place that reads and writes tables.

A table is a folder of Parquet parts. A part appears whole or not at all (written beside, synced,
renamed) and is never changed afterwards: a re-run adds parts. Readers see the newest row of each
key and as-of time.

::

    data/movies/
      manifest.json                     what the Feast side needs: keys, channels, default vectors
      knowledge/20260101T000000Z-….parquet
      user_aug/20260101T000000Z-….parquet
      hein.json                         what the weights are, and which file holds them
      hein-….safetensors                weights, named by their digest
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast.errors import Fault, LakeError, SourceError
from reki_feast.schema import content_hash

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MANIFEST_VERSION = 1
#: A process has one working directory.
_ONE_DIRECTORY = threading.Lock()
Weights = npt.NDArray[np.float32]


class Lake:
    """Tables, manifest and weights of one scenario under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def parts(self, name: str) -> list[Path]:
        """The table's parts, oldest as-of time first."""
        return sorted((self.root / name).glob("*.parquet"))

    def append(self, name: str, table: pa.Table) -> Path | None:
        """Add rows as one new part; nothing is written for an empty table.

        Raises:
            LakeError: the folder cannot be written.
        """
        if table.num_rows == 0:
            return None
        path = self.root / name / f"{_part_name(table)}.parquet"
        write_table(path, table)
        return path

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
            write_table(path, _read_part(path, schema))
        return len(old)

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
        return _read_json(self.root / f"{name}.json")

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace a JSON object in one step."""
        write_text(self.root / f"{name}.json", _dump({"version": MANIFEST_VERSION, **value}))

    def write_weights(self, weights: Mapping[str, Weights], manifest: Mapping[str, Any]) -> None:
        """Store weights, and ``hein.json`` that names them; the pair changes in one step.

        Raises:
            LakeError: the folder cannot be written; the stored pair stands.
        """
        from safetensors.numpy import save

        raw = save(dict(weights))
        digest = _digest(raw)
        path = self._weights_path(digest)
        _atomically(path, lambda tmp: tmp.write_bytes(raw))
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
            with contextlib.suppress(FileNotFoundError):
                raw = path.read_bytes()
                break
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

    def query(self, sql: str, tables: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """Run a query; it may name the tables.

        Raises:
            SourceError: DuckDB cannot run it, or the setup.
        """
        import duckdb

        try:
            with _working_in(self._root):
                connection = self._opened()
                for name, table in (tables or {}).items():
                    connection.register(name, table)
                return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(_query_fault(sql, str(error), self._root)) from error

    def _opened(self) -> DuckDBPyConnection:
        import duckdb

        if self._connection is None:
            connection = duckdb.connect()
            connection.execute("set TimeZone = 'UTC'")
            for statement in self._setup:
                connection.execute(statement)
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Let the DuckDB go."""
        if self._connection is not None:
            self._connection.close()


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """DuckDB looks in the working directory before any search path: so that is what is set."""
    with _ONE_DIRECTORY:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _query_fault(sql: str, error: str, root: Path) -> Fault:
    one_line = " ".join(error.split())
    mend = f"relative paths start at {root}; try the query alone in duckdb"
    return Fault(
        "a source is a query DuckDB can run", f"{one_line} in «{' '.join(sql.split())}»", mend
    )


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file in one step: readers see the old one or the new one.

    Raises:
        LakeError: the folder cannot be written.
    """
    _atomically(path, lambda tmp: pq.write_table(table, tmp, compression="zstd"))


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables, made one by one, as one Parquet file; returns the number of rows.

    Raises:
        LakeError: the folder cannot be written.
    """
    count = 0

    def write(tmp: Path) -> None:
        nonlocal count
        with pq.ParquetWriter(tmp, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
                count += table.num_rows

    _atomically(path, write)
    return count


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: readers see the old one or the new one.

    Raises:
        LakeError: the folder cannot be written.
    """
    _atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def read_text(path: Path) -> str | None:
    """A text file, None where there is none.

    Raises:
        LakeError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        mend = "fix the file's rights or encoding"
        raise LakeError(f"{path} is readable UTF-8", found=str(error), mend=mend) from error


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], about: Any) -> None:
    """Write arrays and JSON-able data about them as one safetensors file, in one step.

    Raises:
        LakeError: the folder cannot be written.
    """
    from safetensors.numpy import save_file

    said = {"about": json.dumps(about, ensure_ascii=False)}
    _atomically(path, lambda tmp: save_file(dict(tensors), tmp, metadata=said))


def read_tensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], Any]:
    """What :func:`write_tensors` wrote.

    Raises:
        LakeError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        found = f"{path}: {' '.join(str(error).split())}"
        mend = "restore the file from a backup, or move it away and make it anew"
        raise LakeError("a stored file of arrays is whole", found=found, mend=mend) from error


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it into place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise LakeError(_unwritable(path, error)) from error
    os.close(handle)
    tmp = Path(name)
    try:
        write(tmp)
        with tmp.open("rb") as written:
            os.fsync(written.fileno())
        tmp.chmod(0o644)
        tmp.replace(path)
    except OSError as error:
        raise LakeError(_unwritable(path, error)) from error
    finally:
        tmp.unlink(missing_ok=True)


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _unwritable(path: Path, error: OSError) -> Fault:
    return Fault(
        "the data folder can be written",
        f"{path}: {error.strerror or error}",
        "free space or fix the rights, then run the command again; what was stored is unharmed",
    )


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


def _timed(table: pa.Table) -> bool:
    return {"event_timestamp", "created_timestamp"} <= set(table.column_names)


def _read_part(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
        columns = [_column(table, field) for field in schema]
        return pa.Table.from_arrays(columns, schema=schema)
    except (pa.ArrowException, OSError) as error:
        found = f"{path}: {' '.join(str(error).split())}"
        mend = "restore the file from a backup, or move it away and run `reki run` again"
        raise LakeError("a stored part is a whole Parquet file", found=found, mend=mend) from error


def _conforms(path: Path, schema: pa.Schema) -> bool:
    try:
        return bool(pq.read_schema(path).names == schema.names)
    except (pa.ArrowException, OSError):
        return False  # reading it will say what is wrong


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return table[field.name].cast(field.type)
    return pa.chunked_array([pa.nulls(table.num_rows, field.type)])


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LakeError(_foreign(path, str(error))) from error
    if not isinstance(value, dict) or value.get("version") != MANIFEST_VERSION:
        raise LakeError(_foreign(path, "another version or shape"))
    return value


def _foreign(path: Path, found: str) -> Fault:
    rule = f"a manifest is a JSON object of version {MANIFEST_VERSION}"
    return Fault(rule, f"{path}: {found}", "move the file away and run `reki publish` again")
