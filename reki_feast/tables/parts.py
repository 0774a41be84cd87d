"""The Parquet parts of a stored table: their names, their columns, the newest row of each key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.schema import VECTOR
from reki_feast.tables import parquet
from reki_feast.tables.digests import digest_of, digest_of_tables

#: The command that makes the parts of tables anew.
RUN = "reki run"

#: A file, its inode, size and time of change: a part that is replaced is another one.
_Version = tuple[str, int, int, int]


class ColumnCache:
    """Columns of parts that were read, each read once.

    Columns of vectors are not kept: they are large, and each is wanted in one place.
    """

    def __init__(self) -> None:
        self._columns: dict[_Version, dict[str, pa.ChunkedArray | None]] = {}
        self._rows: dict[_Version, int] = {}

    def read(self, path: Path, names: Sequence[str]) -> pa.Table:
        """The named columns of a part that it has, in their stored types."""
        about = path.stat()
        version = (str(path), about.st_ino, about.st_size, about.st_mtime_ns)
        kept = self._columns.setdefault(version, {})
        missing = [name for name in names if name not in kept]
        found = dict(kept)
        if missing or version not in self._rows:
            table = parquet.read_columns(path, missing, RUN)
            self._rows[version] = table.num_rows
            for name in missing:
                column = table[name] if name in table.column_names else None
                found[name] = column
                if column is None or column.type != VECTOR:
                    kept[name] = column
        columns = {name: found[name] for name in names if found[name] is not None}
        if not columns:
            return _without_columns(self._rows[version])
        return pa.table(columns)


def _without_columns(rows: int) -> pa.Table:
    return pa.table({"row": pa.nulls(rows)}).select([])


def read_part(path: Path, schema: pa.Schema, cache: ColumnCache | None = None) -> pa.Table:
    """The columns of a schema, cast to it; those that the part lacks are null.

    Raises:
        LakeError: the part is damaged or holds another table.
    """
    if cache is None:
        table = parquet.read_columns(path, schema.names, RUN)
    else:
        table = cache.read(path, schema.names)
    with parquet.told_as_damage(path, RUN):
        return conformed(table, schema)


def first_columns(
    path: Path, names: Sequence[str] | None, cache: ColumnCache | None = None
) -> pa.Table:
    """Some columns of a part in their stored types; by default the first one."""
    if names is None:
        with parquet.opened(path, RUN) as file:
            names = file.schema_arrow.names[:1]
    return parquet.read_columns(path, names, RUN) if cache is None else cache.read(path, names)


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table's columns cast to a schema; those that it lacks are null."""
    return pa.Table.from_arrays([_column(table, field) for field in schema], schema=schema)


def conforms(path: Path, schema: pa.Schema) -> bool:
    """Whether a part has the columns of a schema, in its order."""
    with parquet.opened(path, RUN) as file:
        return bool(file.schema_arrow.names == schema.names)


def part_name(table: pa.Table) -> str:
    """As-of time, then a digest of the rows' hashes or texts: the same rows give the same name."""
    as_of: datetime = pc.max(table["event_timestamp"]).as_py() if _timed(table) else datetime.min
    created = str(pc.max(table["created_timestamp"]).as_py()) if _timed(table) else ""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    names = ["hash"] if "hash" in table.column_names else texts
    digest = digest_of([created, digest_of_tables([table.select(names)])])
    return f"{as_of:%Y%m%dT%H%M%SZ}-{digest[:16]}"


def last_time(path: Path, column: str) -> datetime | None:
    """The latest time of a column, None where there is no such column, or no row."""
    with parquet.opened(path, RUN) as file:
        metadata = file.metadata
        columns = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
        if column not in columns or not metadata.num_rows:
            return None
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        ends = [group.column(columns.index(column)).statistics for group in groups]
    if any(end is None or not end.has_min_max for end in ends):
        values = parquet.read_columns(path, [column], RUN)[column]
        return pc.max(values).as_py()  # type: ignore[no-any-return]
    last: datetime = max(end.max for end in ends)
    return last


def newest(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Keep the newest row of each key, in order of first appearance.

    >>> from datetime import UTC, datetime
    >>> t = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
    >>> rows = pa.table({"id": [7, 7], "event_timestamp": t[::-1], "created_timestamp": t})
    >>> newest(rows, ["id"])["event_timestamp"][0].as_py().day
    2
    """
    if table.num_rows == 0:
        return table
    return table.take(newest_rows(table, keys))


def newest_rows(table: pa.Table, keys: Sequence[str]) -> pa.Array:
    """Where the newest row of each key is: int64, ascending."""
    order = [("event_timestamp", "ascending"), ("created_timestamp", "ascending")]
    ranked = table.select([*keys, *(name for name, _ in order if name not in keys)])
    ranked = ranked.append_column("__row", pa.array(np.arange(table.num_rows))).sort_by(order)
    last = ranked.select([*keys, "__row"]).group_by(list(keys), use_threads=False)
    return last.aggregate([("__row", "last")])["__row_last"].combine_chunks().sort()


def _timed(table: pa.Table) -> bool:
    return {"event_timestamp", "created_timestamp"} <= set(table.column_names)


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return table[field.name].cast(field.type)
    return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
