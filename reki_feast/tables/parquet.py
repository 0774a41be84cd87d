"""Parquet files that tell when they are damaged, before Arrow reads them.

Between the pages and the footer of a file, where readers skip bytes, are checksums: one a column
chunk, one of all pages, one of the footer. Arrow may crash on a damaged footer, and reads some
damaged pages as other values. A part of the columns is checked and read without the others.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import files
from reki_feast.errors import LakeError
from reki_feast.schema import VECTOR

#: Marks the checksums, of the pages and of the footer, that follow it.
_MARK = b"\x00rekiCRC"
_SEAL = struct.Struct("<8sII")
#: Before the seal, after the checksums of column chunks: a mark and their number.
_CHUNK_MARK = b"\x00rekiCOL"
_CHUNKS = struct.Struct("<8sI")
#: The end of a Parquet file: the length of the footer, and a mark.
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
        with pq.ParquetWriter(tmp, schema, compression="zstd", **_encodings(schema)) as writer:
            for table in tables:
                writer.write_table(table)
                count += table.num_rows
        _seal(tmp)

    files.atomically(path, write, mode=mode)
    return count


def _encodings(schema: pa.Schema) -> dict[str, list[str]]:
    """Columns of vectors apart from others: a dictionary of floats is slow, and saves nothing.

    Bytes of one rank beside each other take a fifth less than the floats as they are.
    """
    is_vector = [field.type == VECTOR for field in schema]
    pairs = [*zip(schema.names, is_vector, strict=True)]
    return {
        "use_dictionary": [name for name, vector in pairs if not vector],
        "use_byte_stream_split": [f"{name}.list.element" for name, vector in pairs if vector],
    }


def read_table(path: Path, hint: str) -> pa.Table:
    """All of a Parquet file, all bytes checked.

    Args:
        path: the file.
        hint: the command that makes it anew.

    Raises:
        LakeError: it is damaged.
    """
    with _opened(path, hint, whole=True) as (file, is_checked):
        table = file.read()
        if not is_checked:
            table.validate(full=True)
        return table


def read_columns(path: Path, names: Sequence[str], hint: str) -> pa.Table:
    """The named columns of a Parquet file that it has; only their bytes are read and checked.

    A file of an earlier version, which has one checksum of all pages, is checked as a whole.

    Args:
        path: the file.
        names: of columns, the order of the result.
        hint: the command that makes it anew.

    Raises:
        LakeError: one of them is damaged.
    """
    with told_as_damage(path, hint), path.open("rb") as raw:
        footer = _check_footer(raw)
        raw.seek(0)
        with pq.ParquetFile(raw) as file:
            stored = file.schema_arrow.names
            wanted = [name for name in names if name in stored]
            _check_columns(raw, footer, file, wanted)
            table = file.read(columns=wanted).select(wanted)
            if not footer.is_sealed:
                table.validate(full=True)
            return table


@contextlib.contextmanager
def opened(path: Path, hint: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose end is checked: its columns, counts and statistics.

    Raises:
        LakeError: it is damaged, as is seen now or within.
    """
    with _opened(path, hint, whole=False) as (file, _):
        yield file


@contextlib.contextmanager
def _opened(path: Path, hint: str, *, whole: bool) -> Iterator[tuple[pq.ParquetFile, bool]]:
    with told_as_damage(path, hint), path.open("rb") as raw:
        footer = _check_footer(raw)
        if whole:
            _check_pages(raw, footer)
        raw.seek(0)
        with pq.ParquetFile(raw) as file:
            yield file, footer.is_sealed


@contextlib.contextmanager
def told_as_damage(path: Path, hint: str) -> Iterator[None]:
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
        again = f"restore the file from a backup, or move it away and run `{hint}` again"
        raise LakeError(rule, detail=f"{path}: {files.one_line(error)}", hint=again) from error


def _seal(path: Path) -> None:
    """Put checksums between the pages and the footer of a file."""
    with path.open("r+b") as file:
        begins = _footer_of(file)
        file.seek(begins)
        footer = file.read()
        ranges = _column_ranges(pq.read_metadata(path))
        sums = b"".join(_sum(file, *one).to_bytes(4, "little") for one in ranges)
        chunks = sums + _CHUNKS.pack(_CHUNK_MARK, len(ranges))
        pages = zlib.crc32(chunks, _sum(file, 0, begins))
        file.seek(begins)
        file.write(chunks + _SEAL.pack(_MARK, pages, zlib.crc32(footer)) + footer)


@dataclass(frozen=True)
class _Footer:
    """Where the checked footer of a file begins, and the checksum of the pages, if it has one."""

    begins: int
    pages: int | None

    @property
    def is_sealed(self) -> bool:
        """Whether this library wrote the file, so that it has checksums."""
        return self.pages is not None


def _check_footer(file: BinaryIO) -> _Footer:
    """Check the footer of a file; an earlier version wrote none of the checksums.

    Raises:
        ValueError: it is not as it was written.
    """
    begins = _footer_of(file)
    file.seek(max(begins - _SEAL.size, 0))
    mark, pages, footer = _SEAL.unpack(file.read(_SEAL.size).ljust(_SEAL.size, b"\0"))
    if mark != _MARK:
        file.seek(max(_size(file) - _CHUNK, 0))
        if _MARK in file.read():
            raise ValueError("the length of its end is another's")
        return _Footer(begins, None)
    if zlib.crc32(file.read()) != footer:
        raise ValueError("the checksum of its end is another's")
    return _Footer(begins, pages)


def _check_pages(file: BinaryIO, footer: _Footer) -> None:
    if footer.is_sealed and _sum(file, 0, footer.begins - _SEAL.size) != footer.pages:
        raise ValueError("the checksum of its pages is another's")


def _check_columns(
    file: BinaryIO, footer: _Footer, parquet: pq.ParquetFile, names: Sequence[str]
) -> None:
    """Check the pages of some columns; of a file without their checksums, all pages."""
    if not footer.is_sealed:
        return
    ranges = _column_ranges(parquet.metadata)
    sums = _chunk_sums(file, footer, len(ranges))
    if sums is None:
        _check_pages(file, footer)
        return
    leaves = [field.name for field in parquet.schema_arrow for _ in range(_leaves(field.type))]
    for number, (start, length) in enumerate(ranges):
        name = leaves[number % len(leaves)]
        if name in names and _sum(file, start, length) != sums[number]:
            raise ValueError(f"the checksum of its column {name} is another's")


def _chunk_sums(file: BinaryIO, footer: _Footer, count: int) -> list[int] | None:
    """The checksums of so many column chunks; None where an earlier version wrote the file."""
    at = footer.begins - _SEAL.size - _CHUNKS.size
    file.seek(max(at, 0))
    mark, number = _CHUNKS.unpack(file.read(_CHUNKS.size).ljust(_CHUNKS.size, b"\0"))
    if mark != _CHUNK_MARK or number != count:
        return None  # the pages' own checksum tells if it was damaged
    file.seek(at - 4 * count)
    raw = file.read(4 * count)
    return [int.from_bytes(raw[n : n + 4], "little") for n in range(0, len(raw), 4)]


def _column_ranges(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Where the pages of each column chunk begin and how long they are, by row group."""
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    return [
        (
            chunk.dictionary_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset
            else chunk.data_page_offset,
            chunk.total_compressed_size,
        )
        for chunk in chunks
    ]


def _leaves(kind: pa.DataType) -> int:
    """How many columns of a Parquet file an Arrow column is stored as."""
    return sum(_leaves(kind.field(n).type) for n in range(kind.num_fields)) or 1


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _footer_of(file: BinaryIO) -> int:
    """Where the footer of a Parquet file begins."""
    size = _size(file)
    file.seek(max(size - _LAST.size, 0))
    length, mark = _LAST.unpack(file.read().ljust(_LAST.size, b"\0"))
    if mark != b"PAR1" or length + _LAST.size > size:
        raise ValueError(f"{size:,} bytes that do not end as a Parquet file does")
    return int(size - _LAST.size - length)


def _sum(file: BinaryIO, start: int, length: int) -> int:
    """The checksum of so many bytes from a place on."""
    found = 0
    file.seek(start)
    while length > 0:
        some = file.read(min(length, _CHUNK))
        if not some:
            break
        found, length = zlib.crc32(some, found), length - len(some)
    return found
