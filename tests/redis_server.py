"""Redis servers of the tests' own, on ports: what a project has when it does not embed one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from reki_feast.stores.embedded import server_binary

HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds


def free_port() -> int:
    """A port whose neighbour 10,000 further up, where a cluster's nodes talk, is free as well."""
    for _ in range(50):
        with socket.socket() as one, socket.socket() as bus:
            one.bind((HOST, 0))
            port = int(one.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                bus.bind((HOST, port + 10_000))
                return port
    pytest.skip("no pair of free ports")


def until(answered: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(redis.RedisError):
            if answered():
                return
        assert time.monotonic() < end, "the server did not come up"
        time.sleep(0.02)


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(server_binary()), *arguments]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            server.terminate()
            server.wait(PATIENCE)


@contextmanager
def plain_server(folder: Path, *options: str) -> Iterator[int]:
    """A server that keeps nothing on disk; its port."""
    port = free_port()
    with (
        serving(folder, "--bind", HOST, "--port", str(port), "--save", "", *options),
        redis.Redis(HOST, port) as client,
    ):
        until(lambda: bool(client.ping()))
        yield port
