"""Asking many requests: to their end, within the budget, nothing paid for twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from reki_feast.errors import LLMError
from reki_feast.llm.batch import OpenAIBatchLLM
from reki_feast.llm.batch.batching import ask_in_batches_async
from reki_feast.llm.desk import Desk
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.ledger.scribe import Scribe
from reki_feast.llm.loops import in_loop, stopping_gracefully
from reki_feast.llm.pace import Pace
from reki_feast.llm.port import LLM, Request, notes_of
from reki_feast.llm.report import Progress, RunReport
from reki_feast.llm.run import Run
from reki_feast.llm.terms import Terms

#: Seconds that calls in flight get to end when the run stops because of a fault.
_GRACE_S = 5.0
#: Seconds between two looks at prompts that another run holds.
_HELD_S = 0.5


def ask_all(
    requests: Iterable[Request],
    llm: LLM,
    ledger: Ledger,
    *,
    terms: Terms | None = None,
    run: Run | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """Ask every request that the ledger has no answer to; returns when all are dealt with.

    Runs an event loop of its own, in a thread of its own where one runs already (a notebook). In
    the main thread, Ctrl-C ends it gracefully: calls in flight are waited for; pressed twice, not.

    Args:
        requests: taken some at a time, as calls become free.
        llm: the model; its connections are closed at the end.
        ledger: every answer is in it before it counts here.
        terms: how to ask; None for the defaults.
        run: the run that this belongs to, in place of llm, ledger and terms; None makes one.
        progress: called with the report so far after each request.
        clock: seconds, for the report.

    Returns:
        The report; ``stopped`` says so when a limit or Ctrl-C ended it before its time.

    Raises:
        LLMError: no call can succeed (wrong key, wrong url, …), or the ledger cannot be written.
            What was answered until then is in the ledger.
    """

    async def whole(run: Run) -> RunReport:
        try:
            return await ask_all_async(requests, run, progress=progress, clock=clock)
        finally:
            await run.llm.aclose()

    if run is not None:
        return in_loop(partial(whole, run))
    with Run(ledger, llm, terms) as made:
        return in_loop(partial(whole, made))


async def ask_all_async(
    requests: Iterable[Request],
    run: Run,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """:func:`ask_all` for a caller with an event loop; the caller closes the model."""
    report = await _ask_all(requests, run, progress, clock)
    return replace(report, notes=(*report.notes, *notes_of(run.llm)))


async def _ask_all(
    requests: Iterable[Request],
    run: Run,
    progress: Progress | None,
    clock: Callable[[], float],
) -> RunReport:
    if isinstance(run.llm, OpenAIBatchLLM):
        return await ask_in_batches_async(requests, run, progress=progress, clock=clock)
    terms = run.terms
    if terms.concurrency < 1:
        raise LLMError("concurrency is at least 1", found=str(terms.concurrency), mend="use 8")
    pace = Pace(
        terms.concurrency,
        requests_per_minute=terms.requests_per_minute,
        tokens_per_minute=terms.tokens_per_minute,
    )
    async with Scribe(run.ledger, run.asker.run) as scribe:
        desk = Desk(run, pace, scribe, requests, progress, clock)
        with stopping_gracefully(desk.interrupt):
            await _work(desk, terms.concurrency)
            while desk.held and not pace.is_stopping:
                await asyncio.sleep(_HELD_S)
                desk.take_up_held()
                await _work(desk, terms.concurrency)
    report = desk.report()
    if report.stopped:
        run.outcome = f"stopped: {report.limit or report.stopped}"
    return report


async def _work(desk: Desk, count: int) -> None:
    workers = [asyncio.create_task(desk.work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    except Exception:
        desk.pace.stop()
        await asyncio.wait(workers, timeout=_GRACE_S)
        raise
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
