"""The folder of an embedded server: its permissions, its lock and its socket."""

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
#: Append-only files: of servers from 7 on, and before.
_AOF_FILES = ("appendonlydir/appendonly.aof.manifest", "appendonly.aof")
#: Prefixes of the names of a server's files.
_SERVER_FILES = ("redis.", DUMP, "appendonly", "temp-")
#: Maximum bytes of a socket's path on macOS; 107 on Linux.
_MAX_SOCKET_PATH = 103


def resolved(folder: str | Path) -> Path:
    """The folder's resolved path."""
    return Path(folder).expanduser().resolve()


def private_folder(folder: str | Path) -> Path:
    """Make the folder, or restrict it and the server's files to their owner.

    A folder that also has other files keeps its mode: the server's files have their own.

    Raises:
        StoreError: it cannot be made, or anybody may write there.
    """
    home = resolved(folder)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "redis.json").unlink(missing_ok=True)  # of reki-feast 0.1
        entries = list(home.iterdir())
        ours = [entry for entry in entries if entry.name.startswith(_SERVER_FILES)]
        for path in [*ours, *([home] if len(ours) == len(entries) else [])]:
            _restrict(path)
    except OSError as error:
        raise _folder_error(home, error) from error
    if home.stat().st_mode & 0o002:
        raise StoreError(
            "The embedded Redis server's folder is its owner's",
            detail=f"{home}, where anybody may write",
            hint="name a folder of the project's own: connection_string: embedded:../data/redis",
        )
    return home


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """A lock over processes: one start or stop at a time.

    Raises:
        StoreError: the folder cannot be written.
    """
    import fcntl  # not on Windows, where there is no server either

    try:
        lock = os.open(home / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _folder_error(home, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def lock_folder(home: Path) -> int | None:
    """Lock the folder itself; None where a server has the lock, which it inherits.

    No copy of the folder has the lock, and it ends with its server.
    """
    import fcntl

    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        return None
    except OSError:
        pass  # a file system without locks on folders: the socket has to suffice
    return folder


def is_folder_locked(home: Path) -> bool:
    """Whether a server has the lock on its folder."""
    if not home.is_dir():
        return False
    lock = lock_folder(home)
    if lock is not None:
        os.close(lock)
    return lock is None


def has_aof(home: Path) -> bool:
    """Whether the folder has an append-only file, which a server loads in place of a dump."""
    files = [home / name for name in _AOF_FILES]
    return any(file.exists() and file.stat().st_size for file in files)


def socket_path(home: Path) -> str:
    """The path of the folder's socket; through a short link where it is too long for a socket.

    Raises:
        StoreError: no folder is suitable for such a link.
    """
    path = str(home / SOCKET)
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    short = _links() / sha256(os.fsencode(home)).hexdigest()[:16]
    if not short.is_symlink() or short.readlink() != home:
        fresh = short.with_name(f"{short.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(home)
        fresh.replace(short)
    return str(short / SOCKET)


def _links() -> Path:
    """A folder with a short path that is this user's alone."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    links = Path(base) / f"reki-feast-{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    mode = links.lstat()
    long = len(os.fsencode(links)) + len(SOCKET) + 18 > _MAX_SOCKET_PATH
    if links.is_symlink() or mode.st_uid != os.getuid() or mode.st_mode & 0o077 or long:
        raise StoreError(
            "A project with a long path gets a short link to its Redis socket",
            detail=f"{links}, which is {'too long, too' if long else 'not this user’s alone'}",
            hint="set XDG_RUNTIME_DIR to a folder of your own with a short path",
        )
    return links


def _restrict(path: Path) -> None:
    mode = path.lstat()
    if mode.st_mode & 0o077 and mode.st_uid == os.getuid() and not path.is_symlink():
        path.chmod(mode.st_mode & 0o700)


def _folder_error(home: Path, error: OSError) -> StoreError:
    return StoreError(
        "The embedded Redis server has a folder for its data",
        detail=f"{home}: {error.strerror}",
        hint="name a folder that you can write, or set REDIS_URL to a server that you share",
    )
