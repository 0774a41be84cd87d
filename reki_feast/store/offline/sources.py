"""Parquet sources of Feast in DuckDB's terms: local files, and those of object stores.

Where a relative path starts: in the working folder, as for Feast's DuckDB store; where nothing is
there, in the Feast repo's folder, as for the rest of Feast.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from pyarrow import fs

from reki_feast.errors import StoreError

from .query import described, name, text

#: Schemes that DuckDB reads by itself, as in Feast's store.
_BY_DUCKDB = ("http://", "https://", "hf://")
#: Schemes that pyarrow reads.
_BY_ARROW = ("s3://", "gs://", "gcs://", "abfs://", "abfss://", "hdfs://")
_MAGIC = re.compile(r"[*?[]")
#: Rows a file has at most, for numbering the rows of many.
_FILE = 1 << 40
#: Numbers each row of a list of files; the same in each scan of one list.
_FILE_ROW = f"(file_index::BIGINT * {_FILE} + file_row_number)"


@dataclass(frozen=True)
class Source:
    """A table to join.

    Attributes:
        scan: what to select from, where rows need no number.
        types: DuckDB's types by column.
        relation: what to select from, with `row`.
        row: SQL of a row's number.
        tables: what `scan` needs registered.
        setup: statements that make `relation`.
    """

    scan: str
    types: Mapping[str, str]
    relation: str = ""
    row: str = _FILE_ROW
    tables: Mapping[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()

    def holding(self, columns: Iterable[str], table: str) -> Source:
        """The same, able to number its rows: a copy of some columns where files cannot.

        Args:
            columns: the columns that will be asked for.
            table: name for the copy; DuckDB moves it to disk where memory is short.
        """
        if self.relation:
            return self
        asked = ", ".join(name(column) for column in dict.fromkeys(columns))
        made = f"CREATE TEMP TABLE {table} AS SELECT {asked} FROM {self.scan}"
        return replace(self, relation=table, row="rowid", setup=(made,))


def readable(source: DataSource | None) -> TypeGuard[FileSource]:
    """Whether it is Parquet that this module reads; anything else is left to Feast's store."""
    if not isinstance(source, FileSource):
        return False
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        return False
    path = source.path
    return path.startswith(("file:", *_BY_DUCKDB, *_BY_ARROW)) or "://" not in path


def open_source(
    connection: duckdb.DuckDBPyConnection, source: FileSource, repo: str, table: str
) -> Source:
    """Look a source up; reads no more than its schema.

    Args:
        connection: of DuckDB; a remote source is registered with it.
        source: one that is :func:`readable`.
        repo: the Feast repo's folder.
        table: name under which a remote source is registered.

    Raises:
        StoreError: there is no Parquet file, or it cannot be read.
    """
    if source.path.startswith(_BY_ARROW):
        return _remote(connection, source, table)
    if source.path.startswith(_BY_DUCKDB):
        scan = f"read_parquet({text(source.path)})"
    else:
        listed = ", ".join(text(_literal(p)) for p in local_files(connection, source.path, repo))
        # Listed once: two scans of a pattern could see different files and number them otherwise.
        scan = f"read_parquet([{listed}], union_by_name = true)"
    types = described(connection, scan)
    own = {"file_index", "file_row_number"} & {column.lower() for column in types}
    return Source(scan, types, relation="" if own else scan)


def local_files(connection: duckdb.DuckDBPyConnection, path: str, repo: str) -> list[str]:
    """The files of a path, folder or pattern, in order.

    Raises:
        StoreError: there is none.
    """
    path = re.sub("^file:(//)?", "", path)
    places = [Path(path).absolute()]
    if not Path(path).is_absolute() and repo:
        places.append((Path(repo) / path).absolute())
    for place in places:
        found = _listed(connection, place)
        if found:
            return found
    raise StoreError(
        f"Source {path} has Parquet files",
        found="none in " + " or ".join(str(place) for place in places),
        mend="correct the path of the FileSource, or write the table first",
    )


def _listed(connection: duckdb.DuckDBPyConnection, place: Path) -> list[str]:
    if place.is_file():
        return [str(place)]
    if place.is_dir():
        return sorted(str(part) for part in place.rglob("*.parquet") if part.is_file())
    if not _MAGIC.search(str(place)):
        return []
    return [row[0] for row in connection.execute(f"FROM glob({text(str(place))})").fetchall()]


def _literal(path: str) -> str:
    """A path whose signs DuckDB takes for themselves, not for a pattern."""
    return glob.escape(path)


def _remote(connection: duckdb.DuckDBPyConnection, source: FileSource, table: str) -> Source:
    filesystem, path = filesystem_of(source)
    try:
        files = list(_remote_files(filesystem, path))
        if not files:
            raise FileNotFoundError(source.path)
        dataset = ds.dataset(files, filesystem=filesystem, format="parquet")
        schemas = [part.physical_schema for part in dataset.get_fragments()]
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"Source {source.path} has Parquet files",
            found=str(error)[:300],
            mend="correct the path, the endpoint or the credentials of the FileSource",
        ) from error
    united = pa.unify_schemas(schemas, promote_options="permissive")
    dataset = dataset.replace_schema(united)
    connection.register(table, dataset)
    return Source(table, described(connection, table), tables={table: dataset})


def filesystem_of(source: FileSource) -> tuple[fs.FileSystem, str]:
    """The file system of an object store, and the path in it, as Feast has them."""
    found: tuple[fs.FileSystem | None, str] = FileSource.create_filesystem_and_path(
        source.path, source.s3_endpoint_override or "", source.resolve_credentials()
    )
    if found[0] is not None:
        return found[0], found[1]
    opened: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(source.path)
    return opened


def _remote_files(filesystem: fs.FileSystem, path: str) -> Iterator[str]:
    path = path.rstrip("/")
    magic = _MAGIC.search(path)
    if not magic and filesystem.get_file_info(path).type == fs.FileType.File:
        yield path
        return
    base = path[: path.rindex("/", 0, magic.start())] if magic else path
    wanted = _pattern(path if magic else f"{path}/**/*.parquet")
    listing = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
    yield from sorted(i.path for i in listing if i.is_file and wanted.fullmatch(i.path))


def _pattern(path: str) -> re.Pattern[str]:
    """A glob pattern as a regular expression; ``**`` stands for any folders.

    >>> bool(_pattern("b/**/x-?.parquet").fullmatch("b/x-1.parquet"))
    True
    >>> bool(_pattern("b/*.parquet").fullmatch("b/c/x.parquet"))
    False
    """
    parts = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", path)
    return re.compile(
        "".join(
            parts.get(
                piece, piece if piece.startswith("[") and piece[-1] == "]" else re.escape(piece)
            )
            for piece in pieces
            if piece
        )
    )
