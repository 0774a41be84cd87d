"""Opens a ledger for reading: a project's own, a backup, one in a folder of another user."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from reki_feast.errors import LLMError
from reki_feast.llm.ledger import database
from reki_feast.permissions import Rights


def open_read_only(path: Path, rights: Rights) -> sqlite3.Connection:
    """A connection for reading; an absent ledger is an empty one.

    A file that can be written is opened as for writing. Another is read as it stands, with what
    a killed run left in the log beside it; one of an older version is brought up to date in memory.

    Raises:
        LLMError: the file is something else, or a newer version's.
        sqlite3.Error: it cannot be read.
    """
    if not path.exists():
        return _prepared(database.open_database(None), "memory")
    effective = os.access in os.supports_effective_ids
    if all(os.access(one, os.W_OK, effective_ids=effective) for one in (path, path.parent)):
        return _prepared(database.open_database(path, rights), str(path))
    reader = _reader(path)
    try:
        if database.version_of(reader, str(path)) == database.VERSION:
            return reader
        memory = database.open_database(None)
        reader.backup(memory)
    except BaseException:
        reader.close()
        raise
    reader.close()
    return _prepared(memory, str(path))


def check_path(path: Path) -> None:
    """See that a file can be a ledger, and that one that was filled is not empty.

    Raises:
        LLMError: a folder is in its place, or it has lost what it held.
    """
    rule = "the ledger of answers can be read and written"
    if path.is_dir():
        raise LLMError(rule, detail=f"{path} is a folder", hint="move it away and run again")
    # the spare file comes when the tables are made; before a log is emptied it may be all there is
    logged, spare = path.with_name(f"{path.name}-wal"), path.with_suffix(".spare")
    if _is_empty(path) and spare.exists() and (not logged.exists() or _is_empty(logged)):
        raise LLMError(rule, detail=f"{path} is empty", hint=database.DAMAGED_HINT)


def _is_empty(path: Path) -> bool:
    return path.exists() and not path.stat().st_size


def _prepared(connection: sqlite3.Connection, where: str) -> sqlite3.Connection:
    try:
        database.migrate(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, not even the files that SQLite wants beside a log."""
    beside = [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm")]
    where = path.absolute().as_uri()
    if not any(one.exists() for one in beside):
        # nobody writes, so SQLite need not look for it, which takes a file of its own
        return database.connect(f"{where}?mode=ro&immutable=1")
    reader = database.connect(f"{where}?mode=ro")
    try:
        reader.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        reader.close()
        return _copied(path, beside[0])
    return reader


class _Copy(sqlite3.Connection):
    """A connection to a copy, which goes when it is closed."""

    folder: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        super().close()
        if self.folder is not None:
            self.folder.cleanup()


def _copied(path: Path, log: Path) -> sqlite3.Connection:
    """A connection to a copy of a ledger whose log cannot be read where it is."""
    folder = tempfile.TemporaryDirectory(prefix="reki-ledger-")
    copy = Path(folder.name) / path.name
    try:
        for one in (path, log):
            if one.exists():
                shutil.copyfile(one, copy.with_name(one.name))
        made = database.connect(str(copy), kind=_Copy)
        assert isinstance(made, _Copy)
    except BaseException:
        folder.cleanup()
        raise
    made.folder = folder
    return made
