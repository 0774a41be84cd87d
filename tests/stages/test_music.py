"""The music scenario: dirty dates are named, and a day's run writes what is new and changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.project import open_project
from reki_feast.schema import TIMESTAMP
from reki_feast.stages.context import StageContext
from reki_feast.stages.doctor_checks import CHECKS, Case
from tests.bench.increments import Written, parts, written
from tests.conftest import shared
from tests.stages.music_project import (
    DAYS,
    FOLDER,
    NEW_ARTIST,
    NEW_LISTENER,
    draw_tables,
    lay_project,
    real_tables,
)

DIRTY = [
    "2 of 1,487 interactions left out: their times cannot be right, the first is "
    "1956-06-01 00:00 UTC (user_id 8), and all others begin at 2009-01-01; ",
    "1,485 of 1,485 interactions are dated the first of a month: kept, ",
]


def run_again(root: Path) -> dict[str, Written]:
    """What a run writes to each table."""
    before = parts(root)
    stages.run(open_project(root))
    return written(before, parts(root))


def rows_since(root: Path, table: str, key: str) -> set[int]:
    """Ids of which a table has rows as of the days that were added."""
    rows = pa.concat_tables(map(pq.read_table, root.glob(f"data/music/**/{table}/*.parquet")))
    return since(rows, key)


def since(rows: pa.Table, key: str) -> set[int]:
    late = pc.greater_equal(rows["event_timestamp"].cast(TIMESTAMP), pa.scalar(DAYS, TIMESTAMP))
    return set(rows.filter(late)[key].to_pylist())


def test_a_day_writes_what_is_new_and_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_tables(tmp_path, DAYS)
    music = lay_project(tmp_path / "music", tmp_path, monkeypatch)
    told = dict(CHECKS)["tables"](Case(StageContext.of(music)))
    first = stages.run(music)
    for start in DIRTY:
        assert start in told
        assert [note for note in first.notes if note.startswith(start)]
    draw_tables(tmp_path, DAYS + timedelta(days=5))
    found = run_again(music.root)
    assert all(one.rows == one.changed for one in found.values())
    log = pq.read_table(tmp_path / FOLDER / "tags_with_time.parquet")
    users, items = (since(log, name) for name in ("user_id", "item_id"))
    assert {NEW_LISTENER} < users <= rows_since(music.root, "user_representation", "user_id")
    assert NEW_ARTIST in items & rows_since(music.root, "item_representation", "item_id")
    assert found["item_representation"].rows < 40
    assert run_again(music.root) == {}


def test_a_real_day_writes_what_is_new_and_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shared(FOLDER)
    artists = real_tables(tmp_path, real, DAYS, 30)
    music = lay_project(tmp_path / "music", tmp_path, monkeypatch)
    first = stages.run(music)
    assert sum("dated the first of a month" in note for note in first.notes) == 1
    real_tables(tmp_path, real, DAYS + timedelta(days=30), 30)
    found = run_again(music.root)
    assert all(one.rows == one.changed for one in found.values())
    assert 0 < found["item_representation"].rows < artists / 10
    assert run_again(music.root) == {}
