"""SetRank (arXiv 1912.05891)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reki_feast.recommend.inputs import Embedded, InputSpec
from reki_feast.recommend.layers import Mlp
from reki_feast.recommend.rerank.blocks import Encoder, Reranker


class SetRank(Reranker):
    """Self-attention over candidates as a set: in another order they get the same logits.

    The output MLP reads a candidate as it is beside what attention makes of it, as in REKI's
    experiments; in the paper it is one layer, after six blocks.

    Args:
        spec: what lists look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the output MLP.
        dropout: of the blocks and the output MLP.
        encoder_size: floats of an encoded candidate.
        heads: of each block.
        blocks: number of self-attention blocks.
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
    ) -> None:
        super().__init__(spec, size=size)
        self.encoder = Encoder(
            input_size=self.width, size=encoder_size, heads=heads, blocks=blocks, dropout=dropout
        )
        self.output = Mlp(
            input_size=encoder_size + self.width,
            hidden_sizes=hidden_sizes,
            activation="relu",
            dropout=dropout,
        )

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n, c]``; only their order within a list and their differences mean anything."""
        candidates = self.candidates(embedded)
        logits: Tensor = self.output(torch.cat([self.encoder(candidates), candidates], dim=-1))
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Attention rank loss, in nats; both are ``[n, c]``."""
        return attention_rank_loss(logits, labels)


def attention_rank_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy between the attention that labels ask for and that of the logits.

    Labels ask for ``exp(y)`` where they are above 0 and for none elsewhere, in shares of the list;
    logits give their softmax (arXiv 1804.05936, as SetRank takes it). A list without
    a positive asks for nothing: it has no loss and does not count in the mean.

    Args:
        logits: ``[n, c]``.
        labels: ``[n, c]``.
    """
    wanted = torch.where(labels > 0, labels.exp(), 0.0)
    total = wanted.sum(dim=1, keepdim=True)
    shares = wanted / total.clamp(min=1)  # a positive has more than 1
    lost = -(shares * torch.log_softmax(logits, dim=1)).sum()
    return lost / (total > 0).sum().clamp(min=1)
