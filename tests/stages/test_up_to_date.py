"""Stages give their last result again while nothing has changed, and run after any change."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reki_feast
from reki_feast import stages
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject, now, open_project
from reki_feast.results import RunResult
from reki_feast.stages import planning, up_to_date
from reki_feast.tables.lake import Lake
from tests.stages.conftest import T0, make_shop, write_tables

STAGES = ["GenerateResult", "EncodeResult", "TrainResult", "PublishResult"]
EDITS: dict[str, Callable[[str], str]] = {
    "each user and item": lambda text: text,
    "with tastes": lambda text: text.replace('model="hash"', 'model="hash", taste=True'),
    "with groups": lambda text: text.replace("Individual", "Collective"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    """A shop that was run once; tests change copies of it."""
    shop = make_shop(tmp_path_factory.mktemp("done"))
    stages.run(shop)
    return shop


@pytest.fixture
def settled(done: DeclaredProject, tmp_path: Path) -> DeclaredProject:
    """A copy whose last run changed nothing."""
    shutil.copytree(done.root, tmp_path / "shop")
    shop = open_project(tmp_path / "shop")
    stages.run(shop)
    return shop


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The types of stored results that stages gave."""
    found: list[str] = []
    stored = up_to_date.StandingResult.stored

    def told(self: up_to_date.StandingResult[Any]) -> Any:
        result = stored(self)
        found.extend([] if result is None else [type(result).__name__])
        return result

    monkeypatch.setattr(up_to_date.StandingResult, "stored", told)
    return found


def rerun(shop: DeclaredProject, **options: Any) -> RunResult:
    """Run in a context of its own, as a new process does."""
    return stages.run(open_project(shop.root), **options)


def rows(shop: DeclaredProject) -> dict[str, list[str]]:
    """Every stored row, but for when it was made."""
    return {
        folder.name: sorted(
            str({**row, "created_timestamp": None})
            for part in folder.glob("*.parquet")
            for row in pq.read_table(part).to_pylist()
        )
        for folder in shop.data.rglob("*")
        if folder.is_dir() and folder.name != "inputs"
    }


def forgetful(root: Path) -> DeclaredProject:
    """A project that has to look at everything: nothing says what it has done."""
    shop = open_project(root)
    shutil.rmtree(shop.data / "inputs", ignore_errors=True)
    for name in (up_to_date.UP_TO_DATE, "published_knowledge"):
        (shop.data / f"{name}.json").unlink(missing_ok=True)
    return shop


def comparable(result: RunResult) -> RunResult:
    """Without the seconds that asking took, and the time until which rows are materialized."""
    generated = result.generate
    if generated is not None:
        generated = replace(generated, usage=replace(generated.usage, seconds=0.0))
    return replace(result, generate=generated)


@pytest.mark.parametrize("edit", EDITS)
def test_a_run_that_changed_nothing_is_not_done_again(
    tmp_path: Path, edit: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(tmp_path, EDITS[edit])
    stages.run(shop)
    while given != STAGES:
        given.clear()
        last, ledger = rerun(shop), (shop.data / "ledger.sqlite").read_bytes()
        assert len(list(shop.data.rglob("*.parquet"))) < 100, "it settles"
    before = rows(shop)
    assert comparable(rerun(shop)) == comparable(last)
    assert rows(shop) == before
    assert (shop.data / "ledger.sqlite").read_bytes() == ledger
    (shop.data / f"{up_to_date.UP_TO_DATE}.json").unlink()
    given.clear()
    assert comparable(rerun(shop)) == comparable(last), "what a run says that does it all"
    assert given == []


def table(shop: DeclaredProject, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change rows of one of the user's tables."""
    path = shop.root / f"{name}.parquet"
    found = pq.read_table(path)
    values = found.to_pylist()
    change(values)
    pq.write_table(pa.Table.from_pylist(values, found.schema), path)


def setting(number: int, **values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda found: found[number].update(values)


def declared(shop: DeclaredProject, old: str, new: str) -> None:
    path = shop.root / "generators" / "shop.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def beside(shop: DeclaredProject, name: str, text: str) -> None:
    path = shop.root / "generators" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def answer(shop: DeclaredProject, kind: str) -> None:
    with sqlite3.connect(shop.data / "ledger.sqlite") as ledger:
        query = "UPDATE prompts SET answer = replace(answer, 'price', 'Price') WHERE kind = ?"
        assert ledger.execute(query, (kind,)).rowcount
    ledger.close()


def another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reki_feast, "__version__", "9.9")
    up_to_date.package_digest.cache_clear()


def part(shop: DeclaredProject, table: str) -> Path:
    return sorted(shop.data.glob(f"{table}/*.parquet"))[0]


def without_a_user(shop: DeclaredProject) -> None:
    def drop(values: list[dict[str, Any]]) -> None:
        values[:] = [row for row in values if row["customer_id"] != "c'1"]

    table(shop, "users", drop)
    table(shop, "interactions", drop)


TEMPLATE = Path(reki_feast.__file__).parent / "knowledge/prompts/templates"
USER_TEMPLATE = TEMPLATE / "user.jinja"
CHANGES: dict[str, Callable[[DeclaredProject], object]] = {
    "a value of the interactions": lambda shop: table(shop, "interactions", setting(3, stars=2)),
    "a value of the users": lambda shop: table(shop, "users", setting(0, region="east")),
    "a title": lambda shop: table(shop, "items", setting(7, title="another")),
    "a day of interactions": lambda shop: write_tables(shop.root, interactions=624),
    "an absent user": without_a_user,
    "a text": lambda shop: declared(shop, 'description="{{ title }}', 'description="a {{ title }}'),
    "factors": lambda shop: declared(shop, '"style"]', '"style", "size"]'),
    "the length of histories": lambda shop: declared(shop, 'name="shop"', 'name="shop", history=3'),
    "the training": lambda shop: declared(shop, "epochs=1", "epochs=2"),
    "a template": lambda shop: beside(
        shop, f"templates/{USER_TEMPLATE.name}", USER_TEMPLATE.read_text() + "\nBe brief.\n"
    ),
    "the factors file": lambda shop: beside(shop, "shop.factors.yaml", "confirmed: true\n"),
    "a part that is gone": lambda shop: part(shop, "user_aug").unlink(),
    "a part of knowledge": lambda shop: part(shop, "knowledge").unlink(),
    "the list of spaces": lambda shop: (shop.data / "manifest.json").unlink(),
    "scores": lambda shop: (shop.data / "match.safetensors").unlink(),
    "answers about users": lambda shop: answer(shop, "user"),
    "answers about items": lambda shop: answer(shop, "item"),
    "somebody who left": lambda shop: stages.forget(open_project(shop.root), users=["c'2"]),
    "its own file": lambda shop: (shop.data / "up_to_date.json").write_text('{"version": 1'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_all_is_done_as_without_stored_results(
    settled: DeclaredProject, change: str, given: list[str], tmp_path: Path
) -> None:
    CHANGES[change](settled)
    other = Path(shutil.copytree(settled.root, tmp_path / "other"))
    made, plain = rerun(settled), stages.run(forgetful(other))
    assert given == []
    assert rows(settled) == rows(open_project(other))
    assert comparable(made).generate == comparable(plain).generate
    assert made.encode == plain.encode


OPTIONS: dict[str, dict[str, Any]] = {
    "--as-of": {"as_of": [T0 + timedelta(hours=400)]},
    "--retrain": {"retrain": True},
    "--retry-quarantined": {"retry_quarantined": True},
    "--allow-unconfirmed": {"allow_unconfirmed": True},
    "--limit": {"limit": 5},
    "--max-calls": {"max_calls": 5},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_another_option_is_another_run(
    settled: DeclaredProject, option: str, given: list[str]
) -> None:
    rerun(settled, **OPTIONS[option])
    assert "GenerateResult" not in given or option == "--retrain"
    assert option != "--retrain" or "TrainResult" not in given


def test_another_version_does_all(
    settled: DeclaredProject, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    another_version(monkeypatch)
    rerun(settled)
    assert given == []
    up_to_date.package_digest.cache_clear()


def test_a_damaged_part_is_told(settled: DeclaredProject, given: list[str]) -> None:
    path = part(settled, "user_knowledge")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    with pytest.raises(LakeError, match=re.escape(path.name)):
        rerun(settled)
    assert given == []


def test_answers_grow_old(
    tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ageing(text: str) -> str:
        text = text.replace("import LLM", "import LLM, Freshness")
        return text + "\nfreshness = Freshness(max_age_days=30)\n"

    shop = make_shop(tmp_path, ageing)
    for _ in range(2):
        rerun(shop)
    assert given == STAGES
    given.clear()
    for module in (up_to_date, planning):
        monkeypatch.setattr(module, "now", lambda: now() + timedelta(days=31))
    result = rerun(shop).generate
    assert result is not None
    assert result.usage.calls > 0
    assert "GenerateResult" not in given


def test_publishing_says_until_when_to_materialize_now(
    settled: DeclaredProject, given: list[str]
) -> None:
    (settled.feature_repo).mkdir()
    (settled.feature_repo / "feature_store.yaml").write_text("project: shop\n")
    first, second, third = (stages.publish(open_project(settled.root)) for _ in range(3))
    assert given[-2:] == ["PublishResult"] * 2
    assert first.published == second.published == third.published
    assert third.next[-1].startswith("feast materialize")


class Killed(BaseException):
    """Ends a command as a signal does."""


@pytest.mark.parametrize("writes", range(0, 8, 2))
def test_a_killed_run_leaves_nothing_that_stands_for_the_rest(
    settled: DeclaredProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    write_tables(settled.root, interactions=700)
    other = Path(shutil.copytree(settled.root, tmp_path / "other"))
    stages.run(forgetful(other))
    append, left = Lake.append, iter(range(writes))

    def until_killed(self: Lake, name: str, table: pa.Table) -> Path | None:
        if table.num_rows and next(left, None) is None:
            raise Killed
        return append(self, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "append", until_killed)
        with pytest.raises(Killed):
            rerun(settled)
    for _ in range(3):
        rerun(settled)
    assert rows(settled) == rows(open_project(other))


LOADED = """
import sys
from reki_feast.cli.app import main
try:
    main(["run"])
except SystemExit as done:
    assert not done.code, done.code
print(*sorted({"torch", "sklearn", "feast", "openai", "sentence_transformers"} & set(sys.modules)))
"""


def loaded(root: Path) -> Iterator[str]:
    """The heavy packages that `reki run` has imported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED],
        cwd=root,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(reki_feast.__file__).parents[1])},
    )
    return iter(done.stdout.splitlines()[-1].split())


def test_a_run_that_changes_nothing_imports_no_heavy_package(settled: DeclaredProject) -> None:
    found = [list(loaded(settled.root)) for _ in range(3)]  # the first ones may write bytecode
    assert found[-1] == []
