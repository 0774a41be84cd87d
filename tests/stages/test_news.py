"""The scenario of `generators/news.py` on a few readers of MIND."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.evaluation.recall_data import recall_data
from reki_feast.project import DeclaredProject
from tests.bench import news
from tests.conftest import shared

#: Readers below this number.
FEW = 400


@pytest.fixture(scope="module")
def mind() -> Path:
    return shared("mind-reclm").resolve()


@pytest.fixture(scope="module")
def project(mind: Path, tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    few = f'f"select * from ({{sources.interactions}}) where user_id < {FEW}"'
    return news.lay_down(
        mind,
        tmp_path_factory.mktemp("news"),
        sources=f'sources.model_copy(update={{"interactions": {few}}})',
        encoder='Encoder(model="hash", preferences=True, taste=True, history=False)',
        scenario='scenario.model_copy(update={"description": "{{ title }}"})',
        llm='LLM(provider="echo")',
    )


def test_a_prompt_shows_the_latest_clicks_and_asks_by_category(
    project: DeclaredProject, mind: Path, tmp_path: Path
) -> None:
    stages.generate(project, limit=20)
    calls = stages.export_ledger(project, tmp_path / "calls.parquet")
    prompts = pq.read_table(calls.path)["prompt"].to_pylist()
    clicks = pq.read_table(mind / "interactions.parquet")
    clicks = clicks.filter((pc.field("user_id") < FEW) & (pc.field("split") == "train"))
    items = pq.read_table(mind / "items.parquet").to_pylist()
    titles = {row["item_id"]: " ".join(row["title"].split()) for row in items}
    by_user: dict[int, set[str]] = {}
    for row in clicks.to_pylist():
        by_user.setdefault(row["user_id"], set()).add(titles[row["item_id"]])
    assert len(prompts) == 20
    for prompt in prompts:
        shown = prompt.split("<data>")[1].split("</data>")[0].strip().splitlines()
        said = {line.split(". ", 1)[1].strip('"').replace('\\"', '"') for line in shown}
        assert said in by_user.values()
        assert "\n- food and drink\n" in prompt
        assert "separated by semicolons" in prompt


def test_real_profiles_are_vectors_by_category(
    project: DeclaredProject, mind: Path, tmp_path: Path
) -> None:
    profiles = pq.read_table(mind / "user_knowledge_gpt.parquet")
    profiles = profiles.filter(pc.field("user_id") < FEW)
    pq.write_table(profiles, tmp_path / "profiles.parquet")
    stages.import_knowledge(project, {"users": str(tmp_path / "profiles.parquet")})
    stages.encode(project)
    by_category = news.preferences(project, profiles)
    categories = set(by_category.column_names) & set(project.known_factors())
    assert len(categories) == 15
    phrases = {one for row in by_category.to_pylist() for name in categories if (one := row[name])}
    said = [news.phrases_of(text) for text in profiles["text"].to_pylist()]
    together = sorted(one for text in phrases for one in text.split("; "))
    assert set(together) == {one for some in said for one in some}
    pq.write_table(by_category, tmp_path / "preferences.parquet")
    stages.import_knowledge(project, {"users": str(tmp_path / "preferences.parquet")})
    stages.encode(project)
    every, informed = recall_data(project)
    assert informed.count > 5
    assert informed.preferences
    assert every.knowledge is None
    assert every.cold.sum() > 1_441  # few readers met few articles


def test_the_test_is_the_datas_own(project: DeclaredProject, mind: Path) -> None:
    every = recall_data(project)[0]
    rows = pq.read_table(mind / "interactions.parquet")
    rows = rows.filter(pc.field("user_id") < FEW)
    pairs = {
        split: {
            (row["user_id"], row["item_id"])
            for row in rows.filter(pc.field("split") == split).to_pylist()
        }
        for split in ("train", "test")
    }
    assert len(every.log.users) == len(every.met.users) == len(pairs["train"])
    assert len(every.later.users) == len(pairs["test"] - pairs["train"])
    assert every.count == len(pa.array([user for user, _ in pairs["train"]]).unique())
