"""What all commands of the Python API share: the project's folder, progress, and who listens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from reki_feast.extras import named_when_missing
from reki_feast.report import Progress

if TYPE_CHECKING:
    from reki_feast.project import DeclaredProject
    from reki_feast.stages.observed_command import ObservedCommand
    from reki_feast.telemetry import Listener

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="ProjectBase")


def command(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Have a method tell the project's listeners when it begins, what it does, and how it ends."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with named_when_missing():
            observed = self._observed(method.__name__)
            if observed is None:
                return method(self, *args, **kwargs)
            return observed.run(partial(method, self._heard_by(observed), *args, **kwargs))

    return call


class ProjectBase:
    """A project's folder and scenario, and how its commands show progress."""

    folder: Path
    scenario: str | None
    _listener: Listener | None
    _running: ObservedCommand | None
    _progress: Progress

    @named_when_missing()
    def open(self) -> DeclaredProject:
        """Read the declarations.

        Returns:
            What is declared, with the stored tables and the ledger.

        Raises:
            DeclarationError: there is no declarations file, or it has faults.
        """
        from reki_feast.project import open_project

        project = open_project(self.folder, self.scenario)
        return project if self._running is None else self._running.opened(project)

    def _observed(self, command: str) -> ObservedCommand | None:
        """A command with all that listen to it; None where nobody does, or within another one."""
        from reki_feast.stages.observed_command import ObservedCommand, listeners_of

        if self._running is not None:
            return None
        listeners = listeners_of(self.folder, self._listener)
        if not listeners.all:
            return None
        return ObservedCommand.of(command, self.folder, self.scenario, listeners)

    def _heard_by(self, command: ObservedCommand) -> Self:
        """The same project while a command runs."""
        one = copy.copy(self)
        one._running, one._progress = command, command.progress(self._progress)
        return one
