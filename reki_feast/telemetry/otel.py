"""Spans and metrics by OpenTelemetry's API: a span a command and a stage, and the same figures.

Nothing is sent by this package: what is recorded goes where the SDK of the application sends it,
or that of ``opentelemetry-instrument``, and nowhere without one.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from reki_feast.telemetry.events import (
    CommandEnded,
    CommandStarted,
    Event,
    StageEnded,
    StageStarted,
)
from reki_feast.telemetry.measurements import CommandMeter

if TYPE_CHECKING:
    from opentelemetry.metrics import _Gauge

_NAME = "reki_feast"


def is_loaded() -> bool:
    """Whether the application has loaded OpenTelemetry; who has not, records nothing."""
    return "opentelemetry.trace" in sys.modules or "opentelemetry.metrics" in sys.modules


class OpenTelemetry:
    """Records commands and stages as spans, and the figures of commands as gauges.

    Needs the package ``opentelemetry-api``, which the extra ``otel`` brings.
    """

    def __init__(self) -> None:
        from opentelemetry import metrics, trace

        self._tracer, self._meter = trace.get_tracer(_NAME), metrics.get_meter(_NAME)
        provider = type(metrics.get_meter_provider())
        #: the API's own providers drop what they get
        self.wants_figures = not provider.__module__.startswith("opentelemetry.metrics")
        self._command = CommandMeter()
        self._open: list[ExitStack] = []
        self._gauges: dict[str, _Gauge] = {}

    def on(self, event: Event) -> None:
        """Take an event."""
        self._command.on(event)
        match event:
            case CommandStarted(command, scenario):
                self._begin(f"reki {command}", scenario)
            case StageStarted(stage, scenario):
                self._begin(f"reki {stage}", scenario)
            case StageEnded():
                self._describe(event)
                self._end(event.error)
            case CommandEnded():
                self._end(event.error)
                self._record(event)
            case _:
                pass

    def _begin(self, name: str, scenario: str) -> None:
        """Open a span within the one that is open."""
        span: AbstractContextManager[object] = self._tracer.start_as_current_span(
            name, attributes={"reki.scenario": scenario}
        )
        opened = ExitStack()
        opened.enter_context(span)
        self._open.append(opened)

    def _end(self, error: BaseException | None) -> None:
        """Close the innermost span, with the error that ended it."""
        if self._open:
            trace = None if error is None else error.__traceback__
            self._open.pop().__exit__(None if error is None else type(error), error, trace)

    def _describe(self, event: StageEnded) -> None:
        from opentelemetry import trace

        facts = event.facts
        named = {
            "gen_ai.request.model": facts.model,
            "reki.prompt_templates": facts.prompt_templates,
            "reki.encoder": facts.encoder,
            "reki.weights": facts.weights,
        }
        rows = {f"reki.rows.{of}": count for of, count in facts.rows.items()}
        said = {key: value for key, value in named.items() if value}
        trace.get_current_span().set_attributes({**said, **rows})

    def _record(self, event: CommandEnded) -> None:
        for one in self._command.measurements(event):
            if one.name not in self._gauges:
                self._gauges[one.name] = self._meter.create_gauge(one.name, description=one.help)
            self._gauges[one.name].set(one.value, attributes=dict(one.labels))
        self._command = CommandMeter()
