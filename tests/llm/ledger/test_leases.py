"""Claims and settlements: one run gets a prompt, and the books balance after each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from reki_feast.llm import Answer, EchoLLM, Ledger, Request, RequestError, SpendLimits, Spent
from reki_feast.llm.interface import FailedReply
from reki_feast.llm.ledger import invariants, leases, reports, runs
from reki_feast.llm.ledger.processes import LEASE, this_process
from reki_feast.llm.ledger.records import Lease, LeaseDenied, RunIdentity
from tests.llm.entering import (
    AS_OF,
    ELSEWHERE,
    LLM,
    Clock,
    acquire,
    bad,
    begin,
    end,
    failed,
    good,
    key_of,
    kill,
    leased,
    prompts,
    record,
    refused,
    request,
    settle,
)

ANSWER = Answer("text", "m-1", "stop", 30, 4, 0.5)
WORST = Spent(1, 100, 0.5)
LEASE_S = LEASE.total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Iterator[Ledger]:
    with Ledger(None, clock=clock) as opened:
        yield opened
        assert invariants.violations(opened.rows) == []


def prompt(ledger: Ledger, columns: str, asked: Request | None = None) -> tuple[Any, ...]:
    """Columns of a prompt's row."""
    query = f"SELECT {columns} FROM prompts WHERE key = ?"
    return ledger.rows(query, (key_of(asked or request()),))[0]


def calls(ledger: Ledger, columns: str) -> list[tuple[Any, ...]]:
    return ledger.rows(f"SELECT {columns} FROM calls ORDER BY id")


def run_of(ledger: Ledger, run: str, columns: str) -> tuple[Any, ...]:
    return ledger.rows(f"SELECT {columns} FROM runs WHERE id = ?", (run,))[0]


# --- who gets a prompt ----------------------------------------------------------------------


def test_a_lease_is_a_call_on_disk_before_it_goes_out(ledger: Ledger) -> None:
    won = leased(ledger, begin(ledger), worst_case=WORST)
    assert (won.purpose, won.re_prompts, won.feedback, won.draft) == ("ask", 0, "", "")
    assert prompt(ledger, "state, run, owner, prompt") == ("sent", "run", "0", "prompt 0")
    assert calls(ledger, "id, run, attempt, state, purpose, reserved_tokens, reserved_cost") == [
        (won.call, "run", 1, "sent", "ask", 100, 0.5)
    ]
    reserved = "reserved_calls, reserved_tokens, reserved_cost, calls"
    assert run_of(ledger, "run", reserved) == (1, 100, 0.5, 0)


def test_one_of_two_runs_gets_a_prompt(ledger: Ledger) -> None:
    one, two = begin(ledger, "one"), begin(ledger, "two")
    won = leased(ledger, one)
    assert refused(ledger, two) == "held"
    assert refused(ledger, one) == "held"
    settle(ledger, good(won, ANSWER))
    assert refused(ledger, two) == refused(ledger, one) == "answered"


def test_a_prompt_between_two_attempts_stays_with_its_run(ledger: Ledger) -> None:
    one, two = begin(ledger, "one"), begin(ledger, "two")
    settle(ledger, failed(leased(ledger, one), again=True))
    assert refused(ledger, two) == "held"
    assert leased(ledger, one).call == 2


def test_another_model_or_parameters_is_another_prompt(ledger: Ledger) -> None:
    record(ledger, begin(ledger), request(), ANSWER)
    other = begin(ledger, "other", llm=EchoLLM(name="other"))
    assert leased(ledger, other).call == 2


def test_a_failed_prompt_is_the_next_run_s(ledger: Ledger) -> None:
    one, two = begin(ledger, "one"), begin(ledger, "two")
    settle(ledger, failed(leased(ledger, one)))
    assert prompt(ledger, "state, run") == ("failed", None)
    assert leased(ledger, two).purpose == "ask"


def test_a_prompt_in_a_batch_is_left_alone(ledger: Ledger) -> None:
    identity, asked = begin(ledger), request()
    row = ("b-1", identity.run, identity.llm, "written", 1, ledger.now(), ledger.now())
    ledger.do(
        [
            lambda connection: connection.execute(
                "INSERT INTO batches (id, run, llm, state, calls, created, updated)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            ),
            partial(
                leases.acquire,
                identity=identity,
                wanted=leases.LeaseRequest(key_of(asked), asked, lambda request: WORST, "b-1"),
                now=ledger.now(),
            ),
        ]
    )
    end(ledger, identity)
    got = acquire(ledger, begin(ledger, "next"), asked)
    assert got == LeaseDenied("in batch", "b-1")
    assert run_of(ledger, "run", "reserved_calls, calls") == (1, 0)


# --- runs that end, one way or another ------------------------------------------------------


def test_a_dead_run_s_prompt_is_taken_over_and_its_call_counts(ledger: Ledger) -> None:
    dead, two = begin(ledger, "dead"), begin(ledger, "two")
    leased(ledger, dead, worst_case=WORST)
    assert refused(ledger, two) == "held"
    kill(ledger, dead)
    assert leased(ledger, two).call == 2
    assert calls(ledger, "run, state, attempt, counted, presumed, prompt_tokens, cost") == [
        ("dead", "lost", 1, 1, 1, 100, 0.5),
        ("two", "sent", 2, 0, 0, 0, 0.0),
    ]
    sums = "calls, prompt_tokens, cost, presumed_cost, reserved_calls, reserved_tokens"
    assert run_of(ledger, "dead", sums) == (1, 100, 0.5, 0.5, 0, 0)
    assert ledger.totals().presumed_cost == 0.5


def test_a_run_that_is_over_without_a_call_leaves_its_prompts_free(ledger: Ledger) -> None:
    dead, two = begin(ledger, "dead"), begin(ledger, "two")
    settle(ledger, failed(leased(ledger, dead), again=True))
    kill(ledger, dead)
    assert leased(ledger, two).call == 2
    assert run_of(ledger, "dead", "calls") == (0,)


def test_a_run_elsewhere_is_over_when_it_was_not_seen_for_long(
    ledger: Ledger, clock: Clock
) -> None:
    far, near = begin(ledger, "far", process=ELSEWHERE), begin(ledger, "near")
    leased(ledger, far)
    clock.advance(LEASE_S - 1)
    assert refused(ledger, near) == "held"
    ledger.do([partial(runs.heartbeat, run="far", now=ledger.now())])
    clock.advance(LEASE_S - 1)
    assert refused(ledger, near) == "held"
    clock.advance(1)
    assert leased(ledger, near).call == 2


def test_a_reply_that_comes_after_the_run_was_taken_for_dead(ledger: Ledger, clock: Clock) -> None:
    far, near = begin(ledger, "far", process=ELSEWHERE), begin(ledger, "near")
    late_count = leased(ledger, far, worst_case=WORST)
    clock.advance(LEASE_S)
    won = leased(ledger, near, worst_case=WORST)
    settle(ledger, good(late_count, ANSWER))
    assert invariants.violations(ledger.rows) == []
    settle(ledger, good(won, ANSWER))
    assert ledger.answered(key_of(request())) is not None


def test_a_call_that_is_settled_stays_so(ledger: Ledger) -> None:
    won = leased(ledger, begin(ledger), worst_case=WORST)
    settle(ledger, good(won, ANSWER))
    before = calls(ledger, "*")
    settle(ledger, failed(won, spent=WORST))
    settle(ledger, good(won, replace(ANSWER, text="other")))
    assert calls(ledger, "*") == before
    assert prompt(ledger, "state, answer") == ("answered", "text")


def test_ending_a_run_frees_its_prompts_and_loses_its_calls(ledger: Ledger) -> None:
    identity = begin(ledger)
    leased(ledger, identity, request(0), WORST)
    settle(ledger, failed(leased(ledger, identity, request(1)), again=True))
    record(ledger, identity, request(2), ANSWER)
    end(ledger, identity, "stopped: interrupted")
    columns = "outcome, calls, reserved_calls, prompt_tokens, completion_tokens, presumed_cost"
    assert run_of(ledger, "run", columns) == ("stopped: interrupted", 2, 0, 130, 4, 0.5)
    states = [prompt(ledger, "state, run", request(n)) for n in range(3)]
    assert states == [("planned", None), ("planned", None), ("answered", None)]
    assert [row[0] for row in calls(ledger, "state")] == ["lost", "failed", "answered"]


def test_what_a_run_was_expected_to_take_adds_up(ledger: Ledger) -> None:
    identity = begin(ledger)
    expected = "planned_calls, planned_tokens, planned_cost"
    assert run_of(ledger, "run", expected) == (None, None, None)
    for planned in (Spent(3, 40, 0.5), Spent(1, 2, 0.25)):
        ledger.do([partial(runs.add_plan, run=identity.run, planned=planned)])
    assert run_of(ledger, "run", expected) == (4, 42, 0.75)


# --- answers, renewals, what fails a gate ---------------------------------------------------


def test_an_answer_is_entered_whole(ledger: Ledger) -> None:
    settle(ledger, good(leased(ledger, begin(ledger)), ANSWER, coverage=0.75, bands=(7, 8, 7)))
    columns = "state, answer, model, finish_reason, coverage, gate, fault, draft, run, answered"
    row = ("answered", "text", "m-1", "stop", 0.75, "", "", "", None, AS_OF.isoformat())
    assert prompt(ledger, columns) == row
    columns = "state, status, counted, presumed, prompt_tokens, completion_tokens, latency_s, text"
    assert calls(ledger, columns) == [("answered", 200, 1, 0, 30, 4, 0.5, None)]
    assert ledger.alike("item", "knowledge", [8, 9]) == [("0", "text")]
    assert ledger.alike("user", "knowledge", [8, 9]) == []
    assert ledger.alike("item", "knowledge", []) == []


def test_an_answer_is_asked_for_anew_when_it_is_old(ledger: Ledger, clock: Clock) -> None:
    identity = begin(ledger)
    settle(ledger, good(leased(ledger, identity), ANSWER, bands=(7,)))
    assert refused(ledger, identity, request(renew_before=AS_OF)) == "answered"
    clock.advance(60)
    old = request(renew_before=AS_OF + timedelta(seconds=30))
    settle(ledger, good(leased(ledger, identity, old), replace(ANSWER, text="new"), bands=(8,)))
    assert ledger.answered(key_of(request())) == Answer("new", "m-1", "stop")
    assert refused(ledger, identity, old) == "answered"
    assert ledger.alike("item", "knowledge", [7]) == []
    assert ledger.alike("item", "knowledge", [8]) == [("0", "new")]


@pytest.mark.parametrize("how", ["failed", "quarantined", "lost", "taken over"])
def test_a_renewal_that_fails_leaves_the_old_answer(ledger: Ledger, clock: Clock, how: str) -> None:
    identity, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    settle(ledger, good(leased(ledger, identity), ANSWER, coverage=0.75))
    before = ledger.answers(prompts(request()), LLM).to_pylist()
    clock.advance(60)
    won = leased(ledger, identity, old)
    assert ledger.answers(prompts(request()), LLM).to_pylist() == before
    if how == "failed":
        settle(ledger, failed(won))
    elif how == "quarantined":
        settle(ledger, bad(won, replace(ANSWER, text="worse", model="m-2")))
    elif how == "lost":
        end(ledger, identity)
    else:
        kill(ledger, identity)
        settle(ledger, failed(leased(ledger, begin(ledger, "two"), old)))
    assert prompt(ledger, "state, run") == ("answered", None)
    assert ledger.answers(prompts(request()), LLM).to_pylist() == before
    assert ledger.quarantined(prompts(request()), LLM) == set()


def test_a_renewal_that_failed_is_tried_again(ledger: Ledger, clock: Clock) -> None:
    identity, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    record(ledger, identity, request(), ANSWER)
    clock.advance(60)
    settle(ledger, failed(leased(ledger, identity, old)))
    assert refused(ledger, identity) == "answered"
    assert leased(ledger, identity, old).call == 3


def test_a_renewal_that_failed_a_gate_waits_until_it_would_be_old_itself(
    ledger: Ledger, clock: Clock
) -> None:
    identity, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    waiting = partial(
        ledger.unanswered,
        prompts(request()),
        LLM,
        renew_before=lambda kind, as_of: old.renew_before,
    )
    record(ledger, identity, request(), ANSWER)
    clock.advance(60)
    settle(ledger, bad(leased(ledger, identity, old), ANSWER))
    assert refused(ledger, identity, old) == "answered"
    assert waiting().num_rows == 0
    assert waiting(retry_quarantined=True).num_rows == 1
    later = request(renew_before=AS_OF + timedelta(seconds=90))
    won = leased(ledger, begin(ledger, "later"), later)
    settle(ledger, bad(won, ANSWER))
    settle(
        ledger, good(leased(ledger, begin(ledger, "again", retry_quarantined=True), old), ANSWER)
    )
    assert prompt(ledger, "answered, renewed") == (clock.time.isoformat(), None)


@pytest.mark.parametrize("how", ["under way", "between tries", "ended", "killed"])
def test_who_wants_no_renewal_takes_the_answer_that_there_is(
    ledger: Ledger, clock: Clock, how: str
) -> None:
    identity, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    record(ledger, identity, request(), ANSWER)
    clock.advance(60)
    won = leased(ledger, identity, old)
    if how != "under way":
        settle(ledger, failed(won, again=True))
    if how == "ended":
        end(ledger, identity)
    elif how == "killed":
        kill(ledger, identity)
    assert refused(ledger, begin(ledger, "next")) == "answered"


def test_a_renewal_has_mends_of_its_own(ledger: Ledger, clock: Clock) -> None:
    identity, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    settle(ledger, bad(leased(ledger, identity), ANSWER, again=True))
    settle(ledger, good(leased(ledger, identity), ANSWER))
    clock.advance(60)
    won = leased(ledger, identity, old)
    assert (won.re_prompts, won.feedback) == (0, "")


def test_what_fails_a_gate_is_asked_again_with_a_remark(ledger: Ledger) -> None:
    identity = begin(ledger)
    settle(ledger, bad(leased(ledger, identity), ANSWER, again=True))
    assert prompt(ledger, "state, mends, gate") == ("planned", 1, "language")
    won = leased(ledger, identity)
    assert (won.purpose, won.re_prompts, won.feedback) == ("mend", 1, "it fails language")
    settle(ledger, good(won, ANSWER))
    assert prompt(ledger, "state, mends, gate, fault") == ("answered", 1, "", "")
    assert calls(ledger, "purpose, attempt, gate, text, error") == [
        ("ask", 1, "language", "text", "it fails language"),
        ("mend", 2, "", None, None),
    ]


def test_a_server_s_fault_in_between_leaves_the_remark(ledger: Ledger) -> None:
    identity = begin(ledger)
    settle(ledger, bad(leased(ledger, identity), ANSWER, again=True))
    settle(ledger, failed(leased(ledger, identity), again=True))
    won = leased(ledger, identity)
    assert (won.purpose, won.re_prompts, won.feedback) == ("mend", 1, "it fails language")


def test_a_second_gate_replaces_the_remark(ledger: Ledger) -> None:
    identity = begin(ledger)
    settle(ledger, bad(leased(ledger, identity), ANSWER, again=True))
    settle(ledger, bad(leased(ledger, identity), ANSWER, "echo", again=True))
    assert leased(ledger, identity).feedback == "it fails echo"
    assert reports.gates(ledger.rows) == [("echo", 1, 0), ("language", 1, 0)]


def test_a_reply_that_was_cut_is_a_gate_too(ledger: Ledger) -> None:
    cut = RequestError("the answer is whole", detail="it was cut", reply=FailedReply(200, "cut"))
    identity = begin(ledger)
    settle(ledger, failed(leased(ledger, identity), cut, again=True, spent=Spent(1, 9, 0.1)))
    assert leased(ledger, identity).purpose == "mend"
    assert calls(ledger, "gate, counted, prompt_tokens, status")[0] == ("cut", 1, 9, 200)


def test_quarantined_stays_unless_it_is_to_be_tried_again(ledger: Ledger) -> None:
    identity = begin(ledger)
    settle(ledger, bad(leased(ledger, identity), ANSWER, again=True))
    settle(ledger, bad(leased(ledger, identity), replace(ANSWER, text="worse")))
    assert refused(ledger, identity) == refused(ledger, begin(ledger, "next")) == "quarantined"
    assert ledger.quarantined(prompts(request()), LLM) == {request().prompt_hash}
    assert reports.examples(ledger.rows, "language", 1) == [
        ("item", "0", "it fails language", "worse")
    ]
    won = leased(ledger, begin(ledger, "retry", retry_quarantined=True))
    assert (won.purpose, won.re_prompts, won.feedback) == ("ask", 0, "")


def test_a_draft_is_kept_for_its_review(ledger: Ledger) -> None:
    identity = begin(ledger)
    draft = replace(
        good(leased(ledger, identity), ANSWER), state="planned", keep=None, draft="text"
    )
    settle(ledger, draft)
    assert ledger.answered(key_of(request())) is None
    won = leased(ledger, identity)
    assert (won.purpose, won.draft) == ("review", "text")
    settle(ledger, replace(failed(won, again=True), draft=won.draft))
    won = leased(ledger, identity)
    assert (won.purpose, won.draft) == ("review", "text")
    settle(ledger, good(won, replace(ANSWER, text="better")))
    assert prompt(ledger, "answer, draft") == ("better", "")
    assert calls(ledger, "purpose, text") == [("ask", "text"), ("review", None), ("review", None)]


def test_a_draft_outlives_its_run(ledger: Ledger) -> None:
    identity = begin(ledger)
    draft = replace(
        good(leased(ledger, identity), ANSWER), state="planned", keep=None, draft="text"
    )
    settle(ledger, draft)
    end(ledger, identity)
    assert leased(ledger, begin(ledger, "next")).draft == "text"


def test_tokens_paid_in_vain_stay_on_the_bill(ledger: Ledger) -> None:
    identity = begin(ledger)
    settle(ledger, failed(leased(ledger, identity), spent=Spent(1, 9)))
    record(ledger, identity, request(), ANSWER)
    totals = ledger.totals()
    assert (totals.answered, totals.failed, totals.calls) == (1, 0, 2)
    assert (totals.prompt_tokens, totals.completion_tokens) == (39, 4)


def test_what_a_refusal_enters(ledger: Ledger) -> None:
    settle(ledger, failed(leased(ledger, begin(ledger))))
    assert calls(ledger, "state, status, counted, error") == [
        ("failed", 503, 0, "the server answers the call\n  detail: 503")
    ]
    assert reports.failures(ledger.rows) == [
        ("failed", "item", "0", "the server answers the call\n  detail: 503")
    ]


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (
            (SpendLimits("the run", max_calls=1), SpendLimits("the project")),
            "max_calls=1 of the run",
        ),
        (
            (SpendLimits("the run", max_tokens=199), SpendLimits("the project")),
            "max_tokens=199 of the run",
        ),
        (
            (SpendLimits("the run"), SpendLimits("the project", max_cost=0.9)),
            "max_cost=0.9 of the project",
        ),
    ],
)
def test_open_calls_count_as_their_worst(
    ledger: Ledger, limits: tuple[SpendLimits, SpendLimits], says: str
) -> None:
    identity = begin(ledger, limits=limits)
    won = leased(ledger, identity, request(0), WORST)
    assert acquire(ledger, identity, request(1), WORST) == LeaseDenied("over", says)
    assert ledger.rows("SELECT COUNT(*) FROM prompts") == [(1,)]
    settle(ledger, failed(won))
    assert leased(ledger, identity, request(1), WORST).call == 2


def test_the_worst_is_that_of_the_call_as_it_goes_out(ledger: Ledger) -> None:
    identity, seen = begin(ledger), list[tuple[str, str]]()

    def worst_case_of(asked: Request) -> Spent:
        seen.append((asked.feedback, asked.draft))
        return WORST

    def claimed_here() -> Lease:
        wanted = leases.LeaseRequest(key_of(request()), request(), worst_case_of)
        entry = partial(leases.acquire, identity=identity, wanted=wanted, now=ledger.now())
        won = ledger.do([entry])[0]
        assert isinstance(won, Lease)
        return won

    settle(ledger, bad(claimed_here(), ANSWER, again=True))
    draft = replace(good(claimed_here(), ANSWER), state="planned", keep=None, draft="text")
    settle(ledger, draft)
    settle(ledger, good(claimed_here(), ANSWER))
    assert seen == [("", ""), ("it fails language", ""), ("", "text")]


# --- any order of events --------------------------------------------------------------------


class Books:
    """Runs of this and another machine claim, settle, end, are killed; time goes by.

    Each event takes a number, which chooses among what there is, and a yes or no.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.ledger, self.clock = ledger, clock
        self.count = 0
        self.limits = (
            SpendLimits("the run", max_calls=15),
            SpendLimits("the project", max_calls=80),
        )
        self.live: list[RunIdentity] = []
        self.unseen: list[
            tuple[RunIdentity, float]
        ] = []  # killed elsewhere: thought alive for a while
        self.open: dict[str, tuple[RunIdentity, Lease]] = {}
        self.late_count: list[Lease] = []  # of runs elsewhere that were taken for dead, and are not
        self.answers: dict[str, str] = {}
        self.begin(0, True)
        self.begin(1, False)

    @property
    def now(self) -> float:
        return self.clock.time.timestamp()

    def begin(self, number: int, yes: bool) -> None:
        if len(self.live) == 3:
            return
        self.count += 1
        identity = begin(
            self.ledger,
            f"{'near' if yes else 'far'} {self.count}",
            process=this_process() if yes else ELSEWHERE,
            limits=self.limits,
            retry_quarantined=number == 1,
        )
        self.live.append(identity)
        self._put_to_rest()

    def _put_to_rest(self) -> None:
        """A run that begins frees what dead runs held."""
        dead = [key for key, pair in self.open.items() if not self._is_thought_alive(pair[0])]
        for holder, lost in (self.open.pop(key) for key in dead):
            if holder.run.startswith("far"):
                self.late_count.append(lost)

    def acquire(self, number: int, yes: bool) -> None:
        """One of the runs wants all prompts, from one on; perhaps anew."""
        if not self.live:
            return
        identity = self.live[number % len(self.live)]
        for n in range(number % 4, 4):
            asked = request(n, renew_before=self.clock.time if yes else None)
            got = acquire(self.ledger, identity, asked, WORST)
            if isinstance(got, Lease):
                self._given(identity, asked, got)

    def _given(self, identity: RunIdentity, asked: Request, won: Lease) -> None:
        if won.key in self.open:
            holder, lost = self.open[won.key]
            assert not self._is_thought_alive(holder), "two runs that live have one prompt"
            if holder.run.startswith("far"):
                self.late_count.append(lost)
        assert asked.renew_before is not None or won.key not in self.answers
        self.open[won.key] = (identity, won)

    def answer(self, number: int, yes: bool) -> None:
        won = self._pick(number)
        if won is None:
            return
        done = good(won, self._answer(), coverage=1.0, bands=(1, self.count))
        if yes and not won.draft:
            assert done.answer is not None
            done = replace(done, state="planned", keep=None, draft=done.answer.text)
        else:
            self.answers[won.key] = str(done.keep)
        settle(self.ledger, done)

    def fail_a_gate(self, number: int, yes: bool) -> None:
        won = self._pick(number)
        if won is not None:
            settle(self.ledger, bad(won, self._answer(), again=yes))

    def fail(self, number: int, yes: bool) -> None:
        won = self._pick(number)
        if won is not None:
            spent = won.reserved if number % 2 else Spent()
            done = failed(won, again=yes, spent=spent)
            settle(self.ledger, replace(done, is_presumed=bool(number % 2), draft=won.draft))

    def hear_of_a_lost_call(self, number: int, yes: bool) -> None:
        if not self.late_count:
            return
        won = self.late_count.pop()
        answer = self._answer()
        how = {
            0: good(won, answer, coverage=1.0, bands=(self.count,)),
            1: bad(won, answer, again=yes),
            2: failed(won, again=yes),
            3: replace(good(won, answer), state="planned", keep=None, draft="draft"),
        }
        event(f"a lost call: {number}, {yes}")
        settle(self.ledger, how[number])
        if number == 0:  # either will do, the late answer or one that another run had meanwhile
            query = "SELECT answer FROM prompts WHERE key = ?"
            kept = self.ledger.rows(query, (won.key,))[0][0]
            assert kept in (answer.text, self.answers.get(won.key))
            self.answers[won.key] = kept

    def end(self, number: int, yes: bool) -> None:
        if not self.live:
            return
        identity = self.live.pop(number % len(self.live))
        end(self.ledger, identity, "done" if yes else "stopped: interrupted")
        self.open = {key: pair for key, pair in self.open.items() if pair[0] is not identity}

    def kill(self, number: int, yes: bool) -> None:
        if not self.live:
            return
        identity = self.live.pop(number % len(self.live))
        if identity.run.startswith("near"):
            kill(self.ledger, identity)
            return
        self.unseen.append((identity, self.now + LEASE_S))
        if yes:  # nobody hears of it for so long that another takes over
            self.let_time_go_by(3, True)
            self.acquire(0, False)

    def let_time_go_by(self, number: int, yes: bool) -> None:
        self.clock.advance(number * LEASE_S / 3 if yes else number)
        for identity in self.live:
            self.ledger.do([partial(runs.heartbeat, run=identity.run, now=self.ledger.now())])

    def check(self) -> None:
        assert invariants.violations(self.ledger.rows) == []
        told = dict(self.ledger.rows("SELECT key, answer FROM prompts WHERE answer IS NOT NULL"))
        assert told == self.answers
        taken = [row[0] for row in self.ledger.rows("SELECT calls + reserved_calls FROM runs")]
        assert max(taken) <= 15
        assert sum(taken) <= 80
        sent = dict(self.ledger.rows("SELECT key, id FROM calls WHERE state = 'sent'"))
        assert sent == {key: won.call for key, (_, won) in self.open.items()}

    def _is_thought_alive(self, identity: RunIdentity) -> bool:
        is_unseen = any(one is identity and self.now < until for one, until in self.unseen)
        return is_unseen or any(one is identity for one in self.live)

    def _pick(self, number: int) -> Lease | None:
        """An open call of a run that lives, settled now."""
        mine = [won for identity, won in self.open.values() if identity in self.live]
        if not mine:
            return None
        won = mine[number % len(mine)]
        del self.open[won.key]
        return won

    def _answer(self) -> Answer:
        self.count += 1
        return replace(ANSWER, text=f"text {self.count}")


EVENTS = [
    *(Books.begin, Books.acquire, Books.acquire, Books.answer, Books.fail_a_gate, Books.fail),
    *(Books.hear_of_a_lost_call, Books.end, Books.kill, Books.let_time_go_by),
]
STEPS = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 3), st.booleans()), min_size=20, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_books_balance_after_any_event(
    steps: list[tuple[Callable[[Books, int, bool], None], int, bool]],
) -> None:
    clock = Clock()
    with Ledger(None, clock=clock) as ledger:
        books = Books(ledger, clock)
        for do, number, yes in steps:
            do(books, number, yes)
            books.check()


# --- done again, where nobody knows whether it was done --------------------------------------


def again(ledger: Ledger, identity: RunIdentity, asked: Request) -> Lease | LeaseDenied:
    wanted = leases.LeaseRequest(key_of(asked), asked, lambda request: WORST)
    entry = partial(leases.acquire, identity=identity, wanted=wanted, now=ledger.now())
    found: Lease | LeaseDenied = ledger.do([partial(entry, is_repeated=True)])[0]
    return found


def test_a_repeated_lease_is_the_same_lease(ledger: Ledger) -> None:
    mine, theirs = begin(ledger), begin(ledger, "theirs")
    first = leased(ledger, mine, request(), WORST)
    assert again(ledger, mine, request()) == first
    assert again(ledger, theirs, request()) == LeaseDenied("held")
    settle(ledger, bad(first, ANSWER, again=True))
    mend = leased(ledger, mine, request(), WORST)
    assert (mend.re_prompts, bool(mend.feedback)) == (1, True)
    assert again(ledger, mine, request()) == mend
    settle(ledger, good(mend, ANSWER))
    assert again(ledger, mine, request()) == LeaseDenied("answered")


def test_a_repeated_lease_that_was_never_made_is_made(ledger: Ledger) -> None:
    mine = begin(ledger)
    made = again(ledger, mine, request())
    assert isinstance(made, Lease)
    settle(ledger, good(made, ANSWER))
    before = ledger.totals()
    settle(ledger, good(made, ANSWER))  # the same outcome counts once
    assert ledger.totals() == before
