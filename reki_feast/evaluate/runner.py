"""Trains cells, keeps each as it is finished, and goes on where an earlier run stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO, TypeAlias

from reki_feast.errors import EvaluateError
from reki_feast.evaluate.cells import Cell, Outcome, dump, key, load
from reki_feast.files import touch
from reki_feast.report import Bar, Progress, Silent

Train: TypeAlias = Callable[[Cell], Outcome]
#: Reads the material and gives what trains on it. With several workers each calls it once, in a
#: process of its own: it is a function of a module, or a partial of one, that can be pickled.
Loader: TypeAlias = Callable[[], Train]
_Finished: TypeAlias = Generator[tuple[Cell, Outcome], None, None]

#: What the libraries under numpy and torch take their number of threads from, when loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# A worker's own.
_loader: Loader | None = None
_train: Train | None = None


def run(
    cells: Iterable[Cell],
    loader: Loader,
    store: Path,
    *,
    material: str,
    progress: Progress | None = None,
    workers: int = 1,
    label: str = "evaluate",
) -> dict[Cell, Outcome]:
    """Train the cells that the store does not have, and keep each as soon as it is finished.

    A run that is stopped, by a key or a failing cell, leaves what is finished in the store.

    Args:
        cells: what to train; a cell named twice is trained once.
        loader: gives the function that trains a cell; not called when there is nothing to train.
        store: file of finished cells, one JSON object a line.
        material: hash of all that cells are made from: with another one they are trained anew.
        progress: shows how many cells are done.
        workers: processes with one thread each; 1 trains in this process.
        label: of the progress.

    Raises:
        EvaluateError: a cell could not be trained; those trained beside it are kept.
    """
    wanted = list(dict.fromkeys(cells))
    found = finished(wanted, store, material=material)
    todo = [cell for cell in wanted if cell not in found]
    with (progress or Silent()).bar(label) as bar:
        bar(len(found), len(wanted))
        if todo:
            touch(store)
            trained = _serial(todo, loader) if workers == 1 else _parallel(todo, loader, workers)
            with closing(trained), store.open("a", encoding="utf-8") as file:
                _keep(trained, file, found, bar, total=len(wanted), material=material)
    return {cell: found[cell] for cell in wanted}


def finished(cells: Collection[Cell], store: Path, *, material: str) -> dict[Cell, Outcome]:
    """Those of the cells that the store has; a torn line is passed over."""
    outcomes = dict(_lines(store))
    keys = {cell: key(cell, material) for cell in cells}
    return {cell: outcomes[name] for cell, name in keys.items() if name in outcomes}


def _lines(store: Path) -> Iterator[tuple[str, Outcome]]:
    text = store.read_text(encoding="utf-8", errors="replace") if store.exists() else ""
    for line in text.splitlines():
        try:
            yield load(line)
        except ValueError:  # a run was killed while it wrote, or another version wrote it
            continue


def _keep(
    trained: _Finished,
    file: TextIO,
    found: dict[Cell, Outcome],
    bar: Bar,
    *,
    total: int,
    material: str,
) -> None:
    """Append cells as they come; each line has its break before it too, after a torn one."""
    start = "\n" if file.tell() else ""
    for cell, outcome in trained:
        file.write(f"{start}{dump(cell, outcome, material)}\n")
        file.flush()
        start = ""
        found[cell] = outcome
        bar(len(found), total)


def _serial(cells: list[Cell], loader: Loader) -> _Finished:
    train = loader()
    for cell in cells:
        try:
            outcome = train(cell)
        except Exception as error:
            raise _failed(cell, error) from error
        yield cell, outcome


def _parallel(cells: list[Cell], loader: Loader, workers: int) -> _Finished:
    """Never more than ``workers`` cells are handed out, so that a failure ends the run soon."""
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    count = min(workers, len(cells))
    before = set(multiprocessing.active_children())
    with _one_thread():
        pool = ProcessPoolExecutor(count, spawn, initializer=_start, initargs=(loader,))
        try:
            yield from _drain(pool, iter(cells), count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()  # nobody waits for what it trains
            raise
        pool.shutdown()


def _drain(pool: ProcessPoolExecutor, cells: Iterator[Cell], count: int) -> _Finished:
    running: dict[Future[Outcome], Cell] = {}
    failures: list[tuple[Cell, BaseException]] = []

    def hand_out() -> None:
        for cell in cells:
            running[pool.submit(_work, cell)] = cell
            if len(running) == count:
                break

    hand_out()
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            cell, error = running.pop(future), future.exception()
            if error is None:
                yield cell, future.result()
            else:
                failures.append((cell, error))
        if not failures:
            hand_out()
    if failures:
        raise _failed(*failures[0]) from failures[0][1]


def _start(loader: Loader) -> None:
    """Prepare a worker: it leaves keys to its parent, and ends with it."""
    global _train, _loader
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _train, _loader = None, loader


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot say goodbye


def _work(cell: Cell) -> Outcome:
    """Train a cell; the first one loads, here, so that what is wrong with it comes back."""
    global _train
    if _train is None:
        if _loader is None:
            raise RuntimeError("a worker is started with a loader")
        _train = _loader()
    return _train(cell)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside have one thread each."""
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


def _failed(cell: Cell, error: BaseException) -> EvaluateError:
    if isinstance(error, BrokenProcessPool):
        found = f"{cell}: its process ended"
        mend = "fewer workers need less memory; what is finished is kept"
    else:
        found = f"{cell}: {type(error).__name__}: {error}"
        mend = "what is finished is kept: run it again, and it goes on from there"
    return EvaluateError("every model of an evaluation trains", found=found, mend=mend)
