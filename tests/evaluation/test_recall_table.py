"""Recall by hand-made vectors and clicks, and `reki evaluate --table recall` on the small shop."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.errors import EvaluateError
from reki_feast.evaluation import command, recall_table
from reki_feast.evaluation.recall import (
    COMBINED,
    ITEMS_KNOWN,
    MEAN,
    NEAREST,
    NEIGHBOURS,
    POOLED,
    POPULARITY,
    PREFERENCES,
    Pairs,
    RecallData,
    gain_of,
    scored,
    standardised,
)
from reki_feast.evaluation.recall_data import recall_data
from reki_feast.evaluation.recall_table import RecallFigures
from reki_feast.project import DeclaredProject
from tests.stages.conftest import T0, make_shop

#: Six items, two by two alike; the last two are new to everybody.
ITEMS = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1], [0.9, 0, 0.4], [0, 0, 1]], "f4")
NONE = np.full(3, np.nan, "f4")


def pairs(*of: tuple[int, int]) -> Pairs:
    return Pairs.of(*np.array(of).T)


def data(**changed: Any) -> RecallData:
    """Two users: the first met item 0 and likes 4 later, the second met 2 and likes 3 and 5."""
    made = RecallData(
        users="all users",
        count=2,
        items=ITEMS,
        log=pairs((0, 0), (1, 2), (7, 2), (7, 3), (8, 1), (8, 2)),
        cold=np.array([False, False, False, False, True, True]),
        liked=pairs((0, 0), (1, 2)),
        met=pairs((0, 0), (0, 2), (1, 2)),
        later=pairs((0, 4), (1, 3), (1, 5)),
        knowledge=np.array([[0, 0, 1], [0, 1, 1]], "f4"),
        preferences={"a": np.array([[1, 0, 0.5], NONE]), "b": np.array([NONE, NONE])},
    )
    return replace(made, **changed)


def firsts(way: str, *, cold: bool = False, **changed: Any) -> list[float]:
    """NDCG of each user: 1 where the first places are right."""
    found: list[float] = scored(data(**changed))[cold][way]["ndcg10"].round(4).tolist()
    return found


SECOND, FIFTH = round(1 / np.log2(3), 4), round(1 / np.log2(6), 4)
BEST_OF_TWO = 1 + 1 / np.log2(3)


def test_ranks_by_hand() -> None:
    # user 0 has 1, 3, 4, 5 to choose from: 1 is nearest to 0, then 4
    assert firsts(MEAN)[0] == firsts(NEAREST)[0] == SECOND
    # user 1 has 0, 1, 3, 4, 5: 3 is the nearest to 2; then come 1, and at 0 the other three
    assert firsts(NEIGHBOURS)[1] >= round(1 / BEST_OF_TWO, 4)
    assert firsts(MEAN)[1] >= round(1 / BEST_OF_TWO, 4)
    assert firsts(POOLED)[1] == 1.0
    assert firsts(PREFERENCES) == [1.0, 1.0]  # user 1 has no preference: the pooled vector


def test_cold_items_are_ranked_among_themselves() -> None:
    assert firsts(MEAN, cold=True) == [1.0, SECOND]
    assert firsts(POOLED, cold=True) == [SECOND, 1.0]
    assert firsts(PREFERENCES, cold=True) == [1.0, 1.0]
    only = scored(data(later=pairs((1, 3))))[True][MEAN]["recall50"]
    assert np.isnan(only).all()  # no cold item was liked


def test_what_reads_no_text_is_at_chance_among_cold_items() -> None:
    count = 200
    many = data(
        count=count,
        liked=pairs(*((n, 0) for n in range(count))),
        met=pairs(*((n, 0) for n in range(count))),
        later=pairs(*((n, 4 + n % 2) for n in range(count))),
        knowledge=None,
        preferences={},
    )
    for way in (POPULARITY, NEIGHBOURS):
        ndcg = scored(many)[True][way]["ndcg10"]
        assert ndcg.mean() == pytest.approx((1 + SECOND) / 2, abs=1e-3)


def test_met_items_are_no_candidates() -> None:
    found = scored(data(later=pairs((0, 4)), met=pairs((0, 0), (0, 1), (0, 2), (0, 3), (0, 5))))
    assert all(way["ndcg10"][0] == 1.0 for way in found[False].values())


def test_the_combination_is_a_sum_of_standard_scores() -> None:
    scores = np.array([[1, 2, 3], [5, 5, 5]], "f4")
    expected = np.array([[-1.225, 0, 1.225], [0, 0, 0]])
    assert standardised(scores) == pytest.approx(expected, abs=1e-3)
    nothing = {"a": np.zeros((2, 3), "f4")}  # preferences that tell nothing
    assert firsts(COMBINED, preferences=nothing) == firsts(MEAN)


def test_items_knowledge_where_there_is_any() -> None:
    assert ITEMS_KNOWN not in scored(data())[False]
    known = np.array([[1, 0], [0, 0], [0, 1], [0, 1], [1, 0], [0, 1]], "f4")
    assert firsts(ITEMS_KNOWN, items_known=known)[0] == 1.0


@pytest.mark.parametrize(
    ("after", "before", "mean", "at_most"),
    [
        (np.full(50, 0.5), np.zeros(50), 0.5, 0.002),
        (np.tile([0.0, 1.0], 25), np.tile([1.0, 0.0], 25), 0.0, 1.0),
        (np.zeros(9), np.zeros(9), 0.0, 1.0),
    ],
)
def test_p_is_of_paired_users(after: Any, before: Any, mean: float, at_most: float) -> None:
    found, p = gain_of(after, before)
    assert found == pytest.approx(mean)
    assert p <= at_most
    assert p > 0.5 or mean


def test_notes_say_plainly_what_knowledge_brings() -> None:
    made = RecallFigures.of(data())
    worse = {**made.by_way[True], PREFERENCES: made.by_way[True][POPULARITY]}
    none = replace(made, by_way={**made.by_way, True: worse})
    said = " ".join(recall_table.notes([none]))
    assert "2 of 6 items are cold" in said
    nothing = "what a language model knows finds neither more nor less than titles"
    assert f"all users, cold items: {nothing} (p below 0.05)." in said


def test_notes_name_what_finds_more_and_less() -> None:
    count = 40
    many = data(
        count=count,
        liked=pairs(*((n, 0) for n in range(count))),
        met=pairs(*((n, 0) for n in range(count))),
        later=pairs(*((n, 5) for n in range(count))),
        items=np.vstack([ITEMS, np.tile(ITEMS[:1], (60, 1))]),
        cold=np.array([False] * 6 + [True] * 60),
        knowledge=np.tile(np.array([0, 0, 1], "f4"), (count, 1)),
        preferences={"a": np.tile(np.array([1, 0, 0], "f4"), (count, 1))},
    )
    said = list(recall_table.notes([RecallFigures.of(many)]))
    [verdict] = [note for note in said if "all items" in note]
    assert f"{POOLED} finds more than titles" in verdict
    assert PREFERENCES not in verdict


# --- a project ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    """Half of the customers are asked about; five products are not bought before the snapshot."""
    root = tmp_path_factory.mktemp("recall") / "my shop"
    how = 'Encoder(model="hash", preferences=True)'
    cut = (T0 + timedelta(hours=300)).isoformat()

    def edit(text: str) -> str:
        text = text.replace('Encoder(model="hash")', how)
        return text.replace("Scenario(", f'Scenario(as_of=["{cut}"], ')

    project = make_shop(root, edit)
    path = root / "interactions.parquet"
    rows = pq.read_table(path)
    new = pc.is_in(rows["sku"], value_set=pa.array([f"s-{n}" for n in range(15, 20)]))
    late = pc.greater_equal(rows["event_timestamp"], pa.scalar(T0 + timedelta(hours=300)))
    pq.write_table(rows.filter(pc.or_(late, pc.invert(new))), path)
    stages.generate(project, limit=30)
    stages.encode(project)
    return project


def test_the_data_of_a_project(shop: DeclaredProject) -> None:
    every, informed = recall_data(shop)
    assert (every.users, informed.users) == ("all users", "users with knowledge")
    assert every.knowledge is None
    assert 0 < informed.count < every.count
    assert every.cold.sum() == informed.cold.sum() == 5
    assert informed.knowledge is not None
    assert len(informed.preferences) == 2
    assert informed.knowledge.shape == (informed.count, 32)
    rows = pq.read_table(shop.root / "interactions.parquet")
    early = rows.filter(pc.less(rows["event_timestamp"], pa.scalar(T0 + timedelta(hours=300))))
    both = {(row["customer_id"], row["sku"]) for row in early.to_pylist()}
    assert len(every.met.users) <= len(both)
    keys = {(a, b) for a, b in zip(every.later.users, every.later.items, strict=True)}
    assert not keys & {(a, b) for a, b in zip(every.met.users, every.met.items, strict=True)}


def test_the_table_of_a_project(shop: DeclaredProject, tmp_path: Path) -> None:
    found = command.evaluate(shop, tables=["recall"], out=tmp_path)
    names = {f"recall{ending}" for ending in (".json", ".md", ".png", ".svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    [table] = found.results
    ways = [way for way, users in table.rows if users == "users with knowledge"]
    assert ways[:4] == [POPULARITY, NEIGHBOURS, MEAN, NEAREST]
    assert {POOLED, PREFERENCES, COMBINED} <= set(ways)
    everybody = {way for way, users in table.rows if users == "all users"}
    assert not everybody & {POOLED, PREFERENCES, COMBINED}
    said = json.loads((tmp_path / "recall.json").read_text())
    gains = [row for row in said if row["name"].endswith("/gain")]
    assert len({row["name"] for row in said}) == len(said)
    assert all(0 < row["p"] <= 1 for row in gains)
    text = (tmp_path / "recall.md").read_text()
    assert "p: two-sided bootstrap over users" in text
    assert "5 of 20 items are cold" in text


def test_rows_that_are_held_out_are_the_test(tmp_path: Path) -> None:
    rule = f"event_timestamp >= timestamptz '{(T0 + timedelta(hours=500)).isoformat()}'"
    project = make_shop(tmp_path, lambda t: t.replace("Scenario(", f'Scenario(held_out="{rule}", '))
    stages.encode(project)
    [every] = recall_data(project)
    assert every.knowledge is None
    assert len(every.later.users) > 0


def test_nothing_came_after_a_snapshot(tmp_path: Path) -> None:
    late = f'Scenario(as_of=["{(T0 + timedelta(hours=590)).isoformat()}"], '
    project = make_shop(tmp_path, lambda text: text.replace("Scenario(", late))
    stages.encode(project)
    with pytest.raises(EvaluateError, match="a tenth of them after it\n  hint: .*--as-of"):
        command.evaluate(project, tables=["recall"])
