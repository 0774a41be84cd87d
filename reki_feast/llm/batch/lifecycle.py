"""The lifecycle of a batch: uploaded, submitted, polled, collected.

Each step is recorded in the ledger before the next one (:mod:`reki_feast.llm.batch.records`), so a
killed run resumes where it was. Only a submission can be lost, between the server's reply and its
record: the server is asked which batches it has before anything is submitted again.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from dataclasses import replace
from functools import partial
from typing import IO, Any

from reki_feast.errors import LLMError
from reki_feast.llm.batch import records as batches
from reki_feast.llm.batch.call_errors import missing_call, named_batch
from reki_feast.llm.batch.client import OpenAIBatchLLM
from reki_feast.llm.batch.collector import BatchContents, Collector
from reki_feast.llm.batch.remote_batch import LateFileError, RemoteBatch
from reki_feast.llm.batch.tracked import TrackedBatch
from reki_feast.llm.batch.waiting import loop_time, unless_stopped
from reki_feast.llm.dialect import Dialect
from reki_feast.llm.interface import RequestError
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.notices import WaitNotices, error_summary
from reki_feast.llm.policy import request_to_send
from reki_feast.llm.run import Run
from reki_feast.llm.wire import NotFoundError

#: Calls read from the ledger at once.
_CHUNK = 500
#: The first look at a batch comes after so many seconds, each next one after twice as many.
_FIRST_LOOK_S = 1.0
_PAUSE_MAX_S = 60.0
#: The longest pause before the server is asked again for what it must have.
_PAUSE_LATE_S = 30.0
#: What is at the server is not given up lightly: so many times the tries of anything else.
_PATIENCE = 10
#: Times that files with lines that cannot be read are fetched anew.
_ATTEMPTS_GARBLED = 3
#: The server's queue is full: what it holds must be done first, or the batch be smaller.
_CROWDED = "token_limit_exceeded"


class BatchLifecycle:
    """The open batches of one run; one event loop, so no locks.

    Args:
        run: the run, opened.
        llm: its model.
        writer: writes into the ledger.
        collector: enters what comes back.
        stop: set when the run is to stop at once.

    Attributes:
        open: the batches.
        max_calls_per_batch: calls that a batch may have.
        max_open_batches: batches that the server queues at once; None: no limit is known.
        not_before: when the next batch may be made, in seconds of the loop.
    """

    def __init__(
        self,
        run: Run,
        llm: OpenAIBatchLLM,
        writer: GroupCommitWriter,
        collector: Collector,
        stop: asyncio.Event,
    ) -> None:
        self.open: list[TrackedBatch] = []
        self.max_calls_per_batch = llm.batches.max_requests
        self.max_open_batches: int | None = None
        self.not_before = 0.0
        self._run, self._llm, self._writer = run, llm, writer
        self._collector, self._stop = collector, stop
        self._notices = WaitNotices()

    @property
    def has_room(self) -> bool:
        """Whether another batch may be made: the server has accepted all there are."""
        is_full = self.max_open_batches is not None and len(self.open) >= self.max_open_batches
        is_early = loop_time() < self.not_before
        return not is_full and not is_early and not any(one.is_pending for one in self.open)

    @property
    def submitted(self) -> list[TrackedBatch]:
        """Batches that the server has."""
        return [one for one in self.open if one.is_submitted]

    async def advance(self) -> None:
        """Take the next step of each batch that is due.

        Raises:
            StoppedError: the run is to stop.
            LLMError: no batch can succeed.
        """
        for one in [one for one in self.open if one.due_at <= loop_time()]:
            await self._step(one)

    async def release_unsent(self) -> None:
        """Release the prompts of batches that were not uploaded."""
        error = LLMError("the batch is sent", detail="the run was stopped before")
        for one in [one for one in self.open if one.entry.state == "written"]:
            await self._release(one, error)

    async def _step(self, one: TrackedBatch) -> None:
        steps = {"written": self._upload, "uploaded": self._submit, "submitted": self._poll}
        try:
            await steps[one.entry.state](one)
        except RequestError as error:
            await self._handle_error(one, error)
        else:
            one.faults = 0
            if not one.late_count:
                self._notices.answered()

    async def _handle_error(self, one: TrackedBatch, error: RequestError) -> None:
        """A step failed: schedule a retry, or raise if retries cannot help."""
        is_refused = not error.again and (one.is_unsubmitted or one.entry.state == "written")
        if is_refused:
            await self._release(one, error)
            raise error
        one.faults, one.is_unsubmitted = one.faults + 1, False
        policy = self._run.policy
        if one.faults >= policy.attempts * (_PATIENCE if one.is_submitted else 1):
            raise error
        pause = min(_PAUSE_MAX_S, policy.backoff_s * 2.0 ** (one.faults - 1))
        self._postpone(
            (error.wait_s or 0.0) + pause * random.uniform(0.5, 1.0), one, error_summary(error)
        )

    def _postpone(self, seconds: float, one: TrackedBatch, why: str) -> None:
        now = loop_time()
        one.due_at = now + seconds
        self._notices.wait(seconds, why, now)

    def _wait_for_server(self, one: TrackedBatch, error: LLMError) -> bool:
        """Whether something that the server does not know yet may appear; polls again later."""
        if not one.may_wait(loop_time(), self._llm.batches.file_wait_s):
            return False
        pause = min(_PAUSE_LATE_S, self._run.policy.backoff_s * 2.0 ** min(one.late_count, 30))
        self._postpone(pause, one, error.problems[0].detail)
        return True

    async def _upload(self, one: TrackedBatch) -> None:
        dialect = self._llm.dialect
        with tempfile.TemporaryFile() as file:
            await self._write(one, dialect, file)
            name = await unless_stopped(self._llm.upload(file, one.entry.id), self._stop)
        one.is_unsubmitted = True
        await self._enter(one, state="uploaded", file=name, dialect=str(dialect))

    async def _write(self, one: TrackedBatch, dialect: Dialect, file: IO[bytes]) -> None:
        """Write the request lines of a batch, from the ledger."""
        last, size, rows = 0, 0, self._run.ledger.rows
        while chunk := batches.open_calls_of(rows, one.entry.id, last, _CHUNK):
            for lease, request in chunk:
                line = self._llm.line(lease.call, request_to_send(request, lease), dialect)
                size += len(line)
                if (
                    size > self._llm.batches.max_bytes
                ):  # the scenario was changed since it was filled
                    rest = LLMError("the batch has room for the request", detail="it had before")
                    await self._collector.release(one.entry, rest, after=last)
                    break
                file.write(line)
                last = lease.call
            await asyncio.sleep(0)
            self._collector.raise_if_stopped()
        file.seek(0)

    async def _submit(self, one: TrackedBatch) -> None:
        if self.max_open_batches is not None and len(self.submitted) >= self.max_open_batches:
            one.due_at = loop_time() + self._llm.batches.poll_s
            return
        batch, remote = one.entry, None
        if not one.is_unsubmitted:
            remote = await unless_stopped(self._llm.find(batch.id, batch.file), self._stop)
            one.is_unsubmitted = remote is None
        one.was_only_batch = not self.submitted
        if remote is None:
            try:
                remote = await unless_stopped(self._llm.submit(batch.id, batch.file), self._stop)
            except LateFileError as error:
                if self._wait_for_server(one, error):
                    return
                raise
        one.polls, one.is_unsubmitted = 0, False
        await self._enter(one, state="submitted", remote=remote.id, status=remote.status)
        self._schedule_poll(one)

    async def _poll(self, one: TrackedBatch) -> None:
        try:
            remote = await unless_stopped(self._llm.poll(one.entry.remote), self._stop)
        except NotFoundError as error:
            if self._wait_for_server(one, error):
                return
            raise named_batch(error, one.entry) from None
        one.done = remote.done
        if remote.status != one.entry.status:
            await self._enter(one, status=remote.status)
        if remote.is_finished and (remote.files or remote.status != "failed"):
            await self._collect(one, remote)
        elif remote.is_finished:
            await self._failed(one, remote)
        else:
            one.late_count = one.late_count if one.is_pending else 0
            self._schedule_poll(one)

    def _schedule_poll(self, one: TrackedBatch) -> None:
        """Poll again after a growing interval: small batches are quick."""
        one.due_at = loop_time() + min(self._llm.batches.poll_s, _FIRST_LOOK_S * 2.0**one.polls)
        one.polls = min(one.polls + 1, 30)

    async def _collect(self, one: TrackedBatch, remote: RemoteBatch) -> None:
        """Record the results of a batch, even if the server has lost one of its files."""
        missing = missing_call(
            LLMError("the batch brings every line back", detail=f"it is {remote.status}"),
            is_paid=remote.status == "completed",
        )
        with tempfile.TemporaryFile() as file:
            for name in remote.files:
                try:
                    await unless_stopped(self._llm.download(name, file), self._stop)
                except NotFoundError as error:
                    if self._wait_for_server(one, error):
                        return
                    missing = missing_call(error, is_paid=True)
            found = await self._survey(one, file)
            await self._collector.enter(one.entry, file, found, missing)
        await self._close(one)
        self.not_before = max(self.not_before, loop_time() + self._collector.wait_s)
        self._collector.wait_s = 0.0
        self._collector.raise_if_all_failed()

    async def _survey(self, one: TrackedBatch, file: IO[bytes]) -> BatchContents:
        """Scan the results; lines that cannot be parsed may be garbled, so download them again."""
        found = await self._collector.scan(one.entry, file)
        if found.unreadable and one.faults < _ATTEMPTS_GARBLED:
            raise RequestError(
                "every line of a batch's files is a reply",
                detail=f"{found.unreadable} lines are not",
                again=True,
            )
        return found

    async def _failed(self, one: TrackedBatch, remote: RemoteBatch) -> None:
        """The server rejected the whole batch, and processed none of it."""
        error = LLMError(
            "the server accepts the batch",
            detail=remote.error_text or "it failed, and no reason is given",
            hint="fix what it says and run again: nothing was charged for this batch",
        )
        if remote.is_missing_file and self._wait_for_server(one, error):
            one.is_unsubmitted = True
            await self._enter(one, state="uploaded")
            return
        is_crowded = _CROWDED in remote.codes
        if is_crowded and not one.was_only_batch:
            self.max_open_batches, one.is_unsubmitted = max(1, len(self.submitted) - 1), True
            await self._enter(one, state="uploaded")
            one.due_at = loop_time() + self._llm.batches.poll_s
            return
        has_hope = self._llm.observe_failure(
            Dialect.of(one.entry.dialect) or self._llm.dialect, remote
        )
        if is_crowded and one.entry.calls > 1:
            self.max_calls_per_batch, has_hope = one.entry.calls // 2, True
            self.not_before = loop_time() + self._llm.batches.poll_s
        await self._release(one, error)
        if not has_hope:
            raise error

    async def _release(self, one: TrackedBatch, error: LLMError) -> None:
        """Close a batch that the server will not process; its prompts may go into another."""
        await self._collector.release(one.entry, error)
        await self._close(one)

    async def _close(self, one: TrackedBatch) -> None:
        await self._enter(one, state="collected")
        if one in self.open:
            self.open.remove(one)

    async def _enter(self, one: TrackedBatch, **changed: Any) -> None:
        """Record a step; a batch that another run has adopted is left to that run."""
        one.entry = replace(one.entry, **changed)
        run, now = self._run.identity.run, self._run.ledger.now()
        if not await self._writer.do(
            partial(batches.save_batch, batch=one.entry, run=run, now=now)
        ):
            self.open.remove(one)
