"""A cluster of two nodes on the loopback, and how its processes are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

#: A dead node is noticed in two seconds, not in half a minute; a busy machine's is not dead.
_HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 2,
}
_STORE = 80 << 20
_NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": _STORE}


class TwoNodes:
    """The cluster; tests are drivers on its first node."""

    def __init__(self) -> None:
        head = {**_NODE, "include_dashboard": False, "_system_config": _HEALTH}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._second: Any = None
        self.complete()

    @property
    def address(self) -> str:
        found: str = self._cluster.address
        return found

    def complete(self) -> None:
        """Give the cluster its second node, if it has none."""
        if self._second is None:
            self._second = self._cluster.add_node(**_NODE)

    def kill_node(self) -> None:
        """Kill the second node's raylet and whatever it had started."""
        node, self._second = self._second, None
        self._cluster.remove_node(node, allow_graceful=False)

    def kill(self, actor: str, count: int = 1) -> int:
        """Kill processes of actors of this class; how many there were."""
        found = self._processes(actor)
        for pid in found[:count]:
            os.kill(pid, signal.SIGKILL)
        return len(found)

    def close(self) -> None:
        if ray.is_initialized():
            ray.shutdown()
        self._cluster.shutdown()

    def _processes(self, actor: str) -> list[int]:
        nodes = [self._cluster.head_node, self._second]
        raylets = {
            one.process.pid
            for node in nodes
            if node is not None
            for one in node.all_processes["raylet"]
        }
        return [pid for pid, parent, title in _running() if parent in raylets and actor in title]


def _running() -> Iterator[tuple[int, int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            title = (process / "cmdline").read_bytes().decode(errors="replace")
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            yield int(process.name), int(parent), title


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
