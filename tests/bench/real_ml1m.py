"""MovieLens-1M with the paper's own group knowledge: DIN without vectors against DIN with them.

Both models get the same samples, inputs, sizes and epochs (see :mod:`tests.bench.ml1m`), and each
the learning rate that it does best with.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from reki_feast import rendering
from reki_feast.evaluation.command import evaluation_data
from reki_feast.evaluation.experiments import Experiment, ExperimentResult, base
from reki_feast.evaluation.training import trainer
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.stages.training_data import training_data
from tests.bench import ml1m
from tests.bench.common import BUILD, Row, data_folder

SEEDS = (0,)
#: What each does best with on validation users of seed 0, as Table 2 chooses it.
PLAIN_RATE, RATE = 0.02, 0.01


def run(
    data: Path, folder: Path, progress: Progress | None = None, *, seeds: Sequence[int] = SEEDS
) -> list[Row]:
    """Train both models once a seed, print the table, and return the benchmark's rows.

    Args:
        data: folder with ``ml-1m/`` and ``ml-1m-knowledge/``.
        folder: of the project, where encoded texts are kept.
        progress: shows how far it is; None shows nothing.
        seeds: each draws its own split, weights and order of samples.
    """
    bars = progress or Silent()
    project = ml1m.project(data, folder, bars)
    train = trainer(evaluation_data(project, training_data(project)))
    experiments = [experiment for seed in seeds for experiment in (_plain(seed), _both(seed))]
    found: dict[Experiment, ExperimentResult] = {}
    with bars.bar("training DIN") as bar:
        for experiment in experiments:
            found[experiment] = train(experiment)
            bar(len(found), len(experiments))
    plain = [found[_plain(seed)] for seed in seeds]
    vectors = [found[_both(seed)] for seed in seeds]
    rendering.report(_report(seeds, plain, vectors))
    return [_row(seeds, plain, vectors)]


def _plain(seed: int) -> Experiment:
    return replace(base("ctr", "din", seed=seed), learning_rate=PLAIN_RATE)


def _both(seed: int) -> Experiment:
    return Experiment("ctr", "din", seed=seed, learning_rate=RATE)


def _row(
    seeds: Sequence[int], plain: Sequence[ExperimentResult], vectors: Sequence[ExperimentResult]
) -> Row:
    """Means over the seeds."""
    ours, reference = (fmean(one.metrics["auc"] for one in side) for side in (vectors, plain))
    gains = [a.metrics["auc"] - b.metrics["auc"] for a, b in zip(vectors, plain, strict=True)]
    return {
        "name": "ml1m_din_auc",
        "ours": ours,
        "reference": reference,
        "ratio": ours / reference,
        "unit": "AUC",
        "gain": ours - reference,
        "least_gain": min(gains),
        "logloss_ours": fmean(one.metrics["log_loss"] for one in vectors),
        "logloss_reference": fmean(one.metrics["log_loss"] for one in plain),
        "samples_per_s_ours": fmean(one.samples_per_second for one in vectors),
        "samples_per_s_reference": fmean(one.samples_per_second for one in plain),
        "seeds": list(seeds),
    }


def _report(
    seeds: Sequence[int], plain: Sequence[ExperimentResult], vectors: Sequence[ExperimentResult]
) -> Report:
    """The table a person reads."""
    rows = [
        (seed, name, one.metrics["auc"], one.metrics["log_loss"], round(one.samples_per_second))
        for seed, *pair in zip(seeds, plain, vectors, strict=True)
        for name, one in zip(("DIN", "DIN + vectors"), pair, strict=True)
    ]
    columns = ("seed", "model", "AUC", "LogLoss", "samples/s")
    return Report(
        "MovieLens-1M, group knowledge of gpt-3.5-turbo, held-out users",
        tables=[Table("ml1m_din_auc", columns, rows)],
        notes=[ml1m.NOTE],
    )


def main() -> None:
    """Run it alone; seeds may be given as arguments."""
    seeds = tuple(int(seed) for seed in sys.argv[1:]) or SEEDS
    run(data_folder(), BUILD / "ml1m", rendering.ProgressBars(), seeds=seeds)


if __name__ == "__main__":
    main()
