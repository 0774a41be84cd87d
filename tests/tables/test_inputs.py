"""Bad tables give one clear report of all faults; what can be mended is mended and said."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast.declare import Declarations, Scenario, load
from reki_feast.errors import CondenseError, SourceError
from reki_feast.tables.asof import TICK, after
from reki_feast.tables.checks import HELD_OUT, LIKED
from reki_feast.tables.inputs import Inputs, check, named, read
from reki_feast.tables.snapshot_times import snapshot_times, snapshot_to_learn_from, split

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SCENARIO = Scenario(name="films", item="film", rating="rating", description="{{ title }}")


def times(*days: int) -> list[datetime]:
    return [T0 + timedelta(days=day) for day in days]


def tables(**changed: dict[str, Any]) -> dict[str, pa.Table]:
    given: dict[str, dict[str, Any]] = {
        "items": {"item_id": [1, 2, 3], "title": ["A", "B", "C"]},
        "users": {"user_id": [7, 8], "age": [30, 40]},
        "interactions": {
            "user_id": [8, 7, 7, 7],
            "item_id": [1, 2, 1, 3],
            "rating": [5, 4, 2, 3],
            "event_timestamp": times(0, 2, 1, 3),
            LIKED: [True, True, False, False],
        },
    }
    return {name: pa.table({**columns, **changed.get(name, {})}) for name, columns in given.items()}


def without(name: str, column: str) -> dict[str, pa.Table]:
    given = tables()
    return {**given, name: given[name].drop_columns([column])}


def report(given: dict[str, pa.Table], scenario: Scenario = SCENARIO) -> str:
    with pytest.raises(SourceError, match=".") as caught:
        check(scenario, given)
    return str(caught.value)


def test_interactions_are_sorted_and_numbered_within_users() -> None:
    inputs = check(SCENARIO, tables())
    rows = inputs.interactions.select(["user_id", "item_id", "order"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(7, 1, 0), (7, 2, 1), (7, 3, 2), (8, 1, 3)]
    assert inputs.notices == ()
    assert inputs.user.type == pa.int64()


def held_out(*rows: bool) -> Inputs:
    scenario = SCENARIO.model_copy(update={"held_out": "split = 'test'"})
    return check(scenario, tables(interactions={HELD_OUT: list(rows)}))


def test_rows_of_the_test_stand_apart() -> None:
    inputs = held_out(False, True, False, False)
    assert inputs.interactions["item_id"].to_pylist() == [1, 3, 1]
    assert inputs.held_out is not None
    assert inputs.held_out["item_id"].to_pylist() == [2]
    assert inputs.held_out.schema == inputs.interactions.schema
    assert inputs.notices == ("1 interactions held out for the test: «split = 'test'»",)
    assert check(SCENARIO, tables()).held_out is None
    with pytest.raises(SourceError, match="(?s)some are not held out.*mend Scenario.held_out"):
        held_out(True, True, True, True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(without("items", "title"), "items: has a column title", id="missing column"),
        pytest.param(without("interactions", "user_id"), "interactions: has a column user_id"),
        pytest.param(without("interactions", "rating"), "interactions: has a column rating"),
        pytest.param(without("interactions", "event_timestamp"), "say when: event_timestamp"),
        pytest.param(
            tables(items={"item_id": [1, 1, 3]}), "items.item_id: each id once", id="duplicate ids"
        ),
        pytest.param(
            tables(items={"item_id": [1, None, 3]}), "items.item_id: no id is null", id="null id"
        ),
        pytest.param(
            tables(interactions={"user_id": [8, None, 7, 7]}), "interactions.user_id: no id is null"
        ),
        pytest.param(
            tables(items={"item_id": [1.5, 2.5, 3.5]}), "ids are integers or text", id="float ids"
        ),
        pytest.param(
            tables(items={"item_id": pa.array([1, 2, 2**63], pa.uint64())}),
            "up to 9223372036854775808",
            id="a hash as id",
        ),
        pytest.param(
            tables(items={"item_id": ["1", "2", "3"]}), "has one type in items and interactions"
        ),
        pytest.param(tables(interactions={"rating": ["5", "4", "2", "3"]}), "a rating is a number"),
        pytest.param(
            tables(interactions={"event_timestamp": [1, 2, 3, 4]}), "is a timestamp or date"
        ),
        pytest.param(
            tables(interactions={"event_timestamp": [*times(1, 2, 3), None]}), "no time is null"
        ),
        pytest.param(
            {n: t.slice(0, 0) if n == "items" else t for n, t in tables().items()},
            "items: has at least one row",
            id="empty table",
        ),
        pytest.param(
            tables(interactions={"item_id": [10, 11, 12, 13]}), "some name an item", id="no join"
        ),
    ],
)
def test_a_broken_rule_is_named(given: dict[str, pa.Table], expected: str) -> None:
    assert expected in report(given)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (
            pa.array([7.0, 8.0, 9.0]),
            "detail: double\n  hint:   select item_id::bigint as item_id …",
        ),
        (
            pa.array([7.0, 8.5, 9.0]),
            "detail: double\n  hint:   select item_id::varchar as item_id …",
        ),
        (
            pa.array([1.0, 2.0, 1239162456494753671.0]),
            "detail: double up to 1239162456494753792, of digits that a float does not keep\n"
            "  hint:   select item_id::bigint as item_id … before it becomes a float",
        ),
        (
            pa.array([1.0, 2.0, 2.0**24], pa.float32()),
            "detail: float up to 16777216, of digits that a float does not keep",
        ),
        (
            pa.array([1, 2, 3], pa.decimal128(20, 2)),
            "detail: decimal128(20, 2)\n  hint:   select item_id::bigint as item_id …",
        ),
        (pa.array([True, False, True]), "detail: bool\n  hint:   select item_id::varchar"),
    ],
)
def test_ids_of_another_type_are_told_what_keeps_their_digits(ids: pa.Array, expected: str) -> None:
    assert f"items.item_id: ids are integers or text\n  {expected}" in report(
        tables(items={"item_id": ids})
    )


def test_faults_of_all_tables_come_together() -> None:
    given = tables(items={"item_id": [1, 1, None]}, users={"user_id": [7, 7]})
    text = report({**given, "interactions": without("interactions", "rating")["interactions"]})
    for rule in ("4 problems", "no id is null", "users.user_id: each id once", "column rating"):
        assert rule in text


def test_templates_may_only_name_columns_that_are_there() -> None:
    scenario = SCENARIO.model_copy(update={"description": "{{ titel }}", "profile": "{{ age"})
    text = report(tables(), scenario)
    assert "no column titel; there are: item_id, title" in text
    assert "Scenario.profile: is a Jinja text" in text


def test_unknown_items_are_left_out_and_said() -> None:
    inputs = check(SCENARIO, tables(interactions={"item_id": [1, 99, 1, 3]}))
    assert inputs.interactions.num_rows == 3
    assert inputs.notices == ("1 interactions left out: their item_id is not in the items source",)


def test_times_without_zone_are_read_as_utc_and_said() -> None:
    naive = [t.replace(tzinfo=None) for t in times(0, 2, 1, 3)]
    inputs = check(SCENARIO, tables(interactions={"event_timestamp": naive}))
    assert inputs.interactions["event_timestamp"][0].as_py() == T0 + timedelta(days=1)
    assert inputs.notices == ("event_timestamp has no time zone: read as UTC",)


def test_dates_are_times_at_midnight() -> None:
    days = [t.date() for t in times(0, 2, 1, 3)]
    inputs = check(SCENARIO, tables(interactions={"event_timestamp": days}))
    assert inputs.interactions["event_timestamp"][3].as_py() == T0


def test_undecided_likes_are_left_out_and_said() -> None:
    inputs = check(SCENARIO, tables(interactions={LIKED: [True, None, False, False]}))
    assert inputs.interactions.num_rows == 3
    assert "1 interactions left out: «rating >= 4» is null" in inputs.notices[0]


def test_ids_may_be_text() -> None:
    given = tables(
        items={"item_id": ["a", "b", "c"]}, interactions={"item_id": ["a", "b", "a", "c"]}
    )
    assert check(SCENARIO, given).item.type == pa.string()


@pytest.mark.parametrize(
    ("as_of", "prompt"),
    [
        (times(1)[0] - TICK, [False, False, False, True]),
        (times(1)[0], [False, False, False, True]),
        (times(1)[0] + TICK, [True, False, False, True]),
    ],
)
def test_a_split_by_time_keeps_samples_from_the_snapshot_on(
    as_of: datetime, prompt: list[bool]
) -> None:
    rows = split(check(SCENARIO, tables()), as_of, history=30)
    assert rows["prompt"].to_pylist() == prompt
    assert rows["sample"].to_pylist() == [not one for one in prompt]


def test_a_log_of_whole_days_is_split_between_days() -> None:
    inputs = check(SCENARIO, tables(interactions={"event_timestamp": times(2, 1, 1, 2)}))
    first, last = snapshot_times(SCENARIO, inputs, first=True)
    assert [first, last] == [after(time) for time in times(1, 2)]
    for as_of, days in ((first, 1), (times(2)[0], 1), (times(1)[0], 0), (last, 2)):
        rows = split(inputs, as_of, history=30)
        shown = rows.filter(rows["prompt"])["event_timestamp"].unique().to_pylist()
        assert sorted(shown) == times(1, 2)[:days]


@pytest.mark.parametrize(
    ("history", "expected"), [(30, [True, True, False, True]), (1, [True, False, False, True])]
)
def test_a_split_without_times_takes_the_first_half(history: int, expected: list[bool]) -> None:
    untimed = without("interactions", "event_timestamp")
    position = pa.array([0, 1, 0, 2])
    untimed["interactions"] = untimed["interactions"].append_column("position", position)
    rows = split(check(SCENARIO, untimed), T0, history)
    assert rows["prompt"].to_pylist() == expected


def test_the_first_run_makes_two_snapshots_and_later_ones_the_last() -> None:
    inputs = check(SCENARIO, tables())
    median, last = (time + timedelta(microseconds=1) for time in times(1, 3))
    assert snapshot_times(SCENARIO, inputs, first=True) == [median, last]
    assert snapshot_times(SCENARIO, inputs, first=False) == [last]
    named = SCENARIO.model_copy(update={"as_of": times(5)})
    assert snapshot_times(named, inputs, first=True) == times(5)


def test_a_snapshot_to_learn_from_leaves_a_quarter_for_later() -> None:
    inputs = check(SCENARIO, tables())
    assert snapshot_to_learn_from(inputs, times(1, 2, 4)) == times(2)[0]
    assert snapshot_to_learn_from(inputs, times(1, 3)) == times(3)[0]
    assert snapshot_to_learn_from(inputs, [*times(1), after(times(3)[0])]) == times(1)[0]
    days = [T0 + timedelta(hours=hours) for hours in (0, 1, 2, 3)]
    close = check(SCENARIO, tables(interactions={"event_timestamp": days}))
    assert snapshot_to_learn_from(close, [days[1], days[2]]) == days[2]


@pytest.mark.parametrize(
    ("changed", "made", "said"),
    [
        ({}, times(4), r"(?s)fewer than 25% .*reki run --as-of 2026-01-02T00:00:00.000001"),
        ({"event_timestamp": times(1, 1, 1, 1)}, times(2), "too many bear the same"),
        ({}, times(-1), r"(?s)none came before 2025-12-31 .*they begin at 2026-01-01"),
        ({}, times(0), r"none came before 2026-01-01"),
        ({LIKED: [True] * 4}, times(1), "all of 4 are liked"),
        ({LIKED: [False] * 4}, times(1), "none of 4 are liked"),
    ],
)
def test_what_cannot_be_learnt_from_is_said(
    changed: dict[str, Any], made: list[datetime], said: str
) -> None:
    with pytest.raises(CondenseError, match=said):
        snapshot_to_learn_from(check(SCENARIO, tables(interactions=changed)), made)


def test_without_times_the_scenario_names_the_snapshot() -> None:
    untimed = without("interactions", "event_timestamp")
    untimed["interactions"] = untimed["interactions"].append_column("position", pa.array([0] * 4))
    with pytest.raises(SourceError, match=r"(?s)a snapshot has a time.*as_of="):
        snapshot_times(SCENARIO, check(SCENARIO, untimed), first=True)


def declared(tmp_path: Path, items: str, stars: str = "4, 2") -> Declarations:
    path = tmp_path / "films.py"
    path.write_text(
        "from reki_feast import *\n"
        "s = Scenario(name='films', item='film', liked='stars > 3')\n"
        f"t = Sources(items={items!r}, interactions='''select 1 as user_id, 1 as item_id,\n"
        f"  unnest([{stars}]) as stars, 1 as position -- a comment''')\n"
    )
    return load(path)


def test_sources_are_queries(tmp_path: Path) -> None:
    inputs: Inputs = read(declared(tmp_path, "select 1 as item_id, 'A' as title;"), tmp_path)
    assert sorted(inputs.interactions["liked"].to_pylist()) == [False, True]


def test_ids_that_the_tables_name_are_told_as_text(tmp_path: Path) -> None:
    made = declared(tmp_path, "select 5 as item_id, 'A' as title; ")
    assert named(made, tmp_path) == {"user": {"1"}, "item": {"5"}}
    own = {"items": lambda: pa.table({"item_id": ["a", "b"]}), "users": "select 2 as user_id"}
    made = replace(made, sources=made.sources.model_copy(update=own))
    assert named(made, tmp_path) == {"user": {"1", "2"}, "item": {"a", "b"}}


def test_tables_without_ids_are_told_together(tmp_path: Path) -> None:
    made = declared(tmp_path, "select null::int as item_id", "4")
    users = {"users": "select 1 as user_id where false"}
    with pytest.raises(SourceError, match="(?s)no id is null.*users: has at least one row"):
        named(replace(made, sources=made.sources.model_copy(update=users)), tmp_path)


@pytest.mark.parametrize("unrated", ["'nan'::float", "'nan'::double", "null"])
def test_not_a_number_is_no_rating(tmp_path: Path, unrated: str) -> None:
    asked = declared(tmp_path, "select 1 as item_id, 'A' as title", f"4, 2, {unrated}")
    inputs = read(asked, tmp_path)
    assert sorted(inputs.interactions["liked"].to_pylist()) == [False, True]
    assert "1 interactions left out: «stars > 3» is null" in inputs.notices[0]


@pytest.mark.parametrize(
    ("stars", "liked", "said"),
    [
        ("4, 2", "starz > 3", r"(?s)Scenario.liked.*starz > 3.*columns are .*stars"),
        ("4, 2", "stars >", r"(?s)Scenario.liked.*syntax error"),
        ("4, 2", "stars > 3', held_out='starz", r"(?s)Scenario.held_out: starz.*columns are"),
        ("4, 2]) as __liked, unnest([1, 2", "stars > 3", "no column is named __liked"),
        ("4, 2]) as __held_out, unnest([1, 2", "stars > 3", "no column is named __held_out"),
    ],
)
def test_a_verdict_that_cannot_be_had_is_not_the_sources_fault(
    tmp_path: Path, stars: str, liked: str, said: str
) -> None:
    declared(tmp_path, "select 1 as item_id, 'A' as title", stars)
    path = tmp_path / "films.py"
    path.write_text(path.read_text().replace("stars > 3", liked))
    with pytest.raises(SourceError, match=said):
        read(load(path), tmp_path)


def test_a_rule_says_which_rows_are_of_the_test(tmp_path: Path) -> None:
    declared(tmp_path, "select 1 as item_id, 'A' as title", "4, 2, 5, 1")
    path = tmp_path / "films.py"
    rule = "case stars when 5 then true when 1 then null else false end"
    path.write_text(path.read_text().replace("stars > 3'", f"stars > 3', held_out='{rule}'"))
    inputs = read(load(path), tmp_path)
    assert inputs.interactions["liked"].to_pylist().count(True) == 1
    assert inputs.interactions.num_rows == 3
    assert inputs.held_out is not None
    assert inputs.held_out["liked"].to_pylist() == [True]


def test_interactions_of_the_future_do_not_move_the_clock() -> None:
    late = [datetime(2131, 1, day, tzinfo=UTC) for day in (1, 2)]
    inputs = check(SCENARIO, tables(interactions={"event_timestamp": [*times(0, 1), *late]}))
    assert inputs.interactions.num_rows == 2
    assert snapshot_times(SCENARIO, inputs, first=False) == [after(times(1)[0])]
    assert re.fullmatch(
        r"2 interactions left out: they lie in the future, the last at 2131-01-02 00:00 UTC "
        r"\(user_id .+\)",
        inputs.notices[0],
    )


def test_interactions_of_the_future_alone_are_none() -> None:
    late = [datetime(2131, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    with pytest.raises(SourceError, match=r"(?s)none does; 4 interactions left out.*the future"):
        check(SCENARIO, tables(interactions={"event_timestamp": late}))


def test_a_time_beyond_the_calendar_is_named() -> None:
    endless = pa.array([0, 1, 2, 2**63 - 1], pa.timestamp("us", "UTC"))
    assert "years 1 to 9999" in report(tables(interactions={"event_timestamp": endless}))
    last = [*times(0, 1, 2), datetime.max.replace(tzinfo=UTC)]  # no time is after it
    assert "years 1 to 9999" in report(tables(interactions={"event_timestamp": last}))


def test_a_missing_file_is_reported_with_the_table_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"(?s)items: a source is a query.*gone.parquet"):
        read(declared(tmp_path, "select * from 'gone.parquet'"), tmp_path)


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (
            ["select 1", "attach 'host=db password=hunter2' as shop (type nosuch)"],
            r"statement 2 of 2, «attach '…' as shop \(type nosuch\)»",
        ),
        (["create secret (type nosuch, password 'hunter2')"], "statement 1 of 1, «create secret"),
        (["install nosuch"], r"(?s)statement 1 of 1.*docs/how-to/postgres.md"),
    ],
)
def test_a_statement_of_the_setup_that_fails_is_one_fault(
    tmp_path: Path, setup: list[str], said: str
) -> None:
    made = declared(tmp_path, "select 1 as item_id, 'A' as title from shop.nowhere")
    sources = made.sources.model_copy(update={"setup": setup})
    with pytest.raises(SourceError, match=said) as caught:
        read(replace(made, sources=sources), tmp_path)
    assert [fault.problem for fault in caught.value.problems] == [
        "Sources.setup holds statements DuckDB can run"
    ]
    assert "hunter2" not in str(caught.value)
