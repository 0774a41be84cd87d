"""PRM, the personalised reranking model (arXiv 1904.06813)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reki_feast.recommend.inputs import Embedded, InputSpec
from reki_feast.recommend.layers import Mlp
from reki_feast.recommend.rerank.blocks import Encoder, Reranker


class Prm(Reranker):
    """A transformer's encoder over the list, places learned; then an MLP for each candidate.

    The paper's personalised vectors, taken from another model, are the extra vectors' part here.
    The MLP reads a candidate as it is beside what the encoder makes of it, as in REKI's
    experiments; in the paper it is one layer.

    Args:
        spec: what lists look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the output MLP.
        dropout: of the encoder and the output MLP.
        encoder_size: floats of an encoded candidate.
        heads: of each block.
        blocks: number of the encoder's blocks.
        list_length: how long lists are, at most.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        encoder_size: int = 64,
        heads: int = 2,
        blocks: int = 1,
        list_length: int = 10,
    ) -> None:
        super().__init__(spec, size=size)
        self.encoder = Encoder(
            input_size=self.width,
            size=encoder_size,
            heads=heads,
            blocks=blocks,
            positions=list_length,
            dropout=dropout,
        )
        self.output = Mlp(
            input_size=encoder_size + self.width,
            hidden_sizes=hidden_sizes,
            activation="relu",
            dropout=dropout,
        )

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n, c]``."""
        candidates = self.candidates(embedded)
        logits: Tensor = self.output(torch.cat([self.encoder(candidates), candidates], dim=-1))
        return logits
