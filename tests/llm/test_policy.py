"""What becomes of a call: each kind of error and answer, in each state of affairs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace
from typing import Any

import pytest

from reki_feast.llm import (
    Answer,
    EchoLLM,
    Price,
    Request,
    RequestError,
    RequestPolicy,
    SpendLimits,
    Spent,
    Verdict,
)
from reki_feast.llm.interface import FailedReply
from reki_feast.llm.ledger.records import Lease
from reki_feast.llm.messages import messages_of
from reki_feast.llm.policy import RetryState, outcome_of_answer, outcome_of_error, request_to_send
from tests.llm.entering import LLM, request

RESERVED = Spent(1, 1_000, 0.5)
ASK = Lease("key", 7, reserved=RESERVED)
MEND = replace(ASK, re_prompts=1, feedback="it was cut")
REVIEW = replace(ASK, draft="a draft")
PRICE = Price(prompt=1.0, completion=10.0)
ANSWER = Answer("text", "m-1", "stop", 30, 4)
POLICY = RequestPolicy(backoff_s=1.0, price=PRICE)


def error(**given: Any) -> RequestError:
    """An error of a call; what the constructor does not take is set, or is of the reply."""
    names = ("is_throttled", "is_uncounted", "wait_s")
    later = {name: given.pop(name) for name in names if name in given}
    of_reply = [one.name for one in fields(FailedReply) if one.name in given]
    reply = FailedReply(**{name: given.pop(name) for name in of_reply})
    made = RequestError("the server answers the call", detail="it does not", reply=reply, **given)
    for name, value in later.items():
        setattr(made, name, value)
    return made


BUSY = {"again": True, "status": 429, "is_throttled": True}
BROKEN = {"again": True, "status": 500}
LOST = {"again": True, "is_lost": True}
UNREACHED = {"again": True}
REFUSED = {"status": 400}


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "failed", "throttled", "is_reachable", "state"),
    [
        (REFUSED, 0, 0, True, "failed"),
        (BROKEN, 0, 0, True, "planned"),
        (BROKEN, 6, 0, True, "planned"),
        (BROKEN, 7, 0, True, "failed"),  # eight attempts
        (BROKEN, 6, 0, False, "planned"),  # a status proves that somebody is there
        (UNREACHED, 1, 0, False, "planned"),
        (UNREACHED, 2, 0, False, "failed"),
        (UNREACHED, 2, 0, True, "planned"),
        (UNREACHED, 7, 0, True, "failed"),
        (LOST, 2, 0, True, "planned"),
        (LOST, 3, 0, True, "failed"),  # it was long, and perhaps paid for
        (LOST, 2, 0, False, "planned"),
        (BUSY, 7, 0, True, "planned"),  # to be turned away is no fault
        (BUSY, 0, 28, True, "planned"),
        (BUSY, 0, 29, True, "failed"),
        ({**REFUSED, "again": True, "is_uncounted": True}, 7, 29, False, "planned"),
    ],
)
def test_whether_a_call_goes_out_again(
    what: dict[str, Any], failed: int, throttled: int, is_reachable: bool, state: str
) -> None:
    retries = RetryState(failed, throttled)
    done, _ = outcome_of_error(
        request(), ASK, error(**what), POLICY, retries, is_reachable=is_reachable
    )
    assert done.state == state
    assert done.keep is None


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_so_many_attempts_and_no_more(attempts: int) -> None:
    policy, retries, states = replace(POLICY, attempts=attempts), RetryState(), list[str]()
    while "failed" not in states:
        done, _ = outcome_of_error(
            request(), ASK, error(**BROKEN), policy, retries, is_reachable=True
        )
        states.append(done.state)
    assert len(states) == attempts


def test_pauses_of_a_limit_use_up_no_attempts() -> None:
    retries = RetryState()
    for what in (BUSY, BUSY, {**BUSY, "is_uncounted": True}, BROKEN):
        outcome_of_error(request(), ASK, error(**what), POLICY, retries, is_reachable=True)
    assert retries == RetryState(failed=1, throttled=2)


@pytest.mark.parametrize(
    ("what", "retries", "least", "most"),
    [
        (BROKEN, RetryState(0), 0.5, 1.0),
        (BROKEN, RetryState(1), 1.0, 2.0),
        (BROKEN, RetryState(4), 8.0, 16.0),
        (BUSY, RetryState(4, 0), 0.5, 1.0),
        (BUSY, RetryState(0, 2), 2.0, 4.0),
        (BUSY, RetryState(0, 20), 30.0, 60.0),  # at most a minute
        (
            {**BUSY, "wait_s": 300.0},
            RetryState(),
            0.0,
            0.0,
        ),  # all calls pause: see the limiter
        ({**BROKEN, "wait_s": 30.0}, RetryState(), 30.0, 31.0),
        ({**BROKEN, "wait_s": 0.0}, RetryState(2), 2.0, 4.0),  # that is no pause
        ({**BUSY, "wait_s": 0.0}, RetryState(0, 2), 2.0, 4.0),
        ({**BUSY, "wait_s": 0.2}, RetryState(0, 4), 8.0, 16.0),
        ({**BUSY, "wait_s": 0.3}, RetryState(0, 4), 0.0, 0.0),
        ({**BROKEN, "is_uncounted": True}, RetryState(), 0.0, 0.0),
        (REFUSED, RetryState(), 0.0, 0.0),
    ],
)
def test_how_long_a_prompt_waits(
    what: dict[str, Any], retries: RetryState, least: float, most: float
) -> None:
    waits = []
    for _ in range(50):
        now = replace(retries)
        waits.append(
            outcome_of_error(request(), ASK, error(**what), POLICY, now, is_reachable=True)[1]
        )
    assert least <= min(waits) <= max(waits) <= most
    if least < most:
        assert len(set(waits)) > 1, "not all come back at once"


@pytest.mark.parametrize(
    ("what", "spent", "prompt_tokens", "is_presumed"),
    [
        (BROKEN, Spent(), 0, False),
        (BUSY, Spent(), 0, False),
        (REFUSED, Spent(), 0, False),
        (UNREACHED, Spent(), 0, False),
        (LOST, RESERVED, 1_000, True),
        ({"gate": "cut"}, RESERVED, 1_000, True),  # a server that counts nothing
        ({"gate": "empty"}, RESERVED, 1_000, True),
        ({**LOST, "prompt_tokens": 30}, Spent(1, 30, 30e-6), 30, False),
        (
            {"gate": "cut", "prompt_tokens": 30, "completion_tokens": 4},
            Spent(1, 34, 70e-6),
            30,
            False,
        ),
        ({"gate": "filtered", "completion_tokens": 4}, Spent(1, 4, 40e-6), 0, False),
    ],
)
def test_what_a_call_without_an_answer_takes(
    what: dict[str, Any], spent: Spent, prompt_tokens: int, is_presumed: bool
) -> None:
    done, _ = outcome_of_error(
        request(), ASK, error(**what), POLICY, RetryState(), is_reachable=True
    )
    assert done.spent.cost == pytest.approx(spent.cost)
    assert replace(done.spent, cost=spent.cost) == spent
    assert (done.prompt_tokens, done.is_presumed) == (prompt_tokens, is_presumed)


@pytest.mark.parametrize(
    ("lease", "re_prompts", "state"),
    [
        (ASK, 1, "planned"),
        (ASK, 0, "quarantined"),
        (MEND, 1, "quarantined"),
        (MEND, 2, "planned"),
        (REVIEW, 1, "answered"),
    ],
)
@pytest.mark.parametrize("gate", ["cut", "filtered", "refusal", "empty"])
def test_a_reply_without_an_answer_is_mended(
    gate: str, lease: Lease, re_prompts: int, state: str
) -> None:
    given = error(gate=gate, status=200, prompt_tokens=9)
    policy = replace(POLICY, re_prompts=re_prompts)
    done, wait_s = outcome_of_error(
        request(), lease, given, policy, RetryState(), is_reachable=True
    )
    assert (done.state, wait_s) == (state, 0.0)
    if lease is REVIEW:
        assert (done.keep, done.verdict.gate) == ("a draft", "")
    else:
        assert (done.keep, done.verdict) == (None, Verdict(gate, "it does not"))


@pytest.mark.parametrize("re_prompts", [0, 1, 9])
def test_a_prompt_that_a_filter_refuses_is_not_asked_again(re_prompts: int) -> None:
    given, policy = error(gate="filtered", status=400), replace(POLICY, re_prompts=re_prompts)
    done, wait_s = outcome_of_error(request(), ASK, given, policy, RetryState(), is_reachable=True)
    assert (done.state, done.verdict.gate, wait_s) == ("quarantined", "filtered", 0.0)
    # it is no call that was answered, but some servers bill what their filter read
    assert (done.spent.calls, done.spent.tokens, done.is_presumed) == (0, 2, True)
    assert done.prompt_tokens == 2
    assert done.spent.cost == pytest.approx(2e-6)
    free = replace(ASK, reserved=Spent(1))
    done, _ = outcome_of_error(request(), free, given, policy, RetryState(), is_reachable=True)
    assert (done.state, done.spent) == ("quarantined", Spent())


def test_a_review_that_a_filter_refuses_leaves_the_draft() -> None:
    given = error(gate="filtered", status=400)
    done, _ = outcome_of_error(request(), REVIEW, given, POLICY, RetryState(), is_reachable=True)
    assert (done.state, done.keep, done.verdict.gate) == ("answered", "a draft", "")


def test_a_review_that_meets_an_error_is_tried_again_then_the_draft_is_the_answer() -> None:
    done, _ = outcome_of_error(
        request(), REVIEW, error(**BROKEN), POLICY, RetryState(), is_reachable=True
    )
    assert (done.state, done.draft, done.keep) == ("planned", "a draft", None)
    for what in (BROKEN, REFUSED):
        done, _ = outcome_of_error(
            request(), REVIEW, error(**what), POLICY, RetryState(7), is_reachable=True
        )
        assert (done.state, done.keep) == ("answered", "a draft")


# --- answers --------------------------------------------------------------------------------


def judged(gate: str = "", **verdict: Any) -> RequestPolicy:
    fault = f"it fails {gate}" if gate else ""
    return replace(POLICY, validator=lambda asked, text: Verdict(gate, fault, **verdict))


def test_an_answer_that_is_good_is_kept() -> None:
    done = outcome_of_answer(request(), ASK, ANSWER, POLICY)
    assert (done.state, done.keep, done.answer, done.draft) == ("answered", "text", ANSWER, "")
    assert (done.spent.calls, done.spent.tokens, done.prompt_tokens) == (1, 34, 30)
    assert done.spent.cost == pytest.approx(70e-6)
    assert not done.is_presumed


def test_what_the_gates_say_goes_with_it() -> None:
    done = outcome_of_answer(request(), ASK, ANSWER, judged(coverage=0.5, bands=(7,)))
    assert done.verdict == Verdict("", "", 0.5, (7,))


@pytest.mark.parametrize(
    ("lease", "re_prompts", "state"),
    [
        (ASK, 1, "planned"),
        (ASK, 0, "quarantined"),
        (MEND, 1, "quarantined"),
        (MEND, 2, "planned"),
    ],
)
def test_an_answer_that_fails_a_gate_is_mended(lease: Lease, re_prompts: int, state: str) -> None:
    policy = replace(judged("echo", coverage=0.5), re_prompts=re_prompts)
    done = outcome_of_answer(request(), lease, ANSWER, policy)
    assert (done.state, done.keep, done.draft) == (state, None, "")
    assert done.verdict == Verdict("echo", "it fails echo", 0.5)
    assert done.spent.calls == 1


@pytest.mark.parametrize(
    ("lease", "factors", "state", "keep", "draft"),
    [
        (ASK, ("genre",), "planned", None, "text"),
        (MEND, ("genre",), "planned", None, "text"),
        (REVIEW, ("genre",), "answered", "text", ""),
        (ASK, (), "answered", "text", ""),  # a list of factors is no knowledge yet
    ],
)
def test_review(
    lease: Lease, factors: tuple[str, ...], state: str, keep: str | None, draft: str
) -> None:
    policy = replace(judged(), review=True)
    done = outcome_of_answer(request(factors=factors), lease, ANSWER, policy)
    assert (done.state, done.keep, done.draft) == (state, keep, draft)


def test_a_review_that_fails_a_gate_leaves_the_draft() -> None:
    def validate(asked: Request, text: str) -> Verdict:
        if text == "a draft":
            return Verdict(coverage=0.75, bands=(1, 2))
        return Verdict("echo", "it fails echo", 0.0)

    policy = replace(POLICY, validator=validate, review=True)
    done = outcome_of_answer(request(), REVIEW, ANSWER, policy)
    assert (done.state, done.keep) == ("answered", "a draft")
    assert done.verdict == Verdict("", "", 0.75, (1, 2))
    assert done.spent.tokens == 34


def test_a_draft_had_passed_whatever_the_gates_say_of_it_now() -> None:
    policy = replace(judged("echo", coverage=0.5), review=True)
    done = outcome_of_answer(request(), REVIEW, ANSWER, policy)
    assert (done.state, done.keep) == ("answered", "a draft")
    assert done.verdict == Verdict("", "", 0.5)


def test_a_server_that_counts_nothing_is_presumed_to_have_counted() -> None:
    answer = replace(ANSWER, text="x" * 40, prompt_tokens=0, completion_tokens=0)
    done = outcome_of_answer(request(), ASK, answer, POLICY)
    assert done.is_presumed
    assert (done.prompt_tokens, done.spent.tokens) == (2, 12)  # "prompt 0", four bytes a token
    assert done.spent.cost == pytest.approx(102e-6)
    longer = outcome_of_answer(request(), REVIEW, answer, POLICY)
    assert longer.prompt_tokens > done.prompt_tokens + 50  # what is said around a draft


def test_a_model_that_costs_nothing_is_not_presumed_to() -> None:
    free = replace(ASK, reserved=Spent(1))
    answer = replace(ANSWER, prompt_tokens=0, completion_tokens=0)
    done = outcome_of_answer(request(), free, answer, POLICY)
    assert (done.is_presumed, done.spent) == (False, Spent(1))


# --- what is sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lease", "says", "says_not"),
    [
        (ASK, [], ["could not be used", "<answer>"]),
        (MEND, ["could not be used: it was cut"], ["<answer>"]),
        (REVIEW, ["<answer>\na draft\n</answer>"], ["could not be used"]),
    ],
)
def test_what_is_said_after_the_prompt(lease: Lease, says: list[str], says_not: list[str]) -> None:
    [message] = messages_of(request_to_send(request(), lease))
    assert message["content"].startswith("prompt 0")
    assert (message["content"] == "prompt 0") == (lease is ASK)
    assert all(one in message["content"] for one in says)
    assert not any(one in message["content"] for one in says_not)


def test_the_identity_of_a_policy() -> None:
    policy = RequestPolicy(run_limits=SpendLimits("the run", max_calls=3), retry_quarantined=True)
    identity = policy.identity("run", LLM)
    assert (identity.run, identity.llm, identity.parameters) == ("run", "echo", LLM.parameters)
    assert identity.limits == (SpendLimits("the run", max_calls=3), SpendLimits("the project"))
    assert identity.retry_quarantined


def test_an_echo_is_asked_what_a_lease_says() -> None:
    llm = EchoLLM(answer=lambda asked: json.dumps([asked.feedback, asked.draft]))
    asked = request_to_send(request(), replace(MEND, draft="a draft"))
    assert json.loads(asyncio.run(llm.ask(asked)).text) == ["it was cut", "a draft"]
