"""A declarations file: found, run, collected."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from reki_feast.declare.base import Declared, Made, collecting
from reki_feast.declare.domains import Domains
from reki_feast.declare.encoder import Encoder
from reki_feast.declare.generation import LLM, Budget, Freshness, Gates, Privacy
from reki_feast.declare.scenario import (
    Collective,
    Generator,
    Individual,
    Scenario,
    Sources,
    Training,
)
from reki_feast.errors import DeclarationError, Problem


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """All that one file declares."""

    path: Path
    scenario: Scenario
    sources: Sources
    generators: tuple[Generator, ...]
    llm: LLM
    encoder: Encoder
    training: Training
    gates: Gates = field(default_factory=Gates)
    freshness: Freshness = field(default_factory=Freshness)
    privacy: Privacy = field(default_factory=Privacy)
    budgets: tuple[Budget, ...] = ()
    domains: Domains | None = None

    def budget(self, per: str) -> Budget | None:
        """The limits of a run or of the project, None where there are none."""
        return next((budget for budget in self.budgets if budget.per == per), None)

    def individual(self, kind: str) -> bool:
        """Whether each entity of this kind is asked about."""
        return any(isinstance(g, Individual) and g.kind == kind for g in self.generators)

    def collective(self, kind: str) -> Collective | None:
        """How groups of this kind are asked about, None if they are not."""
        found = (g for g in self.generators if isinstance(g, Collective) and g.kind == kind)
        return next(found, None)


def find(project: Path, name: str | None = None) -> Path:
    """The declarations file of a project: ``generators/NAME.py``, or the only one there is.

    Raises:
        DeclarationError: there is none, or several and no name.
    """
    files = sorted(p for p in (project / "generators").glob("*.py") if not p.name.startswith("_"))
    if name is not None:
        files = [path for path in files if path.stem == name]
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.stem for path in files) or "none"
    where = project / "generators"
    if files:
        hint = "name one with --scenario"
    else:
        hint = f"`reki init {project}` lays a project down; --project DIR names another folder"
    rule = f"{where} holds a declarations file" + (f" {name}.py" if name else "")
    raise DeclarationError(rule, detail=found, hint=hint)


def load(path: Path) -> Declarations:
    """Run a declarations file and collect what it declares.

    Raises:
        DeclarationError: with all faults of the file together.
    """
    with collecting() as collected:
        faults = collected.faults
        try:
            namespace = runpy.run_path(str(path))
        except DeclarationError:
            raise
        except Exception as error:
            fault = Problem(
                f"{path.name} is Python that runs",
                f"{type(error).__name__}: {error}",
                _line(error, path),
            )
            raise DeclarationError([*faults, fault]) from error
    found = [value for value in namespace.values() if isinstance(value, Declared)]
    found = list({id(value): value for value in found}.values())
    parts = {
        "scenario": _one(found, Scenario, faults, path),
        "sources": _one(found, Sources, faults, path),
        "llm": _at_most_one(found, LLM, faults),
        "encoder": _at_most_one(found, Encoder, faults),
        "training": _at_most_one(found, Training, faults),
        "gates": _at_most_one(found, Gates, faults),
        "freshness": _at_most_one(found, Freshness, faults),
        "privacy": _at_most_one(found, Privacy, faults),
        "domains": _perhaps_one(found, Domains, faults),
    }
    faults += _strays(found, [one for one in collected.made if one.file == str(path)])
    generators = tuple(value for value in found if isinstance(value, Generator))
    budgets = tuple(value for value in found if isinstance(value, Budget))
    faults += _doubles("one generator for each kind", generators, "kind")
    faults += _doubles("one Budget for the project and one for each run", budgets, "per")
    if faults:
        raise DeclarationError(faults)
    return Declarations(path=path, generators=generators, budgets=budgets, **parts)


def _line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"see line {error.lineno}"
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"see line {line}" if line else ""


D = TypeVar("D", bound=Declared)


def _one(found: list[Declared], model: type[D], faults: list[Problem], path: Path) -> Any:
    values = [value for value in found if isinstance(value, model)]
    if len(values) == 1:
        return values[0]
    name = model.__name__
    hint = f"keep one: {name.lower()} = {name}(…)"
    faults.append(Problem(f"{path.name} declares one {name}", f"{len(values)}", hint))
    return None


def _at_most_one(found: list[Declared], model: type[D], faults: list[Problem]) -> Any:
    return _perhaps_one(found, model, faults) or model()


def _perhaps_one(found: list[Declared], model: type[D], faults: list[Problem]) -> D | None:
    values = [value for value in found if isinstance(value, model)]
    if len(values) > 1:
        rule = f"at most one {model.__name__} is declared"
        faults.append(Problem(rule, f"{len(values)}", "remove all but one"))
    return values[0] if values else None


def _strays(found: list[Declared], made: list[Made]) -> list[Problem]:
    """A fault for each declaration without a name, which would be left out without a word.

    Not where another has a name for the same: that one was chosen, or took the name.
    """
    ids, roles = {id(value) for value in found}, {_role(value) for value in found}
    strays = [
        one
        for one in made
        # of a hull the own faults are told
        if one.declared.model_fields_set
        and id(one.declared) not in ids
        and _role(one.declared) not in roles
    ]
    rule = "a declaration has a name of its own, outside of lists and functions"
    names = [type(one.declared).__name__ for one in strays]
    return [
        Problem(rule, f"{name}(…) without one", f"line {one.line}: name = {name}(…)")
        for name, one in zip(names, strays, strict=True)
    ]


def _role(value: Declared) -> tuple[object, ...]:
    """What a file has at most one of."""
    if isinstance(value, Generator):
        return ("generator", getattr(value, "kind", None))
    return (type(value), getattr(value, "per", None))


def _doubles(rule: str, values: Sequence[Declared], name: str) -> list[Problem]:
    # of a declaration with faults only a hull is left, in which nothing is set
    given = [str(getattr(value, name)) for value in values if value.model_fields_set]
    doubles = sorted({one for one in given if given.count(one) > 1})
    return [Problem(f"{rule}, but {one} has several", hint="remove all but one") for one in doubles]
