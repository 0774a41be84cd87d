"""The user's own tables, checked and brought into one form.

Every fault of all three tables is reported together. What can be mended without guessing is
mended and said in a notice: times without zone are UTC, interactions with items the catalogue
lacks are left out.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import lake
from reki_feast.errors import CondenseError, Fault, SourceError
from reki_feast.given import ROWS, Given, Source
from reki_feast.scenario import Declarations, Scenario
from reki_feast.schema import TIMESTAMP, Key, Kind, blurred

LIKED = "__liked"
_IN_THE_QUERY = "in the interactions query", "in what is given"
#: Share of the interactions that a snapshot must not know for HEIN to be trained on it.
SAMPLES_AFTER = 0.25
#: The step of time. What is made as of a time knows only what happened before it, so that a row of
#: a training table never meets its own label: a snapshot that is to know an interaction is as of
#: one tick later.
TICK = timedelta(microseconds=1)


def after(time: datetime) -> datetime:
    """The first as-of time that knows what happened at a time."""
    return time + TICK


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Checked tables.

    Attributes:
        items: the item key (unique), the title, further columns.
        users: the user key (unique) and profile columns; None without a users source.
        interactions: user key, item key, ``rating`` (float64, where the scenario names one),
            ``liked`` bool, ``event_timestamp`` (where known), ``order`` int64 rising with time
            within a user. Sorted by user, then order.
        notices: what was mended, as sentences.
    """

    user: Key
    item: Key
    items: pa.Table
    users: pa.Table | None
    interactions: pa.Table
    notices: tuple[str, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether interactions carry times, so that an as-of time can be honoured."""
        return "event_timestamp" in self.interactions.column_names


def read(declared: Declarations, root: Path) -> Inputs:
    """Run the sources and check what they give.

    Raises:
        SourceError: with the faults of all tables together; of the setup alone where that fails,
            since nothing else can be said then.
    """
    tables: dict[str, pa.Table] = {}
    faults: list[Fault] = []
    with contextlib.closing(lake.Session(root, declared.sources.setup)) as session:
        session.open()
        for name, source in _sources(declared).items():
            try:
                given = Given(source, session, root)
                sql = _with_verdicts(declared, given) if name == "interactions" else None
                tables[name] = given.read(sql)
            except SourceError as error:
                faults += [_named(name, fault) for fault in error.faults]
    return check(declared.scenario, tables, faults)


def named(declared: Declarations, root: Path) -> dict[Kind, set[str]]:
    """Ids, as text, that the tables name.

    Users are those of the users and of the interactions, whatever the items of these; items those
    of the items alone, since nothing is known of another one.

    Raises:
        SourceError: a query fails, or gives no ids; all faults together.
    """
    keys: dict[Kind, str] = {
        "user": declared.scenario.user_key,
        "item": declared.scenario.item_key,
    }
    tables: dict[str, Kind] = {"items": "item", "interactions": "user", "users": "user"}
    found: dict[Kind, set[str]] = {"user": set(), "item": set()}
    faults: list[Fault] = []
    with contextlib.closing(lake.Session(root, declared.sources.setup)) as session:
        session.open()
        for name, source in _sources(declared).items():
            key = keys[tables[name]]
            try:
                given, quoted = Given(source, session, root), key.replace('"', '""')
                ids = given.read(f'select distinct "{quoted}" from ({given.sql}\n)').column(0)
            except SourceError as error:
                faults += [_named(name, fault) for fault in error.faults]
                continue
            faults += (wrong := _id_faults(name, ids, key) or _empty_faults(name, len(ids)))
            found[tables[name]].update([] if wrong else map(str, ids.to_pylist()))
    if faults:
        raise SourceError(faults)
    return found


def id_texts(name: str, ids: pa.ChunkedArray, key: str) -> set[str]:
    """Ids as text.

    Args:
        name: of their table.
        ids: a column of it.
        key: the column's name.

    Raises:
        SourceError: they are neither integers nor text, or some are null.
    """
    if faults := _id_faults(name, ids, key):
        raise SourceError(faults)
    return set(map(str, ids.to_pylist()))


def _sources(declared: Declarations) -> dict[str, Source]:
    said = declared.sources
    found = {"items": said.items, "interactions": said.interactions}
    return found | ({"users": said.users} if said.users else {})


def _with_verdicts(declared: Declarations, given: Given) -> str:
    """The query of the interactions, and whether they are liked."""
    columns = given.columns
    judged = _verdicts(declared.scenario, given.sql, columns)
    try:
        given.dry(judged)
    except SourceError as error:
        raise _wrong_rule(declared.scenario, columns, error) from error
    return judged


def _verdicts(scenario: Scenario, sql: str, columns: pa.Schema) -> str:
    """A query of these columns, and whether each row is liked. NaN says nothing, so it is null.

    In SQL it is more than any number: unrated would be liked.
    """
    if LIKED in columns.names:
        mend = "select it by another name in the interactions query"
        raise SourceError(f"no column is named {LIKED}", found="one is", mend=mend)
    floats = [f'"{f.name.replace(chr(34), chr(34) * 2)}"' for f in columns if _is_float(f.type)]
    numbers = ", ".join(f"if(isnan({name}), null, {name}) as {name}" for name in floats)
    rows = f"select * replace ({numbers}) from ({sql}\n)" if floats else sql
    return f"select t.*, ({scenario.liked})::boolean as {LIKED} from ({rows}\n) t"


def _wrong_rule(scenario: Scenario, columns: pa.Schema, error: SourceError) -> SourceError:
    return SourceError(
        f"Scenario.liked is a rule DuckDB can judge a row by: {scenario.liked}",
        found=error.faults[0].found.split(" LINE ")[0],
        mend=f"mend it; columns are {', '.join(columns.names)}",
    )


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind))


def _named(name: str, fault: Fault) -> Fault:
    return Fault(f"{name}: {fault.rule}", fault.found, fault.mend)


def check(
    scenario: Scenario, tables: Mapping[str, pa.Table], faults: list[Fault] | None = None
) -> Inputs:
    """Check raw tables ``items``, ``interactions`` and perhaps ``users``; bring them into form.

    Raises:
        SourceError: with all faults together, ``faults`` found earlier among them.
    """
    faults = list(faults or [])
    items, users, raw = (tables.get(name) for name in ("items", "users", "interactions"))
    faults += _entity_faults("items", items, scenario.item_key, [scenario.title])
    faults += _entity_faults("users", users, scenario.user_key, [])
    faults += _template_faults("description", scenario.description, items, "items")
    faults += _template_faults("profile", scenario.profile, users, "users")
    faults += _interaction_faults(raw, scenario)
    faults += _key_faults(scenario, items, users, raw)
    if faults or items is None or raw is None:
        raise SourceError(faults)
    item = Key(scenario.item_key, _id_type(items[scenario.item_key].type))
    user = Key(scenario.user_key, _id_type(raw[scenario.user_key].type))
    interactions, notices = _interactions(scenario, raw, user, item)
    interactions, ahead = up_to_now(interactions)
    interactions, left_out = _known_items(interactions, items[item.name].cast(item.type), item)
    if interactions.num_rows == 0:
        rule = "interactions: some name an item of the items source"
        found = "; ".join(["none does", *ahead])
        raise SourceError(rule, found=found, mend="compare the two key columns")
    return Inputs(
        user=user,
        item=item,
        items=_cast_key(items, item),
        users=None if users is None else _cast_key(users, user),
        interactions=interactions,
        notices=(*notices, *ahead, *left_out),
    )


def judged(
    scenario: Scenario, rows: pa.Table, known: Inputs, session: lake.Session
) -> tuple[pa.Table, list[str]]:
    """Judge and check rows of interactions that are handed over, as the query's are.

    Args:
        scenario: whose rule of liking judges them.
        rows: with the columns of the interactions query.
        known: the project's tables.
        session: judges them.

    Returns:
        The rows in the form of :class:`Inputs`, those of unknown items among them; notices.

    Raises:
        SourceError: with all faults together.
    """
    faults: list[Fault] = []
    columns, tables = rows.schema, {ROWS: rows}
    try:
        rows = session.query(_verdicts(scenario, f"select * from {ROWS}", columns), tables)
    except SourceError as error:
        wrong = _wrong_rule(scenario, columns, error) if LIKED not in columns.names else error
        faults += [_named("interactions", fault) for fault in wrong.faults]
    faults += _interaction_faults(rows, scenario)
    if "event_timestamp" not in rows.column_names and "position" in rows.column_names:
        faults += _column_faults("interactions", rows, ["event_timestamp"])
    faults += _stranger_keys(rows, known)
    if faults:
        raise SourceError([_of_rows(fault) for fault in faults])
    return _interactions(scenario, rows, known.user, known.item)


def _stranger_keys(rows: pa.Table, known: Inputs) -> list[Fault]:
    """Ids of another type than the project's tables have."""
    there = [key for key in (known.user, known.item) if key.name in rows.column_names]
    found = [(key, _id_type(rows[key.name].type)) for key in there]
    return [
        Fault(
            f"interactions.{key.name}: ids are of the type of the project's tables",
            f"{kind} and {key.type}",
            f"give {key.name} as {'a whole number' if key.type == pa.int64() else 'text'}",
        )
        for key, kind in found
        if kind is not None and kind != key.type
    ]


def _of_rows(fault: Fault) -> Fault:
    return Fault(fault.rule, fault.found, fault.mend.replace(*_IN_THE_QUERY))


def _entity_faults(name: str, table: pa.Table | None, key: str, further: list[str]) -> list[Fault]:
    if table is None:
        return []
    faults = _column_faults(name, table, [key, *further]) + _empty_faults(name, table.num_rows)
    if key in table.column_names:
        faults += _id_faults(name, table[key], key)
        faults += _duplicate_faults(name, table[key], key)
    return faults


def _empty_faults(name: str, rows: int) -> list[Fault]:
    rule = f"{name}: has at least one row"
    return [] if rows else [Fault(rule, "an empty table", "see the query")]


def _column_faults(name: str, table: pa.Table, wanted: list[str]) -> list[Fault]:
    missing = [column for column in wanted if column not in table.column_names]
    has = ", ".join(c for c in table.column_names if c != LIKED)
    return [
        Fault(f"{name}: has a column {column}", has, f"select … as {column} in the {name} query")
        for column in missing
    ]


def _id_faults(name: str, column: pa.ChunkedArray, key: str) -> list[Fault]:
    faults = []
    if _id_type(column.type) is None:
        found, mend = _no_ids(column, key)
        faults.append(Fault(f"{name}.{key}: ids are integers or text", found, mend))
    elif pa.types.is_uint64(column.type) and (pc.max(column).as_py() or 0) >= 1 << 63:
        mend = f"select {key}::varchar as {key} …, in every query that has it"
        rule = f"{name}.{key}: whole numbers fit 64 bits with a sign"
        faults.append(Fault(rule, f"up to {pc.max(column).as_py()}", mend))
    if column.null_count:
        rule, mend = f"{name}.{key}: no id is null", f"add «where {key} is not null»"
        faults.append(Fault(rule, f"{column.null_count} rows with null", mend))
    return faults


def _no_ids(column: pa.ChunkedArray, key: str) -> tuple[str, str]:
    """What a column of another type holds, and what makes ids of it."""
    kind = column.type
    if (largest := blurred(column)) is not None:
        mend = f"select {key}::bigint as {key} … before it becomes a float (in pandas, Int64)"
        return f"{kind} up to {largest:.0f}, of digits that a float does not keep", mend
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
        numbers = numbers.filter(pc.fill_null(pc.is_finite(numbers), False))
        whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**63))
        if pc.all(whole, min_count=0).as_py():
            return str(kind), f"select {key}::bigint as {key} …"
    return str(kind), f"select {key}::varchar as {key} …"


def _duplicate_faults(name: str, column: pa.ChunkedArray, key: str) -> list[Fault]:
    counts = column.drop_null().value_counts()
    many = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(many) == 0:
        return []
    some = ", ".join(repr(row["values"].as_py()) for row in many[:3])
    mend = f"keep one row an id: «qualify row_number() over (partition by {key}) = 1»"
    return [Fault(f"{name}.{key}: each id once", f"{len(many)} ids repeat, e.g. {some}", mend)]


def _template_faults(
    what: str, template: str | None, table: pa.Table | None, source: str
) -> list[Fault]:
    """Columns that a Jinja text names must be there before anything is paid for."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    if template is None:
        return []
    rule = f"Scenario.{what}: is a Jinja text over {source} columns"
    try:
        named = meta.find_undeclared_variables(Environment(autoescape=False).parse(template))
    except TemplateSyntaxError as error:
        return [Fault(rule, f"{error.message} in {template!r}", "see the Jinja syntax")]
    if table is None:
        mend = f"give Sources.{source}, or leave {what} out"
        return [Fault(rule, f"no {source} table", mend)] if source == "users" else []
    missing = sorted(named - set(table.column_names))
    return [
        Fault(rule, f"no column {name}; there are: {', '.join(table.column_names)}", f"mend {what}")
        for name in missing
    ]


def _interaction_faults(raw: pa.Table | None, scenario: Scenario) -> list[Fault]:
    if raw is None:
        return []
    wanted = [scenario.user_key, scenario.item_key, *([scenario.rating] if scenario.rating else [])]
    faults = _column_faults("interactions", raw, wanted)
    faults += _empty_faults("interactions", raw.num_rows)
    for key in (scenario.user_key, scenario.item_key):
        if key in raw.column_names:
            faults += _id_faults("interactions", raw[key], key)
    return faults + _rating_faults(raw, scenario) + _time_faults(raw)


def _rating_faults(raw: pa.Table, scenario: Scenario) -> list[Fault]:
    if scenario.rating not in raw.column_names:
        return []
    kind = raw[scenario.rating].type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return []
    rule = f"interactions.{scenario.rating}: a rating is a number"
    return [Fault(rule, str(kind), "cast it, or leave Scenario.rating out")]


def _time_faults(raw: pa.Table) -> list[Fault]:
    names = raw.column_names
    if "event_timestamp" not in names and "position" not in names:
        rule = "interactions: say when: event_timestamp, or position within the user's history"
        has = ", ".join(c for c in names if c != LIKED)
        return [Fault(rule, has, "select … as event_timestamp in the interactions query")]
    name = "event_timestamp" if "event_timestamp" in names else "position"
    column = raw[name]
    faults = []
    is_right = _is_time if name == "event_timestamp" else pa.types.is_integer
    if not is_right(column.type):
        what = "a timestamp or date" if name == "event_timestamp" else "an integer"
        mend = f"cast it in the interactions query: {name}::timestamptz, to_timestamp({name}) …"
        faults.append(Fault(f"interactions.{name}: is {what}", str(column.type), mend))
    elif not _is_datable(column):
        rule = f"interactions.{name}: times lie in the years 1 to 9999"
        faults.append(Fault(rule, "infinity, or a time beyond", f"add «where isfinite({name})»"))
    if column.null_count:
        rule, mend = f"interactions.{name}: no time is null", f"add «where {name} is not null»"
        faults.append(Fault(rule, f"{column.null_count} rows with null", mend))
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


def _key_faults(
    scenario: Scenario, items: pa.Table | None, users: pa.Table | None, raw: pa.Table | None
) -> list[Fault]:
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
        here, there = _id_type(table[key].type), _id_type(raw[key].type)
        if here is not None and there is not None and here != there:
            rule = f"{key}: has one type in {name} and interactions"
            faults.append(Fault(rule, f"{here} and {there}", f"cast one: {key}::varchar as {key}"))
    return faults


def _id_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.string() if text or pa.types.is_string_view(kind) else None


def _cast_key(table: pa.Table, key: Key) -> pa.Table:
    at = table.column_names.index(key.name)
    return table.set_column(at, key.field, table[key.name].cast(key.type))


def _interactions(
    scenario: Scenario, raw: pa.Table, user: Key, item: Key
) -> tuple[pa.Table, list[str]]:
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
    table = pa.table({**columns, "liked": raw[LIKED]})
    if undecided := table["liked"].null_count:
        notices.append(f"{undecided} interactions left out: «{scenario.liked}» is null for them")
        table = table.filter(table["liked"].is_valid())
    return _ordered(table, user, item), notices


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
    now = pa.scalar(datetime.now(timezone.utc) + ahead, TIMESTAMP)
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


def _known_items(
    interactions: pa.Table, ids: pa.ChunkedArray, item: Key
) -> tuple[pa.Table, list[str]]:
    known = pc.is_in(interactions[item.name], value_set=ids.combine_chunks())
    strangers = interactions.num_rows - pc.sum(known).as_py() if interactions.num_rows else 0
    if not strangers:
        return interactions, []
    notice = f"{strangers} interactions left out: their {item.name} is not in the items source"
    return interactions.filter(known), [notice]


def split(inputs: Inputs, as_of: datetime, history: int) -> pa.Table:
    """Say of each interaction whether a prompt may show it and whether it may be a sample.

    With times: a prompt shows what happened before ``as_of``, all else are samples. Without: the
    first n = min((len + 1) // 2, ``history``) of a user feed the prompt, the later ones are
    samples (the protocol of the paper's MovieLens-1M table).

    Returns:
        The interactions with two more bool columns, ``prompt`` and ``sample``.
    """
    table = inputs.interactions
    if inputs.timed:
        prompt = pc.less(table["event_timestamp"], pa.scalar(as_of).cast(TIMESTAMP))
    else:
        prompt = pa.array(_first_half(table[inputs.user.name], history))
    return table.append_column("prompt", prompt).append_column("sample", pc.invert(prompt))


def _first_half(users: pa.ChunkedArray, history: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows are sorted by user: mark the first n of each run of equal users."""
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy()
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(codes)) - starts[codes]
    first: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        rank < np.minimum((counts + 1) // 2, history)[codes]
    )
    return first


def snapshot_times(
    scenario: Scenario, inputs: Inputs, *, first: bool, start: bool = False
) -> list[datetime]:
    """The as-of times to bring up to date, oldest first.

    Without a word in the scenario: the first run makes two snapshots, a tick after the median and
    after the last interaction, so that each knows its own and HEIN learns on what came after the
    first; later runs add the last. With ``start`` the first run makes one more, at the first
    interaction: nobody has a history yet, but items have their texts from then on.

    Raises:
        SourceError: the interactions carry no times and the scenario names no ``as_of``.
    """
    if scenario.as_of:
        return sorted(set(scenario.as_of))
    if not inputs.timed:
        rule = "a snapshot has a time: interactions carry event_timestamp or Scenario.as_of is set"
        raise SourceError(rule, found="neither", mend='add as_of=["2026-01-01"] to Scenario(…)')
    times = inputs.interactions["event_timestamp"].combine_chunks().sort()
    last = after(times[-1].as_py())
    if not first:
        return [last]
    begun = {times[0].as_py()} if start else set()
    return sorted({*begun, after(_median(times)), last})


def quantile_times(inputs: Inputs, parts: int, *, before: datetime) -> list[datetime]:
    """As-of times that cut the interactions before a time into parts of equal numbers."""
    times = inputs.interactions["event_timestamp"]
    times = times.filter(pc.less(times, pa.scalar(before, TIMESTAMP))).combine_chunks().sort()
    ends = [math.ceil(part * len(times) / parts) - 1 for part in range(1, parts)]
    return sorted({after(times[end].as_py()) for end in ends if end >= 0})


def _median(times: pa.Array) -> datetime:
    """The middle one of sorted times; of two, the earlier."""
    middle: datetime = times[(len(times) - 1) // 2].as_py()
    return middle


def snapshot_to_learn_from(inputs: Inputs, made: Sequence[datetime]) -> datetime:
    """Of snapshots, oldest first, the latest that leaves out a quarter of the interactions.

    Raises:
        CondenseError: there is none, none of the interactions came before it, or they are not
            both liked and disliked.
    """
    verdicts = pc.unique(inputs.interactions["liked"])
    if len(verdicts) < 2:
        every = "all" if verdicts[0].as_py() else "none"
        raise CondenseError(
            "some interactions are liked and some are not: HEIN learns to tell them apart",
            found=f"{every} of {inputs.interactions.num_rows:,} are liked",
            mend="mend Scenario.liked, or add interactions of the other kind",
        )
    if not inputs.timed:
        return made[-1]
    times = inputs.interactions["event_timestamp"].combine_chunks().sort()
    enough = times[math.floor((1 - SAMPLES_AFTER) * len(times))].as_py()
    before = [time for time in made if time <= enough]
    rule = "HEIN learns from interactions that came after a snapshot"
    if not before:
        middle = after(_median(times))
        early = middle <= enough
        raise CondenseError(
            rule,
            found=f"fewer than {SAMPLES_AFTER:.0%} of them came after {made[0]:%Y-%m-%d %H:%M}",
            mend=f"make an earlier snapshot too: reki run --as-of {middle:%Y-%m-%dT%H:%M:%S.%f}"
            if early
            else "give interactions their own times: too many bear the same",
        )
    if before[-1] <= times[0].as_py():
        raise CondenseError(
            f"{rule}, and is shown those before it",
            found=f"none came before {before[-1]:%Y-%m-%d %H:%M}",
            mend=f"declare a later Scenario(as_of=[…]); they begin at {times[0].as_py():%Y-%m-%d}",
        )
    return before[-1]
