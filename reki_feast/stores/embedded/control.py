"""Commands to a folder's server."""

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

TIMEOUT = 10.0  # seconds to wait for a reply, or for a server to end
POLL_INTERVAL = 0.02


def server_info(home: Path) -> dict[str, Any]:
    """The INFO of the folder's server; empty when there is none.

    Raises:
        StoreError: one listens, but does not answer, or is another user's.
    """
    if not _is_listening(home):
        return {}
    try:
        with _client(home) as client:
            info: dict[str, Any] = client.info()
            folder = client.config_get("dir")["dir"]
    except StoreError:
        if _is_listening(home):
            raise
        return {}  # it ended meanwhile
    return info if _is_same_folder(folder, home) else {}


def shut_down(home: Path) -> None:
    """Have the folder's server write its data and end.

    Raises:
        StoreError: it refuses.
    """
    with _client(home) as client:
        client.shutdown()


def shut_down_on_port(home: Path, port: int, pid: int) -> bool:
    """As ``shut_down``, for a server of reki-feast 0.1, which listens on a port and has no AOF.

    Raises:
        StoreError: it refuses.
    """
    with _client(home, host="127.0.0.1", port=port) as client:
        if client.info()["process_id"] != pid:
            return False
        client.shutdown(save=True)
    return True


def disable_latency_tracking(home: Path) -> None:
    """Switch off the timing of each command, a fifth of the cost of reading many rows at once."""
    import redis

    with _client(home) as client, contextlib.suppress(redis.ResponseError):
        client.config_set("latency-tracking", "no")  # which Redis before 7 does not know


def enable_aof(home: Path) -> None:
    """Have the server write an append-only file, which begins with its present data.

    Raises:
        StoreError: the file cannot be written.
    """
    with _client(home) as client:
        client.config_set("appendonly", "yes")
    _wait_for_aof(home)


def rewrite_aof(home: Path) -> None:
    """Rewrite the append-only file, so that no deleted data stays on disk.

    Raises:
        StoreError: the file cannot be written.
    """
    _wait_for_aof(home)  # one in progress may have begun before the deletion
    with _client(home) as client:
        client.bgrewriteaof()
    _wait_for_aof(home)


def _wait_for_aof(home: Path) -> None:
    busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    while any((info := server_info(home)).get(name) for name in busy):
        time.sleep(POLL_INTERVAL)
    status = str(info.get("aof_last_bgrewrite_status", "the server ended"))
    if status != "ok":
        raise StoreError(
            "The embedded Redis server writes its data to disk",
            detail=status,
            hint=f"look into {home / LOG}; is the disk full?",
        )


def _is_listening(home: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(socket_path(home))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return False
    except PermissionError as error:
        raise StoreError(
            "The embedded Redis server is for the user who started it",
            detail=f"{home}: {error.strerror}",
            hint="run as that user, or set REDIS_URL to a server that you share",
        ) from error
    return True


@contextmanager
def _client(home: Path, **address: Any) -> Iterator[Any]:
    """A client without retries; redis-py's default retries for many seconds."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = address or {"unix_socket_path": socket_path(home)}
    # Paths are decoded as Python encodes them.
    texts: dict[str, Any] = {"decode_responses": True, "encoding_errors": "surrogateescape"}
    client = redis.Redis(**address, **texts, retry=Retry(NoBackoff(), 0), socket_timeout=TIMEOUT)
    try:
        with client:
            yield client
    except (redis.RedisError, OSError) as error:
        raise StoreError(
            "The embedded Redis server answers",
            detail=f"{type(error).__name__}: {error}",
            hint=f"look into {home / LOG}",
        ) from error


def _is_same_folder(path: str, home: Path) -> bool:
    """Whether a server's folder is this one; a hard link to a socket may lead to another server."""
    with contextlib.suppress(FileNotFoundError):
        return bool(path) and Path(path).samefile(home)
    return True  # a container's name for it
