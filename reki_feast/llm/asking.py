"""Asks many requests concurrently, within the budget, and pays for none twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from reki_feast.errors import LLMError
from reki_feast.llm.batch import OpenAIBatchLLM
from reki_feast.llm.batch.dispatcher import ask_in_batches_async
from reki_feast.llm.dispatcher import Dispatcher
from reki_feast.llm.event_loop import graceful_interrupt, run_in_loop
from reki_feast.llm.interface import LanguageModel, Request, notes_of
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.policy import RequestPolicy
from reki_feast.llm.report import Progress, RunReport
from reki_feast.llm.run import Run

#: Seconds that calls in flight get to end when the run stops because of a fault.
_GRACE_S = 5.0
#: Seconds between two looks at prompts that another run has leased.
_HELD_S = 0.5


def ask_all(
    requests: Iterable[Request],
    llm: LanguageModel,
    ledger: Ledger,
    *,
    policy: RequestPolicy | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """Ask every request that the ledger has no answer to; return when all are settled.

    Runs an event loop of its own, in a thread of its own where one runs already (a notebook). In
    the main thread, Ctrl-C stops it gracefully, after the calls in flight; pressed twice, at once.

    Args:
        requests: taken some at a time, as calls become free.
        llm: the model; its connections are closed at the end.
        ledger: every answer is in it before it counts here.
        policy: how to ask; None for the defaults.
        progress: called with the report so far after each request.
        clock: seconds, for the report.

    Returns:
        The report; ``stopped`` says why a run ended early: a limit, or Ctrl-C.

    Raises:
        LLMError: no call can succeed (wrong key, wrong url, …), or the ledger cannot be written.
            What was answered until then is in the ledger.
    """
    with Run(ledger, llm, policy) as run:
        return ask_in_run(requests, run, progress=progress, clock=clock)


def ask_in_run(
    requests: Iterable[Request],
    run: Run,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """:func:`ask_all` as a part of an open run, whose budget counts all its parts together."""

    async def ask_and_close() -> RunReport:
        try:
            return await ask_all_async(requests, run, progress=progress, clock=clock)
        finally:
            await run.llm.aclose()

    return run_in_loop(ask_and_close)


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
    policy = run.policy
    if policy.concurrency < 1:
        raise LLMError("concurrency is at least 1", detail=str(policy.concurrency), hint="use 8")
    limiter = run.limiter()
    async with run.writer(run.ledger, run.identity.run) as writer:
        dispatcher = Dispatcher(run, limiter, writer, requests, progress, clock)
        with graceful_interrupt(dispatcher.interrupt):
            await _work(dispatcher, policy.concurrency)
            while dispatcher.held and not limiter.is_stopping:
                await asyncio.sleep(_HELD_S)
                dispatcher.retry_leased()
                await _work(dispatcher, policy.concurrency)
    report = dispatcher.report()
    if report.stopped:
        run.outcome = f"stopped: {report.limit or report.stopped}"
    return report


async def _work(dispatcher: Dispatcher, count: int) -> None:
    workers = [asyncio.create_task(dispatcher.work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    except Exception:
        dispatcher.limiter.stop()
        await asyncio.wait(workers, timeout=_GRACE_S)
        raise
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
