"""`reki train` says whether the scores help on the project's own log, in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.project import DeclaredProject
from reki_feast.stages.gain import PERMUTED, SCORE, gains, helping_notes
from tests.stages.conftest import make_shop, write_tables


def checked(text: str) -> str:
    return text.replace("check=False", "match=1, blocks=3")


def shop_of(root: Path, *, by_kind: bool) -> DeclaredProject:
    """Customers like lamps or chairs, which only the products' texts tell; or by lot."""
    project = make_shop(root, checked)
    write_tables(project.root, interactions=2000)
    path = project.root / "interactions.parquet"
    log, draw = pq.read_table(path), np.random.default_rng(5)
    sku = np.array([int(one[2:]) for one in log["sku"].to_pylist()])
    who = np.array([int(one[2:]) for one in log["customer_id"].to_pylist()])
    likes = (sku % 2 == who % 2) if by_kind else draw.random(len(sku)) < 0.5
    stars = np.where(likes ^ (draw.random(len(sku)) < 0.1), 5, 1)
    at = log.column_names.index("stars")
    pq.write_table(log.set_column(at, "stars", pa.array(stars)), path)
    stages.encode(project)
    return project


def test_it_says_that_it_helps(tmp_path: Path) -> None:
    report = stages.train(shop_of(tmp_path / "shop", by_kind=True))
    gains = {row["columns"]: row for row in report.plain()["tables"]["gain in AUC on later rows"]}
    for model in ("logistic_gain", "trees_gain"):
        assert gains[SCORE][model] > 0.02
        assert gains[SCORE][model] > gains[PERMUTED][model]
    (verdict,) = [note for note in report.notes if note.startswith("reki_match:score ")]
    assert verdict.startswith("reki_match:score helps both models (logistic regression +")


def test_it_says_as_plainly_that_it_does_not(tmp_path: Path) -> None:
    project = shop_of(tmp_path / "shop", by_kind=False)
    stages.train(project)
    notes = stages.status(project).notes
    assert [note for note in notes if note.startswith("reki_match:score do")]
    shares = (project.lake.read_json("hein") or {})["helps"]["found"]
    assert 0 < shares["nightly"] <= shares["hourly"] <= shares["event"] <= 1


def made(
    score: tuple[float, float],
    *,
    auc: tuple[float, float] = (0.6, 0.6),
    permuted: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Any]:
    """What was measured: gain and p of both models."""
    measured = [
        (name, {"gain": gain, "p": p}) for name, (gain, p) in ((SCORE, score), (PERMUTED, permuted))
    ]
    sets = [{"name": name, "width": 1, "logistic": said, "trees": said} for name, said in measured]
    found = dict.fromkeys(("nightly", "hourly", "event"), 0.5)
    seen = dict(zip(("rows to train on", "later rows"), auc, strict=True))
    counts = {"test": 10, "train": 40, "cut": "2026-01-01T00:00:00"}
    return {**counts, "sets": sets, "found": found, "score_auc": seen}


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ((0.01, 0.01), "reki_match:score helps both models"),
        ((0.01, 0.3), "reki_match:score does not help here yet"),
        ((-0.01, 0.01), "reki_match:score does harm here"),
    ],
)
def test_a_verdict_follows_gain_and_chance(score: tuple[float, float], said: str) -> None:
    assert helping_notes(made(score))[1].startswith(said)


@pytest.mark.parametrize(
    ("permuted", "said"),
    [
        ((0.14, 0.01), ", +0.0600"),
        ((0.14, 0.3), ""),
        ((-0.01, 0.01), ""),
        ((0.25, 0.01), ", -0.0500"),
    ],
)
def test_a_gain_of_permuted_texts_is_explained(permuted: tuple[float, float], said: str) -> None:
    notes = helping_notes(made((0.2, 0.01), permuted=permuted))[2:]
    assert len(notes) == bool(said)
    assert all(
        note.startswith("permuted texts gain, too: each still tells its item from others")
        and note.endswith(f"the rest{said}")
        for note in notes
    )


def test_a_score_that_knows_its_training_rows_is_told() -> None:
    assert len(helping_notes(made((0.0, 1.0), auc=(0.70, 0.67)))) == 3
    assert len(helping_notes(made((0.0, 1.0), auc=(0.68, 0.67)))) == 2


def test_where_nothing_can_be_measured_the_reason_is_told() -> None:
    assert helping_notes({"problem": "too few"}) == [
        "whether scores help could not be measured: too few"
    ]
    assert gains({"problem": "too few"}) == [] == gains({})
    assert helping_notes({}) == []
