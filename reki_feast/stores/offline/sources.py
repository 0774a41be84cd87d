"""Parquet sources of Feast in DuckDB's terms: local files, and those of object stores.

Where a relative path starts: in the working folder, as for Feast's DuckDB store; where nothing is
there, in the Feast repo's folder, as for the rest of Feast. Paths of our views start in the repo's.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource

from reki_feast.errors import StoreError
from reki_feast.stores.defaults import FROM_REPO_TAG
from reki_feast.stores.names import alike

from .query import described, name, text
from .remote import MAGIC, filesystem_of, remote_files

#: Schemes that DuckDB reads by itself, as in Feast's store.
_BY_DUCKDB = ("http://", "https://", "hf://")
#: Schemes that pyarrow reads.
_BY_ARROW = ("s3://", "gs://", "gcs://", "abfs://", "abfss://", "hdfs://")
#: Rows a file has at most, for numbering the rows of many.
FILE_ROWS = 1 << 40
#: What DuckDB adds to the columns of files.
_INDEX, _ROW, _NAME = _VIRTUAL = ("file_index", "file_row_number", "filename")


@dataclass(frozen=True)
class Source:
    """A table to join.

    Attributes:
        scan: what to select from, where rows need no number.
        types: DuckDB's types by column.
        relation: what to select from, with `row`.
        row: SQL of a row's number.
        file: SQL of the number of a row's file, its place in `files`.
        files: paths of local files; none where rows are not numbered by them.
        tables: what `scan` needs registered.
        setup: statements that make `relation`.
    """

    scan: str
    types: Mapping[str, str]
    relation: str = ""
    row: str = ""
    file: str = ""
    files: tuple[str, ...] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()

    def in_files(self, numbers: Iterable[int]) -> str:
        """The SQL condition that a row is in some of the files; DuckDB opens no others."""
        wanted = sorted(numbers)
        if not wanted:
            return "false"
        if self.file == _INDEX:
            return f"{_INDEX} IN ({', '.join(map(str, wanted))})"
        return f"{_NAME} IN ({', '.join(text(self.files[n]) for n in wanted)})"

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


def is_readable(source: DataSource | None) -> TypeGuard[FileSource]:
    """Whether it is Parquet that this module reads; anything else is left to Feast's store."""
    if not isinstance(source, FileSource):
        return False
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        return False
    path = source.path
    return path.startswith(("file:", *_BY_DUCKDB, *_BY_ARROW)) or "://" not in path


def open_source(
    connection: duckdb.DuckDBPyConnection,
    source: FileSource,
    repo: str,
    table: str,
    texts: Iterable[str] = (),
) -> Source:
    """Look a source up; reads no more than its schema.

    Args:
        connection: of DuckDB; a remote source is registered with it.
        source: one that is :func:`is_readable`.
        repo: the Feast repo's folder.
        table: name under which a remote source is registered.
        texts: columns that are texts, also where folders have them (``sku=42``) and DuckDB would
            take them for numbers or times.

    Raises:
        StoreError: there is no Parquet file, or it cannot be read.
    """
    if source.path.startswith(_BY_ARROW):
        return _remote(connection, source, table)
    if source.path.startswith(_BY_DUCKDB):
        files, scan = [], f"read_parquet({text(source.path)})"
    else:
        files = local_files(connection, source, repo)
        listed = ", ".join(text(_literal(file)) for file in files)
        # Listed once: two scans of a pattern could see different files and number them otherwise.
        scan = f"read_parquet([{listed}], union_by_name = true{_hive_types(files, texts)})"
    types = described(connection, scan)
    if {column.lower() for column in types} & set(_VIRTUAL):
        return Source(scan, types)
    file = _file_number(files)
    row = f"({file}::BIGINT * {FILE_ROWS} + {_ROW})"
    return Source(scan, types, scan, row, file, tuple(files))


def _file_number(files: Sequence[str]) -> str:
    """SQL of the number of a row's file; the same in each scan of one list.

    Where folders hold columns (``day=2026-09-01``), DuckDB numbers only the files of those folders
    that a scan asks for.
    """
    if not any("=" in part for file in files for part in Path(file).parent.parts):
        return _INDEX
    return f"(list_position([{', '.join(map(text, files))}], {_NAME}) - 1)"


def missing_columns(source: str, wanted: Sequence[str], columns: Iterable[str]) -> StoreError:
    """The error for columns that a source lacks, or has under a name of another case."""
    columns = list(columns)
    for one in wanted:
        if (other := alike(one, columns)) is not None:
            return StoreError(
                f"{source} has column {one}, and no other that differs from it by case only: "
                "DuckDB takes such names for one",
                detail=f"column {other}",
                hint="rename one of the table's columns, or write the name as it is there; then "
                "`feast apply`",
            )
    return StoreError(
        f"{source} has column{'s' if len(wanted) > 1 else ''} {', '.join(wanted)}",
        detail=f"columns {', '.join(columns)}",
        hint="correct the view or its source, then `feast apply`",
    )


def open_keyed(
    connection: duckdb.DuckDBPyConnection, source: FileSource, repo: str, keys: Sequence[str]
) -> Source:
    """Look a source up of whose keys no types are known: those that folders have are whole numbers
    or else texts, never times.

    Raises:
        StoreError: there is no Parquet file, or it cannot be read.
    """
    found = open_source(connection, source, repo, "source_0")
    times = [key for key in keys if found.types.get(key, "").startswith(("DATE", "TIMESTAMP"))]
    return open_source(connection, source, repo, "source_0", times) if times else found


def _hive_types(files: Sequence[str], texts: Iterable[str]) -> str:
    """The option that reads columns as texts which the folders of all files have."""
    folders = [
        {part.split("=")[0] for part in Path(file).parent.parts if "=" in part} for file in files
    ]
    named = set.intersection(*folders) & set(texts)
    types = ", ".join(f"{name(column)}: VARCHAR" for column in sorted(named))
    return f", hive_types = {{{types}}}" if types else ""


def local_files(connection: duckdb.DuckDBPyConnection, source: FileSource, repo: str) -> list[str]:
    """The files of a source's path, folder or pattern, in order.

    Raises:
        StoreError: there is none.
    """
    path = re.sub("^file:(//)?", "", source.path)
    places = [Path(path).absolute()]
    if not Path(path).is_absolute() and repo:
        places.append((Path(repo) / path).absolute())
    if source.tags.get(FROM_REPO_TAG) == "true":
        places = places[-1:]
    elif FROM_REPO_TAG not in source.tags:
        _check_original(places[0], repo)
    for place in places:
        found = _listed(connection, place)
        if found:
            return found
    raise StoreError(
        f"Source {path} has Parquet files",
        detail="none in " + " or ".join(str(place) for place in places),
        hint="if the project was moved or is another machine's, run `feast apply` in its Feast "
        "repo; else correct the path of the FileSource, or write the table first",
    )


def _check_original(place: Path, repo: str) -> None:
    """That a registry with whole paths was not copied, with its project, from another one's.

    Raises:
        StoreError: it names a published table of that project, and this one has its own.
    """
    root = Path(repo).absolute().parent
    own = root / "data" / place.parent.name
    if not repo or not (place.parent / "manifest.json").is_file() or own == place.parent:
        return
    if (own / "manifest.json").is_file() and not own.samefile(place.parent):
        raise StoreError(
            f"The registry of {repo} is this project's",
            detail=f"it was copied, and names {place}, where {root} has its own",
            hint=f"cd {repo} && feast apply",
        )


def written_names(
    connection: duckdb.DuckDBPyConnection, source: FileSource, repo: str
) -> list[str]:
    """Columns as a local table has them: DuckDB renames those that differ by case only.

    None where there is no such file yet, or it cannot be read: who joins it is told.
    """
    if source.path.startswith((*_BY_DUCKDB, *_BY_ARROW)):
        return []
    with suppress(StoreError, pa.ArrowException, OSError):
        names: list[str] = pq.read_schema(local_files(connection, source, repo)[0]).names
        return names
    return []


def _listed(connection: duckdb.DuckDBPyConnection, place: Path) -> list[str]:
    if place.is_file():
        return [str(place)]
    if place.is_dir():
        return sorted(str(part) for part in place.rglob("*.parquet") if part.is_file())
    if not MAGIC.search(str(place)):
        return []
    return [row[0] for row in connection.execute(f"FROM glob({text(str(place))})").fetchall()]


def _literal(path: str) -> str:
    """A path whose signs DuckDB takes for themselves, not for a pattern."""
    return glob.escape(path)


def _remote(connection: duckdb.DuckDBPyConnection, source: FileSource, table: str) -> Source:
    filesystem, path = filesystem_of(source)
    try:
        files = remote_files(filesystem, path)
        if not files:
            raise FileNotFoundError(source.path)
        dataset = ds.dataset(files, filesystem=filesystem, format="parquet")
        schemas = [part.physical_schema for part in dataset.get_fragments()]
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"Source {source.path} has Parquet files",
            detail=str(error)[:300],
            hint="correct the path, the endpoint or the credentials of the FileSource",
        ) from error
    united = pa.unify_schemas(schemas, promote_options="permissive")
    dataset = dataset.replace_schema(united)
    connection.register(table, dataset)
    return Source(table, described(connection, table), tables={table: dataset})
