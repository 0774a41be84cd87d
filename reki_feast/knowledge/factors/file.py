"""The factors file: written for an expert to confirm, read back strictly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import yaml

from reki_feast.errors import FactorsError, Problem
from reki_feast.knowledge.text import clean
from reki_feast.schema import factor_column

NAME_MAX = 60
_HEADER = """\
# Factors that decide whether a user likes an item, as the language model named them.
#
# You know your users better. Read the list, then
#   - delete what does not matter to your users, rename what is unclear, add what is missing;
#   - leave 4 to 12: each is a question in every prompt, and each costs tokens;
#   - put the most important first;
#   - set `confirmed: true` and save. Until then generation refuses to run.
#
# `named_by` says how many of the answers named the factor; it is for your eyes only.
"""


@dataclass(frozen=True)
class Factor:
    """One factor, and how many answers named it (None: an expert added it)."""

    name: str
    named_by: int | None = None


@dataclass(frozen=True)
class FactorsFile:
    """What the factors file says.

    Attributes:
        factors: the most important first.
        confirmed: whether an expert has read and accepted them.
        model: the model that named them.
        answers: how many answers were merged.
    """

    factors: tuple[Factor, ...]
    confirmed: bool = False
    model: str = ""
    answers: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The factors' names."""
        return tuple(factor.name for factor in self.factors)


def dumps(file: FactorsFile) -> str:
    """The factors file as text: YAML under a header that tells an expert what to do."""
    body: dict[str, Any] = {"confirmed": file.confirmed}
    if file.model:
        body |= {"model": file.model, "answers": file.answers}
    body["factors"] = [
        factor.name
        if factor.named_by is None
        else {"name": factor.name, "named_by": factor.named_by}
        for factor in file.factors
    ]
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    return _HEADER + text


def loads(text: str, *, source: str = "the factors file") -> FactorsFile:
    """Read the factors file; strict, all faults at once.

    Args:
        text: its content.
        source: its path, for messages.

    Raises:
        FactorsError: it is no YAML, has unknown keys, or lists no or doubtful factors.
    """
    body = _yaml(text, source)
    faults = [
        Problem(
            f"{source} has only known keys", repr(key), "known: confirmed, model, answers, factors"
        )
        for key in body
        if key not in ("confirmed", "model", "answers", "factors")
    ]
    confirmed = body.get("confirmed", False)
    if not isinstance(confirmed, bool):
        faults.append(Problem(f"{source}: confirmed is true or false", repr(confirmed), "mend it"))
    factors, more = _factors(body.get("factors"), source)
    if faults + more:
        raise FactorsError(faults + more)
    answers = body.get("answers")
    count = answers if isinstance(answers, int) else 0
    return FactorsFile(factors, confirmed, str(body.get("model") or ""), count)


def require_confirmed(
    file: FactorsFile | None, *, source: str, unconfirmed_too: bool = False
) -> tuple[str, ...]:
    """The factors' names, if an expert confirmed them.

    Args:
        file: what the factors file says; None when there is none.
        source: its path, for messages.
        unconfirmed_too: take them unconfirmed.

    Raises:
        FactorsError: there is no file, or it is not confirmed.
    """
    if file is None:
        raise FactorsError(
            "the scenario has factors",
            detail=f"none in the scenario, and no {source}",
            hint="run `reki factors`, or list factors in the scenario",
        )
    if not file.confirmed and not unconfirmed_too:
        raise FactorsError(
            "an expert has confirmed the factors",
            detail=f"{source} says confirmed: false",
            hint=f"read {source}, set `confirmed: true`, or pass --allow-unconfirmed",
        )
    return file.names


def confirmed(file: FactorsFile) -> FactorsFile:
    """The same factors, confirmed."""
    return replace(file, confirmed=True)


def _yaml(text: str, source: str) -> dict[Any, Any]:
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise FactorsError(f"{source} is YAML", detail=where, hint="mend that line") from error
    if not isinstance(body, dict):
        found = type(body).__name__
        raise FactorsError(f"{source} is a mapping", detail=found, hint="run `reki factors` again")
    return body


def _factors(listed: Any, source: str) -> tuple[tuple[Factor, ...], list[Problem]]:
    if not isinstance(listed, list) or not listed:
        rule = f"{source} lists at least one factor"
        return (), [Problem(rule, repr(listed), "add them, one a line: `- genre`")]
    factors: list[Factor] = []
    faults: list[Problem] = []
    seen: dict[str, str] = {}
    for place, entry in enumerate(listed, start=1):
        factor, fault = _factor(entry, f"{source}, factor {place}")
        if factor is None:
            faults.append(fault)
            continue
        first = seen.setdefault(factor_column(factor.name), factor.name)
        if first is not factor.name:
            rule = f"{source}: no two factors are the same but for case and punctuation"
            faults.append(Problem(rule, f"{first!r} and {factor.name!r}", "delete one of them"))
        factors.append(factor)
    return tuple(factors), faults


def _factor(entry: Any, where: str) -> tuple[Factor | None, Problem]:
    fault = Problem(
        f"{where} is a name, or a mapping of name and named_by",
        repr(entry),
        'write `- genre`, in quotes if it looks like a number or a yes: `- "1990s"`',
    )
    count = None
    if isinstance(entry, dict):
        if set(entry) - {"name", "named_by"}:
            return None, fault
        count, entry = entry.get("named_by"), entry.get("name")
    if not isinstance(entry, str) or not (count is None or isinstance(count, int)):
        return None, fault
    name = clean(entry, NAME_MAX)
    return (Factor(name, count) if factor_column(name) != "factor_" else None), fault
