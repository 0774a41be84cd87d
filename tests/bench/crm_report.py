"""What the benchmarks of training jobs show: rows, the report of a run, the table that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, gain, stat
from reki_feast.report import Report, Table
from tests.bench.common import Row
from tests.bench.crm_models import SETS, Found

#: The sets whose gain is asked for.
GAINS = {"+ vectors": "auc", "+ match scores": "match_auc"}


def rows(found: Found) -> list[Row]:
    """The benchmark's rows: each model with vectors, and with match scores alone."""
    made: list[Row] = []
    joined = {service: round(seconds, 1) for service, seconds in found.joins.items()}
    for model in _models(found):
        name, plain = model.lower().replace("-", ""), _by_seed(found, model, "plain")
        for columns, end in GAINS.items():
            ours = _by_seed(found, model, columns)
            gains = [ours[seed] - plain[seed] for seed in plain]
            row: Row = {
                "name": f"{name}_{end}",
                "ours": fmean(ours.values()),
                "reference": fmean(plain.values()),
                "ratio": fmean(ours.values()) / fmean(plain.values()),
                "unit": "AUC",
                "gain": fmean(gains),
                "least_gain": min(gains),
                "seconds_join": joined,
            }
            made.append(row)
    return made


def report(found: Found) -> Report:
    """All that a person who runs it wants to know."""
    plain = {(one.seed, one.model): one.auc for one in found.results if one.columns == "plain"}
    shown = [
        (
            one.seed,
            one.model,
            one.columns,
            one.width,
            one.rows,
            one.auc,
            f"{one.auc - plain[one.seed, one.model]:+.4f}",
            one.log_loss,
            round(one.seconds),
        )
        for one in found.results
    ]
    heads = "seed", "model", "columns", "number", "trained on", "AUC", "gain", "LogLoss", "seconds"
    took = ", ".join(f"{service} {seconds:.1f} s" for service, seconds in found.joins.items())
    joined = f"get_historical_features of {found.count:,} rows: {took}"
    return Report(found.data, tables=[Table("crm", heads, shown)], notes=[joined, *found.notes])


def table(every: Sequence[Found]) -> ResultTable:
    """AUC of each model on each set of columns, side by side."""
    measures = []
    for model in dict.fromkeys(model for found in every for model in _models(found)):
        for found in every:
            row, plain = (model, found.data), _by_seed(found, model, "plain")
            for columns in SETS:
                scores = _by_seed(found, model, columns)
                if scores:
                    measures.append(
                        Measure(row, "AUC", stat(scores.values()), "score", "AUC", columns)
                    )
                if scores and columns in GAINS:
                    ours, p = gain(plain, scores)
                    measures.append(Measure(row, "gain", ours, "gain", "AUC", columns, p=p))
    shown = [
        column
        for columns in SETS
        for column in (
            ResultColumn(columns, "AUC", columns),
            *([ResultColumn("gain", "gain", columns)] if columns in GAINS else []),
        )
    ]
    shown.append(ResultColumn("seeds", "AUC", "plain", "n"))
    notes = (
        "Columns come out of `get_historical_features`; models and their settings are those of "
        "`tests/bench/crm_learners.py`, the same for all sets of columns",
        *(f"{found.data}: {note}" for found in every for note in found.notes),
    )
    return ResultTable(
        "crm",
        "Training jobs of five libraries, without and with vectors out of Feast",
        ("model", "data"),
        tuple(shown),
        tuple(measures),
        ("gain",),
        notes,
    )


def _models(found: Found) -> list[str]:
    return list(dict.fromkeys(one.model for one in found.results))


def _by_seed(found: Found, model: str, columns: str) -> dict[int, float]:
    wanted = model, columns
    return {one.seed: one.auc for one in found.results if (one.model, one.columns) == wanted}
