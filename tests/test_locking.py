"""Locks among threads and processes; whoever dies lets go."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reki_feast.errors import LakeError
from reki_feast.locking import alone

#: Holds a lock until its standard input ends; its child would live on.
HOLDER = """
import subprocess, sys
from pathlib import Path
from reki_feast.locking import alone
with alone(Path(sys.argv[1]), "reki train"):
    child = subprocess.Popen(["sleep", "600"]) if len(sys.argv) > 2 else None
    print(child.pid if child else 0, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    command = [sys.executable, "-c", HOLDER, str(path), *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:  # type: ignore[call-overload]
        try:
            yield holder
        finally:
            holder.kill()


def told(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def waiter(path: Path, entered: threading.Event) -> threading.Thread:
    def wait() -> None:
        with alone(path, "reki publish"):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def until_told(caplog: pytest.LogCaptureFixture) -> str:
    """The warning of who waits; it comes before the waiting."""
    while not caplog.messages:
        threading.Event().wait(0.01)
    return caplog.messages[0]


def test_the_second_waits_and_says_for_whom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, entered = tmp_path / ".lock", threading.Event()
    with holding(path) as holder:
        told(holder)
        thread = waiter(path, entered)
        said = until_told(caplog)
        assert not entered.is_set()
        holder.communicate()  # it ends, and lets go
        thread.join()
    assert entered.is_set()
    since = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    wanted = rf"reki publish waits for `reki train`, pid {holder.pid}, since {since}"
    assert re.fullmatch(wanted, said)
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("options", [(), ("with a child",)])
def test_a_dead_holders_lock_is_free_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    """Also where what it has started lives on."""
    path = tmp_path / ".lock"
    with holding(path, *options) as holder:
        child = int(told(holder))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        try:
            with alone(path, "reki publish"):
                pass
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
    assert not caplog.messages


def test_a_waiter_goes_on_when_the_holder_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, entered = tmp_path / ".lock", threading.Event()
    with holding(path) as holder:
        told(holder)
        thread = waiter(path, entered)
        until_told(caplog)
        holder.kill()
        thread.join()
    assert entered.is_set()


def test_who_holds_it_may_take_it_again(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with alone(path, "reki run"):
        with alone(path, "reki encode"):
            pass
        assert tried(path) == '"command": "reki run"'
    assert tried(path) == ""


#: What another process finds: who holds a lock, or nothing where it could have it.
TRY = """
import fcntl, re, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(re.search('"command": "[^"]*"', file.read()).group())
"""


def tried(path: Path) -> str:
    command = [sys.executable, "-c", TRY, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_held_until_the_outermost_ends(tmp_path: Path) -> None:
    path, entered = tmp_path / ".lock", threading.Event()
    with alone(path, "reki run"):
        with alone(path, "reki encode"):
            pass
        thread = waiter(path, entered)
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_an_error_lets_go(tmp_path: Path) -> None:
    path, entered = tmp_path / ".lock", threading.Event()
    with pytest.raises(KeyError, match="in the midst"), alone(path, "reki run"):
        raise KeyError("in the midst")
    waiter(path, entered).join()
    assert entered.is_set()


def test_threads_of_a_process_come_one_after_another(tmp_path: Path) -> None:
    """Each reads a number and writes the next one."""
    number, path = tmp_path / "number", tmp_path / ".lock"
    number.write_text("0")

    def count() -> None:
        for _ in range(50):
            with alone(path, "counting", tell=False):
                number.write_text(str(int(number.read_text()) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number.read_text() == "200"


def test_what_a_killed_holder_left_half_written_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, entered = tmp_path / ".lock", threading.Event()
    with holding(path) as holder:
        told(holder)
        path.write_text('{"pid": 1')
        thread = waiter(path, entered)
        assert until_told(caplog) == "reki publish waits for another command that writes"
        holder.communicate()
        thread.join()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with (
        pytest.raises(LakeError, match="the data folder can be written"),
        alone(tmp_path / "data" / ".lock", "reki run"),
    ):
        pass
