"""What a folder's server says, and what it is told."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reki_feast.errors import StoreError

from .folder import LOG, socket_path

PATIENCE = 10.0  # seconds to wait for an answer, or for a server to go
PAUSE = 0.02


def info_of(home: Path) -> dict[str, Any]:
    """What the folder's server says of itself; empty when there is none.

    Raises:
        StoreError: one listens, but does not answer, or is another user's.
    """
    if not _listens(home):
        return {}
    try:
        with _client(home) as client:
            found: dict[str, Any] = client.info()
            there = client.config_get("dir")["dir"]
    except StoreError:
        if _listens(home):
            raise
        return {}  # it went meanwhile
    return found if _is(there, home) else {}


def tell_to_end(home: Path) -> None:
    """Have the folder's server end; what it took is on disk.

    Raises:
        StoreError: it refuses.
    """
    with _client(home) as client:
        client.shutdown()


def ended_on_port(home: Path, port: int, pid: int) -> bool:
    """Have a server of a version before, which logs nothing, write what it holds and end.

    Raises:
        StoreError: it refuses.
    """
    with _client(home, host="127.0.0.1", port=port) as client:
        if client.info()["process_id"] != pid:
            return False
        client.shutdown(save=True)
    return True


def make_quick(home: Path) -> None:
    """Leave off the clock of each command, a fifth of what reading many rows at once costs."""
    import redis

    with _client(home) as client, contextlib.suppress(redis.ResponseError):
        client.config_set("latency-tracking", "no")  # which Redis before 7 does not know


def log_writes(home: Path) -> None:
    """Have the server log what it is told, after all that it holds.

    Raises:
        StoreError: the log cannot be written.
    """
    with _client(home) as client:
        client.config_set("appendonly", "yes")
    _wait_for_log(home)


def rewrite_log(home: Path) -> None:
    """Replace the log by what the server holds: of what was deleted, nothing stays on disk.

    Raises:
        StoreError: the log cannot be written.
    """
    _wait_for_log(home)  # one under way may have begun before the deletion
    with _client(home) as client:
        client.bgrewriteaof()
    _wait_for_log(home)


def _wait_for_log(home: Path) -> None:
    busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    while any((info := info_of(home)).get(name) for name in busy):
        time.sleep(PAUSE)
    found = str(info.get("aof_last_bgrewrite_status", "the server went away"))
    if found != "ok":
        raise StoreError(
            "The embedded Redis server writes what it holds to disk",
            found=found,
            mend=f"look into {home / LOG}; is the disk full?",
        )


def _listens(home: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(socket_path(home))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return False
    except PermissionError as error:
        raise StoreError(
            "The embedded Redis server is for the user who started it",
            found=f"{home}: {error.strerror}",
            mend="run as that user, or set REDIS_URL to a server that you share",
        ) from error
    return True


@contextmanager
def _client(home: Path, **where: Any) -> Iterator[Any]:
    """A client that tries once; the usual one tries again for many seconds."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    where = where or {"unix_socket_path": socket_path(home)}
    # Paths come back as Python writes them.
    texts: dict[str, Any] = {"decode_responses": True, "encoding_errors": "surrogateescape"}
    client = redis.Redis(**where, **texts, retry=Retry(NoBackoff(), 0), socket_timeout=PATIENCE)
    try:
        with client:
            yield client
    except (redis.RedisError, OSError) as error:
        raise StoreError(
            "The embedded Redis server answers",
            found=f"{type(error).__name__}: {error}",
            mend=f"look into {home / LOG}",
        ) from error


def _is(there: str, home: Path) -> bool:
    """Whether a server's folder is this one: a hard link to a socket leads to another's."""
    with contextlib.suppress(FileNotFoundError):
        return bool(there) and Path(there).samefile(home)
    return True  # a container's name for it
