"""What a day's run writes and takes, beside the first run of the same project.

    python -m tests.bench.increments [ml-100k|games]…

The first 95 % of a log are run, stage by stage; then a day is added, and run, a few times over. Of
each day: the rows that each table got, beside the entities whose row is another than before; and
each stage's seconds of all cores, beside those of the first run. Imports are not counted. Times and
verdicts of the games (50,546 users) are made. The result goes to ``build/bench/increments.json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast import stages
from reki_feast.project import open_project
from reki_feast.stages.context import StageContext
from tests.bench.common import Row, data_folder, finish

DAYS, SHARE = 3, 0.95
_DAY = timedelta(days=1)
GENERATOR = """
from reki_feast import LLM, Encoder, Individual, Scenario, Sources, Training

scenario = Scenario(name="log", item="item", factors=["theme", "mood"], rating="rating",
                    liked="rating >= 4", description="{{ title }}", history=30)
sources = Sources(items="select * from 'items.parquet'",
                  interactions="select * from 'interactions.parquet'")
llm = LLM(provider="echo", concurrency=64)
encoder = Encoder(model="hash")
training = Training(epochs=1, check=False, blocks=2)
users = Individual(kind="user")
items = Individual(kind="item")
"""
#: The data have an order and no times: a user comes on a day of the first ten months, and again
#: every one to twenty days. Nor have they verdicts: those are drawn.
GAMES = """
    select user_id, item_id, 1 + hash(user_id, item_id) % 5 as rating,
           timestamptz '2014-01-01' + to_seconds(
               86400.0 * (hash(user_id, 'begin') % 300)
               + 86400.0 * position * (1 + hash(user_id, 'pace') % 20)
               + hash(user_id, position) % 86400) as event_timestamp
    from '{folder}/interactions.parquet'
"""
#: What a row of a table is about, where that is not its first column.
KEYS = {
    "knowledge": ["kind", "channel", "owner", "grouped"],
    "asked": ["kind", "channel", "owner", "grouped"],
    "inputs": ["kind", "channel", "owner", "grouped"],
}
#: Columns that say when and of what a row was made; without them it is what a reader sees.
_ABOUT = {"created_timestamp", "event_timestamp", "hash"}
Parts = dict[Path, int]


@dataclass(frozen=True)
class Written:
    """What a run added to a table.

    Attributes:
        rows: how many rows.
        changed: how many of them say something else than the row before them of the same entity.
    """

    rows: int
    changed: int


def movielens() -> tuple[pa.Table, pa.Table]:
    """Items and interactions of MovieLens-100K."""
    folder = data_folder() / "ml-100k"
    ratings = pq.read_table(folder / "ratings.parquet")
    ratings = ratings.rename_columns(
        ["event_timestamp" if name == "timestamp" else name for name in ratings.column_names]
    )
    return pq.read_table(folder / "movies.parquet"), ratings


def games() -> tuple[pa.Table, pa.Table]:
    """Items and interactions of LLMRank's games; a user's days follow its positions."""
    folder = data_folder() / "amazon-games-llmrank"
    with duckdb.connect() as session:
        session.execute("set TimeZone = 'UTC'")
        log = session.sql(GAMES.format(folder=folder)).to_arrow_table()
    return pq.read_table(folder / "items.parquet"), log


LOGS: Mapping[str, Callable[[], tuple[pa.Table, pa.Table]]] = {"ml-100k": movielens, "games": games}


def run(root: Path) -> dict[str, float]:
    """Run all stages as `reki run` does; seconds of all cores by stage."""
    context, seconds = StageContext.of(open_project(root)), {}
    for stage in (stages.generate, stages.encode, stages.train, stages.publish):
        began = time.process_time()
        stage(context)
        seconds[stage.__name__] = time.process_time() - began
    return seconds


def parts(root: Path) -> Parts:
    """The stored parts, each with its inode."""
    return {path: path.stat().st_ino for path in root.glob("data/**/*.parquet")}


def written(before: Parts, after: Parts) -> dict[str, Written]:
    """What each table got; a part that was written anew counts with all its rows."""
    new = [path for path, inode in after.items() if before.get(path) != inode]
    found = {}
    for name in sorted({path.parent.name for path in new}):
        rows = _read([path for path in new if path.parent.name == name])
        old = _read([path for path in before if path.parent.name == name and path not in new])
        found[name] = Written(
            rows.num_rows, _changed(rows, old, KEYS.get(name, [rows.schema.names[0]]))
        )
    return found


def _read(paths: list[Path]) -> pa.Table:
    """All rows of some parts, the newest last."""
    if not paths:
        return pa.table({})
    rows = pa.concat_tables(map(pq.read_table, sorted(paths)), promote_options="default")
    times = ("event_timestamp", "created_timestamp")
    order = [(name, "ascending") for name in times if name in rows.column_names]
    return rows.sort_by(order) if order else rows


def _changed(rows: pa.Table, old: pa.Table, keys: list[str]) -> int:
    """How many rows differ from the row before them of the same keys."""
    entity = "owner" if "owner" in keys else keys[0]
    if old.num_rows:
        old = old.filter(pc.is_in(old[entity], rows[entity].unique()))
    said = {tuple(row[name] for name in keys): row for row in old.to_pylist()}
    changed = 0
    for row in rows.to_pylist():
        key = tuple(row[name] for name in keys)
        last, said[key] = said.get(key), row
        changed += last is None or any(row[name] != last[name] for name in {*row} - _ABOUT)
    return changed


def measure(name: str) -> list[Row]:
    """The first run and a few days of a log."""
    items, log = LOGS[name]()
    times = np.sort(log["event_timestamp"].to_numpy())
    now = times[int(SHARE * len(times))].astype("datetime64[us]").astype(datetime)
    now = now.replace(tzinfo=UTC)
    with TemporaryDirectory(prefix="reki-increments-") as folder:
        root = Path(folder)
        (root / "generators").mkdir()
        (root / "generators" / "log.py").write_text(GENERATOR)
        pq.write_table(items, root / "items.parquet")
        until(root, log, now)
        first, rows = run(root), []
        for day in range(1, DAYS + 1):
            before, now = parts(root), now + _DAY
            users = until(root, log, now, since=now - _DAY)
            seconds = run(root)
            title = f"{name}, day {day}"
            rows.append(_row(f"{title}: users with news", users[0], users[1], "users; of all"))
            rows += [
                _row(f"{title}: {stage}", seconds[stage], first[stage], "s; first run")
                for stage in first
            ]
            rows += [
                _row(f"{title}: {table}", found.rows, found.changed, "rows written; changed")
                for table, found in written(before, parts(root)).items()
            ]
        return rows


def until(
    root: Path, log: pa.Table, now: datetime, since: datetime | None = None
) -> tuple[int, int]:
    """Write the log up to a time; how many users have news since another, of how many."""
    times = log["event_timestamp"]
    rows = log.filter(pc.less(times, pa.scalar(now, times.type)))
    pq.write_table(rows, root / "interactions.parquet")
    late = rows.filter(
        pc.greater_equal(rows["event_timestamp"], pa.scalar(since or now, times.type))
    )
    return pc.count_distinct(late["user_id"]).as_py(), pc.count_distinct(rows["user_id"]).as_py()


def _row(name: str, ours: float, reference: float, unit: str) -> Row:
    ratio = round(ours / reference, 4) if reference else None
    return {
        "name": name,
        "ours": round(ours, 2),
        "reference": round(reference, 2),
        "ratio": ratio,
        "unit": unit,
    }


def main(*names: str) -> None:
    """Measure, print the table, write ``build/bench/increments.json``."""
    rows = [row for name in names or tuple(LOGS) for row in measure(name)]
    finish("increments", "a day's run, beside the first", rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
