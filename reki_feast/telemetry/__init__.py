"""What a command tells while it runs, as typed events, and who listens.

Stages and commands call one :class:`~reki_feast.telemetry.events.Listener`; the listeners here
write lines, a Prometheus file, and OpenTelemetry's spans and metrics. Events are made for each
command, stage, step and batch, never for a row.
"""

from reki_feast.telemetry.events import (
    CallUsageSoFar,
    CommandEnded,
    CommandStarted,
    Event,
    Listener,
    Listeners,
    ProjectFigures,
    StageEnded,
    StageFacts,
    StageStarted,
    StepEnded,
    StepProgress,
)

__all__ = [
    "CallUsageSoFar",
    "CommandEnded",
    "CommandStarted",
    "Event",
    "Listener",
    "Listeners",
    "ProjectFigures",
    "StageEnded",
    "StageFacts",
    "StageStarted",
    "StepEnded",
    "StepProgress",
]
