"""`reki doctor`: what would go wrong, found before anything is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from reki_feast.errors import DeclarationError, RekiError
from reki_feast.extras import named_when_missing
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import Check, DoctorResult
from reki_feast.stages.context import StageContext
from reki_feast.stages.doctor_checks import CHECKS, LATER, Case, packages


def doctor(root: Path, scenario: str | None = None) -> DoctorResult:
    """Check packages, declarations, tables, model, encoder, disk, Redis, Feast repo and more.

    The language model's server is asked for its list of models, which is free.

    Args:
        root: folder of the project.
        scenario: which ``generators/NAME.py``, if there are several.
    """
    checks = [_check("packages", packages)]
    project: DeclaredProject | None = None
    try:
        project = open_project(root, scenario)
        checks.append(Check("declarations", str(project.declared.path)))
    except DeclarationError as error:
        checks.append(Check("declarations", "see the notes", error.problems))
    if project is not None:
        checks += _project_checks(project)
    bad = [check for check in checks if check.problems]
    return DoctorResult(
        project=project.name if project else scenario or "",
        checks=checks,
        notes=[
            *(f"{check.name}: {problem}" for check in bad for problem in check.problems),
            *(f"{check.name}: {remark}" for check in checks for remark in check.remarks),
        ],
        next=["correct the above", "reki doctor"] if bad else ["reki plan"],
        failed=len(bad),
    )


def _project_checks(project: DeclaredProject) -> list[Check]:
    case = Case(StageContext.of(project))
    checks: list[Check] = []
    for name, look in CHECKS:
        check = _check(name, partial(look, case))
        told = {problem for one in checks for problem in one.problems}
        # a setup that fails is found again by whatever reads a table
        problems = tuple(problem for problem in check.problems if problem not in told)
        found = LATER if check.problems and not problems else check.found
        checks.append(replace(check, found=found, problems=problems, remarks=tuple(case.remarks)))
        case.remarks.clear()
    return checks


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        with named_when_missing():
            return Check(name, look())
    except RekiError as error:
        return Check(name, "see the notes", error.problems)
