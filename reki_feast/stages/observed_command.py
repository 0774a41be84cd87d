"""A command that listeners hear: when it begins, how it ends, and how the project is then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from reki_feast import declare
from reki_feast.errors import RekiError
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress
from reki_feast.stages.context import StageContext
from reki_feast.stages.figures import project_figures
from reki_feast.telemetry import (
    CommandEnded,
    CommandStarted,
    Listener,
    Listeners,
    ProjectFigures,
)
from reki_feast.telemetry.events import ObservedProgress
from reki_feast.telemetry.otel import OpenTelemetry, is_loaded
from reki_feast.views.lineage import LineageEvents, is_emitting

R = TypeVar("R")


def listeners_of(folder: Path, given: Listener | None) -> Listeners:
    """All that hear of a project's commands.

    They are the listener that was given; OpenTelemetry, where the application has loaded it; and
    OpenLineage, where the project's Feast repo has Feast's emitter on.

    Args:
        folder: of the project.
        given: by the caller.
    """
    return Listeners(tuple(_listeners(folder, given)))


def _listeners(folder: Path, given: Listener | None) -> Iterator[Listener]:
    if given is not None:
        yield given
    if is_loaded():
        yield OpenTelemetry()
    if is_emitting(folder / "feature_repo"):
        yield LineageEvents(folder / "feature_repo")


@dataclass
class ObservedCommand:
    """One command.

    Attributes:
        name: of the method of :class:`reki_feast.Project`.
        scenario: name of the scenario, where it is clear.
        listeners: who hears it.
        contexts: the projects that it has opened.
    """

    name: str
    scenario: str
    listeners: Listeners
    contexts: list[StageContext] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, folder: Path, scenario: str | None, listeners: Listeners) -> Self:
        """A command of a project that is not open yet."""
        with suppress(RekiError):  # the command tells it
            scenario = declare.find(folder.resolve(), scenario).stem
        return cls(name, scenario or "", listeners)

    def opened(self, project: DeclaredProject) -> StageContext:
        """A project that the command opens, whose stages are heard."""
        context = StageContext.of(project).heard_by(self.listeners)
        self.contexts.append(context)
        return context

    def progress(self, shown: Progress) -> Progress:
        """Progress that is heard, too."""
        return ObservedProgress(shown, self.listeners)

    def run(self, call: Callable[[], R]) -> R:
        """Call the command.

        Args:
            call: the command.

        Returns:
            What it returns.
        """
        began = time.monotonic()
        self.listeners.on(CommandStarted(self.name, self.scenario))
        try:
            result = call()
        except BaseException as error:
            self._end(began, error=error)
            raise
        self._end(began, failed=getattr(result, "failed", 0))
        return result

    def _end(self, began: float, *, failed: int = 0, error: BaseException | None = None) -> None:
        seconds, figures = time.monotonic() - began, self._figures()
        end = CommandEnded(self.name, self.scenario, seconds, failed, error, figures)
        self.listeners.on(end)

    def _figures(self) -> ProjectFigures | None:
        if not self.contexts or not self.listeners.wants_figures:
            return None
        return project_figures(self.contexts[-1])
