"""Calls in a process of their own: what they return and raise, and what becomes of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reki_feast.errors import LakeError, StoreError
from reki_feast.stores import repo_process
from reki_feast.stores.repo_process import call_in_repo

FUNCTIONS = """
import os, sys, threading, time
from reki_feast.errors import LakeError, Problem

def surroundings():
    print("dropped")
    return os.getcwd(), sys.path[0], os.environ.get("SHOP")

def two_problems():
    raise LakeError([Problem("a", "b", "c"), Problem("d")])

def other():
    raise ValueError("no number")

def killed():
    os.kill(os.getpid(), 9)

def writes_later():
    def write():
        time.sleep(0.1)
        open("later", "w").close()
    threading.Thread(target=write).start()

def waits():
    open("waits", "w").close()
    time.sleep(600)
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.fixture(autouse=True)
def functions(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is imported once a process: each test has a process, and a path, of its own."""
    monkeypatch.syspath_prepend(repo)
    monkeypatch.setattr(repo_process, "_WORKERS", {})


def test_surroundings(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", "books")
    (repo / "deep").mkdir()
    for folder in (repo, repo / "deep"):
        where, first, shop = call_in_repo(folder, "functions:surroundings")
        assert (where, first, shop) == (str(folder), str(folder), "books")
    assert "functions" not in sys.modules


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("two_problems", r"2 problems\n1. a\n  detail: b\n  hint:   c\n2. d"),
        ("other", "(?s)process of their own.*detail: ValueError: no number"),
        ("killed", "(?s)process of their own.*detail: the process ended with status -9"),
    ],
)
def test_errors(repo: Path, function: str, message: str) -> None:
    with pytest.raises(LakeError if function == "two_problems" else StoreError, match=message):
        call_in_repo(repo, f"functions:{function}")
    assert call_in_repo(repo, "functions:surroundings")[0] == str(repo)


def test_threads_are_waited_for(repo: Path) -> None:
    call_in_repo(repo, "functions:writes_later")
    assert (repo / "later").exists()


def test_a_process_that_was_killed_is_replaced(repo: Path) -> None:
    call_in_repo(repo, "os:getpid")
    (worker,) = repo_process._WORKERS.values()
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    assert call_in_repo(repo, "functions:surroundings")[0] == str(repo)


def test_threads_share_it(repo: Path) -> None:
    found: list[str] = []

    def call() -> None:
        found.append(call_in_repo(repo, "functions:surroundings")[0])

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [str(repo)] * 8
    assert len(repo_process._WORKERS) == 1


CALLER = """
import sys, time
from pathlib import Path
from reki_feast.stores.repo_process import call_in_repo
call_in_repo(Path.cwd(), f"functions:{sys.argv[1]}")
Path("idle").touch()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lists processes by /proc")
@pytest.mark.parametrize(
    ("function", "begun", "processes", "by"),
    [("waits", "waits", 2, signal.SIGINT), ("surroundings", "idle", 1, signal.SIGKILL)],
    ids=["in a call", "idle"],
)
def test_it_ends_with_its_caller(
    repo: Path, function: str, begun: str, processes: int, by: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, function],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(repo)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as caller:
        while not (repo / begun).exists():
            time.sleep(0.05)
        children = _children(caller.pid)
        caller.send_signal(by)
    assert len(children) == processes
    while any(map(_runs, children)):
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    """Processes below one, the nearest first."""
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in listing]
    return [*found, *(below for child in found for below in _children(child))]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
