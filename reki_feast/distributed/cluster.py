"""Connects to a Ray cluster, or starts one on this machine, and ends what it started."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ray

from reki_feast.errors import EngineError

#: The address of a cluster that is started for a run, on this machine.
LOCAL = "local"
#: Bytes of the object store of such a cluster: prompts and parts of vectors pass through it.
_STORE_BYTES = 256 << 20
_CLIENT = "ray://"
_KNOCK_S = 5.0


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be a driver of a cluster.

    Args:
        address: of the cluster, ``host:port`` or ``auto``; None: ``RAY_ADDRESS``, else a cluster is
            started on this machine and stopped at the end. Where the process is connected already,
            that connection is used, and stays.

    Raises:
        EngineError: the cluster cannot be reached, or is one that only Ray's client reaches.
    """
    if ray.is_initialized():
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if where.startswith(_CLIENT):
        raise EngineError(
            "the driver runs on a node of the Ray cluster: the ledger is a file of its machine",
            detail=f"{where} is an address of Ray's client",
            hint="run the command on a node of the cluster, with the address host:port, or auto",
        )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _connect(where)
        yield
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray leaves its own


def node_id() -> str:
    """The driver's node."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


def cpus() -> int:
    """CPUs of the whole cluster, those that are busy included."""
    return int(ray.cluster_resources().get("CPU", 0))


def gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def _connect(where: str) -> None:
    # a cluster that is started here sends nothing home
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _check_port(where)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            address=where,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if where == LOCAL else {}),
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _unreachable(where, error) from error


def _check_port(where: str) -> None:
    """Knock first: Ray tries an address where nobody listens for minutes."""
    host, _, port = where.rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(where, error) from error


def _unreachable(where: str, error: Exception) -> EngineError:
    return EngineError(
        "the Ray cluster can be reached",
        detail=f"{where}: {' '.join(str(error).split())}",
        hint="`ray status` on this machine tells whether it is a node of the cluster; leave the "
        "address and RAY_ADDRESS out to start a cluster on this machine alone",
    )
