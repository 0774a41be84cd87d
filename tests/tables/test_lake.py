"""Parts appear whole or not at all; readers see the newest row; damage is named."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast import schema
from reki_feast.errors import LakeError, SourceError
from reki_feast.tables import duckdb_session, lake
from reki_feast.tables.lake import Lake
from reki_feast.tables.parts import newest

T0 = datetime(2026, 1, 1, tzinfo=UTC)
KEY = schema.Key("user_id", pa.int64())
SCHEMA = schema.augmented(KEY, "user")


def rows(*given: tuple[int, float, int]) -> pa.Table:
    """(id, value, day) a row."""
    times = [T0 + timedelta(days=day) for _, _, day in given]
    return pa.table(
        {
            "user_id": [i for i, _, _ in given],
            "user_aug": [[v] for _, v, _ in given],
            "hash": [f"{i}-{v}" for i, v, _ in given],
            "event_timestamp": times,
            "created_timestamp": times,
        },
        schema=SCHEMA,
    )


def values(table: pa.Table) -> dict[int, float]:
    ids = table["user_id"].to_pylist()
    return dict(zip(ids, (v[0] for v in table["user_aug"].to_pylist()), strict=True))


def test_a_snapshot_is_the_newest_row_of_each_key_up_to_the_time(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.append("user_aug", rows((1, 1.0, 0), (2, 2.0, 0)))
    store.append("user_aug", rows((1, 10.0, 5)))
    read = store.snapshot("user_aug", SCHEMA, ["user_id"])
    assert values(read) == {1: 10.0, 2: 2.0}
    read = store.snapshot("user_aug", SCHEMA, ["user_id"], as_of=T0 + timedelta(days=4))
    assert values(read) == {1: 1.0, 2: 2.0}
    assert len(store.parts("user_aug")) == 2


def ids_are(*ids: int) -> lake.Mask:
    return lambda part: pc.is_in(part.column(0), value_set=pa.array(ids))


def test_removed_rows_go_and_other_parts_are_left_alone(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    for day in (0, 1, 2):
        store.append("user_aug", rows((day, 1.0, day), (7, 2.0, day)))
    untouched = store.parts("user_aug")[2].stat().st_mtime_ns
    assert store.remove("user_aug", ids_are(0)) == 1
    assert store.remove("user_aug", ids_are(0)) == 0
    assert store.ids("user_aug").to_pylist() == ["7", "1", "2"]
    assert store.parts("user_aug")[2].stat().st_mtime_ns == untouched
    assert store.remove("user_aug", ids_are(1, 7)) == 4
    assert len(store.parts("user_aug")) == 1


def test_the_last_part_stays_without_rows(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.append("user_aug", rows((1, 1.0, 0)))
    store.append("user_aug", rows((1, 2.0, 1)))
    assert store.remove("user_aug", ids_are(1)) == 2
    assert [pq.read_table(path).schema for path in store.parts("user_aug")] == [SCHEMA]
    assert store.read("user_aug", SCHEMA).num_rows == 0
    assert store.remove("gone", ids_are(1)) == 0


def test_a_damaged_part_is_told_when_rows_are_removed(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    path = store.append("user_aug", rows((1, 1.0, 0)))
    assert path is not None
    path.write_bytes(b"PAR1")
    with pytest.raises(LakeError, match="a stored part is a whole Parquet file"):
        store.remove("user_aug", ids_are(1))


def test_only_parts_that_change_are_rewritten(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    for day in (0, 1):
        store.append("user_aug", rows((day, 1.0, day)))
    before = [path.stat().st_mtime_ns for path in store.parts("user_aug")]
    store.rewrite("user_aug", lambda part: part.filter(pc.field("user_id") != 0))
    assert [path.stat().st_mtime_ns for path in store.parts("user_aug")] == before[1:]
    store.rewrite("user_aug", lambda part: part)
    assert [path.stat().st_mtime_ns for path in store.parts("user_aug")] == before[1:]


def test_appending_the_same_rows_twice_adds_nothing(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.append("user_aug", rows((1, 1.0, 0)))
    store.append("user_aug", rows((1, 1.0, 0)))
    assert store.read("user_aug", SCHEMA).num_rows == 1


def made(table: pa.Table) -> list[int]:
    """When rows were made, in microseconds, in the order of their vectors' values."""
    when = dict(zip(values_of(table), table["created_timestamp"].to_pylist(), strict=True))
    return [(when[value] - T0) // timedelta(microseconds=1) for value in sorted(when)]


def values_of(table: pa.Table) -> list[float]:
    return [vector[0] for vector in table["user_aug"].to_pylist()]


def as_of(day: int, table: pa.Table) -> pa.Table:
    """The rows with another time of what they were made from."""
    at = table.column_names.index("event_timestamp")
    when = pa.array([T0 + timedelta(days=day)] * table.num_rows, SCHEMA.field(at).type)
    return table.set_column(at, SCHEMA.field(at), when)


DAY = 24 * 3600 * 10**6
#: The clock's day at each writing; by how many microseconds the rows' times of making differ.
CLOCKS: dict[str, tuple[list[int], list[int]]] = {
    "goes on": ([0, 1, 2], [DAY, DAY]),
    "stands": ([0, 0, 0], [1, 1]),
    "goes back": ([0, -2, -1], [1, 1]),
    "catches up": ([0, -2, 1], [1, DAY - 1]),
    "was fast for once": ([0, 365, 1], [365 * DAY, 1]),
}


@pytest.mark.parametrize("clock", list(CLOCKS))
@pytest.mark.parametrize("of_before", [False, True])
def test_what_was_written_last_is_newest(tmp_path: Path, clock: str, *, of_before: bool) -> None:
    """Also in a folder of a version that did not count, by another process each time."""
    days, steps = CLOCKS[clock]
    for n, day in enumerate(days):
        store = Lake(tmp_path)
        store.append("user_aug", as_of(5, rows((1, float(n), day))))
        assert values(store.snapshot("user_aug", SCHEMA, ["user_id"])) == {1: n}
        if of_before:
            (tmp_path / "made.json").unlink()
    found = made(Lake(tmp_path).read("user_aug", SCHEMA))
    assert np.diff(found).tolist() == steps


def test_writers_at_once_count_on(tmp_path: Path) -> None:
    """No two of many parts are made at one time, whatever process or thread wrote them."""
    stores = [Lake(tmp_path) for _ in range(4)]

    def write(n: int) -> None:
        stores[n % 4].append("user_aug", as_of(5, rows((n, float(n), 0))))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(40)))
    assert len(set(made(Lake(tmp_path).read("user_aug", SCHEMA)))) == 40


@pytest.mark.parametrize("with_ends", [True, False])
def test_the_last_time_of_tables(tmp_path: Path, *, with_ends: bool) -> None:
    store = Lake(tmp_path)
    assert store.last("event_timestamp", "user_aug") is None
    for number, day in enumerate((3, 9, 4)):
        path = tmp_path / "user_aug" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        how: dict[str, Any] = {"write_statistics": with_ends, "row_group_size": 1}
        pq.write_table(rows((1, 1.0, 1), (2, 1.0, day), (3, 1.0, 2)), path, **how)
    pq.write_table(SCHEMA.empty_table(), tmp_path / "user_aug" / "9.parquet")
    assert store.last("event_timestamp", "user_aug", "none") == T0 + timedelta(days=9)
    assert store.last("missing", "user_aug") is None


def test_an_empty_table_writes_no_part(tmp_path: Path) -> None:
    assert Lake(tmp_path).append("user_aug", SCHEMA.empty_table()) is None
    assert Lake(tmp_path).read("user_aug", SCHEMA).num_rows == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30))
def test_newest_agrees_with_a_dict(pairs: list[tuple[int, int]]) -> None:
    table = rows(*((key, float(n), day) for n, (key, day) in enumerate(pairs)))
    expected: dict[int, tuple[int, float]] = {}
    for n, (key, day) in enumerate(pairs):
        if key not in expected or day >= expected[key][0]:
            expected[key] = (day, float(n))
    assert values(newest(table, ["user_id"])) == {k: v for k, (_, v) in expected.items()}


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    part = store.append("user_aug", rows((1, 1.0, 0)))
    assert part is not None
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(LakeError, match=r"(?s)whole Parquet file.*user_aug"):
        store.read("user_aug", SCHEMA)


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "user_aug").write_text("a file where the folder should be")
    with pytest.raises(LakeError, match="data folder can be written"):
        Lake(tmp_path).append("user_aug", rows((1, 1.0, 0)))
    assert not [*tmp_path.rglob("*.tmp"), *tmp_path.rglob("*.parquet")]


def test_the_same_texts_of_two_encoders_are_two_parts(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    for encoder in ("a", "b", "b"):
        made = {"text_hash": ["x", "y"], "encoder": [encoder] * 2, "vector": [[1.0], [2.0]]}
        store.append("vectors", pa.table(made, schema=schema.VECTORS))
    assert sorted(store.read("vectors", schema.VECTORS)["encoder"].to_pylist()) == [*"aabb"]


WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_weights_come_back_and_others_in_their_place_are_noticed(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    assert store.weights() is None
    store.write_weights(WEIGHTS, {"seed": 3})
    found = store.weights()
    assert found is not None
    assert found[0]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found[1]["seed"] == 3
    (path,) = tmp_path.glob("hein-*.safetensors")
    path.write_bytes(b"\0" * 30)
    with pytest.raises(LakeError, match=r"(?s)belong together.*holds others.*reki train --retrain"):
        store.weights()
    path.unlink()
    with pytest.raises(LakeError, match=r"(?s)belong together.*is missing.*reki train --retrain"):
        store.weights()


def test_weights_of_the_first_versions_are_read_and_replaced(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.write_weights(WEIGHTS, {"seed": 3})
    (path,) = tmp_path.glob("hein-*.safetensors")
    path.rename(tmp_path / "hein.safetensors")
    assert (store.weights() or ({}, {}))[1]["seed"] == 3
    store.write_weights({"w": WEIGHTS["w"] + 1}, {"seed": 4})
    assert (store.weights() or ({}, {}))[1]["seed"] == 4
    assert len(list(tmp_path.glob("hein*.safetensors"))) == 1


def test_weights_cut_short_leave_the_old_ones_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Lake(tmp_path)
    store.write_weights(WEIGHTS, {"seed": 3})
    with monkeypatch.context() as killed:
        killed.setattr(Lake, "write_json", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            store.write_weights({"w": WEIGHTS["w"] + 1}, {"seed": 4})
    found = store.weights()
    assert found is not None
    assert (found[0]["w"].tolist(), found[1]["seed"]) == (WEIGHTS["w"].tolist(), 3)
    store.write_weights({"w": WEIGHTS["w"] + 2}, {"seed": 5})
    assert len(list(tmp_path.glob("hein*.safetensors"))) == 1


def test_a_foreign_manifest_is_named(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    assert store.read_json("manifest") is None
    store.write_json("manifest", {"scenario": "movies"})
    assert store.read_json("manifest") == {"version": 1, "scenario": "movies"}
    (tmp_path / "manifest.json").write_text('{"version": 99}')
    with pytest.raises(LakeError, match="version 1"):
        store.read_json("manifest")


def test_a_query_starts_at_the_project_and_speaks_utc(tmp_path: Path) -> None:
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "t.csv").write_text("a,t\n1,2026-01-01 00:00:00+02\n")
    table = duckdb_session.query("select a, t::timestamptz t from 't.csv'", root=folder)
    assert table["t"][0].as_py() == T0 - timedelta(hours=2)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("select * from 'none.parquet'", "none.parquet"),
        ("select nothing from (select 1 as a)", "nothing"),
        ("selec 1", "syntax error"),
    ],
)
def test_a_query_that_cannot_run_says_which_and_why(tmp_path: Path, sql: str, found: str) -> None:
    with pytest.raises(SourceError, match=f"(?s)DuckDB can run.*{found}.*relative paths start at"):
        duckdb_session.query(sql, root=tmp_path)


def test_setup_statements_run_first(tmp_path: Path) -> None:
    setup = ["create table t as select 5 as a"]
    assert duckdb_session.query("select a from t", root=tmp_path, setup=setup)["a"].to_pylist() == [
        5
    ]


def test_other_rows_take_the_place_of_all_there_were(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.append("user_aug", rows((1, 1.0, 0), (2, 2.0, 0)))
    store.append("user_aug", rows((1, 10.0, 5)))
    store.replace("user_aug", [rows((2, 3.0, 0)), rows((3, 4.0, 0))])
    assert values(store.read("user_aug", SCHEMA)) == {2: 3.0, 3: 4.0}
    assert len(store.parts("user_aug")) == 2


def test_old_rows_stand_until_the_new_ones_do(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    store.append("user_aug", rows((1, 1.0, 0)))

    def failing() -> Iterator[pa.Table]:
        yield rows((2, 3.0, 0))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store.replace("user_aug", failing())
    assert values(store.read("user_aug", SCHEMA))[1] == 1.0
