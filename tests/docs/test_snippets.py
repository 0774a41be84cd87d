"""Every block of code in the documents is run, or where what it needs is not here, checked.

A reader follows the tutorials in a folder of its own, then the pages that go on from there. Encoder
and weights are small; the language model is the sample's table of answers, or the tests' server.
What a page cannot find here (a GPU's server, Postgres, another's data) is marked in the page, with
the reason, and only parsed.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureStore, FileSource

from reki_feast.stores import embedded
from tests.docs.snippets import LANGUAGES, ROOT, Reader, commands, run_shell, snippets
from tests.llm.servers import Endpoint

DOCS = ROOT / "docs"
TUTORIALS = ("tutorials/first-vector.md", "tutorials/into-feast.md")
#: What a project that has run is for, in the order of a project's life.
LATER = (
    "../README.md",
    "tutorials/lightgbm.md",
    "reference/stores.md",
    "how-to/explain.md",
    "how-to/watching.md",
    "how-to/report.md",
    "how-to/watching.md",
    "how-to/push.md",
    "how-to/recall.md",
    "how-to/retrain.md",
    "how-to/forget.md",
)
#: What asks a language model.
ASKING = (
    "how-to/prompts.md",
    "how-to/budgets.md",
    "how-to/batches.md",
    "how-to/ollama.md",
    "how-to/groups.md",
)
#: What tests/test_api.py runs.
ELSEWHERE = ("how-to/python.md",)
FOLLOWED = {(DOCS / one).resolve() for one in (*TUTORIALS, *LATER, *ASKING, *ELSEWHERE)}
PAGES = [ROOT / one for one in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted(DOCS.rglob("*.md"))
#: Of those who ask even fewer, and no time before all interactions, when there are no groups.
FEWER = (("user_id <= 1040", "user_id <= 1004"), ('as_of=["2025-01-01", ', "as_of=["))
#: Fewer viewers than the tutorial's forty, and short trainings.
SMALL = (
    ("user_id <= 1040", "user_id <= 1008"),
    ('"minilm", taste=True)', '"minilm", taste=True, preferences=True)'),  # as a later page has it
    (
        "Training(match=1)",
        "Training(match=1, epochs=1, blocks=1, check=False, output_size=2, components=3, "
        "shared_experts=1, dedicated_experts=1)",
    ),
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What pages export ends with the test; nothing here is the machine's."""
    before = dict(os.environ)
    monkeypatch.delenv("REDIS_URL", raising=False)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def shop(tmp_path: Path, environment: None) -> Iterator[Path]:
    """Where projects are laid down; their servers end with it."""
    yield tmp_path
    for folder in tmp_path.glob("*/data/redis"):
        embedded.stop(folder)


def names_of(shop: Path) -> dict[str, Any]:
    """What pages speak of: the store of the shop, and views and rows that a reader has."""
    repo = shop / "feature_repo"
    with chdir(repo):
        views = runpy.run_path("features.py")
    user = views["user"]
    return {
        **{name: one for name, one in views.items() if not name.startswith("__")},
        "FeatureService": FeatureService,
        "store": FeatureStore(repo_path=str(repo)),
        "user_profile": views["user_text"],
        "user_activity": views["user_vectors"],
        "item_facts": views["item_text"],
        "item_popularity": views["item_vectors"],
        "clicks": pd.read_parquet(shop / "tables" / "interactions.parquet").head(20),
        "request": [{"user_id": 1001, "item_id": 3}],
        "candidates": [3, 7, 11],
        "customer": Entity(name="customer", join_keys=["id"], value_type=user.value_type),
        "source": FileSource(path="tastes.parquet", timestamp_field="event_timestamp"),
    }


@pytest.mark.filterwarnings("ignore:The FeatureService object that:UserWarning")  # one that is new
def test_a_reader_follows_the_tutorials_and_goes_on(shop: Path) -> None:
    reader = Reader(shop, small=SMALL)
    for page in TUTORIALS:
        reader.follow(DOCS / page)
    assert reader.folder == shop / "my-shop"
    rows = pd.read_parquet(reader.folder / "tables" / "interactions.parquet")
    new = rows[rows["user_id"] == 1001].tail(3)
    new.assign(event_timestamp=pd.Timestamp("2026-12-30T10:00", tz="UTC")).to_parquet(
        reader.folder / "new.parquet"
    )
    for page in LATER:
        Reader(reader.folder, names_of(reader.folder), SMALL).follow((DOCS / page).resolve())


def test_a_reader_asks(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(shop, small=(*FEWER, *SMALL))
    with Endpoint() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-tests")
        page = snippets(DOCS / TUTORIALS[0])
        for snippet in page:
            if snippet.what == "generators/shop.py":
                break
            if snippet.language == "sh":
                with chdir(reader.folder):
                    run_shell(snippet.code)
                    reader.folder = Path.cwd()
        reader.write("generators/shop.py", snippet.code, whole=True)
        reader.write("generators/shop.py", 'llm = LLM(model="gpt-4o-mini")', whole=False)
        for one in ASKING:
            Reader(reader.folder, small=reader.small).follow(DOCS / one)
        assert server.bill


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.resolve() not in FOLLOWED],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_any_other_page(page: Path, tmp_path: Path, environment: None) -> None:
    Reader(tmp_path).follow(page)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_another_test_runs_has_blocks(page: str) -> None:
    assert len([one for one in snippets(DOCS / page) if one.language == "python"]) == 2


def test_blocks_are_found_with_what_is_said_of_them() -> None:
    found = [one for page in PAGES for one in snippets(page)]
    assert len(found) > 80
    assert {one.language for one in found} == LANGUAGES
    assert {one.how for one in found} == {"", "file", "edit", "checked"}
    ran = [one for one in found if one.how != "checked" and one.language != "text"]
    assert len(ran) > len([one for one in found if one.how == "checked"]) > 0


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("reki plan   # what is due\n", [["reki", "plan"]]),
        ("cd a && reki run; reki status\n", [["cd", "a"], ["reki", "run"], ["reki", "status"]]),
        ("ollama serve & reki plan", [["ollama", "serve"], ["reki", "plan"]]),
        ('pip install "reki-feast[all]"', [["pip", "install", "reki-feast[all]"]]),
        ("# nothing\n", []),
    ],
)
def test_a_shell_block_is_taken_apart(code: str, found: list[list[str]]) -> None:
    assert list(commands(code)) == found


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("```sh\nreki plan --no-such-option\n```\n", "reki does not take"),
        ("```sh\npip install 'reki-feast[nothing]'\n```\n", "no extra"),
        ("```sh\nmake nothing\n```\n", "no target"),
        ("```sh\nrm -rf data\n```\n", "nothing here runs"),
        ("```python\nEncoder(no_such_key=1)\n```\n", "no such key"),
        ("```yaml\nonline_store: {type: no.such.Store}\n```\n", "no.such"),
        ("```\nplain\n```\n", "has no language"),
        ("<!-- checked: not here -->\n```sh\nreki nothing\n```\n", "reki does not take"),
    ],
)
def test_a_wrong_block_fails(code: str, message: str, tmp_path: Path) -> None:
    page = ROOT / "build" / f"{tmp_path.name}.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(code, "utf-8")
    try:
        with pytest.raises(Exception, match=message):
            Reader(tmp_path).follow(page)
    finally:
        page.unlink()
