"""What is made as of a time knows nothing of what happened at it or later; and projects of before.

A row of a training table joins features of its own time, so that one label more would be its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.knowledge import PromptTables, history_texts
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages import grouping
from reki_feast.stages.context import StageContext
from reki_feast.stages.liked_means import LikedMeans, with_taste
from reki_feast.stages.prompting import Prompting, prompts_at
from reki_feast.stages.training_data import training_data
from reki_feast.tables.asof import TICK, after
from reki_feast.tables.lake import Lake
from reki_feast.tables.snapshot_times import split
from tests.stages.conftest import T0, in_space, make_shop
from tests.stages.test_grouping import collective

TABLES = ("knowledge", "members", "groups", "user_representation", "item_representation")
DAYS = [T0 + timedelta(days=day) for day in (8, 16)]


def individual(text: str) -> str:
    return text.replace('model="hash"', 'model="hash", taste=True')


def incremental(text: str) -> str:
    said = "freshness = Freshness(min_new=2, incremental=True)"
    return individual(text).replace("import LLM", "import LLM, Freshness") + said + "\n"


def log(project: DeclaredProject) -> pa.Table:
    return pq.read_table(project.root / "interactions.parquet")


def write_log(project: DeclaredProject, stars: Callable[[int, datetime], int]) -> None:
    """The shop's log by whole days, each row's stars made anew."""
    rows = log(project).to_pylist()
    for row in rows:
        row["event_timestamp"] = row["event_timestamp"].replace(hour=0)
        row["stars"] = stars(row["stars"], row["event_timestamp"])
    pq.write_table(pa.Table.from_pylist(rows), project.root / "interactions.parquet")


def stored(project: DeclaredProject, name: str, time: datetime) -> list[str]:
    """The rows as of a time and before, but for when they were made."""
    rows = [row for path in project.lake.parts(name) for row in pq.read_table(path).to_pylist()]
    kept = [row for row in rows if row.pop("created_timestamp") and row["event_timestamp"] <= time]
    return sorted(map(repr, kept))


@pytest.mark.parametrize("edit", [individual, incremental, collective])
@pytest.mark.parametrize("time", DAYS)
def test_no_row_knows_a_label_of_its_own_time_or_later(
    tmp_path: Path, edit: Callable[[str], str], time: datetime
) -> None:
    def made(name: str, since: datetime) -> dict[str, list[str]]:
        """What is stored of a log whose stars are turned round from a time on."""
        project = make_shop(tmp_path / name, edit)
        write_log(project, lambda stars, when: 6 - stars if when >= since else stars)
        stages.generate(project, as_of=DAYS)
        stages.encode(project, as_of=DAYS)
        return {table: stored(project, table, time) for table in TABLES}

    found = made("as it is", T0 + timedelta(days=999))
    assert made("from then on", time) == found
    earlier = made("from the day before on", time - timedelta(days=1))
    assert earlier["user_representation"] != found["user_representation"]
    grouped = {"members", "groups"} if edit is collective else set()
    assert {table for table, rows in found.items() if rows} == grouped | {
        *("knowledge", "user_representation", "item_representation")
    }


def test_an_interaction_at_the_as_of_time_is_in_nothing_made_then(tmp_path: Path) -> None:
    project = make_shop(tmp_path, individual)
    row = log(project).to_pylist()[400]
    at, who = row["event_timestamp"], row["customer_id"]
    context = StageContext.of(project)
    given, style = context.tables, context.prompt_style(context.factors())
    prompting = Prompting(context, style, unanswered=lambda table: table, redact=context.redact())
    key = schema.representation(given.item, ["knowledge"])
    ids = given.items[given.item.name]
    vectors = pa.array(np.eye(20, dtype=np.float32).tolist(), schema.VECTOR)
    times = [pa.repeat(pa.scalar(at, schema.TIMESTAMP), 20)] * 2
    items = pa.table([ids, vectors, pa.repeat("h", 20), *times], schema=key)
    users = pa.table({"customer_id": [who], "hash": ["h"], "event_timestamp": [at]})
    users = users.append_column("created_timestamp", users["event_timestamp"])

    def counted(time: datetime) -> list[Any]:
        rows = split(given, time, 30)
        asked = prompts_at(prompting, time, first=False)
        texts = history_texts(PromptTables(given.users, given.items, rows), as_of=time, **style)
        taste = with_taste(users, LikedMeans.of(given, items, time, 10**6))["taste"]
        return [
            _of(asked.prompts, who, "prompt"),
            _of(texts, who, "text"),
            taste.to_pylist(),
            grouping._seen(context, time).num_rows,
        ]

    before, at_it, later = (counted(time) for time in (at - TICK, at, after(at)))
    assert before == at_it
    assert [one == other for one, other in zip(at_it[:2], later[:2], strict=True)] == [False] * 2
    assert (at_it[2] == later[2]) == (row["stars"] < 4)
    assert (at_it[3], later[3]) == (400, 401)


def _of(table: pa.Table, owner: str, column: str) -> str:
    found: str = table.filter(pc.field("owner") == owner)[column][0].as_py()
    return found


def test_labels_that_are_learnt_come_before_the_last_snapshot(tmp_path: Path) -> None:
    project = make_shop(tmp_path)
    write_log(project, lambda stars, _: stars)
    first, last = DAYS[1], DAYS[1] + timedelta(days=5)
    stages.encode(project, as_of=[first, last])
    found = training_data(project)
    assert (found.time, found.until) == (first, last)
    when = found.interactions["event_timestamp"].to_pylist()
    sample = found.interactions["sample"].to_pylist()
    assert max(when) == last - timedelta(days=1)
    assert sample == [time >= first for time in when]


# --- projects of the version before, whose snapshots knew what happened at their time -------------


def as_before(project: DeclaredProject, *, trained: bool) -> DeclaredProject:
    """Stamp all that is stored a tick earlier: at the time of the interaction that it knows.

    What prompts were made of was not stored then.
    """
    shutil.rmtree(project.data / "asked")
    for path in project.data.rglob("*.parquet"):
        table = pq.read_table(path)
        if "event_timestamp" in table.column_names:
            at = table.column_names.index("event_timestamp")
            times = table["event_timestamp"].cast(pa.int64()).to_numpy() - 1
            column = pa.array(times, pa.int64()).cast(schema.TIMESTAMP)
            pq.write_table(table.set_column(at, table.schema.field(at), column), path)
    chosen = project.lake.read_json("snapshots") or {}
    first = [datetime.fromisoformat(text) - TICK for text in chosen["first"]]
    project.lake.write_json("snapshots", {"first": [time.isoformat() for time in first]})
    made = project.lake.read_json("hein") or {}
    assert made.pop("exclusive")
    made["trained_until"] = first[-1].isoformat()
    (project.data / "hein.json").write_text(json.dumps(made))
    if not trained:
        (project.data / "hein.json").unlink()
    return open_project(project.root)


def asked(project: DeclaredProject) -> int:
    found: int = stages.run(project).plain()["tables"]["calls"][0]["asked"]
    return found


def few(text: str) -> str:
    fresh = "freshness = Freshness(min_new=3)\n"
    return text.replace("import LLM", "import LLM, Freshness") + fresh


@pytest.mark.parametrize("edit", [str, few, collective])
def test_a_trained_project_of_before_goes_on_and_asks_nothing_again(
    tmp_path: Path, edit: Callable[[str], str]
) -> None:
    project = make_shop(tmp_path / "shop", edit)
    stages.run(project)
    old = as_before(project, trained=True)
    before = project.lake.parts("user_representation")
    assert asked(old) == 0
    assert old.lake.parts("user_representation") == before
    manifest = old.lake.read_json("manifest") or {}
    last = T0 + timedelta(hours=599)
    assert manifest["snapshots"][-1] == last.isoformat()
    assert manifest["trained_until"] == after(last).isoformat()


def test_an_untrained_project_of_before_asks_about_those_whose_last_row_was_at_the_time(
    tmp_path: Path,
) -> None:
    project = make_shop(tmp_path / "shop")
    stages.run(project)
    old = as_before(project, trained=False)
    assert asked(old) == 2  # one at each of the two times
    last = T0 + timedelta(hours=599)
    assert (old.lake.read_json("manifest") or {})["trained_until"] == last.isoformat()
    assert asked(open_project(old.root)) == 0  # the last snapshot of all; it is known already


def test_rows_of_before_are_made_anew_when_their_times_are_named(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "old")
    stages.run(project)
    old = as_before(project, trained=True)
    wanted = [T0 + timedelta(hours=299), T0 + timedelta(hours=599)]
    stages.run(old, as_of=wanted, retrain=True)
    new = make_shop(tmp_path / "new")
    stages.run(new, as_of=wanted)
    again = in_space(old, 1)
    for time in wanted:
        assert held(again, time) == held(new, time)


def held(project: DeclaredProject, time: datetime) -> dict[str, tuple[str, list[float]]]:
    """The newest representation of each customer as of a time."""
    key = schema.Key("customer_id", pa.string())
    made = schema.representation(key, ["knowledge", "history"])
    rows = project.lake.snapshot("user_representation", made, [key.name], time).to_pylist()
    return {row[key.name]: (row["hash"], row["history"]) for row in rows}


@pytest.mark.parametrize("nth", range(9))
def test_an_encode_that_was_killed_between_users_and_items_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Of knowledge that is older than every snapshot that the log itself asks for."""

    def made(name: str) -> DeclaredProject:
        project = make_shop(tmp_path / name, individual)
        stages.generate(project)
        pq.write_table(pa.table({"sku": ["s-1"], "price": ["low"]}), project.root / "texts.parquet")
        texts = {"items": str(project.root / "texts.parquet")}
        stages.import_knowledge(project, texts, as_of=[T0 + timedelta(days=11)], gates=False)
        return project

    whole, cut = made("whole"), made("cut")
    stages.encode(whole)
    append, count = Lake.append, 0

    def killed(lake: Lake, name: str, *args: Any, **options: Any) -> Any:
        nonlocal count
        if name.endswith("_representation"):
            count += 1
            if count > nth:
                raise KeyboardInterrupt("killed")
        return append(lake, name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "append", killed)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            stages.encode(cut)
    stages.encode(cut)
    ever = datetime.max.replace(tzinfo=UTC)
    for name in ("user_representation", "item_representation"):
        assert stored(cut, name, ever) == stored(whole, name, ever)
