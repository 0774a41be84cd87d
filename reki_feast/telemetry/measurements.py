"""The figures of one command, for every system that takes metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reki_feast.telemetry.events import CommandEnded, Event, ProjectFigures, StageEnded
from reki_feast.telemetry.usage import UsageMeter


@dataclass(frozen=True)
class Measurement:
    """One figure.

    Attributes:
        name: of the metric, as Prometheus has it; one that ends with ``_total`` never falls.
        value: the figure.
        help: what it is.
        labels: what it is of.
    """

    name: str
    value: float
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)


class CommandMeter:
    """Collects the figures of a command until it ends."""

    def __init__(self) -> None:
        self._usage = UsageMeter()
        self._stages: list[StageEnded] = []

    def on(self, event: Event) -> None:
        """Take an event."""
        self._usage.on(event)
        if isinstance(event, StageEnded):
            self._stages.append(event)

    def measurements(self, end: CommandEnded) -> list[Measurement]:
        """The figures of the command that ends, in an order of their own.

        Args:
            end: the end.
        """
        found = [*self._of_command(end), *self._of_stages(), *_of_project(end.figures)]
        # also of the project's figures: node_exporter refuses one series in two files
        scenario = {"scenario": end.scenario, "command": end.command}
        return [
            Measurement(one.name, one.value, one.help, {**scenario, **one.labels}) for one in found
        ]

    def _of_command(self, end: CommandEnded) -> Iterator[Measurement]:
        usage = self._usage.total
        figures = {
            "reki_command_end_time_seconds": (_now().timestamp(), "When the command ended."),
            "reki_command_seconds": (end.seconds, "How long the command took."),
            "reki_command_success": (
                end.error is None and not end.failed,
                "1 where the command did all of its work, 0 where it or a part of it failed.",
            ),
            "reki_command_failed_parts": (end.failed, "Parts of the work that failed."),
            "reki_command_calls": (usage.calls, "Calls to the language model."),
            "reki_command_cost": (usage.cost, "Money, where the price is known."),
            "reki_command_retries": (usage.retries, "Calls that failed and were sent again."),
            "reki_command_re_prompts": (
                usage.re_prompted,
                "Answers that failed a gate and were asked for again.",
            ),
            "reki_command_quarantined": (
                usage.quarantined,
                "Prompts whose answers failed a gate.",
            ),
            "reki_command_failed_prompts": (usage.failed, "Prompts without an answer."),
        }
        for name, (value, about) in figures.items():
            yield Measurement(name, float(value), about)
        for kind, tokens in (("prompt", usage.prompt_tokens), ("answer", usage.answer_tokens)):
            about = "Tokens, as the server counts them."
            yield Measurement("reki_command_tokens", tokens, about, {"kind": kind})

    def _of_stages(self) -> Iterator[Measurement]:
        for stage in self._stages:
            about = "How long the stage took."
            yield Measurement("reki_stage_seconds", stage.seconds, about, {"stage": stage.stage})
        for stage in self._stages:
            for of, count in stage.facts.rows.items():
                about = "Rows that the stage added to a table, or what else it counts."
                labels = {"stage": stage.stage, "of": of}
                yield Measurement("reki_stage_rows", count, about, labels)


def _of_project(figures: ProjectFigures | None) -> Iterator[Measurement]:
    """The state of the project."""
    if figures is None:
        return
    yield Measurement("reki_calls_total", figures.calls, "Calls of all runs.")
    for kind, tokens in (("prompt", figures.prompt_tokens), ("answer", figures.answer_tokens)):
        yield Measurement("reki_tokens_total", tokens, "Tokens of all runs.", {"kind": kind})
    yield Measurement("reki_cost_total", figures.cost, "Money of all runs.")
    by_label: list[tuple[str, str, str, Mapping[str, float]]] = [
        ("reki_gate_failures_total", "gate", "Answers that failed a gate.", figures.gates),
        ("reki_prompts", "state", "Prompts of the ledger by state.", figures.prompts),
        ("reki_table_rows", "table", "Rows of a stored table.", figures.tables),
        (
            "reki_default_share",
            "kind",
            "Share of the users, or items, in the tables who get the default vector, 0 to 1.",
            figures.default_share,
        ),
        ("reki_spaces", "state", "Living spaces of vectors.", figures.spaces),
    ]
    for name, label, about, values in by_label:
        for key, value in values.items():
            yield Measurement(name, float(value), about, {label: key})
    if figures.newest_snapshot is not None:
        at, age = figures.newest_snapshot.timestamp(), _now() - figures.newest_snapshot
        about = "As-of time of the newest published rows."
        yield Measurement("reki_newest_snapshot_timestamp_seconds", at, about)
        about = "Age of the newest published rows when the command ended."
        yield Measurement("reki_newest_snapshot_age_seconds", age.total_seconds(), about)


def _now() -> datetime:
    return datetime.now(UTC)
