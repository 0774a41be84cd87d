"""Rows of published tables: what is missing is added, what should not be there goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from reki_feast import schema
from reki_feast.knowledge import by_entity as known
from reki_feast.project import DeclaredProject
from reki_feast.schema import TIMESTAMP, Key
from reki_feast.tables.parts import newest

if TYPE_CHECKING:
    from reki_feast.models.text_match import Moments


@dataclass(frozen=True)
class ExpectedRows:
    """All rows that a table should have.

    Attributes:
        key: the table's join key.
        ids: ``[k]``, whose each row is.
        moments: ``[k]``, of what each row is made, and its time.
        hashes: ``[k]``, of all that makes each row.
    """

    key: Key
    ids: pa.Array | pa.ChunkedArray
    moments: Moments
    hashes: list[str]


def write_wanted(
    project: DeclaredProject,
    table: str,
    wanted: ExpectedRows,
    rows: Callable[[Moments], Iterator[pa.Table]],
) -> tuple[int, int]:
    """Add the rows that are not stored, or are otherwise; give their number and how many are new.

    Where the table has rows that are not wanted, as after a training with other cuts, all are
    written anew: a join would take them for newer than the wanted ones before them.

    Args:
        project: whose table it is.
        table: its name.
        wanted: all rows.
        rows: makes some of them.
    """
    key, unique = wanted.key, [wanted.key.name, "event_timestamp"]
    asked = pa.table(
        {
            key.name: wanted.ids.cast(key.type),
            "event_timestamp": pa.array(wanted.moments.time).cast(TIMESTAMP),
            "hash": pa.array(wanted.hashes, pa.string()),
            "row": np.arange(len(wanted.moments)),
        }
    )
    bare = pa.schema([field for field in schema.item_match(key) if field.name != "item_match"])
    stored = newest(project.lake.read(table, bare), unique)
    if _are_strange(stored, asked, unique):
        project.lake.replace(table, rows(wanted.moments))
        return asked.num_rows, asked.num_rows
    fresh = known.changed_rows(asked, stored, unique)["row"].to_numpy()
    for part in rows(wanted.moments.take(fresh)):
        project.lake.append(table, part)
    return asked.num_rows, len(fresh)


def _are_strange(stored: pa.Table, asked: pa.Table, unique: list[str]) -> bool:
    """Whether a stored row is of an id and time that no wanted one has."""
    had, wants = (
        table.select(unique).append_column("hash", pa.array([""] * table.num_rows, pa.string()))
        for table in (stored, asked)
    )
    return bool(wants.num_rows and known.changed_rows(had, wants, unique).num_rows)
