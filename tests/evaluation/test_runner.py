"""The runner: nothing is trained twice, whatever stopped it; failures keep what is finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from reki_feast.errors import EvaluateError
from reki_feast.evaluation.experiments import dump
from reki_feast.evaluation.runner import ResultStore, finished, run
from reki_feast.report import Bar
from tests.evaluation.trainings import EXPERIMENTS, outcome, ready, unready

ROOT = Path(__file__).parents[2]


class Shown:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    @contextmanager
    def bar(self, label: str) -> Iterator[Bar]:  # noqa: ARG002
        yield lambda done, total: self.seen.append((done, total))


def trained(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.isdigit())


def test_each_cell_is_trained_once_and_kept(tmp_path: Path) -> None:
    store = tmp_path / "build" / "store.jsonl"
    found = run(
        [*EXPERIMENTS, EXPERIMENTS[0]], partial(ready, "noted", tmp_path), ResultStore(store, "m")
    )
    assert list(found) == EXPERIMENTS
    assert found[EXPERIMENTS[2]] == outcome(0.25)
    assert store.read_text().count("\n") == len(EXPERIMENTS)
    assert run(EXPERIMENTS, unready, ResultStore(store, "m")) == found  # needs no material


def test_other_material_is_trained_anew(tmp_path: Path) -> None:
    store = tmp_path / "store.jsonl"
    run(EXPERIMENTS, partial(ready, "noted", tmp_path), ResultStore(store, "m"))
    with pytest.raises(Exception, match="representations are there"):
        run(EXPERIMENTS, unready, ResultStore(store, "n"))


def test_a_torn_line_is_trained_again_and_spoils_no_other(tmp_path: Path) -> None:
    store = tmp_path / "store.jsonl"
    whole, torn = (dump(experiment, outcome(0.9), "m") for experiment in EXPERIMENTS[:2])
    store.write_text(f"{whole}\n{torn[:40]}")
    found = run(EXPERIMENTS[:3], partial(ready, "noted", tmp_path), ResultStore(store, "m"))
    assert [found[experiment].metrics["auc"] for experiment in EXPERIMENTS[:3]] == [
        0.9,
        0.125,
        0.25,
    ]
    assert trained(tmp_path) == ["1", "2"]
    assert finished(EXPERIMENTS, ResultStore(store, "m")) == found


def test_workers_are_processes_with_a_thread_each(tmp_path: Path) -> None:
    threads = os.environ.get("OMP_NUM_THREADS")
    store = tmp_path / "store.jsonl"
    found = run(EXPERIMENTS, partial(ready, "noted", tmp_path), ResultStore(store, "m"), workers=2)
    assert found == {experiment: outcome(experiment.seed / 8) for experiment in EXPERIMENTS}
    notes = [(tmp_path / str(experiment.seed)).read_text().split() for experiment in EXPERIMENTS]
    assert {count for _, count in notes} == {"1"}
    workers = {int(process) for process, _ in notes}
    assert os.getpid() not in workers
    assert {int(path.name[7:]) for path in tmp_path.glob("loaded-*")} == workers  # once each
    assert os.environ.get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_cell_stops_the_run_and_spares_the_others(tmp_path: Path, workers: int) -> None:
    store = tmp_path / "store.jsonl"
    if workers == 1:
        (tmp_path / "1").touch()  # nobody to wait for
    loader = partial(ready, "failing", tmp_path)
    match = (
        r"(?s)trains.*ctr din both hein all collective seed 1: EncodeError: vectors.*run it again"
    )
    with pytest.raises(EvaluateError, match=match):
        run(EXPERIMENTS, loader, ResultStore(store, "m"), workers=workers)
    assert [experiment.seed for experiment in finished(EXPERIMENTS, ResultStore(store, "m"))] == [0]
    assert trained(tmp_path) == ["0", "1"]  # no other was begun


def test_material_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluateError, match="representations are there"):
        run(EXPERIMENTS, unready, ResultStore(tmp_path / "store.jsonl", "m"), workers=2)


def test_a_worker_that_dies_is_said(tmp_path: Path) -> None:
    loader = partial(ready, "dying", tmp_path)
    with pytest.raises(EvaluateError, match="its process ended"):
        run(EXPERIMENTS[:2], loader, ResultStore(tmp_path / "store.jsonl", "m"), workers=2)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=lambda stop: stop.name)
def test_a_stopped_run_leaves_no_worker_and_is_gone_on_with(
    tmp_path: Path, stop: signal.Signals
) -> None:
    store = tmp_path / "store.jsonl"
    program = [sys.executable, "-m", "tests.evaluation.trainings", str(tmp_path)]
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(trained(tmp_path)) >= 3 and bool(store.read_text()))
        process.send_signal(stop)
        process.wait(timeout=120)
        said = process.stderr.read().decode() if process.stderr else ""
    workers = {int((tmp_path / name).read_text().split()[0]) for name in trained(tmp_path)}
    wait_for(lambda: not any(lives(worker) for worker in workers))
    assert ("KeyboardInterrupt" in said) == (stop == signal.SIGINT)
    assert finished(EXPERIMENTS, ResultStore(store, "m")) == {EXPERIMENTS[0]: outcome(0.0)}
    for name in trained(tmp_path):
        (tmp_path / name).unlink()
    run(EXPERIMENTS, partial(ready, "noted", tmp_path), ResultStore(store, "m"))
    assert trained(tmp_path) == ["1", "2", "3"]


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until, "waited for 120 s"
        time.sleep(0.02)


def lives(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_bar_counts_what_was_there(tmp_path: Path) -> None:
    store = tmp_path / "store.jsonl"
    loader = partial(ready, "noted", tmp_path)
    run(EXPERIMENTS[:1], loader, ResultStore(store, "m"))
    shown = Shown()
    run(EXPERIMENTS[:3], loader, ResultStore(store, "m"), progress=shown)
    assert shown.seen == [(1, 3), (2, 3), (3, 3)]
