"""Commands that write what is published: one at a time in a project's folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from reki_feast.project import Project
from reki_feast.report import Report

P = ParamSpec("P")
_Command = Callable[Concatenate[Project, P], Report]


def writing(command: _Command[P]) -> _Command[P]:
    """Have a command wait for others that write the project, and those wait for it."""
    name = command.__name__.replace("_", "-")

    @wraps(command)
    def alone(project: Project, /, *given: P.args, **named: P.kwargs) -> Report:
        with project.alone(f"reki {name}"):
            return command(project, *given, **named)

    return alone
