"""Digests of tables by their values, and of folders by their files."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.files import Version, version_of

#: 64 bits each.
Hashes = npt.NDArray[np.uint64]
_SIZE = 16


def digest_of(parts: Iterable[object]) -> str:
    """A digest of the texts of these, in their order."""
    made = hashlib.blake2b(digest_size=_SIZE)
    for part in parts:
        raw = str(part).encode("utf-8", "surrogatepass")
        made.update(b"%d:" % len(raw) + raw)
    return made.hexdigest()


def digest_of_tables(tables: Iterable[pa.Table | None]) -> str:
    """A digest of every value of some tables, their columns' names and types, and their order."""
    made = hashlib.blake2b(digest_size=_SIZE)
    for table in tables:
        made.update(b"none" if table is None else str(table.schema).encode())
        for column in () if table is None else table.columns:
            # what lies beneath a null may be anything
            _add(made, column.is_valid())
            _add(made, column.drop_null())
    return made.hexdigest()


def digest_of_files(folder: Path, chosen: Callable[[str], bool]) -> str:
    """A digest of the files in a folder and those below; hidden ones do not count.

    Args:
        folder: without it, there are no files.
        chosen: by name, which files count. Of JSON objects it is the content, and of others the
            inode, size, rights and time of change: what is replaced is another file.
    """
    return digest_of(part for path in sorted(_files(folder, chosen)) for part in _of_file(path))


def file_versions(folder: Path, chosen: Callable[[str], bool]) -> dict[Path, Version]:
    """The version of each file that :func:`digest_of_files` would read."""
    found: dict[Path, Version] = {}
    for path in _files(folder, chosen):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            found[path] = version_of(path.stat())
    return found


def row_digests(table: pa.Table) -> Hashes:
    """A digest ``[n]`` of each row's values, columns in their order.

    >>> rows = pa.table({"a": [1, None, 1], "b": ["x", "x", "x"]})
    >>> first, second, third = row_digests(rows).tolist()
    >>> first == third, first == second
    (True, False)
    """
    columns = [_column_digests(column.combine_chunks()) for column in table.columns]
    return mixed(np.zeros(table.num_rows, np.uint64), *columns)


def mixed(*parts: Hashes) -> Hashes:
    """One hash of several, by splitmix64's finalizer (Steele et al., OOPSLA 2014)."""
    state = np.full(len(parts[0]), 0x9E3779B97F4A7C15, np.uint64)
    for part in parts:
        state = state * np.uint64(0x9E3779B97F4A7C15) + part
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def _column_digests(column: pa.Array) -> Hashes:
    if pa.types.is_integer(column.type) or pa.types.is_timestamp(column.type):
        whole = pc.fill_null(column.cast(pa.int64(), safe=False), 0).to_numpy()
        known = column.is_valid().to_numpy(zero_copy_only=False)
        return mixed(whole.astype(np.int64).view(np.uint64), known.astype(np.uint64))
    if pa.types.is_nested(column.type):
        column = pa.array([repr(value) for value in column.to_pylist()])
    codes = column.dictionary_encode("encode")
    values = [_value_digest(value) for value in codes.dictionary.to_pylist()]
    found: Hashes = np.array(values, np.uint64)[codes.indices.to_numpy()]
    return found


def _value_digest(value: object) -> int:
    raw = repr(value).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _files(folder: Path, chosen: Callable[[str], bool]) -> Iterator[Path]:
    for here, _, names in os.walk(folder):
        yield from (Path(here, one) for one in names if not one.startswith(".") and chosen(one))


def _of_file(path: Path) -> Iterator[object]:
    yield path
    try:
        if path.suffix == ".json":
            yield path.read_bytes()
            return
        about = path.stat()
    except FileNotFoundError:  # another process has just removed it
        return
    yield (about.st_ino, about.st_size, about.st_mode, about.st_mtime_ns)


def _add(made: Any, column: pa.ChunkedArray) -> None:
    whole = pa.table([column.combine_chunks()], names=[""])
    with pa.ipc.new_stream(pa.PythonFile(_Sink(made), mode="w"), whole.schema) as stream:
        stream.write_table(whole)


class _Sink:
    """A file that feeds a hash."""

    closed = False

    def __init__(self, made: Any) -> None:
        self._made, self._size = made, 0

    def write(self, raw: bytes) -> int:
        """Take bytes."""
        self._made.update(raw)
        self._size += len(raw)
        return len(raw)

    def tell(self) -> int:
        """How many bytes there were."""
        return self._size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is to be closed."""
