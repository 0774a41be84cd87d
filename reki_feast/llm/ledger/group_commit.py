"""Group commit: writes into the ledger while calls are in flight."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from reki_feast.errors import LLMError
from reki_feast.llm.ledger import runs
from reki_feast.llm.ledger.file import Entry, Ledger
from reki_feast.llm.ledger.processes import HEARTBEAT_S

T = TypeVar("T")


class GroupCommitWriter:
    """Writes from a thread of its own; what comes in meanwhile is committed together.

    Args:
        ledger: written to.
        run: said to be alive as long as the scribe works.
    """

    def __init__(self, ledger: Ledger, run: str) -> None:
        self._ledger = ledger
        self._run = run
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._queue: list[tuple[Entry[Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._heartbeat_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> GroupCommitWriter:
        self._heartbeat_task = asyncio.create_task(self._heartbeat())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown()

    async def do(self, entry: Entry[T]) -> T:
        """Do this in a transaction; when it returns, it is on disk.

        Raises:
            LLMError: the ledger cannot be written.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        while self._queue:
            chunk, self._queue = self._queue, []
            if not await self._enter(chunk):
                for one in chunk:
                    await self._enter([one])

    async def _enter(self, chunk: list[tuple[Entry[Any], asyncio.Future[Any]]]) -> bool:
        """Do these in one transaction; False: one of them spoils it, and nothing is done yet.

        A ledger that cannot be written fails them all: that is no fault of one.
        """
        entries = [entry for entry, _ in chunk]
        [done], _ = await asyncio.wait([asyncio.ensure_future(self._commit(entries))])
        error = done.exception()
        if len(chunk) > 1 and error is not None and not isinstance(error, LLMError):
            return False
        for at, (_, future) in enumerate(chunk):
            if future.done():
                continue
            if error is None:
                future.set_result(done.result()[at])
            else:
                future.set_exception(error)
        return True

    async def _commit(self, entries: list[Entry[Any]]) -> list[Any]:
        """Do these in one transaction; the results are of what is on disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._ledger.do, entries)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with suppress(LLMError):  # whoever enters an outcome will meet the fault, and tell it
                await self.do(partial(runs.heartbeat, run=self._run, now=self._ledger.now()))
