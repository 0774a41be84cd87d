"""Runs experiments, stores each result as it is finished, and resumes where a run stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeAlias

from reki_feast.errors import EvaluateError
from reki_feast.evaluation.experiments import Experiment, ExperimentResult, dump, key, load
from reki_feast.files import touch
from reki_feast.report import Bar, Progress, Silent

Train: TypeAlias = Callable[[Experiment], ExperimentResult]
#: Reads the data and returns the function that runs experiments on it. With several workers each
#: calls it once, in its own process: a picklable function of a module, or a partial of one.
Loader: TypeAlias = Callable[[], Train]
_Finished: TypeAlias = Generator[tuple[Experiment, ExperimentResult], None, None]

#: Variables that set the number of threads of numpy's and torch's libraries when loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# State of a worker process.
_loader: Loader | None = None
_train: Train | None = None


@dataclass(frozen=True)
class ResultStore:
    """Where results are stored.

    Attributes:
        path: File of finished experiments, one JSON object a line.
        data_hash: Hash of all that results depend on besides the experiment; results stored under
            another one are not used.
    """

    path: Path
    data_hash: str


def run(
    experiments: Iterable[Experiment],
    loader: Loader,
    store: ResultStore,
    *,
    progress: Progress | None = None,
    workers: int = 1,
    label: str = "evaluate",
) -> dict[Experiment, ExperimentResult]:
    """Run the experiments that the store lacks, and store each as soon as it is finished.

    A run that is interrupted, or fails, leaves the finished ones in the store.

    Args:
        experiments: What to run; duplicates are run once.
        loader: Returns the function that runs an experiment; not called if there is nothing to run.
        store: Where results are stored.
        progress: Shows how many experiments are done.
        workers: Processes of one thread each; 1 runs in this process.
        label: Of the progress bar.

    Raises:
        EvaluateError: An experiment failed; those finished beside it are stored.
    """
    wanted = list(dict.fromkeys(experiments))
    results = finished(wanted, store)
    todo = [experiment for experiment in wanted if experiment not in results]
    with (progress or Silent()).bar(label) as bar:
        bar(len(results), len(wanted))
        if todo:
            touch(store.path)
            trained = _serial(todo, loader) if workers == 1 else _parallel(todo, loader, workers)
            with closing(trained), store.path.open("a", encoding="utf-8") as file:
                _store(trained, file, results, bar, total=len(wanted), data_hash=store.data_hash)
    return {experiment: results[experiment] for experiment in wanted}


def finished(
    experiments: Collection[Experiment], store: ResultStore
) -> dict[Experiment, ExperimentResult]:
    """Results of those experiments that the store has; incomplete lines are ignored."""
    stored = dict(_lines(store.path))
    keys = {experiment: key(experiment, store.data_hash) for experiment in experiments}
    return {experiment: stored[name] for experiment, name in keys.items() if name in stored}


def _lines(path: Path) -> Iterator[tuple[str, ExperimentResult]]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            yield load(line)
        except ValueError:  # incomplete line of a killed run, or of another version
            continue


def _store(
    trained: _Finished,
    file: TextIO,
    results: dict[Experiment, ExperimentResult],
    bar: Bar,
    *,
    total: int,
    data_hash: str,
) -> None:
    """Append results as they come; a leading line break ends an incomplete last line."""
    start = "\n" if file.tell() else ""
    for experiment, result in trained:
        file.write(f"{start}{dump(experiment, result, data_hash)}\n")
        file.flush()
        start = ""
        results[experiment] = result
        bar(len(results), total)


def _serial(experiments: list[Experiment], loader: Loader) -> _Finished:
    train = loader()
    for experiment in experiments:
        try:
            result = train(experiment)
        except Exception as error:
            raise _failed(experiment, error) from error
        yield experiment, result


def _parallel(experiments: list[Experiment], loader: Loader, workers: int) -> _Finished:
    """Submits at most ``workers`` experiments at a time, so that a failure ends the run soon."""
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    count = min(workers, len(experiments))
    before = set(multiprocessing.active_children())
    with _one_thread():
        pool = ProcessPoolExecutor(count, spawn, initializer=_start, initargs=(loader,))
        try:
            yield from _drain(pool, iter(experiments), count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()  # its result is not needed
            raise
        pool.shutdown()


def _drain(pool: ProcessPoolExecutor, experiments: Iterator[Experiment], count: int) -> _Finished:
    running: dict[Future[ExperimentResult], Experiment] = {}
    failures: list[tuple[Experiment, BaseException]] = []

    def submit() -> None:
        for experiment in experiments:
            running[pool.submit(_run_in_worker, experiment)] = experiment
            if len(running) == count:
                break

    submit()
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            experiment, error = running.pop(future), future.exception()
            if error is None:
                yield experiment, future.result()
            else:
                failures.append((experiment, error))
        if not failures:
            submit()
    if failures:
        raise _failed(*failures[0]) from failures[0][1]


def _start(loader: Loader) -> None:
    """Initialise a worker: it ignores Ctrl-C, and exits with its parent."""
    global _train, _loader
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _train, _loader = None, loader


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot stop it


def _run_in_worker(experiment: Experiment) -> ExperimentResult:
    """Run an experiment; the first one loads the data here, so that its errors are returned."""
    global _train
    if _train is None:
        if _loader is None:
            raise RuntimeError("a worker is started with a loader")
        _train = _loader()
    return _train(experiment)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit processes started inside the block to one thread each."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _failed(experiment: Experiment, error: BaseException) -> EvaluateError:
    if isinstance(error, BrokenProcessPool):
        found = f"{experiment}: its process ended"
        hint = "fewer workers need less memory; what is finished is kept"
    else:
        found = f"{experiment}: {type(error).__name__}: {error}"
        hint = "what is finished is kept: run it again, and it goes on from there"
    return EvaluateError("every model of an evaluation trains", detail=found, hint=hint)
