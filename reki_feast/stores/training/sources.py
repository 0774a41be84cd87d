"""Where training rows come from: retrieval jobs, Arrow tables, Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast.errors import StoreError

from .columns import ColumnPlan

#: A retrieval job of Feast, an Arrow table, or Parquet: a file, a folder, a glob, several files.
Source = Any


def table_of(
    source: Source, choose: Callable[[pa.Schema], ColumnPlan]
) -> tuple[pa.Table, ColumnPlan]:
    """The whole source as a table; of Parquet only the columns chosen are read.

    Raises:
        StoreError: it is no such source, or there is no such file.
    """
    if is_path(source):
        files = files_of(source)
        wanted = choose(pq.read_schema(files[0]))
        return pa.concat_tables([pq.read_table(f, columns=wanted.names) for f in files]), wanted
    table = source if isinstance(source, pa.Table) else rows_of(source)
    return table, choose(table.schema)


def rows_of(job: Any) -> pa.Table:
    """What a retrieval job finds."""
    if not hasattr(job, "to_arrow"):
        raise StoreError(
            "Training rows come from a retrieval job, an Arrow table or Parquet files",
            detail=type(job).__name__,
            hint="give what get_historical_features returns, or pyarrow.Table.from_pandas(rows)",
        )
    table: pa.Table = job.to_arrow()
    return table


def is_path(source: Source) -> bool:
    """Whether files are meant."""
    return isinstance(source, str | Path | list | tuple)


def files_of(source: str | Path | Sequence[str | Path]) -> list[str]:
    """The Parquet files meant, sorted where a folder or a glob is given.

    Raises:
        StoreError: there is none.
    """
    if isinstance(source, list | tuple):
        return [file for one in source for file in files_of(one)]
    place = Path(str(source)).expanduser()
    if place.is_dir():
        found = sorted(str(file) for file in place.rglob("*.parquet"))
    elif place.is_file():
        found = [str(place)]
    else:
        pattern = str(place.relative_to(place.anchor))
        found = sorted(str(file) for file in Path(place.anchor).glob(pattern))
    if not found:
        raise StoreError(
            "Training rows are in Parquet files",
            detail=f"none at {source}",
            hint="persist the historical join there first, or correct the path",
        )
    return found
