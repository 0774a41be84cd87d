"""The user's interactions: judged by the scenario's rule, in one form, in the order of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.declare import Scenario
from reki_feast.errors import SourceError
from reki_feast.schema import TIMESTAMP, Key
from reki_feast.tables.checks import HELD_OUT, LIKED

#: The column of interactions that names the domain, where they are what names it.
DOMAIN = "reki_domain"


def with_verdicts(scenario: Scenario, sql: str, columns: pa.Schema) -> str:
    """A query of these columns, and whether each row is liked, and held out where a rule says so.

    NaN says nothing, so it is null. In SQL it is more than any number: unrated would be liked.
    """
    for name in (LIKED, HELD_OUT):
        if name in columns.names:
            hint = "select it by another name in the interactions query"
            raise SourceError(f"no column is named {name}", detail="one is", hint=hint)
    floats = [f'"{f.name.replace(chr(34), chr(34) * 2)}"' for f in columns if _is_float(f.type)]
    numbers = ", ".join(f"if(isnan({name}), null, {name}) as {name}" for name in floats)
    rows = f"select * replace ({numbers}) from ({sql}\n)" if floats else sql
    verdicts = f"({scenario.liked})::boolean as {LIKED}"
    if scenario.held_out:
        verdicts += f", coalesce(({scenario.held_out})::boolean, false) as {HELD_OUT}"
    return f"select t.*, {verdicts} from ({rows}\n) t"


def wrong_rule(scenario: Scenario, columns: pa.Schema, error: SourceError) -> SourceError:
    """The error of a rule that DuckDB cannot evaluate."""
    rule = f"Scenario.liked is a rule DuckDB can judge a row by: {scenario.liked}"
    if scenario.held_out:
        rule += f"; and so is Scenario.held_out: {scenario.held_out}"
    return SourceError(
        rule,
        detail=error.problems[0].detail.split(" LINE ")[0],
        hint=f"mend it; columns are {', '.join(columns.names)}",
    )


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind))


def in_order(scenario: Scenario, raw: pa.Table, user: Key, item: Key) -> tuple[pa.Table, list[str]]:
    """The columns that are used, in their types, sorted by user and time; notices."""
    columns = {
        user.name: raw[user.name].cast(user.type),
        item.name: raw[item.name].cast(item.type),
    }
    notices = []
    if scenario.rating:
        columns["rating"] = raw[scenario.rating].cast(pa.float64())
    if "event_timestamp" in raw.column_names:
        time, notice = _utc(raw["event_timestamp"])
        columns["event_timestamp"] = time
        notices += notice
    else:
        columns["position"] = raw["position"].cast(pa.int64())
    columns["liked"] = raw[LIKED]
    if HELD_OUT in raw.column_names:
        columns["held_out"] = raw[HELD_OUT]
    if DOMAIN in raw.column_names:
        columns[DOMAIN] = raw[DOMAIN].cast(pa.string())
    table = pa.table(columns)
    if undecided := table["liked"].null_count:
        notices.append(f"{undecided} interactions left out: «{scenario.liked}» is null for them")
        table = table.filter(table["liked"].is_valid())
    return _ordered(table, user, item), notices


def apart(
    scenario: Scenario, interactions: pa.Table
) -> tuple[pa.Table, pa.Table | None, list[str]]:
    """The rows that may be learnt from, those that are held out, and a notice that counts these.

    Args:
        scenario: whose rule holds rows out.
        interactions: with a column ``held_out`` where there is a rule.

    Returns:
        The rows without that column; None for the second where there is no rule.
    """
    if "held_out" not in interactions.column_names:
        return interactions, None, []
    held = interactions["held_out"]
    rows = interactions.drop_columns(["held_out"])
    kept, tested = rows.filter(pc.invert(held)), rows.filter(held)
    notice = f"{tested.num_rows} interactions held out for the test: «{scenario.held_out}»"
    return kept, tested, [notice] if tested.num_rows else []


def up_to_now(
    interactions: pa.Table, ahead: timedelta = timedelta(0)
) -> tuple[pa.Table, list[str]]:
    """The interactions without those of the future, and a notice that counts and names these.

    One order of a wrong year would be the last interaction, which snapshots are made after.

    Args:
        interactions: in the form of :class:`Inputs`; without times they are given back.
        ahead: how far a clock may be fast.
    """
    if "event_timestamp" not in interactions.column_names:
        return interactions, []
    now = pa.scalar(datetime.now(UTC) + ahead, TIMESTAMP)
    late = pc.greater(interactions["event_timestamp"], now)
    rows = interactions.filter(late)
    if not rows.num_rows:
        return interactions, []
    user, time = rows.column(0), rows["event_timestamp"]
    last = pc.max(time).as_py()
    whose = user.filter(pc.equal(time, pc.max(time)))[0].as_py()
    notice = (
        f"{rows.num_rows} interactions left out: they lie in the future, the last at "
        f"{last:%Y-%m-%d %H:%M} UTC ({rows.column_names[0]} {whose!r})"
    )
    return interactions.filter(pc.invert(late)), [notice]


def _utc(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str]]:
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(TIMESTAMP, safe=False), []
    naive = column.cast(pa.timestamp("us"), safe=False)
    notice = "event_timestamp has no time zone: read as UTC"
    return pc.assume_timezone(naive, "UTC").cast(TIMESTAMP), [notice]


def _ordered(table: pa.Table, user: Key, item: Key) -> pa.Table:
    """Sort by user and time, ties by item, and number the rows."""
    time = "event_timestamp" if "event_timestamp" in table.column_names else "position"
    table = table.sort_by([(name, "ascending") for name in (user.name, time, item.name)])
    table = table.append_column("order", pa.array(np.arange(table.num_rows, dtype=np.int64)))
    return table.drop_columns(["position"]) if time == "position" else table


def of_known_items(
    interactions: pa.Table, ids: pa.ChunkedArray, item: Key
) -> tuple[pa.Table, list[str]]:
    """The interactions with items of the catalogue, and a notice that counts the others."""
    known = pc.is_in(interactions[item.name], value_set=ids.combine_chunks())
    strangers = interactions.num_rows - pc.sum(known).as_py() if interactions.num_rows else 0
    if not strangers:
        return interactions, []
    notice = f"{strangers} interactions left out: their {item.name} is not in the items source"
    return interactions.filter(known), [notice]
