"""What time.py shows: rows, the table that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, gain, stat
from tests.bench.common import Row
from tests.bench.time_models import PLAIN, Measured

#: The set that a service has by default: `reki_match:score` beside the plain columns.
SCORE = "+ score"
#: More than this, and the score has seen labels of the rows that it is trained on.
LEAK = 0.02


@dataclass(frozen=True)
class Found:
    """What came of one data set.

    Attributes:
        name: of the data set, the first word of its rows.
        title: one line.
        measured: by model and set of columns.
        score: AUC of the score alone on earlier rows and on tested ones, those with a state.
        notes: what a reader has to know.
    """

    name: str
    title: str
    measured: tuple[Measured, ...]
    score: tuple[float, float]
    notes: tuple[str, ...]

    def by_model(self) -> dict[str, dict[str, Measured]]:
        """Each model's sets by name."""
        found: dict[str, dict[str, Measured]] = {}
        for one in self.measured:
            found.setdefault(one.model, {})[one.columns] = one
        return found


def rows(every: Sequence[Found]) -> list[Row]:
    """The benchmark's rows: a model and data set each, then what the score has seen."""
    made = [
        _row(f"{found.name}_{model.lower().replace('-', '')}", sets)
        for found in every
        for model, sets in found.by_model().items()
    ]
    leaks = [_leak(f"{found.name}_score_train_minus_test_auc", *found.score) for found in every]
    largest = max(every, key=lambda found: found.score[0] - found.score[1])
    return [*made, *leaks, _leak("score_train_minus_test_auc", *largest.score)]


def _row(name: str, sets: dict[str, Measured]) -> Row:
    plain, ours = sets[PLAIN], sets[SCORE]
    gains = {
        one.columns: {"gain": one.mean - plain.mean, "p": one.p, "width": one.width}
        for one in sets.values()
        if one is not plain
    }
    return {
        "name": name,
        "ours": ours.mean,
        "reference": plain.mean,
        "ratio": ours.mean / plain.mean,
        "unit": "AUC",
        "gain": ours.mean - plain.mean,
        "p": ours.p,
        "seeds": len(ours.auc),
        "gains": gains,
    }


def _leak(name: str, early: float, late: float) -> Row:
    return {
        "name": name,
        "ours": early - late,
        "reference": LEAK,
        "ratio": None,
        "unit": "AUC",
        "train": early,
        "test": late,
    }


def table(every: Sequence[Found]) -> ResultTable:
    """What each set of columns gains each model."""
    measures: list[Measure] = []
    names: dict[str, None] = {}
    models = dict.fromkeys(model for found in every for model in found.by_model())
    for model in models:
        for found in every:
            sets = found.by_model().get(model, {})
            names |= dict.fromkeys(sets)
            measures += _measures((model, found.title), sets)
    for found in every:
        names |= dict.fromkeys(one.columns for one in found.measured)
        measures += _mean(found, list(names))
    shown = [ResultColumn(PLAIN, "AUC", PLAIN)]
    for name in names:
        if name != PLAIN:
            shown.append(ResultColumn(name, "gain", name))
        if name == SCORE:
            shown.append(ResultColumn("p", "gain", name, "p"))
    return ResultTable(
        "time",
        "Training jobs of five libraries in time: what columns out of Feast gain",
        ("model", "data"),
        (*shown, ResultColumn("seeds", "AUC", PLAIN, "n")),
        tuple(measures),
        ("gain",),
        tuple(f"{found.title}: {note}" for found in every for note in found.notes),
        test="two-sided bootstrap over the users of the tested rows",
    )


def _measures(row: tuple[str, str], sets: dict[str, Measured]) -> list[Measure]:
    plain = sets[PLAIN]
    made = [Measure(row, "AUC", stat(plain.auc.values()), "score", "AUC", PLAIN)]
    for name, one in sets.items():
        if one is not plain:
            ours, _ = gain(plain.auc, one.auc)
            made.append(Measure(row, "gain", ours, "gain", "AUC", name, p=one.p))
    return made


def _mean(found: Found, names: Sequence[str]) -> list[Measure]:
    """Means over models."""
    row, by_model = ("mean", found.title), list(found.by_model().values())
    means = {name: fmean(sets[name].mean for sets in by_model) for name in names}
    return [
        Measure(row, "AUC", stat([means[PLAIN]]), "score", "AUC", PLAIN),
        *(
            Measure(row, "gain", stat([means[name] - means[PLAIN]]), "gain", "AUC", name)
            for name in names
            if name != PLAIN
        ),
    ]
