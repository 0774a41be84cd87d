"""DLCM, the deep listwise context model (arXiv 1804.05936)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import BatchNorm
from reki_feast.models.rerank.base import Reranker


class LocalRanking(nn.Module):
    """DLCM's local ranking function phi (arXiv 1804.05936): ``v . (o * tanh(W s + b))``.

    o is the candidate's state and s the list's. Both are standardised over the batch, as in KAR's
    experiments (the paper does without). Normalising each by itself instead takes away how large a
    state is: on MovieLens-1M the model is the better for that without vectors, and the worse with
    them.

    Args:
        size: floats of a state.
        dropout: share of the list's units dropped in training.
    """

    def __init__(self, *, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.state_norm = BatchNorm(size)
        self.list_norm = BatchNorm(size)
        self.context = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, 1)

    def forward(self, states: Tensor, last: Tensor) -> Tensor:
        """States ``[n, c, size]`` of candidates and ``[n, size]`` of lists to ``[n, c]``."""
        context = self.dropout(torch.tanh(self.context(self.list_norm(last))))
        out: Tensor = self.output(self.state_norm(states) * context.unsqueeze(1))
        return out.squeeze(-1)


class Dlcm(Reranker):
    """A GRU reads the list; what it knows at the end weighs what it knew at each candidate.

    Args:
        spec: what lists look like.
        size: d, floats of an embedding.
        hidden_size: floats of a state.
        dropout: of the local ranking function.
    """

    def __init__(
        self, spec: InputSpec, *, size: int = 32, hidden_size: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__(spec, size=size)
        self.gru = nn.GRU(self.width, hidden_size, batch_first=True)
        self.ranking = LocalRanking(size=hidden_size, dropout=dropout)

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n, c]``."""
        states, last = self.gru(self.candidates(embedded))
        logits: Tensor = self.ranking(states, last[0])
        return logits
