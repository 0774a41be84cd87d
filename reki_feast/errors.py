"""One tree of errors; foreign errors are mapped to it at the edge where they arise.

::

    RekiError                     anything reki-feast raises on purpose
    ├── DeclarationError          generators/*.py says something that cannot be run
    ├── SourceError               a source's table breaks a rule (missing column, duplicate id, …)
    ├── LakeError                 a stored table or manifest is missing, unreadable or not ours
    ├── FactorsError              factors are missing or not confirmed by an expert
    ├── KnowledgeError            knowledge offered for import has the wrong shape
    ├── LLMError                  the language model could not be asked, or did not answer
    │   └── RequestError          one request got no usable answer, others may (reki_feast.llm)
    ├── EncodeError               the text encoder is missing or gave unusable vectors
    ├── ClusterError              points that cannot be clustered, groups that cannot be formed
    ├── CondenseError             HEIN cannot be trained or its weights cannot be read
    ├── EvaluateError             a model of an evaluation cannot be trained or shown
    ├── StoreError                the Feast side: views, stores, the embedded Redis
    └── MissingExtraError         an optional package is not installed

Every error carries one or more :class:`Problem`: the rule, what was found, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Attributes:
        problem: the rule that does not hold, as a plain sentence.
        detail: what was found instead.
        hint: what to do about it, a command where there is one.
    """

    problem: str
    detail: str = ""
    hint: str = ""

    def __str__(self) -> str:
        lines = [self.problem]
        if self.detail:
            lines.append(f"  detail: {self.detail}")
        if self.hint:
            lines.append(f"  hint:   {self.hint}")
        return "\n".join(lines)


class RekiError(Exception):
    """Base of every error of reki-feast; its message names all problems together.

    Args:
        problem: the rule that does not hold, or the problems.
        detail: what was found instead, where ``problem`` is a text.
        hint: what to do about it, where ``problem`` is a text.

    Attributes:
        problems: one or more :class:`Problem`.
        done: a :class:`reki_feast.report.Report` of what was done, and paid for, before the error;
            None where nothing was.

    >>> print(RekiError("ids are unique", detail="7 twice", hint="drop one of the rows"))
    ids are unique
      detail: 7 twice
      hint:   drop one of the rows
    """

    done: Any = None

    def __init__(
        self, problem: str | Problem | Sequence[Problem], *, detail: str = "", hint: str = ""
    ) -> None:
        self.problems: tuple[Problem, ...]
        if isinstance(problem, str):
            self.problems = (Problem(problem, detail, hint),)
        elif isinstance(problem, Problem):
            self.problems = (problem,)
        else:
            self.problems = tuple(problem)
        super().__init__(_message(self.problems))

    @property
    def faults(self) -> tuple[Problem, ...]:
        """The name of ``problems`` in 0.1."""
        return self.problems


def _message(problems: tuple[Problem, ...]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    numbered = [f"{n}. {problem}" for n, problem in enumerate(problems, start=1)]
    return f"{len(problems)} problems\n" + "\n".join(numbered)


class DeclarationError(RekiError):
    """``generators/*.py`` says something that cannot be run."""


class SourceError(RekiError):
    """A source's table breaks a rule."""


class LakeError(RekiError):
    """A stored table or manifest is missing, unreadable or not ours."""


class FactorsError(RekiError):
    """Factors are missing or not confirmed by an expert."""


class KnowledgeError(RekiError):
    """Knowledge offered for import has the wrong shape."""


class LLMError(RekiError):
    """The language model could not be asked, or did not answer."""


class EncodeError(RekiError):
    """The text encoder is missing or gave unusable vectors."""


class ClusterError(RekiError, ValueError):
    """Points that cannot be clustered, or groups that cannot be formed.

    A ValueError too, as scikit-learn's users expect.
    """


class CondenseError(RekiError):
    """HEIN cannot be trained or its weights cannot be read."""


class EvaluateError(RekiError):
    """A model of an evaluation cannot be trained, or its table cannot be shown."""


class StoreError(RekiError):
    """The Feast side: views, stores, the embedded Redis."""


class EngineError(LLMError, EncodeError):
    """The Ray cluster, which asks and encodes, cannot be reached, or has no room for a worker."""


class MissingExtraError(RekiError):
    """An optional package is not installed."""
