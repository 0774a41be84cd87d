"""Asks in batches: fills, submits, polls and collects them, over any number of restarts."""

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
from reki_feast.llm.batch import records as batches
from reki_feast.llm.batch.client import OpenAIBatchLLM
from reki_feast.llm.batch.collector import Collector, StoppedError
from reki_feast.llm.batch.lifecycle import BatchLifecycle
from reki_feast.llm.batch.records import BatchFill, BatchRecord, FillResult
from reki_feast.llm.batch.tracked import TrackedBatch
from reki_feast.llm.batch.waiting import loop_time
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.event_loop import graceful_interrupt
from reki_feast.llm.interface import Request
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.ledger.records import LeaseDenied
from reki_feast.llm.report import Progress, RunReport
from reki_feast.llm.request_source import RequestSource
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
    """Ask every request that the ledger has no answer to, in batches; return when all are done.

    Open batches of an earlier run are collected, too. Ctrl-C stops the polling at once: batches at
    the server stay there, for the next run to collect.

    Args:
        requests: taken as there is room in batches.
        run: the run, opened, of an :class:`OpenAIBatchLLM`; the caller closes the model.
        progress: called with the report so far after each look at the batches.
        clock: seconds, for the report.

    Raises:
        LLMError: no batch can succeed, or the ledger cannot be written. What was not sent is free
            again; what was sent is collected by the next run.
    """
    async with GroupCommitWriter(run.ledger, run.identity.run) as writer:
        batching = Batching(run, writer, requests, progress, clock)
        with graceful_interrupt(batching.interrupt):
            try:
                await batching.work()
            except QuotaError as error:
                batching.stop("quota", error.problems[0].detail)
            except LLMError:
                with contextlib.suppress(LLMError):  # of the ledger, if it is what broke
                    await batching.release_all()
                raise
            await batching.release_all()
    report = batching.report()
    if report.stopped:
        run.outcome = f"stopped: {report.limit or report.stopped}"
    return report


class Batching:
    """Dispatches the requests of one run in batches; one event loop, so no locks.

    Args:
        run: the run, opened.
        writer: writes into the ledger.
        requests: taken as there is room in batches.
        progress: called with the report so far.
        clock: seconds, for the report.
    """

    def __init__(
        self,
        run: Run,
        writer: GroupCommitWriter,
        requests: Iterable[Request],
        progress: Progress | None,
        clock: Callable[[], float],
    ) -> None:
        self._run, self._writer, self._clock = run, writer, clock
        self._llm = cast(OpenAIBatchLLM, run.llm)
        self._stop = asyncio.Event()
        self._collector = Collector(run, self._llm, writer, self._stop)
        self._lifecycle = BatchLifecycle(run, self._llm, writer, self._collector, self._stop)
        self._source = RequestSource(self._not_dealt_with(requests), run, self._count)
        self._progress = progress
        self._started = clock()
        self._ready: deque[Request] = deque()
        # what other runs hold, by their batch; "": outside of batches
        self._leased_elsewhere: dict[str, list[Request]] = {}
        self._is_exhausted = False
        self._exceeded_limit = ""

    def interrupt(self) -> None:
        """Stop at once; batches stay open."""
        self.stop("interrupted")

    def stop(self, why: str, limit: str = "") -> None:
        """The same, for a reason of :class:`~reki_feast.llm.report.RunReport`."""
        self._set(stopped=why, limit=limit)
        self._stop.set()

    def report(self) -> RunReport:
        """The run so far."""
        submitted = self._lifecycle.submitted
        states = sorted({one.entry.status or "submitted" for one in submitted})
        return replace(
            self._collector.report,
            seconds=self._clock() - self._started,
            notes=tuple(self._run.notes.values()),
            batches=len(submitted),
            batch_done=sum(one.done for one in submitted),
            server=f"{len(submitted)} batches {', '.join(states)}" if submitted else "",
        )

    async def work(self) -> None:
        """Fill batches and process them, until there is nothing left to do."""
        with contextlib.suppress(StoppedError):
            await self._adopt_orphans()
            while not self._is_done():
                await self._fill()
                before = len(self._lifecycle.open)
                await self._lifecycle.advance()
                if len(self._lifecycle.open) < before:
                    self._exceeded_limit = ""  # what a batch had set aside may be free again
                self._report_progress()
                await self._sleep()
                await self._retry_leased_elsewhere()

    async def release_all(self) -> None:
        """Release the prompts of batches that were not uploaded; count those of the others."""
        await self._lifecycle.release_unsent()
        names = [one.entry.id for one in self._lifecycle.open]
        left = sum(batches.count_open_calls(self._run.ledger.rows, names).values())
        left += sum(len(chunk) for name, chunk in self._leased_elsewhere.items() if name)
        self._set(in_batch=left)

    def _is_done(self) -> bool:
        if self._stop.is_set():
            return True
        if self._lifecycle.open:
            return False
        if self._exceeded_limit:
            self._set(stopped="budget", limit=self._exceeded_limit)
            return True
        return not self._has_more() and not self._leased_elsewhere

    def _has_more(self) -> bool:
        return bool(self._ready or self._collector.again or not self._is_exhausted)

    async def _fill(self) -> None:
        """Fill one more batch with pending requests, if the server has room for it."""
        if not self._lifecycle.has_room:
            return
        self._exceeded_limit = ""
        name, calls, size, most = uuid4().hex, 0, 0, self._lifecycle.max_calls_per_batch
        while calls < most and not self._stop.is_set():
            chunk = self._take(min(_CHUNK, most - calls))
            if not chunk:
                break
            entry = partial(batches.fill, how=self._how(name, size), wanted=chunk)
            filled = await self._writer.do(entry)
            calls, size = calls + filled.calls, size + filled.bytes
            self._sort(filled)
            if filled.left:
                break
        if calls:
            now = datetime.fromisoformat(self._run.ledger.now())
            self._lifecycle.open.append(TrackedBatch(BatchRecord(name, "written", calls, now)))

    def _how(self, batch: str, size: int) -> BatchFill:
        run = self._run
        return BatchFill(
            identity=run.identity,
            batch=batch,
            key_of=run.key,
            worst_case_of=run.worst_case,
            size_of=self._llm.size,
            max_bytes=self._llm.batches.max_bytes,
            used_bytes=size,
            now=run.ledger.now(),
        )

    def _take(self, most: int) -> list[Request]:
        """The next few requests that are to be asked, perhaps for a second time."""
        again = self._collector.again
        if not self._ready and again:
            keys = [again.popleft() for _ in range(min(most, len(again)))]
            self._ready.extend(batches.load_requests(self._run.ledger.rows, keys))
        while not self._ready:
            chunk = self._source.take()
            if chunk is None:
                self._is_exhausted = True
                return []
            self._ready.extend(chunk)
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def _sort(self, filled: FillResult) -> None:
        """Sort the requests that did not go into the batch by the reason."""
        self._exceeded_limit = filled.over
        self._ready.extendleft(reversed(filled.left))
        for request, done in filled.settled:
            self._collector.count(request, done)
        for request, refused in filled.refused:
            self._on_denied(request, refused)

    def _on_denied(self, request: Request, refused: LeaseDenied) -> None:
        if refused.why in ("answered", "quarantined"):
            self._count("reused" if refused.why == "answered" else "quarantined")
        elif refused.found not in self._mine():  # what is in ours counts when it comes back
            self._leased_elsewhere.setdefault(refused.found, []).append(request)

    def _not_dealt_with(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests without those that were counted with an earlier run's batches."""
        known = self._collector.settled_keys
        for request in requests:
            if known and (key := self._run.key(request)) in known:
                known.remove(key)
            else:
                yield request

    def _mine(self) -> set[str]:
        return {one.entry.id for one in self._lifecycle.open}

    async def _adopt_orphans(self) -> None:
        """Adopt open batches of runs that have ended."""
        run, mine = self._run, self._mine()
        entry = partial(batches.adopt_orphans, identity=run.identity, now=run.ledger.now())
        for batch in await self._writer.do(entry):
            if batch.id not in mine:
                self._collector.adopted.add(batch.id)
                self._lifecycle.open.append(TrackedBatch(batch))

    async def _retry_leased_elsewhere(self) -> None:
        """Queue again prompts leased by other runs, where these have ended or collected them."""
        if not self._leased_elsewhere or self._stop.is_set():
            return
        await self._adopt_orphans()
        names = [name for name in self._leased_elsewhere if name]
        theirs = batches.count_open_calls(self._run.ledger.rows, names).keys() - self._mine()
        for name in self._leased_elsewhere.keys() - theirs:
            self._ready.extend(self._leased_elsewhere.pop(name))

    async def _sleep(self) -> None:
        """Wait until a batch is due, or the run stops."""
        moments = [one.due_at for one in self._lifecycle.open]
        if self._leased_elsewhere:
            moments.append(loop_time() + self._llm.batches.poll_s)
        if self._has_more() and loop_time() < self._lifecycle.not_before:
            moments.append(self._lifecycle.not_before)
        wait_s = max(0.0, min(moments, default=0.0) - loop_time())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), wait_s)

    def _count(self, name: str) -> None:
        self._set(**{name: getattr(self._collector.report, name) + 1})

    def _set(self, **changed: Any) -> None:
        self._collector.report = replace(self._collector.report, **changed)

    def _report_progress(self) -> None:
        if self._progress is not None:
            self._progress(self.report())
