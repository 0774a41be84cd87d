"""SQL of point-in-time joins.

The join by time runs over keys, times and row numbers only; the wide columns are fetched by row
number afterwards. So vectors are not sorted, and each is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from reki_feast.errors import StoreError

from .entities import Entities, instant
from .query import name
from .sources import Source

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class JoinFeature:
    """A column to fetch: its name in the source and in the result, and its default."""

    column: str
    output: str
    default: tuple[float, ...] | None = None

    def sql(self, found: str) -> str:
        """SQL of the value; a default is exact to the bit.

        As text: DuckDB reads a number literal as a decimal first, and a decimal rounds.
        """
        if self.default is None:
            return found
        return f"coalesce({found}, '{list(self.default)}'::FLOAT[])"


@dataclass(frozen=True)
class ViewJoin:
    """A feature view to join.

    Attributes:
        source: its table.
        keys: columns of the entity rows (as :meth:`Entities.column` names them) and of the table.
        time: the table's column of event times.
        created: its column of created times, or None.
        ttl: age at which a row is no longer used; None for never.
        features: what to fetch.
    """

    source: Source
    keys: tuple[tuple[str, str], ...]
    time: str
    created: str | None
    ttl: timedelta | None
    features: tuple[JoinFeature, ...]


def historical(entities: Entities, views: Sequence[ViewJoin], created_by_then: bool) -> str:
    """The SELECT that joins views to entity rows.

    Args:
        entities: the rows; each is in the result once.
        views: what to join.
        created_by_then: only rows that were created before the entity row's time.
    """
    rows = f"SELECT *, {entities.at} AS t FROM {entities.relation}"
    for n, view in enumerate(views):
        late = created_by_then and view.created is not None
        step = _created_by_then if late else _asof
        rows = step(rows, view, n, _bounds(entities, view))
    selected = [f"w.c{n} AS {name(column)}" for n, column in enumerate(entities.columns)]
    joins = []
    for n, view in enumerate(views):
        selected += [
            f"{f.sql(f's{n}.f{m}')} AS {name(f.output)}" for m, f in enumerate(view.features)
        ]
        joins.append(f"LEFT JOIN ({_wide(view)}) s{n} ON s{n}.r = w.r{n}")
    return "\n".join([f"SELECT {', '.join(selected)}", f"FROM ({rows}) w", *joins])


def result_columns(entities: Entities, views: Sequence[ViewJoin]) -> tuple[str, ...]:
    """Names of the columns of :func:`historical`.

    Raises:
        StoreError: two have one name.
    """
    features = [feature.output for view in views for feature in view.features]
    names = (*entities.columns, *features)
    check_distinct(names)
    return names


def check_distinct(names: Sequence[str]) -> None:
    """See that no two columns have one name.

    Raises:
        StoreError: two have.
    """
    twice = [column for column in dict.fromkeys(names) if names.count(column) > 1]
    if twice:
        raise StoreError(
            "Columns of the result have different names",
            detail=f"twice: {', '.join(twice)}",
            hint="pass full_feature_names=True, or rename the column of the entity rows",
        )


def _asof(rows: str, view: ViewJoin, n: int, bounds: Sequence[str]) -> str:
    """Entity rows with the number of the row in force, as r<n>."""
    on = [f"e.{key} = f.k{m}" for m, (key, _) in enumerate(view.keys)]
    on.append("e.t >= f.t")
    # DuckDB's ASOF takes no time at all for the latest of times; of a match nothing later is in
    # force, so where it has expired, all have.
    valid = f"e.t >= f.t{_unexpired(view, 'e')}"
    row = f"CASE WHEN {valid} THEN f.r END"
    return (
        f"SELECT e.*, {row} AS r{n}\n"
        f"FROM ({rows}) e\nASOF LEFT JOIN ({_without_ties(view, bounds)}) f\n"
        f"  ON {' AND '.join(on)}"
    )


def _created_by_then(rows: str, view: ViewJoin, n: int, bounds: Sequence[str]) -> str:
    """The same, of rows created by then: two conditions on times are more than ASOF takes."""
    keys = [f"k{m}" for m in range(len(view.keys))]
    named = [f"{key} AS k{m}" for m, (key, _) in enumerate(view.keys)]
    asked = f"SELECT DISTINCT {', '.join([*named, 't'])} FROM e{n}"
    on = [*(f"d.{k} = f.{k}" for k in keys), f"f.t <= d.t AND f.c <= d.t{_unexpired(view, 'd')}"]
    group = ", ".join([*(f"d.{k}" for k in keys), "d.t"])
    best = (
        f"SELECT {group}, max((f.t, f.c, f.r))[3] AS r\n"
        f"FROM ({asked}) d JOIN ({_narrow(view, bounds)}) f ON {' AND '.join(on)}\n"
        f"GROUP BY {group}"
    )
    back = [*(f"e.{key} = b.k{m}" for m, (key, _) in enumerate(view.keys)), "e.t = b.t"]
    return (
        f"WITH e{n} AS MATERIALIZED ({rows})\n"
        f"SELECT e.*, b.r AS r{n}\nFROM e{n} e LEFT JOIN ({best}) b ON {' AND '.join(back)}"
    )


def _unexpired(view: ViewJoin, rows: str) -> str:
    """That the view's row f is young enough for an entity row."""
    if not view.ttl:
        return ""
    return f" AND epoch_us({rows}.t) - epoch_us(f.t) <= {view.ttl // _MICROSECOND}"


def _narrow(view: ViewJoin, bounds: Sequence[str] = ()) -> str:
    """Keys k0, k1, …, time t, created time c and row number r of all rows that may match."""
    columns = [f"{name(column)} AS k{m}" for m, (_, column) in enumerate(view.keys)]
    at = f"{name(view.time)}::TIMESTAMPTZ"
    columns.append(f"{at} AS t")
    if view.created:
        columns.append(f"{name(view.created)}::TIMESTAMPTZ AS c")
    not_null = [f"{name(column)} IS NOT NULL" for _, column in view.keys]
    where = " AND ".join([*not_null, f"{at} IS NOT NULL", *(f"{at} {bound}" for bound in bounds)])
    return (
        f"SELECT {', '.join(columns)}, {view.source.row} AS r "
        f"FROM {view.source.relation} WHERE {where}"
    )


def _without_ties(view: ViewJoin, bounds: Sequence[str]) -> str:
    """Of rows of one key and time the one created last (null at last), or else the last row.

    So goes online as well, and two joins of the same rows find the same. Time and row as one
    number of 128 bits, which DuckDB compares in half the time that two take.
    """
    group = ", ".join([*(f"k{m}" for m in range(len(view.keys))), "t"])
    created = f"coalesce(epoch_us(c), {-(2**63) + 1})"
    both = f"max({created}::HUGEINT * {2**64} + r) & {2**64 - 1}::HUGEINT"
    last = f"({both})::BIGINT" if view.created else "max(r)"
    return f"SELECT {group}, {last} AS r FROM ({_narrow(view, bounds)}) GROUP BY {group}"


def _bounds(entities: Entities, view: ViewJoin) -> list[str]:
    """What no entity row asks for need not be read."""
    if entities.span is None or None in entities.span:
        return []
    first, last = entities.span
    assert first is not None
    assert last is not None
    bounds = [f"<= {instant(last)}"]
    try:
        return [*bounds, f">= {instant(first - view.ttl)}"] if view.ttl else bounds
    except OverflowError:  # older than any calendar
        return bounds


def _wide(view: ViewJoin) -> str:
    columns = [f"{name(feature.column)} AS f{m}" for m, feature in enumerate(view.features)]
    return f"SELECT {', '.join([f'{view.source.row} AS r', *columns])} FROM {view.source.relation}"
