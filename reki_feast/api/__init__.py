"""The Python API: a project's commands as methods, for notebooks, schedulers and tests."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from reki_feast.api.knowledge import KnowledgeCommands, KnowledgeFiles
from reki_feast.api.stored import StoredCommands
from reki_feast.api.vectors import VectorCommands
from reki_feast.report import CallbackProgress, Progress, ProgressCallback, Silent

if TYPE_CHECKING:
    from reki_feast.telemetry import Listener

__all__ = ["KnowledgeFiles", "Project"]


class Project(KnowledgeCommands, VectorCommands, StoredCommands):
    """A project, with a method for each command of ``reki``.

    Declarations are read anew by each method, as by each command. Methods raise
    :class:`reki_feast.errors.RekiError`; its ``problems`` say what is wrong, and its ``done``,
    where it is not None, is a report of the finished part. Where a package is missing, a
    :class:`reki_feast.errors.MissingExtraError` names the extra that brings it. Results are frozen
    dataclasses (:mod:`reki_feast.results`): figures are fields, ``print(result)`` shows the
    terminal's tables, ``result.to_dict()`` is for JSON.

    Args:
        folder: of the project, the one with ``generators/``.
        scenario: which ``generators/NAME.py``, if there are several.
        progress: called as ``progress(step, done, total)`` while a step goes on; or an object with
            a method ``bar``, as :class:`reki_feast.report.Progress`. None: no progress is shown.
        listener: hears what commands do, as :class:`reki_feast.telemetry.Listener`, one command at
            a time: for instance :class:`reki_feast.telemetry.prometheus.PrometheusFile`.

    Examples:
        >>> Project("my-shop")
        Project('my-shop')
    """

    def __init__(
        self,
        folder: str | PathLike[str] = ".",
        scenario: str | None = None,
        *,
        progress: ProgressCallback | Progress | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.folder, self.scenario = Path(folder), scenario
        self._listener = listener
        self._running = None
        self._progress = Silent()
        if progress is not None:
            has_bars = hasattr(progress, "bar")
            self._progress = progress if has_bars else CallbackProgress(progress)  # type: ignore[assignment,arg-type]

    def __repr__(self) -> str:
        scenario = f", {self.scenario!r}" if self.scenario else ""
        return f"Project({str(self.folder)!r}{scenario})"
