"""Trainings that worker processes can import, and a program that runs them until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from reki_feast.errors import EncodeError
from reki_feast.evaluate.cells import Cell, Outcome
from reki_feast.evaluate.runner import Train, run

CELLS = [Cell("ctr", "din", seed=seed) for seed in range(4)]


def outcome(auc: float) -> Outcome:
    metrics = {"auc": auc, "log_loss": 1 - auc}
    return Outcome(metrics, 2, seconds_per_batch=0.5, samples_per_second=8, seconds=1, parameters=3)


def noted(cell: Cell, folder: Path) -> Outcome:
    """Leaves a file named by the cell's seed that says who trained it."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    (folder / str(cell.seed)).write_text(f"{os.getpid()} {threads}")
    return outcome(cell.seed / 8)


def failing(cell: Cell, folder: Path) -> Outcome:
    """Seed 1 fails, after seed 0 has begun and before it is done."""
    if cell.seed == 0:
        noted(cell, folder)
        _await(folder / "1")
        time.sleep(0.2)
    elif cell.seed == 1:
        _await(folder / "0")
        noted(cell, folder)
        raise EncodeError("vectors are finite", found="NaN")
    return noted(cell, folder)


def endless(cell: Cell, folder: Path) -> Outcome:
    """Only seed 0 is ever done."""
    made = noted(cell, folder)
    time.sleep(60 if cell.seed else 0)
    return made


def dying(cell: Cell, folder: Path) -> Outcome:
    os._exit(9)


def ready(name: str, folder: Path) -> Train:
    """A loader, once its name and folder are given: it notes that it was called."""
    (folder / f"loaded-{os.getpid()}").touch()
    trainings = {"noted": noted, "failing": failing, "endless": endless, "dying": dying}
    return partial(trainings[name], folder=folder)


def unready() -> Train:
    raise EncodeError("representations are there")


def _await(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


if __name__ == "__main__":
    # what a shell starts in the background is deaf to it, and so are its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    at = Path(sys.argv[1])
    run(CELLS, partial(ready, "endless", at), at / "store.jsonl", material="m", workers=2)
