"""SQL of what goes online: the last row of each key, or all rows of a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .entities import instant
from .query import name
from .sources import Source, missing_columns


@dataclass(frozen=True)
class SourceColumns:
    """Columns of a source, by the source's own names.

    Attributes:
        keys: columns that tell its rows apart.
        features: the columns of the features.
        time: column of event times.
        created: column of created times, or None.
    """

    keys: Sequence[str]
    features: Sequence[str]
    time: str
    created: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is asked for, each once."""
        times = [self.time, *([self.created] if self.created else [])]
        return tuple(dict.fromkeys([*self.keys, *self.features, *times]))

    def checked(self, source: Source, path: str) -> Source:
        """The source, if it has the columns.

        Raises:
            StoreError: one is missing.
        """
        lacking = [column for column in self.columns if column not in source.types]
        if lacking:
            raise missing_columns(f"Source {path}", lacking, source.types)
        return source


def all_rows(
    asked: SourceColumns, source: Source, start: datetime | None, end: datetime | None
) -> str:
    """The SELECT of all rows from `start` to `end`, both included."""
    shown = ", ".join(name(column) for column in asked.columns)
    return f"SELECT {shown} FROM {source.scan}{_where(asked, start, end)}"


def latest_rows(asked: SourceColumns, source: Source, start: datetime, end: datetime) -> str:
    """The SELECT of each key's last row: by event time, then created time (null at last).

    Winners are found by times and row numbers; only their wide columns are fetched.
    """
    order = [f"{name(asked.time)}::TIMESTAMPTZ"]
    if asked.created:
        order += [f"{name(asked.created)} IS NOT NULL", name(asked.created)]
    order.append(source.row)
    keys = ", ".join(name(key) for key in asked.keys)
    winners = (
        f"SELECT max(({', '.join(order)}))[{len(order)}] AS r FROM {source.relation}"
        f"{_where(asked, start, end)}" + (f" GROUP BY {keys}" if keys else "")
    )
    rows = ", ".join(f"{name(column)} AS c{n}" for n, column in enumerate(asked.columns))
    shown = ", ".join(f"s.c{n} AS {name(column)}" for n, column in enumerate(asked.columns))
    return (
        f"SELECT {shown}\nFROM (SELECT {rows}, {source.row} AS r FROM {source.relation}) s\n"
        f"JOIN ({winners}) w ON s.r = w.r"
    )


def _where(asked: SourceColumns, start: datetime | None, end: datetime | None) -> str:
    at = f"{name(asked.time)}::TIMESTAMPTZ"
    bounds = [f"{at} >= {instant(start)}"] if start else []
    bounds += [f"{at} <= {instant(end)}"] if end else []
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""
