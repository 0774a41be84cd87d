"""Batches: filled, sent, collected; what the server may do to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import (
    Ledger,
    OpenAIBatchLLM,
    Price,
    Run,
    RunReport,
    SpendLimits,
    Verdict,
    ask_all,
)
from reki_feast.llm.ledger.invariants import violations
from tests.llm.batching import (
    batch_llm,
    lines,
    open_batches,
    policy,
    prompt,
    requests,
    said,
    states,
)
from tests.llm.models import openai_llm
from tests.llm.server_batches import End
from tests.llm.servers import FAULTS, Endpoint, Fault, Rule


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened


def once(fault: Fault, *numbers: int) -> Rule:
    """The fault befalls these prompts (or all) the first time that they come."""
    chosen = {prompt(number) for number in numbers}
    return lambda text, nth, number: fault if nth == 1 and (not chosen or text in chosen) else None


def test_asks_all_then_nothing(endpoint: Endpoint, ledger: Ledger) -> None:
    how = policy(price=Price(1.0, 2.0))
    first = ask_all(requests(7), batch_llm(endpoint, max_requests=3), ledger, policy=how)
    assert (first.asked, first.calls, first.done, first.in_batch) == (7, 7, 7, 0)
    assert [len(file) for file in lines(endpoint)] == [3, 3, 1]
    assert (first.prompt_tokens, first.completion_tokens) == endpoint.tokens()
    assert first.cost == pytest.approx((first.prompt_tokens + 2 * first.completion_tokens) / 1e6)
    again = ask_all(requests(9), batch_llm(endpoint), ledger, policy=how)
    assert (again.asked, again.reused) == (2, 7)
    assert len(endpoint.batches.all) == 4
    assert states(ledger) == [("answered", 9)]
    assert open_batches(ledger) == 0


def test_each_answer_comes_to_its_prompt(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.say = lambda question: f'{{"genre": "{question.prompt[:10]}", "mood": "calm"}}'
    ask_all(requests(40), batch_llm(endpoint), ledger, policy=policy())
    rows = ledger.rows("SELECT owner, answer FROM prompts")
    assert len(rows) == 40
    for owner, answer in rows:
        assert f"Film {int(owner):05}" in answer


def test_answers_are_shared_with_calls_one_by_one(endpoint: Endpoint, ledger: Ledger) -> None:
    ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy())
    online = openai_llm(model="tiny", base_url=endpoint.url, max_tokens=300)
    assert ask_all(requests(4), online, ledger, policy=policy()).reused == 3


def test_nothing_to_ask(endpoint: Endpoint, ledger: Ledger) -> None:
    assert ask_all([], batch_llm(endpoint), ledger).done == 0
    assert endpoint.batches.all == []


def test_the_same_prompt_is_asked_once(endpoint: Endpoint, ledger: Ledger) -> None:
    report = ask_all([*requests(3), *requests(3)], batch_llm(endpoint), ledger, policy=policy())
    assert (report.asked, report.repeated) == (3, 3)


def test_no_file_passes_the_limit_in_bytes(endpoint: Endpoint, ledger: Ledger) -> None:
    llm = batch_llm(endpoint, max_bytes=2_000)
    report = ask_all(requests(12), llm, ledger, policy=policy())
    sizes = [len(raw) for raw in endpoint.batches.files.values() if b'"method"' in raw]
    assert report.asked == 12
    assert max(sizes) <= 2_000
    one = llm.size(next(requests(1)))
    assert all(size + one > 2_000 for size in sizes[:-1])  # and none is smaller than need be


def test_a_request_that_no_file_can_take_fails(endpoint: Endpoint, ledger: Ledger) -> None:
    first, second, *rest = requests(4)
    given = [first, replace(second, prompt="long " * 500), *rest]
    report = ask_all(given, batch_llm(endpoint, max_bytes=2_000), ledger, policy=policy())
    assert (report.asked, report.failed) == (3, 1)
    assert "a request fits into the file of a batch" in report.failures[0].error
    assert states(ledger) == [("answered", 3), ("failed", 1)]


def test_an_answer_that_fails_a_gate_is_asked_for_again_in_another_batch(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.rule = once(FAULTS["missing factor"], 2, 3)
    report = ask_all(requests(5), batch_llm(endpoint), ledger, policy=policy())
    assert (report.asked, report.re_prompted, report.calls) == (5, 2, 7)
    first, second = lines(endpoint)
    assert len(first) == 5
    assert sorted(said(line)[:10] for line in second) == ["Film 00002", "Film 00003"]
    assert all("the answer lacks mood" in said(line) for line in second)
    assert states(ledger) == [("answered", 5)]


def test_what_fails_a_gate_again_is_quarantined(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.rule = lambda text, nth, number: FAULTS["not json"] if text == prompt(1) else None
    report = ask_all(requests(4), batch_llm(endpoint), ledger, policy=policy(re_prompts=2))
    assert (report.asked, report.re_prompted, report.quarantined) == (3, 2, 1)
    assert len(endpoint.batches.all) == 3
    assert states(ledger) == [("answered", 3), ("quarantined", 1)]


def test_each_answer_is_reviewed_in_another_batch(endpoint: Endpoint, ledger: Ledger) -> None:
    report = ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy(review=True))
    assert (report.asked, report.calls) == (3, 6)
    first, second = lines(endpoint)
    assert not any("<answer>" in said(line) for line in first)
    assert all("<answer>" in said(line) for line in second)


def test_like_answers_of_one_batch_are_told(endpoint: Endpoint, ledger: Ledger) -> None:
    def unlike(request: object, text: str) -> Verdict:
        seen = ledger.alike("item", "knowledge", (7,))
        return Verdict(gate="duplicate", fault="seen before") if seen else Verdict(bands=(7,))

    how = policy(validator=unlike, re_prompts=0)
    report = ask_all(requests(5), batch_llm(endpoint), ledger, policy=how)
    assert (report.asked, report.quarantined) == (1, 4)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faults_of_lines(name: str, endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.rule = once(FAULTS[name], 1, 4, 5)
    report = ask_all(requests(9), batch_llm(endpoint), ledger, policy=policy())
    assert report.asked + report.quarantined + report.failed == report.done == 9
    assert report.failed == 0 or FAULTS[name].status == 400  # what a line asks for is refused
    assert report.asked >= 6
    assert endpoint.paid_twice() == []
    assert sum(count for _, count in states(ledger)) == 9
    assert open_batches(ledger) == 0


def test_lines_that_are_turned_away_wait_as_long_as_the_server_says(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    said = [{"error": {"code": 429, "message": "no more", "details": [{"retryDelay": "0.3s"}]}}]
    endpoint.rule = once(Fault("429", 429, is_counted=False, said=said), 1, 4)
    moments = list[float]()

    def rule(method: str, path: str, nth: int) -> None:
        if (method, path) == ("POST", "/v1/files") or path.endswith("/content"):
            moments.append(time.monotonic())

    endpoint.path_rule = rule
    assert ask_all(requests(9), batch_llm(endpoint), ledger, policy=policy()).asked == 9
    assert len(moments) == 5, "uploaded, both files fetched, uploaded, fetched"
    assert moments[3] - moments[2] >= 0.3


def test_a_quota_of_the_day_ends_the_run_and_nothing_is_lost(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    said = {"error": {"code": 429, "message": "Limit of requests per day (RPD) reached"}}
    used_up = Fault("429", 429, is_counted=False, said=said)
    endpoint.rule = once(used_up, 1, 4)
    report = ask_all(requests(9), batch_llm(endpoint), ledger, policy=policy())
    assert (report.stopped, report.asked, report.failed) == ("quota", 7, 0)
    assert "says 429: Limit of requests per day" in report.limit
    assert states(ledger) == [("answered", 7), ("planned", 2)]
    assert ask_all(requests(9), batch_llm(endpoint), ledger, policy=policy()).asked == 2

    endpoint.path_rule = lambda method, path, nth: used_up if method == "POST" else None
    report = ask_all(requests(12), batch_llm(endpoint), ledger, policy=policy())
    assert (report.stopped, report.asked) == ("quota", 0)
    assert states(ledger) == [("answered", 9), ("planned", 3)]


def test_answers_to_prompts_that_were_cut_are_told_and_can_be_refused(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.rule = lambda text, nth, number: FAULTS["prompts cut"] if text == prompt(3) else None
    how = policy(read=0.5, re_prompts=2)
    report = ask_all(requests(9), batch_llm(endpoint), ledger, policy=how)
    assert (report.asked, report.quarantined, report.calls) == (8, 1, 9)
    assert ledger.rows("SELECT owner, gate FROM prompts WHERE gate <> ''") == [("3", "unread")]


@pytest.mark.parametrize("name", ["429 retry-after", "500", "disconnect before", "html body"])
@pytest.mark.parametrize(
    ("method", "part"),
    [("POST", "/files"), ("POST", "/batches"), ("GET", "/batches/"), ("GET", "/content")],
)
def test_faults_of_the_api(
    name: str, method: str, part: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    fault = FAULTS[name]
    if fault.status == 429:
        fault = replace(fault, headers={"retry-after-ms": "5"})
    endpoint.path_rule = lambda given, path, nth: (
        fault if given == method and part in path and nth <= 2 else None
    )
    report = ask_all(requests(6), batch_llm(endpoint, max_requests=4), ledger, policy=policy())
    assert report.asked == 6
    assert len(endpoint.batches.all) == 2
    assert endpoint.paid_twice() == []
    assert states(ledger) == [("answered", 6)]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/content"])
def test_a_line_that_breaks_before_the_reply_is_whole(
    path: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    """The server did what it was asked to, and nobody heard: it is not asked to do it again."""
    endpoint.path_rule = lambda method, given, nth: (
        FAULTS["disconnect half a body"] if given.endswith(path) and nth == 1 else None
    )
    report = ask_all(requests(6), batch_llm(endpoint), ledger, policy=policy())
    assert report.asked == 6
    assert len(endpoint.batches.all) == 1
    assert endpoint.paid_twice() == []


def test_a_server_that_is_silent_is_asked_again(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = lambda method, path, nth: (
        FAULTS["stall"] if path.startswith("/v1/batches/") and nth == 1 else None
    )
    report = ask_all(requests(2), batch_llm(endpoint, timeout_s=2.0), ledger, policy=policy())
    assert report.asked == 2


def test_a_server_that_stays_at_fault_is_given_up(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = lambda method, path, nth: FAULTS["503"]
    with pytest.raises(LLMError, match="the server answers the call"):
        ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy(attempts=3))
    assert states(ledger) == [("planned", 2)]
    assert open_batches(ledger) == 0
    endpoint.path_rule = None
    assert ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy()).asked == 2


def test_a_server_without_batches(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = lambda method, path, nth: Fault("404", 404)
    with pytest.raises(LLMError, match="the server has a Batch API"):
        ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy())
    assert states(ledger) == [("planned", 2)]
    online = openai_llm(model="tiny", base_url=endpoint.url, max_tokens=300)
    assert ask_all(requests(2), online, ledger, policy=policy()).asked == 2


def test_a_wrong_key(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = lambda method, path, nth: Fault("401", 401)
    with pytest.raises(LLMError, match="the server accepts the API key"):
        ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy())


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_was_not_done_in_time_goes_into_another_batch(
    status: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.batches.ends = lambda number: End(status, share=0.5) if number == 1 else End()
    report = ask_all(requests(6), batch_llm(endpoint), ledger, policy=policy())
    assert (report.asked, report.calls, report.failed) == (6, 6, 0)
    assert [len(file) for file in lines(endpoint)] == [6, 3]
    assert endpoint.paid_twice() == []
    assert states(ledger) == [("answered", 6)]


def test_a_renewal_that_was_not_done_in_time_goes_into_another_batch(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    ask_all(requests(4), batch_llm(endpoint), ledger, policy=policy())
    endpoint.batches.ends = lambda number: End("expired", share=0.5) if number == 2 else End()
    now = datetime.fromisoformat(ledger.now())
    old = [replace(one, renew_before=now) for one in requests(4)]
    report = ask_all(old, batch_llm(endpoint), ledger, policy=policy())
    assert (report.asked, report.reused) == (4, 0)
    assert [len(file) for file in lines(endpoint)] == [4, 4, 2]
    assert states(ledger) == [("answered", 4)]


def test_what_is_never_done_in_time_fails(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.ends = lambda number: End("expired", share=0.5 if number == 1 else 0.0)
    report = ask_all(requests(4), batch_llm(endpoint), ledger, policy=policy(attempts=3))
    assert (report.asked, report.failed, report.calls) == (2, 2, 2)
    assert len(endpoint.batches.all) == 3
    assert "could not be executed" in report.failures[0].error


def test_lines_that_are_in_neither_file_are_asked_again_and_count(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.batches.ends = lambda number: End(missing=2 if number == 1 else 0)
    how = policy(price=Price(1.0, 1.0))
    report = ask_all(requests(5), batch_llm(endpoint), ledger, policy=how)
    assert (report.asked, report.calls) == (5, 7)
    assert [len(file) for file in lines(endpoint)] == [5, 2]
    assert report.cost >= sum(endpoint.tokens()) / 1e6
    assert ledger.totals().presumed_cost > 0


def test_a_batch_that_the_server_refuses(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.ends = lambda number: End("failed", code="invalid_url")
    with pytest.raises(LLMError, match="the server accepts the batch(.|\\n)*fails on demand"):
        ask_all(requests(5), batch_llm(endpoint, max_requests=2), ledger, policy=policy())
    assert len(endpoint.batches.all) == 1
    assert states(ledger) == [("planned", 2)]
    assert open_batches(ledger) == 0
    endpoint.batches.ends = lambda number: End()
    assert ask_all(requests(5), batch_llm(endpoint), ledger, policy=policy()).asked == 5


def test_a_queue_that_is_full_is_waited_for(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.enqueued_max = 50  # room for two prompts and a half
    endpoint.batches.polls = 3
    report = ask_all(requests(6), batch_llm(endpoint, max_requests=2), ledger, policy=policy())
    assert (report.asked, report.calls) == (6, 6)
    ended = [one["status"] for one in endpoint.batches.all]
    assert ended.count("completed") == 3
    assert "failed" in ended
    assert len(lines(endpoint)) == 3  # no file was uploaded twice
    assert states(ledger) == [("answered", 6)]


def test_a_batch_that_no_queue_can_take_is_halved(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.enqueued_max = 50
    report = ask_all(requests(7), batch_llm(endpoint), ledger, policy=policy())
    assert report.asked == 7
    assert [len(file) for file in lines(endpoint)][:2] == [7, 3]
    assert endpoint.paid_twice() == []


def test_a_queue_without_room_for_one(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.enqueued_max = 1
    with pytest.raises(LLMError, match="enqueued token limit reached"):
        ask_all(requests(4), batch_llm(endpoint), ledger, policy=policy())
    assert states(ledger) == [("planned", 4)]


@pytest.mark.parametrize("name", ["json_schema 500", "no json_schema"])
def test_a_form_that_the_server_lacks_is_given_up(
    name: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    fault = FAULTS.get(name) or Fault(name, 400, form="json_schema", is_counted=False)
    endpoint.rule = lambda text, nth, number: fault
    llm = batch_llm(endpoint, max_requests=4)
    report = ask_all(requests(6), llm, ledger, policy=policy(attempts=1))
    assert (report.asked, report.failed) == (6, 0)
    forms = [file[0]["body"]["response_format"]["type"] for file in lines(endpoint)]
    assert forms == sorted(forms, reverse=True)
    assert set(forms) == {"json_schema", "json_object"}


def test_a_bad_prompt_is_not_taken_for_a_missing_form(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.rule = once(Fault("bad", 400, is_counted=False), 2)
    report = ask_all(requests(4), batch_llm(endpoint), ledger, policy=policy())
    assert (report.asked, report.failed) == (3, 1)
    assert len(endpoint.batches.all) == 1


def test_newer_name_of_max_tokens_is_learnt(endpoint: Endpoint, ledger: Ledger) -> None:
    name = "use max_completion_tokens instead: "
    endpoint.rule = once(Fault(name, 400, is_counted=False))
    report = ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy(attempts=1))
    assert report.asked == 3
    first, second = lines(endpoint)
    assert (first[0]["body"]["max_tokens"], second[0]["body"]["max_completion_tokens"]) == (
        300,
        300,
    )
    assert "max_tokens" not in second[0]["body"]
    assert second[0]["body"]["response_format"]["type"] == "json_schema"


def test_a_hopeless_run_stops(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.rule = lambda text, nth, number: Fault("bad", 400, is_counted=False)
    llm = batch_llm(endpoint, max_requests=8, structured="off")
    with pytest.raises(LLMError, match="the first 8 prompts all failed"):
        ask_all(requests(8), llm, ledger, policy=policy())
    assert len(endpoint.batches.all) == 1
    assert states(ledger) == [("failed", 8)]


def test_a_fault_that_all_lines_would_meet_ends_the_run(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.rule = once(Fault("401", 401, is_counted=False), 1)
    with pytest.raises(LLMError, match="the server accepts the API key"):
        ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy())
    assert states(ledger) == [("answered", 2), ("failed", 1)]  # what came is kept
    assert open_batches(ledger) == 0


def test_a_limit_on_calls(endpoint: Endpoint, ledger: Ledger) -> None:
    how = policy(run_limits=SpendLimits("the run", max_calls=5))
    report = ask_all(requests(12), batch_llm(endpoint, max_requests=3), ledger, policy=how)
    assert (report.asked, report.calls) == (5, 5)
    assert (report.stopped, report.limit) == ("budget", "max_calls=5 of the run")
    assert states(ledger) == [("answered", 5)]
    assert ask_all(requests(12), batch_llm(endpoint), ledger, policy=policy()).asked == 7


def test_a_limit_in_money_holds_at_any_time(endpoint: Endpoint, ledger: Ledger) -> None:
    limit = 0.003
    how = policy(price=Price(1.0, 2.0), project_limits=SpendLimits("the project", max_cost=limit))
    at_stake = []

    def poll(report: RunReport) -> None:
        row = ledger.rows("SELECT SUM(cost + reserved_cost), SUM(reserved_cost) FROM runs")[0]
        at_stake.append(row)

    endpoint.rule = once(FAULTS["missing factor"], 0, 1, 2)
    report = ask_all(requests(40), batch_llm(endpoint), ledger, policy=how, progress=poll)
    assert report.stopped == "budget"
    assert 3 < report.asked < 40
    assert max(total for total, _ in at_stake) <= limit + 1e-12
    assert max(reserved for _, reserved in at_stake) > limit / 2
    asked, answered = endpoint.tokens()
    assert report.cost == pytest.approx((asked + 2 * answered) / 1e6)
    # one more would not have been safe
    assert (
        report.cost + Run(ledger, batch_llm(endpoint), how).worst_case(next(requests(1))).cost
        > limit
    )
    assert states(ledger)[0] == ("answered", report.asked)


def test_what_is_said_after_a_prompt_is_set_aside_too(endpoint: Endpoint, ledger: Ledger) -> None:
    ask_all(requests(1), batch_llm(endpoint), ledger, policy=policy(review=True))
    rows = ledger.rows("SELECT purpose, prompt_tokens FROM calls ORDER BY id")
    assert [purpose for purpose, _ in rows] == ["ask", "review"]
    seen: list[int] = []
    endpoint.batches.ends = lambda number: End("expired", share=0.0) if number > 3 else End()

    def poll(report: RunReport) -> None:
        found = ledger.rows("SELECT reserved_tokens FROM calls WHERE state = 'sent'")
        seen.extend(tokens for (tokens,) in found)

    ask_all(
        requests(1, first=1), batch_llm(endpoint), ledger, policy=policy(review=True), progress=poll
    )
    assert max(seen) > min(seen) + 100  # the draft under review


def test_ctrl_c_leaves_batches_to_the_next_run(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.delay_s = 60.0

    def press(report: RunReport) -> None:
        if report.batches == 2:
            os.kill(os.getpid(), signal.SIGINT)

    llm = batch_llm(endpoint, max_requests=4)
    report = ask_all(requests(6), llm, ledger, policy=policy(), progress=press)
    assert (report.stopped, report.asked, report.in_batch, report.batches) == (
        "interrupted", 0, 6, 2,
    )  # fmt: skip
    assert states(ledger) == [("sent", 6)]
    endpoint.batches.delay_s = 0.0
    report = ask_all(requests(8), llm, ledger, policy=policy())
    assert (report.asked, report.reused, report.done) == (8, 0, 8)
    assert len(endpoint.batches.all) == 3
    assert endpoint.paid_twice() == []
    assert states(ledger) == [("answered", 8)]


def test_what_another_question_left_open_is_collected_too(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.batches.delay_s = 60.0

    def press(report: RunReport) -> None:
        if report.batches == 1:
            os.kill(os.getpid(), signal.SIGINT)

    ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy(), progress=press)
    endpoint.batches.delay_s = 0.0
    endpoint.rule = once(FAULTS["missing factor"], 1)
    llm = batch_llm(endpoint)
    how = policy()
    report = ask_all(
        requests(2, first=10), llm, ledger, policy=how, progress=lambda report: _balance(ledger)
    )
    assert report.asked == 5
    assert states(ledger) == [("answered", 5)]


def test_another_model_does_not_touch_it(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.delay_s = 60.0

    def press(report: RunReport) -> None:
        if report.batches == 1:
            os.kill(os.getpid(), signal.SIGINT)

    ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy(), progress=press)
    endpoint.batches.delay_s = 0.0
    other = batch_llm(endpoint, temperature=1.0)
    assert ask_all(requests(2), other, ledger, policy=policy()).asked == 2
    assert open_batches(ledger) == 1


def test_a_call_one_by_one_leaves_what_is_in_a_batch(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.batches.delay_s = 60.0

    def press(report: RunReport) -> None:
        if report.batches == 1:
            os.kill(os.getpid(), signal.SIGINT)

    ask_all(requests(3), batch_llm(endpoint), ledger, policy=policy(), progress=press)
    online = openai_llm(model="tiny", base_url=endpoint.url, max_tokens=300)
    report = ask_all(requests(5), online, ledger, policy=policy())
    assert (report.asked, report.in_batch) == (2, 3)


def test_a_batch_that_the_server_does_not_know(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = lambda method, path, nth: (
        Fault("404", 404) if path.startswith("/v1/batches/") else None
    )
    with pytest.raises(LLMError, match="the server knows the batch") as caught:
        ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy())
    assert "batch_000001" in str(caught.value)
    assert states(ledger) == [("sent", 2)]  # they may be paid for: nobody asks again unasked
    endpoint.path_rule = None
    assert ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy()).asked == 2
    assert endpoint.paid_twice() == []


def test_answers_that_the_server_has_deleted(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.path_rule = lambda method, path, nth: (
        Fault("404", 404) if path.endswith("/content") and len(endpoint.batches.all) == 1 else None
    )
    report = ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy(price=Price(1, 1)))
    assert (report.asked, report.calls) == (2, 4)
    assert ledger.totals().presumed_cost > 0


@pytest.mark.parametrize(("gone", "again"), [("error_file_id", 1), ("output_file_id", 5)])
def test_of_two_files_the_one_that_is_left_counts(
    gone: str, again: int, endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.rule = once(FAULTS["500"], 3)
    endpoint.path_rule = lambda method, path, nth: (
        Fault("404", 404)
        if path in [f"/v1/files/{one[gone]}/content" for one in endpoint.batches.all[:1]]
        else None
    )
    report = ask_all(requests(5), batch_llm(endpoint), ledger, policy=policy(price=Price(1, 1)))
    assert report.asked == 5
    assert [len(file) for file in lines(endpoint)] == [5, again]
    assert ledger.totals().presumed_cost > 0


def test_lines_that_nobody_can_read_are_asked_again_in_the_end(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.path_rule = lambda method, path, nth: (
        FAULTS["html body"]
        if path.endswith("/content") and len(endpoint.batches.all) == 1
        else None
    )
    report = ask_all(requests(2), batch_llm(endpoint), ledger, policy=policy(price=Price(1, 1)))
    assert (report.asked, report.calls) == (2, 4)
    assert ledger.totals().presumed_cost > 0


def test_the_report_tells_how_far_the_server_is(endpoint: Endpoint, ledger: Ledger) -> None:
    seen: list[RunReport] = []
    ask_all(requests(4), batch_llm(endpoint), ledger, policy=policy(), progress=seen.append)
    assert {report.batches for report in seen} == {0, 1}
    assert [report.done for report in seen] == sorted(report.done for report in seen)
    assert (seen[-1].batches, seen[-1].asked) == (0, 4)


def test_what_came_back_before_it_was_asked_for_counts_once(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.batches.delay_s = 60.0
    llm = batch_llm(endpoint)

    def press(report: RunReport) -> None:
        if report.batches == 1:
            os.kill(os.getpid(), signal.SIGINT)

    async def let_it_end() -> str:
        endpoint.batches.delay_s = 0.0
        while not (remote := await llm.poll("batch_000001")).is_finished:
            pass
        await llm.aclose()
        return remote.status

    ask_all(requests(4), llm, ledger, policy=policy(), progress=press)
    assert asyncio.run(let_it_end()) == "completed"
    given = [*requests(5), *requests(1)]
    report = ask_all(given, llm, ledger, policy=policy())
    assert (report.asked, report.calls) == (5, 5)
    assert report.reused + report.repeated == 1
    assert report.done == 6


def test_a_private_batch_goes_nowhere_else() -> None:
    url = "https://api.openai.com/v1"
    with pytest.raises(LLMError, match="a private scenario talks only to hosts in allow_hosts"):
        OpenAIBatchLLM(model="tiny", base_url=url, allow_hosts=["llm.internal"])


def _balance(ledger: Ledger) -> None:
    assert violations(ledger.rows) == []
