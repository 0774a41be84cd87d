"""The way of one batch: to the server, through its states there, and back.

Each step is in the ledger before the next one is made (:mod:`reki_feast.llm.batch.entries`), so a
run killed anywhere goes on where it was. Only one step can be made without being known: between the
server's word that it has begun and its entry. There the server is asked what it has, before
anything is submitted a second time.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import IO, Any, TypeVar

from reki_feast.errors import LLMError
from reki_feast.llm.batch import entries as batches
from reki_feast.llm.batch.collecting import Collector, Found, StoppedError
from reki_feast.llm.batch.entries import Batch
from reki_feast.llm.batch.remote import LateFileError, OpenAIBatchLLM, Remote
from reki_feast.llm.batch.shipped import Shipped
from reki_feast.llm.ledger.scribe import Scribe
from reki_feast.llm.notices import Notices, told
from reki_feast.llm.port import RequestError
from reki_feast.llm.run import Run
from reki_feast.llm.style import Style
from reki_feast.llm.terms import to_send
from reki_feast.llm.wire import GoneError

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
_TRIES_GARBLED = 3
#: The server's queue is full: what it holds must be done first, or the batch be smaller.
_CROWDED = "token_limit_exceeded"

T = TypeVar("T")


class Shipping:
    """The open batches of one run; one event loop, so no locks.

    Args:
        run: the run, opened.
        llm: its model.
        scribe: writes into the ledger.
        collector: enters what comes back.
        stop: set when the run is to stop at once.

    Attributes:
        open: the batches.
        most_calls: calls that a batch may have.
        most_open: batches that the server has room for; None: any number, as far as is known.
        not_before: when the next batch may be made, in seconds of the loop.
    """

    def __init__(
        self,
        run: Run,
        llm: OpenAIBatchLLM,
        scribe: Scribe,
        collector: Collector,
        stop: asyncio.Event,
    ) -> None:
        self.open: list[Shipped] = []
        self.most_calls = llm.max_requests
        self.most_open: int | None = None
        self.not_before = 0.0
        self._run, self._llm, self._scribe = run, llm, scribe
        self._collector, self._stop = collector, stop
        self._notices = Notices()

    @property
    def has_room(self) -> bool:
        """Whether another batch may be made: the server has accepted all there are."""
        is_full = self.most_open is not None and len(self.open) >= self.most_open
        is_early = loop_time() < self.not_before
        return not is_full and not is_early and not any(one.is_pending for one in self.open)

    @property
    def there(self) -> list[Shipped]:
        """Batches that the server has."""
        return [one for one in self.open if one.is_there]

    async def go_on(self) -> None:
        """Bring each batch that it is time for one step on.

        Raises:
            StoppedError: the run is to stop.
            LLMError: no batch can succeed.
        """
        for one in [one for one in self.open if one.due <= loop_time()]:
            await self._step(one)

    async def dissolve_unsent(self) -> None:
        """Free the prompts of batches of which the server has nothing."""
        error = LLMError("the batch is sent", found="the run was stopped before")
        for one in [one for one in self.open if one.entry.state == "written"]:
            await self._dissolve(one, error)

    async def _step(self, one: Shipped) -> None:
        steps = {"written": self._upload, "uploaded": self._submit, "submitted": self._look}
        try:
            await steps[one.entry.state](one)
        except RequestError as error:
            await self._met(one, error)
        else:
            one.faults = 0
            if not one.late:
                self._notices.answered()

    async def _met(self, one: Shipped, error: RequestError) -> None:
        """A step did not succeed: it is made again, unless that has no hope."""
        is_refused = not error.again and (one.is_new or one.entry.state == "written")
        if is_refused:
            await self._dissolve(one, error)
            raise error
        one.faults, one.is_new = one.faults + 1, False
        terms = self._run.terms
        if one.faults >= terms.attempts * (_PATIENCE if one.is_there else 1):
            raise error
        pause = min(_PAUSE_MAX_S, terms.backoff_s * 2.0 ** (one.faults - 1))
        self._put_off_by((error.wait_s or 0.0) + pause * random.uniform(0.5, 1.0), one, told(error))

    def _put_off_by(self, seconds: float, one: Shipped, why: str) -> None:
        now = loop_time()
        one.due = now + seconds
        self._notices.wait(seconds, why, now)

    def _may_be_late(self, one: Shipped, error: LLMError) -> bool:
        """Whether what the server does not know of may only be late: it is asked again, then."""
        if not one.is_patient(loop_time(), self._llm.file_wait_s):
            return False
        pause = min(_PAUSE_LATE_S, self._run.terms.backoff_s * 2.0 ** min(one.late, 30))
        self._put_off_by(pause, one, error.faults[0].found)
        return True

    async def _upload(self, one: Shipped) -> None:
        style = self._llm.style
        with tempfile.TemporaryFile() as file:
            await self._write(one, style, file)
            name = await self._unless_stopped(self._llm.upload(file, one.entry.id))
        one.is_new = True
        await self._enter(one, state="uploaded", file=name, style=str(style))

    async def _write(self, one: Shipped, style: Style, file: IO[bytes]) -> None:
        """Write the lines of a batch, from the ledger."""
        last, size, rows = 0, 0, self._run.ledger.rows
        while some := batches.calls_of(rows, one.entry.id, last, _CHUNK):
            for claim, request in some:
                line = self._llm.line(claim.call, to_send(request, claim), style)
                size += len(line)
                if size > self._llm.max_bytes:  # the scenario was changed since it was filled
                    rest = LLMError("the batch has room for the request", found="it had before")
                    await self._collector.release(one.entry, rest, after=last)
                    break
                file.write(line)
                last = claim.call
            await asyncio.sleep(0)
            self._collector.check_stop()
        file.seek(0)

    async def _submit(self, one: Shipped) -> None:
        if self.most_open is not None and len(self.there) >= self.most_open:
            one.due = loop_time() + self._llm.poll_s
            return
        batch, remote = one.entry, None
        if not one.is_new:
            remote = await self._unless_stopped(self._llm.find(batch.id, batch.file))
            one.is_new = remote is None
        one.was_alone = not self.there
        if remote is None:
            try:
                remote = await self._unless_stopped(self._llm.submit(batch.id, batch.file))
            except LateFileError as error:
                if self._may_be_late(one, error):
                    return
                raise
        one.looks, one.is_new = 0, False
        await self._enter(one, state="submitted", remote=remote.id, status=remote.status)
        self._put_off(one)

    async def _look(self, one: Shipped) -> None:
        try:
            remote = await self._unless_stopped(self._llm.look(one.entry.remote))
        except GoneError as error:
            if self._may_be_late(one, error):
                return
            raise _of_batch(error, one.entry) from None
        one.done = remote.done
        if remote.status != one.entry.status:
            await self._enter(one, status=remote.status)
        if remote.is_over and (remote.files or remote.status != "failed"):
            await self._collect(one, remote)
        elif remote.is_over:
            await self._failed(one, remote)
        else:
            one.late = one.late if one.is_pending else 0
            self._put_off(one)

    def _put_off(self, one: Shipped) -> None:
        """The next look comes later than this one did: small batches are quick."""
        one.due = loop_time() + min(self._llm.poll_s, _FIRST_LOOK_S * 2.0**one.looks)
        one.looks = min(one.looks + 1, 30)

    async def _collect(self, one: Shipped, remote: Remote) -> None:
        """Enter all that came of a batch, also where the server has but one of its files left."""
        missing = _missing(
            LLMError("the batch brings every line back", found=f"it is {remote.status}"),
            is_paid=remote.status == "completed",
        )
        with tempfile.TemporaryFile() as file:
            for name in remote.files:
                try:
                    await self._unless_stopped(self._llm.download(name, file))
                except GoneError as error:
                    if self._may_be_late(one, error):
                        return
                    missing = _missing(error, is_paid=True)
            found = await self._survey(one, file)
            await self._collector.enter(one.entry, file, found, missing)
        await self._close(one)
        self.not_before = max(self.not_before, loop_time() + self._collector.wait_s)
        self._collector.wait_s = 0.0
        self._collector.raise_if_hopeless()

    async def _survey(self, one: Shipped, file: IO[bytes]) -> Found:
        """What cannot be read may have been garbled on its way: it is fetched once more."""
        found = await self._collector.survey(one.entry, file)
        if found.unreadable and one.faults < _TRIES_GARBLED:
            raise RequestError(
                "every line of a batch's files is a reply",
                found=f"{found.unreadable} lines are not",
                again=True,
            )
        return found

    async def _failed(self, one: Shipped, remote: Remote) -> None:
        """The server refused a batch as a whole, and did nothing for it."""
        error = LLMError(
            "the server accepts the batch",
            found=remote.faults or "it failed, and no reason is given",
            mend="mend what it says and run again: nothing was charged for this batch",
        )
        if remote.lacks_file and self._may_be_late(one, error):
            one.is_new = True
            await self._enter(one, state="uploaded")
            return
        is_crowded = _CROWDED in remote.codes
        if is_crowded and not one.was_alone:
            self.most_open, one.is_new = max(1, len(self.there) - 1), True
            await self._enter(one, state="uploaded")
            one.due = loop_time() + self._llm.poll_s
            return
        has_hope = self._llm.heed_failure(Style.of(one.entry.style) or self._llm.style, remote)
        if is_crowded and one.entry.calls > 1:
            self.most_calls, has_hope = one.entry.calls // 2, True
            self.not_before = loop_time() + self._llm.poll_s
        await self._dissolve(one, error)
        if not has_hope:
            raise error

    async def _dissolve(self, one: Shipped, error: LLMError) -> None:
        """Give up a batch that the server does nothing for; its prompts may go into another."""
        await self._collector.release(one.entry, error)
        await self._close(one)

    async def _close(self, one: Shipped) -> None:
        await self._enter(one, state="collected")
        if one in self.open:
            self.open.remove(one)

    async def _enter(self, one: Shipped, **changed: Any) -> None:
        """Enter a step; a batch that is another run's by now is left to that."""
        one.entry = replace(one.entry, **changed)
        run, now = self._run.asker.run, self._run.ledger.now()
        if not await self._scribe.do(partial(batches.enter, batch=one.entry, run=run, now=now)):
            self.open.remove(one)

    async def _unless_stopped(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call to the server; when the run is to stop, its end is not waited for."""
        calling, stopping = asyncio.create_task(call), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({calling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
            raise StoppedError
        finally:
            calling.cancel()
            stopping.cancel()
            await asyncio.gather(calling, stopping, return_exceptions=True)


def loop_time() -> float:
    """Seconds, by the clock that the running loop sleeps by."""
    return asyncio.get_running_loop().time()


def _missing(error: LLMError, *, is_paid: bool) -> RequestError:
    """What befell a call that no line tells of; where it may have been answered, it counts."""
    fault = error.faults[0]
    return RequestError(fault.rule, found=fault.found, mend=fault.mend, again=True, is_lost=is_paid)


def _of_batch(error: LLMError, batch: Batch) -> LLMError:
    fault = error.faults[0]
    found = f"{fault.found} (batch {batch.remote}, made {batch.created:%Y-%m-%d %H:%M})"
    return LLMError(fault.rule, found=found, mend=fault.mend)
