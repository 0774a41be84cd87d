"""What a server says about waiting: heeded, told, and where it lasts a day the run's end."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reki_feast.cli import app
from reki_feast.llm import Ledger, OpenAILLM, RequestPolicy, RunReport, ask_all, notices
from reki_feast.llm.ledger import invariants, reports
from reki_feast.project import DeclaredProject
from tests.llm.conftest import FakeServer, Reply
from tests.llm.entering import requests
from tests.stages.conftest import make_shop

DAY = {
    "error": {
        "code": 429,
        "message": "Rate limit reached on requests per day (RPD): Limit 3. Try again in 8.64s.",
    }
}
LINE = r"127\.0\.0\.1:\d+ says 429: {said}; waiting {seconds} s, until \d\d:\d\d:\d\d"


def google(delay: str) -> bytes:
    """A refusal as Google sends it: a list."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = {"code": 429, "message": "Resource exhausted.", "details": [info]}
    return json.dumps([{"error": error}]).encode()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened
        assert invariants.violations(opened.rows) == []


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that tests can wait for are told."""
    monkeypatch.setattr(notices, "_SOME_S", 0.15)


def refusing(server: FakeServer, first: int, reply: Reply) -> None:
    """Refuse the first so many calls."""
    server.answer = lambda body, number: reply if number < first else server.completion()


def ask(server: FakeServer, ledger: Ledger, count: int = 3, **how: Any) -> RunReport:
    llm = OpenAILLM(model="tiny", base_url=server.url)
    policy = RequestPolicy(**{"concurrency": 1, "backoff_s": 0.001, **how})
    return ask_all(requests(count), llm, ledger, policy=policy)


def shop_at(root: Path, server: FakeServer) -> DeclaredProject:
    model = f'LLM(model="tiny", base_url="{server.url}", price=(0, 0), concurrency=1)'
    return make_shop(root, lambda text: text.replace('LLM(provider="echo")', model))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, google("0.2s")),
        Reply(429, b'{"error": {"message": "slow down"}, "retry_after_ms": 200}'),
        Reply(429, b'{"error": "Please try again in 200ms."}'),
        Reply(503, b'{"error": "loading", "estimated_time": 0.2}'),
        Reply(429, b"{}", {"retry-after-ms": "200"}),
        Reply(429, b"{}", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "200ms"}),
        Reply(200, b'{"error": {"code": 429, "message": "Please retry in 0.2s."}}'),
    ],
    ids=["list", "field", "sentence", "loading", "header", "window", "with 200"],
)
def test_a_pause_is_heeded_wherever_it_stands(
    server: FakeServer, ledger: Ledger, reply: Reply
) -> None:
    refusing(server, 3, reply)
    assert ask(server, ledger).asked == 3
    waits = [after - before for before, after in pairwise(server.times[:4])]
    assert len(waits) == 3
    assert min(waits) >= 0.2


@pytest.mark.usefixtures("few_words")
def test_refusals_without_a_word_on_waiting_are_told_too(
    server: FakeServer, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    refusing(server, 4, Reply(429, b'{"error": {"message": "busy"}}'))
    with caplog.at_level(logging.WARNING):
        assert ask(server, ledger, backoff_s=0.4).asked == 3
    [told] = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(LINE.format(said="busy", seconds=1), told)


@pytest.mark.usefixtures("few_words")
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_command_tells_it_without_a_terminal(
    tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    shop_at(tmp_path, server)
    refusing(server, 5, Reply(429, google("0.2s")))
    app.main(["generate", "--project", str(tmp_path), "--limit", "3", *words])
    said = capsys.readouterr()
    [told] = [line for line in said.err.splitlines() if "waiting" in line]
    assert re.fullmatch(LINE.format(said=r"Resource exhausted\.", seconds=1), told)
    assert not words or "tables" in json.loads(said.out), said.out + said.err
    assert logging.getLogger("reki_feast").handlers == []


# --- a day's quota --------------------------------------------------------------------------


def test_a_quota_of_the_day_ends_the_run_and_nothing_is_lost(
    server: FakeServer, ledger: Ledger
) -> None:
    used_up = Reply(429, DAY)
    server.answer = lambda body, number: used_up if number >= 3 else server.completion()
    report = ask(server, ledger, 20, concurrency=4)
    assert (report.stopped, report.failed) == ("quota", 0)
    assert "requests per day (RPD): Limit 3" in report.limit
    assert 1 <= report.asked <= 3
    assert len(server.bodies) <= 3 + 4, "nothing is asked once more"
    totals = ledger.totals()
    assert (totals.sent, totals.failed, totals.calls) == (0, 0, report.asked)
    assert reports.runs(ledger.rows)[0].outcome == f"stopped: {report.limit}"
    refusing(server, 0, used_up)
    rest = ask(server, ledger, 20)
    assert (rest.reused, rest.asked, rest.stopped) == (report.asked, 20 - report.asked, "")


def test_the_command_ends_with_the_reason(
    tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = shop_at(tmp_path, server)
    text = json.dumps({"price": "It is cheap for what it is.", "style": "It is plain and warm."})
    well = server.completion(text)
    server.answer = lambda body, number: well if number < 1 else Reply(429, DAY)
    assert app.main(["generate", "--project", str(tmp_path)]) == app.FAILED
    told = capsys.readouterr().err
    assert "the server's quota lasts for the run" in told
    assert "requests per day (RPD): Limit 3. Try again in 8.64s.; 1 prompts answered" in told
    assert "run again when it is renewed" in told
    assert len(server.bodies) == 2
    assert shop.lake.parts("knowledge"), "what was answered is knowledge"


def test_factors_end_with_the_reason_too(
    tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shop_at(tmp_path, server)
    server.answer = lambda body, number: Reply(429, DAY)
    assert app.main(["factors", "--project", str(tmp_path)]) == app.FAILED
    assert "QuotaError: the server's quota lasts for the run" in capsys.readouterr().err
