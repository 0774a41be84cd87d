"""Asking many requests: bounded concurrency, bounded memory, nothing paid for twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from reki_feast.errors import LLMError
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.port import LLM, Answer, Request, RequestError, call_key

#: A run in which this many calls failed and none succeeded is stopped.
HOPELESS_AFTER = 8
#: How many failures a report quotes.
_QUOTED = 5
#: Seconds that calls in flight get to end when the run stops because of another.
_GRACE_S = 5.0
#: Requests answered from the ledger between two turns of the event loop.
_TURN = 256


@dataclass(frozen=True)
class Failure:
    """One request that got no usable answer."""

    kind: str
    owner: str
    error: str


@dataclass(frozen=True)
class RunReport:
    """What a run did, so far or in all.

    Attributes:
        asked: requests the model answered.
        reused: requests whose answer the ledger had.
        repeated: requests whose very prompt came earlier in this run.
        failed: requests that got no usable answer.
        prompt_tokens: tokens paid for questions, as the server counts them.
        completion_tokens: tokens paid for answers, as the server counts them.
        seconds: time the run took.
        failures: the first few failures.
    """

    asked: int = 0
    reused: int = 0
    repeated: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()

    @property
    def done(self) -> int:
        """Requests dealt with, one way or another."""
        return self.asked + self.reused + self.repeated + self.failed

    @property
    def tokens(self) -> int:
        """All tokens paid for in this run."""
        return self.prompt_tokens + self.completion_tokens


Progress = Callable[[RunReport], None]


def ask_all(
    requests: Iterable[Request],
    llm: LLM,
    ledger: Ledger,
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """Ask every request that the ledger has no answer to; returns when all are dealt with.

    Runs an event loop of its own, in a thread of its own where one runs already (a notebook).

    Args:
        requests: taken one by one, as calls become free.
        llm: the model; its connections are closed at the end.
        ledger: every answer is in it before it counts here.
        concurrency: calls in flight at once, at least 1.
        progress: called with the report so far after each request.
        clock: seconds, for the report.

    Raises:
        LLMError: no call can succeed (wrong key, wrong url, …), or the ledger cannot be written.
            What was answered until then is in the ledger.
    """

    async def whole() -> RunReport:
        try:
            return await ask_all_async(
                requests, llm, ledger, concurrency=concurrency, progress=progress, clock=clock
            )
        finally:
            await llm.aclose()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, whole()).result()


async def ask_all_async(
    requests: Iterable[Request],
    llm: LLM,
    ledger: Ledger,
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunReport:
    """:func:`ask_all` for a caller with an event loop; the caller closes the model."""
    if concurrency < 1:
        raise LLMError("concurrency is at least 1", found=str(concurrency), mend="use 8")
    run = _Run(iter(requests), llm, ledger, progress, clock)
    workers = [asyncio.create_task(run.work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    except Exception:
        run.stopping = True
        await asyncio.wait(workers, timeout=_GRACE_S)
        raise
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return run.report()


@dataclass
class _Run:
    """The state that the workers of one run share; one event loop, so no locks."""

    requests: Iterable[Request]
    llm: LLM
    ledger: Ledger
    progress: Progress | None
    clock: Callable[[], float]
    stopping: bool = False
    asked: int = 0
    reused: int = 0
    repeated: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: list[Failure] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    async def work(self) -> None:
        """Take requests until there are none; every worker draws from the same iterator."""
        for request in self.requests:
            if self._is_known(request):
                if (self.reused + self.repeated) % _TURN == 0:
                    await asyncio.sleep(0)
            else:
                await self._ask(request)
            self._tell()
            if self.stopping:
                return

    def report(self) -> RunReport:
        """The run so far."""
        return RunReport(
            asked=self.asked,
            reused=self.reused,
            repeated=self.repeated,
            failed=self.failed,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            seconds=self.clock() - self.begun,
            failures=tuple(self.failures),
        )

    def _is_known(self, request: Request) -> bool:
        key = call_key(request.prompt_hash, self.llm.name, self.llm.parameters)
        raw = bytes.fromhex(key)
        if raw in self.seen:
            self.repeated += 1
            return True
        self.seen.add(raw)
        if self.ledger.answered(key) is not None:
            self.reused += 1
            return True
        return False

    async def _ask(self, request: Request) -> None:
        try:
            answer = await self.llm.ask(request)
        except RequestError as error:
            self.ledger.record_failure(request, self.llm, error)
            self._count_failure(request, error)
        else:
            self.ledger.record_answer(request, self.llm, answer)
            self._count_answer(answer)

    def _count_answer(self, answer: Answer) -> None:
        self.asked += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    def _count_failure(self, request: Request, error: RequestError) -> None:
        self.failed += 1
        self.prompt_tokens += error.prompt_tokens
        self.completion_tokens += error.completion_tokens
        if len(self.failures) < _QUOTED:
            self.failures.append(Failure(request.kind, request.owner, str(error)))
        if not self.asked and self.failed >= HOPELESS_AFTER and not self.stopping:
            first = error.faults[0]
            raise LLMError(
                "some calls succeed",
                found=f"the first {self.failed} calls all failed, the last: {first.rule}"
                + (f" ({first.found})" if first.found else ""),
                mend=first.mend or "try one prompt by hand against this server and model",
            ) from error

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.report())
