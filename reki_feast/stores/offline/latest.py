"""SQL of what goes online: the last row of each key, or all rows of a range."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from .changes import NewRows
from .entities import instant
from .query import name
from .sources import FILE_ROWS, Source, missing_columns


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


#: Keys that stand beside each other, and are drawn together.
_NEIGHBOURS = 8


@dataclass(frozen=True)
class KeySample:
    """Some keys, the same ones each time; none with a null.

    They are drawn as groups of neighbours: rows of neighbouring keys mostly stand together, so that
    few row groups of a Parquet file are read.

    Attributes:
        size: how many.
        seed: draws others.
    """

    size: int
    seed: int = 0

    @property
    def setup(self) -> str:
        """The statement that has DuckDB skip row groups without the keys, however many there are.

        By default it compares up to 50 keys with a row group's least and greatest.
        """
        return f"SET dynamic_or_filter_threshold = {self.size}"

    def drawn(self, asked: SourceColumns, source: Source, where: str) -> str:
        """The SELECT of the keys."""
        keys = ", ".join(name(key) for key in asked.keys)
        every = f"SELECT DISTINCT {keys} FROM {source.relation}{where}"
        group = f"(row_number() OVER (ORDER BY {keys}) - 1) // {_NEIGHBOURS}"
        near = name("group of neighbours")  # no name that a key may have
        order = f"ORDER BY hash({near}, {self.seed}), {near}, {keys} LIMIT {self.size}"
        return f"SELECT {keys} FROM (SELECT {keys}, {group} AS {near} FROM ({every})) {order}"


def all_rows(
    asked: SourceColumns, source: Source, start: datetime | None, end: datetime | None
) -> str:
    """The SELECT of all rows from `start` to `end`, both included."""
    shown = ", ".join(name(column) for column in asked.columns)
    return f"SELECT {shown} FROM {source.scan}{_where(asked, start, end)}"


def latest_rows(
    asked: SourceColumns,
    source: Source,
    start: datetime,
    end: datetime,
    changes: NewRows | None = None,
    sample: KeySample | None = None,
) -> str:
    """The SELECT of each key's last row: by event time, then created time (null at last).

    Winners are found by times and row numbers; only their wide columns are fetched.

    Args:
        asked: columns.
        source: numbers its rows.
        start: event time of the first rows.
        end: event time of the last rows.
        changes: leave out the last rows that are not among these.
        sample: only of some keys.
    """
    order = [f"{name(asked.time)}::TIMESTAMPTZ"]
    if asked.created:
        order += [f"{name(asked.created)} IS NOT NULL", name(asked.created)]
    order.append(source.row)
    row = f"w[{len(order)}]"
    touched, among, which, drawn = "", "", "", ""
    if changes is not None:
        touched = f" WHERE {source.in_files(changes.touched)}"
        among = _semi_join(asked, source, changes, end)
        which = f" WHERE w[1] > {instant(changes.after)} OR {_numbered(changes.files, row)}"
    keys, where = ", ".join(name(key) for key in asked.keys), _where(asked, start, end)
    if sample and keys:
        drawn = f"WITH drawn AS MATERIALIZED ({sample.drawn(asked, source, where)})\n"
        among = touched = f" SEMI JOIN drawn USING ({keys})"
    grouped = f" GROUP BY {keys}" if keys else ""
    last = f"SELECT max(({', '.join(order)})) AS w FROM {source.relation} t{among}{where}{grouped}"
    rows = ", ".join(f"{name(column)} AS c{n}" for n, column in enumerate(asked.columns))
    shown = ", ".join(f"s.c{n} AS {name(column)}" for n, column in enumerate(asked.columns))
    return (
        f"{drawn}SELECT {shown}\n"
        f"FROM (SELECT {rows}, {source.row} AS r FROM {source.relation}{touched}) s"
        f"\nJOIN (SELECT {row} AS r FROM ({last}){which}) w ON s.r = w.r"
    )


def files_after(asked: SourceColumns, source: Source, after: datetime, end: datetime) -> str:
    """The SELECT of the numbers of files with rows later than a time."""
    late = f"{name(asked.time)}::TIMESTAMPTZ > {instant(after)}"
    where = _where(asked, None, end)
    return f"SELECT DISTINCT {source.file} FROM {source.relation}{where} AND {late}"


def _semi_join(asked: SourceColumns, source: Source, changes: NewRows, end: datetime) -> str:
    """Only rows of keys that have a new one; a null is a key, too."""
    keys = [name(key) for key in asked.keys]
    if not keys:
        return ""
    late = f"{name(asked.time)}::TIMESTAMPTZ > {instant(changes.after)}"
    new = (
        f"SELECT {', '.join(keys)} FROM {source.relation}{_where(asked, None, end)}"
        f" AND {source.in_files(changes.touched)} AND ({source.in_files(changes.files)} OR {late})"
    )
    same = " AND ".join(f"t.{key} IS NOT DISTINCT FROM n.{key}" for key in keys)
    return f" SEMI JOIN ({new}) n ON {same}"


def _numbered(files: Collection[int], row: str) -> str:
    """That a row's number is of one of some files."""
    listed = ", ".join(map(str, sorted(files)))
    return f"({row} // {FILE_ROWS}) IN ({listed})" if listed else "false"


def _where(asked: SourceColumns, start: datetime | None, end: datetime | None) -> str:
    at = f"{name(asked.time)}::TIMESTAMPTZ"
    bounds = [f"{at} >= {instant(start)}"] if start else []
    bounds += [f"{at} <= {instant(end)}"] if end else []
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""
