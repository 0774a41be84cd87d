"""The ledger in an actor on the driver's machine, which is restarted when it dies.

What was committed is in the file. What was under way is done again: an outcome that is recorded
already is left as it is, and a lease whose call is recorded already is the same lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reki_feast.distributed.cluster import node_id
from reki_feast.errors import EngineError
from reki_feast.llm.ledger import Ledger, leases, outcomes
from reki_feast.llm.ledger.file import Entry
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.ledger.records import Lease, LeaseDenied
from reki_feast.permissions import Rights

#: Seconds that a new actor may take to come up.
_RESTART_S = 120.0
_PAUSE_S = 0.2


class LedgerActor:
    """The one writer of a run's calls; a process of its own.

    Args:
        path: of the ledger.
        rights: of the file.
    """

    def __init__(self, path: Path, rights: Rights) -> None:
        self._ledger = Ledger(path, rights=rights)

    def do(self, entries: list[Entry[Any]]) -> list[Any]:
        """Do these in one transaction, as :meth:`~reki_feast.llm.ledger.Ledger.do`."""
        return self._ledger.do(entries)


def start_ledger_actor(ledger: Ledger) -> Any:
    """Start the actor on the driver's node, where the file is."""
    here = NodeAffinitySchedulingStrategy(node_id(), soft=False)
    made = ray.remote(LedgerActor).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return made.remote(ledger.path, ledger.rights)


class ActorWriter(GroupCommitWriter):
    """Writes through the actor; what comes in while it writes is one transaction.

    Args:
        actor: the ledger's.
        ledger: the same ledger, for the clock.
        run: the run's id.
    """

    def __init__(self, actor: Any, ledger: Ledger, run: str) -> None:
        super().__init__(ledger, run)
        self._actor = actor
        self._open: set[int] = set()

    async def _commit(self, entries: list[Entry[Any]]) -> list[Any]:
        until = time.monotonic() + _RESTART_S
        while True:
            try:
                return self._noted(entries, await self._actor.do.remote(entries))
            except RayTaskError as error:
                raise error.cause from None
            except RayActorError as error:
                if time.monotonic() > until:
                    raise EngineError(
                        "the ledger's actor answers",
                        detail=" ".join(str(error).split()),
                        hint="run again: what was answered is kept",
                    ) from error
                entries = [_repeated(entry) for entry in entries]
                await asyncio.sleep(_PAUSE_S)

    def _noted(self, entries: Sequence[Entry[Any]], results: list[Any]) -> list[Any]:
        """The results; a repeated lease is no second one of a call that is out already."""
        for at, (entry, result) in enumerate(zip(entries, results, strict=True)):
            if isinstance(result, Lease):
                if result.call in self._open:
                    results[at] = LeaseDenied("held")
                self._open.add(result.call)
            elif isinstance(entry, partial) and entry.func is outcomes.record_outcome:
                self._open.discard(entry.keywords["done"].lease.call)
        return results


def _repeated(entry: Entry[Any]) -> Entry[Any]:
    """The same, where nobody knows whether it was done."""
    if isinstance(entry, partial) and entry.func is leases.acquire:
        return partial(entry, is_repeated=True)
    return entry
