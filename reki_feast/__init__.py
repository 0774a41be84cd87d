"""Open-world knowledge of large language models as ordinary Feast features.

:class:`Project` has the commands of ``reki`` as methods. The declarations (:class:`Scenario`,
:class:`Sources`, :class:`LLM`, …) are what a ``generators/*.py`` file says. :func:`push` brings
users' match states up to date at the moment of a click. The Feast side is
``from reki_feast.views import reki_views``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reki_feast.api import Project
    from reki_feast.declare import (
        LLM,
        Budget,
        Collective,
        Encoder,
        Freshness,
        Gates,
        Individual,
        Privacy,
        Scenario,
        Sources,
        Training,
    )
    from reki_feast.stages import Pusher, push

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "Budget",
    "Collective",
    "Encoder",
    "Freshness",
    "Gates",
    "Individual",
    "Privacy",
    "Project",
    "Pusher",
    "Scenario",
    "Sources",
    "Training",
    "push",
]
#: Where names are that are not declarations.
_MODULES = {"Project": "api", "Pusher": "stages", "push": "stages"}


def __getattr__(name: str) -> Any:
    """Import a name on first use: `reki --help` does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'reki_feast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"reki_feast.{_MODULES.get(name, 'declare')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
