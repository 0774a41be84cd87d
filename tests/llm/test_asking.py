"""Runs: bounded, patient with servers, resumable after kill -9, nothing asked twice."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import (
    Answer,
    EchoLLM,
    Ledger,
    OpenAILLM,
    Request,
    RequestError,
    RequestPolicy,
    Run,
    RunReport,
    SpendLimits,
    Verdict,
    ask_all,
    ask_all_async,
    asking,
)
from reki_feast.llm.interface import FailedReply
from reki_feast.llm.ledger import group_commit, invariants
from reki_feast.llm.ledger import reports as reading
from tests.llm.entering import (
    AS_OF,
    LLM,
    Clock,
    begin,
    good,
    key_of,
    kill,
    leased,
    prompts,
    request,
    requests,
    settle,
)
from tests.llm.models import openai_llm
from tests.llm.server_texts import Question, answer_text
from tests.llm.servers import FAULTS, Endpoint

if TYPE_CHECKING:
    from tests.llm.conftest import FakeServer, Reply

QUICK = RequestPolicy(backoff_s=0.0)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened
        assert invariants.violations(opened.rows) == []


def calls(ledger: Ledger, columns: str = "state") -> list[Any]:
    rows = ledger.rows(f"SELECT {columns} FROM calls ORDER BY id")
    return [row if len(row) > 1 else row[0] for row in rows]


def outcomes(ledger: Ledger) -> list[str]:
    return [one.outcome for one in reading.runs(ledger.rows)]


class Failing(EchoLLM):
    """Fails each prompt so many times, as told, before it answers."""

    def __init__(self, times: int, **error: Any) -> None:
        super().__init__()
        self.times, self.error = times, error

    async def ask(self, request: Request) -> Answer:
        answer = await super().ask(request)
        if sum(one.owner == request.owner for one in self.asked) <= self.times:
            reply = FailedReply(self.error.get("status", 0))
            how = {name: value for name, value in self.error.items() if name != "status"}
            error = RequestError("the server answers the call", reply=reply, **how)
            error.is_throttled = error.status == 429
            raise error
        return answer


# --- all of them, once ----------------------------------------------------------------------


def test_asks_all_then_nothing(ledger: Ledger) -> None:
    llm = EchoLLM()
    ticks = iter(range(1_000))
    first = ask_all(requests(20), llm, ledger, clock=lambda: float(next(ticks)))
    again = ask_all(requests(25), llm, ledger)
    assert (first.asked, first.reused, first.failed, first.calls) == (20, 0, 0, 20)
    assert first.seconds > 0
    assert first.prompt_tokens > 0
    assert first.tokens == first.prompt_tokens + first.completion_tokens
    assert (again.asked, again.reused, again.done) == (5, 20, 25)
    assert len(llm.asked) == 25
    assert outcomes(ledger) == ["done", "done"]


def test_nothing_to_ask(ledger: Ledger) -> None:
    assert ask_all([], EchoLLM(), ledger).done == 0


def test_the_same_prompt_is_asked_once(ledger: Ledger) -> None:
    llm = EchoLLM(delay_s=0.01)
    report = ask_all([*requests(3), *requests(3)], llm, ledger)
    assert (report.asked, report.repeated) == (3, 3)
    assert len(llm.asked) == 3


def test_at_most_so_many_at_once(ledger: Ledger) -> None:
    llm = EchoLLM(delay_s=0.005)
    ask_all(requests(30), llm, ledger, policy=RequestPolicy(concurrency=4))
    assert llm.max_in_flight == 4


def test_requests_are_taken_some_at_a_time(ledger: Ledger) -> None:
    taken, ahead = 0, list[int]()

    def counted() -> Iterator[Request]:
        nonlocal taken
        for one in requests(700):
            taken += 1
            yield one

    ask_all(
        counted(),
        EchoLLM(),
        ledger,
        policy=RequestPolicy(concurrency=3),
        progress=lambda report: ahead.append(taken - report.done),
    )
    assert taken == 700
    assert max(ahead) <= 256 + 3


def test_progress_ends_with_the_whole(ledger: Ledger) -> None:
    seen: list[RunReport] = []
    ask_all(requests(12), EchoLLM(fail={"1"}), ledger, progress=seen.append)
    done = [report.done for report in seen]
    assert done == sorted(done)
    assert set(range(1, 13)) <= set(done)
    assert (seen[-1].asked, seen[-1].failed) == (11, 1)


def test_progress_moves_while_the_ledger_is_looked_through(ledger: Ledger) -> None:
    ask_all(requests(600), EchoLLM(), ledger, policy=RequestPolicy(concurrency=32))
    seen = list[int]()
    ask_all(requests(600), EchoLLM(), ledger, progress=lambda report: seen.append(report.reused))
    assert seen == [256, 512, 600]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_of_none(ledger: Ledger, concurrency: int) -> None:
    with pytest.raises(LLMError, match="concurrency is at least 1"):
        ask_all(requests(1), EchoLLM(), ledger, policy=RequestPolicy(concurrency=concurrency))


def test_within_a_running_loop(ledger: Ledger) -> None:
    async def notebook() -> RunReport:
        return ask_all(requests(5), EchoLLM(), ledger)

    assert asyncio.run(notebook()).asked == 5


def test_the_async_form(ledger: Ledger) -> None:
    with Run(ledger, EchoLLM()) as made:
        assert asyncio.run(ask_all_async(requests(5), made)).asked == 5
    assert outcomes(ledger) == ["done"]


# --- failures -------------------------------------------------------------------------------


def test_failures_are_counted_quoted_and_asked_again(ledger: Ledger) -> None:
    report = ask_all(requests(20), EchoLLM(fail={"3", "7"}), ledger, policy=QUICK)
    assert (report.asked, report.failed) == (18, 2)
    assert [(f.kind, f.owner) for f in report.failures] == [("item", "3"), ("item", "7")]
    assert "told to fail" in report.failures[0].error
    assert ask_all(requests(20), EchoLLM(), ledger).asked == 2


def test_a_fault_that_passes_is_outlived(ledger: Ledger) -> None:
    llm = Failing(3, again=True, status=503)
    report = ask_all(requests(4), llm, ledger, policy=QUICK)
    assert (report.asked, report.failed, report.calls, len(llm.asked)) == (4, 0, 4, 16)
    assert Counter(calls(ledger, "attempt, state")) == {
        **{(attempt, "failed"): 4 for attempt in (1, 2, 3)},
        (4, "answered"): 4,
    }


@pytest.mark.parametrize(
    ("error", "retries"),
    [
        ({"again": True, "status": 500}, 8),
        ({"again": True}, 3),  # nobody was ever reached
        ({"again": True, "is_lost": True}, 4),
        ({"again": False, "status": 400}, 1),
    ],
)
def test_a_fault_that_lasts_ends_after_some_tries(
    ledger: Ledger, error: dict[str, Any], retries: int
) -> None:
    llm = Failing(99, **error)
    report = ask_all(requests(1), llm, ledger, policy=QUICK)
    assert (report.failed, len(llm.asked)) == (1, retries)
    assert calls(ledger) == ["failed"] * retries
    assert ledger.unanswered(prompts(request()), LLM).num_rows == 1


def test_a_server_that_answered_once_is_tried_longer(ledger: Ledger) -> None:
    class Gone(EchoLLM):
        async def ask(self, request: Request) -> Answer:
            answer = await super().ask(request)
            if request.owner != "0":
                raise RequestError("it can be reached", again=True)
            return answer

    llm = Gone()
    ask_all(requests(2), llm, ledger, policy=replace(QUICK, concurrency=1))
    assert Counter(asked.owner for asked in llm.asked) == {"0": 1, "1": 8}


def test_a_reply_that_its_reader_stumbles_over_loses_no_other(ledger: Ledger) -> None:
    class Stumbling(EchoLLM):
        async def ask(self, request: Request) -> Answer:
            answer = await super().ask(request)
            json.loads("[" * 100_000 if request.owner == "3" else "1")
            return answer

    report = ask_all(requests(6), Stumbling(), ledger, policy=QUICK)
    assert (report.asked, report.failed) == (5, 1)
    assert "the reply can be read" in report.failures[0].error


def test_an_answer_that_its_judge_stumbles_over_fails_a_gate(ledger: Ledger) -> None:
    def validate(asked: Request, text: str) -> Verdict:
        json.loads("[" * 100_000 if asked.owner == "3" else "1")
        return Verdict()

    report = ask_all(requests(6), EchoLLM(), ledger, policy=replace(QUICK, validator=validate))
    assert (report.asked, report.quarantined) == (5, 1)
    assert reading.gates(ledger.rows) == [("structure", 2, 1)]


def test_to_be_turned_away_uses_up_no_tries(ledger: Ledger) -> None:
    llm = Failing(20, again=True, status=429)
    report = ask_all(requests(2), llm, ledger, policy=replace(QUICK, attempts=1))
    assert (report.asked, report.calls) == (2, 2)


def test_a_lost_reply_counts_as_its_worst(ledger: Ledger) -> None:
    class Dear(Failing):
        @property
        def max_answer_tokens(self) -> int:
            return 100

    report = ask_all(requests(1), Dear(1, again=True, is_lost=True), ledger, policy=QUICK)
    assert (report.asked, report.calls) == (1, 2)
    assert calls(ledger, "presumed, counted, prompt_tokens > 100") == [(1, 1, 1), (0, 1, 0)]


@pytest.mark.parametrize("what", ["cut, not counted", "gateway timeout"])
def test_what_may_have_been_paid_stops_at_the_limit(
    server: FakeServer, ledger: Ledger, what: str
) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        if what == "gateway timeout":
            return server.reply(status=504, body=b"upstream timed out")
        cut = server.completion("half an ans", finish_reason="length")
        assert isinstance(cut.body, dict)
        return server.reply(body={**cut.body, "usage": None})

    server.answer = answer
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")
    limits = SpendLimits("the run", max_calls=5)
    report = ask_all(requests(7), llm, ledger, policy=replace(QUICK, run_limits=limits))
    assert report.limit == "max_calls=5 of the run"
    assert len(server.bodies) == ledger.totals().calls == 5


def test_a_pause_holds_for_all_calls(server: FakeServer, ledger: Ledger) -> None:
    busy = server.reply(status=429, body={}, headers={"Retry-After": "0.5"})
    answer = server.completion()
    answer.delay_s = 0.1
    server.answer = lambda body, number: busy if number == 0 else answer
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")
    report = ask_all(requests(3), llm, ledger, policy=RequestPolicy(concurrency=2, backoff_s=0.0))
    assert (report.asked, report.calls) == (3, 3)
    late_count = sorted(at - server.times[0] for at in server.times)[2:]
    assert min(late_count) >= 0.5, "but for the call that was out already"


def test_against_a_server(server: FakeServer, ledger: Ledger) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        if number % 5 == 1:
            return server.reply(status=503, body={"error": {"message": "busy"}})
        reply = server.completion()
        reply.delay_s = 0.01
        return reply

    server.answer = answer
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")
    report = ask_all(requests(60), llm, ledger, policy=RequestPolicy(concurrency=6, backoff_s=0.01))
    assert (report.asked, report.failed) == (60, 0)
    assert report.prompt_tokens == 60 * 7
    assert 4 <= server.max_in_flight <= 6


class Saying(EchoLLM):
    """Has a word of how it was asked."""

    notes = ("temperature is left out of all calls",)


def test_what_a_model_has_to_say_is_in_the_report(ledger: Ledger) -> None:
    assert ask_all(requests(2), Saying(), ledger).notes == Saying.notes
    assert ask_all(requests(2), EchoLLM(), ledger).notes == ()


@pytest.mark.parametrize("concurrency", [1, 8])
def test_one_prompt_that_a_filter_refuses_costs_no_other_its_form(
    ledger: Ledger, concurrency: int
) -> None:
    """A model that is of use only with the schema, and whose server refuses the first prompt."""

    def say(question: Question) -> str:
        return answer_text(question) if question.form == "json_schema" else "It depends."

    def validate(asked: Request, text: str) -> Verdict:
        return Verdict() if text.startswith("{") else Verdict("structure", "it is no JSON")

    policy = replace(QUICK, validator=validate, concurrency=concurrency)
    refused = FAULTS["filtered: an object"]
    with Endpoint(say=say, rule=lambda p, nth, n: refused if p == "prompt 0" else None) as server:
        reports = [
            ask_all(
                requests(20), OpenAILLM(model="tiny", base_url=server.url), ledger, policy=policy
            )
            for _ in range(2)
        ]
        outcomes = Counter(call.outcome for call in server.bill)
    assert [(r.asked, r.calls, r.quarantined, r.failed) for r in reports] == [
        (19, 19, 1, 0),
        (0, 0, 1, 0),
    ]
    assert outcomes == {"well": 19, "refused": 1}
    assert reading.gates(ledger.rows) == [("filtered", 1, 1)]
    assert "content management policy" in reports[0].failures[0].error


# --- gates and reviews ----------------------------------------------------------------------


def odd_once(asked: Request, text: str) -> Verdict:
    """The first answer to every third prompt is odd."""
    is_odd = int(asked.owner) % 3 == 0 and text.startswith("first")
    return Verdict("odd", "it is odd", 0.0) if is_odd else Verdict(coverage=1.0)


def says(asked: Request) -> str:
    told = "reviewed" if asked.draft else "mended" if asked.feedback else "first"
    return f"{told} {asked.owner}"


def test_what_fails_a_gate_is_mended(ledger: Ledger) -> None:
    llm = EchoLLM(answer=says)
    report = ask_all(requests(9), llm, ledger, policy=replace(QUICK, validator=odd_once))
    assert (report.asked, report.re_prompted, report.quarantined, report.calls) == (9, 3, 0, 12)
    remarks = [asked.feedback for asked in llm.asked if asked.feedback]
    assert remarks == ["it is odd"] * 3
    assert ledger.answered(key_of(request(0))) == Answer("mended 0", "echo")


def test_what_cannot_be_mended_is_quarantined_and_left_alone(ledger: Ledger) -> None:
    llm = EchoLLM(answer=lambda asked: f"first {asked.owner}")
    policy = replace(QUICK, validator=odd_once)
    report = ask_all(requests(9), llm, ledger, policy=policy)
    assert (report.asked, report.re_prompted, report.quarantined, report.failed) == (6, 3, 3, 0)
    assert report.failures[0].error == "it is odd"
    again = ask_all(requests(9), llm, ledger, policy=policy)
    assert (again.asked, again.reused, again.quarantined, again.calls) == (0, 6, 3, 0)
    retried = ask_all(
        requests(9), EchoLLM(answer=says), ledger, policy=replace(policy, retry_quarantined=True)
    )
    assert (retried.asked, retried.reused, retried.quarantined) == (3, 6, 0)


def test_each_answer_is_reviewed(ledger: Ledger) -> None:
    llm = EchoLLM(answer=says)
    policy = replace(QUICK, validator=odd_once, review=True)
    report = ask_all(requests(6), llm, ledger, policy=policy)
    assert (report.asked, report.re_prompted, report.calls) == (6, 2, 14)
    drafts = sorted(asked.draft for asked in llm.asked if asked.draft)
    assert drafts == ["first 1", "first 2", "first 4", "first 5", "mended 0", "mended 3"]
    assert ledger.answered(key_of(request(5))) == Answer("reviewed 5", "echo")


# --- runs that stop -------------------------------------------------------------------------


def test_a_hopeless_run_stops_early(ledger: Ledger) -> None:
    llm = EchoLLM(fail=lambda request: True)
    with pytest.raises(LLMError, match="first 8 prompts all failed, the last: the model answers"):
        ask_all(requests(1000), llm, ledger, policy=RequestPolicy(concurrency=2))
    assert len(llm.asked) <= 10
    assert ledger.totals().failed >= 8
    assert outcomes(ledger) == ["stopped: some calls succeed"]


def test_a_run_whose_answers_all_fail_a_gate_stops_too(ledger: Ledger) -> None:
    policy = replace(QUICK, validator=lambda asked, text: Verdict("form", "not JSON"), re_prompts=0)
    with pytest.raises(LLMError, match="first 8 prompts(.|\n)*gate 'form'(.|\n)*not JSON"):
        ask_all(requests(1000), EchoLLM(), ledger, policy=replace(policy, concurrency=1))


@pytest.mark.parametrize(("concurrency", "row"), [(1, 20), (32, 64)])
def test_a_late_row_of_failures_stops_a_run(ledger: Ledger, concurrency: int, row: int) -> None:
    llm = EchoLLM(fail=lambda request: int(request.owner) >= 40)
    with pytest.raises(LLMError, match="the last [0-9]+ prompts all failed"):
        ask_all(requests(1_000), llm, ledger, policy=replace(QUICK, concurrency=concurrency))
    assert row <= ledger.totals().failed <= row + concurrency
    assert ledger.totals().answered == 40


def test_a_row_that_an_answer_ends_does_not_stop(ledger: Ledger) -> None:
    llm = EchoLLM(fail=lambda request: int(request.owner) % 20 != 0)
    report = ask_all(requests(100), llm, ledger, policy=replace(QUICK, concurrency=1))
    assert (report.asked, report.failed) == (5, 95)


def test_after_a_long_silence_few_failures_stop_a_run(ledger: Ledger) -> None:
    time_now = 0.0

    def slow(asked: Request) -> bool:
        nonlocal time_now
        time_now += 30.0 if asked.owner != "0" else 0.0
        return asked.owner != "0"

    llm = EchoLLM(fail=slow)
    with pytest.raises(LLMError, match="the last 3 prompts all failed"):
        ask_all(
            requests(100), llm, ledger, policy=RequestPolicy(concurrency=1), clock=lambda: time_now
        )


def test_an_error_that_holds_for_all_stops_and_loses_nothing_in_flight(ledger: Ledger) -> None:
    class Fatal(EchoLLM):
        async def ask(self, request: Request) -> Any:
            if request.owner == "5":
                raise LLMError("the server accepts the API key", hint="mend the key")
            return await super().ask(request)

    llm = Fatal(delay_s=0.05)
    with pytest.raises(LLMError, match="mend the key"):
        ask_all(requests(1000), llm, ledger, policy=RequestPolicy(concurrency=8))
    assert ledger.totals().answered == len(llm.asked) == 7
    assert ledger.totals().failed == 1
    assert outcomes(ledger) == ["stopped: the server accepts the API key"]


def test_calls_that_do_not_end_are_not_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_GRACE_S", 0.05)

    class Fatal(EchoLLM):
        async def ask(self, request: Request) -> Any:
            if request.owner == "1":
                raise LLMError("the server accepts the API key")
            return await super().ask(request)

    llm = Fatal(delay=lambda asked: asked.owner == "0", delay_s=30)
    with pytest.raises(LLMError, match="accepts the API key"):
        ask_all(requests(9), llm, ledger, policy=RequestPolicy(concurrency=2))
    assert calls(ledger) == ["lost", "failed"]


def test_a_fault_of_the_caller_comes_through(ledger: Ledger) -> None:
    def broken() -> Iterator[Request]:
        yield from requests(300)
        raise ZeroDivisionError("in the caller's own iterator")

    with pytest.raises(ZeroDivisionError, match="own iterator"):
        ask_all(broken(), EchoLLM(), ledger)
    assert outcomes(ledger) == ["stopped: ZeroDivisionError"]


def test_cancelling_leaves_whole_answers_only(ledger: Ledger) -> None:
    llm = EchoLLM(delay=lambda request: int(request.owner) >= 10, delay_s=30)

    async def work(made: Run) -> None:
        task = asyncio.create_task(ask_all_async(requests(100), made))
        while len(llm.asked) < 18:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with Run(ledger, llm) as made:
        asyncio.run(work(made))
    totals = ledger.totals()
    assert (totals.answered, totals.failed, totals.planned, totals.sent) == (10, 0, 8, 0)
    assert Counter(calls(ledger)) == {"answered": 10, "lost": 8}


def test_a_bad_key_stops_the_run(server: FakeServer, ledger: Ledger) -> None:
    server.answer = lambda body, number: server.reply(status=401, body={})
    llm = OpenAILLM(model="tiny", base_url=server.url)
    with pytest.raises(LLMError, match="the server accepts the API key"):
        ask_all(requests(1000), llm, ledger)
    assert len(server.bodies) <= 8


def test_a_prompt_that_is_forbidden_fails_alone(server: FakeServer, ledger: Ledger) -> None:
    """Proxies that moderate say 403, be it to the first of all."""

    def answer(body: dict[str, Any], number: int) -> Reply:
        if number in (0, 30):
            return server.reply(status=403, body={"error": {"message": "input flagged"}})
        return server.completion()

    server.answer = answer
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")
    report = ask_all(requests(60), llm, ledger, policy=QUICK)
    assert (report.asked, report.failed) == (58, 2)
    assert "input flagged" in report.failures[0].error


def test_a_model_without_access_stops_the_run(server: FakeServer, ledger: Ledger) -> None:
    server.answer = lambda body, number: server.reply(status=403, body={})
    llm = OpenAILLM(model="tiny", base_url=server.url)
    with pytest.raises(LLMError, match="gives access to the model(.|\n)*ask for access to tiny"):
        ask_all(requests(1000), llm, ledger)
    assert len(server.bodies) <= 16


def test_a_wrong_url_stops_the_run(ledger: Ledger) -> None:
    llm = OpenAILLM(model="tiny", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(LLMError, match="the first 8 prompts all failed(.|\n)*can be reached"):
        ask_all(requests(1000), llm, ledger, policy=QUICK)


# --- other runs on the same ledger ----------------------------------------------------------


def test_what_another_run_holds_is_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_HELD_S", 0.01)
    other = begin(ledger, "other")
    won = [leased(ledger, other, request(n)) for n in range(3)]
    llm, answered = EchoLLM(), list[int]()

    def progress(report: RunReport) -> None:
        if report.asked == 5 and not answered:  # all but the three
            answered.append(len(llm.asked))
            settle(ledger, good(won[0], Answer("theirs", "m")))
            kill(ledger, other)

    report = ask_all(requests(8), llm, ledger, progress=progress)
    assert (report.reused, report.asked, answered) == (1, 7, [5])
    assert ledger.answered(key_of(request(0))) == Answer("theirs", "m")
    assert Counter(calls(ledger)) == {"answered": 8, "lost": 2}


def test_what_is_in_a_batch_is_counted_and_left_alone(ledger: Ledger) -> None:
    other = begin(ledger, "other")
    leased(ledger, other, request(0))
    ledger.do(
        [
            lambda c: c.execute("UPDATE calls SET batch = 'b'"),
            lambda c: c.execute(
                "INSERT INTO batches (id, run, llm, state, calls, created, updated)"
                " VALUES ('b', 'other', 'echo', 'submitted', 1, 'x', 'x')"
            ),
        ]
    )
    report = ask_all(requests(3), EchoLLM(), ledger)
    assert (report.in_batch, report.asked, report.done) == (1, 2, 3)


def test_a_run_says_that_it_lives(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "HEARTBEAT_S", 0.005)
    ask_all(requests(1), EchoLLM(delay_s=0.1), ledger)
    [(began, seen, ended)] = ledger.rows("SELECT began, seen, ended FROM runs")
    assert began < seen <= ended
    begin(ledger, "x")  # … and while it went on, not only at its end
    monkeypatch.setattr(group_commit, "HEARTBEAT_S", 0.001)
    times = set[str]()

    def poll(report: RunReport) -> None:
        times.update(row[0] for row in ledger.rows("SELECT seen FROM runs WHERE ended IS NULL"))

    ask_all([request(n) for n in range(10, 40)], EchoLLM(delay_s=0.005), ledger, progress=poll)
    assert len(times) > 2


def test_entries_that_come_together_go_in_together(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions, do = list[int](), Ledger.do

    def counting(self: Ledger, chunk: Any) -> list[Any]:
        transactions.append(len(chunk))
        return do(self, chunk)

    monkeypatch.setattr(Ledger, "do", counting)
    ask_all(requests(64), EchoLLM(delay_s=0.01), ledger, policy=RequestPolicy(concurrency=32))
    assert sum(transactions) == 2 * 64 + 2  # a claim and an outcome each; begun and ended
    assert max(transactions) > 8


def test_an_entry_that_cannot_be_written_takes_no_other_with_it(ledger: Ledger) -> None:
    """They come together, in one transaction."""

    def entry(text: str) -> Callable[[Any], str]:
        return lambda connection: connection.execute("SELECT ?", (text,)).fetchone()[0]

    async def work() -> list[Any]:
        async with group_commit.GroupCommitWriter(ledger, "run") as writer:
            chunk = [writer.do(entry(text)) for text in ("a", "b", "half \ud83d", "c")]
            return await asyncio.gather(*chunk, return_exceptions=True)

    first, second, bad, last = asyncio.run(work())
    assert (first, second, last) == ("a", "b", "c")
    assert isinstance(bad, UnicodeEncodeError)


def test_a_ledger_that_fails_stops_the_run_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, llm = tmp_path / "ledger.sqlite", EchoLLM()
    with Ledger(path) as ledger:

        def progress(report: RunReport) -> None:
            if report.asked == 10:
                ledger.rows("PRAGMA query_only = 1")

        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(LLMError, match="readonly database(.|\n)*make the folder writable"),
        ):
            ask_all(
                requests(100), llm, ledger, policy=RequestPolicy(concurrency=4), progress=progress
            )
    assert caplog.records == []
    with Ledger(path) as again:
        kept = again.totals().answered
        assert 10 <= kept <= len(llm.asked) <= kept + 4


# --- real processes, really killed ----------------------------------------------------------

CHILD = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from reki_feast.llm import Ledger, RequestPolicy, ask_all
from tests.llm.entering import requests
from tests.llm.models import openai_llm
url, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
llm = openai_llm(base_url=url, structured="off")
with Ledger(path) as ledger:
    report = ask_all(requests(count), llm, ledger, policy=RequestPolicy(concurrency=4))
print(json.dumps({**asdict(report), "failures": len(report.failures)}))
"""
COUNT = 60
ROOT = Path(__file__).parents[2]


def start(url: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, url, str(path), str(COUNT)]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-verysecret0123456789"}
    return subprocess.Popen(
        command,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    told: dict[str, Any] = json.loads(out)
    return told


def start_again(url: str, path: Path) -> RunReport:
    """The same run once more, in this process."""
    llm = openai_llm(model="tiny", base_url=url, structured="off")
    with Ledger(path) as ledger:
        return ask_all(requests(COUNT), llm, ledger, policy=RequestPolicy(concurrency=4))


def wait_until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.005)


def answered(path: Path) -> set[str]:
    with Ledger(path) as ledger:
        assert ledger.rows("PRAGMA integrity_check") == [("ok",)]
        assert invariants.violations(ledger.rows) == []
        rows = ledger.rows("SELECT prompt FROM prompts WHERE state = 'answered'")
    return {row[0] for row in rows}


@pytest.fixture
def slow(server: FakeServer) -> FakeServer:
    """A server that takes a moment for each answer."""

    def answer(body: dict[str, Any], number: int) -> Reply:
        reply = server.completion(f"answer to {body['messages'][-1]['content']}")
        reply.delay_s = 0.02
        return reply

    server.answer = answer
    return server


def test_killed_and_started_again(slow: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    child = start(slow.url, path)
    wait_until(lambda: len(slow.bodies) >= 30)
    child.kill()
    child.communicate()
    before, sent = answered(path), len(slow.bodies)
    assert sent - 8 <= len(before) < COUNT
    report = start_again(slow.url, path)
    assert (report.asked, report.reused) == (COUNT - len(before), len(before))
    assert not before & set(slow.prompts[sent:])
    assert len(answered(path)) == COUNT
    # nothing is sent a second time but what was in flight at the kill
    assert sum(Counter(slow.prompts).values()) <= COUNT + 4
    with Ledger(path) as ledger:
        assert outcomes(ledger) == ["done", "killed"]
        lost = ledger.rows("SELECT COUNT(*) FROM calls WHERE state = 'lost'")[0][0]
        # a call on disk may not have gone out yet when the kill came
        assert lost <= 4
        assert len(slow.bodies) <= ledger.totals().calls == COUNT + lost
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"verysecret" not in raw


def test_two_processes_at_once_send_each_prompt_once(slow: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    told = [finish(child) for child in [start(slow.url, path) for _ in range(2)]]
    assert Counter(slow.prompts) == {f"prompt {n}": 1 for n in range(COUNT)}
    assert sum(one["asked"] for one in told) == COUNT
    assert [one["asked"] + one["reused"] for one in told] == [COUNT, COUNT]
    assert len(answered(path)) == COUNT


def test_ctrl_c_once_waits_for_calls_in_flight(slow: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    child = start(slow.url, path)
    wait_until(lambda: len(slow.bodies) >= 20)
    child.send_signal(signal.SIGINT)
    told = finish(child)
    assert (told["stopped"], told["failed"]) == ("interrupted", 0)
    assert answered(path) == set(slow.prompts), "what was sent is answered"
    assert 20 <= len(slow.prompts) == told["asked"] < COUNT
    with Ledger(path) as ledger:
        assert outcomes(ledger) == ["stopped: interrupted"]
        assert ledger.totals().sent == 0
    rest = start_again(slow.url, path)
    assert (rest.reused, rest.asked) == (told["asked"], COUNT - told["asked"])
    assert Counter(slow.prompts) == {f"prompt {n}": 1 for n in range(COUNT)}


def test_ctrl_c_twice_stops_at_once(server: FakeServer, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        reply = server.completion()
        reply.delay_s = 0.0 if number < 10 else 600.0
        return reply

    server.answer = answer
    path = tmp_path / "ledger.sqlite"
    child = start(server.url, path)
    wait_until(lambda: len(server.bodies) == 14)  # four are in flight, for good
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    assert "waiting for 4 calls in flight" in child.stderr.readline()
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in child.stderr.read()
    child.communicate(timeout=300)
    assert len(answered(path)) == 10
    with Ledger(path) as ledger:
        assert outcomes(ledger) == ["stopped: KeyboardInterrupt"]
        assert Counter(calls(ledger)) == {"answered": 10, "lost": 4}
        assert ledger.totals().calls == 14
        assert ledger.totals().planned == 4
    server.answer = lambda body, number: server.completion()
    rest = start_again(server.url, path)
    assert (rest.reused, rest.asked) == (10, COUNT - 10)
    assert len(answered(path)) == COUNT


def test_a_renewal_that_fails_a_gate_is_not_paid_for_in_every_run() -> None:
    clock = Clock()
    with Ledger(None, clock=clock) as ledger:
        ask_all(requests(3), LLM, ledger)
        clock.advance(60)
        old = [replace(one, renew_before=AS_OF + timedelta(seconds=30)) for one in requests(3)]
        bad = replace(
            QUICK, validator=lambda request, text: Verdict(gate="echo", fault="it repeats")
        )
        first, second = (ask_all(old, LLM, ledger, policy=bad) for _ in range(2))
        retried = ask_all(old, LLM, ledger, policy=replace(bad, retry_quarantined=True))
    assert (first.quarantined, first.calls) == (3, 6)
    assert (second.reused, second.calls) == (3, 0)
    assert retried.calls == 6


@pytest.mark.parametrize("is_planned", [False, True])
def test_of_rows_that_ask_the_same_one_that_wants_a_renewal_gets_it(is_planned: bool) -> None:
    clock = Clock()
    with Ledger(None, clock=clock) as ledger:
        ask_all(requests(3), LLM, ledger)
        clock.advance(60)
        if is_planned:  # a renewal that was cut short
            ledger.do([lambda connection: connection.execute("UPDATE prompts SET state='planned'")])
        newest = [replace(one, renew_before=AS_OF + timedelta(seconds=30)) for one in requests(3)]
        report = ask_all([*requests(3), *newest, *requests(3)], LLM, ledger)
        assert (report.reused, report.asked, report.repeated) == (3, 3, 3)
