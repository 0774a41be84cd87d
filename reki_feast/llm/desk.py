"""Where the workers of a run meet: requests come in, calls go out, outcomes are entered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from reki_feast.errors import LLMError
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.intake import Intake
from reki_feast.llm.ledger import claims, settlements
from reki_feast.llm.ledger.calls import Claim, NoClaim, Settlement
from reki_feast.llm.ledger.scribe import Scribe
from reki_feast.llm.notices import told
from reki_feast.llm.pace import Pace, Turn
from reki_feast.llm.port import Answer, Request, RequestError
from reki_feast.llm.price import estimate_tokens
from reki_feast.llm.report import Failure, Progress, RunReport, counted
from reki_feast.llm.run import Run
from reki_feast.llm.terms import UNREAD, Tries, settle_answer, settle_error, to_send

_log = logging.getLogger(__name__)

#: A run in which so many prompts failed and none was answered is stopped.
HOPELESS_AFTER = 8
#: So many that fail one after another stop a run that had answers before …
_ROW = 20
#: … and fewer do when nothing was answered for so many seconds.
_SILENCE_S = 60.0
_SILENT_ROW = 3


class Desk:
    """The state that the workers of one run share; one event loop, so no locks.

    Args:
        run: the run, opened.
        pace: says when a call may go out.
        scribe: writes into the ledger.
        requests: taken some at a time.
        progress: called with the report so far after each request.
        clock: seconds.
    """

    def __init__(
        self,
        run: Run,
        pace: Pace,
        scribe: Scribe,
        requests: Iterable[Request],
        progress: Progress | None,
        clock: Callable[[], float],
    ) -> None:
        self.pace = pace
        self.held: list[Request] = []
        self._run, self._scribe, self._clock = run, scribe, clock
        self._intake = Intake(requests, run, self._count)
        self._progress = progress
        self._ready: list[Request] = []
        self._report = RunReport()
        self._begun = self._last_good = clock()
        self._open_calls = 0
        self._in_row = 0
        self._is_proven = False
        self._settled = asyncio.Event()
        self._mean_answer = float(min(run.llm.longest_answer, 400))

    def interrupt(self) -> None:
        """Stop when the calls in flight have ended."""
        _log.warning(
            "stopping: waiting for %d calls in flight; Ctrl-C again stops at once",
            self._open_calls,
        )
        self._stop("interrupted")

    def take_up_held(self) -> None:
        """Try again for prompts that another run held."""
        self._ready, self.held = [*self.held[::-1], *self._ready], []

    def report(self) -> RunReport:
        """The run so far."""
        seconds, notes = self._clock() - self._begun, tuple(self._run.notes.values())
        return replace(self._report, seconds=seconds, notes=notes)

    async def work(self) -> None:
        """Take requests until there are none; all workers draw from the same ones."""
        while not self.pace.is_stopping:
            request = await self._next()
            if request is None:
                return
            await self._pursue(request)
            self._tell()

    async def _next(self) -> Request | None:
        """The next request that the ledger has no answer to."""
        while not self._ready:
            some = self._intake.take()
            if some is None:
                return None
            self._ready = some[::-1]
            self._tell()
            await asyncio.sleep(0)
        return self._ready.pop()

    async def _pursue(self, request: Request) -> None:
        """Send a request until it is settled, or the run stops."""
        tries = Tries()
        while True:
            turn = await self.pace.enter(self._expected_tokens(request))
            if turn is None:
                return
            try:
                claim = await self._claim(request)
                done, wait_s = None, 0.0
                if isinstance(claim, Claim):
                    self._open_calls += 1
                    done, wait_s = await self._send(request, claim, turn, tries)
            finally:
                self.pace.leave()
            if isinstance(claim, NoClaim):
                if claim.why != "over":
                    self._turned_away(claim, request)
                    return
                await self._wait_for_room(claim.found)
            elif done is None or done.state != "planned":
                return
            await self._rest(wait_s)

    async def _claim(self, request: Request) -> Claim | NoClaim:
        ledger = self._run.ledger
        return await self._scribe.do(
            partial(
                claims.claim,
                asker=self._run.asker,
                key=self._run.key(request),
                request=request,
                worst_of=self._run.worst,
                now=ledger.now(),
            )
        )

    async def _send(
        self, request: Request, claim: Claim, turn: Turn, tries: Tries
    ) -> tuple[Settlement, float]:
        terms, wait_s = self._run.terms, 0.0
        try:
            answer = await self._run.llm.ask(to_send(request, claim))
        except RequestError as error:
            self._heard(error, turn)
            done, wait_s = settle_error(
                request, claim, error, terms, tries, is_proven=self._is_proven
            )
            self._tell_wait(error, max(wait_s, self.pace.pause_s))
        except QuotaError as error:
            done = replace(_at_fault(claim, error), state="planned", draft=claim.draft)
            self._stop("quota", error.faults[0].found)
        except LLMError as error:
            await self._enter(request, _at_fault(claim, error))
            raise
        except (ValueError, RecursionError) as error:
            # a reply that its reader stumbles over: this one is lost, others are not
            unread = _unread(error)
            done, _ = settle_error(request, claim, unread, terms, tries, is_proven=self._is_proven)
        else:
            self._answered(answer, turn)
            done = settle_answer(request, claim, answer, terms)
        await self._enter(request, done)
        return done, wait_s

    def _answered(self, answer: Answer, turn: Turn) -> None:
        self._is_proven = True
        if answer.completion_tokens:
            self._mean_answer += 0.05 * (answer.completion_tokens - self._mean_answer)
        tokens = float(answer.prompt_tokens + answer.completion_tokens)
        self.pace.succeeded(turn, tokens or turn.tokens, answer.limits)

    def _heard(self, error: RequestError, turn: Turn) -> None:
        self._is_proven = self._is_proven or error.status > 0
        if error.is_throttled:
            self.pace.throttled(turn, error.wait_s, error.limits)
        elif error.wait_s:
            self.pace.pause(error.wait_s)

    def _tell_wait(self, error: RequestError, seconds: float) -> None:
        if seconds > 0:
            self.pace.notices.wait(seconds, told(error), asyncio.get_running_loop().time())

    async def _enter(self, request: Request, done: Settlement) -> None:
        """Enter an outcome; only when it is on disk does it count."""
        now = self._run.ledger.now()
        try:
            await self._scribe.do(partial(settlements.settle, done=done, now=now))
        finally:
            self._open_calls -= 1
            self._settled.set()
            self._settled = asyncio.Event()
        self._run.heed(request, done)
        fault = done.verdict.fault or (str(done.error) if done.error else "")
        failure = Failure(request.kind, request.owner, str(done.error) if done.error else fault)
        self._report = counted(self._report, done, failure)
        if done.state == "answered":
            self._in_row, self._last_good = 0, self._clock()
        elif done.state != "planned":
            self._in_row += 1
            self._stop_if_hopeless(done)

    def _stop_if_hopeless(self, done: Settlement) -> None:
        row = HOPELESS_AFTER
        if self._report.asked:
            silent = self._clock() - self._last_good > _SILENCE_S
            row = max(_ROW, 2 * self.pace.limit)
            if silent:
                row = max(_SILENT_ROW, min(HOPELESS_AFTER, self.pace.limit))
        if self._in_row < row or self.pace.is_stopping:
            return
        what = "first" if not self._report.asked else "last"
        rule, found, mend = _why(done)
        raise LLMError(
            "some calls succeed",
            found=f"the {what} {self._in_row} prompts all failed, the last: {rule}"
            + (f" ({found})" if found else ""),
            mend=mend or "try one prompt by hand against this server and model",
        )

    async def _wait_for_room(self, limit: str) -> None:
        """The worst case of calls in flight is set aside: when they end, there may be room."""
        if self._open_calls == 0:
            self._stop("budget", limit)
            return
        await self._settled.wait()

    async def _rest(self, seconds: float) -> None:
        """Wait before the same prompt goes out again; cut short when the run stops."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.pace.is_stopping and (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, 0.5))

    def _turned_away(self, refused: NoClaim, request: Request) -> None:
        if refused.why == "held":
            self.held.append(request)
        elif refused.why == "in batch":
            self._count("in_batch")
        else:
            self._count("reused" if refused.why == "answered" else "quarantined")

    def _stop(self, why: str, limit: str = "") -> None:
        if not self._report.stopped:
            self._report = replace(self._report, stopped=why, limit=limit)  # type: ignore[arg-type]
        self.pace.stop()

    def _count(self, name: str) -> None:
        more = {name: getattr(self._report, name) + 1}
        self._report = replace(self._report, **more)

    def _expected_tokens(self, request: Request) -> float:
        return estimate_tokens(request.system) + estimate_tokens(request.prompt) + self._mean_answer

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report())


def _why(done: Settlement) -> tuple[str, str, str]:
    """Why a prompt failed: rule, found, mend."""
    if done.error is not None:
        fault = done.error.faults[0]
        return fault.rule, fault.found, fault.mend
    mend = "`reki quality` shows the answers: name another model, or loosen the scenario's Gates"
    if done.verdict.gate == UNREAD:
        mend = "raise the server's context length, then `reki generate --retry-quarantined`"
    return f"answers pass the gate {done.verdict.gate!r}", done.verdict.fault, mend


def _unread(error: Exception) -> RequestError:
    found = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return RequestError("the reply can be read", found=found, is_lost=True)


def _at_fault(claim: Claim, error: LLMError) -> Settlement:
    """A call that met a fault which every call would meet; it was not answered, nor counted."""
    told = RequestError(error.faults[0].rule, found=error.faults[0].found)
    return Settlement(claim=claim, state="failed", error=told)
