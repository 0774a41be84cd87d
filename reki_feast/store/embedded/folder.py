"""The folder of an embedded server: its owner's alone, locked, and with a socket in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from reki_feast.errors import StoreError

SOCKET = "redis.sock"
LOG = "redis.log"
PID = "redis.pid"
DUMP = "dump.rdb"
#: Where a log of writes is: of servers from 7 on, and before.
_WRITTEN = ("appendonlydir/appendonly.aof.manifest", "appendonly.aof")
#: How the names of a server's files begin.
_OURS = ("redis.", DUMP, "appendonly", "temp-")
#: Bytes of a socket's path that macOS takes; Linux takes 107.
_LONGEST = 103


def home_of(folder: str | Path) -> Path:
    """The folder's own path."""
    return Path(folder).expanduser().resolve()


def private(folder: str | Path) -> Path:
    """Make the folder, or take from others what they may do there and with the server's files.

    A folder that also holds other things keeps its mode: the server's files have their own.

    Raises:
        StoreError: it cannot be made, or anybody may put files there.
    """
    home = home_of(folder)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "redis.json").unlink(missing_ok=True)  # of a version before
        entries = list(home.iterdir())
        ours = [entry for entry in entries if entry.name.startswith(_OURS)]
        for path in [*ours, *([home] if len(ours) == len(entries) else [])]:
            _take_from_others(path)
    except OSError as error:
        raise _no_folder(home, error) from error
    if home.stat().st_mode & 0o002:
        raise StoreError(
            "The embedded Redis server's folder is its owner's",
            found=f"{home}, where anybody may write",
            mend="name a folder of the project's own: connection_string: embedded:../data/redis",
        )
    return home


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """One start or stop at a time, over processes too.

    Raises:
        StoreError: the folder cannot be written.
    """
    import fcntl  # not on Windows, where there is no server either

    try:
        lock = os.open(home / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _no_folder(home, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def claimed(home: Path) -> int | None:
    """A lock on the folder itself, which a server inherits; None where one has it.

    No copy of the folder has it, no kill leaves it behind, and there is none before its server.
    """
    import fcntl

    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        return None
    except OSError:
        pass  # a file system without locks on folders: the socket has to do
    return folder


def is_claimed(home: Path) -> bool:
    """Whether a server has the lock on its folder."""
    if not home.is_dir():
        return False
    claim = claimed(home)
    if claim is not None:
        os.close(claim)
    return claim is None


def has_writes(home: Path) -> bool:
    """Whether the folder has a log of writes, which a server reads in place of a dump."""
    files = [home / name for name in _WRITTEN]
    return any(file.exists() and file.stat().st_size for file in files)


def socket_path(home: Path) -> str:
    """The path of the folder's socket; by way of a short link where it is too long for a socket.

    Raises:
        StoreError: there is no place for such a link.
    """
    path = str(home / SOCKET)
    if len(os.fsencode(path)) <= _LONGEST:
        return path
    short = _links() / sha256(os.fsencode(home)).hexdigest()[:16]
    if not short.is_symlink() or short.readlink() != home:
        fresh = short.with_name(f"{short.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(home)
        fresh.replace(short)
    return str(short / SOCKET)


def _links() -> Path:
    """A folder of this user's alone with a short path."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    links = Path(base) / f"reki-feast-{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    found = links.lstat()
    long = len(os.fsencode(links)) + len(SOCKET) + 18 > _LONGEST
    if links.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077 or long:
        raise StoreError(
            "A project with a long path has a short link to its Redis socket",
            found=f"{links}, which is {'too long, too' if long else 'not this user’s alone'}",
            mend="set XDG_RUNTIME_DIR to a folder of yours with a short path",
        )
    return links


def _take_from_others(path: Path) -> None:
    found = path.lstat()
    if found.st_mode & 0o077 and found.st_uid == os.getuid() and not path.is_symlink():
        path.chmod(found.st_mode & 0o700)


def _no_folder(home: Path, error: OSError) -> StoreError:
    return StoreError(
        "The embedded Redis server has a folder for its data",
        found=f"{home}: {error.strerror}",
        mend="name a folder that you can write, or set REDIS_URL to a server that you share",
    )
