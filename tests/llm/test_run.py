"""Runs: bounded, resumable after kill -9, nothing asked twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import (
    EchoLLM,
    Ledger,
    OpenAILLM,
    Request,
    RunReport,
    ask_all,
    ask_all_async,
)
from reki_feast.schema import content_hash

if TYPE_CHECKING:
    from tests.llm.conftest import FakeServer, Reply

AS_OF = datetime(2026, 1, 1, tzinfo=timezone.utc)


def requests(count: int, *, prefix: str = "prompt") -> Iterator[Request]:
    for n in range(count):
        prompt = f"{prefix} {n}"
        prompt_hash = content_hash("", prompt, "genre")
        yield Request("", prompt, ("genre",), prompt_hash, "item", "knowledge", str(n), AS_OF)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened


def test_asks_all_then_nothing(ledger: Ledger) -> None:
    llm = EchoLLM()
    ticks = iter(range(100))
    first = ask_all(requests(20), llm, ledger, clock=lambda: float(next(ticks)))
    again = ask_all(requests(25), llm, ledger)
    assert (first.asked, first.reused, first.failed) == (20, 0, 0)
    assert first.seconds == 1.0
    assert first.prompt_tokens > 0
    assert first.tokens == first.prompt_tokens + first.completion_tokens
    assert (again.asked, again.reused, again.done) == (5, 20, 25)
    assert len(llm.asked) == 25


def test_nothing_to_ask(ledger: Ledger) -> None:
    assert ask_all([], EchoLLM(), ledger).done == 0


def test_the_same_prompt_is_asked_once(ledger: Ledger) -> None:
    llm = EchoLLM(delay_s=0.01)
    report = ask_all([*requests(3), *requests(3)], llm, ledger)
    assert (report.asked, report.repeated) == (3, 3)
    assert len(llm.asked) == 3


def test_at_most_so_many_at_once(ledger: Ledger) -> None:
    llm = EchoLLM(delay_s=0.005)
    ask_all(requests(30), llm, ledger, concurrency=4)
    assert llm.most_at_once == 4


def test_requests_are_taken_as_calls_become_free(ledger: Ledger) -> None:
    taken = 0
    ahead = []

    def counted() -> Iterator[Request]:
        nonlocal taken
        for request in requests(500):
            taken += 1
            yield request

    ask_all(
        counted(),
        EchoLLM(),
        ledger,
        concurrency=3,
        progress=lambda report: ahead.append(taken - report.done),
    )
    assert max(ahead) <= 3


def test_failures_are_counted_quoted_and_asked_again(ledger: Ledger) -> None:
    report = ask_all(requests(20), EchoLLM(fail={"3", "7"}), ledger)
    assert (report.asked, report.failed) == (18, 2)
    assert [(f.kind, f.owner) for f in report.failures] == [("item", "3"), ("item", "7")]
    assert "told to fail" in report.failures[0].error
    assert ask_all(requests(20), EchoLLM(), ledger).asked == 2


def test_progress_ends_with_the_whole(ledger: Ledger) -> None:
    seen: list[RunReport] = []
    ask_all(requests(12), EchoLLM(fail={"1"}), ledger, progress=seen.append)
    assert [report.done for report in seen] == list(range(1, 13))
    assert (seen[-1].asked, seen[-1].failed) == (11, 1)


def test_a_hopeless_run_stops_early(ledger: Ledger) -> None:
    llm = EchoLLM(fail=lambda request: True)
    with pytest.raises(LLMError, match="the first 8 calls all failed, the last: the model answers"):
        ask_all(requests(1000), llm, ledger, concurrency=2)
    assert len(llm.asked) <= 10
    assert ledger.totals().failed >= 8


def test_a_late_row_of_failures_does_not_stop(ledger: Ledger) -> None:
    llm = EchoLLM(fail=lambda request: request.owner != "0")
    assert ask_all(requests(30), llm, ledger, concurrency=1).failed == 29


def test_an_error_that_holds_for_all_stops_and_loses_nothing_in_flight(ledger: Ledger) -> None:
    class Fatal(EchoLLM):
        async def ask(self, request: Request) -> Any:
            if request.owner == "5":
                raise LLMError("the server accepts the API key", mend="mend the key")
            return await super().ask(request)

    llm = Fatal(delay_s=0.05)
    with pytest.raises(LLMError, match="mend the key"):
        ask_all(requests(1000), llm, ledger, concurrency=8)
    assert ledger.totals().answered == len(llm.asked) == 7


def test_a_fault_of_the_caller_comes_through(ledger: Ledger) -> None:
    def broken() -> Iterator[Request]:
        yield from requests(3)
        raise ZeroDivisionError("in the caller's own iterator")

    with pytest.raises(ZeroDivisionError, match="own iterator"):
        ask_all(broken(), EchoLLM(), ledger)


def test_concurrency_of_none(ledger: Ledger) -> None:
    with pytest.raises(LLMError, match="concurrency is at least 1"):
        ask_all(requests(1), EchoLLM(), ledger, concurrency=0)


def test_within_a_running_loop(ledger: Ledger) -> None:
    async def notebook() -> RunReport:
        return ask_all(requests(5), EchoLLM(), ledger)

    assert asyncio.run(notebook()).asked == 5


def test_the_async_form(ledger: Ledger) -> None:
    assert asyncio.run(ask_all_async(requests(5), EchoLLM(), ledger)).asked == 5


def test_cancelling_leaves_whole_answers_only(ledger: Ledger) -> None:
    llm = EchoLLM(delay=lambda request: int(request.owner) >= 10, delay_s=30)

    async def run() -> None:
        run = asyncio.create_task(ask_all_async(requests(100), llm, ledger))
        while len(llm.asked) < 18:
            await asyncio.sleep(0.001)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()

    asyncio.run(run())
    assert ledger.totals().answered == 10
    assert ledger.totals().failed == 0


def test_against_a_server(server: FakeServer, ledger: Ledger) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        if number % 5 == 1:
            return server.reply(status=503, body={"error": {"message": "busy"}})
        reply = server.completion()
        reply.delay_s = 0.01
        return reply

    server.answer = answer
    llm = OpenAILLM(model="tiny", base_url=server.url, structured="off", backoff_s=0.01)
    report = ask_all(requests(60), llm, ledger, concurrency=6)
    assert (report.asked, report.failed) == (60, 0)
    assert report.prompt_tokens == 60 * 7
    assert 4 <= server.most_at_once <= 6


def test_a_bad_key_stops_the_run(server: FakeServer, ledger: Ledger) -> None:
    server.answer = lambda body, number: server.reply(status=401, body={})
    llm = OpenAILLM(model="tiny", base_url=server.url)
    with pytest.raises(LLMError, match="the server accepts the API key"):
        ask_all(requests(1000), llm, ledger)
    assert len(server.bodies) <= 8


def test_a_wrong_url_stops_the_run(ledger: Ledger) -> None:
    llm = OpenAILLM(model="tiny", base_url="http://127.0.0.1:1/v1", backoff_s=0.01)
    with pytest.raises(LLMError, match="the first 8 calls all failed(.|\n)*can be reached"):
        ask_all(requests(1000), llm, ledger)


# --- real processes, really killed ----------------------------------------------------------

CHILD = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from reki_feast.llm import EchoLLM, Ledger, OpenAILLM, Request, ask_all
from reki_feast.schema import content_hash
url, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
at = datetime(2026, 1, 1, tzinfo=timezone.utc)
requests = (
    Request("", f"prompt {n}", ("genre",), content_hash("", f"prompt {n}", "genre"),
            "item", "knowledge", str(n), at)
    for n in range(count)
)
echo = EchoLLM(delay_s=0.05)
llm = OpenAILLM(model="tiny", base_url=url, structured="off") if url else echo
with Ledger(path) as ledger:
    report = ask_all(requests, llm, ledger, concurrency=4)
print(report.asked, report.reused)
"""
COUNT = 60


def start(url: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, url, str(path), str(COUNT)]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-verysecret0123456789"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(child: subprocess.Popen[str]) -> list[str]:
    out, errors = child.communicate()
    assert child.returncode == 0, errors
    return out.split()


def wait_until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.005)


def answered(path: Path) -> set[str]:
    with Ledger(path) as ledger:
        rows = ledger._rows("SELECT owner FROM calls WHERE state = 'answered'", ())
    return {f"prompt {row[0]}" for row in rows}


def test_killed_and_started_again(server: FakeServer, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        reply = server.completion(f"answer to {body['messages'][-1]['content']}")
        reply.delay_s = 0.02
        return reply

    server.answer = answer
    path = tmp_path / "ledger.sqlite"
    child = start(server.url, path)
    wait_until(lambda: len(server.bodies) >= 30)
    child.kill()
    child.communicate()
    before, sent = answered(path), len(server.bodies)
    assert sent - 8 <= len(before) < COUNT
    assert finish(start(server.url, path)) == [str(COUNT - len(before)), str(len(before))]
    assert not before & set(server.prompts[sent:])
    assert len(answered(path)) == COUNT
    # nothing is sent a second time but what was in flight at the kill
    assert sum(Counter(server.prompts).values()) <= COUNT + 4
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"verysecret" not in raw


def test_interrupted_and_started_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    child = start("", path)
    wait_until(lambda: path.exists() and len(answered(path)) >= 10)
    child.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in child.communicate()[1]
    before = len(answered(path))
    assert 10 <= before < COUNT
    assert finish(start("", path)) == [str(COUNT - before), str(before)]
