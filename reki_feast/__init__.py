"""Open-world knowledge of large language models as ordinary Feast features.

:class:`Project` has the commands of ``reki`` as methods. The declarations (:class:`Scenario`,
:class:`Sources`, :class:`LLM`, …) are what a ``generators/*.py`` file says. :func:`push` brings
users' match states up to date at the moment of a click. The Feast side is
``from reki_feast.views import reki_views``.
"""

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from reki_feast.api import Project
    from reki_feast.declare import (
        LLM,
        Budget,
        Collective,
        Domains,
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
    "Domains",
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "api": ["Project"],
        "declare": [
            "LLM",
            "Budget",
            "Collective",
            "Domains",
            "Encoder",
            "Freshness",
            "Gates",
            "Individual",
            "Privacy",
            "Scenario",
            "Sources",
            "Training",
        ],
        "stages": ["Pusher", "push"],
    },
)
