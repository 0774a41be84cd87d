"""What `make time` is made of, on small tables."""

from __future__ import annotations

import pandas as pd
import pytest

from reki_feast.evaluation.render import TableContext, markdown
from tests.bench.time_data import Data, permuted
from tests.bench.time_models import Measured
from tests.bench.time_projects import snapshots
from tests.bench.time_report import Found, rows, table


def made() -> Data:
    ids = range(8)
    items = pd.DataFrame(
        {
            "item_id": ids,
            "title": [f"title {at}" for at in ids],
            "genres": "A",
            "said": [f"said {at}" for at in ids],
            "known": [None if at == 3 else f"known {at}" for at in ids],
        }
    )
    return Data("d", "D", "rating >= 4", pd.DataFrame(), items, pd.DataFrame(), ())


def test_permuted_texts_move_together_and_titles_stay() -> None:
    data = made()
    moved = permuted(data, seed=0).items
    assert moved[["item_id", "title", "genres"]].equals(data.items[["item_id", "title", "genres"]])
    assert not moved["said"].equals(data.items["said"])
    pairs = [set(zip(items["said"], items["known"], strict=True)) for items in (data.items, moved)]
    assert pairs[0] == pairs[1]


def test_a_snapshot_stands_at_the_cut_and_none_after_the_end() -> None:
    when = pd.Series(pd.date_range("2026-01-01", periods=101, freq="h", tz="UTC"))
    cut = when.quantile(0.8)
    times = snapshots(when, cut)
    assert times == sorted(set(times))
    assert cut.to_pydatetime() in times
    assert times[0] < when.min()
    assert (times[-1] - when.max()).total_seconds() == pytest.approx(1e-6)


def found(name: str, *, gain: float, score: tuple[float, float]) -> Found:
    sets = {"plain": 0.7, "+ vectors": 0.69, "+ score": 0.7 + gain}
    measured = [
        Measured(model, columns, 1, {0: auc, 1: auc + 0.01}, 1.0 if columns == "plain" else 0.04)
        for model in ("LightGBM", "torch-rechub")
        for columns, auc in sets.items()
    ]
    return Found(name, name.upper(), tuple(measured), score, ("a note",))


EVERY = (found("a", gain=0.02, score=(0.6, 0.61)), found("b", gain=-0.01, score=(0.7, 0.65)))


def test_rows() -> None:
    named = {row["name"]: row for row in rows(EVERY)}
    assert [*named] == [
        *("a_lightgbm", "a_torchrechub", "b_lightgbm", "b_torchrechub"),
        *("a_score_train_minus_test_auc", "b_score_train_minus_test_auc"),
        "score_train_minus_test_auc",
    ]
    row = named["a_lightgbm"]
    assert (row["ours"], row["reference"]) == pytest.approx((0.725, 0.705))
    assert (row["gain"], row["p"], row["seeds"]) == pytest.approx((0.02, 0.04, 2))
    assert row["gains"]["+ vectors"]["gain"] == pytest.approx(-0.01)
    assert named["score_train_minus_test_auc"]["ours"] == pytest.approx(0.05)


def test_table() -> None:
    text = markdown(table(EVERY), TableContext("Two logs", "a machine", (0, 1)))
    heads = ["model", "data", "plain", "+ vectors", "+ score", "p", "seeds"]
    assert [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")] == heads
    assert "| mean         | B    |          0.7050 |" in text
    assert "p: two-sided bootstrap over the users of the tested rows." in text
    assert "t-test" not in text
