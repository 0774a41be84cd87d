"""Every server of a project is found, and none of another: after copies, kills, removals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from reki_feast.stores import embedded
from reki_feast.stores.embedded import folder, process
from tests.redis_server import HOST, PATIENCE, free_port, until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "A" / "data" / "redis"
    yield place
    embedded.stop(place)


def client(address: embedded.ServerAddress) -> redis.Redis:
    return redis.Redis(unix_socket_path=address.path)


@pytest.mark.parametrize("how", ["-r", "-a", "-al"])
def test_a_copy_starts_its_own(home: Path, tmp_path: Path, how: str) -> None:
    if how == "-al" and sys.platform == "darwin":
        pytest.skip("no cp -l")
    with client(embedded.start(home)) as original:
        original.set("whose", "A")
        first = embedded.status(home).pid
        there = tmp_path / "B" / "data" / "redis"
        subprocess.run(["cp", how, str(tmp_path / "A"), str(tmp_path / "B")], check=True)
        assert not embedded.status(there).running
        assert not embedded.stop(there)
        try:
            with client(embedded.start(there)) as copy:
                assert copy.get("whose") == b"A"
                copy.set("whose", "B")
                assert original.get("whose") == b"A"
                assert embedded.status(there).pid != first
        finally:
            assert embedded.stop(there)
        assert original.get("whose") == b"A"
        assert embedded.status(home).pid == first


def test_a_moved_folder_keeps_its_server(home: Path, tmp_path: Path) -> None:
    embedded.start(home)
    first = embedded.status(home).pid
    (tmp_path / "A").rename(tmp_path / "C")
    there = tmp_path / "C" / "data" / "redis"
    embedded.start(there)
    assert embedded.status(there).pid == first
    assert embedded.stop(there)


def kill_starter(home: Path, code: str) -> subprocess.Popen[bytes]:
    """Another process that starts the folder's server after what `code` does."""
    before = "import os, signal, sys; from reki_feast.stores.embedded import process, start\n"
    command = [sys.executable, "-c", f"{before}{code}\nstart(sys.argv[1])", str(home)]
    return subprocess.Popen(command)


AT_ONCE = """
real = process._spawn
def spawned(binary, home):
    real(binary, home)
    os.kill(os.getpid(), signal.SIGKILL)
process._spawn = spawned
"""


def test_killed_before_it_is_noted(home: Path) -> None:
    assert kill_starter(home, AT_ONCE).wait() == -signal.SIGKILL
    until(lambda: embedded.status(home).running)
    (pid,) = process.unreachable_servers(home)
    with client(embedded.start(home)) as connection:
        assert connection.ping()
    assert embedded.status(home).pid == pid
    assert embedded.stop(home)
    assert process.unreachable_servers(home) == []


def test_killed_before_the_server_runs(home: Path, tmp_path: Path) -> None:
    """When it is not yet a server, to be seen as one: the lock is there before."""
    begun, slow = tmp_path / "begun", tmp_path / "slow"
    real = embedded.server_binary()
    slow.write_text(f'#!/bin/sh\ntouch "{begun}"\nsleep 1\nexec "{real}" "$@"\n')
    slow.chmod(0o700)
    code = "from pathlib import Path; import reki_feast.stores.embedded as e; "
    code += f"e.server_binary = lambda: Path({str(slow)!r})"
    starter = kill_starter(home, code)
    until(begun.exists)
    starter.kill()
    starter.wait()
    assert folder.is_folder_locked(home)
    assert process.unreachable_servers(home) == []
    embedded.start(home)
    assert process.unreachable_servers(home) == [embedded.status(home).pid]


def test_a_server_whose_socket_was_removed(home: Path) -> None:
    with client(embedded.start(home)) as connection:
        connection.set("film", "Alien")
    pid = embedded.status(home).pid
    (home / "redis.sock").unlink()
    assert embedded.status(home) == embedded.Status(running=False, unreachable=(pid,))
    with client(embedded.start(home)) as connection:
        assert connection.get("film") == b"Alien"
    assert process.unreachable_servers(home) == [embedded.status(home).pid]
    (home / "redis.sock").unlink()
    assert embedded.stop(home)
    assert embedded.status(home) == embedded.Status(running=False)


def test_without_proc_the_lock_and_the_pid_file_tell(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.start(home)
    pid = embedded.status(home).pid
    monkeypatch.setattr(process, "_PROC", home / "none")
    (home / "redis.sock").unlink()
    assert embedded.status(home).unreachable == (pid,)
    assert embedded.stop(home)
    assert embedded.status(home) == embedded.Status(running=False)
    (home / "redis.pid").write_text("1")  # as in a copy: whoever has that number is a stranger
    assert embedded.status(home).unreachable == ()


needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="only /proc shows it")


@needs_proc
@pytest.mark.parametrize("again", [False, True])
def test_a_server_whose_folder_was_removed(home: Path, again: bool) -> None:
    embedded.start(home)
    pid = embedded.status(home).pid
    shutil.rmtree(home)
    assert embedded.status(home).unreachable == (pid,)
    if again:
        embedded.start(home)
        assert process.unreachable_servers(home) == [embedded.status(home).pid] != [pid]
    assert embedded.stop(home)
    assert process.unreachable_servers(home) == []


@needs_proc
def test_killed_while_it_rewrites_its_log(home: Path) -> None:
    """Its own child goes on with that, and with the lock."""
    with client(embedded.start(home)) as connection:
        connection.mset({f"film {n}": "x" for n in range(1_000)})
        connection.config_set("rdb-key-save-delay", 100_000)
        connection.bgrewriteaof()
        until(lambda: bool(connection.info("persistence")["aof_rewrite_in_progress"]))
    os.kill(embedded.status(home).pid, signal.SIGKILL)
    with client(embedded.start(home)) as connection:
        assert connection.dbsize() == 1_000
    assert process.unreachable_servers(home) == [embedded.status(home).pid]


@needs_proc
@pytest.mark.parametrize("stop_first", [False, True])
def test_a_server_of_the_version_before_is_ended(home: Path, stop_first: bool) -> None:
    """It listens on a port, nothing in its folder need say on which, and it writes when told to."""
    home.mkdir(parents=True)
    port = free_port()
    options = ["--bind", HOST, "--port", str(port), "--save", "", "--daemonize", "yes"]
    subprocess.run([str(embedded.server_binary()), *options], cwd=home, check=True, stdout=-3)
    with redis.Redis(HOST, port) as old:
        until(lambda: bool(old.ping()))
        old.set("film", "Alien")
        if stop_first:
            assert embedded.stop(home)
        with client(embedded.start(home)) as connection:
            assert connection.get("film") == b"Alien"
        with pytest.raises(ConnectionRefusedError, match="refused"):
            socket.create_connection((HOST, port))


def test_a_server_that_does_not_log_yet(home: Path) -> None:
    """As when a start was killed while it read an older Redis' dump."""
    home.mkdir(parents=True)
    options = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([str(embedded.server_binary()), *options], cwd=home, stdout=-3)
    try:
        until(lambda: embedded.status(home).running)
        with client(embedded.start(home)) as connection:
            connection.set("film", "Alien")
        server.kill()
        server.wait()
        with client(embedded.start(home)) as connection:
            assert connection.get("film") == b"Alien"
    finally:
        server.kill()
        server.wait()


def test_one_that_does_not_answer_is_neither_doubled_nor_passed_by(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reki_feast.errors import StoreError
    from reki_feast.stores.embedded import control

    embedded.start(home)
    pid = embedded.status(home).pid
    monkeypatch.setattr(control, "TIMEOUT", 0.2)
    stopped = subprocess.run(["kill", "-STOP", str(pid)], check=True)
    assert stopped.returncode == 0
    try:
        for act in (embedded.status, embedded.start, embedded.stop):
            with pytest.raises(StoreError, match="(?s)Redis server answers.*TimeoutError"):
                act(home)
    finally:
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
    monkeypatch.undo()
    end = time.monotonic() + PATIENCE
    while not embedded.status(home).running and time.monotonic() < end:
        time.sleep(0.02)
    assert process.unreachable_servers(home) == [pid]
