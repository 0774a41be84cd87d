"""Asking in batches: filled, sent, watched and collected, over any number of restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, cast
from uuid import uuid4

from reki_feast.errors import LLMError
from reki_feast.llm.batch import entries as batches
from reki_feast.llm.batch.collecting import Collector, StoppedError
from reki_feast.llm.batch.entries import Batch, Filled, Filling
from reki_feast.llm.batch.remote import OpenAIBatchLLM
from reki_feast.llm.batch.shipped import Shipped
from reki_feast.llm.batch.shipping import Shipping, loop_time
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.intake import Intake
from reki_feast.llm.ledger.calls import NoClaim
from reki_feast.llm.ledger.scribe import Scribe
from reki_feast.llm.loops import stopping_gracefully
from reki_feast.llm.port import Request
from reki_feast.llm.report import Progress, RunReport
from reki_feast.llm.run import Run

#: Requests taken into a batch in one transaction.
_CHUNK = 500


async def ask_in_batches_async(
    requests: Iterable[Request],
    run: Run,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """Ask every request that the ledger has no answer to, in batches; returns when all came back.

    Batches that an earlier run left open are collected, too. Ctrl-C stops the watching at once:
    what is at the server stays there, for the next run to collect.

    Args:
        requests: taken as there is room in batches.
        run: the run, opened, of an :class:`OpenAIBatchLLM`; the caller closes the model.
        progress: called with the report so far after each look at the batches.
        clock: seconds, for the report.

    Raises:
        LLMError: no batch can succeed, or the ledger cannot be written. What was not sent is free
            again; what was sent is collected by the next run.
    """
    async with Scribe(run.ledger, run.asker.run) as scribe:
        batching = Batching(run, scribe, requests, progress, clock)
        with stopping_gracefully(batching.interrupt):
            try:
                await batching.work()
            except QuotaError as error:
                batching.stop("quota", error.faults[0].found)
            except LLMError:
                with contextlib.suppress(LLMError):  # of the ledger, if it is what broke
                    await batching.let_go()
                raise
            await batching.let_go()
    report = batching.report()
    if report.stopped:
        run.outcome = f"stopped: {report.limit or report.stopped}"
    return report


class Batching:
    """The requests of one run, on their way into batches; one event loop, so no locks.

    Args:
        run: the run, opened.
        scribe: writes into the ledger.
        requests: taken as there is room in batches.
        progress: called with the report so far.
        clock: seconds, for the report.
    """

    def __init__(
        self,
        run: Run,
        scribe: Scribe,
        requests: Iterable[Request],
        progress: Progress | None,
        clock: Callable[[], float],
    ) -> None:
        self._run, self._scribe, self._clock = run, scribe, clock
        self._llm = cast(OpenAIBatchLLM, run.llm)
        self._stop = asyncio.Event()
        self._collector = Collector(run, self._llm, scribe, self._stop)
        self._shipping = Shipping(run, self._llm, scribe, self._collector, self._stop)
        self._intake = Intake(self._not_dealt_with(requests), run, self._count)
        self._progress = progress
        self._begun = clock()
        self._ready: deque[Request] = deque()
        # what other runs hold, by their batch; "": outside of batches
        self._elsewhere: dict[str, list[Request]] = {}
        self._is_exhausted = False
        self._over = ""

    def interrupt(self) -> None:
        """Stop at once; batches stay open."""
        self.stop("interrupted")

    def stop(self, why: str, limit: str = "") -> None:
        """The same, for a reason of :class:`~reki_feast.llm.report.RunReport`."""
        self._set(stopped=why, limit=limit)
        self._stop.set()

    def report(self) -> RunReport:
        """The run so far."""
        there = self._shipping.there
        return replace(
            self._collector.report,
            seconds=self._clock() - self._begun,
            notes=tuple(self._run.notes.values()),
            batches=len(there),
            batch_done=sum(one.done for one in there),
        )

    async def work(self) -> None:
        """Make batches and see them through, until there is nothing left to do."""
        with contextlib.suppress(StoppedError):
            await self._take_over()
            while not self._is_done():
                await self._fill()
                before = len(self._shipping.open)
                await self._shipping.go_on()
                if len(self._shipping.open) < before:
                    self._over = ""  # what a batch had set aside may be free again
                self._tell()
                await self._rest()
                await self._look_elsewhere()

    async def let_go(self) -> None:
        """Free the prompts of batches that were not sent; count those of batches that were."""
        await self._shipping.dissolve_unsent()
        names = [one.entry.id for one in self._shipping.open]
        left = sum(batches.open_calls(self._run.ledger.rows, names).values())
        left += sum(len(some) for name, some in self._elsewhere.items() if name)
        self._set(in_batch=left)

    def _is_done(self) -> bool:
        if self._stop.is_set():
            return True
        if self._shipping.open:
            return False
        if self._over:
            self._set(stopped="budget", limit=self._over)
            return True
        return not self._has_more() and not self._elsewhere

    def _has_more(self) -> bool:
        return bool(self._ready or self._collector.again or not self._is_exhausted)

    async def _fill(self) -> None:
        """Make one more batch of what is to be asked, if there is room for it."""
        if not self._shipping.has_room:
            return
        self._over = ""
        name, calls, size, most = uuid4().hex, 0, 0, self._shipping.most_calls
        while calls < most and not self._stop.is_set():
            some = self._take(min(_CHUNK, most - calls))
            if not some:
                break
            entry = partial(batches.fill, how=self._how(name, size), wanted=some)
            filled = await self._scribe.do(entry)
            calls, size = calls + filled.calls, size + filled.bytes
            self._sort(filled)
            if filled.left:
                break
        if calls:
            now = datetime.fromisoformat(self._run.ledger.now())
            self._shipping.open.append(Shipped(Batch(name, "written", calls, now)))

    def _how(self, batch: str, size: int) -> Filling:
        run = self._run
        return Filling(
            asker=run.asker,
            batch=batch,
            key_of=run.key,
            worst_of=run.worst,
            size_of=self._llm.size,
            most_bytes=self._llm.max_bytes,
            has_bytes=size,
            now=run.ledger.now(),
        )

    def _take(self, most: int) -> list[Request]:
        """The next few requests that are to be asked, perhaps for a second time."""
        again = self._collector.again
        if not self._ready and again:
            keys = [again.popleft() for _ in range(min(most, len(again)))]
            self._ready.extend(batches.requests_of(self._run.ledger.rows, keys))
        while not self._ready:
            some = self._intake.take()
            if some is None:
                self._is_exhausted = True
                return []
            self._ready.extend(some)
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def _sort(self, filled: Filled) -> None:
        """What did not go into the batch, by what is to become of it."""
        self._over = filled.over
        self._ready.extendleft(reversed(filled.left))
        for request, done in filled.settled:
            self._collector.count(request, done)
        for request, refused in filled.refused:
            self._turned_away(request, refused)

    def _turned_away(self, request: Request, refused: NoClaim) -> None:
        if refused.why in ("answered", "quarantined"):
            self._count("reused" if refused.why == "answered" else "quarantined")
        elif refused.found not in self._mine():  # what is in ours counts when it comes back
            self._elsewhere.setdefault(refused.found, []).append(request)

    def _not_dealt_with(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Without those that were counted when what an earlier run had sent came back."""
        known = self._collector.dealt_with
        for request in requests:
            if known and (key := self._run.key(request)) in known:
                known.remove(key)
            else:
                yield request

    def _mine(self) -> set[str]:
        return {one.entry.id for one in self._shipping.open}

    async def _take_over(self) -> None:
        """Look after batches that nobody looks after any more."""
        run, mine = self._run, self._mine()
        entry = partial(batches.take_over, asker=run.asker, now=run.ledger.now())
        for batch in await self._scribe.do(entry):
            if batch.id not in mine:
                self._collector.adopted.add(batch.id)
                self._shipping.open.append(Shipped(batch))

    async def _look_elsewhere(self) -> None:
        """Try again for prompts that other runs held, where these are done with them, or dead."""
        if not self._elsewhere or self._stop.is_set():
            return
        await self._take_over()
        names = [name for name in self._elsewhere if name]
        theirs = batches.open_calls(self._run.ledger.rows, names).keys() - self._mine()
        for name in self._elsewhere.keys() - theirs:
            self._ready.extend(self._elsewhere.pop(name))

    async def _rest(self) -> None:
        """Wait until something is due, or the run stops."""
        moments = [one.due for one in self._shipping.open]
        if self._elsewhere:
            moments.append(loop_time() + self._llm.poll_s)
        if self._has_more() and loop_time() < self._shipping.not_before:
            moments.append(self._shipping.not_before)
        wait_s = max(0.0, min(moments, default=0.0) - loop_time())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), wait_s)

    def _count(self, name: str) -> None:
        self._set(**{name: getattr(self._collector.report, name) + 1})

    def _set(self, **changed: Any) -> None:
        self._collector.report = replace(self._collector.report, **changed)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report())
