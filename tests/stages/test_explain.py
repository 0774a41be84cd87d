"""`reki explain`: one answer for each situation, out of what is stored."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import Project, stages
from reki_feast.cli import app
from reki_feast.errors import DeclarationError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import ExplainResult
from reki_feast.sample.tables import write as write_sample
from reki_feast.stages.living_spaces import write_spaces
from reki_feast.views.spaces import VectorSpace, read_spaces
from tests.stages.conftest import T0, make_shop
from tests.stages.test_grouping import collective
from tests.stages.test_online_rows import client_of, store_of, write

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
ROOT = Path(__file__).parents[2]
#: A user with interactions, and one who has none.
USER, QUIET = "c'3", "c'29"
HOSTILE = "\x1b]0;owned\x07 [red]x[/red] <script>alert(1)</script>"


@pytest.fixture
def online(materialized: DeclaredProject) -> Iterator[DeclaredProject]:
    """The shop, whose rows online are as they were afterwards."""
    with client_of(materialized) as client:
        kept = {key: client.dump(key) for key in client.scan_iter()}
        yield materialized
        client.flushdb()
        for key, raw in kept.items():
            client.restore(key, 0, raw)


@pytest.fixture
def copy(materialized: DeclaredProject, tmp_path: Path) -> DeclaredProject:
    """A copy of the shop's files, whose online store is not running."""
    root = tmp_path / "shop"
    shutil.copytree(materialized.root, root, ignore=shutil.ignore_patterns("redis"))
    return open_project(root)


# --- situations -------------------------------------------------------------------------------


def without(*names: str) -> Callable[[DeclaredProject], None]:
    """Tables and objects that are not there."""

    def change(shop: DeclaredProject) -> None:
        for name in names:
            path = shop.data / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def prompted(state: str, gate: str = "", fault: str = "") -> Callable[[DeclaredProject], None]:
    """A user whose prompt is in this state, and who is not known of yet."""

    def change(shop: DeclaredProject) -> None:
        without("user_aug", "user_representation", "knowledge")(shop)
        with closing(sqlite3.connect(shop.data / "ledger.sqlite")) as ledger, ledger:
            ledger.execute(
                "UPDATE prompts SET state = ?, gate = ?, fault = ?, answer = NULL WHERE owner = ?",
                (state, gate, fault, USER),
            )

    return change


def never_asked(shop: DeclaredProject) -> None:
    without("user_aug", "user_representation", "knowledge", "ledger.sqlite")(shop)


def not_in_tables(shop: DeclaredProject) -> None:
    for name in ("users", "interactions"):
        path = shop.root / f"{name}.parquet"
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pc.field("customer_id") != USER), path)


def gone_but_placed(shop: DeclaredProject) -> None:
    not_in_tables(shop)
    knowledge = shop.data / "knowledge"
    without("user_aug", "knowledge")(shop)
    part = next((shop.data / "user_representation").iterdir())
    assert part.exists()
    assert not knowledge.exists()


SITUATIONS: list[tuple[str, Any, str, str, str]] = [
    (USER, without(), "no online store", "it has a row in the tables", "publish --materialize"),
    (USER, without("user_aug"), "not published", "its vector is not published", "reki publish"),
    (
        USER,
        without("user_aug", "manifest.json"),
        "not published",
        "vectors are not published yet",
        "reki publish",
    ),
    (USER, without("user_aug", "hein.json"), "not trained", "no weights are trained", "reki run"),
    (
        USER,
        without("user_aug", "user_representation"),
        "not encoded",
        "its texts are not encoded yet",
        "reki run",
    ),
    (USER, never_asked, "not asked", "the model was not asked yet", "reki generate"),
    (USER, prompted("planned"), "not answered", "did not send it", "reki generate"),
    (USER, prompted("sent"), "not answered", "is not there yet", "reki generate"),
    (
        USER,
        prompted("failed", "", "500: overloaded"),
        "call failed",
        "the call of its prompt failed (500: overloaded)",
        "reki generate",
    ),
    (
        USER,
        prompted("quarantined", "refusal", "I cannot help"),
        "gate failed",
        "passed the gates (refusal: I cannot help)",
        "reki generate --retry-quarantined",
    ),
    (QUIET, without(), "no history", "it has no interactions", ""),
    (USER, gone_but_placed, "not published", "its vector is not published", "reki publish"),
]


@pytest.mark.parametrize(("user", "change", "outcome", "why", "mend"), SITUATIONS)
def test_each_situation_has_one_answer(
    copy: DeclaredProject, user: str, change: Any, outcome: str, why: str, mend: str
) -> None:
    change(copy)
    found = stages.explain(copy, "user", user)
    assert (found.outcome, why in found.answer) == (outcome, True), found.answer
    assert mend in " ".join(found.next)
    assert found.vector is None or outcome == "no online store"


def test_interactions_after_the_last_snapshot_are_no_history_yet(copy: DeclaredProject) -> None:
    path = copy.root / "interactions.parquet"
    rows = pq.read_table(path)
    late = rows.slice(rows.num_rows - 1)
    late = late.set_column(0, "customer_id", pa.array([QUIET]))
    at = late.column_names.index("event_timestamp")
    late = late.set_column(at, late.schema.field(at), pa.array([T0 + timedelta(days=40)]))
    pq.write_table(pa.concat_tables([rows, late]), path)
    found = stages.explain(copy, "user", QUIET)
    assert (found.outcome, found.next) == ("no history", ["reki run"])
    assert "interaction, 2026-02-10 00:00, is not before the last snapshot" in found.answer


def served(shop: DeclaredProject, user: str = USER) -> tuple[str, str, dict[str, str]]:
    """The outcome, the sentence, and of each view what is served."""
    found = stages.explain(shop, "user", user)
    return found.outcome, found.answer, {one.view: one.serves for one in found.views}


def test_a_row_is_served_by_all_views(online: DeclaredProject) -> None:
    outcome, _, views = served(online)
    assert outcome == "row"
    assert len(views) >= 3
    assert set(views.values()) == {"row"}
    found = stages.explain(online, "user", USER)
    assert [one.why for one in found.views if not one.equal] == []
    assert found.next == []


def test_rows_that_are_not_online_are_not_materialized(online: DeclaredProject) -> None:
    with client_of(online) as client:
        client.flushdb()
    outcome, why, views = served(online)
    assert outcome == "not materialized"
    assert why.startswith("the default is served: its row of 2026-01-")
    assert why.endswith(" is not materialized")
    assert set(views.values()) == {"default"}


@pytest.mark.parametrize(
    ("change", "why", "mend"),
    [
        ({"days": -1}, "the row online is an older one", ["reki publish --materialize"]),
        (
            {"days": 0, "change": 1.0},
            "other values at the same time: user_aug",
            ["reki publish --materialize"],
        ),
        ({"days": 400}, "the row online is of a later time: of another data folder", []),
    ],
)
def test_why_a_row_online_is_another(
    online: DeclaredProject, change: Any, why: str, mend: list[str]
) -> None:
    write(online, "reki", **change)
    found = stages.explain(online, "user", "c'0")
    [row] = [one for one in found.views if one.view == "reki"]
    assert (row.equal, row.serves, row.why) == (False, "row", why)
    assert (found.outcome, found.next) == ("row", mend)
    assert why in found.answer


@pytest.mark.parametrize(
    ("has_rows", "outcome", "said"),
    [
        (False, "another space", "the default is served: view reki is in space v0-{id}, v0-abcdef"),
        (True, "row", "is served: the view is in space v0-{id}, and v0-abcdef is in service"),
    ],
)
def test_a_view_of_another_space(
    online: DeclaredProject, has_rows: bool, outcome: str, said: str
) -> None:
    if not has_rows:
        with client_of(online) as client:
            client.flushdb()
    path = online.data / "spaces.json"
    before, spaces = path.read_text(), read_spaces(online.data)
    try:
        write_spaces(online, replace(spaces, spaces=(VectorSpace(0, "abcdef", 0, "abcdef"),)))
        found = stages.explain(open_project(online.root), "user", USER)
    finally:
        path.write_text(before)
    assert found.outcome == outcome
    assert said.format(id=spaces.in_service.id) in found.answer
    assert found.next == ["reki promote v0"]


def test_a_row_online_that_the_tables_lack_is_served(online: DeclaredProject) -> None:
    folder = online.data / "user_aug"
    try:
        folder.rename(folder.with_name("moved"))
        found = stages.explain(open_project(online.root), "user", USER)
    finally:
        folder.with_name("moved").rename(folder)
    assert found.outcome == "row"
    assert "the table has no such row (any more)" in found.answer


def test_a_row_older_than_the_ttl_is_not_served(online: DeclaredProject, tmp_path: Path) -> None:
    shutil.copytree(online.feature_repo, tmp_path / "kept")
    try:
        store = store_of(online)
        view = store.get_feature_view("reki")
        view.ttl = timedelta(days=1)
        store.apply([view])
        outcome, why, views = served(online)
    finally:
        shutil.rmtree(online.feature_repo)
        shutil.copytree(tmp_path / "kept", online.feature_repo)
    assert outcome == "too old"
    assert "older than the view's ttl" in why
    assert (views["reki"], views["reki_user_match"]) == ("default", "row")


def test_who_the_tables_no_longer_name_is_still_served(online: DeclaredProject) -> None:
    kept = {name: (online.root / name).read_bytes() for name in ("users.parquet",)}
    kept["interactions.parquet"] = (online.root / "interactions.parquet").read_bytes()
    try:
        not_in_tables(online)
        found = stages.explain(open_project(online.root), "user", USER)
    finally:
        for name, raw in kept.items():
            (online.root / name).write_bytes(raw)
    assert found.outcome == "row"
    assert "although the tables no longer name it" in found.answer
    assert found.next == ["reki forget --absent"]


# --- the path ---------------------------------------------------------------------------------


def test_the_whole_path(online: DeclaredProject) -> None:
    found = Project(online.root).explain("user", USER)
    log = pq.read_table(online.root / "interactions.parquet").to_pylist()
    mine = [row["sku"] for row in log if row["customer_id"] == USER]
    assert [one.item for one in found.history] == mine[-30:]
    prompt = found.prompts[0]
    assert (prompt.about, prompt.state, prompt.is_knowledge) == (USER, "answered", True)
    assert (prompt.calls, prompt.cost, prompt.gate) == (1, 0.0, "")
    titles = [one.title for one in found.history]
    assert any(title in prompt.prompt for title in titles)
    assert {one.factor for one in found.factors} == {"price", "style"}
    assert all(one.text in prompt.answer for one in found.factors)
    assert [one.channel for one in found.channels if one.floats] == ["knowledge", "history"]
    assert found.vector is not None
    assert (found.vector.space, found.vector.floats > 0) == ("v0", True)
    scores = [one.score for one in found.nearest]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 5
    assert found.notes == []


def test_match_scores_are_those_that_feast_serves(online: DeclaredProject) -> None:
    found = stages.explain(online, "user", USER)
    rows = [{"customer_id": USER, "sku": one.item} for one in found.nearest]
    got = store_of(online).get_online_features(["reki_match:score"], rows).to_dict()["score"]
    assert [one.score for one in found.nearest] == pytest.approx(got, abs=1e-5)


def test_an_item(online: DeclaredProject) -> None:
    found = stages.explain(online, "item", "s-5")
    assert (found.outcome, found.history, found.nearest) == ("row", [], [])
    assert found.description.startswith("product 0")
    assert {one.about for one in found.prompts} == {"s-5"}


def test_an_answer_that_failed_a_gate_is_told_beside_the_row(copy: DeclaredProject) -> None:
    with closing(sqlite3.connect(copy.data / "ledger.sqlite")) as ledger, ledger:
        ledger.execute(
            "UPDATE prompts SET state = 'quarantined', gate = 'short', fault = 'two words' "
            "WHERE owner = ?",
            (USER,),
        )
    without("knowledge")(copy)
    found = stages.explain(copy, "user", USER)
    [note] = [one for one in found.notes if "without knowledge" in one]
    assert "short: two words" in note


def test_a_group_and_the_way_into_it(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", collective)
    stages.generate(shop)
    found = stages.explain(shop, "user", USER)
    assert {one.group for one in found.groups} == {one.about for one in found.prompts}
    assert {one.of for one in found.paths} == {one.of for one in found.groups}
    assert all(path.nodes[-1].members == 1 for path in found.paths)
    assert {one.of for one in found.factors} == {one.group for one in found.groups}
    assert found.outcome == "not encoded"
    assert stages.explain(shop, "user", QUIET).outcome in ("no history", "no group", "not encoded")


def test_a_scenario_without_a_feast_repo(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    found = stages.explain(shop, "user", USER)
    assert (found.outcome, found.prompts, found.views) == ("not asked", [], [])
    assert stages.explain(shop, "item", "s-5").outcome == "not asked"


# --- who is nobody, and what is hostile ---------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "id", "detail", "hint"),
    [
        ("user", "c'99", "never seen, or is forgotten", "the nearest ids: c'9"),
        ("user", "s-5", "never seen", "an item has this id: reki explain item s-5"),
        ("item", "c'3", "never seen", "a user has this id: reki explain user c'3"),
        ("shop", "1", "'shop'", "reki explain user 1001"),
    ],
)
def test_an_unknown_id(copy: DeclaredProject, kind: Any, id: str, detail: str, hint: str) -> None:
    with pytest.raises(DeclarationError, match=detail) as caught:
        stages.explain(copy, kind, id)
    assert hint in caught.value.problems[0].hint


def test_a_forgotten_user_whom_the_tables_lack_is_nobody(copy: DeclaredProject) -> None:
    shutil.rmtree(copy.feature_repo)
    not_in_tables(copy)
    copy = open_project(copy.root)
    stages.forget(copy, users=[USER])
    with pytest.raises(DeclarationError, match="never seen, or is forgotten"):
        stages.explain(open_project(copy.root), "user", USER)


def test_hostile_titles_do_nothing(
    copy: DeclaredProject, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy.root / "items.parquet"
    items = pq.read_table(path)
    pq.write_table(items.set_column(1, "title", pa.array([HOSTILE] * items.num_rows)), path)
    found = stages.explain(copy, "user", USER)
    assert found.history[0].title == HOSTILE
    pages = [str(found), found._repr_html_()]
    for options in ([], ["--json"]):
        assert app.main(["explain", "user", USER, "--project", str(copy.root), *options]) == 0
        pages.append(capsys.readouterr().out)
    for page in pages:
        assert "\x1b" not in page
        assert "\\u001b" in page
    assert "[red]x[/red]" in pages[2]
    assert "<script>" not in pages[1]


def test_json_has_the_whole_texts(
    copy: DeclaredProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["explain", "user", USER, "--project", str(copy.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    result: ExplainResult = stages.explain(copy, "user", USER)
    assert found["prompts"][0]["prompt"] == result.prompts[0].prompt
    assert found["outcome"] == result.outcome


def test_what_cannot_be_read_is_noted(copy: DeclaredProject) -> None:
    (copy.root / "interactions.parquet").unlink()
    (copy.data / "ledger.sqlite").write_bytes(b"no ledger" * 100)
    found = stages.explain(copy, "user", USER)
    assert {note.split(":")[0] for note in found.notes} >= {"tables", "prompts"}
    assert found.vector is not None
    assert found.factors


WITHOUT_EXTRAS = """
import sys
for name in ("torch", "sklearn", "scipy", "numba", "safetensors", "sentence_transformers",
             "openai", "httpx2", "datasketch", "py3langid"):
    sys.modules[name] = None
from reki_feast import Project
found = Project(sys.argv[1]).explain("user", sys.argv[2])
assert found.notes == [], found.notes
assert found.vector and found.prompts and found.factors and found.nearest
"""


def test_no_extra_is_needed(copy: DeclaredProject) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(copy.root), USER]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_a_viewer_of_the_sample(tmp_path: Path) -> None:
    (tmp_path / "generators").mkdir()
    shutil.copy(ROOT / "generators" / "movies.py", tmp_path / "generators")
    write_sample(tmp_path / "data" / "sample")
    project = open_project(tmp_path)
    stages.generate(project, as_of=[datetime(2026, 7, 1, tzinfo=UTC)], limit=10)
    found = stages.explain(project, "user", "1001")
    assert found.outcome == "not encoded"
    assert f'30. "{found.history[-1].title}": {found.history[-1].said}' in found.prompts[0].prompt
    assert [one.factor for one in found.factors] == list(project.factors())
    assert found.prompts[0].model == "sample-1"
    with pytest.raises(DeclarationError, match="is a whole number"):
        stages.explain(project, "user", "viewer")
