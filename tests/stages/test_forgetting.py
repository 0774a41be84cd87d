"""Whom `reki forget` removed is nowhere: not online, in no table, in no byte of the ledger."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from reki_feast import schema, stages
from reki_feast.cli import app
from reki_feast.errors import DeclarationError, LLMError, SourceError, StoreError
from reki_feast.llm.ledger import invariants, reports, runs
from reki_feast.llm.ledger.processes import this_process
from reki_feast.llm.ledger.records import RunIdentity
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import Result
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.deletion import Leaving
from reki_feast.stages.group_state import CHANNELS, load
from reki_feast.stores import embedded
from tests.stages.conftest import make_shop

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]

#: Ids with what breaks SQL, templates, patterns, separators and lines; each begins with its mark.
USER, ITEM = "zquser'\"{{ }}%\\*?[a]\n\x1f☃; --", "zqitem\"'${x}\t*\x1f☃|,"
#: Says where the user lives, and stands in nobody else's prompt.
REGION = "zqregion"
#: The shop's own tables, which nobody but the shop changes.
OWN = {"users.parquet", "items.parquet", "interactions.parquet"}
OWN |= {"feature_repo/visits.parquet", "feature_repo/pairs.parquet"}
MARKS = ("zquser", "zqitem", REGION)
NAMES: dict[Kind, dict[str, str]] = {"user": {"c'3": USER}, "item": {"s-7": ITEM}}

FEATURES = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64
from reki_feast.views import reki_match, reki_views

user = Entity(name="user", join_keys=["customer_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["sku"], value_type=ValueType.STRING)
scores = reki_match("../data/shop", user=user, item=item)
match, match_user, match_item = scores
reki, reki_item, user_text, item_text, user_vectors, item_vectors = reki_views(
    "../data/shop", user=user, item=item)

def own(name, *entities):
    return FeatureView(name=name, entities=list(entities), schema=[Field(name="n", dtype=Int64)],
        source=FileSource(path=name + ".parquet", timestamp_field="event_timestamp"),
        ttl=timedelta(0))

visits, pairs = own("visits", user), own("pairs", user, item)
"""
CONFIG = """
project: shop
provider: local
registry: registry.db
offline_store: {type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}
online_store: %s
batch_engine: {type: reki_feast.stores.engine.RekiComputeEngine}
entity_key_serialization_version: 3
"""
_OURS = "type: reki_feast.stores.redis_online.RekiRedisOnlineStore"
STORES = {
    "embedded": f"{{{_OURS}, connection_string: embedded:../data/redis}}",
    "packed": f"{{{_OURS}, connection_string: embedded:../data/redis, layout: packed}}",
    "stock": "{type: redis, connection_string: '%s', skip_dedup: true}",
    "sqlite": "{type: sqlite, path: online.db}",
}


class KilledError(Exception):
    """In place of a signal."""


def renamed(root: Path) -> None:
    """Have a user and an item of the shop bear awkward ids."""
    for name in ("users", "items", "interactions"):
        table = pq.read_table(root / f"{name}.parquet")
        for kind, key in (("user", "customer_id"), ("item", "sku")):
            if key in table.column_names:
                of = NAMES[kind]  # type: ignore[index]
                ids = [of.get(one, one) for one in table[key].to_pylist()]
                at = table.column_names.index(key)
                table = table.set_column(at, key, pa.array(ids))
        if name == "users":
            ids = table["customer_id"].to_pylist()
            regions = [REGION if one == USER else "south" for one in ids]
            table = table.set_column(1, "region", pa.array(regions))
        pq.write_table(table, root / f"{name}.parquet")


def without(root: Path, users: set[str] = frozenset(), items: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Delete users and items from the shop's own tables."""
    for name in ("users", "items", "interactions"):
        path = root / f"{name}.parquet"
        table = pq.read_table(path)
        for key, ids in (("customer_id", users), ("sku", items)):
            if key in table.column_names:
                gone = pc.is_in(table[key], value_set=pa.array(sorted(ids), pa.string()))
                table = table.filter(pc.invert(gone))
        pq.write_table(table, path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_shop(tmp_path_factory.mktemp("forgetting") / "my shop")
    renamed(project.root)
    stages.run(open_project(project.root))
    return project.root


@pytest.fixture
def shop(ran: Path, tmp_path: Path) -> DeclaredProject:
    shutil.copytree(ran, tmp_path / "my shop")
    return open_project(tmp_path / "my shop")


@pytest.fixture
def served(shop: DeclaredProject, request: pytest.FixtureRequest) -> Iterator[DeclaredProject]:
    """The shop with a Feast repo whose online store has everybody; with a view of its own."""
    kind = getattr(request, "param", "embedded")
    online = STORES[kind]
    if kind == "stock":
        online %= request.getfixturevalue("redis_address")
    serve(shop, online)
    yield shop
    embedded.stop(shop.redis)


def serve(shop: DeclaredProject, online: str) -> None:
    repo = shop.feature_repo
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(CONFIG % online)
    (repo / "features.py").write_text(FEATURES)
    log = pq.read_table(shop.root / "interactions.parquet").select(
        ["customer_id", "sku", "event_timestamp"]
    )
    log = log.append_column("n", pa.array(range(log.num_rows), pa.int64()))
    pq.write_table(log.drop_columns(["sku"]), repo / "visits.parquet")
    pq.write_table(log, repo / "pairs.parquet")
    stages.publish(shop, materialize=True)


PROFILE = ', profile="from {{ region }}"'
REFS = ["visits:n", "pairs:n", "reki_user_knowledge:text", "reki_item_knowledge:text"]
REFS += ["reki_user_representation:history", "reki_item_representation:description"]


def online(shop: DeclaredProject, user: str, item: str) -> dict[str, Any]:
    """What is served, None for what is not there."""
    store = FeatureStore(repo_path=str(shop.feature_repo))
    rows = [{"customer_id": user, "sku": item}]
    found = store.get_online_features(REFS, rows, full_feature_names=True).to_dict()
    return {name: found[name.replace(":", "__")][0] for name in REFS}


def traces(root: Path, marks: tuple[str, ...] = MARKS) -> set[str]:
    """Places below a folder in whose bytes, or in whose rows, a mark stands."""
    found = set()
    for path in (path for path in root.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        if path.suffix == ".parquet":
            raw += repr(pq.read_table(path, partitioning=None).to_pydict()).encode()
        if any(mark.encode() in raw for mark in marks):
            found.add(str(path.relative_to(root)))
    return found


def removed(report: Result) -> dict[tuple[str, str], int]:
    rows = report.plain()["tables"].get("removed", [])
    return {(row["from"], row["what"]): row["count"] for row in rows}


def stored(shop: DeclaredProject, kind: Kind) -> set[str]:
    return set(shop.lake.ids(f"{kind}_aug").to_pylist())


@pytest.mark.parametrize("served", list(STORES), indirect=True)
def test_nothing_is_left_of_whom_is_forgotten(served: DeclaredProject) -> None:
    assert len(traces(served.root) - OWN) > 10
    assert None not in online(served, USER, ITEM).values()
    before = {kind: stored(served, kind) for kind in KINDS}
    others = online(served, "c'1", "s-1")
    report = stages.forget(served, users=[USER], items=[ITEM])
    assert report.title == "shop: 1 user and 1 item forgotten"
    assert report.failed == 0
    assert traces(served.root) == OWN
    assert set(online(served, USER, ITEM).values()) == {None}
    assert online(served, "c'1", "s-1") == others
    assert {kind: before[kind] - stored(served, kind) for kind in KINDS} == {
        "user": {USER},
        "item": {ITEM},
    }
    there = removed(report)
    for view in ("reki", "reki_user_match", "reki_user_knowledge", "reki_user_representation"):
        assert there[f"online, {view}", "rows"] == 1
    assert there["online, visits", "rows"] == 1
    assert there["online, pairs", "rows"] >= 1
    assert there["data/shop/ledger.sqlite", "prompts with their answers"] >= 2
    assert there["data/shop/vectors", "vectors of texts"] >= 2


def test_whom_the_tables_lack_is_told_and_absent_removes_them(served: DeclaredProject) -> None:
    assert not _notes(stages.publish(served), "no longer have")
    without(served.root, {USER, "c'5"}, {ITEM})
    [note] = _notes(stages.run(served), "no longer have")
    assert note.startswith("2 users and 1 items that the tables no longer have are still stored")
    assert "reki forget --absent" in note
    assert online(served, USER, ITEM)["reki_user_knowledge:text"] is not None
    report = stages.forget(served, absent="both")
    assert report.title == "shop: 2 users and 1 item forgotten"
    assert traces(served.data) == set()
    left = online(served, USER, ITEM)
    assert {name for name, value in left.items() if value is not None} == {"visits:n", "pairs:n"}
    assert not _notes(stages.run(served, materialize=True), "no longer have")
    assert traces(served.data) == set()
    again = stages.forget(served, absent="both")
    assert (again.title, removed(again)) == ("shop: nobody forgotten", {})


def _notes(report: Result, part: str) -> list[str]:
    return [note for note in report.notes if part in note]


def test_who_is_stored_online_alone_is_found(served: DeclaredProject, tmp_path: Path) -> None:
    without(served.root, {USER}, {ITEM})
    served.feature_repo.rename(tmp_path / "elsewhere")
    stages.forget(served, absent="both")
    (tmp_path / "elsewhere").rename(served.feature_repo)
    assert online(served, USER, ITEM)["reki_user_knowledge:text"] is not None
    report = stages.forget(served, absent="both")
    assert report.title == "shop: 1 user and 1 item forgotten"
    assert all(place.startswith("online, reki") for place, _ in removed(report))
    assert online(served, USER, ITEM)["reki_user_knowledge:text"] is None


def test_a_repo_of_another_folder_is_named(served: DeclaredProject) -> None:
    elsewhere = served.root / "another repo"
    served.feature_repo.rename(elsewhere)
    given = ["forget", "--project", str(served.root), "--user", USER, "--repo", str(elsewhere)]
    assert app.main(given) == app.DONE
    store = FeatureStore(repo_path=str(elsewhere))
    rows = [{"customer_id": USER}]
    assert store.get_online_features(["reki_user_knowledge:text"], rows).to_dict()["text"] == [None]


def test_a_repo_that_nobody_applied_has_nothing_to_forget(shop: DeclaredProject) -> None:
    shop.feature_repo.mkdir()
    (shop.feature_repo / "feature_store.yaml").write_text(CONFIG % STORES["embedded"])
    report = stages.forget(shop, users=[USER])
    assert (report.title, report.failed) == ("shop: 1 user forgotten", 0)
    assert not shop.redis.exists()


def test_only_one_kind_may_be_looked_at(shop: DeclaredProject) -> None:
    without(shop.root, {USER}, {ITEM})
    assert stages.forget(shop, absent="item").title == "shop: 1 item forgotten"
    assert USER in stored(shop, "user")


def test_a_user_who_met_unknown_items_alone_is_in_the_tables(shop: DeclaredProject) -> None:
    log = pq.read_table(shop.root / "interactions.parquet").to_pylist()
    rows = [{**row, "sku": "gone"} if row["customer_id"] == USER else row for row in log]
    pq.write_table(pa.Table.from_pylist(rows), shop.root / "interactions.parquet")
    users = pq.read_table(shop.root / "users.parquet")
    pq.write_table(users.filter(pc.field("customer_id") != USER), shop.root / "users.parquet")
    assert not _notes(stages.publish(shop), "no longer have")
    assert stages.forget(shop, absent="user").title == "shop: nobody forgotten"


def test_who_comes_back_is_asked_about_and_served_again(served: DeclaredProject) -> None:
    paths = [served.root / f"{name}.parquet" for name in ("users", "items", "interactions")]
    kept = [path.read_bytes() for path in paths]
    without(served.root, {USER}, {ITEM})
    stages.forget(served, absent="both")
    assert stages.run(served).plain()["tables"]["calls"][0]["asked"] >= 0
    for path, raw in zip(paths, kept, strict=True):
        path.write_bytes(raw)
    report = stages.run(served, materialize=True)
    assert report.plain()["tables"]["calls"][0]["asked"] >= 2
    assert None not in online(served, USER, ITEM).values()


def test_who_is_still_in_the_tables_is_told(shop: DeclaredProject) -> None:
    [note] = _notes(stages.forget(shop, users=[USER]), "still in your tables")
    assert note.startswith("1 of these users")


STEPS = ["from_published", "from_vectors", "from_groups", "from_ledger", "from_knowledge"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_two_steps_the_rest_goes_when_it_is_run_again(
    shop: DeclaredProject, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(shop.root, {USER}, {ITEM})
    own = getattr(Leaving, step)

    def cut_short(leaving: Leaving) -> None:
        if when == "after":
            own(leaving)
        raise KilledError(step)

    with monkeypatch.context() as patched:
        patched.setattr(Leaving, step, cut_short)
        with pytest.raises(KilledError, match=step):
            stages.forget(shop, absent="both")
    is_done = (step, when) == ("from_knowledge", "after")
    assert (traces(shop.data) == set()) == is_done
    stages.forget(shop, absent="both")
    assert traces(shop.data) == set()
    assert stages.check_ledger(shop).failed == 0


#: Ends its process by a signal instead of the n-th writing of a file.
KILLED = """
import os, signal, sys
from pathlib import Path
from reki_feast import files, stages
from reki_feast.project import open_project

left, write = int(sys.argv[2]), files.atomically

def counted(*given, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*given, **named)

files.atomically = counted
stages.forget(open_project(Path(sys.argv[1])), absent="both")
"""


def test_killed_for_real_it_loses_nobody_else(shop: DeclaredProject) -> None:
    without(shop.root, {USER}, {ITEM})
    others = {kind: stored(shop, kind) - {USER, ITEM} for kind in KINDS}
    for writes in (0, 1, 5):
        command = [sys.executable, "-c", KILLED, str(shop.root), str(writes)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert traces(shop.data)
    stages.forget(shop, absent="both")
    assert traces(shop.data) == set()
    assert {kind: stored(shop, kind) for kind in KINDS} == others
    assert stages.check_ledger(shop).failed == 0


def test_the_money_stays_booked(shop: DeclaredProject) -> None:
    path = shop.data / "ledger.sqlite"
    with shop.ledger() as ledger:
        ledger.do([lambda c: c.execute("UPDATE calls SET cost = 0.25")])
        ledger.do([lambda c: c.execute("UPDATE runs SET cost = 0.25 * calls")])
        before, calls = ledger.totals(), ledger.rows("SELECT COUNT(*) FROM calls")
    report = stages.forget(shop, users=[USER])
    [note] = _notes(report, "stay booked")
    count = removed(report)["data/shop/ledger.sqlite", "prompts with their answers"]
    assert note == f"{count} calls stay booked without a text: money {0.25 * count:.4f}"
    with shop.ledger() as ledger:
        after = ledger.totals()
        assert (after.calls, after.cost, after.prompt_tokens) == (
            before.calls,
            before.cost,
            before.prompt_tokens,
        )
        assert ledger.rows("SELECT COUNT(*) FROM calls") == calls
        assert after.answered == before.answered - count
        assert invariants.violations(ledger.rows) == []
        rows = pa.concat_tables(reports.export(ledger.rows))
    assert rows.num_rows == calls[0][0]
    gone = rows.filter(pc.field("prompt_state") == "forgotten").to_pylist()
    assert [(row["owner"], row["prompt"], row["answer"], row["cost"]) for row in gone] == [
        ("", "", None, 0.25)
    ] * count
    assert b"zquser" not in path.read_bytes()


def test_a_prompt_that_another_shares_is_theirs_and_not_paid_again(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", lambda text: text.replace(PROFILE, ""))
    log = pq.read_table(project.root / "interactions.parquet").to_pylist()
    ones = [row for row in log if row["customer_id"] == "c'4"]
    rows = [row for row in log if row["customer_id"] != "c'5"]
    rows += [{**row, "customer_id": "c'5"} for row in ones]
    pq.write_table(pa.Table.from_pylist(rows), project.root / "interactions.parquet")
    stages.generate(project)
    first = _owners(project) & {"c'4", "c'5"}
    assert len(first) == 1
    other = {"c'4", "c'5"} - first
    without(project.root, users=first)
    report = stages.forget(project, absent="both")
    assert removed(report)["data/shop/ledger.sqlite", "prompts that others share, now theirs"] > 0
    assert _owners(project) & {"c'4", "c'5"} == other
    assert stages.generate(project).plain()["tables"]["calls"][0]["asked"] == 0


def _owners(project: DeclaredProject) -> set[str]:
    with project.ledger() as ledger:
        return {owner for (owner,) in ledger.rows("SELECT owner FROM prompts")}


def test_nothing_is_forgotten_while_a_run_asks(shop: DeclaredProject) -> None:
    with shop.ledger() as ledger:
        begin = partial(
            runs.start_run,
            identity=RunIdentity("one", "echo", "{}"),
            process=this_process(),
            now=ledger.now(),
        )
        ledger.do([begin])
    with pytest.raises(LLMError, match="prompts are forgotten while nobody asks"):
        stages.forget(shop, users=[USER])
    assert USER in _owners(shop)


def test_who_is_not_known_is_said(
    shop: DeclaredProject, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {str(path): path.stat().st_mtime_ns for path in shop.data.rglob("*.parquet")}
    given = ["forget", "--project", str(shop.root), "--user", "nobody", "--item", "no'thing"]
    assert app.main([*given, "--json"]) == app.DONE
    said = json.loads(capsys.readouterr().out)
    assert said["title"] == "shop: nobody forgotten"
    assert said["notes"][:2] == [
        "nothing is stored of user 'nobody'",
        'nothing is stored of item "no\'thing"',
    ]
    assert {str(path): path.stat().st_mtime_ns for path in shop.data.rglob("*.parquet")} == before


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_come_out_of_a_file(shop: DeclaredProject, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"it's gone.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"sku": [ITEM, None], "customer_id": [USER, "c'1"]}), path)
    else:
        quoted = [one.replace('"', '""') for one in (USER, ITEM)]
        path.write_text(f'customer_id,sku\n"{quoted[0]}","{quoted[1]}"\nc\'1,\n')
    report = stages.forget(shop, file=str(path))
    assert report.title == "shop: 2 users and 1 item forgotten"
    assert traces(shop.data) == set()


def test_numbers_in_a_text_file_stay_the_texts_they_are(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("customer_id\n007\n")
    assert "nothing is stored of user '007'" in stages.forget(shop, file=str(path)).notes


def test_wrong_use_is_told(shop: DeclaredProject, tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="told whom"):
        stages.forget(shop)
    (tmp_path / "ids.csv").write_text("id\n1\n")
    with pytest.raises(SourceError, match="has a column customer_id, or sku"):
        stages.forget(shop, file=str(tmp_path / "ids.csv"))
    with pytest.raises(StoreError, match=r"a Feast repo has a feature_store\.yaml"):
        stages.forget(shop, users=["x"], repos=[tmp_path])
    with pytest.raises(SourceError, match="user ids are UTF-8 texts"):
        stages.forget(shop, users=["\udc80"])
    shop.lake.write_json(
        "manifest", {**(shop.lake.read_json("manifest") or {}), "user": {"type": "int64"}}
    )
    with pytest.raises(SourceError, match="whole numbers\n  detail: '007', '7.0'"):
        stages.forget(shop, users=["7", "-3", "007", "7.0"])


def test_tables_that_lost_nearly_all_are_not_believed(shop: DeclaredProject) -> None:
    without(shop.root, stored(shop, "user") - {USER, "c'0"})
    with pytest.raises(DeclarationError, match="27 of 29 are absent"):
        stages.forget(shop, absent="both")
    assert len(stored(shop, "user")) == 29


def test_a_store_that_nobody_can_delete_from_is_told(shop: DeclaredProject) -> None:
    serve(shop, STORES["sqlite"])
    config = CONFIG % "{type: remote, path: 'http://localhost:1'}"
    (shop.feature_repo / "feature_store.yaml").write_text(config)
    report = stages.forget(shop, users=[USER])
    assert report.failed == 1
    assert report.notes[0].startswith("rows in the online store of")
    assert "are NOT removed" in report.notes[0]
    assert USER not in stored(shop, "user")


def collective(text: str) -> str:
    """The shop's declarations with groups in place of single entities."""
    text = text.replace('Individual(kind="user")', 'Collective(kind="user", max_users=8)')
    text = text.replace('Individual(kind="item")', 'Collective(kind="item", max_items=6)')
    return text.replace("Encoder, Individual", "Collective, Encoder")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_shop(tmp_path_factory.mktemp("groups") / "my shop", collective)
    renamed(project.root)
    stages.run(open_project(project.root))
    return project.root


@pytest.fixture
def groups(grouped: Path, tmp_path: Path) -> DeclaredProject:
    shutil.copytree(grouped, tmp_path / "my shop")
    return open_project(tmp_path / "my shop")


def _members(project: DeclaredProject) -> dict[tuple[str, str, str], set[str]]:
    found: dict[tuple[str, str, str], set[str]] = {}
    for row in project.lake.read("members", schema.MEMBERS).to_pylist():
        found.setdefault((row["kind"], row["channel"], row["group"]), set()).add(row["owner"])
    return found


def _named(project: DeclaredProject) -> set[str]:
    held = [load(project, kind, channel) for kind in KINDS for channel in CHANNELS[kind]]
    return {name for one in held if one for name in one.ids.drop_null().to_pylist()}


def _asked(project: DeclaredProject) -> int:
    asked: int = stages.generate(project).plain()["tables"]["calls"][0]["asked"]
    return asked


def test_users_and_items_leave_their_groups_and_nobody_is_asked_for_that(
    groups: DeclaredProject,
) -> None:
    members, texts = _members(groups), groups.lake.read("knowledge", schema.KNOWLEDGE).num_rows
    assert {USER, ITEM} <= _named(groups)
    assert any(ITEM in row["shown"] for row in _shown(groups))
    stages.forget(groups, users=[USER], items=[ITEM])
    assert _members(groups) == {slot: those - {USER, ITEM} for slot, those in members.items()}
    assert not {USER, ITEM} & _named(groups)
    assert not any(ITEM in row["shown"] for row in _shown(groups))
    assert groups.lake.read("knowledge", schema.KNOWLEDGE).num_rows == texts
    assert traces(groups.data) == set()
    without(groups.root, {USER})  # the item is in the catalogue, and counts as new
    before = _owners(groups)
    stages.run(groups)
    assert USER not in _named(groups)
    assert ITEM in _named(groups)
    assert _owners(groups) == before


def _shown(project: DeclaredProject) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = project.lake.read("groups", schema.GROUPS).to_pylist()
    return rows


def test_an_item_that_left_the_catalogue_asks_no_group_of_users_anew(
    groups: DeclaredProject,
) -> None:
    without(groups.root, items={ITEM})
    stages.run(groups)
    assert any(ITEM in row["shown"] for row in _shown(groups) if row["kind"] == "user")
    stages.forget(groups, absent="both")
    assert traces(groups.data, ("zqitem",)) == set()
    assert _asked(groups) == 0


def _rows(project: DeclaredProject, table: str) -> list[dict[str, Any]]:
    made = {"asked": schema.ASKED, "knowledge": schema.KNOWLEDGE}[table]
    rows: list[dict[str, Any]] = project.lake.read(table, made).to_pylist()
    return rows


def test_what_is_known_of_a_group_goes_with_the_last_of_its_members(
    groups: DeclaredProject,
) -> None:
    group, those = next(
        (slot, those) for slot, those in _members(groups).items() if slot[0] == "user"
    )
    left = {slot for slot, those_too in _members(groups).items() if not those_too <= those}
    stages.forget(groups, users=sorted(those))
    assert set(_members(groups)) == left
    assert group not in left
    slots = {(r["kind"], r["channel"], r["owner"]) for r in _rows(groups, "knowledge")}
    assert slots <= left
    with groups.ledger() as ledger:
        found = ledger.rows("SELECT kind, channel, owner FROM prompts")
    assert set(found) <= left
    without(groups.root, those)
    stages.run(groups)
    assert not those & set(groups.lake.ids("user_aug").to_pylist())


def test_groups_are_not_taken_for_entities(groups: DeclaredProject) -> None:
    before = _owners(groups)
    assert "item-0" in before
    assert stages.forget(groups, absent="both").title == "shop: nobody forgotten"
    assert stages.forget(groups, items=["item-0"]).title == "shop: nobody forgotten"
    assert _owners(groups) == before
    for table in ("asked", "knowledge"):  # as where no answer passed, in an earlier version
        shutil.rmtree(groups.data / table)
    assert stages.forget(groups, absent="both").title == "shop: nobody forgotten"
    assert _owners(groups) == before


def test_who_comes_back_is_placed_anew(groups: DeclaredProject) -> None:
    stages.forget(groups, users=[USER], items=[ITEM])
    stages.run(groups)
    held = load(groups, "user", "liked")
    assert held is not None
    assert held.point(USER) is not None
    ids = held.ids.to_pylist()
    assert ids.count(USER) == ids.count(None) == 1


def test_imported_texts_and_quarantined_ones_go(shop: DeclaredProject, tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    texts = [f"{REGION} likes lamps of brass, tables of oak and quiet evenings", "no"]
    pq.write_table(pa.table({"customer_id": [USER, "c'1"], "text": texts}), path)
    stages.import_knowledge(shop, {"users": str(path)}, as_of=shop_time(shop))
    assert "data/shop/imported" in {str(p.parent.relative_to(shop.root)) for p in _holding(shop)}
    stages.forget(shop, users=[USER], items=[ITEM])
    assert traces(shop.data) == set()


def shop_time(shop: DeclaredProject) -> list[Any]:
    return [shop.lake.read("knowledge", schema.KNOWLEDGE)["event_timestamp"][-1].as_py()]


def _holding(shop: DeclaredProject) -> set[Path]:
    return {shop.data / place for place in traces(shop.data)}
