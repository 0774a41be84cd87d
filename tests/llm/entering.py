"""What tests enter into a ledger, in short: requests, runs, claims, settlements."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pyarrow as pa

from reki_feast.llm import Answer, EchoLLM, Ledger, Request, RequestError, Spent, Verdict
from reki_feast.llm.ledger import claims, runs, settlements
from reki_feast.llm.ledger.calls import Asker, Claim, NoClaim, Settlement
from reki_feast.llm.ledger.processes import this_process
from reki_feast.llm.port import call_key
from reki_feast.schema import PROMPTS, content_hash

AS_OF = datetime(2026, 1, 1, tzinfo=timezone.utc)
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
) -> Asker:
    """Enter a run."""
    asker = Asker(run, llm.name, llm.parameters, **more)
    process = process or this_process()
    ledger.do([partial(runs.begin_run, asker=asker, process=process, now=ledger.now())])
    return asker


def end(ledger: Ledger, asker: Asker, outcome: str = "done") -> None:
    ledger.do([partial(runs.end_run, run=asker.run, outcome=outcome, now=ledger.now())])


def kill(ledger: Ledger, asker: Asker) -> None:
    """Let the run's process be gone, without a word."""
    query = "UPDATE runs SET process = ? WHERE id = ?"
    ledger.do([lambda connection: connection.execute(query, (DEAD, asker.run))])


def claim(
    ledger: Ledger, asker: Asker, asked: Request, worst: Spent | None = None
) -> Claim | NoClaim:
    entry = partial(
        claims.claim,
        asker=asker,
        key=call_key(asked.prompt_hash, asker.llm, asker.parameters),
        request=asked,
        worst_of=lambda request: worst or Spent(1),
        now=ledger.now(),
    )
    got: Claim | NoClaim = ledger.do([entry])[0]
    return got


def claimed(
    ledger: Ledger, asker: Asker, asked: Request | None = None, worst: Spent | None = None
) -> Claim:
    """A claim that is not refused."""
    got = claim(ledger, asker, asked or request(), worst)
    assert isinstance(got, Claim), got
    return got


def refused(ledger: Ledger, asker: Asker, asked: Request | None = None) -> str:
    """Why a claim is refused."""
    got = claim(ledger, asker, asked or request())
    assert isinstance(got, NoClaim), got
    return got.why


def settle(ledger: Ledger, done: Settlement) -> None:
    ledger.do([partial(settlements.settle, done=done, now=ledger.now())])


def good(won: Claim, answer: Answer, **verdict: Any) -> Settlement:
    """An answer that becomes the prompt's."""
    return _said(won, answer, Verdict(**verdict), state="answered", keep=answer.text)


def bad(won: Claim, answer: Answer, gate: str = "language", *, again: bool = False) -> Settlement:
    """An answer that fails a gate."""
    verdict = Verdict(gate, f"it fails {gate}", coverage=0.25)
    return _said(won, answer, verdict, state="planned" if again else "quarantined")


def failed(
    won: Claim,
    error: RequestError | None = None,
    *,
    again: bool = False,
    spent: Spent | None = None,
) -> Settlement:
    """No answer came."""
    spent = spent or Spent()
    return Settlement(
        claim=won,
        state="planned" if again else "failed",
        error=error or RequestError("the server answers the call", found="503", status=503),
        spent=spent,
        prompt_tokens=spent.tokens,
    )


def record(ledger: Ledger, asker: Asker, asked: Request, answer: Answer) -> None:
    """Claim a prompt and answer it."""
    settle(ledger, good(claimed(ledger, asker, asked), answer))


def _said(won: Claim, answer: Answer, verdict: Verdict, **more: Any) -> Settlement:
    tokens = answer.prompt_tokens + answer.completion_tokens
    return Settlement(
        claim=won,
        answer=answer,
        verdict=verdict,
        spent=Spent(1, tokens, tokens / 1e6),
        prompt_tokens=answer.prompt_tokens,
        **more,
    )
