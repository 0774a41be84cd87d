"""A run in batches that is killed between any two steps, and runs that go on at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reki_feast.llm import Ledger, RunReport, ask_all
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
from tests.llm.servers import FAULTS, Endpoint

ROOT = Path(__file__).parents[3]
COUNT = 7

#: Asks in two batches; dies at the nth time of a step, before it or after it.
CHILD = """
import os, signal, sys
from pathlib import Path
from reki_feast.llm import Ledger, OpenAIBatchLLM, ask_all
from reki_feast.llm.batch import records as batches
from reki_feast.llm.batch import collector
from tests.llm.batching import policy, requests
from tests.llm.models import openai_batch_llm

url, path, name, moment, nth = sys.argv[1:]
seen = 0

def die(now):
    global seen
    seen += now == moment
    if now == moment and seen == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, step, is_entry):
    if is_entry:
        def entry(*given, **named):
            die("before")
            done = step(*given, **named)
            die("after")  # within the transaction: nothing of it stays
            return done
        setattr(owner, name, entry)
    else:
        async def call(*given, **named):
            die("before")
            done = await step(*given, **named)
            die("after")  # the server has heeded it, and nobody knows
            return done
        setattr(owner, name, call)

if hasattr(OpenAIBatchLLM, name):
    dying(OpenAIBatchLLM, getattr(OpenAIBatchLLM, name), False)
elif hasattr(batches, name):
    dying(batches, getattr(batches, name), True)
collector._CHUNK = 2
llm = openai_batch_llm(base_url=url, poll_s=0.005, max_requests=4, max_tokens=300)
with Ledger(Path(path)) as ledger:
    report = ask_all(requests(7), llm, ledger, policy=policy())
    print(report.asked, report.reused)
"""

#: Steps, in their order; entries by their number: uploaded, submitted, states at the server, …
STEPS = [
    ("fill", "before", 1),
    ("fill", "after", 1),
    ("upload", "before", 1),
    ("upload", "after", 1),
    ("save_batch", "after", 1),
    ("submit", "before", 1),
    ("submit", "after", 1),
    ("save_batch", "after", 2),
    ("poll", "before", 1),
    ("poll", "after", 3),
    ("fill", "after", 2),
    ("submit", "after", 2),
    ("download", "before", 1),
    ("download", "after", 1),
    ("record_outcomes", "before", 1),
    ("record_outcomes", "after", 2),
    ("record_outcomes", "before", 3),
    ("upload", "before", 3),
    ("submit", "after", 3),
    ("download", "after", 3),
]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        # one answer of the first batch is asked for again, in a third one
        running.rule = lambda text, nth, number: (
            FAULTS["missing factor"] if text == prompt(2) and nth == 1 else None
        )
        yield running


def start(
    endpoint: Endpoint, path: Path, name: str = "nothing", moment: str = "", nth: int = 0
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, endpoint.url, str(path), name, moment, str(nth)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.parametrize(("name", "moment", "nth"), STEPS)
def test_killed_at_any_step(
    name: str, moment: str, nth: int, endpoint: Endpoint, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    child = start(endpoint, path, name, moment, nth)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == -signal.SIGKILL, errors
    with Ledger(path) as ledger:
        states(ledger)
        report = ask_all(
            requests(COUNT), batch_llm(endpoint, max_requests=4), ledger, policy=policy()
        )
        assert (report.done, report.failed, report.in_batch) == (COUNT, 0, 0)
        assert states(ledger) == [("answered", COUNT)]
        assert open_batches(ledger) == 0
        totals = ledger.totals()
    counted = endpoint.counted()
    assert counted == {prompt(number): 2 if number == 2 else 1 for number in range(COUNT)}
    assert (totals.prompt_tokens, totals.completion_tokens) == endpoint.tokens()
    assert totals.calls == COUNT + 1
    assert len(endpoint.batches.all) == 3
    assert ["the answer lacks mood" in said(line) for line in lines(endpoint)[-1]] == [True]


def test_a_run_waits_for_what_another_has_in_a_batch(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    endpoint.batches.delay_s = 0.5
    with start(endpoint, path) as child, Ledger(path) as ledger:
        wait_until(lambda: len(endpoint.batches.all) == 2)
        report = ask_all(requests(COUNT + 2), batch_llm(endpoint), ledger, policy=policy())
        out, errors = child.communicate(timeout=300)
        assert out.split() == [str(COUNT), "0"], errors
        assert (report.asked, report.reused, report.done) == (2, COUNT, COUNT + 2)
        assert states(ledger) == [("answered", COUNT + 2)]
    assert len(endpoint.batches.all) == 4
    assert endpoint.paid_twice() == []


def test_a_run_takes_over_from_one_that_is_killed_meanwhile(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    endpoint.batches.delay_s = 600.0

    def kill(report: RunReport) -> None:
        if child.poll() is None:
            assert report.batches == 0  # those at the server are the other run's
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            endpoint.batches.delay_s = 0.0

    with start(endpoint, path) as child, Ledger(path) as ledger:
        wait_until(lambda: len(endpoint.batches.all) == 2)
        wait_until(lambda: ledger.rows("SELECT COUNT(*) FROM calls")[0][0] == COUNT)
        wait_until(lambda: _submitted(ledger) == 2)
        how = policy()
        report = ask_all(requests(COUNT), batch_llm(endpoint), ledger, policy=how, progress=kill)
        assert (report.asked, report.reused, report.done) == (COUNT, 0, COUNT)
        assert states(ledger) == [("answered", COUNT)]
    assert len(endpoint.batches.all) == 3
    assert endpoint.paid_twice() == []


def test_two_runs_begin_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with start(endpoint, path) as one, start(endpoint, path) as other:
        outs = [child.communicate(timeout=300) for child in (one, other)]
        codes = [one.returncode, other.returncode]
    assert codes == [0, 0], outs
    numbers = [[int(number) for number in out.split()] for out, _ in outs]
    assert sum(asked for asked, _ in numbers) == COUNT
    assert [asked + reused for asked, reused in numbers] == [COUNT, COUNT]
    assert endpoint.paid_twice() == []
    with Ledger(path) as ledger:
        assert states(ledger) == [("answered", COUNT)]


def _submitted(ledger: Ledger) -> int:
    count: int = ledger.rows("SELECT COUNT(*) FROM batches WHERE state = 'submitted'")[0][0]
    return count
