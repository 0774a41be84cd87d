"""Claims and settlements: one run gets a prompt, and the books balance after each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from reki_feast.llm import (
    Answer,
    EchoLLM,
    Ledger,
    Limits,
    Request,
    RequestError,
    Spent,
    entries,
    reading,
)
from reki_feast.llm.entries import Asker, Claim
from reki_feast.llm.processes import LEASE, this_process
from tests.llm.entering import (
    AS_OF,
    ELSEWHERE,
    LLM,
    Clock,
    bad,
    begin,
    claim,
    claimed,
    end,
    failed,
    good,
    key_of,
    kill,
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
        assert reading.broken_rules(opened.rows) == []


def prompt(ledger: Ledger, columns: str, asked: Request | None = None) -> tuple[Any, ...]:
    """Columns of a prompt's row."""
    query = f"SELECT {columns} FROM prompts WHERE key = ?"
    return ledger.rows(query, (key_of(asked or request()),))[0]


def calls(ledger: Ledger, columns: str) -> list[tuple[Any, ...]]:
    return ledger.rows(f"SELECT {columns} FROM calls ORDER BY id")


def run_of(ledger: Ledger, run: str, columns: str) -> tuple[Any, ...]:
    return ledger.rows(f"SELECT {columns} FROM runs WHERE id = ?", (run,))[0]


# --- who gets a prompt ----------------------------------------------------------------------


def test_a_claim_is_a_call_on_disk_before_it_goes_out(ledger: Ledger) -> None:
    won = claimed(ledger, begin(ledger), worst=WORST)
    assert (won.purpose, won.mends, won.remark, won.draft) == ("ask", 0, "", "")
    assert prompt(ledger, "state, run, owner, prompt") == ("sent", "run", "0", "prompt 0")
    assert calls(ledger, "id, run, attempt, state, purpose, reserved_tokens, reserved_cost") == [
        (won.call, "run", 1, "sent", "ask", 100, 0.5)
    ]
    reserved = "reserved_calls, reserved_tokens, reserved_cost, calls"
    assert run_of(ledger, "run", reserved) == (1, 100, 0.5, 0)


def test_one_of_two_runs_gets_a_prompt(ledger: Ledger) -> None:
    one, two = begin(ledger, "one"), begin(ledger, "two")
    won = claimed(ledger, one)
    assert refused(ledger, two) == "held"
    assert refused(ledger, one) == "held"
    settle(ledger, good(won, ANSWER))
    assert refused(ledger, two) == refused(ledger, one) == "answered"


def test_a_prompt_between_two_tries_stays_with_its_run(ledger: Ledger) -> None:
    one, two = begin(ledger, "one"), begin(ledger, "two")
    settle(ledger, failed(claimed(ledger, one), again=True))
    assert refused(ledger, two) == "held"
    assert claimed(ledger, one).call == 2


def test_another_model_or_parameters_is_another_prompt(ledger: Ledger) -> None:
    record(ledger, begin(ledger), request(), ANSWER)
    other = begin(ledger, "other", llm=EchoLLM(name="other"))
    assert claimed(ledger, other).call == 2


def test_a_failed_prompt_is_the_next_run_s(ledger: Ledger) -> None:
    one, two = begin(ledger, "one"), begin(ledger, "two")
    settle(ledger, failed(claimed(ledger, one)))
    assert prompt(ledger, "state, run") == ("failed", None)
    assert claimed(ledger, two).purpose == "ask"


def test_a_prompt_in_a_batch_is_left_alone(ledger: Ledger) -> None:
    asker, asked = begin(ledger), request()
    row = ("b-1", asker.run, asker.llm, "written", 1, ledger.now(), ledger.now())
    ledger.do(
        [
            lambda connection: connection.execute(
                "INSERT INTO batches (id, run, llm, state, calls, created, updated)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            ),
            partial(
                entries.claim,
                asker=asker,
                key=key_of(asked),
                request=asked,
                worst_of=lambda request: WORST,
                now=ledger.now(),
                batch="b-1",
            ),
        ]
    )
    end(ledger, asker)
    got = claim(ledger, begin(ledger, "next"), asked)
    assert got == entries.NoClaim("in batch", "b-1")
    assert run_of(ledger, "run", "reserved_calls, calls") == (1, 0)


# --- runs that end, one way or another ------------------------------------------------------


def test_a_dead_run_s_prompt_is_taken_over_and_its_call_counts(ledger: Ledger) -> None:
    dead, two = begin(ledger, "dead"), begin(ledger, "two")
    claimed(ledger, dead, worst=WORST)
    assert refused(ledger, two) == "held"
    kill(ledger, dead)
    assert claimed(ledger, two).call == 2
    assert calls(ledger, "run, state, attempt, counted, presumed, prompt_tokens, cost") == [
        ("dead", "lost", 1, 1, 1, 100, 0.5),
        ("two", "sent", 2, 0, 0, 0, 0.0),
    ]
    sums = "calls, prompt_tokens, cost, presumed_cost, reserved_calls, reserved_tokens"
    assert run_of(ledger, "dead", sums) == (1, 100, 0.5, 0.5, 0, 0)
    assert ledger.totals().presumed_cost == 0.5


def test_a_run_that_is_over_without_a_call_leaves_its_prompts_free(ledger: Ledger) -> None:
    dead, two = begin(ledger, "dead"), begin(ledger, "two")
    settle(ledger, failed(claimed(ledger, dead), again=True))
    kill(ledger, dead)
    assert claimed(ledger, two).call == 2
    assert run_of(ledger, "dead", "calls") == (0,)


def test_a_run_elsewhere_is_over_when_it_was_not_seen_for_long(
    ledger: Ledger, clock: Clock
) -> None:
    far, near = begin(ledger, "far", process=ELSEWHERE), begin(ledger, "near")
    claimed(ledger, far)
    clock.advance(LEASE_S - 1)
    assert refused(ledger, near) == "held"
    ledger.do([partial(entries.see_run, run="far", now=ledger.now())])
    clock.advance(LEASE_S - 1)
    assert refused(ledger, near) == "held"
    clock.advance(1)
    assert claimed(ledger, near).call == 2


def test_a_reply_that_comes_after_the_run_was_taken_for_dead(ledger: Ledger, clock: Clock) -> None:
    far, near = begin(ledger, "far", process=ELSEWHERE), begin(ledger, "near")
    late = claimed(ledger, far, worst=WORST)
    clock.advance(LEASE_S)
    won = claimed(ledger, near, worst=WORST)
    settle(ledger, good(late, ANSWER))
    assert reading.broken_rules(ledger.rows) == []
    settle(ledger, good(won, ANSWER))
    assert ledger.answered(key_of(request())) is not None


def test_ending_a_run_frees_its_prompts_and_loses_its_calls(ledger: Ledger) -> None:
    asker = begin(ledger)
    claimed(ledger, asker, request(0), WORST)
    settle(ledger, failed(claimed(ledger, asker, request(1)), again=True))
    record(ledger, asker, request(2), ANSWER)
    end(ledger, asker, "stopped: interrupted")
    columns = "outcome, calls, reserved_calls, prompt_tokens, completion_tokens, presumed_cost"
    assert run_of(ledger, "run", columns) == ("stopped: interrupted", 2, 0, 130, 4, 0.5)
    states = [prompt(ledger, "state, run", request(n)) for n in range(3)]
    assert states == [("planned", None), ("planned", None), ("answered", None)]
    assert [row[0] for row in calls(ledger, "state")] == ["lost", "failed", "answered"]


def test_releasing_a_call_frees_its_prompt(ledger: Ledger) -> None:
    asker = begin(ledger)
    won = claimed(ledger, asker, worst=WORST)
    ledger.do([partial(entries.release, lost=won, now=ledger.now())])
    assert prompt(ledger, "state, run") == ("planned", None)
    assert run_of(ledger, "run", "calls, presumed_cost, reserved_calls") == (1, 0.5, 0)
    assert claimed(ledger, asker).call == 2


def test_what_a_run_was_expected_to_take_adds_up(ledger: Ledger) -> None:
    asker = begin(ledger)
    expected = "planned_calls, planned_tokens, planned_cost"
    assert run_of(ledger, "run", expected) == (None, None, None)
    for planned in (Spent(3, 40, 0.5), Spent(1, 2, 0.25)):
        ledger.do([partial(entries.expect, run=asker.run, planned=planned)])
    assert run_of(ledger, "run", expected) == (4, 42, 0.75)


# --- answers, renewals, what fails a gate ---------------------------------------------------


def test_an_answer_is_entered_whole(ledger: Ledger) -> None:
    settle(ledger, good(claimed(ledger, begin(ledger)), ANSWER, coverage=0.75, bands=(7, 8, 7)))
    columns = "state, answer, model, finish_reason, coverage, gate, fault, draft, run, answered"
    row = ("answered", "text", "m-1", "stop", 0.75, "", "", "", None, AS_OF.isoformat())
    assert prompt(ledger, columns) == row
    columns = "state, status, counted, presumed, prompt_tokens, completion_tokens, latency_s, text"
    assert calls(ledger, columns) == [("answered", 200, 1, 0, 30, 4, 0.5, None)]
    assert ledger.alike("item", "knowledge", [8, 9]) == [("0", "text")]
    assert ledger.alike("user", "knowledge", [8, 9]) == []
    assert ledger.alike("item", "knowledge", []) == []


def test_an_answer_is_asked_for_anew_when_it_is_old(ledger: Ledger, clock: Clock) -> None:
    asker = begin(ledger)
    settle(ledger, good(claimed(ledger, asker), ANSWER, bands=(7,)))
    assert refused(ledger, asker, request(renew_before=AS_OF)) == "answered"
    clock.advance(60)
    old = request(renew_before=AS_OF + timedelta(seconds=30))
    settle(ledger, good(claimed(ledger, asker, old), replace(ANSWER, text="new"), bands=(8,)))
    assert ledger.answered(key_of(request())) == Answer("new", "m-1", "stop")
    assert refused(ledger, asker, old) == "answered"
    assert ledger.alike("item", "knowledge", [7]) == []
    assert ledger.alike("item", "knowledge", [8]) == [("0", "new")]


@pytest.mark.parametrize("how", ["failed", "quarantined", "lost", "taken over"])
def test_a_renewal_that_fails_leaves_the_old_answer(ledger: Ledger, clock: Clock, how: str) -> None:
    asker, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    settle(ledger, good(claimed(ledger, asker), ANSWER, coverage=0.75))
    before = ledger.answers(prompts(request()), LLM).to_pylist()
    clock.advance(60)
    won = claimed(ledger, asker, old)
    assert ledger.answers(prompts(request()), LLM).to_pylist() == before
    if how == "failed":
        settle(ledger, failed(won))
    elif how == "quarantined":
        settle(ledger, bad(won, replace(ANSWER, text="worse", model="m-2")))
    elif how == "lost":
        end(ledger, asker)
    else:
        kill(ledger, asker)
        settle(ledger, failed(claimed(ledger, begin(ledger, "two"), old)))
    assert prompt(ledger, "state, run") == ("answered", None)
    assert ledger.answers(prompts(request()), LLM).to_pylist() == before
    assert ledger.quarantined(prompts(request()), LLM) == set()


def test_a_renewal_that_failed_is_tried_again(ledger: Ledger, clock: Clock) -> None:
    asker, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    record(ledger, asker, request(), ANSWER)
    clock.advance(60)
    settle(ledger, failed(claimed(ledger, asker, old)))
    assert refused(ledger, asker) == "answered"
    assert claimed(ledger, asker, old).call == 3


@pytest.mark.parametrize("how", ["under way", "between tries", "ended", "killed"])
def test_who_wants_no_renewal_takes_the_answer_that_there_is(
    ledger: Ledger, clock: Clock, how: str
) -> None:
    asker, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    record(ledger, asker, request(), ANSWER)
    clock.advance(60)
    won = claimed(ledger, asker, old)
    if how != "under way":
        settle(ledger, failed(won, again=True))
    if how == "ended":
        end(ledger, asker)
    elif how == "killed":
        kill(ledger, asker)
    assert refused(ledger, begin(ledger, "next")) == "answered"


def test_a_renewal_has_mends_of_its_own(ledger: Ledger, clock: Clock) -> None:
    asker, old = begin(ledger), request(renew_before=AS_OF + timedelta(seconds=30))
    settle(ledger, bad(claimed(ledger, asker), ANSWER, again=True))
    settle(ledger, good(claimed(ledger, asker), ANSWER))
    clock.advance(60)
    won = claimed(ledger, asker, old)
    assert (won.mends, won.remark) == (0, "")


def test_what_fails_a_gate_is_asked_again_with_a_remark(ledger: Ledger) -> None:
    asker = begin(ledger)
    settle(ledger, bad(claimed(ledger, asker), ANSWER, again=True))
    assert prompt(ledger, "state, mends, gate") == ("planned", 1, "language")
    won = claimed(ledger, asker)
    assert (won.purpose, won.mends, won.remark) == ("mend", 1, "it fails language")
    settle(ledger, good(won, ANSWER))
    assert prompt(ledger, "state, mends, gate, fault") == ("answered", 1, "", "")
    assert calls(ledger, "purpose, attempt, gate, text, error") == [
        ("ask", 1, "language", "text", "it fails language"),
        ("mend", 2, "", None, None),
    ]


def test_a_server_s_fault_in_between_leaves_the_remark(ledger: Ledger) -> None:
    asker = begin(ledger)
    settle(ledger, bad(claimed(ledger, asker), ANSWER, again=True))
    settle(ledger, failed(claimed(ledger, asker), again=True))
    won = claimed(ledger, asker)
    assert (won.purpose, won.mends, won.remark) == ("mend", 1, "it fails language")


def test_a_second_gate_replaces_the_remark(ledger: Ledger) -> None:
    asker = begin(ledger)
    settle(ledger, bad(claimed(ledger, asker), ANSWER, again=True))
    settle(ledger, bad(claimed(ledger, asker), ANSWER, "echo", again=True))
    assert claimed(ledger, asker).remark == "it fails echo"
    assert reading.gates(ledger.rows) == [("echo", 1, 0), ("language", 1, 0)]


def test_a_reply_that_was_cut_is_a_gate_too(ledger: Ledger) -> None:
    cut = RequestError("the answer is whole", found="it was cut", status=200, gate="cut")
    asker = begin(ledger)
    settle(ledger, failed(claimed(ledger, asker), cut, again=True, spent=Spent(1, 9, 0.1)))
    assert claimed(ledger, asker).purpose == "mend"
    assert calls(ledger, "gate, counted, prompt_tokens, status")[0] == ("cut", 1, 9, 200)


def test_quarantined_stays_unless_it_is_to_be_tried_again(ledger: Ledger) -> None:
    asker = begin(ledger)
    settle(ledger, bad(claimed(ledger, asker), ANSWER, again=True))
    settle(ledger, bad(claimed(ledger, asker), replace(ANSWER, text="worse")))
    assert refused(ledger, asker) == refused(ledger, begin(ledger, "next")) == "quarantined"
    assert ledger.quarantined(prompts(request()), LLM) == {request().prompt_hash}
    assert reading.examples(ledger.rows, "language", 1) == [
        ("item", "0", "it fails language", "worse")
    ]
    won = claimed(ledger, begin(ledger, "retry", retry_quarantined=True))
    assert (won.purpose, won.mends, won.remark) == ("ask", 0, "")


def test_a_draft_is_kept_for_its_review(ledger: Ledger) -> None:
    asker = begin(ledger)
    draft = replace(good(claimed(ledger, asker), ANSWER), state="planned", keep=None, draft="text")
    settle(ledger, draft)
    assert ledger.answered(key_of(request())) is None
    won = claimed(ledger, asker)
    assert (won.purpose, won.draft) == ("review", "text")
    settle(ledger, replace(failed(won, again=True), draft=won.draft))
    won = claimed(ledger, asker)
    assert (won.purpose, won.draft) == ("review", "text")
    settle(ledger, good(won, replace(ANSWER, text="better")))
    assert prompt(ledger, "answer, draft") == ("better", "")
    assert calls(ledger, "purpose, text") == [("ask", "text"), ("review", None), ("review", None)]


def test_a_draft_outlives_its_run(ledger: Ledger) -> None:
    asker = begin(ledger)
    draft = replace(good(claimed(ledger, asker), ANSWER), state="planned", keep=None, draft="text")
    settle(ledger, draft)
    end(ledger, asker)
    assert claimed(ledger, begin(ledger, "next")).draft == "text"


def test_tokens_paid_in_vain_stay_on_the_bill(ledger: Ledger) -> None:
    asker = begin(ledger)
    settle(ledger, failed(claimed(ledger, asker), spent=Spent(1, 9)))
    record(ledger, asker, request(), ANSWER)
    totals = ledger.totals()
    assert (totals.answered, totals.failed, totals.calls) == (1, 0, 2)
    assert (totals.prompt_tokens, totals.completion_tokens) == (39, 4)


def test_what_a_refusal_enters(ledger: Ledger) -> None:
    settle(ledger, failed(claimed(ledger, begin(ledger))))
    assert calls(ledger, "state, status, counted, error") == [
        ("failed", 503, 0, "the server answers the call\n  found: 503")
    ]
    assert reading.failures(ledger.rows) == [
        ("failed", "item", "0", "the server answers the call\n  found: 503")
    ]


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ((Limits("the run", max_calls=1), Limits("the project")), "max_calls=1 of the run"),
        ((Limits("the run", max_tokens=199), Limits("the project")), "max_tokens=199 of the run"),
        ((Limits("the run"), Limits("the project", max_cost=0.9)), "max_cost=0.9 of the project"),
    ],
)
def test_open_calls_count_as_their_worst(
    ledger: Ledger, limits: tuple[Limits, Limits], says: str
) -> None:
    asker = begin(ledger, limits=limits)
    won = claimed(ledger, asker, request(0), WORST)
    assert claim(ledger, asker, request(1), WORST) == entries.NoClaim("over", says)
    assert ledger.rows("SELECT COUNT(*) FROM prompts") == [(1,)]
    settle(ledger, failed(won))
    assert claimed(ledger, asker, request(1), WORST).call == 2


def test_the_worst_is_that_of_the_call_as_it_goes_out(ledger: Ledger) -> None:
    asker, seen = begin(ledger), list[tuple[str, str]]()

    def worst_of(asked: Request) -> Spent:
        seen.append((asked.remark, asked.draft))
        return WORST

    def claimed_here() -> Claim:
        entry = partial(
            entries.claim,
            asker=asker,
            key=key_of(request()),
            request=request(),
            worst_of=worst_of,
            now=ledger.now(),
        )
        won = ledger.do([entry])[0]
        assert isinstance(won, Claim)
        return won

    settle(ledger, bad(claimed_here(), ANSWER, again=True))
    draft = replace(good(claimed_here(), ANSWER), state="planned", keep=None, draft="text")
    settle(ledger, draft)
    settle(ledger, good(claimed_here(), ANSWER))
    assert seen == [("", ""), ("it fails language", ""), ("", "text")]


# --- any order of events --------------------------------------------------------------------

KEYS = st.integers(0, 3)
PLACES = st.integers(0, 2)


class Books(RuleBasedStateMachine):
    """Runs of this and another machine claim, settle, end, are killed; time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = Ledger(None, clock=self.clock)
        self.count = 0
        self.limits = (Limits("the run", max_calls=30), Limits("the project", max_calls=60))
        self.live: list[Asker] = []
        self.unseen: list[tuple[Asker, float]] = []  # killed elsewhere: thought alive for a while
        self.open: dict[str, tuple[Asker, Claim]] = {}
        self.late: list[Claim] = []  # of runs elsewhere that were taken for dead, and are not
        self.answers: dict[str, str] = {}

    @initialize()
    def begin_two(self) -> None:
        self.begin(is_near=True, retry=False)
        self.begin(is_near=False, retry=True)

    def teardown(self) -> None:
        self.ledger.close()

    @property
    def now(self) -> float:
        return self.clock.time.timestamp()

    def is_thought_alive(self, asker: Asker) -> bool:
        unseen = any(one is asker and self.now < until for one, until in self.unseen)
        return unseen or any(one is asker for one in self.live)

    @precondition(lambda self: len(self.live) < 3)
    @rule(is_near=st.booleans(), retry=st.booleans())
    def begin(self, is_near: bool, retry: bool) -> None:
        self.count += 1
        process = this_process() if is_near else ELSEWHERE
        name = f"{'near' if is_near else 'far'} {self.count}"
        asker = begin(
            self.ledger, name, process=process, limits=self.limits, retry_quarantined=retry
        )
        self.live.append(asker)

    @precondition(lambda self: self.live)
    @rule(place=PLACES, keys=st.sets(KEYS, min_size=1), is_old=st.booleans())
    def claim(self, place: int, keys: set[int], is_old: bool) -> None:
        asker = self.live[place % len(self.live)]
        for key in keys:
            self.claim_one(asker, request(key, renew_before=self.clock.time if is_old else None))

    def claim_one(self, asker: Asker, asked: Request) -> None:
        got = claim(self.ledger, asker, asked, WORST)
        name = key_of(asked)
        if not isinstance(got, Claim):
            return
        if name in self.open:
            holder, lost = self.open[name]
            assert not self.is_thought_alive(holder)
            if holder.run.startswith("far"):
                self.late.append(lost)
        assert asked.renew_before is not None or name not in self.answers
        self.open[name] = (asker, got)

    def pick(self, place: int) -> Claim | None:
        """An open call of a run that lives."""
        mine = [won for asker, won in self.open.values() if asker in self.live]
        if not mine:
            return None
        won = mine[place % len(mine)]
        del self.open[won.key]
        return won

    @rule(place=PLACES, draft=st.booleans())
    def answer(self, place: int, draft: bool) -> None:
        won = self.pick(place)
        if won is None:
            return
        self.count += 1
        answer = replace(ANSWER, text=f"text {self.count}")
        done = good(won, answer, coverage=1.0, bands=(1, self.count))
        if draft and not won.draft:
            settle(self.ledger, replace(done, state="planned", keep=None, draft=answer.text))
        else:
            settle(self.ledger, done)
            self.answers[won.key] = answer.text

    @rule(place=PLACES, again=st.booleans())
    def fail_a_gate(self, place: int, again: bool) -> None:
        won = self.pick(place)
        if won is not None:
            settle(self.ledger, bad(won, ANSWER, again=again))

    @rule(place=PLACES, again=st.booleans(), is_counted=st.booleans())
    def fail(self, place: int, again: bool, is_counted: bool) -> None:
        won = self.pick(place)
        if won is not None:
            spent = won.reserved if is_counted else Spent()
            done = failed(won, again=again, spent=spent)
            settle(self.ledger, replace(done, is_presumed=is_counted, draft=won.draft))

    @precondition(lambda self: self.late)
    @rule(place=PLACES, how=st.sampled_from(["good", "bad", "mend", "failed", "again"]))
    def hear_of_a_lost_call(self, place: int, how: str) -> None:
        """Whatever comes late, the books balance, and an answered prompt stays answered."""
        event(f"a lost call: {how}")
        won = self.late.pop(place % len(self.late))
        self.count += 1
        answer = replace(ANSWER, text=f"text {self.count}")
        done = {
            "good": good(won, answer, coverage=1.0, bands=(self.count,)),
            "bad": bad(won, answer),
            "mend": bad(won, answer, again=True),
            "failed": failed(won),
            "again": failed(won, again=True),
        }[how]
        settle(self.ledger, done)
        if how == "good":
            query = "SELECT answer FROM prompts WHERE key = ?"
            kept = self.ledger.rows(query, (won.key,))[0][0]
            assert kept in (answer.text, self.answers.get(won.key))
            self.answers[won.key] = kept

    @precondition(lambda self: self.live)
    @rule(place=PLACES)
    def end(self, place: int) -> None:
        asker = self.live.pop(place % len(self.live))
        end(self.ledger, asker)
        self.open = {key: pair for key, pair in self.open.items() if pair[0] is not asker}

    @precondition(lambda self: self.live)
    @rule(place=PLACES)
    def kill(self, place: int) -> None:
        asker = self.live.pop(place % len(self.live))
        if asker.run.startswith("near"):
            kill(self.ledger, asker)
        else:
            self.unseen.append((asker, self.now + LEASE_S))

    @precondition(lambda self: any(one.run.startswith("far") for one in self.live))
    @rule(keys=st.sets(KEYS, min_size=1))
    def another_takes_over(self, keys: set[int]) -> None:
        """A run elsewhere has not been seen for long; all the same its replies may come."""
        sleeper = next(one for one in self.live if one.run.startswith("far"))
        self.live.remove(sleeper)
        self.let_time_go_by(90)
        if self.live:
            self.claim(0, keys, is_old=False)

    @rule(seconds=st.sampled_from([1, 90]))
    def let_time_go_by(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for asker in self.live:
            self.ledger.do([partial(entries.see_run, run=asker.run, now=self.ledger.now())])

    @invariant()
    def books_balance(self) -> None:
        assert reading.broken_rules(self.ledger.rows) == []

    @invariant()
    def answers_stay(self) -> None:
        told = dict(self.ledger.rows("SELECT key, answer FROM prompts WHERE answer IS NOT NULL"))
        assert told == self.answers

    @invariant()
    def limits_hold(self) -> None:
        rows = self.ledger.rows("SELECT calls + reserved_calls FROM runs")
        assert all(row[0] <= 30 for row in rows)
        assert sum(row[0] for row in rows) <= 60

    @invariant()
    def open_calls_are_those_claimed(self) -> None:
        rows = self.ledger.rows("SELECT key, id FROM calls WHERE state = 'sent'")
        assert dict(rows) == {key: won.call for key, (_, won) in self.open.items()}


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
