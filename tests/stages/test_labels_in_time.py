"""Nothing published knows a label of its future: its texts do not, nor do its weights."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.models.metrics import auc
from reki_feast.models.text_match import candidates, make_events, scores
from reki_feast.project import DeclaredProject
from reki_feast.stages.context import StageContext
from reki_feast.stages.matching import fitted_scores, match_data
from reki_feast.stages.snapshots import times as stored_times
from reki_feast.tables.asof import TICK
from tests.stages.conftest import T0, in_space, make_shop, write_tables

PUBLISHED = [
    f"{kind}_{table}"
    for kind in schema.KINDS
    for table in ("aug", "match", "knowledge", "representation")
]
LAST = T0 + timedelta(hours=599)


def taught(text: str) -> str:
    """The shop with all that learns from labels."""
    text = text.replace('model="hash"', 'model="hash", taste=True')
    return text.replace("epochs=1", "epochs=1, match=1, folds=2")


def run(
    root: Path, *, flipped: datetime | None = None, whole_days: bool = False
) -> DeclaredProject:
    """The shop, whose stars are turned round from a time on."""
    project = make_shop(root, taught)
    path = project.root / "interactions.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        if whole_days:
            row["event_timestamp"] = row["event_timestamp"].replace(hour=0)
        if flipped is not None and row["event_timestamp"] >= flipped:
            row["stars"] = 6 - row["stars"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    stages.run(project)
    return project


def published(project: DeclaredProject, table: str, until: datetime) -> list[str]:
    """The rows of a table as of a time and before, but for when they were made."""
    rows = [row for path in project.lake.parts(table) for row in pq.read_table(path).to_pylist()]
    kept = [row for row in rows if row.pop("created_timestamp") and row["event_timestamp"] <= until]
    return sorted(map(repr, kept))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    return run(tmp_path_factory.mktemp("in time") / "my shop")


@pytest.fixture(scope="module")
def shop_by_days(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    return run(tmp_path_factory.mktemp("by days") / "my shop", whole_days=True)


@pytest.mark.parametrize("hours", [0, 300, 451, 599])
def test_labels_from_a_time_on_change_no_row_as_of_it_or_before(
    shop: DeclaredProject, tmp_path: Path, hours: int
) -> None:
    time = T0 + timedelta(hours=hours)
    other = run(tmp_path / "my shop", flipped=time)
    for table in PUBLISHED:
        assert published(other, table, time) == published(shop, table, time), table
    # the test can fail: what came after has changed
    later = LAST + timedelta(days=1)
    assert published(other, "user_match", later) != published(shop, "user_match", later)


def test_the_same_of_a_log_of_whole_days(shop_by_days: DeclaredProject, tmp_path: Path) -> None:
    time = T0 + timedelta(days=20)
    other = run(tmp_path / "my shop", flipped=time, whole_days=True)
    for table in PUBLISHED:
        assert published(other, table, time) == published(shop_by_days, table, time), table
    assert published(other, "user_aug", time)
    assert published(other, "item_match", time)


def test_rows_are_stamped_after_the_labels_that_their_weights_have_seen(
    shop: DeclaredProject,
) -> None:
    made = shop.lake.read_json("hein") or {}
    cuts = [datetime.fromisoformat(block["cut"]) for block in made["blocks"]]
    assert len(cuts) >= 5
    assert cuts[-1] == LAST + TICK == datetime.fromisoformat(made["trained_until"])
    for kind in schema.KINDS:
        times = [
            time
            for path in shop.lake.parts(f"{kind}_aug")
            for time in pq.read_table(path)["event_timestamp"].to_pylist()
        ]
        assert min(times) == cuts[0]
        assert set(cuts) <= set(times)


def test_labels_by_chance_are_scored_by_chance(tmp_path: Path) -> None:
    """What a job would join to its own training rows tells nothing of labels drawn by lot."""
    project = make_shop(tmp_path / "shop", taught)
    write_tables(project.root, interactions=2000)
    path = project.root / "interactions.parquet"
    log = pq.read_table(path)
    stars = np.random.default_rng(7).choice([1, 5], log.num_rows)
    at = log.column_names.index("stars")
    pq.write_table(log.set_column(at, "stars", pa.array(stars)), path)
    stages.run(project)
    fitted = fitted_scores(project)
    assert fitted is not None
    found = match_data(StageContext.of(project), fitted)
    assert found is not None
    encoded = fitted.encode(found.texts)
    events = make_events(found.log, encoded)
    seen = candidates(found.log, events, encoded, fitted.settings)
    made = scores(fitted, found.log, encoded, seen)
    rows = seen.valid & (fitted.number(found.log.time) > 0)
    likes = found.log.liked[rows]
    error = np.sqrt(len(likes) / (12 * likes.sum() * (len(likes) - likes.sum())))
    assert len(likes) > 500
    for column, name in enumerate(fitted.settings.names):
        assert abs(auc(likes, made[rows, column]) - 0.5) < 3 * error, name


def test_another_training_leaves_no_row_of_the_one_before(tmp_path: Path) -> None:
    project = run(tmp_path / "my shop")
    path = project.declared.path
    path.write_text(path.read_text().replace("epochs=1", "epochs=1, blocks=3"))
    from reki_feast.project import open_project

    again = open_project(project.root)
    stages.run(again, retrain=True)
    again = in_space(again, 1)
    made = again.lake.read_json("hein") or {}
    cuts = [datetime.fromisoformat(block["cut"]) for block in made["blocks"]]
    assert len(cuts) == 3
    key = schema.Key("customer_id", pa.string())
    rows = again.lake.read("user_aug", schema.augmented(key, "user"))
    times = set(rows["event_timestamp"].to_pylist())
    snapshots = stored_times(again, "user_representation")
    assert times == {*cuts, *(time for time in snapshots if time > cuts[0])}
    assert {row.added for row in stages.publish(project).published} == {0}


def test_weights_of_before_blocks_make_vectors_from_their_last_label_on(tmp_path: Path) -> None:
    project = run(tmp_path / "my shop")
    path = project.data / "hein.json"
    made = json.loads(path.read_text())
    until = datetime.fromisoformat(made["trained_until"])
    del made["blocks"], made["exclusive"], made["checksum"]
    # the time of the last label itself, as it was written then
    made["trained_until"] = (until - TICK).isoformat()
    path.write_text(json.dumps(made))
    (project.data / "match.safetensors").unlink()
    weights = project.lake.weights()
    stages.publish(project)
    assert "match" not in (project.lake.read_json("manifest") or {})
    for kind in schema.KINDS:
        tables = [pq.read_table(part) for part in project.lake.parts(f"{kind}_aug")]
        times = {time for table in tables for time in table["event_timestamp"].to_pylist()}
        assert times == {until}
    stages.run(project)  # fits scores; the weights stand
    assert "match" in (project.lake.read_json("manifest") or {})
    again = project.lake.weights()
    assert weights is not None
    assert again is not None
    assert again[1]["digest"] == weights[1]["digest"]


def test_users_vectors_lean_on_the_default_where_little_is_known(tmp_path: Path) -> None:
    """A vector of n interactions goes n / (n + shrink) of the way from the default to its own."""
    made = {}
    for shrink in (0, 8):
        root = tmp_path / str(shrink)
        project = make_shop(root, partial(re.sub, "epochs=1", f"epochs=1, shrink={shrink}"))
        stages.run(project)
        made[shrink] = project
    stored = {
        shrink: {
            (row["customer_id"], row["event_timestamp"]): row["user_aug"]
            for path in project.lake.parts("user_aug")
            for row in pq.read_table(path).to_pylist()
        }
        for shrink, project in made.items()
    }
    log = pq.read_table(made[0].root / "interactions.parquet").to_pylist()
    default = np.array((made[0].lake.read_json("manifest") or {})["user"]["default"])
    last = max(time for _, time in stored[0])
    for (user, time), own in stored[0].items():
        if time != last:  # the default of earlier blocks is not published
            continue
        count = sum(row["customer_id"] == user and row["event_timestamp"] < time for row in log)
        wanted = default + count / (count + 8) * (np.array(own) - default)
        np.testing.assert_allclose(stored[8][user, time], wanted, atol=1e-5)
    assert stored[0].keys() == stored[8].keys()
