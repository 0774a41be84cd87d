"""Cells: keys that tell them apart, lines that come back whole."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.evaluation.experiments import Experiment, ExperimentResult, dump, key, load

CELL = Experiment("ctr", "din")
OUTCOME = ExperimentResult({"auc": 0.8, "log_loss": 0.5}, 3, 0.01, 2e4, 30.5, 1_000)


@pytest.mark.parametrize(
    "other",
    [
        replace(CELL, task="rerank"),
        replace(CELL, backbone="dien"),
        replace(CELL, sides="user"),
        replace(CELL, network="moe"),
        replace(CELL, knowledge="raw"),
        replace(CELL, imported=True),
        replace(CELL, encoder="bge"),
        replace(CELL, extraction="individual"),
        replace(CELL, seed=1),
        replace(CELL, learning_rate=0.01),
        replace(CELL, scored="validation"),
    ],
    ids=str,
)
def test_what_is_trained_otherwise_has_another_key(other: Experiment) -> None:
    assert key(other, "m") != key(CELL, "m")


def test_other_material_has_another_key() -> None:
    assert key(CELL, "m") == key(replace(CELL), "m") != key(CELL, "n")


@given(
    auc=st.floats(0, 1) | st.just(math.nan),
    seconds=st.floats(0, 1e9),
    seed=st.integers(0, 9),
)
def test_a_line_comes_back_whole(auc: float, seconds: float, seed: int) -> None:
    experiment = replace(CELL, seed=seed)
    made = replace(OUTCOME, metrics={"auc": auc}, seconds=seconds)
    line = dump(experiment, made, "m")
    assert "\n" not in line
    found, read = load(line)
    assert found == key(experiment, "m")
    assert read.seconds == seconds
    assert repr(dict(read.metrics)) == repr({"auc": auc})


def test_a_line_says_to_people_what_was_trained() -> None:
    entry = json.loads(dump(CELL, replace(OUTCOME, metrics={"auc": math.nan}), "m"))
    assert entry["cell"]["backbone"] == "din"
    assert entry["outcome"]["metrics"] == {"auc": None}


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (dump(CELL, OUTCOME, "m")[:-9], "Unterminated"),
        ("[]", "an object with key"),
        ('{"key": "k", "outcome": {"metrics": {}}}', "a finished cell"),
        ('{"outcome": {}}', "a finished cell"),
    ],
)
def test_a_line_that_is_none_is_refused(line: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load(line)
