"""Rows of published tables: what is missing is added, what should not be there goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.knowledge import by_entity
from reki_feast.project import DeclaredProject
from reki_feast.schema import TIMESTAMP, Key
from reki_feast.tables.parts import newest

if TYPE_CHECKING:
    from reki_feast.models.text_match import Moments


@dataclass(frozen=True)
class ExpectedRows:
    """All rows of some entities that a table should have.

    Attributes:
        key: the table's join key.
        ids: ``[k]``, whose each row is.
        moments: ``[k]``, of what each row is made, and its time.
        hashes: ``[k]``, of all that makes each row.
        make: makes some of them.
    """

    key: Key
    ids: pa.Array | pa.ChunkedArray
    moments: Moments
    hashes: list[str] | pa.ChunkedArray
    make: Callable[[Moments], Iterator[pa.Table]]

    def bare(self) -> pa.Table:
        """Key, time and hash of each row, and its place."""
        times = pa.array(self.moments.time).cast(TIMESTAMP)
        hashes = self.hashes
        return pa.table(
            {
                self.key.name: self.ids.cast(self.key.type),
                "event_timestamp": times,
                "hash": pa.array(hashes, pa.string()) if isinstance(hashes, list) else hashes,
                "row": np.arange(len(self.moments)),
            }
        )


def write_wanted(
    project: DeclaredProject, table: str, key: Key, parts: Callable[[], Iterator[ExpectedRows]]
) -> tuple[int, int]:
    """Add the rows that are not stored, or are otherwise; give their number and how many are new.

    Where the table has rows that are not wanted, as after a training with other cuts, all are
    written anew: a join would take them for newer than the wanted ones before them.

    Args:
        project: whose table it is.
        table: its name.
        key: its join key.
        parts: gives all wanted rows, those of an entity in one part.
    """
    unique = [key.name, "event_timestamp"]
    bare = pa.schema([field for field in schema.item_match(key) if field.name != "item_match"])
    stored = newest(project.lake.read(table, bare), unique)
    count = new = looked_at = 0
    for part in parts():
        asked = part.bare()
        owners = asked[key.name].unique()
        mine = stored.filter(pc.is_in(stored[key.name], value_set=owners))
        if _are_strange(mine, asked, unique):
            return _replaced(project, table, parts)
        fresh = by_entity.changed_rows(asked, mine, unique)["row"].to_numpy()
        for rows in part.make(part.moments.take(fresh)):
            project.lake.append(table, rows)
        count, new = count + asked.num_rows, new + len(fresh)
        looked_at += mine.num_rows
    if count and looked_at < stored.num_rows:  # of entities that are wanted no more
        return _replaced(project, table, parts)
    return count, new


def _replaced(
    project: DeclaredProject, table: str, parts: Callable[[], Iterator[ExpectedRows]]
) -> tuple[int, int]:
    count = 0

    def every() -> Iterator[pa.Table]:
        nonlocal count
        for part in parts():
            count += len(part.moments)
            yield from part.make(part.moments)

    project.lake.replace(table, every())
    return count, count


def _are_strange(stored: pa.Table, asked: pa.Table, unique: list[str]) -> bool:
    """Whether a stored row is of an id and time that no wanted one has."""
    had, wants = (
        table.select(unique).append_column("hash", pa.array([""] * table.num_rows, pa.string()))
        for table in (stored, asked)
    )
    return bool(wants.num_rows and by_entity.changed_rows(had, wants, unique).num_rows)
