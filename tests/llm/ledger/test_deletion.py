"""Prompts that are forgotten: their words are gone to the byte, their money is not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, Ledger, RequestError, Spent
from reki_feast.llm.interface import FailedReply
from reki_feast.llm.ledger import invariants
from reki_feast.llm.ledger.deletion import DeletedPrompts, delete_prompts, prompts_of
from tests.llm.entering import (
    acquire,
    bad,
    begin,
    end,
    failed,
    good,
    key_of,
    kill,
    leased,
    record,
    request,
    settle,
)

ANSWER = Answer("a secret answer", "m", "stop", prompt_tokens=30, completion_tokens=4)
OTHER = Answer("an answer", "m", "stop", prompt_tokens=20, completion_tokens=2)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def gone(ledger: Ledger, *numbers: int, heirs: dict[int, str] | None = None) -> DeletedPrompts:
    keys = [key_of(request(n)) for n in numbers]
    own = {key_of(request(n)): owner for n, owner in (heirs or {}).items()}
    found: DeletedPrompts = ledger.do(
        [partial(delete_prompts, keys=keys, heirs=own, now=ledger.now())]
    )[0]
    return found


def test_all_that_was_said_goes_and_what_it_took_stays(ledger: Ledger, tmp_path: Path) -> None:
    identity = begin(ledger)
    secret = request(0, prompt="a secret prompt")
    fault = RequestError("the server answers", detail="a secret fault", reply=FailedReply(503))
    settle(
        ledger, failed(leased(ledger, identity, secret), fault, again=True, spent=Spent(1, 9, 0.1))
    )
    settle(ledger, bad(leased(ledger, identity, secret), ANSWER, again=True))
    settle(ledger, good(leased(ledger, identity, secret), ANSWER, bands=(1, 2)))
    record(ledger, identity, request(1), OTHER)
    end(ledger, identity)
    before = ledger.totals()
    assert gone(ledger, 0).prompts == 1
    ledger.compact()
    after = ledger.totals()
    assert (after.calls, after.cost, after.prompt_tokens) == (
        before.calls,
        before.cost,
        before.prompt_tokens,
    )
    assert (before.answered, after.answered) == (2, 1)
    assert invariants.violations(ledger.rows) == []
    assert ledger.rows("SELECT COUNT(*) FROM bands") == [(0,)]
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.iterdir())
    assert [one.owner for one in prompts_of(ledger.rows, "item")] == ["1"]
    assert acquire(ledger, begin(ledger, "next"), secret).call  # type: ignore[union-attr]
    assert invariants.violations(ledger.rows) == []


def test_what_another_version_left_in_free_pages_goes_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        identity = begin(ledger)
        record(ledger, identity, request(0), Answer("a secret " * 2_000, "m", "stop"))
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA secure_delete = OFF")
        plain.execute("UPDATE prompts SET answer = 'short'")
        plain.commit()
    with Ledger(path) as ledger:
        ledger.compact()
        assert not any(b"a secret" in one.read_bytes() for one in tmp_path.iterdir())


def test_open_calls_of_who_is_gone_count_as_their_worst_case(ledger: Ledger) -> None:
    identity = begin(ledger)
    leased(ledger, identity, request(0), worst_case=Spent(1, 100, 0.5))
    kill(ledger, identity)
    assert gone(ledger, 0) == DeletedPrompts(1, 1, 0.5)
    assert ledger.totals().presumed_cost == 0.5
    assert invariants.violations(ledger.rows) == []


def test_a_batch_of_nobody_is_not_waited_for(ledger: Ledger) -> None:
    identity = begin(ledger)
    for n in (0, 1):
        leased(ledger, identity, request(n))
    entered = (
        "INSERT INTO batches (id, run, llm, state, calls, created, updated)"
        " VALUES ('b', 'run', ?, 'submitted', 2, '', '')"
    )
    ledger.do([lambda c: c.execute(entered, (identity.llm,))])
    ledger.do([lambda c: c.execute("UPDATE calls SET batch = 'b'")])
    kill(ledger, identity)
    gone(ledger, 0)
    assert ledger.rows("SELECT state FROM batches") == [("submitted",)]
    gone(ledger, 1)
    assert ledger.rows("SELECT state, status FROM batches") == [("collected", "forgotten")]
    assert invariants.violations(ledger.rows) == []


def test_a_prompt_goes_over_to_whom_it_was_asked_about_too(ledger: Ledger) -> None:
    identity = begin(ledger)
    record(ledger, identity, request(0), ANSWER)
    end(ledger, identity)
    assert gone(ledger, heirs={0: "another's"}) == DeletedPrompts()
    assert ledger.answered(key_of(request(0))) is not None
    assert [one.owner for one in prompts_of(ledger.rows, "item")] == ["another's"]


def test_while_a_run_asks_nothing_is_forgotten(ledger: Ledger) -> None:
    record(ledger, begin(ledger), request(0), ANSWER)
    with pytest.raises(LLMError, match="while nobody asks\n  detail: a run that began at"):
        gone(ledger, 0)
    assert ledger.answered(key_of(request(0))) == Answer(ANSWER.text, "m", "stop")


def test_a_ledger_that_another_reads_is_told_to_be_locked(ledger: Ledger, tmp_path: Path) -> None:
    record(ledger, begin(ledger), request(0), ANSWER)
    ledger.rows("PRAGMA busy_timeout = 100")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        other.execute("BEGIN")
        other.execute("SELECT COUNT(*) FROM prompts").fetchall()
        with pytest.raises(LLMError, match="another process holds the ledger"):
            ledger.compact()
    ledger.compact()
