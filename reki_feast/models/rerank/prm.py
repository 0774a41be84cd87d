"""PRM, the personalised reranking model (arXiv 1904.06813)."""

from __future__ import annotations

from typing import Any

from reki_feast.models.inputs import InputSpec
from reki_feast.models.rerank.base import EncoderReranker


class Prm(EncoderReranker):
    """A transformer's encoder over the list, places learned; then an MLP for each candidate.

    The paper's personalised vectors, taken from another model, are the extra vectors' part here.
    The MLP reads a candidate as it is beside what the encoder makes of it, as in REKI's
    experiments; in the paper it is one layer.

    Args:
        spec: what lists look like.
        list_length: how long lists are, at most.
        how: as in :class:`~reki_feast.models.rerank.base.EncoderReranker`.
    """

    def __init__(self, spec: InputSpec, *, list_length: int = 10, **how: Any) -> None:
        super().__init__(spec, positions=list_length, **how)
