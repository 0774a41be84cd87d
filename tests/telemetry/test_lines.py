"""Lines that say how far a command is: by the clock, whatever the step says."""

from __future__ import annotations

import json
import threading
from dataclasses import fields
from pathlib import Path

import pytest

from reki_feast.errors import DeclarationError, Problem
from reki_feast.report import CallbackProgress, Silent
from reki_feast.telemetry import (
    CallUsageSoFar,
    CommandEnded,
    CommandStarted,
    Event,
    Listeners,
    StageEnded,
    StageFacts,
    StageStarted,
    StepProgress,
)
from reki_feast.telemetry.events import ObservedProgress
from reki_feast.telemetry.heartbeat import Heartbeat
from reki_feast.telemetry.lines import LogLine, ProgressLog, error_line
from reki_feast.telemetry.pace import PaceMeter
from reki_feast.telemetry.usage import UsageMeter

WATCHING = Path(__file__).parents[2] / "docs" / "how-to" / "watching.md"
BUSY = CallUsageSoFar(calls=7, cost=0.25, retries=2, server="429 slow down")


class Lines:
    """A log, and its lines as they come."""

    def __init__(self, *, as_json: bool, every: float = 0.01) -> None:
        self.lines: list[str] = []
        self._came = threading.Event()
        self.log = ProgressLog(self._write, as_json=as_json, every=every)

    def _write(self, line: str) -> None:
        self.lines.append(line)
        self._came.set()

    def hear(self, *events: Event) -> None:
        for event in events:
            self.log.on(event)

    def next(self) -> str:
        """The first line from now on."""
        self._came.clear()
        assert self._came.wait(30)
        return self.lines[-1]

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]


def test_a_line_comes_although_nothing_happens() -> None:
    heard = Lines(as_json=False)
    heard.hear(CommandStarted("run", "shop"), StageStarted("generate", "shop"))
    assert heard.next().startswith("generate: at work for ")
    heard.hear(StepProgress("asking", 0, 0))
    assert heard.next() == "asking: at work"
    heard.hear(StepProgress("asking", 12, 60_000), BUSY)
    line = heard.next()
    assert line.startswith("asking: 12 of 60,000")
    assert line.endswith(", 7 calls, money 0.2500, 2 sent again; the server: 429 slow down")
    heard.hear(StageEnded("generate", "shop", 1.0), CommandEnded("run", "shop", 1.0))


def test_json_lines_of_a_command() -> None:
    heard = Lines(as_json=True, every=1000)
    heard.hear(CommandStarted("run", "shop"), StageStarted("generate", "shop"))
    heard.hear(StepProgress("asking", 6, 60), BUSY)
    heard.log.tell()
    facts = StageFacts({"knowledge": 5})
    heard.hear(StageEnded("generate", "shop", 2.0, facts))
    heard.hear(StageStarted("encode", "shop"), CallUsageSoFar(calls=1))
    heard.hear(StageEnded("encode", "shop", 3.0, error=ValueError("no")))
    heard.hear(CommandEnded("run", "shop", 5.0, error=ValueError("no")))
    first, began, progress, ended, _, failed, last = heard.records()
    assert {key: first[key] for key in ("level", "event", "command", "scenario")} == {
        "level": "info",
        "event": "command_started",
        "command": "run",
        "scenario": "shop",
    }
    assert (began["event"], began["stage"]) == ("stage_started", "generate")
    assert (progress["event"], progress["step"]) == ("progress", "asking")
    assert (progress["done"], progress["total"], progress["calls"]) == (6, 60, 7)
    assert (progress["cost"], progress["server"]) == (0.25, "429 slow down")
    assert float(str(progress["rate"])) > 0
    assert float(str(progress["left_s"])) >= 0
    assert (ended["event"], ended["seconds"], ended["rows"]) == (
        "stage_ended",
        2.0,
        {"knowledge": 5},
    )
    assert (failed["level"], failed["error"], failed["calls"]) == ("error", "ValueError", 8)
    assert (last["event"], last["level"], last["seconds"]) == ("command_ended", "error", 5.0)
    assert all(str(one["time"]).endswith("+00:00") for one in heard.records())


def test_a_line_holds_no_break_and_no_control_character() -> None:
    heard = Lines(as_json=True, every=1000)
    hostile = 'a"b\n\x1b[2J\u202e'
    heard.hear(CommandStarted("run", "shop"), StepProgress(hostile, 1, 2))
    heard.log.tell()
    heard.hear(CommandEnded("run", "shop", 0.0))
    assert heard.records()[1]["step"] == hostile
    assert all(line.isprintable() for line in heard.lines)


def test_errors_have_their_parts() -> None:
    one = json.loads(str(error_line(DeclarationError("a rule", detail="found", hint="mend"), 2)))
    assert {key: one[key] for key in ("event", "problem", "detail", "hint", "exit_code")} == {
        "event": "error",
        "problem": "a rule",
        "detail": "found",
        "hint": "mend",
        "exit_code": 2,
    }
    assert "problems" not in one
    both = DeclarationError([Problem("a rule"), Problem("another", "found", "mend")])
    found = json.loads(str(error_line(both, 2)))
    assert [problem["problem"] for problem in found["problems"]] == ["a rule", "another"]
    assert found["problem"] == "a rule"


def test_every_key_is_documented() -> None:
    table = WATCHING.read_text("utf-8").split("## Keys of a line")[1].split("\n## ")[0]
    documented = [row.split("`")[1] for row in table.splitlines() if row.startswith("| `")]
    assert documented == [one.name for one in fields(LogLine)]


def test_progress_is_shown_and_heard() -> None:
    shown: list[tuple[str, int, int]] = []
    heard = Lines(as_json=True, every=1000)
    show = CallbackProgress(lambda *step: shown.append(step))
    with ObservedProgress(show, Listeners((heard.log,))).bar("encoding") as bar:
        bar(3, 10)
        heard.log.tell()
    heard.log.tell()
    assert shown == [("encoding", 3, 10)]
    inside, after = heard.records()
    assert (inside["done"], "step" in after) == (3, False)


def test_the_rate_is_that_since_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr("reki_feast.telemetry.pace.time.monotonic", lambda: next(seconds))
    meter = PaceMeter("asking")
    meter.update(50, 100)
    assert (meter.pace().rate, meter.pace().rate) == (5.0, 0.0)
    meter.update(80, 100)
    pace = meter.pace()
    assert (pace.rate, pace.left_s) == (3.0, 20 / 3)


def test_usage_adds_up_over_stages() -> None:
    meter = UsageMeter()
    end = StageEnded("generate", "shop", 1.0)
    for event in (CallUsageSoFar(calls=1), CallUsageSoFar(calls=2), end, CallUsageSoFar(calls=3)):
        meter.on(event)
    assert meter.total.calls == 5
    meter.on(CommandStarted("run", "shop"))
    assert meter.total == CallUsageSoFar()


def test_nothing_is_told_after_the_end() -> None:
    told: list[int] = []
    came = threading.Event()

    def tell() -> None:
        told.append(1)
        came.set()

    with Heartbeat(tell, 0.001):
        assert came.wait(30)
    count = len(told)
    came.clear()
    assert not came.wait(0.05)
    assert len(told) == count
    with Heartbeat(tell, 1000), Silent().bar("") as bar:
        bar(1, 1)
