"""Parquet files that tell when they are damaged, before Arrow reads them.

Between the pages and the end of a file, where readers skip bytes, checksums of both stand. Arrow
may crash on a damaged end, and reads some as other values.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import files
from reki_feast.errors import LakeError

#: Marks the checksums, of the pages and of the end, that follow it.
_MARK = b"\x00rekiCRC"
_SEAL = struct.Struct("<8sII")
#: What ends a Parquet file: the length of what stands before that tells of pages, and a mark.
_LAST = struct.Struct("<I4s")
_CHUNK = 1 << 20
#: What Arrow raises of bytes that are no table; some kinds of damage show late, as odd values.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file in one step: readers see the old one or the new one.

    Raises:
        LakeError: the folder cannot be written.
    """
    write_tables(path, table.schema, [table])


def write_tables(
    path: Path, schema: pa.Schema, tables: Iterable[pa.Table], *, mode: int | None = None
) -> int:
    """Write tables, made one by one, as one Parquet file; returns the number of rows.

    Args:
        path: the file.
        schema: of every table.
        tables: the rows.
        mode: of the file; None: its folder's.

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
        _seal(tmp)

    files.atomically(path, write, mode=mode)
    return count


def read_table(path: Path, mend: str) -> pa.Table:
    """All of a Parquet file, all bytes checked.

    Args:
        path: the file.
        mend: the command that makes it anew.

    Raises:
        LakeError: it is damaged.
    """
    with _opened(path, mend, whole=True) as (file, is_checked):
        table = file.read()
        if not is_checked:
            table.validate(full=True)
        return table


@contextlib.contextmanager
def opened(path: Path, mend: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose end is checked: its columns, counts and statistics.

    Raises:
        LakeError: it is damaged, as is seen now or within.
    """
    with _opened(path, mend, whole=False) as (file, _):
        yield file


@contextlib.contextmanager
def _opened(path: Path, mend: str, *, whole: bool) -> Iterator[tuple[pq.ParquetFile, bool]]:
    with told_as_damage(path, mend), path.open("rb") as raw:
        is_checked = _check(raw, whole=whole)
        raw.seek(0)
        with pq.ParquetFile(raw) as file:
            yield file, is_checked


@contextlib.contextmanager
def told_as_damage(path: Path, mend: str) -> Iterator[None]:
    """Have what Arrow raises meanwhile told as a fault of a Parquet file.

    Raises:
        LakeError: something was raised.
    """
    try:
        yield
    except PermissionError as error:
        raise LakeError(files.unreadable(path, error)) from error
    except _DAMAGE as error:
        rule = "a stored part is a whole Parquet file"
        again = f"restore the file from a backup, or move it away and run `{mend}` again"
        raise LakeError(rule, found=f"{path}: {files.one_line(error)}", mend=again) from error


def _seal(path: Path) -> None:
    """Put checksums between the pages and the end of a file."""
    with path.open("r+b") as file:
        begins = _end_of(file)
        file.seek(begins)
        end = file.read()
        seal = _SEAL.pack(_MARK, _sum(file, begins), zlib.crc32(end))
        file.seek(begins)
        file.write(seal + end)


def _check(file: BinaryIO, *, whole: bool) -> bool:
    """See that a file is as it was sealed; False where an earlier version wrote it, without.

    Raises:
        ValueError: it is not.
    """
    begins = _end_of(file)
    file.seek(max(begins - _SEAL.size, 0))
    mark, pages, end = _SEAL.unpack(file.read(_SEAL.size).ljust(_SEAL.size, b"\0"))
    if mark != _MARK:
        file.seek(max(_size(file) - _CHUNK, 0))
        if _MARK in file.read():
            raise ValueError("the length of its end is another's")
        return False
    if zlib.crc32(file.read()) != end:
        raise ValueError("the checksum of its end is another's")
    if whole and _sum(file, begins - _SEAL.size) != pages:
        raise ValueError("the checksum of its pages is another's")
    return True


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _end_of(file: BinaryIO) -> int:
    """Where the end of a Parquet file begins."""
    size = _size(file)
    file.seek(max(size - _LAST.size, 0))
    length, mark = _LAST.unpack(file.read().ljust(_LAST.size, b"\0"))
    if mark != b"PAR1" or length + _LAST.size > size:
        raise ValueError(f"{size:,} bytes that do not end as a Parquet file does")
    return int(size - _LAST.size - length)


def _sum(file: BinaryIO, length: int) -> int:
    """The checksum of so many bytes from the beginning."""
    found = 0
    file.seek(0)
    while length:
        some = file.read(min(length, _CHUNK))
        found, length = zlib.crc32(some, found), length - len(some)
    return found
