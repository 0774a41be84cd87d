"""What a run did, so far or in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

from reki_feast.llm.ledger.records import CallOutcome

#: How many failures a report quotes.
_QUOTED = 5


@dataclass(frozen=True)
class Failure:
    """One request that got no usable answer."""

    kind: str
    owner: str
    error: str


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        asked: requests that the model answered, and whose answers passed the gates.
        reused: requests whose answer the ledger had.
        repeated: requests whose very prompt came earlier in this run.
        failed: requests that the server was at fault with.
        quarantined: requests whose answers failed a gate, in this run or an earlier one.
        in_batch: requests that an open batch holds.
        re_prompted: answers that failed a gate and were asked for again.
        retried: calls that failed, and whose prompts were sent again.
        calls: calls that counted.
        prompt_tokens: tokens paid for questions, as the server counts them.
        completion_tokens: tokens paid for answers, as the server counts them.
        cost: money, where the price is known.
        seconds: time the run took.
        batches: batches that are open at the server.
        batch_done: requests that the server has dealt with in these.
        failures: the first few failures.
        notes: what the user should know of the answers, a sentence each.
        stopped: ``budget``, ``quota`` (the server's) or ``interrupted`` when the run ended before
            its time, else "".
        limit: the limit that stopped it, or what the server said of its quota.
        server: what the server said last, while it keeps the run waiting.
    """

    asked: int = 0
    reused: int = 0
    repeated: int = 0
    failed: int = 0
    quarantined: int = 0
    in_batch: int = 0
    re_prompted: int = 0
    retried: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    batches: int = 0
    batch_done: int = 0
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: Literal["", "budget", "quota", "interrupted"] = ""
    limit: str = ""
    server: str = ""

    @property
    def done(self) -> int:
        """Requests dealt with, one way or another."""
        settled = self.asked + self.failed + self.quarantined
        return settled + self.reused + self.repeated + self.in_batch

    @property
    def tokens(self) -> int:
        """All tokens paid for in this run."""
        return self.prompt_tokens + self.completion_tokens


_SUMMED = [one.name for one in fields(RunReport) if one.type in ("int", "float")]

#: Called with the report so far after each request.
Progress = Callable[[RunReport], None]


def with_call(report: RunReport, done: CallOutcome, failure: Failure) -> RunReport:
    """The report with one more call."""
    spent = done.spent
    made = replace(
        report,
        calls=report.calls + spent.calls,
        prompt_tokens=report.prompt_tokens + done.prompt_tokens,
        completion_tokens=report.completion_tokens + spent.tokens - done.prompt_tokens,
        cost=report.cost + spent.cost,
    )
    if done.state == "answered":
        return replace(made, asked=made.asked + 1)
    if done.state == "planned":
        name = "re_prompted" if done.verdict.gate else "retried"
        return replace(made, **{name: getattr(made, name) + 1})
    quoted = made.failures if len(made.failures) >= _QUOTED else (*made.failures, failure)
    name = "failed" if done.state == "failed" else "quarantined"
    return replace(made, failures=quoted, **{name: getattr(made, name) + 1})


def merged(one: RunReport, other: RunReport) -> RunReport:
    """Two parts of a run as one."""
    sums = {name: getattr(one, name) + getattr(other, name) for name in _SUMMED}
    return RunReport(
        **sums,
        failures=(*one.failures, *other.failures)[:_QUOTED],
        notes=tuple(dict.fromkeys((*one.notes, *other.notes))),
        stopped=other.stopped or one.stopped,
        limit=other.limit or one.limit,
    )
