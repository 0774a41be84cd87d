"""The user's own tables, checked and brought into one form.

Every fault of all three tables is reported together. Three things are corrected, with a notice:
times without a zone are read as UTC; interactions with items that the catalogue lacks are left out,
and so are those of times that cannot be right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.declare import Declarations, Scenario
from reki_feast.errors import Problem, SourceError
from reki_feast.schema import Key, Kind
from reki_feast.tables.checks import (
    LIKED,
    column_faults,
    empty_faults,
    entity_faults,
    id_faults,
    id_type,
    interaction_faults,
    key_faults,
    template_faults,
)
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.implausible_times import plausible
from reki_feast.tables.interactions import (
    DOMAIN,
    apart,
    in_order,
    of_known_items,
    up_to_now,
    with_verdicts,
    wrong_rule,
)
from reki_feast.tables.sources import ROWS, Given, Source

_IN_THE_QUERY = "in the interactions query", "in what is given"


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
        held_out: the interactions of the test, in the same form; None where no rule holds any out.
    """

    user: Key
    item: Key
    items: pa.Table
    users: pa.Table | None
    interactions: pa.Table
    notices: tuple[str, ...] = ()
    held_out: pa.Table | None = None

    @property
    def timed(self) -> bool:
        """Whether interactions carry times, so that an as-of time can be honoured."""
        return "event_timestamp" in self.interactions.column_names


def without_users(given: Inputs, users: pa.Array) -> Inputs:
    """The tables but for the rows of some users.

    Args:
        given: the tables.
        users: ids, as text.
    """
    if not len(users):
        return given
    name = given.user.name
    profiles = None if given.users is None else without_ids(given.users, name, users)
    return replace(given, interactions=without_ids(given.interactions, name, users), users=profiles)


def of_users(given: Inputs, users: pa.Array, *, invert: bool = False) -> Inputs:
    """The interactions and profiles of some users alone.

    Args:
        given: the tables.
        users: ids in the key's type.
        invert: of all others.
    """
    name = given.user.name

    def theirs(table: pa.Table) -> pa.Table:
        inside = pc.is_in(table[name], value_set=users)
        return table.filter(pc.invert(inside) if invert else inside)

    profiles = None if given.users is None else theirs(given.users)
    return replace(given, interactions=theirs(given.interactions), users=profiles)


def without_ids(table: pa.Table, key: str, ids: pa.Array) -> pa.Table:
    """The rows of others than these ids, given as text."""
    return table.filter(pc.invert(pc.is_in(table[key].cast(pa.string()), value_set=ids)))


def read(declared: Declarations, root: Path) -> Inputs:
    """Run the sources and check what they give.

    Raises:
        SourceError: with the faults of all tables together; of the setup alone where that fails,
            since nothing else can be said then.
    """
    tables: dict[str, pa.Table] = {}
    faults: list[Problem] = []
    with contextlib.closing(DuckDBSession(root, declared.sources.setup)) as session:
        session.open()
        for name, source in _sources(declared).items():
            try:
                given = Given(source, session, root)
                sql = _judging_query(declared, given) if name == "interactions" else None
                tables[name] = given.read(sql)
            except SourceError as error:
                faults += [_named(name, fault) for fault in error.problems]
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
    faults: list[Problem] = []
    with contextlib.closing(DuckDBSession(root, declared.sources.setup)) as session:
        session.open()
        for name, source in _sources(declared).items():
            key = keys[tables[name]]
            try:
                given, quoted = Given(source, session, root), key.replace('"', '""')
                ids = given.read(f'select distinct "{quoted}" from ({given.sql}\n)').column(0)
            except SourceError as error:
                faults += [_named(name, fault) for fault in error.problems]
                continue
            faults += (wrong := id_faults(name, ids, key) or empty_faults(name, len(ids)))
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
    if faults := id_faults(name, ids, key):
        raise SourceError(faults)
    return set(map(str, ids.to_pylist()))


def _sources(declared: Declarations) -> dict[str, Source]:
    said = declared.sources
    if said.interactions is None:
        raise SourceError(
            "a project has interactions: histories, weights and vectors are made of them",
            detail="Sources names none",
            hint="add Sources(interactions=…); `reki import-knowledge` alone needs none",
        )
    found = {"items": said.items, "interactions": said.interactions}
    return found | ({"users": said.users} if said.users else {})


def _judging_query(declared: Declarations, given: Given) -> str:
    """The query of the interactions, and whether they are liked."""
    columns = given.columns
    judged = with_verdicts(declared.scenario, given.sql, columns)
    try:
        given.dry(judged)
    except SourceError as error:
        raise wrong_rule(declared.scenario, columns, error) from error
    return _with_domain(declared, judged, columns)


def _with_domain(declared: Declarations, sql: str, columns: pa.Schema) -> str:
    """The query with the domain of each row, where interactions name it."""
    said = declared.domains
    if said is None or said.of == "items":
        return sql
    if said.column not in columns.names:
        raise SourceError(
            f"Domains(column={said.column!r}, of='interactions') is a column of the interactions",
            detail=f"there are {', '.join(columns.names)}",
            hint="mend its name, or select it in Sources(interactions=…)",
        )
    name = said.column.replace('"', '""')
    return f'select *, "{name}"::varchar as {DOMAIN} from ({sql}\n)'


def _named(name: str, fault: Problem) -> Problem:
    return Problem(f"{name}: {fault.problem}", fault.detail, fault.hint)


def check(
    scenario: Scenario, tables: Mapping[str, pa.Table], faults: list[Problem] | None = None
) -> Inputs:
    """Check raw tables ``items``, ``interactions`` and perhaps ``users``; bring them into form.

    Raises:
        SourceError: with all faults together, ``faults`` found earlier among them.
    """
    faults = list(faults or [])
    items, users, raw = (tables.get(name) for name in ("items", "users", "interactions"))
    faults += entity_faults("items", items, scenario.item_key, [scenario.title])
    faults += entity_faults("users", users, scenario.user_key, [])
    faults += template_faults("description", scenario.description, items, "items")
    faults += template_faults("profile", scenario.profile, users, "users")
    faults += interaction_faults(raw, scenario)
    faults += key_faults(scenario, items, users, raw)
    if faults or items is None or raw is None:
        raise SourceError(faults)
    item = Key(scenario.item_key, id_type(items[scenario.item_key].type))
    user = Key(scenario.user_key, id_type(raw[scenario.user_key].type))
    interactions, notices = in_order(scenario, raw, user, item)
    interactions, ahead = up_to_now(interactions)
    interactions, early = plausible(interactions)
    interactions, left_out = of_known_items(interactions, items[item.name].cast(item.type), item)
    if interactions.num_rows == 0:
        rule = "interactions: some name an item of the items source"
        found = "; ".join(["none does", *ahead])
        raise SourceError(rule, detail=found, hint="compare the two key columns")
    interactions, held_out, kept_apart = apart(scenario, interactions)
    if interactions.num_rows == 0:
        rule = "interactions: some are not held out, to be learnt from"
        raise SourceError(rule, detail=kept_apart[0], hint="mend Scenario.held_out")
    return Inputs(
        user=user,
        item=item,
        items=_cast_key(items, item),
        users=None if users is None else _cast_key(users, user),
        interactions=interactions,
        notices=(*notices, *ahead, *early, *left_out, *kept_apart),
        held_out=held_out,
    )


def judged(
    scenario: Scenario, rows: pa.Table, known: Inputs, session: DuckDBSession
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
    faults: list[Problem] = []
    columns, tables = rows.schema, {ROWS: rows}
    try:
        rows = session.query(with_verdicts(scenario, f"select * from {ROWS}", columns), tables)
    except SourceError as error:
        wrong = wrong_rule(scenario, columns, error) if LIKED not in columns.names else error
        faults += [_named("interactions", fault) for fault in wrong.problems]
    faults += interaction_faults(rows, scenario)
    if "event_timestamp" not in rows.column_names and "position" in rows.column_names:
        faults += column_faults("interactions", rows, ["event_timestamp"])
    faults += _stranger_keys(rows, known)
    if faults:
        raise SourceError([_of_rows(fault) for fault in faults])
    ordered, notices = in_order(scenario, rows, known.user, known.item)
    ordered, _, kept_apart = apart(scenario, ordered)
    return ordered, notices + kept_apart


def _stranger_keys(rows: pa.Table, known: Inputs) -> list[Problem]:
    """Ids of another type than the project's tables have."""
    there = [key for key in (known.user, known.item) if key.name in rows.column_names]
    found = [(key, id_type(rows[key.name].type)) for key in there]
    return [
        Problem(
            f"interactions.{key.name}: ids are of the type of the project's tables",
            f"{kind} and {key.type}",
            f"give {key.name} as {'a whole number' if key.type == pa.int64() else 'text'}",
        )
        for key, kind in found
        if kind is not None and kind != key.type
    ]


def _of_rows(fault: Problem) -> Problem:
    return Problem(fault.problem, fault.detail, fault.hint.replace(*_IN_THE_QUERY))


def _cast_key(table: pa.Table, key: Key) -> pa.Table:
    at = table.column_names.index(key.name)
    return table.set_column(at, key.field, table[key.name].cast(key.type))
