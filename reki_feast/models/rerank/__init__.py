"""Rerankers: what a user thinks of each candidate of a list, in the sight of the others."""

from __future__ import annotations

from reki_feast.models.backbone import Backbone
from reki_feast.models.rerank.dlcm import Dlcm
from reki_feast.models.rerank.mir import Mir
from reki_feast.models.rerank.prm import Prm
from reki_feast.models.rerank.setrank import SetRank

#: Rerankers by the name that declarations and `reki evaluate` use.
RERANK: dict[str, type[Backbone]] = {"dlcm": Dlcm, "prm": Prm, "setrank": SetRank, "mir": Mir}
