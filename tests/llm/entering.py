"""What tests enter into a ledger, in short: requests, runs, claims, settlements."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from reki_feast.llm import Answer, EchoLLM, Ledger, Request, RequestError, Spent, Verdict
from reki_feast.llm.interface import FailedReply, call_key
from reki_feast.llm.ledger import leases, outcomes, runs
from reki_feast.llm.ledger.processes import this_process
from reki_feast.llm.ledger.records import CallOutcome, Lease, LeaseDenied, RunIdentity
from reki_feast.schema import PROMPTS, content_hash

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
LLM = EchoLLM()
#: A process of this machine that is gone.
DEAD = f"{socket.gethostname()} 1 never"
#: A process of another machine: only whether it was seen of late can be known.
ELSEWHERE = "another-machine 7 1"


class Clock:
    """A ledger's clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = AS_OF

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def request(n: int = 0, **more: Any) -> Request:
    prompt = f"prompt {n}"
    made = Request("", prompt, ("genre",), "", "item", "knowledge", str(n), AS_OF)
    return replace(made, prompt_hash=content_hash("", prompt, "genre"), **more)


def requests(count: int) -> Iterator[Request]:
    return (request(n) for n in range(count))


def prompts(*asked: Request) -> pa.Table:
    names = ("kind", "channel", "owner", "system", "prompt", "prompt_hash", "event_timestamp")
    rows = [
        {
            **{name: getattr(one, name) for name in names},
            "grouped": False,
            "factors": list(one.factors),
            "facts": list(one.facts),
        }
        for one in asked
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def key_of(asked: Request, llm: EchoLLM = LLM) -> str:
    return call_key(asked.prompt_hash, llm.name, llm.parameters)


def begin(
    ledger: Ledger, run: str = "run", *, process: str = "", llm: EchoLLM = LLM, **more: Any
) -> RunIdentity:
    """Enter a run."""
    identity = RunIdentity(run, llm.name, llm.parameters, **more)
    process = process or this_process()
    ledger.do([partial(runs.start_run, identity=identity, process=process, now=ledger.now())])
    return identity


def end(ledger: Ledger, identity: RunIdentity, outcome: str = "done") -> None:
    ledger.do([partial(runs.end_run, run=identity.run, outcome=outcome, now=ledger.now())])


def kill(ledger: Ledger, identity: RunIdentity) -> None:
    """Let the run's process be gone, without a word."""
    query = "UPDATE runs SET process = ? WHERE id = ?"
    ledger.do([lambda connection: connection.execute(query, (DEAD, identity.run))])


def acquire(
    ledger: Ledger, identity: RunIdentity, asked: Request, worst_case: Spent | None = None
) -> Lease | LeaseDenied:
    key = call_key(asked.prompt_hash, identity.llm, identity.parameters)
    wanted = leases.LeaseRequest(key, asked, lambda request: worst_case or Spent(1))
    entry = partial(leases.acquire, identity=identity, wanted=wanted, now=ledger.now())
    got: Lease | LeaseDenied = ledger.do([entry])[0]
    return got


def leased(
    ledger: Ledger,
    identity: RunIdentity,
    asked: Request | None = None,
    worst_case: Spent | None = None,
) -> Lease:
    """A claim that is not refused."""
    got = acquire(ledger, identity, asked or request(), worst_case)
    assert isinstance(got, Lease), got
    return got


def refused(ledger: Ledger, identity: RunIdentity, asked: Request | None = None) -> str:
    """Why a claim is refused."""
    got = acquire(ledger, identity, asked or request())
    assert isinstance(got, LeaseDenied), got
    return got.why


def settle(ledger: Ledger, done: CallOutcome) -> None:
    ledger.do([partial(outcomes.record_outcome, done=done, now=ledger.now())])


def good(won: Lease, answer: Answer, **verdict: Any) -> CallOutcome:
    """An answer that becomes the prompt's."""
    return _said(won, answer, Verdict(**verdict), state="answered", keep=answer.text)


def bad(won: Lease, answer: Answer, gate: str = "language", *, again: bool = False) -> CallOutcome:
    """An answer that fails a gate."""
    verdict = Verdict(gate, f"it fails {gate}", coverage=0.25)
    return _said(won, answer, verdict, state="planned" if again else "quarantined")


def failed(
    won: Lease,
    error: RequestError | None = None,
    *,
    again: bool = False,
    spent: Spent | None = None,
) -> CallOutcome:
    """No answer came."""
    spent = spent or Spent()
    return CallOutcome(
        lease=won,
        state="planned" if again else "failed",
        error=error
        or RequestError("the server answers the call", detail="503", reply=FailedReply(503)),
        spent=spent,
        prompt_tokens=spent.tokens,
    )


def record(ledger: Ledger, identity: RunIdentity, asked: Request, answer: Answer) -> None:
    """Lease a prompt and answer it."""
    settle(ledger, good(leased(ledger, identity, asked), answer))


def _said(won: Lease, answer: Answer, verdict: Verdict, **more: Any) -> CallOutcome:
    tokens = answer.prompt_tokens + answer.completion_tokens
    return CallOutcome(
        lease=won,
        answer=answer,
        verdict=verdict,
        spent=Spent(1, tokens, tokens / 1e6),
        prompt_tokens=answer.prompt_tokens,
        **more,
    )
