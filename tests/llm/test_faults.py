"""The fault matrix: each fault, for entities and groups, call by call and in batches.

Whatever goes wrong, every prompt ends answered or quarantined, none is paid for twice, and the
ledger's books balance and agree with the server's bill.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from reki_feast.extract.gates import Gates, Limits
from reki_feast.llm import Ledger, OpenAILLM, Request, RunReport, Terms, ask_all
from reki_feast.llm.batch import OpenAIBatchLLM
from reki_feast.llm.ledger import reading
from reki_feast.schema import content_hash
from tests.llm.servers import FAULTS, Endpoint, Fault

AS_OF = datetime(2026, 1, 1, tzinfo=timezone.utc)
FACTORS = ("genre", "mood", "theme")
COUNT = 24
#: Faults that the server does not count, or of which no answer can be read: asked again, free.
PASSING = [
    "429",
    "429 retry-after",
    "500",
    "503",
    "disconnect before",
    "disconnect half a body",
    "stall",
    "slow",
    "html body",
    "no choices",
]
#: Forms of answer that the server does not have, for all calls: another form is found.
FORMS = ["json_schema 500", "json_schema ignored"]
#: Answers that are of no use: asked for again with the fault named.
SPOILT = sorted(set(FAULTS) - set(PASSING) - set(FORMS))
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


def run(endpoint: Endpoint, ledger: Ledger, kind: str, way: str) -> RunReport:
    gates = Gates(Limits(language="English"), alike=ledger.alike)
    terms = Terms(concurrency=6, backoff_s=0.01, judge=gates.judge, mends=1)
    how = {"model": "tiny", "base_url": endpoint.url, "timeout_s": 0.6, "structured": "auto"}
    if way == "batch":
        batch = OpenAIBatchLLM(**how, poll_s=0.01, max_requests=10)  # type: ignore[arg-type]
        return ask_all(prompts(kind), batch, ledger, terms=terms)
    return ask_all(prompts(kind), OpenAILLM(**how), ledger, terms=terms)  # type: ignore[arg-type]


def check(endpoint: Endpoint, ledger: Ledger) -> None:
    """The books balance, and hold every call that the server counted."""
    assert reading.broken_rules(ledger.rows) == []
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
        report = run(endpoint, ledger, kind, way)
        check(endpoint, ledger)
    assert (report.asked, report.quarantined, report.failed) == (COUNT, 0, 0)


@pytest.mark.parametrize("way", ["online", "batch"])
@pytest.mark.parametrize("kind", ["individual", "group"])
@pytest.mark.parametrize("name", SPOILT)
def test_an_answer_of_no_use(tmp_path: Path, name: str, kind: str, way: str) -> None:
    """Every third prompt gets one at first; one always does, and is quarantined."""
    fault = fault_of(name)

    def rule(prompt: str, nth: int, number: int) -> Fault | None:
        always = "number 7 " in prompt or "Film 7 of" in prompt
        return fault if always or (nth == 1 and number % 3 == 0) else None

    with Endpoint(rule=rule) as endpoint, Ledger(tmp_path / "ledger.sqlite") as ledger:
        report = run(endpoint, ledger, kind, way)
        check(endpoint, ledger)
        lost = ledger.rows("SELECT owner, gate FROM prompts WHERE state = 'quarantined'")
    assert [row[0] for row in lost] == [f"{kind}-7"]
    assert lost[0][1]
    assert (report.asked, report.quarantined, report.failed) == (COUNT - 1, 1, 0)
    assert report.mended > 0


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
    assert (report.asked, report.quarantined, report.failed) == (COUNT, 0, 0)
