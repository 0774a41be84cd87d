"""What is too large for memory goes in parts, and the tables are the same; or it is drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.knowledge import by_entity
from reki_feast.project import open_project
from reki_feast.report import CallbackProgress
from reki_feast.stages import augmented_rows, matching, prompting
from reki_feast.stages.context import StageContext
from reki_feast.stages.training_data import drawn_to_learn
from tests.stages.conftest import make_shop, write_tables
from tests.stages.test_grouping import collective

TABLES = [f"{kind}_{name}" for kind in ("user", "item") for name in ("aug", "knowledge", "match")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop that is not published yet."""
    shop = make_shop(tmp_path_factory.mktemp("trained") / "shop")
    for stage in (stages.generate, stages.encode, stages.train):
        stage(shop)
    return shop.root


def rows(root: Path) -> dict[str, pa.Table]:
    """The published tables without when they were made, sorted."""
    found = {}
    for name in TABLES:
        parts = sorted((root / "data" / "shop" / name).glob("*.parquet"))
        table = pa.concat_tables(map(pq.read_table, parts)).drop_columns(["created_timestamp"])
        keys = [(table.column_names[0], "ascending"), ("event_timestamp", "ascending")]
        found[name] = table.sort_by(keys)
    return found


def parts(root: Path) -> dict[str, int]:
    return {name: len(list((root / "data" / "shop" / name).iterdir())) for name in TABLES}


def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_PART", 50)
    monkeypatch.setattr(augmented_rows, "_READ", 1)
    monkeypatch.setattr(augmented_rows, "_ROWS", 7)
    monkeypatch.setattr(by_entity, "_ROWS", 7)


def test_tables_published_in_parts_have_the_same_rows(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for root in (whole, parted):
        shutil.copytree(trained, root)
    stages.publish(open_project(whole))
    in_parts(monkeypatch)
    stages.publish(open_project(parted))
    made, wanted = rows(parted), rows(whole)
    for name in TABLES:
        vectors = [field.name for field in made[name].schema if pa.types.is_list(field.type)]
        assert made[name].drop_columns(vectors).equals(wanted[name].drop_columns(vectors)), name
        for column in vectors:  # a product of fewer rows is rounded otherwise
            ours, theirs = (np.stack(table[name][column].to_pylist()) for table in (made, wanted))
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    for name in ("user_match", "user_aug", "user_knowledge"):
        assert parts(parted)[name] > parts(whole)[name]


def test_rows_of_somebody_who_is_gone_go_in_parts_too(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "shop"
    shutil.copytree(trained, root)
    in_parts(monkeypatch)
    stages.publish(open_project(root))
    before = rows(root)["user_match"]
    log = pq.read_table(root / "interactions.parquet")
    stays = [one != "c'3" for one in log["customer_id"].to_pylist()]
    pq.write_table(log.filter(pa.array(stays)), root / "interactions.parquet")
    stages.publish(open_project(root))
    after = rows(root)["user_match"]
    assert "c'3" in before["customer_id"].to_pylist()
    assert "c'3" not in after["customer_id"].to_pylist()
    assert after.num_rows == before.num_rows - before["customer_id"].to_pylist().count("c'3")


def test_a_long_log_is_learnt_from_by_drawn_users(tmp_path: Path) -> None:
    """Everybody gets vectors; what training reads does not grow with the log."""
    shop = make_shop(
        tmp_path / "shop",
        lambda text: collective(text).replace(
            "Training(epochs=1", "Training(epochs=1, samples=300"
        ),
    )
    write_tables(shop.root, interactions=1_500)
    for stage in (stages.generate, stages.encode):
        stage(open_project(shop.root))
    trained = stages.train(open_project(shop.root))
    context = StageContext.of(open_project(shop.root))
    drawn = drawn_to_learn(context)
    assert drawn is not None
    assert 0 < len(drawn) < 29
    told = [note for note in trained.notes if note.startswith("learnt from")]
    assert len(told) == 1
    assert f"of 1,500 interactions, those of {len(drawn)} users that the seed drew" in told[0]
    assert trained.samples is not None
    counts = (trained.samples.training, trained.samples.validation, trained.samples.test)
    assert 0 < sum(counts) <= 300
    stages.publish(open_project(shop.root))
    users = set(context.tables.interactions["customer_id"].to_pylist())
    for name in ("user_aug", "user_match"):
        assert set(rows(shop.root)[name]["customer_id"].to_pylist()) == users


def generated(root: Path, asked: list[tuple[int, int]]) -> dict[str, Any]:
    """What a generation tells, without seconds and parts' notes of repeats."""
    made = stages.generate(
        open_project(root),
        progress=CallbackProgress(lambda _, done, total: asked.append((done, total))),
    )
    usage = made.usage
    return {
        "prompts": made.prompts,
        "asked": usage.asked,
        "reused": usage.reused,
        "calls": usage.calls,
        "tokens": (usage.prompt_tokens, usage.answer_tokens),
        "added": usage.added,
        "notes": made.notes,
    }


def contents(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What is stored of prompts and answers, without when these were made."""
    found = {}
    for name in ("knowledge", "asked", "inputs"):
        parts = (root / "data" / "shop" / name).glob("*.parquet")
        table = pa.concat_tables(map(pq.read_table, parts))
        kept = [one for one in table.column_names if one not in ("created_timestamp", "made")]
        rows = table.select(kept).to_pylist()
        found[name] = sorted(tuple(map(str, row.values())) for row in rows)
    return found


def test_prompts_of_some_users_at_a_time_ask_and_store_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [make_shop(tmp_path / name).root for name in ("whole", "parted")]
    told: dict[Path, list[dict[str, Any]]] = {root: [] for root in roots}
    for interactions in (600, 624, 624):  # the first run, a day, and a run that changes nothing
        plans = []
        for root, part in zip(roots, (1 << 16, 7), strict=True):
            monkeypatch.setattr(prompting, "PART", part)
            write_tables(root, interactions=interactions)
            plans.append(stages.plan(open_project(root)).report().plain())
            seen: list[tuple[int, int]] = []
            told[root].append(generated(root, seen))
            assert [done for done, _ in seen] == sorted(done for done, _ in seen)
            assert all(done <= total for done, total in seen)
        assert plans[0] == plans[1]
        assert contents(roots[0]) == contents(roots[1])
    assert told[roots[0]] == told[roots[1]]


def test_a_limit_ends_a_run_in_the_middle_of_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompting, "PART", 7)
    shop = make_shop(tmp_path / "shop")
    assert stages.generate(shop, limit=9).usage.asked == 9
    rest = stages.generate(open_project(shop.root))
    assert rest.usage.reused == 9
    assert not stages.generate(open_project(shop.root)).usage.asked
