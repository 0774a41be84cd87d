"""Dispatches the requests of a run to concurrent workers, and records the outcomes of calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from reki_feast.errors import LLMError
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.interface import Answer, Request, RequestError
from reki_feast.llm.ledger import leases, outcomes
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.ledger.records import CallOutcome, Lease, LeaseDenied
from reki_feast.llm.limiter import ConcurrencyLimiter, Permit
from reki_feast.llm.notices import error_summary
from reki_feast.llm.policy import (
    TRUNCATED,
    RetryState,
    outcome_of_answer,
    outcome_of_error,
    request_to_send,
)
from reki_feast.llm.pricing import estimate_tokens
from reki_feast.llm.report import Failure, Progress, RunReport, with_call
from reki_feast.llm.request_source import RequestSource
from reki_feast.llm.run import Run

_log = logging.getLogger(__name__)

#: A run in which so many prompts failed and none was answered is stopped.
GIVE_UP_AFTER = 8
#: So many that fail one after another stop a run that had answers before …
_ROW = 20
#: … and fewer do when nothing was answered for so many seconds.
_SILENCE_S = 60.0
_SILENT_ROW = 3


class Dispatcher:
    """The shared state of a run's workers; belongs to one event loop, so it needs no locks.

    Args:
        run: the run, opened.
        limiter: grants permits for calls.
        writer: writes into the ledger.
        requests: taken in chunks.
        progress: called with the report so far after each request.
        clock: seconds.
    """

    def __init__(
        self,
        run: Run,
        limiter: ConcurrencyLimiter,
        writer: GroupCommitWriter,
        requests: Iterable[Request],
        progress: Progress | None,
        clock: Callable[[], float],
    ) -> None:
        self.limiter = limiter
        self.held: list[Request] = []
        self._run, self._writer, self._clock = run, writer, clock
        self._source = RequestSource(requests, run, self._count)
        self._progress = progress
        self._ready: list[Request] = []
        self._report = RunReport()
        self._started = self._last_good = clock()
        self._open_calls = 0
        self._failures_in_row = 0
        self._is_reachable = False
        self._call_settled = asyncio.Event()
        self._mean_answer = float(min(run.llm.max_answer_tokens, 400))

    def interrupt(self) -> None:
        """Stop when the calls in flight have ended."""
        _log.warning(
            "stopping: waiting for %d calls in flight; Ctrl-C again stops at once",
            self._open_calls,
        )
        self._stop("interrupted")

    def retry_leased(self) -> None:
        """Queue again the prompts that another run had leased."""
        self._ready, self.held = [*self.held[::-1], *self._ready], []

    def report(self) -> RunReport:
        """The run so far."""
        seconds, notes = self._clock() - self._started, tuple(self._run.notes.values())
        server = self.limiter.notices.reason
        return replace(self._report, seconds=seconds, notes=notes, server=server)

    async def work(self) -> None:
        """Process requests until there are none; all workers share one source."""
        while not self.limiter.is_stopping:
            request = await self._next()
            if request is None:
                return
            await self._process(request)
            self._report_progress()

    async def _next(self) -> Request | None:
        """The next request that the ledger has no answer to."""
        while not self._ready:
            chunk = self._source.take()
            if chunk is None:
                return None
            self._ready = chunk[::-1]
            self._report_progress()
            await asyncio.sleep(0)
        return self._ready.pop()

    async def _process(self, request: Request) -> None:
        """Send a request, with retries, until it has an outcome or the run stops."""
        retries = RetryState()
        while True:
            permit = await self.limiter.enter(self._expected_tokens(request))
            if permit is None:
                return
            try:
                lease = await self._acquire(request)
                done, wait_s = None, 0.0
                if isinstance(lease, Lease):
                    self._open_calls += 1
                    done, wait_s = await self._send(request, lease, permit, retries)
            finally:
                self.limiter.leave()
            if isinstance(lease, LeaseDenied):
                if lease.why != "over":
                    self._on_denied(lease, request)
                    return
                await self._wait_for_budget(lease.found)
            elif done is None or done.state != "planned":
                return
            await self._sleep(wait_s)

    async def _acquire(self, request: Request) -> Lease | LeaseDenied:
        run = self._run
        wanted = leases.LeaseRequest(run.key(request), request, run.worst_case)
        now = run.ledger.now()
        return await self._writer.do(
            partial(leases.acquire, identity=run.identity, wanted=wanted, now=now)
        )

    async def _send(
        self, request: Request, lease: Lease, permit: Permit, retries: RetryState
    ) -> tuple[CallOutcome, float]:
        policy, wait_s = self._run.policy, 0.0
        try:
            answer = await self._run.llm.ask(request_to_send(request, lease))
        except RequestError as error:
            self._on_error(error, permit)
            done, wait_s = outcome_of_error(
                request, lease, error, policy, retries, is_reachable=self._is_reachable
            )
            self._log_wait(error, max(wait_s, self.limiter.pause_s))
        except QuotaError as error:
            done = replace(_fatal_outcome(lease, error), state="planned", draft=lease.draft)
            self._stop("quota", error.problems[0].detail)
        except LLMError as error:
            await self._enter(request, _fatal_outcome(lease, error))
            raise
        except (ValueError, RecursionError) as error:
            # a reply that the parser fails on: this one is lost, others are not
            unread = _unread(error)
            done, _ = outcome_of_error(
                request, lease, unread, policy, retries, is_reachable=self._is_reachable
            )
        else:
            self._on_answer(answer, permit)
            done = outcome_of_answer(request, lease, answer, policy)
        await self._enter(request, done)
        return done, wait_s

    def _on_answer(self, answer: Answer, permit: Permit) -> None:
        self._is_reachable = True
        if answer.completion_tokens:
            self._mean_answer += 0.05 * (answer.completion_tokens - self._mean_answer)
        tokens = float(answer.prompt_tokens + answer.completion_tokens)
        self.limiter.succeeded(permit, tokens or permit.tokens, answer.limits)

    def _on_error(self, error: RequestError, permit: Permit) -> None:
        self._is_reachable = self._is_reachable or error.status > 0
        if error.is_throttled:
            self.limiter.throttled(permit, error.wait_s, error.limits)
        elif error.wait_s:
            self.limiter.pause(error.wait_s)

    def _log_wait(self, error: RequestError, seconds: float) -> None:
        if seconds > 0:
            self.limiter.notices.wait(
                seconds, error_summary(error), asyncio.get_running_loop().time()
            )
            self._report_progress()

    async def _enter(self, request: Request, done: CallOutcome) -> None:
        """Record an outcome; it counts only when it is on disk."""
        now = self._run.ledger.now()
        try:
            await self._writer.do(partial(outcomes.record_outcome, done=done, now=now))
        finally:
            self._open_calls -= 1
            self._call_settled.set()
            self._call_settled = asyncio.Event()
        self._run.observe(request, done)
        fault = done.verdict.fault or (str(done.error) if done.error else "")
        failure = Failure(request.kind, request.owner, str(done.error) if done.error else fault)
        self._report = with_call(self._report, done, failure)
        if done.state == "answered":
            self._failures_in_row, self._last_good = 0, self._clock()
        elif done.state != "planned":
            self._failures_in_row += 1
            self._stop_if_hopeless(done)

    def _stop_if_hopeless(self, done: CallOutcome) -> None:
        row = GIVE_UP_AFTER
        if self._report.asked:
            silent = self._clock() - self._last_good > _SILENCE_S
            row = max(_ROW, 2 * self.limiter.limit)
            if silent:
                row = max(_SILENT_ROW, min(GIVE_UP_AFTER, self.limiter.limit))
        if self._failures_in_row < row or self.limiter.is_stopping:
            return
        what = "first" if not self._report.asked else "last"
        rule, found, hint = _why(done)
        raise LLMError(
            "some calls succeed",
            detail=f"the {what} {self._failures_in_row} prompts all failed, the last: {rule}"
            + (f" ({found})" if found else ""),
            hint=hint or "try one prompt by hand against this server and model",
        )

    async def _wait_for_budget(self, limit: str) -> None:
        """Wait until a call in flight releases what it had reserved of the budget."""
        if self._open_calls == 0:
            self._stop("budget", limit)
            return
        await self._call_settled.wait()

    async def _sleep(self, seconds: float) -> None:
        """Wait before a retry; returns early when the run stops."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.limiter.is_stopping and (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, 0.5))

    def _on_denied(self, refused: LeaseDenied, request: Request) -> None:
        if refused.why == "held":
            self.held.append(request)
        elif refused.why == "in batch":
            self._count("in_batch")
        else:
            self._count("reused" if refused.why == "answered" else "quarantined")

    def _stop(self, why: str, limit: str = "") -> None:
        if not self._report.stopped:
            self._report = replace(self._report, stopped=why, limit=limit)  # type: ignore[arg-type]
        self.limiter.stop()

    def _count(self, name: str) -> None:
        more = {name: getattr(self._report, name) + 1}
        self._report = replace(self._report, **more)

    def _expected_tokens(self, request: Request) -> float:
        return estimate_tokens(request.system) + estimate_tokens(request.prompt) + self._mean_answer

    def _report_progress(self) -> None:
        if self._progress is not None:
            self._progress(self.report())


def _why(done: CallOutcome) -> tuple[str, str, str]:
    """Why a prompt failed: problem, detail, hint."""
    if done.error is not None:
        fault = done.error.problems[0]
        return fault.problem, fault.detail, fault.hint
    hint = "`reki quality` shows the answers: name another model, or loosen the scenario's Gates"
    if done.verdict.gate == TRUNCATED:
        hint = "raise the server's context length, then `reki generate --retry-quarantined`"
    return f"answers pass the gate {done.verdict.gate!r}", done.verdict.fault, hint


def _unread(error: Exception) -> RequestError:
    found = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return RequestError("the reply can be read", detail=found, is_lost=True)


def _fatal_outcome(lease: Lease, error: LLMError) -> CallOutcome:
    """The outcome of a call that failed as every call would; it has no answer and no cost."""
    error_summary = RequestError(error.problems[0].problem, detail=error.problems[0].detail)
    return CallOutcome(lease=lease, state="failed", error=error_summary)
