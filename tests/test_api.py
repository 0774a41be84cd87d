"""`reki_feast.Project`: the commands as methods, with figures as fields."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reki_feast import Project
from reki_feast.cli import app
from reki_feast.errors import DeclarationError, RekiError
from reki_feast.llm import BudgetError
from reki_feast.results import Coverage, Result, StatusResult
from tests.stages.conftest import make_shop

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's folder; the tests go on where those before them stopped."""
    return make_shop(tmp_path_factory.mktemp("shop")).root


def test_the_way_from_plan_to_status(root: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    shop = Project(root, progress=lambda step, done, total: steps.append((step, done, total)))
    plan = shop.plan()
    assert plan.calls == plan.total.to_ask == plan.total.prompts > 20
    assert [one.kind for one in plan.prompts] == ["user", "item", "all"]
    assert sum(one.prompts for one in plan.prompts[:2]) == plan.total.prompts

    some = shop.generate(limit=20)
    assert (some.usage.asked, some.calls, some.failed) == (20, 20, 0)
    assert some.next == ["reki quality", "reki generate"]
    assert shop.plan().total.answered == 20

    made = shop.run()
    assert made.generate is not None
    assert made.generate.usage.asked == plan.calls - 20
    assert made.encode is not None
    assert made.encode.representations[0].as_of.tzinfo is not None
    assert made.train is not None
    assert [one.model for one in made.train.held_out] == ["DIN", "DIN + vectors"]
    assert made.publish is not None
    tables = {one.table: one for one in made.publish.published}
    assert tables["user_aug"].added == tables["user_aug"].rows > 0
    assert {step for step, _, _ in steps} >= {"asking", "training"}
    assert all(0 <= done <= total for _, done, total in steps)

    status = shop.status()
    assert status.weights is not None
    assert (status.weights.q, status.redis.running) == (made.train.weights.q, False)
    assert {one.table: one.rows for one in status.stored}["user_aug"] == tables["user_aug"].rows
    assert status.prompts is not None
    assert status.prompts.answered == plan.total.prompts
    assert isinstance(status.runs, list)
    assert all(isinstance(run.began, datetime) for run in status.runs)


def test_a_second_run_changes_nothing(root: Path) -> None:
    made = Project(root).run()
    assert made.generate is not None
    assert made.encode is not None
    assert made.publish is not None
    assert (made.generate.usage.asked, made.generate.usage.added, made.encode.texts) == (0, 0, 0)
    assert [one.added for one in made.publish.published] == [0] * len(made.publish.published)


def test_the_ledger(root: Path, tmp_path: Path) -> None:
    shop = Project(root)
    ledger = shop.ledger()
    assert ledger.prompts.answered == ledger.usage.calls == shop.quality().answered
    assert (ledger.unanswered, shop.check_ledger().violations) == ([], [])
    exported = shop.export_ledger(tmp_path / "calls.parquet")
    assert pq.read_table(exported.path).num_rows == exported.calls == ledger.usage.calls


def test_who_is_forgotten(root: Path) -> None:
    shop, before = Project(root), Project(root).ledger().prompts.answered
    user = pq.read_table(root / "users.parquet").column(0)[0].as_py()
    gone = shop.forget(users=[user])
    assert (gone.users, gone.items) == (1, 0)
    assert {one.what for one in gone.removed} >= {"prompts with their answers", "rows"}
    assert shop.ledger().prompts.answered < before


def test_checks_have_their_problems(root: Path, tmp_path: Path) -> None:
    found = Project(root).doctor()
    assert {one.name for one in found.checks} >= {"packages", "tables", "language model"}
    assert [one.name for one in found.checks if one.problems] == []
    empty = Project(tmp_path).doctor()
    [bad] = [one for one in empty.checks if one.problems]
    assert (bad.name, empty.failed) == ("declarations", 1)
    assert "reki init" in bad.problems[0].hint


def test_errors_have_problems_and_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="reki init") as caught:
        Project(tmp_path).plan()
    assert caught.value.problems == caught.value.faults  # the name in 0.1
    assert caught.value.done is None
    shop = Project(make_shop(tmp_path / "shop").root)
    with pytest.raises(BudgetError, match="max_calls=3") as stopped:
        shop.run(max_calls=3)
    assert "calls" in [table.title for table in stopped.value.done.tables]


def test_a_scenario_is_chosen_among_several(tmp_path: Path) -> None:
    root = make_shop(tmp_path).root
    first = next((root / "generators").glob("*.py"))
    text = first.read_text().replace('name="shop"', 'name="other"')
    (root / "generators" / "other.py").write_text(text)
    with pytest.raises(DeclarationError, match="--scenario"):
        Project(root).status()
    found = Project(root, "other").status()
    assert (found.project, found.stored, found.next) == ("other", [], ["reki run"])
    assert repr(Project("a shop", "other")) == "Project('a shop', 'other')"


def test_an_object_with_bars_shows_progress_too(root: Path) -> None:
    from reki_feast.report import Silent

    class Counted(Silent):
        labels: list[str] = []  # noqa: RUF012

        def bar(self, label: str) -> Any:
            self.labels.append(label)
            return super().bar(label)

    progress = Counted()
    Project(root, progress=progress).encode()
    assert progress.labels == ["encoding"]


def test_a_missing_extra_is_named(root: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from reki_feast.cli import main\n"
        f"sys.exit(main(['train', '--retrain', '--project', {str(root)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == app.FAILED
    assert 'pip install "reki-feast[train]"' in done.stderr
    assert "Traceback" not in done.stderr


# --- results --------------------------------------------------------------------------------


def test_a_result_is_shown_as_on_a_terminal(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Project(root).quality()
    assert app.main(["quality", "--project", str(root)]) == app.DONE
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert str(found) == printed.rstrip()
    assert "\x1b" not in str(found)
    assert "&" not in str(found)
    assert found._repr_html_() == f"<pre>{found}</pre>"


def test_json_of_the_command_line_keeps_its_keys(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["ledger", "--project", str(root), "--json"]) == app.DONE
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["title", "tables", "notes", "next", "failed"]
    assert found == json.loads(json.dumps(Project(root).ledger().plain()))
    columns = ["planned", "sent", "answered", "failed", "quarantined"]
    assert list(found["tables"]["prompts"][0]) == columns
    plan, bill = found["tables"]["runs"][:2]
    assert (plan["of"], bill["of"]) == ("plan", "bill")
    assert list(plan) == ["began", "model", "of", "calls", "tokens", "money", "outcome"]


def test_fields_as_json(root: Path) -> None:
    found = Project(root).status()
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["folder"] == str(root / "data" / "shop")
    assert plain["stored"][0]["rows"] == found.stored[0].rows
    assert found.runs
    assert datetime.fromisoformat(plain["runs"][0]["began"]) == found.runs[0].began
    assert plain["weights"]["hash"] == found.weights.hash if found.weights else False


def test_results_are_frozen(root: Path) -> None:
    found = Project(root).status()
    with pytest.raises(FrozenInstanceError, match="weights"):
        found.weights = None  # type: ignore[misc]


def test_hostile_texts_are_escaped() -> None:
    class Hostile(Result):
        title = "<b>\x1b[31m & more"

    shown = Hostile(project="x")
    assert str(shown) == "<b>\\u001b[31m & more"
    assert shown._repr_html_() == "<pre>&lt;b&gt;\\u001b[31m &amp; more</pre>"


def test_shares_are_numbers_shown_as_percent() -> None:
    one = Coverage("nightly", 0.2849)
    assert (one.share, one.cells()) == (0.2849, [("nightly", "28%")])


def test_a_table_without_rows_is_left_out_where_it_is_optional() -> None:
    from reki_feast.results import RedisState

    bare = StatusResult(
        project="shop",
        folder=Path("data/shop"),
        usage=None,
        weights=None,
        weights_readable=True,
        redis=RedisState(False, "not running"),
        problems=[],
    )
    assert [table.title for table in bare.tables] == ["tables", "running"]
    assert bare.tables[1].rows == [("weights", "none yet"), ("embedded Redis", "not running")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda shop: shop.train(), "interactions|snapshot|stored"),
        (lambda shop: shop.publish(), "vectors are made by trained weights"),
        (lambda shop: shop.groups(), "groups are formed before they are explained"),
        (lambda shop: shop.import_knowledge(), "there is something to import|as-of time"),
        (lambda shop: shop.forget(), "is told whom|nobody is named"),
        (lambda shop: shop.factors(confirm=True), "holds the factors to confirm"),
        (lambda shop: shop.export_ledger("calls.csv"), "Parquet file"),
        (lambda shop: shop.push([]), "fitted and published scores"),
        (lambda shop: shop.evaluate(tables=["table9"]), "a table is one of table2"),
    ],
)
def test_a_method_says_what_it_lacks(tmp_path: Path, call: Any, message: str) -> None:
    with pytest.raises(RekiError, match=message):
        call(Project(make_shop(tmp_path).root))


# --- the documents --------------------------------------------------------------------------

PAGE = "docs/how-to/python.md"


def blocks() -> tuple[str, str]:
    """The two blocks of code on the page about Python."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    session, task = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return session, task


def test_the_session_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shop(tmp_path / "my-shop")
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(blocks()[0], {}, "python", PAGE, 0)
    assert len(test.examples) > 6
    written: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=written.append)
    assert written == []


def test_the_task_of_the_documents(tmp_path: Path) -> None:
    root = make_shop(tmp_path).root
    _, code = blocks()
    code = code.replace("/srv/my-shop", str(root)).replace("materialize=True", "max_calls=3")
    names: dict[str, Any] = {"task": lambda function: function}
    exec(code.replace("max_cost=5, ", ""), names)
    assert "max_calls=3 of the run is reached" in names["refresh"]()["stopped"]
