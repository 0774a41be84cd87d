"""Commands that write what is published: one at a time in a project's folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from reki_feast.project import DeclaredProject
from reki_feast.results import Result

P = ParamSpec("P")
R = TypeVar("R", bound=Result)
_Command = Callable[Concatenate[DeclaredProject, P], R]


def writing(command: _Command[P, R]) -> _Command[P, R]:
    """Have a command wait for others that write the project, and those wait for it."""
    name = command.__name__.replace("_", "-")

    @wraps(command)
    def alone(project: DeclaredProject, /, *given: P.args, **named: P.kwargs) -> R:
        with project.write_lock(f"reki {name}"):
            return command(project, *given, **named)

    return alone
