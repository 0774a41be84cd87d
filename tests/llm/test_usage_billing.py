"""Bills that say less than was used: thoughts left out, prompts cut."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reki_feast.cli import app
from reki_feast.errors import DeclarationError, LLMError
from reki_feast.llm import (
    Ledger,
    Price,
    Request,
    RequestPolicy,
    RunReport,
    SpendLimits,
    ask_all,
)
from reki_feast.llm.ledger import invariants, reports
from reki_feast.project import open_project
from tests.llm.conftest import FakeServer, Reply
from tests.llm.entering import request
from tests.llm.models import openai_llm
from tests.llm.servers import Endpoint, Fault, Question
from tests.stages.conftest import make_shop

PRICE = Price(prompt=0.3, completion=2.5)
THOUGHTFUL = {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 1118}
#: What such an answer costs.
MONEY = (20 * 0.3 + 1098 * 2.5) / 1e6


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened
        assert invariants.violations(opened.rows) == []


def billing(server: FakeServer, **usage: Any) -> None:
    """Let the server answer with this bill."""

    def answer(body: dict[str, Any], number: int) -> Reply:
        reply = server.completion()
        assert isinstance(reply.body, dict)
        return replace(reply, body={**reply.body, "usage": usage})

    server.answer = answer


def ask(
    server: FakeServer, ledger: Ledger, prompts: list[Request], max_tokens: int = 1200, **how: Any
) -> RunReport:
    llm = openai_llm(model="tiny", base_url=server.url, max_tokens=max_tokens)
    return ask_all(
        prompts, llm, ledger, policy=RequestPolicy(**{"price": PRICE, "concurrency": 4, **how})
    )


def long(count: int, words: int = 160) -> list[Request]:
    """Prompts of some two tokens a word."""
    return [request(n, prompt=f"{n:03} " + "sevenths " * words) for n in range(count)]


# --- thoughts -------------------------------------------------------------------------------


def test_what_the_total_holds_is_paid_and_limited(server: FakeServer, ledger: Ledger) -> None:
    billing(server, **THOUGHTFUL)
    prompts = [request(n) for n in range(20)]
    report = ask(server, ledger, prompts, run_limits=SpendLimits("the run", max_cost=0.03))
    assert (report.stopped, report.limit) == ("budget", "max_cost=0.03 of the run")
    assert 5 < report.asked < 20
    assert report.cost == pytest.approx(report.asked * MONEY)
    assert 0.02 < ledger.totals().cost <= 0.03
    rest = ask(server, ledger, prompts)
    assert report.cost + rest.cost == pytest.approx(0.0550, abs=5e-5)


def test_a_call_dearer_than_its_worst_case_makes_later_ones_set_more_aside(
    server: FakeServer, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    billing(server, **THOUGHTFUL)
    prompts = [request(n) for n in range(20)]
    with caplog.at_level(logging.WARNING):
        report = ask(
            server,
            ledger,
            prompts,
            max_tokens=200,
            concurrency=1,
            run_limits=SpendLimits("the run", max_cost=0.01),
        )
    assert (report.stopped, report.asked) == ("budget", 3)
    assert report.cost == pytest.approx(3 * MONEY)
    [note] = report.notes
    assert note.startswith("an answer took 1,098 tokens where max_tokens allows 200")
    assert [record.getMessage() for record in caplog.records] == [note]


def test_the_command_stops_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def thoughtful(question: Question, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "usage": THOUGHTFUL}

    fault = Fault("thoughts apart", spoil=thoughtful)
    with Endpoint(rule=lambda prompt, nth, number: fault) as endpoint:
        model = f'LLM(model="tiny", base_url="{endpoint.url}", price=(0.3, 2.5))'
        shop = make_shop(tmp_path, lambda text: text.replace('LLM(provider="echo")', model))
        words = ["generate", "--project", str(tmp_path), "--max-cost", "0.03"]
        assert app.main(words) == app.OVER_BUDGET == 3
    assert "max_cost=0.03 of the run is reached" in capsys.readouterr().err
    with shop.ledger() as opened:
        totals = opened.totals()
    assert 0.02 < totals.cost <= 0.03
    assert totals.cost == pytest.approx(totals.calls * MONEY)


# --- prompts that were cut ------------------------------------------------------------------


def test_a_bill_far_below_the_estimate_is_told_once(
    server: FakeServer, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    billing(server, prompt_tokens=40, completion_tokens=5, total_tokens=45)
    with caplog.at_level(logging.WARNING):
        report = ask(server, ledger, long(12))
    assert report.asked == 12
    [note] = report.notes
    assert "bills 40 prompt tokens where some 361 were sent" in note
    assert "raise that to 2,048 (Ollama: OLLAMA_CONTEXT_LENGTH=2048" in note
    assert [record.getMessage() for record in caplog.records] == [note]


def test_a_ceiling_is_told(server: FakeServer, ledger: Ledger) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        reply = server.completion()
        asked = min(1024, len(body["messages"][-1]["content"]) // 4)
        assert isinstance(reply.body, dict)
        usage = {"prompt_tokens": asked, "completion_tokens": 5}
        return replace(reply, body={**reply.body, "usage": usage})

    server.answer = answer
    prompts = [request(n, prompt=(300 + 40 * n) * "sevenths ") for n in range(12)]
    report = ask(server, ledger, prompts)
    assert report.asked == 12
    assert "bills some 1,024 prompt tokens for each of 4 prompts of some 1," in report.notes[0]


@pytest.mark.parametrize("usage", [{"prompt_tokens": 380}, {}, {"prompt_tokens": 0}])
def test_honest_bills_are_not(server: FakeServer, ledger: Ledger, usage: dict[str, int]) -> None:
    billing(server, **usage, completion_tokens=5)
    report = ask(server, ledger, long(12), read=0.5)
    assert (report.asked, report.notes) == (12, ())


def test_answers_to_prompts_that_were_cut_can_be_refused(
    server: FakeServer, ledger: Ledger
) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        reply, text = server.completion(), body["messages"][-1]["content"]
        assert isinstance(reply.body, dict)
        asked = 40 if text.startswith("003") else 350
        return replace(reply, body={**reply.body, "usage": {"prompt_tokens": asked}})

    server.answer = answer
    report = ask(server, ledger, long(6), read=0.5, re_prompts=2)
    assert (report.asked, report.quarantined, report.calls) == (5, 1, 6), "asked again in vain"
    assert reports.gates(ledger.rows) == [("unread", 1, 1)]
    assert "the server read 40 of some 361 prompt tokens" in report.failures[0].error


def test_a_server_that_cuts_all_prompts_stops_the_run(server: FakeServer, ledger: Ledger) -> None:
    billing(server, prompt_tokens=40, completion_tokens=5)
    with pytest.raises(LLMError, match="gate 'unread'(.|\n)*raise the server's context length"):
        ask(server, ledger, long(30), read=0.5)
    assert len(server.bodies) < 15
    billing(server, prompt_tokens=350, completion_tokens=5)
    rest = ask(server, ledger, long(30), read=0.5, retry_quarantined=True)
    assert (rest.asked, rest.quarantined) == (30, 0)
    assert all("could not be used" not in prompt for prompt in server.prompts), "asked afresh"


def test_the_gate_is_declared(tmp_path: Path) -> None:
    declared = "import reki_feast\ngates = reki_feast.Gates(read=0.5)\n"
    shop = make_shop(tmp_path, lambda text: text + declared)
    with shop.ledger() as opened:
        assert shop.request_policy(shop.llm(), opened).read == 0.5
    again = shop.declared.path
    again.write_text(again.read_text().replace("read=0.5", "read=1.5"))
    with pytest.raises(DeclarationError, match="less than or equal to 1"):
        open_project(tmp_path)
