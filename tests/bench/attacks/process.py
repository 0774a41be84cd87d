"""Commands in processes of their own, forked from one that has imported all.

So a command begins at once, and a kill meets its work, not its imports. One that is to be killed at
an event counts what it does to the project's files, and ends itself by a signal.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pkgutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import reki_feast

#: Seconds that a command may take; then it is ended, and counts as killed.
_PATIENCE = 300.0
#: What a command does that is counted, as Python's audit hooks name it.
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.chmod", "socket.connect"}
#: The exit code of a command that raised what `reki` does not tell.
RAISED = 70
#: Packages by names of an earlier version, which warn when they are imported.
_OLD = ("reki_feast.store.", "reki_feast.cluster.", "reki_feast.recommend.")
_LOADED = ["feast.cli.cli", "pandas", "torch", "duckdb", "sklearn.linear_model", __name__]
_LOADED += ["torch._dynamo", "py3langid.langid"]  # which a first training, and a gate, import
_LOADED += [one.name for one in pkgutil.walk_packages(reki_feast.__path__, "reki_feast.")]
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload([one for one in _LOADED if not f"{one}.".startswith(_OLD)])


@dataclass(frozen=True)
class Order:
    """A command, and how it is run.

    Attributes:
        words: ``reki …`` or ``feast …``, which runs in ``feature_repo/``.
        root: the project's folder.
        said: the file that gets what it says.
        environment: all of it.
        kill_at: the number, from 1, of the event at which it kills itself; 0: it does not.
        terminal: whether it writes to a terminal.
    """

    words: tuple[str, ...]
    root: Path
    said: Path
    environment: Mapping[str, str]
    kill_at: int = 0
    terminal: bool = False


@dataclass(frozen=True)
class Said:
    """How a command ended.

    Attributes:
        order: the command.
        code: its exit code; below 0, the signal that ended it.
        text: what it said.
        seconds: how long it took.
        events: how many events it counted, where it was not killed.
    """

    order: Order
    code: int
    text: str
    seconds: float
    events: int

    def __str__(self) -> str:
        end = " ".join(self.text.split())[-300:]
        return f"`{' '.join(self.order.words)}` ended with {self.code}: {end!r}"


class Running:
    """A command that runs."""

    def __init__(self, order: Order) -> None:
        self._order, self._began = order, time.monotonic()
        self._process = forking.Process(target=_obey, args=(order,))
        self._process.start()

    def kill(self) -> None:
        """End it by a signal that it cannot catch."""
        self._process.kill()

    def wait(self) -> Said:
        """Wait until it has ended."""
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self.kill()
            self._process.join()
        code, order = self._process.exitcode, self._order
        assert code is not None
        text = order.said.read_text(errors="replace") if order.said.exists() else ""
        counted = order.said.with_suffix(".events")
        events = int(counted.read_text()) if counted.exists() else 0
        return Said(order, code, text, time.monotonic() - self._began, events)


class Commands:
    """Runs commands, and keeps what they said; a context that ends those that still run.

    Args:
        place: the folder for what they say.
        environment: of all of them.
    """

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        self._place, self._environment = place, environment
        self._running: list[Running] = []
        self._lock = threading.Lock()
        place.mkdir()

    def __enter__(self) -> Commands:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in self._running:
            one.kill()

    def start(self, root: Path, words: Sequence[str], **how: Any) -> Running:
        """Start a command in a project; what is named goes before, or into, :class:`Order`."""
        environment = {**self._environment, **how.pop("environment", {})}
        with self._lock:
            said = self._place / f"{len(self._running)}.txt"
            running = Running(Order(tuple(words), root, said, environment, **how))
            self._running.append(running)
        return running

    def run(self, root: Path, words: Sequence[str], **how: Any) -> Said:
        """Run a command to its end."""
        return self.start(root, words, **how).wait()

    def heard(self) -> list[Path]:
        """The files of what all commands said."""
        return sorted(self._place.glob("*.txt"))


def _obey(order: Order) -> None:
    os.umask(0)
    os.environ.clear()
    os.environ.update(order.environment)
    tempfile.tempdir = None  # which may have been looked up
    os.chdir(order.root)
    shown = _to_terminal(order.said) if order.terminal else None
    if shown is None:
        _to_file(order.said)
    # the streams of before know whether what they wrote to can be sought in, a terminal cannot
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    count = 0

    def noted(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and any(str(order.root) in str(one) for one in given[:2]):
            count += 1
            if count == order.kill_at:
                os.kill(os.getpid(), 9)

    sys.addaudithook(noted)
    code = _code_of(order)
    order.said.with_suffix(".events").write_text(str(count))
    atexit._run_exitfuncs()  # which a forked process passes by
    sys.stdout.flush()
    sys.stderr.flush()
    if shown is not None:
        for number in (1, 2):
            os.close(number)
        shown.join()
    os._exit(code)


def _code_of(order: Order) -> int:
    program, *words = order.words
    try:
        if program == "reki":
            from reki_feast.cli.app import main

            return main(words)
        from feast.cli.cli import cli

        os.chdir(order.root / "feature_repo")
        cli(words, standalone_mode=False)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 — told as an interpreter does
        traceback.print_exc()
        return RAISED
    return 0


def _to_file(said: Path) -> None:
    with said.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _to_terminal(said: Path) -> threading.Thread:
    """Have this process write to a terminal, of which a thread writes down what it gets."""
    here, there = os.openpty()
    for number in (1, 2):
        os.dup2(there, number)
    os.close(there)

    def note() -> None:
        with said.open("wb") as file:
            try:
                while chunk := os.read(here, 1 << 16):
                    file.write(chunk)
            except OSError:  # nobody writes any more
                return

    thread = threading.Thread(target=note)
    thread.start()
    return thread
