"""Rules of the user's tables: every broken one as a problem, none raised here."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.declare import Scenario
from reki_feast.errors import Problem
from reki_feast.stores.exact import largest_inexact
from reki_feast.tables.asof import after

#: The column of verdicts in a query of interactions.
LIKED = "__liked"
#: And of whether a row is held out for the test.
HELD_OUT = "__held_out"


def entity_faults(name: str, table: pa.Table | None, key: str, further: list[str]) -> list[Problem]:
    """A table of users or of items: its columns, rows and ids."""
    if table is None:
        return []
    faults = column_faults(name, table, [key, *further]) + empty_faults(name, table.num_rows)
    if key in table.column_names:
        faults += id_faults(name, table[key], key)
        faults += _duplicate_faults(name, table[key], key)
    return faults


def empty_faults(name: str, rows: int) -> list[Problem]:
    """A table without rows."""
    rule = f"{name}: has at least one row"
    return [] if rows else [Problem(rule, "an empty table", "see the query")]


def column_faults(name: str, table: pa.Table, wanted: list[str]) -> list[Problem]:
    """Columns that a table lacks."""
    missing = [column for column in wanted if column not in table.column_names]
    has = ", ".join(c for c in table.column_names if c not in (LIKED, HELD_OUT))
    return [
        Problem(f"{name}: has a column {column}", has, f"select … as {column} in the {name} query")
        for column in missing
    ]


def id_faults(name: str, column: pa.ChunkedArray, key: str) -> list[Problem]:
    """Ids that are null, or neither integers nor text."""
    faults = []
    if id_type(column.type) is None:
        found, hint = _no_ids(column, key)
        faults.append(Problem(f"{name}.{key}: ids are integers or text", found, hint))
    elif pa.types.is_uint64(column.type) and (pc.max(column).as_py() or 0) >= 1 << 63:
        hint = f"select {key}::varchar as {key} …, in every query that has it"
        rule = f"{name}.{key}: whole numbers fit 64 bits with a sign"
        faults.append(Problem(rule, f"up to {pc.max(column).as_py()}", hint))
    if column.null_count:
        rule, hint = f"{name}.{key}: no id is null", f"add «where {key} is not null»"
        faults.append(Problem(rule, f"{column.null_count} rows with null", hint))
    return faults


def _no_ids(column: pa.ChunkedArray, key: str) -> tuple[str, str]:
    """What a column of another type holds, and what makes ids of it."""
    kind = column.type
    if (largest := largest_inexact(column)) is not None:
        hint = f"select {key}::bigint as {key} … before it becomes a float (in pandas, Int64)"
        return f"{kind} up to {largest:.0f}, of digits that a float does not keep", hint
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
        numbers = numbers.filter(pc.fill_null(pc.is_finite(numbers), False))
        whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**63))
        if pc.all(whole, min_count=0).as_py():
            return str(kind), f"select {key}::bigint as {key} …"
    return str(kind), f"select {key}::varchar as {key} …"


def _duplicate_faults(name: str, column: pa.ChunkedArray, key: str) -> list[Problem]:
    counts = column.drop_null().value_counts()
    many = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(many) == 0:
        return []
    some = ", ".join(repr(row["values"].as_py()) for row in many[:3])
    hint = f"keep one row an id: «qualify row_number() over (partition by {key}) = 1»"
    return [Problem(f"{name}.{key}: each id once", f"{len(many)} ids repeat, e.g. {some}", hint)]


def template_faults(
    what: str, template: str | None, table: pa.Table | None, source: str
) -> list[Problem]:
    """Columns that a Jinja text names must be there before anything is paid for."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    if template is None:
        return []
    rule = f"Scenario.{what}: is a Jinja text over {source} columns"
    try:
        named = meta.find_undeclared_variables(Environment(autoescape=False).parse(template))
    except TemplateSyntaxError as error:
        return [Problem(rule, f"{error.message} in {template!r}", "see the Jinja syntax")]
    if table is None:
        hint = f"give Sources.{source}, or leave {what} out"
        return [Problem(rule, f"no {source} table", hint)] if source == "users" else []
    missing = sorted(named - set(table.column_names))
    return [
        Problem(
            rule, f"no column {name}; there are: {', '.join(table.column_names)}", f"mend {what}"
        )
        for name in missing
    ]


def interaction_faults(raw: pa.Table | None, scenario: Scenario) -> list[Problem]:
    """The interactions: columns, rows, ids, ratings, times."""
    if raw is None:
        return []
    wanted = [scenario.user_key, scenario.item_key, *([scenario.rating] if scenario.rating else [])]
    faults = column_faults("interactions", raw, wanted)
    faults += empty_faults("interactions", raw.num_rows)
    for key in (scenario.user_key, scenario.item_key):
        if key in raw.column_names:
            faults += id_faults("interactions", raw[key], key)
    return faults + _rating_faults(raw, scenario) + _time_faults(raw)


def _rating_faults(raw: pa.Table, scenario: Scenario) -> list[Problem]:
    if scenario.rating not in raw.column_names:
        return []
    kind = raw[scenario.rating].type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return []
    rule = f"interactions.{scenario.rating}: a rating is a number"
    return [Problem(rule, str(kind), "cast it, or leave Scenario.rating out")]


def _time_faults(raw: pa.Table) -> list[Problem]:
    names = raw.column_names
    if "event_timestamp" not in names and "position" not in names:
        rule = "interactions: say when: event_timestamp, or position within the user's history"
        has = ", ".join(c for c in names if c not in (LIKED, HELD_OUT))
        return [Problem(rule, has, "select … as event_timestamp in the interactions query")]
    name = "event_timestamp" if "event_timestamp" in names else "position"
    column = raw[name]
    faults = []
    is_right = _is_time if name == "event_timestamp" else pa.types.is_integer
    if not is_right(column.type):
        what = "a timestamp or date" if name == "event_timestamp" else "an integer"
        hint = f"cast it in the interactions query: {name}::timestamptz, to_timestamp({name}) …"
        faults.append(Problem(f"interactions.{name}: is {what}", str(column.type), hint))
    elif not _is_datable(column):
        rule = f"interactions.{name}: times lie in the years 1 to 9999"
        faults.append(Problem(rule, "infinity, or a time beyond", f"add «where isfinite({name})»"))
    if column.null_count:
        rule, hint = f"interactions.{name}: no time is null", f"add «where {name} is not null»"
        faults.append(Problem(rule, f"{column.null_count} rows with null", hint))
    return faults


def _is_datable(column: pa.ChunkedArray) -> bool:
    try:
        last = pc.min_max(column).as_py()["max"]
        if isinstance(last, datetime):
            after(last)
    except (OverflowError, ValueError):
        return False
    return True


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def key_faults(
    scenario: Scenario, items: pa.Table | None, users: pa.Table | None, raw: pa.Table | None
) -> list[Problem]:
    """An id must have one type in every table, or joins would find nothing."""
    faults = []
    for key, name, table in (
        (scenario.item_key, "items", items),
        (scenario.user_key, "users", users),
    ):
        if (
            table is None
            or raw is None
            or not {key} <= set(table.column_names) & set(raw.column_names)
        ):
            continue
        here, there = id_type(table[key].type), id_type(raw[key].type)
        if here is not None and there is not None and here != there:
            rule = f"{key}: has one type in {name} and interactions"
            faults.append(
                Problem(rule, f"{here} and {there}", f"cast one: {key}::varchar as {key}")
            )
    return faults


def id_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that ids are stored in, int64 or string; None for what cannot be an id."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.string() if text or pa.types.is_string_view(kind) else None
