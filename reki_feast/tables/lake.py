"""The one place that reads and writes tables.

A table is a folder of Parquet parts. A part appears whole or not at all (written beside, synced,
renamed), and a re-run adds parts: one that is there is replaced only to fit a newer schema, or to
forget somebody. Readers see the newest row of each key and as-of time: the one made last, also
where a clock went back since.

::

    data/movies/
      manifest.json                     what the Feast side needs: keys, channels, default vectors
      knowledge/20260101T000000Z-….parquet
      user_aug/20260101T000000Z-….parquet
      hein.json                         what the weights are, and which file holds them
      hein-….safetensors                weights, named by their digest
      backbone-….safetensors            the recommenders that they were trained with
      made.json                         when the last rows were made
      spaces/v1/…                       the same of another space (:mod:`reki_feast.views.spaces`)

The folder is its owner's alone, unless a project declares a group (:mod:`reki_feast.permissions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import files
from reki_feast.errors import LakeError, Problem
from reki_feast.locking import alone
from reki_feast.permissions import OWNER, Rights
from reki_feast.tables import parquet
from reki_feast.tables.objects import StoredObjects
from reki_feast.tables.parts import (
    RUN,
    ColumnCache,
    conforms,
    first_columns,
    last_time,
    newest,
    part_name,
    read_part,
)
from reki_feast.views.spaces import VectorSpace

_CREATED, _TICK = "created_timestamp", timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Of some of a table's columns, which rows are meant.
Mask = Callable[[pa.Table], pa.Array | pa.ChunkedArray]


class Lake(StoredObjects):
    """Tables, manifest and weights of one scenario under one folder.

    Args:
        root: the folder; made when something is written.
        rights: who may read and write what is stored.
        space: whose vectors, weights and representations are meant; by default the first.
        cache: keeps columns that were read; None reads them each time.
    """

    def __init__(
        self,
        root: Path,
        rights: Rights = OWNER,
        space: VectorSpace | None = None,
        *,
        cache: ColumnCache | None = None,
    ) -> None:
        super().__init__(root, rights, space)
        self._cache = cache

    def cached(self) -> Lake:
        """The same tables for one command: a stored column is read once, but for vectors."""
        return Lake(self.root, self.rights, self.space, cache=ColumnCache())

    def in_space(self, space: VectorSpace) -> Lake:
        """The same with the vectors of another space."""
        return Lake(self.root, self.rights, space, cache=self._cache)

    def parts(self, name: str) -> list[Path]:
        """The table's parts, oldest as-of time first.

        Raises:
            LakeError: the folder cannot be read.
        """
        folder = self.folder_of(name) / name
        try:
            return sorted(path for path in folder.iterdir() if path.suffix == ".parquet")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LakeError(files.unreadable(folder, error)) from error

    def append(self, name: str, table: pa.Table) -> Path | None:
        """Add rows as one new part; nothing is written for an empty table.

        Rows of ``created_timestamp`` not later than those that were added before are made later.

        Raises:
            LakeError: the folder cannot be written.
        """
        if table.num_rows == 0:
            return None
        self.claim()
        folder = self.folder_of(name) / name
        if not (folder / f"{part_name(table)}.parquet").exists():
            table = self._made_last(table)
        path = folder / f"{part_name(table)}.parquet"
        parquet.write_table(path, table)
        return path

    def _made_last(self, table: pa.Table) -> pa.Table:
        """Rows as made after all that are stored, whatever the clock said."""
        if _CREATED not in table.column_names:
            return table
        with alone(self.root / ".made.lock", "", tell=False):
            least = self.next_made()
            if pc.min(table[_CREATED]).as_py() < least:
                at = table.column_names.index(_CREATED)
                field = table.schema.field(at)
                made = pa.repeat(pa.scalar(least, field.type), table.num_rows)
                table = table.set_column(at, field, made)
            last = pc.max(table[_CREATED]).as_py()
            self.write_json("made", {"last": last.isoformat()})
        return table

    def next_made(self) -> datetime:
        """The earliest time at which rows can be made now: after all that are stored."""
        said = self.read_json("made")
        if said is not None:
            return datetime.fromisoformat(said["last"]) + _TICK
        tables = {path.parent.name for path in self.root.glob("*/*.parquet")}  # of before
        return (self.last(_CREATED, *tables) or _EPOCH) + _TICK

    def last(self, column: str, *tables: str) -> datetime | None:
        """The latest time in a column of some tables, by the ends of files; None without rows.

        Raises:
            LakeError: a part is damaged.
        """
        found = [last_time(path, column) for name in tables for path in self.parts(name)]
        return max((time for time in found if time is not None), default=None)

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
        """All rows of a table, cast to ``schema``; no other column is read.

        Columns that a part lacks are null.

        Raises:
            LakeError: a part is damaged or holds another table.
        """
        return self.read_parts(self.parts(name), schema)

    def read_parts(self, parts: Iterable[Path], schema: pa.Schema) -> pa.Table:
        """All rows of some parts, as :meth:`read`."""
        tables = [read_part(path, schema, self._cache) for path in parts]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def conform(self, name: str, schema: pa.Schema) -> int:
        """Bring parts of an older schema to this one, so that readers of the folder see one.

        A part is replaced in one step by one with the same rows and the new columns null.

        Returns:
            How many parts were rewritten.
        """
        old = [path for path in self.parts(name) if not conforms(path, schema)]
        for path in old:
            self.claim()
            parquet.write_table(path, read_part(path, schema))
        return len(old)

    def size(self, name: str) -> tuple[int, int, int]:
        """Parts, rows and bytes of a table.

        Raises:
            LakeError: a part is damaged; all such faults together.
        """
        rows, parts = 0, self.parts(name)
        faults: list[Problem] = []
        for path in parts:
            try:
                with parquet.opened(path, RUN) as file:
                    rows += file.metadata.num_rows
            except LakeError as error:
                faults += error.problems
        if faults:
            raise LakeError(faults)
        return len(parts), rows, sum(path.stat().st_size for path in parts)

    def ids(self, name: str) -> pa.Array:
        """Distinct values of a table's first column, as text; no other column is read.

        Raises:
            LakeError: a part is damaged.
        """
        parts = (first_columns(path, None, self._cache).column(0) for path in self.parts(name))
        return pa.chunked_array(
            [part.unique().cast(pa.string()) for part in parts], pa.string()
        ).unique()

    def remove(self, name: str, gone: Mask, columns: Sequence[str] | None = None) -> int:
        """Remove rows for good; each part that has some is replaced in one step.

        A killed removal left some parts as they were; done again, it removes the rest. The last
        part stays, without rows if need be, so that there is a table to read.

        Args:
            name: of the table.
            gone: which rows go, bool ``[n]`` of a part's n rows.
            columns: what ``gone`` is shown of a part; by default the first column, an entity's key.

        Returns:
            How many rows went.

        Raises:
            LakeError: a part is damaged, or the folder cannot be written.
        """
        count = 0
        for path in self.parts(name):
            which = gone(first_columns(path, columns))
            if going := pc.sum(which).as_py():
                stays = parquet.read_table(path, RUN).filter(pc.invert(which))
                self._replace_part(path, stays)
                count += going
        return count

    def rewrite(self, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace each part by what ``change`` makes of it, if that is another table.

        Raises:
            LakeError: a part is damaged, or the folder cannot be written.
        """
        for path in self.parts(name):
            before = parquet.read_table(path, RUN)
            if not (after := change(before)).equals(before):
                self._replace_part(path, after)

    def _replace_part(self, path: Path, rows: pa.Table) -> None:
        self.claim()
        if rows.num_rows or len(self.parts(path.parent.name)) == 1:
            self.claim()
            parquet.write_table(path, rows)
        else:
            path.unlink(missing_ok=True)

    def snapshot(
        self, name: str, schema: pa.Schema, keys: Sequence[str], as_of: datetime | None = None
    ) -> pa.Table:
        """The newest row of each key up to ``as_of``: by as-of time, then by time of making."""
        table = self.read(name, schema)
        if as_of is not None:
            table = table.filter(pc.field("event_timestamp") <= pa.scalar(as_of))
        return newest(table, keys)
