"""An embedded Redis server with its data in one folder, for development.

It listens on a Unix socket in that folder and on no port. Folder, socket and files are accessible
to their owner alone. A server is identified by its own answer: it is asked for its folder, and it
holds a lock on that folder, which no copy has. Writes are in its append-only file (AOF) before it
replies, so that a kill loses nothing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from .control import (
    POLL_INTERVAL,
    disable_latency_tracking,
    enable_aof,
    rewrite_aof,
    server_info,
    shut_down,
)
from .folder import DUMP, has_aof, locked, private_folder, resolved, socket_path
from .process import end_servers, launch, server_binary, start_error, unreachable_servers

__all__ = ["ServerAddress", "Status", "compact", "server_binary", "start", "status", "stop"]


@dataclass(frozen=True)
class ServerAddress:
    """The address of a running server.

    Attributes:
        path: its Unix socket, as in ``redis-cli -s PATH``.
    """

    path: str

    @property
    def connection_string(self) -> str:
        """The address in Feast's form, which requires a host and does not use it.

        >>> ServerAddress("/p/data/redis/redis.sock").connection_string
        'localhost:0,unix_socket_path="/p/data/redis/redis.sock"'
        """
        # Feast splits at commas and reads each value as JSON if it can.
        path = json.dumps(self.path).replace(",", "\\u002c")
        return f"localhost:0,unix_socket_path={path}"


@dataclass(frozen=True)
class Status:
    """The state of a folder's server; without a running one only ``unreachable`` is set.

    Attributes:
        running: whether the folder's server answers.
        address: of the server.
        pid: its process.
        keys: how many keys it has, over all databases.
        memory: bytes of its data.
        unreachable: processes that serve the folder but not its socket; ``stop`` ends them.
    """

    running: bool
    address: ServerAddress | None = None
    pid: int = 0
    keys: int = 0
    memory: int = 0
    unreachable: tuple[int, ...] = ()


def start(folder: str | Path) -> ServerAddress:
    """Start the folder's server, or find it running.

    A server of the folder that cannot be reached is ended first. A dump of an older Redis is loaded
    and replaced by an append-only file.

    Raises:
        MissingExtraError: no server binary is at hand.
        StoreError: the server does not start, or the folder cannot be used.
    """
    home = private_folder(folder)
    with locked(home):
        if not server_info(home):
            end_servers(home)
            launch(server_binary(), home)
        _settle(home)
    return ServerAddress(socket_path(home))


def stop(folder: str | Path) -> bool:
    """End the folder's servers, reachable or not; whether there was one.

    Its data is on disk.

    Raises:
        StoreError: one does not end, or the folder cannot be used.
    """
    home = resolved(folder)
    if not home.is_dir():
        return end_servers(home)  # of a folder that was removed
    with locked(home):
        running = bool(server_info(home))
        if running:
            shut_down(home)
        return end_servers(home) or running


def status(folder: str | Path) -> Status:
    """The state of the folder's server.

    Raises:
        StoreError: one listens, but does not answer, or is another user's.
    """
    home = resolved(folder)
    info = server_info(home)
    if not info:
        return Status(running=False, unreachable=tuple(unreachable_servers(home)))
    keys = sum(int(v["keys"]) for k, v in info.items() if k.startswith("db") and "keys" in v)
    address = ServerAddress(socket_path(home))
    return Status(True, address, int(info["process_id"]), keys, int(info["used_memory"]))


def compact(folder: str | Path) -> bool:
    """Rewrite the server's files without deleted data; whether it runs.

    Raises:
        StoreError: they cannot be written.
    """
    home = resolved(folder)
    running = bool(server_info(home))
    if running:
        rewrite_aof(home)
    return running


def _settle(home: Path) -> None:
    """Wait until the server has loaded its data, and have it log writes."""
    while (info := server_info(home)).get("loading"):
        time.sleep(POLL_INTERVAL)
    if not info:
        raise start_error(home)
    disable_latency_tracking(home)
    if not has_aof(home):
        enable_aof(home)
    if has_aof(home):
        (home / DUMP).unlink(missing_ok=True)  # the AOF has it, and later writes
