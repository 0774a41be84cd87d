"""What a ``generators/*.py`` file declares: strict data, all faults reported at once.

A file declares, at module level and under any names, one :class:`Scenario`, one :class:`Sources`,
its generators (:class:`Individual`, :class:`Collective`), and where the defaults do not fit an
:class:`LLM`, a :class:`Budget`, :class:`Gates`, :class:`Freshness`, :class:`Privacy`, an
:class:`Encoder`, a :class:`Training` and :class:`Domains`. :func:`load` collects them. An unknown
key, a wrong type or a missing declaration is a fault; every fault of the file is raised together.
"""

from reki_feast.declare.base import Declared
from reki_feast.declare.domains import Domains
from reki_feast.declare.encoder import Encoder
from reki_feast.declare.file import Declarations, find, load
from reki_feast.declare.generation import LLM, Budget, Freshness, Gates, Privacy
from reki_feast.declare.scenario import (
    Collective,
    Generator,
    Individual,
    Scenario,
    Sources,
    Training,
)

__all__ = [
    "LLM",
    "Budget",
    "Collective",
    "Declarations",
    "Declared",
    "Domains",
    "Encoder",
    "Freshness",
    "Gates",
    "Generator",
    "Individual",
    "Privacy",
    "Scenario",
    "Sources",
    "Training",
    "find",
    "load",
]
