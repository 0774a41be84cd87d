"""One writer at a time, among the threads and processes of all users; who dies lets go at once.

A lock is the system's (POSIX), on a file that says who holds it. It is the process's, and no
child's: what a killed command has started holds nothing. A process that opens and closes the file
besides lets go, so nothing else does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reki_feast import files
from reki_feast.errors import LakeError

try:
    import fcntl
except ImportError:  # on Windows nobody waits
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)


@dataclass
class _LockState:
    """A lock as this process has it: the system's does not keep its threads apart."""

    lock: contextlib.AbstractContextManager[Any] = field(default_factory=threading.RLock)
    depth: int = 0


_here: dict[Path, _LockState] = {}
_adding = threading.Lock()


@contextlib.contextmanager
def alone(path: Path, doing: str, *, tell: bool = True) -> Iterator[None]:
    """Hold a lock; wait for whoever holds it. Who holds it may take it again.

    Args:
        path: the lock's file, made where there is none; it stays.
        doing: what the lock is held for, told to those who wait.
        tell: whether a warning says who is waited for.

    Raises:
        LakeError: the file cannot be made.
    """
    with _adding:
        held = _here.setdefault(path.resolve(), _LockState())
    with held.lock:
        held.depth += 1
        try:
            with _locked(path, doing, tell=tell) if held.depth == 1 else contextlib.nullcontext():
                yield
        finally:
            held.depth -= 1


@contextlib.contextmanager
def _locked(path: Path, doing: str, *, tell: bool) -> Iterator[None]:
    try:
        files.touch(path)
        handle = os.open(path, os.O_RDWR)
    except OSError as error:
        raise LakeError(files.unwritable(path, error)) from error
    try:
        _wait(handle, doing if tell else "")
        _write(handle, _holder(doing))
        try:
            yield
        finally:
            _write(handle, "")
    finally:
        os.close(handle)


def _wait(handle: int, doing: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        if doing:
            _log.warning("%s waits for %s", doing, _told(os.pread(handle, 1000, 0)))
        fcntl.lockf(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks


def _write(handle: int, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: who waits is not told for whom
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)


def _holder(doing: str) -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    host = socket.gethostname()
    return json.dumps({"pid": os.getpid(), "host": host, "command": doing, "since": since})


def _told(said: bytes) -> str:
    """Who holds the lock."""
    try:
        found = json.loads(said)
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        return f"`{found['command']}`, pid {found['pid']}{where}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another command that writes"  # which has just begun
