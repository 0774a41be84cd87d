"""Collects the results of a batch: parses its files, records and counts each outcome."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from reki_feast.errors import LLMError
from reki_feast.llm.batch import records as batches
from reki_feast.llm.batch.client import OpenAIBatchLLM
from reki_feast.llm.batch.records import BatchRecord, LineOutcome
from reki_feast.llm.budget import QuotaError
from reki_feast.llm.dialect import Dialect
from reki_feast.llm.interface import Answer, Request, RequestError
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.ledger.records import CallOutcome, Lease
from reki_feast.llm.policy import RetryState, outcome_of_answer, outcome_of_error
from reki_feast.llm.report import Failure, RunReport, with_call
from reki_feast.llm.responses import is_object_with
from reki_feast.llm.run import Run
from reki_feast.llm.wire import CallError

#: Calls entered in one transaction.
_CHUNK = 200
#: So many prompts that failed, and none answered, stop a run.
_HOPELESS_AFTER = 8


class StoppedError(Exception):
    """The run is to stop at once."""


@dataclass(frozen=True)
class BatchContents:
    """The content of a batch's result files.

    Attributes:
        lines: calls and where their lines begin; in the order of the ledger, which is quicker to
            write in it than in the server's.
        unreadable: lines that tell nothing.
    """

    lines: Sequence[tuple[int, int]]
    unreadable: int


class Collector:
    """Records the outcomes of calls; one event loop, so no locks.

    Args:
        run: the run, opened.
        llm: its model.
        writer: writes into the ledger.
        stop: set when the run is to stop at once.

    Attributes:
        report: the run so far.
        again: keys of prompts that go into another batch.
        wait_s: seconds to wait before that.
        adopted: ids of batches that an earlier run had made.
        settled_keys: keys of prompts of these that are settled for good.
    """

    def __init__(
        self, run: Run, llm: OpenAIBatchLLM, writer: GroupCommitWriter, stop: asyncio.Event
    ) -> None:
        self.report = RunReport()
        self.again: deque[str] = deque()
        self.wait_s = 0.0
        self.adopted: set[str] = set()
        self.settled_keys: set[str] = set()
        self._run, self._llm, self._writer = run, llm, writer
        self._stop = stop
        self._retries: dict[str, RetryState] = {}
        self._fatal_error: LLMError | None = None
        self._lost = 0

    async def scan(self, batch: BatchRecord, file: IO[bytes]) -> BatchContents:
        """Scan the result files of a batch before anything is recorded.

        The model learns whether any answer came in the response format that was asked for.

        Args:
            batch: the batch.
            file: its output and its error file, one after the other.
        """
        dialect, lines, unreadable = self._dialect(batch), dict[int, int](), 0
        has_answers = has_format_errors = False
        chunk = batches.open_calls_of(self._run.ledger.rows, batch.id, 0, 1)
        factors = chunk[0][1].factors if chunk else ()
        at = file.seek(0)
        for number, raw in enumerate(file):
            found = self._llm.read(raw, dialect)
            unreadable += int(found is None and bool(raw.strip()))
            if found is not None:
                call, outcome = found
                lines.setdefault(call, at)
                has_answers = has_answers or _is_reply(outcome, factors)
                has_format_errors = has_format_errors or _may_be_form(outcome, factors)
            at += len(raw)
            if number % _CHUNK == 0:
                self.raise_if_stopped()
                await asyncio.sleep(0)
        self._llm.observe(dialect, has_answers=has_answers, has_format_errors=has_format_errors)
        return BatchContents(sorted(lines.items()), unreadable)

    async def enter(
        self, batch: BatchRecord, file: IO[bytes], found: BatchContents, missing: RequestError
    ) -> None:
        """Record the outcomes in the result files of a batch.

        Args:
            batch: the batch; its calls that are settled already are left alone.
            file: its output and its error file, one after the other.
            found: where in it is what.
            missing: what befell the calls that no line tells of.
        """
        dialect = self._dialect(batch)
        for start in range(0, len(found.lines), _CHUNK):
            chunk: dict[int, LineOutcome] = {}
            for _, at in found.lines[start : start + _CHUNK]:
                file.seek(at)
                chunk.update(filter(None, [self._llm.read(file.readline(), dialect)]))
            await self._settle(batch, chunk)
        await self.record_missing(batch, missing)

    async def record_missing(self, batch: BatchRecord, error: RequestError) -> None:
        """Record an error for all calls of a batch that are still open."""
        while chunk := self._open_calls(batch, 0):
            await self._settle(batch, dict.fromkeys(chunk, error))

    async def release(self, batch: BatchRecord, error: LLMError, after: int = 0) -> None:
        """Release open calls, from one on: they were not sent, and cost nothing.

        Their prompts may go into another batch.
        """
        request_error = RequestError(error.problems[0].problem, detail=error.problems[0].detail)
        while chunk := self._open_calls(batch, after):
            await self._enter(batch, dict.fromkeys(chunk, request_error), _not_sent)

    def raise_if_stopped(self) -> None:
        """Check whether the run is to stop.

        Raises:
            StoppedError: it is.
        """
        if self._stop.is_set():
            raise StoppedError

    def raise_if_all_failed(self) -> None:
        """Stop a run in which no call can succeed.

        Raises:
            LLMError: lines said that no call can succeed, or many failed and none did succeed.
        """
        if self._fatal_error is not None:
            raise self._fatal_error
        if self.report.asked or self._lost < _HOPELESS_AFTER:
            return
        raise LLMError(
            "some calls succeed",
            detail=f"the first {self._lost} prompts all failed, one of them: "
            f"{self.report.failures[-1].error}",
            hint="try one prompt by hand against this server and model",
        )

    def _open_calls(self, batch: BatchRecord, after: int) -> list[int]:
        found = batches.open_calls_of(self._run.ledger.rows, batch.id, after, _CHUNK)
        return [lease.call for lease, _ in found]

    def _dialect(self, batch: BatchRecord) -> Dialect:
        return Dialect.of(batch.dialect) or self._llm.dialect

    async def _settle(self, batch: BatchRecord, outcomes: Mapping[int, LineOutcome]) -> None:
        self.raise_if_stopped()
        await self._enter(batch, outcomes, self._decide)

    async def _enter(
        self,
        batch: BatchRecord,
        outcomes: Mapping[int, LineOutcome],
        decide: Callable[[Request, Lease, LineOutcome], CallOutcome],
    ) -> None:
        entry = partial(
            batches.record_outcomes,
            batch=batch.id,
            outcomes=outcomes,
            decide=decide,
            now=self._run.ledger.now(),
        )
        for request, done in await self._writer.do(entry):
            self.count(request, done)
            if done.state == "planned":
                self.again.append(done.lease.key)
            elif batch.id in self.adopted:
                self.settled_keys.add(done.lease.key)

    def count(self, request: Request, done: CallOutcome) -> None:
        """Count what is on disk."""
        self._run.observe(request, done)
        fault = str(done.error) if done.error else done.verdict.fault
        self.report = with_call(self.report, done, Failure(request.kind, request.owner, fault))
        self._lost += int(done.state in ("failed", "quarantined"))

    def _decide(self, request: Request, lease: Lease, outcome: LineOutcome) -> CallOutcome:
        policy = self._run.policy
        if isinstance(outcome, Answer):
            return outcome_of_answer(request, lease, outcome, policy)
        if not isinstance(outcome, RequestError):
            self._fatal_error, fatal = self._fatal_error or outcome, outcome
            outcome = RequestError(fatal.problems[0].problem, detail=fatal.problems[0].detail)
            if isinstance(fatal, QuotaError):
                return _not_sent(request, lease, outcome)
        retries = self._retries.setdefault(lease.key, RetryState())
        done, wait_s = outcome_of_error(request, lease, outcome, policy, retries, is_reachable=True)
        self.wait_s = max(self.wait_s, wait_s, outcome.wait_s or 0.0)
        return done


def _not_sent(_request: Request, lease: Lease, outcome: LineOutcome) -> CallOutcome:
    request_error = outcome if isinstance(outcome, RequestError) else None
    return CallOutcome(lease=lease, state="planned", error=request_error, draft=lease.draft)


def _is_reply(outcome: LineOutcome, factors: tuple[str, ...]) -> bool:
    """Whether the model answered in the form asked for, or in vain."""
    if isinstance(outcome, Answer):
        return is_object_with(outcome.text, factors)
    return isinstance(outcome, CallError) and outcome.was_answered


def _may_be_form(outcome: LineOutcome, factors: tuple[str, ...]) -> bool:
    if isinstance(outcome, Answer):  # another form than was asked for: that one is ignored
        return not is_object_with(outcome.text, factors)
    return isinstance(outcome, CallError) and outcome.may_be_format
