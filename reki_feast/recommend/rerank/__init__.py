"""Rerankers: what a user thinks of each candidate of a list, in the sight of the others."""

from __future__ import annotations

from reki_feast.recommend.backbone import Backbone
from reki_feast.recommend.rerank.dlcm import Dlcm
from reki_feast.recommend.rerank.mir import Mir
from reki_feast.recommend.rerank.prm import Prm
from reki_feast.recommend.rerank.setrank import SetRank

#: Rerankers by the name that declarations and `reki evaluate` use.
RERANK: dict[str, type[Backbone]] = {"dlcm": Dlcm, "prm": Prm, "setrank": SetRank, "mir": Mir}
