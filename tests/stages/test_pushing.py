"""States pushed online are those that a run publishes of the whole log."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

import reki_feast
from reki_feast import stages
from reki_feast.cli import app
from reki_feast.errors import CondenseError, SourceError, StoreError
from reki_feast.models.text_match import UserState, stored_state
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import Result
from reki_feast.stages import Pusher
from reki_feast.stages.state_updates import StateUpdater
from reki_feast.views.match_states import UserStates
from tests.stages.conftest import T0, in_space, make_shop, reseed, write_tables

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]

BEFORE, ALL = 1000, 1200
SIZES = (32 * 33 + 32, 43)
EVENTS, COUNT = 34, 35  # places in the sums
TICK = timedelta(microseconds=1)
Row = dict[str, Any]
Trained = tuple[Path, list[Row], list[Row]]

FEATURES = """
from feast import Entity, ValueType
from reki_feast.views import reki_match

user = Entity(name="user", join_keys=["customer_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["sku"], value_type=ValueType.STRING)
match, users, items = reki_match("../data/shop", user=user, item=item, prefix="mine")
"""
CONFIG = """
project: {project}
provider: local
registry: registry.db
offline_store: {{type: {offline}}}
online_store: {online}
entity_key_serialization_version: 3
"""
OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
DUCKDB = "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"


def hourly(n: int) -> datetime:
    return T0 + timedelta(hours=n)


def tied(n: int) -> datetime:
    """Two dozen interactions a moment, which is not a day's beginning."""
    return T0 + timedelta(hours=n // 24 * 24 + 7, microseconds=5)


def daily(n: int) -> datetime:
    return T0 + timedelta(days=n // 24)


LOGS: dict[str, Callable[[int], datetime]] = {"hours": hourly, "ties": tied, "days": daily}


def log_of(root: Path, when: Callable[[int], datetime]) -> list[Row]:
    """The whole log in the order of time; two users come late, and act as often as others."""
    write_tables(root, interactions=ALL)
    rows: list[Row] = pq.read_table(root / "interactions.parquet").to_pylist()
    once = {}
    for n, row in enumerate(rows):
        if n >= BEFORE and n % 9 == 0:
            row["customer_id"] = f"new {n % 2}"
        row["event_timestamp"] = when(n)
        once[row["customer_id"], row["sku"], row["event_timestamp"]] = row
    kept = rows if when is daily else list(once.values())
    return sorted(kept, key=lambda row: (row["event_timestamp"], int(row["sku"][2:])))


def write_log(project: DeclaredProject, rows: Sequence[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), project.root / "interactions.parquet")


@pytest.fixture(scope="module", params=list(LOGS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A shop that ran on most of its log, and the log's two parts."""
    when = LOGS[request.param]
    project = make_shop(tmp_path_factory.mktemp("pushing") / "my shop")
    rows = log_of(project.root, when)
    begun = [row for row in rows if row["event_timestamp"] < when(BEFORE)]
    write_log(project, begun)
    stages.run(project)
    return project.root, begun, rows[len(begun) :]


in_hours = pytest.mark.parametrize("trained", ["hours"], indirect=True)
in_both_stores = pytest.mark.parametrize("online", ["redis", "sqlite"])


@pytest.fixture
def online() -> str:
    return "redis"


@pytest.fixture
def shop(trained: Trained, tmp_path: Path, redis_address: str, online: str) -> DeclaredProject:
    """A copy of it, its states online."""
    root = tmp_path / "my shop"
    shutil.copytree(trained[0], root)
    repo = root / "feature_repo"
    repo.mkdir()
    named = "p" + "".join(c for c in tmp_path.name if c.isalnum())
    where = {
        "redis": {"type": OURS, "connection_string": redis_address},
        "sqlite": {"type": "sqlite", "path": str(repo / "online.db")},
    }[online]
    offline = DUCKDB if online == "redis" else "duckdb"
    config = CONFIG.format(project=named, offline=offline, online=json.dumps(where))
    (repo / "feature_store.yaml").write_text(config)
    (repo / "features.py").write_text(FEATURES)
    project = open_project(root)
    stages.publish(project, materialize=True)
    return project


def states_of(
    project: DeclaredProject, users: Sequence[str], number: int | None = None
) -> list[UserState]:
    """What is online now, in service or in a space."""
    states = UserStates(project.feature_repo, project.name, project.data / "user_match", number)
    return read(states, users)


def current(pusher: Pusher) -> StateUpdater:
    """Of the space in service."""
    return pusher._spaces[1][0]


def read(states: UserStates, users: Sequence[str]) -> list[UserState]:
    return [stored_state(*row) for row in states.read(users, SIZES) if row]


def published(project: DeclaredProject) -> dict[tuple[str, int], tuple[list[float], list[float]]]:
    """The offline rows, by user and time."""
    found = {}
    for part in project.lake.parts("user_match"):
        table = pq.read_table(part)
        times = table["event_timestamp"].cast(pa.int64()).to_pylist()
        columns = (table[name].to_pylist() for name in ("customer_id", "user_match", "user_sums"))
        for user, time, *vectors in zip(*[next(columns), times, *columns], strict=True):
            found[user, time] = vectors[0], vectors[1]
    return found


def counts(report: Result) -> dict[str, int]:
    return {row["what"]: row["count"] for row in report.plain()["tables"]["pushed"]}


def parted(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    for at in range(0, len(rows), size):
        yield list(rows[at : at + size])


def micros(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // TICK


def equal(state: UserState, row: tuple[list[float], list[float]]) -> None:
    np.testing.assert_allclose(state.vector, row[0], atol=1e-4)
    np.testing.assert_allclose(state.sums, row[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 37])
def test_states_online_are_those_of_a_run_on_the_whole_log(
    shop: DeclaredProject, trained: Trained, size: int
) -> None:
    _, begun, rest = trained
    pusher = Pusher(shop)
    seen: dict[tuple[str, int], UserState] = {}
    for some in parted(rest, size):
        for row in some:  # a state that lacked some of a moment
            seen.pop((row["customer_id"], micros(row["event_timestamp"]) + 1), None)
        assert counts(pusher.push(some))["interactions counted"] == len(some)
        users = list({row["customer_id"] for row in some})
        for user, state in zip(users, read(current(pusher)._states, users), strict=True):
            seen[user, state.stamp] = state
    write_log(shop, [*begun, *rest])
    stages.run(shop)
    offline = published(shop)
    for place, state in seen.items():
        equal(state, offline[place])
    assert {"new 0", "new 1"} <= {user for user, _ in seen}
    assert max(state.sums[EVENTS] for state in seen.values()) > 40  # more than a state remembers


@in_hours
@in_both_stores
def test_scores_online_are_those_of_a_training_table(
    shop: DeclaredProject, trained: Trained
) -> None:
    _, begun, rest = trained
    reki_feast.push(pa.Table.from_pylist(rest[:90]), shop.root)
    users = [*sorted({row["customer_id"] for row in rest[:90]}), "nobody"]
    pairs = [(user, f"s-{n % 20}") for n, user in enumerate(users)]
    rows = [{"customer_id": user, "sku": item} for user, item in pairs]
    scores = ["score", "text_wide", "text_near", "hein"]
    refs = [f"mine_match:{score}" for score in scores]
    store = FeatureStore(repo_path=str(shop.feature_repo))
    online = store.get_online_features(features=refs, entity_rows=rows).to_df()
    write_log(shop, [*begun, *rest])
    stages.run(shop)
    asked = pd.DataFrame(rows).assign(event_timestamp=rest[89]["event_timestamp"] + TICK)
    offline = store.get_historical_features(entity_df=asked, features=refs).to_df()
    joined = online.merge(offline, on=["customer_id", "sku"], suffixes=("", "_then"))
    assert len(joined) == len(pairs)
    for score in scores:
        np.testing.assert_allclose(
            joined[score].astype(float), joined[f"{score}_then"].astype(float), atol=1e-4
        )
    assert joined["score"].astype(float).std() > 1e-3


@in_hours
@in_both_stores
def test_states_pushed_one_by_one_are_those_of_both_stores(
    shop: DeclaredProject, trained: Trained
) -> None:
    rest = trained[2][:60]
    pusher = Pusher(shop)
    for row in rest:
        pusher.push([row])
    users = sorted({row["customer_id"] for row in rest})
    one_by_one = states_of(shop, users)
    write_log(shop, [*trained[1], *rest])
    stages.run(shop)
    offline = published(shop)
    for user, state in zip(users, one_by_one, strict=True):
        equal(state, offline[user, state.stamp])
    stages.publish(shop, materialize=True)
    for state, again in zip(one_by_one, states_of(shop, users), strict=True):
        assert state.stamp == again.stamp
        equal(state, (again.vector.tolist(), again.sums.tolist()))


@in_hours
def test_late_strange_and_repeated_interactions_are_told(
    shop: DeclaredProject, trained: Trained
) -> None:
    _, begun, rest = trained
    pusher, user = Pusher(shop), rest[5]["customer_id"]
    pusher.push(rest[5:6])
    before = states_of(shop, [user])
    late = {**begun[-1], "customer_id": user, "event_timestamp": rest[4]["event_timestamp"] + TICK}
    strange = {**rest[7], "sku": "s-99"}
    ahead = {**rest[8], "customer_id": user, "event_timestamp": T0 + timedelta(days=99_999)}
    report = pusher.push([late, strange, rest[5], ahead])
    assert counts(report) == {
        "interactions counted": 0,
        "late, left to the next run": 1,
        "known already": 1,
        "of unknown items, left out": 1,
        "users brought up to date": 0,
        "of them new": 0,
    }
    assert "`reki run` counts them" in " ".join(report.notes)
    assert "their sku is not in the items" in " ".join(report.notes)
    assert "1 interactions left out: they lie in the future" in " ".join(report.notes)
    found = states_of(shop, [user])
    equal(found[0], (before[0].vector.tolist(), before[0].sums.tolist()))
    report = pusher.push([{**rest[6], "customer_id": "new"}])
    assert counts(report)["of them new"] == 1
    (state,) = states_of(shop, ["new"])
    assert state.sums[COUNT] == 1
    assert counts(pusher.push([])) == dict.fromkeys(counts(report), 0)


in_times = pytest.mark.parametrize("trained", ["hours", "ties"], indirect=True)


@in_times
def test_what_another_process_pushed_is_not_counted_again(
    shop: DeclaredProject, trained: Trained
) -> None:
    """As after one that was killed when some users' states were written."""
    rest = [row for row in trained[2][:60] if row["event_timestamp"].hour]
    users = sorted({row["customer_id"] for row in rest})
    Pusher(shop).push([row for row in rest if row["customer_id"] in users[::2]])
    first = counts(Pusher(shop).push(rest))
    assert first["users brought up to date"] == len(users[1::2])
    assert first["known already"] >= len(users[::2])
    once = states_of(shop, users)
    again = counts(Pusher(shop).push(rest))
    assert (again["interactions counted"], again["users brought up to date"]) == (0, 0)
    for state, other in zip(once, states_of(shop, users), strict=True):
        assert (state.sums.tolist(), state.vector.tolist()) == (
            other.sums.tolist(),
            other.vector.tolist(),
        )


@pytest.mark.parametrize("trained", ["ties", "days"], indirect=True)
def test_another_item_at_the_same_time_counts(shop: DeclaredProject, trained: Trained) -> None:
    """Whichever process pushes it; of days, the same item does, too."""
    rest = trained[2]
    moments = defaultdict(list)
    for row in rest:
        moments[row["customer_id"], row["event_timestamp"]].append(row)
    (one, other), *_ = (rows[:2] for rows in moments.values() if len(rows) > 1)
    assert counts(Pusher(shop).push([one]))["interactions counted"] == 1
    assert counts(Pusher(shop).push([other]))["interactions counted"] == 1
    is_day = one["event_timestamp"] == one["event_timestamp"].replace(hour=0, microsecond=0)
    assert counts(Pusher(shop).push([other]))["interactions counted"] == is_day


@pytest.mark.parametrize("trained", ["days"], indirect=True)
@pytest.mark.parametrize("again", ["the same process", "another process", "after a run"])
def test_what_repeats_without_a_time_of_day_is_counted_and_told(
    shop: DeclaredProject, trained: Trained, again: str
) -> None:
    _, begun, (row, *_) = trained
    pusher = Pusher(shop)
    assert pusher.push([row, row]).notes == []  # two of one push are two
    if again == "after a run":
        write_log(shop, [*begun, row, row])
        stages.run(shop, materialize=True)
    second = (pusher if again == "the same process" else Pusher(shop)).push([row])
    assert second.counted == 1
    (note,) = second.notes
    assert note.startswith("1 interactions have a date without a time of day, and are like ones")
    assert "`reki run --materialize`" in note
    write_log(shop, [*begun, row, row])
    stages.run(shop, materialize=True)
    (state,) = states_of(shop, [row["customer_id"]])
    equal(state, published(shop)[row["customer_id"], state.stamp])


@in_hours
def test_a_user_who_is_not_online_gets_the_whole_history(
    shop: DeclaredProject, trained: Trained
) -> None:
    """As after a publication that was not materialized."""
    _, begun, rest = trained
    write_log(shop, [*begun, *rest[:-1]])
    pusher, user = Pusher(shop), rest[-1]["customer_id"]
    pusher.push([rest[-1]])
    (state,) = states_of(shop, [user])
    write_log(shop, [*begun, *rest])
    stages.run(shop)
    equal(state, published(shop)[user, state.stamp])


@in_hours
def test_a_run_between_two_pushes_is_noticed(shop: DeclaredProject, trained: Trained) -> None:
    _, begun, rest = trained
    pusher = Pusher(shop)
    pusher.push(rest[:50])
    opened = current(pusher)._opened
    write_log(shop, [*begun, *rest[:30]])
    stages.run(shop, materialize=True)
    for row in rest[50:100]:
        pusher.push(pd.DataFrame([row]))
    assert current(pusher)._opened != opened
    users = sorted({row["customer_id"] for row in rest[:100]})
    found = states_of(shop, users)
    write_log(shop, [*begun, *rest])
    stages.run(shop)
    offline = published(shop)
    for user, state in zip(users, found, strict=True):
        equal(state, offline[user, state.stamp])


@in_hours
def test_states_are_pushed_in_every_space_that_is_served(
    shop: DeclaredProject, trained: Trained
) -> None:
    """An open Pusher follows what is promoted; what no run knows of is there in both spaces."""
    _, begun, rest = trained
    pusher = Pusher(shop)
    pusher.push(rest[:20])
    anew = reseed(shop.root, 7)
    stages.train(anew, retrain=True)
    stages.publish(anew)
    pusher.push(rest[20:30])  # the repo serves no other space yet
    users = sorted({row["customer_id"] for row in rest[:40]})
    stages.publish(anew, materialize=True)
    stages.promote(anew)
    assert counts(pusher.push(rest[30:40]))["interactions counted"] == 10
    old, new = (states_of(shop, users, number) for number in (0, 1))
    write_log(shop, [*begun, *rest[:40]])
    stages.run(anew)
    for number, found in enumerate((old, new)):
        offline = published(in_space(anew, number))
        for user, state in zip(users, found, strict=True):
            equal(state, offline[user, state.stamp])
    assert any(a.vector.tolist() != b.vector.tolist() for a, b in zip(old, new, strict=True))


@in_hours
def test_states_of_weights_that_are_not_published_are_not_pushed(
    shop: DeclaredProject, trained: Trained
) -> None:
    """As where an earlier version has trained anew in place."""
    path = shop.data / "hein.json"
    stored = json.loads(path.read_text())
    del stored["checksum"]
    path.write_text(json.dumps({**stored, "hash": "another"}))
    with pytest.raises(StoreError, match=r"(?s)published weights.*trained since.*--materialize"):
        Pusher(shop)


@in_hours
def test_an_item_without_a_text_adds_to_the_counts(shop: DeclaredProject, trained: Trained) -> None:
    _, begun, rest = trained
    path = shop.root / "items.parquet"
    items = pq.read_table(path).to_pylist()
    new = {**items[0], "sku": "s-20", "title": "new"}
    pq.write_table(pa.Table.from_pylist([*items, new]), path)
    user = rest[9]["customer_id"]
    first = {**rest[9], "sku": "s-20"}
    then = {**rest[9], "event_timestamp": rest[9]["event_timestamp"] + timedelta(days=30)}
    pusher, (before,) = Pusher(shop), states_of(shop, [user])
    pusher.push([first])
    (state,) = states_of(shop, [user])
    np.testing.assert_allclose(state.vector[:-32], before.vector[:-32], atol=1e-5)
    assert state.sums[COUNT] == before.sums[COUNT] + 1
    assert state.sums[EVENTS] == before.sums[EVENTS]
    # its text comes with a run, and counts with the user's next interaction
    write_log(shop, [*begun, *rest[:9], first, *rest[10:]])
    stages.run(shop)
    pusher.push([then])
    (state,) = states_of(shop, [user])
    write_log(shop, [*begun, *rest[:9], first, *rest[10:], then])
    stages.run(shop)
    equal(state, published(shop)[user, state.stamp])


@in_hours
def test_faults_of_rows_are_told_together(shop: DeclaredProject, trained: Trained) -> None:
    pusher, row = Pusher(shop), trained[2][0]
    with pytest.raises(SourceError) as raised:
        pusher.push([{"customer_id": 7, "sku": row["sku"], "stars": "many"}])
    said = str(raised.value)
    assert "interactions.customer_id: ids are of the type of the project's tables" in said
    assert "interactions.stars: a rating is a number" in said
    assert "event_timestamp" in said
    with pytest.raises(SourceError, match="has a column stars"):
        pusher.push([{name: value for name, value in row.items() if name != "stars"}])
    with pytest.raises(SourceError, match="no id is null"):
        pusher.push([row, {**row, "customer_id": None}])
    with pytest.raises(SourceError, match="a list of dicts"):
        pusher.push([row, {**row, "customer_id": 7}])
    with pytest.raises(SourceError, match="event_timestamp: is a timestamp"):
        pusher.push([{**row, "event_timestamp": "yesterday"}])
    report = pusher.push([{**row, "stars": None}])
    assert counts(report)["interactions counted"] == 0
    assert "is null for them" in report.notes[0]


def test_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(CondenseError, match="none are fitted"):
        Pusher(make_shop(tmp_path / "shop"))


@in_hours
def test_there_is_no_feature_repo_or_no_view(trained: Trained, shop: DeclaredProject) -> None:
    with pytest.raises(StoreError, match=r"no .*feature_store.yaml"):
        Pusher(open_project(trained[0]))
    with pytest.raises(StoreError, match="views: mine_.*_match, mine_.*_match"):
        UserStates(shop.feature_repo, "another", shop.data / "another")


@in_hours
def test_the_command(
    shop: DeclaredProject, trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "new rows.csv"
    pd.DataFrame(trained[2][:20]).to_csv(file, index=False)
    assert app.main(["push", str(file), "--project", str(shop.root), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tables"]["pushed"][0] == {"what": "interactions counted", "count": 20}
    assert app.main(["push", "absent.csv", "--project", str(shop.root)]) == 2
    assert "absent.csv" in capsys.readouterr().err
