"""The events of a command, in the order in which they come::

CommandStarted
  StageStarted                          of each stage
    StepProgress …, StepEnded           of each step that counts what it does
    CallUsageSoFar …                    while the language model is asked
  StageEnded
CommandEnded
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from reki_feast.report import Bar, Progress


@dataclass(frozen=True)
class CommandStarted:
    """A command begins.

    Attributes:
        command: its name, as the method of :class:`reki_feast.Project` has it.
        scenario: the name of ``generators/NAME.py``; empty where it is not clear yet.
    """

    command: str
    scenario: str


@dataclass(frozen=True)
class StageStarted:
    """A stage of a command begins.

    Attributes:
        stage: ``generate``, ``encode``, ``train``, ``publish`` or ``import_knowledge``.
        scenario: name of the scenario.
    """

    stage: str
    scenario: str


@dataclass(frozen=True)
class StepProgress:
    """How far a step is.

    Attributes:
        step: what is done, as the progress bar is labelled.
        done: finished units.
        total: all units; 0 where they are not known.
    """

    step: str
    done: int
    total: int


@dataclass(frozen=True)
class StepEnded:
    """A step is over.

    Attributes:
        step: as for :class:`StepProgress`.
    """

    step: str


@dataclass(frozen=True)
class CallUsageSoFar:
    """What a stage has asked the language model, so far.

    Attributes:
        calls: calls that counted.
        prompt_tokens: tokens of prompts, as the server counts them.
        answer_tokens: tokens of answers.
        cost: money, where the price is known.
        retries: calls that failed, and whose prompts were sent again.
        re_prompted: answers that failed a gate and were asked for again.
        quarantined: prompts whose answers failed a gate.
        failed: prompts without an answer.
        server: what the server said last, while it keeps the run waiting; else empty.
    """

    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    retries: int = 0
    re_prompted: int = 0
    quarantined: int = 0
    failed: int = 0
    server: str = ""


@dataclass(frozen=True)
class StageFacts:
    """What a stage read, wrote and worked with.

    Attributes:
        rows: counts by what they are of: rows that were added to a table, prompts, texts, samples.
        inputs: names of the stored tables that it read.
        sources: what it read of the user's: URLs of files, names of tables.
        outputs: names of the stored tables that it wrote.
        model: the language model.
        prompt_templates: hash of the prompt templates and of the words they are filled with.
        encoder: the text encoder.
        weights: hash of HEIN's weights.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    sources: Sequence[str] = ()
    outputs: Sequence[str] = ()
    model: str = ""
    prompt_templates: str = ""
    encoder: str = ""
    weights: str = ""


@dataclass(frozen=True)
class StageEnded:
    """A stage is over.

    Attributes:
        stage: as for :class:`StageStarted`.
        scenario: name of the scenario.
        seconds: how long it took.
        facts: what it did; of a stage that failed nothing is counted.
        error: what it failed with; None where it did not.
    """

    stage: str
    scenario: str
    seconds: float
    facts: StageFacts = StageFacts()
    error: BaseException | None = None


@dataclass(frozen=True)
class ProjectFigures:
    """The state of a project when a command ends.

    Attributes:
        scenario: its name.
        calls: calls of all runs.
        prompt_tokens: their tokens of prompts.
        answer_tokens: their tokens of answers.
        cost: their cost, where prices were known.
        prompts: number of prompts by state.
        gates: by gate, the answers that failed it.
        tables: rows by table.
        default_share: by kind, the share of users, or of items, in the tables who have no vector
            and get the default; empty where the command has not read the tables.
        spaces: living spaces of vectors: how many are ``in_service``, ``staged``, ``kept``.
        newest_snapshot: as-of time of the newest published rows; None where there are none.
    """

    scenario: str
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    prompts: Mapping[str, int] = field(default_factory=dict)
    gates: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    default_share: Mapping[str, float] = field(default_factory=dict)
    spaces: Mapping[str, int] = field(default_factory=dict)
    newest_snapshot: datetime | None = None


@dataclass(frozen=True)
class CommandEnded:
    """A command is over.

    Attributes:
        command: as for :class:`CommandStarted`.
        scenario: name of the scenario.
        seconds: how long it took.
        failed: number of parts of the work that failed.
        error: what it failed with; None where it did not.
        figures: the project's state, where a listener wants it and the project can be read.
    """

    command: str
    scenario: str
    seconds: float
    failed: int = 0
    error: BaseException | None = None
    figures: ProjectFigures | None = None


Event = (
    CommandStarted
    | StageStarted
    | StepProgress
    | StepEnded
    | CallUsageSoFar
    | StageEnded
    | CommandEnded
)


class Listener(Protocol):
    """Takes the events of commands.

    Attributes:
        wants_figures: whether :class:`CommandEnded` has the project's figures; counting them takes
            a second or so of a large project.
    """

    @property
    def wants_figures(self) -> bool:
        """Whether the end of a command comes with the project's figures."""
        ...

    def on(self, event: Event) -> None:
        """Take an event; in the thread that works, so it returns soon."""
        ...


@dataclass(frozen=True)
class Listeners:
    """Several listeners as one; without any, one that hears nothing.

    Attributes:
        all: the listeners.
    """

    all: tuple[Listener, ...] = ()

    @property
    def wants_figures(self) -> bool:
        """Whether one of them wants the project's figures."""
        return any(one.wants_figures for one in self.all)

    def on(self, event: Event) -> None:
        """Pass an event on."""
        for one in self.all:
            one.on(event)


@dataclass(frozen=True)
class ObservedProgress:
    """Progress that is shown, and told to a listener.

    Attributes:
        shown: shows it.
        listener: hears of it.
    """

    shown: Progress
    listener: Listener

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Bar]:
        """Open a bar for one step."""

        def update(done: int, total: int) -> None:
            draw(done, total)
            self.listener.on(StepProgress(label, done, total))

        with self.shown.bar(label) as draw:
            self.listener.on(StepProgress(label, 0, 0))
            try:
                yield update
            finally:
                self.listener.on(StepEnded(label))
