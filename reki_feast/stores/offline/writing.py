"""Write the rows of a query as Parquet: never half a file under its name.

A local folder appears as a whole, too; in an object store its parts appear one by one.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import FileSource
from feast.errors import SavedDatasetLocationAlreadyExists
from pyarrow import fs

from .query import Query
from .remote import filesystem_of

#: Rows a batch, where rows stream through.
BATCH = 65_536
#: Size at which a part of a staged table is closed.
_PART = ", FILE_SIZE_BYTES '512MB'"
_PART_ROWS = 4_000_000


def persist(query: Query, place: FileSource, repo: str, overwrite: bool) -> None:
    """Write a file (a path that ends in ``.parquet``) or a folder.

    Args:
        query: the rows.
        place: where to; a relative path starts in the repo's folder, as in Feast.
        repo: the Feast repo's folder.
        overwrite: replace what is there.

    Raises:
        SavedDatasetLocationAlreadyExists: something is there, and may not be replaced.
        StoreError: DuckDB cannot run the query, or cannot write there.
    """
    path: str = place.path.removeprefix("file://")
    path = FileSource.get_uri_for_file_path(repo_path=repo or None, uri=path)
    if "://" in path:
        _persist_remotely(query, place, overwrite)
        return
    local = Path(path)
    if local.exists() and not overwrite:
        raise SavedDatasetLocationAlreadyExists(location=place.path)
    local.parent.mkdir(parents=True, exist_ok=True)
    with _beside(local) as made:
        if local.suffix == ".parquet":
            query.copy(made)
        else:
            made.mkdir()
            query.copy(made / "0.parquet")
        _replace(made, local)


def stage(query: Query, location: str, endpoint: str) -> list[str]:
    """Write parts into a new folder below a staging location, local or of an object store.

    Returns:
        The parts' paths.

    Raises:
        StoreError: DuckDB cannot run the query, or cannot write there.
    """
    folder = f"{location.rstrip('/')}/{uuid.uuid4()}"
    source = FileSource(path=folder, s3_endpoint_override=endpoint)
    if "://" in location.removeprefix("file://"):
        scheme = location.split("://")[0]
        filesystem, path = filesystem_of(source)
        return [f"{scheme}://{part}" for part in _write_parts(query, filesystem, path)]
    local = Path(folder.removeprefix("file://")).absolute()
    local.parent.mkdir(parents=True, exist_ok=True)
    with _beside(local) as made:
        made.mkdir()
        query.copy(made / "parts", _PART)
        (made / "parts").rename(local)
    return sorted(str(part) for part in local.iterdir())


def _persist_remotely(query: Query, place: FileSource, overwrite: bool) -> None:
    filesystem, path = filesystem_of(place)
    there = filesystem.get_file_info(path).type != fs.FileType.NotFound
    if there and not overwrite:
        raise SavedDatasetLocationAlreadyExists(location=place.path)
    if not path.endswith(".parquet"):
        if there:
            filesystem.delete_dir_contents(path)
        _write_parts(query, filesystem, path)
        return
    reader = query.batches(BATCH)
    # An object appears when it is complete.
    with pq.ParquetWriter(path, reader.schema, filesystem=filesystem) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _write_parts(query: Query, filesystem: fs.FileSystem, path: str) -> list[str]:
    parts: list[str] = []
    ds.write_dataset(
        query.batches(BATCH),
        path,
        filesystem=filesystem,
        format="parquet",
        max_rows_per_file=_PART_ROWS,
        max_rows_per_group=min(_PART_ROWS, 1 << 20),
        file_visitor=lambda written: parts.append(written.path),
    )
    return sorted(parts)


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A path in the same folder; what is left there at the end is removed."""
    made = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        yield made
    finally:
        _remove(made)


def _replace(new: Path, old: Path) -> None:
    """Put a file or folder in the place of another."""
    if new.is_file() and not old.is_dir():
        new.replace(old)
        return
    with _beside(old) as aside:  # a folder cannot be renamed over another
        if old.exists():
            old.rename(aside)
        new.rename(old)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
