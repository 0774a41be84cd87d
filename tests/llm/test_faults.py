"""The fault matrix: each fault, for entities and groups, call by call and in batches.

Whatever goes wrong, every prompt ends answered or quarantined, none is paid for twice, and the
ledger's books balance and agree with the server's bill.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reki_feast.errors import LLMError
from reki_feast.knowledge.validation.gates import AnswerRules, AnswerValidator
from reki_feast.llm import Ledger, Request, RequestPolicy, RunReport, ask_all
from reki_feast.llm.ledger import invariants
from reki_feast.schema import content_hash
from tests.llm.models import openai_batch_llm, openai_llm
from tests.llm.server_faults import QUOTED_SAYS
from tests.llm.servers import FAULTS, Endpoint, Fault

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
FACTORS = ("genre", "mood", "theme")
COUNT = 24
#: Faults that the server does not count, or of which no answer can be read: asked again, free.
PASSING = [
    "429",
    "429 retry-after",
    "429 retryDelay",
    "thoughts apart",
    "prompts cut",
    "500",
    "503",
    "disconnect before",
    "disconnect half a body",
    "stall",
    "slow",
    "html body",
    "no choices",
    "stream",
    "stream broken",
    "answer among thoughts",
    "error in place of an answer",
]
#: Forms of answer that the server does not have, for all calls: another form is found.
FORMS = sorted(name for name in FAULTS if name.startswith("json_schema"))
#: Fields that the model does not take, for all calls: they are left out, or named otherwise.
FIELDS = sorted(name for name in FAULTS if name.endswith(" refused"))
#: Prompts that a filter refuses, and bodies of other refusals: of one prompt, each time.
FILTERED = sorted(name for name in FAULTS if name.startswith("filtered: "))
QUOTED = sorted(name for name in FAULTS if name.startswith("400: "))
#: Answers that are of no use: asked for again with the fault named.
SPOILT = sorted(set(FAULTS) - {*PASSING, *FORMS, *FIELDS, *FILTERED, *QUOTED, "only streams"})
#: What further fields a call may have, each of which some model does not take.
MORE: dict[str, object] = {
    "top_p": 0.9,
    "seed": 7,
    "stop": ["~~~"],
    "logprobs": True,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
}
#: A pause that a test can wait for.
QUICK = {"429 retry-after": replace(FAULTS["429 retry-after"], headers={"retry-after": "0.05"})}


def prompts(kind: str) -> Iterator[Request]:
    """Prompts in the form of the templates, of entities or of groups."""
    grouped = kind == "group"
    for n in range(COUNT):
        shown = "\n".join(f'{k}. "Film {n} of group, part {k}"' for k in range(3))
        data = shown if grouped else f'"Film number {n} (19{n:02}), a drama"'
        prompt = (
            f"Film:\n<data>{data}</data>\nWhat decides whether a viewer likes it?\n"
            "Answer with one JSON object that has exactly these keys: "
            + ", ".join(f'"{factor}"' for factor in FACTORS)
            + ". Each value is one text of one to three sentences."
        )
        channel = "liked" if grouped else "knowledge"
        prompt_hash = content_hash("be brief", prompt, *FACTORS)
        yield Request(
            "be brief", prompt, FACTORS, prompt_hash, "item", channel, f"{kind}-{n}", AS_OF
        )


def fault_of(name: str) -> Fault:
    fault = QUICK.get(name, FAULTS[name])
    return replace(fault, delay_s=min(fault.delay_s, 0.05))


def is_seventh(prompt: str) -> bool:
    return "number 7 " in prompt or "Film 7 of" in prompt


def run(endpoint: Endpoint, ledger: Ledger, kind: str, way: str, **more: Any) -> RunReport:
    gates = AnswerValidator(AnswerRules(language="English"), alike=ledger.alike)
    policy = RequestPolicy(concurrency=6, backoff_s=0.01, validator=gates.validate, re_prompts=1)
    how: dict[str, Any] = {"model": "tiny", "base_url": endpoint.url, "timeout_s": 60.0, **more}
    if way == "batch":
        batch = openai_batch_llm(**how, poll_s=0.01, max_requests=10)
        return ask_all(prompts(kind), batch, ledger, policy=policy)
    return ask_all(prompts(kind), openai_llm(**how), ledger, policy=policy)


def check(endpoint: Endpoint, ledger: Ledger) -> None:
    """The books balance, and hold every call that the server counted."""
    assert invariants.violations(ledger.rows) == []
    totals = ledger.totals()
    assert totals.answered + totals.quarantined == COUNT
    assert totals.planned == totals.sent == totals.failed == 0
    assert endpoint.paid_twice() == []
    billed = [call for call in endpoint.bill if call.is_counted]
    # calls whose reply was lost are presumed to be counted; the others agree one by one
    assert totals.calls >= len(billed)
    read = sum(call.prompt_tokens + call.completion_tokens for call in billed)
    paid = ledger.rows(
        "SELECT COALESCE(SUM(prompt_tokens + completion_tokens), 0) FROM calls WHERE presumed = 0"
    )[0][0]
    lost = [call for call in billed if call.outcome == "lost" or call.fault == "html body"]
    if not lost:
        assert paid == read


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes(tmp_path: Path, name: str, kind: str, way: str) -> None:
    """Every third prompt meets it at first: all are answered in the end."""
    fault = fault_of(name)
    with (
        Endpoint(
            rule=lambda prompt, nth, n: fault if nth == 1 and n % 3 == 0 else None
        ) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, way, timeout_s=3.0 if name == "stall" else 60.0)
        check(endpoint, ledger)
    assert (report.asked, report.quarantined, report.failed) == (COUNT, 0, 0)


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", SPOILT)
def test_an_answer_of_no_use(tmp_path: Path, name: str, kind: str, way: str) -> None:
    """Every third prompt gets one at first; one always does, and is quarantined."""
    fault = fault_of(name)

    def rule(prompt: str, nth: int, number: int) -> Fault | None:
        return fault if is_seventh(prompt) or (nth == 1 and number % 3 == 0) else None

    with Endpoint(rule=rule) as endpoint, Ledger(tmp_path / "ledger.sqlite") as ledger:
        report = run(endpoint, ledger, kind, way)
        check(endpoint, ledger)
        lost = ledger.rows("SELECT owner, gate FROM prompts WHERE state = 'quarantined'")
    assert [row[0] for row in lost] == [f"{kind}-7"]
    assert lost[0][1]
    assert (report.asked, report.quarantined, report.failed) == (COUNT - 1, 1, 0)
    assert report.re_prompted > 0


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_the_server_lacks(tmp_path: Path, name: str, kind: str, way: str) -> None:
    """The next form is found out, once; nothing is lost."""
    fault = fault_of(name)
    with (
        Endpoint(rule=lambda prompt, nth, number: fault) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, way)
        check(endpoint, ledger)
        vain = [call for call in endpoint.bill if call.fault]
    assert (report.asked, report.quarantined, report.failed) == (COUNT, 0, 0)
    # where the server is silent, each call under way has to find out, a broken server twice, and
    # some begin before the last of these ends; else it would be two a prompt, 48
    assert way == "batch" or len(vain) <= (18 if "silence" in name else 4)
    assert [note for note in report.notes if "json_object" in note]


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_the_model_does_not_take(
    tmp_path: Path, name: str, kind: str, way: str
) -> None:
    """It is left out of all later calls, and the user is told; no prompt fails for it."""
    fault, field = fault_of(name), name.removesuffix(" refused")
    with (
        Endpoint(rule=lambda prompt, nth, number: fault) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, way, extra_body=MORE)
        check(endpoint, ledger)
        vain = [call for call in endpoint.bill if call.fault]
    assert (report.asked, report.quarantined, report.failed) == (COUNT, 0, 0)
    assert vain
    assert way == "batch" or len(vain) <= 7, "six calls may be under way at once"
    # a name is no news, and a form is told of as such
    told = {"max_tokens": [], "response_format": ["without a form"]}.get(
        field, [f"{field} is left"]
    )
    assert [part in note for part, note in zip(told, report.notes, strict=True)] == [True] * len(
        told
    )


@pytest.mark.parametrize("kind", ["individual", "group"])
def test_a_model_that_only_streams(tmp_path: Path, kind: str) -> None:
    fault = fault_of("only streams")
    with (
        Endpoint(rule=lambda prompt, nth, number: fault) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, "online")
        check(endpoint, ledger)
        vain = [call for call in endpoint.bill if call.fault]
    assert (report.asked, report.quarantined, report.failed) == (COUNT, 0, 0)
    assert len(vain) == 1
    assert ["as a stream" in note for note in report.notes] == [True]


@pytest.mark.parametrize("kind", ["individual", "group"])
def test_no_line_of_a_batch_can_be_streamed(tmp_path: Path, kind: str) -> None:
    fault = fault_of("only streams")
    with (
        Endpoint(rule=lambda prompt, nth, number: fault) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        pytest.raises(LLMError, match="prompts all failed(.|\n)*only support stream mode"),
    ):
        run(endpoint, ledger, kind, "batch")


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", FILTERED)
def test_a_prompt_that_a_filter_refuses(tmp_path: Path, name: str, kind: str, way: str) -> None:
    """It is asked once in all, and costs no other prompt anything."""
    fault = fault_of(name)
    with (
        Endpoint(rule=lambda prompt, nth, n: fault if is_seventh(prompt) else None) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        first, second = (run(endpoint, ledger, kind, way) for _ in range(2))
        check(endpoint, ledger)
        lost = ledger.rows("SELECT owner, gate FROM prompts WHERE state = 'quarantined'")
        calls = [call for call in endpoint.bill if is_seventh(call.prompt)]
        forms = {body["response_format"]["type"] for body in endpoint.bodies}
    assert lost == [(f"{kind}-7", "filtered")]
    assert (first.asked, first.quarantined, first.failed) == (COUNT - 1, 1, 0)
    assert (second.asked, second.quarantined, second.failed, second.calls) == (0, 1, 0, 0)
    assert len(calls) == 1
    assert forms <= {"json_schema"}


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", QUOTED)
def test_a_refusal_of_any_shape_is_quoted(tmp_path: Path, name: str, kind: str, way: str) -> None:
    fault = fault_of(name)
    with (
        Endpoint(rule=lambda prompt, nth, n: fault if is_seventh(prompt) else None) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, way)
        assert invariants.violations(ledger.rows) == []
    assert (report.asked, report.quarantined, report.failed) == (COUNT - 1, 0, 1)
    assert QUOTED_SAYS in report.failures[0].error


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", ["thoughts apart", "prompts cut"])
def test_bills_that_say_less(tmp_path: Path, name: str, kind: str, way: str) -> None:
    """All that was counted is on the books; that prompts are cut is told, once."""
    fault = fault_of(name)
    with (
        Endpoint(rule=lambda prompt, nth, number: fault) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, way)
        check(endpoint, ledger)
    assert (report.asked, report.calls) == (COUNT, COUNT)
    is_cut = name == "prompts cut"
    assert ["seems to cut prompts" in note for note in report.notes] == [True] * is_cut
    assert is_cut or report.completion_tokens > 900 * COUNT


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
def test_files_that_are_not_found_at_first(tmp_path: Path, kind: str, way: str) -> None:
    """A batch waits for its file, and for its answers; calls one by one have none."""
    late_count = Fault("file not found", 400), Fault("no such file", 404)

    def rule(method: str, path: str, nth: int) -> Fault | None:
        if nth <= 2 and (method, path) == ("POST", "/v1/batches"):
            return late_count[0]
        return late_count[1] if nth <= 2 and path.endswith("/content") else None

    with (
        Endpoint(path_rule=rule) as endpoint,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        report = run(endpoint, ledger, kind, way)
        check(endpoint, ledger)
    assert (report.asked, report.calls) == (COUNT, COUNT)
    assert way == "online" or len(endpoint.batches.all) == 3
