"""`make evaluate`: the quick version of the evaluation, DIN and LightGBM with one seed, and speed.

The whole tables: ``python -m tests.bench.tables``.
"""

from __future__ import annotations

from statistics import median

from reki_feast import rendering
from reki_feast.evaluation.command import evaluation_data, machine
from reki_feast.evaluation.spec import BATCH, LARGE
from reki_feast.evaluation.timing import inference, training
from reki_feast.stages.training_data import training_data
from tests.bench import crm, crm_report, ml1m, real_ml1m
from tests.bench.common import BUILD, Row, data_folder, finish
from tests.bench.crm_models import FEW

#: Samples a second of the code published with the paper's predecessor, as measured on two CPU
#: cores on the same data in batches of 256: DIN, and DIN with vectors.
PREDECESSOR = {"base": 3_478, "hein": 2_151}


def speed() -> list[Row]:
    """Training and inference of DIN, without vectors, with HEIN and with stored vectors."""
    project = ml1m.project(data_folder(), BUILD / "ml1m")
    given = evaluation_data(project, training_data(project))
    small, large = (
        training(given, ["din"], size=size, repeats=7)["din"] for size in (BATCH, LARGE)
    )
    times = inference(given, ["din"], repeats=9)["din"]
    plain, vectors = median(small["base"]), median(small["hein"])
    ratio = {
        size: median(a / b for a, b in zip(found["base"], found["hein"], strict=True))
        for size, found in ((BATCH, small), (LARGE, large))
    }
    stored = median(a / b for a, b in zip(times["stored"], times["base"], strict=True))
    milliseconds = {way: round(1000 * median(found), 3) for way, found in times.items()}
    return [
        _against("train_samples_per_s", plain, PREDECESSOR["base"]),
        _against("train_samples_per_s_vectors", vectors, PREDECESSOR["hein"]),
        _ratio("train_overhead", ratio[BATCH], f"times DIN's step, batch {BATCH}"),
        _ratio("train_overhead_large", ratio[LARGE], f"times DIN's step, batch {LARGE}"),
        {
            **_ratio("inference_overhead", stored, f"times DIN's batch of {BATCH}"),
            "milliseconds": milliseconds,
        },
    ]


def _against(name: str, ours: float, reference: float) -> Row:
    return {
        "name": name,
        "ours": round(ours),
        "reference": reference,
        "ratio": ours / reference,
        "unit": f"samples/s, batch {BATCH}",
    }


def _ratio(name: str, ratio: float, unit: str) -> Row:
    return {"name": name, "ours": ratio, "reference": 1.0, "ratio": ratio, "unit": unit}


def main() -> None:
    """Train, measure, print the tables and write ``build/bench/evaluate.json``."""
    data, progress = data_folder(), rendering.ProgressBars()
    din = [{**row, "name": "din_auc"} for row in real_ml1m.run(data, BUILD / "ml1m", progress)]
    trees = crm.run(data, BUILD / "ml1m", progress, sets=FEW)
    rendering.report(crm_report.report(trees))
    notes = [
        ml1m.NOTE,
        "train_samples_per_s: the reference is the code published with the paper's predecessor, "
        "measured once on two CPU cores; all other references are of this run",
        machine(),
    ]
    finish("evaluate", "evaluation, quick", [*din, *crm_report.rows(trees), *speed()], notes)


if __name__ == "__main__":
    main()
