"""Limits: no run, and no two together, pass one; a higher one lets a run go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.llm import (
    Answer,
    BudgetError,
    EchoLLM,
    Ledger,
    Price,
    Request,
    RequestError,
    RequestPolicy,
    Run,
    RunReport,
    SpendLimits,
    Spent,
    Verdict,
    ask_all,
    ask_in_run,
)
from reki_feast.llm.budget import check_price, cost_of, worst_case
from reki_feast.llm.ledger import invariants
from reki_feast.llm.ledger import reports as reading
from reki_feast.llm.messages import user_message
from tests.llm.entering import begin, kill, leased, request, requests

PRICE = Price(prompt=1.0, completion=10.0)
#: The longest answer, in tokens.
LONGEST = 100


class Metered(EchoLLM):
    """Counts a token for each byte that it is sent and says, the dearest that a model can be."""

    def __init__(self, words: Callable[[Request], str] | None = None, **given: Any) -> None:
        super().__init__(name="metered", **given)
        self.words = words or (lambda asked: "x" * (40 + 13 * int(asked.owner) % 60))

    @property
    def max_answer_tokens(self) -> int:
        return LONGEST

    async def ask(self, request: Request) -> Answer:
        answer = await super().ask(request)
        text = self.words(request)
        asked = len((request.system + user_message(request)).encode())
        return replace(answer, text=text, prompt_tokens=asked, completion_tokens=len(text))


class Lossy(Metered):
    """Loses every third reply on the way."""

    async def ask(self, request: Request) -> Answer:
        answer = await super().ask(request)
        if int(request.owner) % 3 == 1 and len([a for a in self.asked if a == request]) < 2:
            raise RequestError("the reply comes whole", again=True, is_lost=True)
        return answer


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened
        assert invariants.violations(opened.rows) == []


def policy_of(*, project_limits: bool = False, concurrency: int = 4, **given: Any) -> RequestPolicy:
    """A policy with these limits."""
    names = ("max_cost", "max_calls", "max_tokens")
    limits = {name: given.pop(name) for name in names if name in given}
    known = {"price": PRICE, "backoff_s": 0.0, "concurrency": concurrency, **given}
    if project_limits:
        return RequestPolicy(project_limits=SpendLimits("the project", **limits), **known)
    return RequestPolicy(run_limits=SpendLimits("the run", **limits), **known)


def spent(ledger: Ledger) -> Spent:
    totals = ledger.totals()
    tokens = totals.prompt_tokens + totals.completion_tokens
    return Spent(totals.calls, tokens, totals.cost)


def worst_case_of(asked: Request) -> Spent:
    with Ledger(None) as scratch:
        return Run(scratch, Metered(), policy_of()).worst_case(asked)


def is_within(limits: SpendLimits, took: Spent) -> bool:
    return limits.passed_by(replace(took, cost=took.cost - 1e-9)) == ""


# --- reckoning ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "took", "says"),
    [
        (SpendLimits(), Spent(10**9, 10**12, 1e9), ""),
        (SpendLimits(max_cost=2.5), Spent(cost=2.5), ""),
        (SpendLimits(max_cost=2.5), Spent(cost=2.51), "max_cost=2.5 of the run"),
        (SpendLimits("the project", max_tokens=7), Spent(tokens=8), "max_tokens=7 of the project"),
        (SpendLimits(max_calls=0), Spent(1), "max_calls=0 of the run"),
        (SpendLimits(max_calls=1, max_tokens=1), Spent(1, 1), ""),
        (
            SpendLimits(max_tokens=1_000_000),
            Spent(tokens=1_000_001),
            "max_tokens=1000000 of the run",
        ),
    ],
)
def test_limits(limits: SpendLimits, took: Spent, says: str) -> None:
    assert limits.passed_by(took) == says


def test_what_is_spent_adds_up() -> None:
    assert Spent(1, 2, 0.5) + Spent(3, 4, 0.25) == Spent(4, 6, 0.75)
    assert cost_of(1_000_000, 100_000, PRICE) == pytest.approx(2.0)
    assert cost_of(1_000_000, 100_000, None) == 0.0


@given(st.text(max_size=200), st.integers(1, 5_000), st.data())
def test_no_call_takes_more_than_the_worst(text: str, longest: int, data: st.DataObject) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    asked = data.draw(st.integers(0, size))  # a token is a byte at least
    said = data.draw(st.integers(0, longest))
    most = worst_case(size, longest, PRICE)
    assert asked + said <= most.tokens
    assert cost_of(asked, said, PRICE) <= most.cost
    assert most.calls == 1


def test_a_model_that_costs_nothing_has_no_worst() -> None:
    assert worst_case(10_000, 0, PRICE) == Spent(1)


@pytest.mark.parametrize("project_limits", [False, True])
def test_a_limit_in_money_needs_a_price(ledger: Ledger, project_limits: bool) -> None:
    policy = policy_of(max_cost=1.0, project_limits=project_limits, price=None)
    llm = Metered()
    with pytest.raises(BudgetError, match="no price of 'metered' is known(.|\n)*max_tokens"):
        ask_all(requests(3), llm, ledger, policy=policy)
    assert llm.asked == []
    assert ledger.rows("SELECT COUNT(*) FROM runs") == [(0,)]


def test_other_limits_need_none() -> None:
    check_price((SpendLimits(max_calls=1, max_tokens=1), SpendLimits()), None, "m")
    check_price((SpendLimits(max_cost=1.0),), PRICE, "m")


# --- one run --------------------------------------------------------------------------------


LIMITS = [{"max_calls": 7}, {"max_tokens": 1_111}, {"max_cost": 0.0055}]


@pytest.mark.parametrize("given", LIMITS, ids=lambda given: next(iter(given)))
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("model", [Metered, Lossy])
def test_a_run_stops_before_its_limit_and_goes_on_with_a_higher_one(
    ledger: Ledger, given: dict[str, Any], concurrency: int, model: type[Metered]
) -> None:
    llm = model(delay_s=0.001)
    policy = policy_of(concurrency=concurrency, **given)
    report = ask_all(requests(30), llm, ledger, policy=policy)
    [name] = given
    assert report.stopped == "budget"
    assert report.limit == f"{name}={given[name]} of the run"
    assert 0 < report.asked < 30
    took, worst_case = spent(ledger), worst_case_of(request(99))
    assert is_within(policy.run_limits, took)
    assert not is_within(policy.run_limits, took + worst_case), (
        "one more call would have found room"
    )
    assert (report.calls, report.tokens) == (took.calls, took.tokens)
    outcome = f"stopped: {report.limit}"
    assert reading.runs(ledger.rows)[0].outcome == outcome

    higher = policy_of(concurrency=concurrency, **{name: 1_000 * given[name]})
    rest = ask_all(requests(30), llm, ledger, policy=higher)
    assert (rest.reused, rest.asked, rest.stopped) == (report.asked, 30 - report.asked, "")
    answered = [asked.owner for asked in llm.asked]
    lost = 10 if model is Lossy else 0
    assert len(answered) == 30 + lost


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4_000), st.integers(1, 9), st.booleans(), st.integers(0, 2))
def test_no_limit_is_ever_passed(
    max_tokens: int, concurrency: int, review: bool, re_prompts: int
) -> None:
    def validate(asked: Request, text: str) -> Verdict:
        return Verdict("odd", "it is odd") if int(asked.owner) % 5 == 1 else Verdict()

    policy = policy_of(
        max_tokens=max_tokens,
        concurrency=concurrency,
        review=review,
        re_prompts=re_prompts,
        validator=validate,
    )
    with Ledger(None) as ledger:
        report = ask_all(requests(12), Metered(), ledger, policy=policy)
        assert is_within(policy.run_limits, spent(ledger))
        assert report.stopped or report.done == 12
        assert invariants.violations(ledger.rows) == []


def test_a_limit_that_no_call_fits_in(ledger: Ledger) -> None:
    llm = Metered()
    report = ask_all(requests(3), llm, ledger, policy=policy_of(max_tokens=10))
    assert (report.stopped, report.done, llm.asked) == ("budget", 0, [])


def test_calls_in_flight_are_waited_for_before_a_run_gives_up(ledger: Ledger) -> None:
    # the worst of two calls does not fit; what they take does
    llm = Metered(words=lambda asked: "x", delay_s=0.005)
    worst_case = worst_case_of(request(0)).tokens
    report = ask_all(requests(6), llm, ledger, policy=policy_of(max_tokens=worst_case + 5 * 9))
    assert (report.asked, report.stopped) == (6, "")
    assert llm.max_in_flight == 1


def test_a_draft_and_its_review_stay_within_the_limit(ledger: Ledger) -> None:
    def words(asked: Request) -> str:
        return "x" * LONGEST

    # a review's question holds the draft and what is said around it
    review = len(user_message(request(draft="x" * LONGEST))) + LONGEST
    first = len("prompt 0") + LONGEST
    policy = policy_of(max_tokens=first + review - 1, review=True)
    report = ask_all(requests(1), Metered(words), ledger, policy=policy)
    assert report.stopped == "budget"
    assert is_within(policy.run_limits, spent(ledger))
    rest = ask_all(requests(1), Metered(words), ledger, policy=policy_of(review=True))
    assert (rest.asked, rest.calls) == (1, 1), "the draft was not asked for again"


def test_several_parts_of_one_run_count_together(ledger: Ledger) -> None:
    policy = policy_of(max_calls=5)
    with Run(ledger, Metered(), policy) as run:
        first = ask_in_run(requests(3), run)
        second = ask_in_run(requests(9), run)
    assert (first.asked, first.stopped) == (3, "")
    assert (second.reused, second.asked, second.stopped) == (3, 2, "budget")
    assert len(reading.runs(ledger.rows)) == 1


# --- the project ----------------------------------------------------------------------------


def test_each_run_has_a_limit_of_its_own_and_the_project_one_for_all(ledger: Ledger) -> None:
    policy = replace(
        policy_of(max_calls=4), project_limits=SpendLimits("the project", max_calls=10)
    )
    reports = [ask_all(requests(30), Metered(), ledger, policy=policy) for _ in range(4)]
    assert [report.asked for report in reports] == [4, 4, 2, 0]
    limits = ["max_calls=4 of the run"] * 2 + ["max_calls=10 of the project"] * 2
    assert [report.limit for report in reports] == limits


def test_a_dead_run_s_open_calls_count_as_their_worst(ledger: Ledger) -> None:
    dead = begin(ledger, "dead")
    leased(ledger, dead, request(99), Spent(1, 800))
    kill(ledger, dead)
    policy = policy_of(max_tokens=1_000, project_limits=True)
    report = ask_all(requests(30), Metered(), ledger, policy=policy)
    assert report.stopped == "budget"
    assert 800 <= spent(ledger).tokens <= 1_000
    asked = ask_all([request(99)], Metered(), ledger, policy=policy)
    assert (asked.asked, asked.stopped) == (0, "budget")


@pytest.mark.parametrize("given", LIMITS, ids=lambda given: next(iter(given)))
def test_two_runs_together_never_pass_the_project_s_limit(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    path, policy = tmp_path / "ledger.sqlite", policy_of(project_limits=True, **given)
    Ledger(path).close()

    def run(first: int) -> RunReport:
        chunk = [request(n) for n in range(first, first + 30)]
        with Ledger(path) as mine:
            return ask_all(chunk, Metered(delay_s=0.002), mine, policy=policy)

    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(run, (0, 100)))
    with Ledger(path) as ledger:
        assert is_within(policy.project_limits, spent(ledger))
        assert invariants.violations(ledger.rows) == []
        assert ledger.totals().answered == sum(report.asked for report in reports)
    assert {report.stopped for report in reports} == {"budget"}


def test_planned_and_taken_are_told_side_by_side(ledger: Ledger) -> None:
    with Run(ledger, Metered(), policy_of()) as run:
        run.expect(Spent(3, 500, 0.5))
        ask_in_run(requests(2), run)
    [told] = reading.runs(ledger.rows)
    assert (told.planned_calls, told.planned_tokens, told.planned_cost) == (3, 500, 0.5)
    assert (told.calls, told.outcome) == (2, "done")
    assert told.cost == pytest.approx(spent(ledger).cost)


def test_metered_answers_are_as_dear_as_they_say() -> None:
    answer = asyncio.run(Metered(lambda asked: json.dumps([1])).ask(request()))
    assert (answer.prompt_tokens, answer.completion_tokens) == (8, 3)
