"""A real Redis server of one's own, with its data in one folder; for trying things out.

It answers on a Unix socket in that folder and on no port. Folder, socket and files are their
owner's alone. Whose server it is, the server itself tells: it is asked for its folder, and it holds
a lock on that folder, which no copy has. What it takes is in its log of writes (Redis' AOF) before
it answers, so that a kill loses nothing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from .asking import PAUSE, info_of, log_writes, make_quick, rewrite_log, tell_to_end
from .folder import DUMP, has_writes, home_of, locked, private, socket_path
from .process import end, launch, not_up, server_binary, strays

__all__ = ["Address", "Status", "compact", "server_binary", "start", "status", "stop"]


@dataclass(frozen=True)
class Address:
    """Where the server answers.

    Attributes:
        path: its Unix socket, as in ``redis-cli -s PATH``.
    """

    path: str

    @property
    def connection_string(self) -> str:
        """The address for Feast's Redis store, which wants a host, too, and does not use it.

        >>> Address("/p/data/redis/redis.sock").connection_string
        'localhost:0,unix_socket_path="/p/data/redis/redis.sock"'
        """
        # Feast splits at commas and reads each value as JSON if it can.
        path = json.dumps(self.path).replace(",", "\\u002c")
        return f"localhost:0,unix_socket_path={path}"


@dataclass(frozen=True)
class Status:
    """What a folder's server is doing; only ``running`` and ``strays`` are set when none answers.

    Attributes:
        running: whether the folder's server answers.
        address: where.
        pid: its process.
        keys: how many keys it holds, over all databases.
        memory: bytes its data takes.
        strays: processes that serve the folder and cannot be reached; ``stop`` ends them.
    """

    running: bool
    address: Address | None = None
    pid: int = 0
    keys: int = 0
    memory: int = 0
    strays: tuple[int, ...] = ()


def start(folder: str | Path) -> Address:
    """Start the folder's server, or find it running.

    A server of the folder that cannot be reached is ended first. What an older Redis dumped there
    is read, and is a log of writes from then on.

    Raises:
        MissingExtraError: no server binary is at hand.
        StoreError: the server does not come up, or the folder cannot be used.
    """
    home = private(folder)
    with locked(home):
        if not info_of(home):
            end(home)
            launch(server_binary(), home)
        _settle(home)
    return Address(socket_path(home))


def stop(folder: str | Path) -> bool:
    """End the folder's server, and those of it that cannot be reached; whether there was one.

    What it took is on disk.

    Raises:
        StoreError: one does not go, or the folder cannot be used.
    """
    home = home_of(folder)
    if not home.is_dir():
        return end(home)  # whose folder was removed
    with locked(home):
        running = bool(info_of(home))
        if running:
            tell_to_end(home)
        return end(home) or running


def status(folder: str | Path) -> Status:
    """What the folder's server is doing.

    Raises:
        StoreError: one is there, but does not answer, or is another user's.
    """
    home = home_of(folder)
    info = info_of(home)
    if not info:
        return Status(running=False, strays=tuple(strays(home)))
    keys = sum(int(v["keys"]) for k, v in info.items() if k.startswith("db") and "keys" in v)
    address = Address(socket_path(home))
    return Status(True, address, int(info["process_id"]), keys, int(info["used_memory"]))


def compact(folder: str | Path) -> bool:
    """Have on disk what the server holds and nothing it no longer does; whether it runs.

    Raises:
        StoreError: it cannot be written.
    """
    home = home_of(folder)
    running = bool(info_of(home))
    if running:
        rewrite_log(home)
    return running


def _settle(home: Path) -> None:
    """Wait until the server has read its data, and logs what it is told."""
    while (info := info_of(home)).get("loading"):
        time.sleep(PAUSE)
    if not info:
        raise not_up(home)
    make_quick(home)
    if not has_writes(home):
        log_writes(home)
    if has_writes(home):
        (home / DUMP).unlink(missing_ok=True)  # the log has it, and what came later
