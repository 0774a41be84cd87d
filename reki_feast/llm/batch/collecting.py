"""What comes back of a batch: its files read line by line, each outcome entered and counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from reki_feast.errors import LLMError
from reki_feast.llm.batch import entries as batches
from reki_feast.llm.batch.entries import Batch, Outcome
from reki_feast.llm.batch.remote import OpenAIBatchLLM
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.ledger.calls import Claim, Settlement
from reki_feast.llm.ledger.scribe import Scribe
from reki_feast.llm.port import Answer, Request, RequestError
from reki_feast.llm.replies import has_form
from reki_feast.llm.report import Failure, RunReport, counted
from reki_feast.llm.run import Run
from reki_feast.llm.style import Style
from reki_feast.llm.terms import Tries, settle_answer, settle_error
from reki_feast.llm.wire import TroubleError

#: Calls entered in one transaction.
_CHUNK = 200
#: So many prompts that failed, and none answered, stop a run.
_HOPELESS_AFTER = 8


class StoppedError(Exception):
    """The run is to stop at once."""


@dataclass(frozen=True)
class Found:
    """What is in the files of a batch.

    Attributes:
        lines: calls and where their lines begin; in the order of the ledger, which is quicker to
            write in it than in the server's.
        unreadable: lines that tell nothing.
    """

    lines: Sequence[tuple[int, int]]
    unreadable: int


class Collector:
    """Enters what became of calls; one event loop, so no locks.

    Args:
        run: the run, opened.
        llm: its model.
        scribe: writes into the ledger.
        stop: set when the run is to stop at once.

    Attributes:
        report: the run so far.
        again: keys of prompts that go into another batch.
        wait_s: seconds that the server, or prudence, wants to pass before that.
        adopted: ids of batches that an earlier run had made.
        dealt_with: keys of prompts of these that are settled for good.
    """

    def __init__(self, run: Run, llm: OpenAIBatchLLM, scribe: Scribe, stop: asyncio.Event) -> None:
        self.report = RunReport()
        self.again: deque[str] = deque()
        self.wait_s = 0.0
        self.adopted: set[str] = set()
        self.dealt_with: set[str] = set()
        self._run, self._llm, self._scribe = run, llm, scribe
        self._stop = stop
        self._tries: dict[str, Tries] = {}
        self._fatal: LLMError | None = None
        self._lost = 0

    async def survey(self, batch: Batch, file: IO[bytes]) -> Found:
        """Look through the files of a batch before anything is entered.

        The model learns whether any answer came in the form that was asked for.

        Args:
            batch: the batch.
            file: its output and its error file, one after the other.
        """
        style, lines, unreadable = self._style(batch), dict[int, int](), 0
        has_answers = has_form_faults = False
        some = batches.calls_of(self._run.ledger.rows, batch.id, 0, 1)
        factors = some[0][1].factors if some else ()
        at = file.seek(0)
        for number, raw in enumerate(file):
            found = self._llm.read(raw, style)
            unreadable += int(found is None and bool(raw.strip()))
            if found is not None:
                call, outcome = found
                lines.setdefault(call, at)
                has_answers = has_answers or _is_reply(outcome, factors)
                has_form_faults = has_form_faults or _may_be_form(outcome, factors)
            at += len(raw)
            if number % _CHUNK == 0:
                self.check_stop()
                await asyncio.sleep(0)
        self._llm.heed(style, has_answers=has_answers, has_form_faults=has_form_faults)
        return Found(sorted(lines.items()), unreadable)

    async def enter(
        self, batch: Batch, file: IO[bytes], found: Found, missing: RequestError
    ) -> None:
        """Enter what the files of a batch say.

        Args:
            batch: the batch; its calls that are settled already are left alone.
            file: its output and its error file, one after the other.
            found: where in it is what.
            missing: what befell the calls that no line tells of.
        """
        style = self._style(batch)
        for start in range(0, len(found.lines), _CHUNK):
            some: dict[int, Outcome] = {}
            for _, at in found.lines[start : start + _CHUNK]:
                file.seek(at)
                some.update(filter(None, [self._llm.read(file.readline(), style)]))
            await self._settle(batch, some)
        await self.enter_rest(batch, missing)

    async def enter_rest(self, batch: Batch, error: RequestError) -> None:
        """Enter that this befell all calls of a batch that are still open."""
        while some := self._open_calls(batch, 0):
            await self._settle(batch, dict.fromkeys(some, error))

    async def release(self, batch: Batch, error: LLMError, after: int = 0) -> None:
        """Let go of calls, from one on, that nobody will answer: they were not sent, for nothing.

        Their prompts are the run's, for another batch.
        """
        told = RequestError(error.faults[0].rule, found=error.faults[0].found)
        while some := self._open_calls(batch, after):
            await self._enter(batch, dict.fromkeys(some, told), _not_sent)

    def check_stop(self) -> None:
        """Go no further when the run is to stop.

        Raises:
            StoppedError: it is.
        """
        if self._stop.is_set():
            raise StoppedError

    def raise_if_hopeless(self) -> None:
        """Stop a run that goes on in vain.

        Raises:
            LLMError: lines said that no call can succeed, or many failed and none did succeed.
        """
        if self._fatal is not None:
            raise self._fatal
        if self.report.asked or self._lost < _HOPELESS_AFTER:
            return
        raise LLMError(
            "some calls succeed",
            found=f"the first {self._lost} prompts all failed, one of them: "
            f"{self.report.failures[-1].error}",
            mend="try one prompt by hand against this server and model",
        )

    def _open_calls(self, batch: Batch, after: int) -> list[int]:
        found = batches.calls_of(self._run.ledger.rows, batch.id, after, _CHUNK)
        return [claim.call for claim, _ in found]

    def _style(self, batch: Batch) -> Style:
        return Style.of(batch.style) or self._llm.style

    async def _settle(self, batch: Batch, outcomes: Mapping[int, Outcome]) -> None:
        self.check_stop()
        await self._enter(batch, outcomes, self._decide)

    async def _enter(
        self,
        batch: Batch,
        outcomes: Mapping[int, Outcome],
        decide: Callable[[Request, Claim, Outcome], Settlement],
    ) -> None:
        entry = partial(
            batches.settle,
            batch=batch.id,
            outcomes=outcomes,
            decide=decide,
            now=self._run.ledger.now(),
        )
        for request, done in await self._scribe.do(entry):
            self.count(request, done)
            if done.state == "planned":
                self.again.append(done.claim.key)
            elif batch.id in self.adopted:
                self.dealt_with.add(done.claim.key)

    def count(self, request: Request, done: Settlement) -> None:
        """Count what is on disk."""
        self._run.heed(request, done)
        fault = str(done.error) if done.error else done.verdict.fault
        self.report = counted(self.report, done, Failure(request.kind, request.owner, fault))
        self._lost += int(done.state in ("failed", "quarantined"))

    def _decide(self, request: Request, claim: Claim, outcome: Outcome) -> Settlement:
        terms = self._run.terms
        if isinstance(outcome, Answer):
            return settle_answer(request, claim, outcome, terms)
        if not isinstance(outcome, RequestError):
            self._fatal, fatal = self._fatal or outcome, outcome
            outcome = RequestError(fatal.faults[0].rule, found=fatal.faults[0].found)
            if isinstance(fatal, QuotaError):
                return _not_sent(request, claim, outcome)
        tries = self._tries.setdefault(claim.key, Tries())
        done, wait_s = settle_error(request, claim, outcome, terms, tries, is_proven=True)
        self.wait_s = max(self.wait_s, wait_s, outcome.wait_s or 0.0)
        return done


def _not_sent(_request: Request, claim: Claim, outcome: Outcome) -> Settlement:
    told = outcome if isinstance(outcome, RequestError) else None
    return Settlement(claim=claim, state="planned", error=told, draft=claim.draft)


def _is_reply(outcome: Outcome, factors: tuple[str, ...]) -> bool:
    """Whether the model answered in the form asked for, or in vain."""
    if isinstance(outcome, Answer):
        return has_form(outcome.text, factors)
    return isinstance(outcome, TroubleError) and outcome.was_answered


def _may_be_form(outcome: Outcome, factors: tuple[str, ...]) -> bool:
    if isinstance(outcome, Answer):  # another form than was asked for: that one is ignored
        return not has_form(outcome.text, factors)
    return isinstance(outcome, TroubleError) and outcome.may_be_form
