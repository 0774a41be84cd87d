"""SetRank (arXiv 1912.05891)."""

from __future__ import annotations

import torch
from torch import Tensor

from reki_feast.models.rerank.base import EncoderReranker


class SetRank(EncoderReranker):
    """Self-attention over candidates as a set: in another order they get the same logits.

    The output MLP reads a candidate as it is beside what attention makes of it, as in REKI's
    experiments; in the paper it is one layer, after six blocks. Only the order of a list's logits
    and their differences mean anything.
    """

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
