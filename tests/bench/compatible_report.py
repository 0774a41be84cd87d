"""What compatible.py shows: rows, the table that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, stat
from reki_feast.models.bootstrap import two_sided
from tests.bench import ml1m
from tests.bench.common import Row
from tests.bench.compatible_world import MODELS

#: AUC that may be lost: of the old model by compatible vectors, of a new one by them.
OLD_LOSS, NEW_LOSS = 0.0005, 0.0010
CASES = {"users": "10 % more users", "encoder": "another encoder"}


def report(found: Sequence[Mapping[str, Any]]) -> ResultTable:
    """The table that is kept."""
    measures: list[Measure] = []
    for case, model in _rows(found):
        row = (CASES[case], model)
        mine = [one for one in found if (one["case"], one["model"]) == (case, model)]
        for name in mine[0]["auc"]:
            aucs = stat(one["auc"][name] for one in mine)
            measures.append(Measure(row, "AUC", aucs, "score", "AUC", name))
        for name, (ours, reference) in _LOSSES.items():
            differences = [one["auc"][ours] - one["auc"][reference] for one in mine]
            p = _p(mine, ours, reference)
            measures.append(Measure(row, "gain", stat(differences), "gain", "AUC", name, p=p))
    return ResultTable(
        "compatible",
        "A model in service, and a new one, after a retrain",
        ("retrain", "model"),
        tuple(_columns(found[0]["auc"])),
        tuple(measures),
        ("gain",),
        (
            "old: learnt from the vectors before the retrain; new: from those after it; HEIN's "
            "own recommender is a DIN of another seed",
            ml1m.NOTE,
        ),
        test="two-sided bootstrap over the tested users, all seeds together",
    )


#: What is lost, or gained: the old model by a retrain, a new one by its being compatible.
_LOSSES = {
    "old: plain": ("old, plain", "old, own"),
    "old: compatible": ("old, compatible", "old, own"),
    "new: compatible": ("new, compatible", "new, plain"),
}


def _columns(names: Mapping[str, float]) -> Iterator[ResultColumn]:
    for name in names:
        yield ResultColumn(name, "AUC", name)
    for name in _LOSSES:
        yield ResultColumn(name, "gain", name)
        yield ResultColumn("p", "gain", name, "p")
    yield ResultColumn("seeds", "AUC", next(iter(names)), "n")


def _rows(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [
        (case, model)
        for case in CASES
        for model in MODELS
        if any((one["case"], one["model"]) == (case, model) for one in found)
    ]


def _p(found: Sequence[Mapping[str, Any]], ours: str, reference: str) -> float:
    """Of the mean difference over seeds, whose tested users are drawn again each."""
    sides = (np.array([one["resampled"][name] for one in found]) for name in (ours, reference))
    mine, other = sides
    return two_sided((mine - other).mean(axis=0))


def rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The benchmark's rows: the worst loss of all cases and models, and each."""
    every = [
        _row(f"{side}_model_compatible_loss/{case}/{model.lower()}", side, mine)
        for case, model in _rows(found)
        for side in ("old", "new")
        if (mine := [one for one in found if (one["case"], one["model"]) == (case, model)])
    ]
    worst = [
        {**_worst([one for one in every if one["name"].startswith(name)]), "name": name}
        for name in ("old_model_compatible_loss", "new_model_compatible_loss")
    ]
    return [*worst, *every]


def _worst(rows: Sequence[Row]) -> Row:
    losses = [row["ours"] for row in rows]
    return rows[losses.index(max(losses))]


def _row(name: str, side: str, found: Sequence[Mapping[str, Any]]) -> Row:
    ours, reference = _LOSSES[f"{side}: compatible"]
    loss = fmean(one["auc"][reference] - one["auc"][ours] for one in found)
    most = OLD_LOSS if side == "old" else NEW_LOSS
    return {
        "name": name,
        "ours": loss,
        "reference": most,
        "ratio": loss / most,
        "unit": "AUC",
        "p": _p(found, ours, reference),
        "seeds": len(found),
    }
