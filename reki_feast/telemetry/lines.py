"""Lines on standard error: how far a command is, at least every 30 seconds; as text or as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from reki_feast.errors import Problem, RekiError
from reki_feast.escaping import json_text, visible
from reki_feast.telemetry.events import (
    CallUsageSoFar,
    CommandEnded,
    CommandStarted,
    Event,
    StageEnded,
    StageStarted,
    StepEnded,
    StepProgress,
)
from reki_feast.telemetry.heartbeat import EVERY, Heartbeat
from reki_feast.telemetry.pace import PaceMeter
from reki_feast.telemetry.usage import UsageMeter

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of ``--log json``: a JSON object, without the keys that have no value.

    Attributes:
        time: when, ISO 8601 in UTC.
        level: ``info``, ``warning`` or ``error``.
        event: ``command_started``, ``stage_started``, ``progress``, ``stage_ended``,
            ``command_ended``, ``warning``, ``error``, ``interrupted`` or ``wrong_use``.
        command: name of the command.
        scenario: name of the scenario.
        stage: name of the stage.
        step: what is being done.
        done: finished units of the step.
        total: all units of the step.
        rate: units a second, since the last line.
        left_s: seconds that are left at this rate.
        calls: calls of the command so far.
        prompt_tokens: tokens of prompts so far.
        answer_tokens: tokens of answers so far.
        cost: money so far, where the price is known.
        retries: calls that failed, and whose prompts were sent again.
        server: what the server said last, while it keeps the command waiting.
        seconds: how long the command, or the stage that ended, has taken.
        rows: counts of a stage by what they are of.
        failed: parts of the work that failed.
        message: a sentence.
        logger: who warns: a Python logger's name.
        error: type of an error.
        problem: the rule that does not hold.
        detail: what was found instead.
        hint: what to do about it.
        problems: all problems, where there are several; the keys above are of the first.
        exit_code: of the process.
    """

    time: str
    level: Level = "info"
    event: str
    command: str | None = None
    scenario: str | None = None
    stage: str | None = None
    step: str | None = None
    done: int | None = None
    total: int | None = None
    rate: float | None = None
    left_s: float | None = None
    calls: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    cost: float | None = None
    retries: int | None = None
    server: str | None = None
    seconds: float | None = None
    rows: dict[str, int] | None = None
    failed: int | None = None
    message: str | None = None
    logger: str | None = None
    error: str | None = None
    problem: str | None = None
    detail: str | None = None
    hint: str | None = None
    problems: Sequence[dict[str, str]] | None = None
    exit_code: int | None = None

    def __str__(self) -> str:
        found = {key: value for key, value in asdict(self).items() if value not in (None, "")}
        return json_text(found)


def now() -> str:
    """The time of a line.

    >>> now().endswith("+00:00")
    True
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def error_line(error: RekiError, exit_code: int) -> LogLine:
    """The line of an error that ends a command.

    Args:
        error: the error.
        exit_code: of the process.
    """
    first = error.problems[0] if error.problems else Problem(str(error))
    several = [dict(vars(one)) for one in error.problems] if len(error.problems) > 1 else None
    return LogLine(
        time=now(),
        level="error",
        event="error",
        error=type(error).__name__,
        **vars(first),
        problems=several,
        exit_code=exit_code,
    )


class ProgressLog:
    """Tells how far a command is.

    Args:
        write: takes a line.
        as_json: whether lines are JSON objects, of each event and every `every` seconds; else they
            are text, every `every` seconds alone.
        every: seconds between two lines, at most.
    """

    wants_figures = False

    def __init__(
        self, write: Callable[[str], object], *, as_json: bool = False, every: float = EVERY
    ) -> None:
        self._write, self._as_json, self._every = write, as_json, every
        self._command = self._scenario = self._stage = ""
        self._began = time.monotonic()
        self._step: PaceMeter | None = None
        self._label = ""
        self._usage = UsageMeter()
        self._heartbeat: Heartbeat | None = None

    def on(self, event: Event) -> None:
        """Take an event."""
        self._usage.on(event)
        match event:
            case StepProgress(step, done, total):
                self._progress(step, done, total)
            case StepEnded(step):
                if step == self._label:
                    self._step, self._label = None, ""
            case CommandStarted(command, scenario):
                self._started(command, scenario)
            case StageStarted(stage, scenario):
                self._stage, self._scenario = stage, scenario
                self._told("stage_started")
            case StageEnded():
                self._stage_ended(event)
            case CommandEnded():
                self._ended(event)
            case CallUsageSoFar():
                pass  # the next line tells it

    def _progress(self, step: str, done: int, total: int) -> None:
        if self._step is None or step != self._label:
            self._step, self._label = PaceMeter(step), step
        self._step.update(done, total)

    def _started(self, command: str, scenario: str) -> None:
        self._command, self._scenario = command, scenario
        self._began = time.monotonic()
        self._told("command_started")
        self._heartbeat = Heartbeat(self.tell, self._every).__enter__()

    def _stage_ended(self, event: StageEnded) -> None:
        level: Level = "info" if event.error is None else "error"
        rows = dict(event.facts.rows) or None
        name = None if event.error is None else type(event.error).__name__
        self._told(
            "stage_ended", level=level, seconds=round(event.seconds, 3), rows=rows, error=name
        )
        self._stage, self._step, self._label = "", None, ""

    def _ended(self, event: CommandEnded) -> None:
        if self._heartbeat is not None:
            self._heartbeat.close()
        self._scenario = event.scenario or self._scenario
        level: Level = "info" if event.error is None and not event.failed else "error"
        name = None if event.error is None else type(event.error).__name__
        seconds = round(event.seconds, 3)
        self._told("command_ended", level=level, seconds=seconds, failed=event.failed, error=name)

    def tell(self) -> None:
        """Write how far the command is."""
        passed, step = time.monotonic() - self._began, self._step
        pace = None if step is None else step.pace()
        usage = self._usage.total
        if not self._as_json:
            where = self._stage or f"reki {self._command.replace('_', '-')}"
            told = str(pace) if pace else f"{where}: at work for {passed:,.0f} s"
            self._write(visible(told + _bill(usage)))
            return
        figures: dict[str, Any] = {}
        if pace is not None:
            figures["step"] = pace.step
            if pace.total:
                figures |= {"done": pace.done, "total": pace.total, "rate": round(pace.rate, 4)}
                figures["left_s"] = None if pace.left_s is None else round(pace.left_s, 1)
        self._told("progress", seconds=round(passed, 3), server=usage.server, **figures)

    def _told(self, event: str, **values: Any) -> None:
        if not self._as_json:
            return
        usage = self._usage.total
        spent: dict[str, Any] = {}
        if usage.calls or usage.retries:
            spent = {
                "calls": usage.calls,
                "prompt_tokens": usage.prompt_tokens,
                "answer_tokens": usage.answer_tokens,
                "cost": round(usage.cost, 6),
                "retries": usage.retries,
            }
        line = LogLine(
            time=now(),
            event=event,
            command=self._command,
            scenario=self._scenario,
            stage=self._stage,
            **spent,
            **values,
        )
        self._write(str(line))


def _bill(usage: CallUsageSoFar) -> str:
    """What was asked and what it cost, as the rest of a line."""
    told = ""
    if usage.calls:
        told += f", {usage.calls:,} calls, money {usage.cost:.4f}"
    if usage.retries:
        told += f", {usage.retries:,} sent again"
    return f"{told}; the server: {usage.server}" if usage.server else told
