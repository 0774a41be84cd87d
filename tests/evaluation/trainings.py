"""Trainings that worker processes can import, and a program that runs them until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from reki_feast.errors import EncodeError
from reki_feast.evaluation.experiments import Experiment, ExperimentResult
from reki_feast.evaluation.runner import ResultStore, Train, run

EXPERIMENTS = [Experiment("ctr", "din", seed=seed) for seed in range(4)]


def outcome(auc: float) -> ExperimentResult:
    metrics = {"auc": auc, "log_loss": 1 - auc}
    return ExperimentResult(
        metrics, 2, seconds_per_batch=0.5, samples_per_second=8, seconds=1, parameters=3
    )


def noted(experiment: Experiment, folder: Path) -> ExperimentResult:
    """Leaves a file named by the cell's seed that says who trained it."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    (folder / str(experiment.seed)).write_text(f"{os.getpid()} {threads}")
    return outcome(experiment.seed / 8)


def failing(experiment: Experiment, folder: Path) -> ExperimentResult:
    """Seed 1 fails, after seed 0 has begun and before it is done."""
    if experiment.seed == 0:
        noted(experiment, folder)
        _await(folder / "1")
        time.sleep(2)  # by then it is known that seed 1 failed
    elif experiment.seed == 1:
        _await(folder / "0")
        noted(experiment, folder)
        raise EncodeError("vectors are finite", detail="NaN")
    return noted(experiment, folder)


def endless(experiment: Experiment, folder: Path) -> ExperimentResult:
    """Only seed 0 is ever done."""
    made = noted(experiment, folder)
    time.sleep(3600 if experiment.seed else 0)
    return made


def dying(experiment: Experiment, folder: Path) -> ExperimentResult:
    os._exit(9)


def ready(name: str, folder: Path) -> Train:
    """A loader, once its name and folder are given: it notes that it was called."""
    (folder / f"loaded-{os.getpid()}").touch()
    trainings = {"noted": noted, "failing": failing, "endless": endless, "dying": dying}
    return partial(trainings[name], folder=folder)


def unready() -> Train:
    raise EncodeError("representations are there")


def _await(path: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


if __name__ == "__main__":
    # what a shell starts in the background is deaf to it, and so are its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    at = Path(sys.argv[1])
    run(EXPERIMENTS, partial(ready, "endless", at), ResultStore(at / "store.jsonl", "m"), workers=2)
