"""Declarations are strict; all faults of a file are reported together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reki_feast.declare import LLM, Encoder, Individual, Scenario, Sources, find, load
from reki_feast.errors import DeclarationError

HEAD = "from reki_feast import *\n"
GOOD = """
scenario = Scenario(name="books", item="book", factors=["genre", "style"])
sources = Sources(items="select 1", interactions="select 2")
readers = Individual(kind="user")
"""


def project(tmp_path: Path, text: str, name: str = "books") -> Path:
    path = tmp_path / "generators" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEAD + text)
    return path


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(DeclarationError, match=".") as caught:
        load(project(tmp_path, text))
    return [fault.problem for fault in caught.value.problems]


def test_a_file_is_collected_and_defaults_fill_the_rest(tmp_path: Path) -> None:
    declared = load(project(tmp_path, GOOD))
    assert declared.scenario.item == "book"
    assert declared.individual("user")
    assert not declared.individual("item")
    assert declared.collective("user") is None
    assert (declared.llm, declared.encoder) == (LLM(), Encoder())


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        pytest.param(
            GOOD.replace("item=", "itme="),
            ["Scenario.item: must be given", "Scenario.itme: no such key"],
            id="a misspelt key",
        ),
        pytest.param(
            GOOD.replace('["genre", "style"]', "[]").replace('"user"', '"reader"')
            + "llm = LLM(concurrency=0)\n",
            ["Scenario.factors: List should", "Individual.kind: Input should", "LLM.concurrency"],
            id="faults of several declarations together",
        ),
        pytest.param(
            GOOD.replace('"style"', '" Genre!"'),
            ["Scenario.factors: names must differ"],
            id="double",
        ),
        pytest.param(
            "x = 1\n", ["books.py declares one Scenario", "books.py declares one Sources"]
        ),
        pytest.param(GOOD + "again = Individual(kind='user')\n", ["one generator for each kind"]),
        pytest.param(GOOD + "a = LLM()\nb = LLM(model='x')\n", ["at most one LLM"]),
        pytest.param(
            GOOD + "from reki_feast import Budget\na = Budget(max_cost=1)\nb = Budget()\n",
            ["Budget.declaration: names at least one"],
            id="a hull is no second one",
        ),
        pytest.param(
            GOOD
            + "from reki_feast import Budget\na, b = Budget(max_cost=1), Budget(max_calls=1)\n",
            ["one Budget for the project and one for each run, but project has several"],
        ),
        pytest.param(GOOD + "x = 1 / 0\n", ["books.py is Python that runs"]),
        pytest.param("def (\n", ["books.py is Python that runs"]),
    ],
)
def test_faults_are_reported_together(tmp_path: Path, text: str, rules: list[str]) -> None:
    found = faults(tmp_path, text)
    assert len(found) == len(rules)
    assert all(any(f.startswith(rule) for f in found) for rule in rules)


UNNAMED = "a declaration has a name of its own"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("budgets = [Budget(max_calls=5), Budget(per='run', max_calls=4)]\n", 2),
        ("Budget(max_cost=0.0001)\n", 1),
        ("budget = Budget(max_calls=5)\nbudget = Budget(per='run', max_calls=4)\n", 1),
        ("more = {'item': Collective(kind='item')}\n", 1),
        ("def more():\n    return Gates(mends=0)\nsome = [more()]\n", 1),
    ],
)
def test_none_without_a_name_is_passed_over(tmp_path: Path, text: str, count: int) -> None:
    head = "from reki_feast import Budget, Collective, Gates\n"
    with pytest.raises(DeclarationError, match=r"line \d+: name = \w+\(…\)") as caught:
        load(project(tmp_path, GOOD + head + text))
    assert [fault.problem.startswith(UNNAMED) for fault in caught.value.problems] == [True] * count


@pytest.mark.parametrize(
    "text",
    [
        "llms = {'small': LLM(model='s'), 'large': LLM(model='l')}\nllm = llms['small']\n",
        "llm = LLM()\nllm = LLM(model='s')\n",
        "from others import llm, spare\n",
        "import others\nllm = others.llm\n",
    ],
)
def test_one_may_be_chosen_or_come_from_elsewhere(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "others", raising=False)
    lines = "from reki_feast import *\nllm = LLM(model='s')\nspare = [Gates(mends=0), Budget]\n"
    (tmp_path / "others.py").write_text(lines)
    declared = load(project(tmp_path, GOOD + text))
    assert (declared.llm.model, declared.gates.mends) == ("s", 1)


def test_what_is_given_to_another_is_told_of_once(tmp_path: Path) -> None:
    text = GOOD.replace('kind="user"', 'kind="user", freshness=Freshness(min_new=2)')
    assert faults(tmp_path, text) == ["Individual.freshness: no such key"]


def test_a_python_fault_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"(?s)ZeroDivisionError.*see line 6"):
        load(project(tmp_path, GOOD + "x = 1 / 0\n"))


def test_outside_a_file_faults_are_raised_at_once() -> None:
    with pytest.raises(DeclarationError, match=r"(?s)Scenario.item.*known keys|Scenario.item"):
        Scenario(name="x")  # type: ignore[call-arg]


def test_times_without_zone_are_utc() -> None:
    scenario = Scenario(name="x", item="y", as_of=["2026-01-01"])
    assert scenario.as_of[0].isoformat() == "2026-01-01T00:00:00+00:00"


def test_declarations_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Sources(items="a", interactions="b").items = "c"  # type: ignore[misc]


def test_the_only_file_is_found_and_others_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"(?s)detail: none.*reki init"):
        find(tmp_path)
    first = project(tmp_path, GOOD)
    assert find(tmp_path) == first
    project(tmp_path, GOOD, "films")
    with pytest.raises(DeclarationError, match=r"(?s)books, films.*--scenario"):
        find(tmp_path)
    assert find(tmp_path, "books") == first
    with pytest.raises(DeclarationError, match="music.py"):
        find(tmp_path, "music")


def test_generator_kinds() -> None:
    assert Individual(kind="item").kind == "item"
