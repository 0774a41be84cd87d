"""Actors of one kind on the nodes of a cluster; one that dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from reki_feast.errors import EngineError

_log = logging.getLogger(__name__)

#: Seconds that the first worker may take to come up.
_START_S = 120.0
#: Seconds between two looks at what has come up, or is done.
LOOK_S = 0.05
#: Actors that die before they work, one after another, until the pool gives up.
_GIVE_UP_AFTER = 8


@dataclass
class Worker:
    """An actor, and what it has to do.

    Attributes:
        actor: its handle; it has a method ``ready``.
        starting: the reply to ``ready``; None: it has come.
        in_flight: calls that it has not answered.
    """

    actor: Any
    starting: Any
    in_flight: int = 0


class Workers:
    """The pool.

    Args:
        start: starts one actor.
        count: how many there are.
    """

    def __init__(self, start: Callable[[], Any], count: int) -> None:
        self._start, self._failed = start, 0
        self._waiting_since: float | None = None
        self._all = [self._started() for _ in range(count)]

    async def least_busy(self) -> Worker:
        """A worker that lives, as far as is known; waits for one.

        Raises:
            EngineError: none comes up.
        """
        while not (live := self.live()):
            await asyncio.sleep(LOOK_S)
        return min(live, key=lambda one: one.in_flight)

    def live(self) -> list[Worker]:
        """The workers that live, as far as is known; perhaps none yet.

        Raises:
            EngineError: none comes up.
        """
        self._look()
        live = [one for one in self._all if one.starting is None]
        now = time.monotonic()
        if live:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > _START_S:
            raise _no_room(f"none came up in {_START_S:.0f} s")
        return live

    def lost(self, worker: Worker) -> None:
        """A worker has died; the same one may be told of several times."""
        if worker in self._all:
            _log.warning("a worker of the cluster has died; another one is started")
            self._replace(worker)

    def close(self) -> None:
        """Let all actors go."""
        for one in self._all:
            ray.kill(one.actor)
        self._all = []

    def _look(self) -> None:
        """Take in those that have come up, replace those that have not."""
        waiting = {one.starting: one for one in self._all if one.starting is not None}
        if not waiting:
            return
        come, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reply in come:
            try:
                ray.get(reply, timeout=_START_S)
            except (RayActorError, GetTimeoutError) as error:
                self._failed += 1
                if self._failed >= _GIVE_UP_AFTER:
                    raise _no_room(" ".join(str(error).split())) from error
                self._replace(waiting[reply])
            else:
                self._failed, waiting[reply].starting = 0, None

    def _replace(self, worker: Worker) -> None:
        with contextlib.suppress(RayActorError):
            ray.kill(worker.actor)  # it may be cut off, and alive
        self._all[self._all.index(worker)] = self._started()

    def _started(self) -> Worker:
        actor = self._start()
        return Worker(actor, actor.ready.remote())


def _no_room(found: str) -> EngineError:
    return EngineError(
        "the cluster has a free CPU for a worker, on a node where reki-feast is installed",
        detail=found,
        hint="`ray status` tells what is free; install the same version of reki-feast on each node",
    )
