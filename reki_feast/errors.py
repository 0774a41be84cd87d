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

Every error carries one or more :class:`Fault`: the rule, what was found, and the mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One broken rule.

    Attributes:
        rule: what must hold, as a plain sentence.
        found: what was found instead.
        mend: what to do about it, a command where there is one.
    """

    rule: str
    found: str = ""
    mend: str = ""

    def __str__(self) -> str:
        lines = [self.rule]
        if self.found:
            lines.append(f"  found: {self.found}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)


class RekiError(Exception):
    """Base of every error of reki-feast; prints all its faults together.

    >>> print(RekiError("ids are unique", found="7 twice", mend="drop one of the rows"))
    ids are unique
      found: 7 twice
      mend:  drop one of the rows
    """

    #: The report of what was done, and paid for, before this happened.
    done: Any = None

    def __init__(
        self, rule: str | Fault | Sequence[Fault], *, found: str = "", mend: str = ""
    ) -> None:
        if isinstance(rule, str):
            faults: tuple[Fault, ...] = (Fault(rule, found, mend),)
        elif isinstance(rule, Fault):
            faults = (rule,)
        else:
            faults = tuple(rule)
        self.faults = faults
        super().__init__(_message(faults))


def _message(faults: tuple[Fault, ...]) -> str:
    if len(faults) == 1:
        return str(faults[0])
    numbered = [f"{n}. {fault}" for n, fault in enumerate(faults, start=1)]
    return f"{len(faults)} faults\n" + "\n".join(numbered)


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


class MissingExtraError(RekiError):
    """An optional package is not installed."""
