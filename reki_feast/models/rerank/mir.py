"""MIR, multi-level interaction reranking (arXiv 2204.09370)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Mlp
from reki_feast.models.rerank.base import Reranker, SelfAttention


class SLAttention(nn.Module):
    """MIR's attention between a set V of candidates and a list Q of behaviours, both ways.

    An affinity ``C = tanh(A Q . B V)`` of each behaviour and candidate carries each side's
    features over to the other: ``H_V = tanh(P V + C^T R Q)`` and ``H_Q = tanh(R Q + C P V)``. By
    these each candidate attends to the set and to the list.

    Weights that are scores of a candidate's place in the list would fix its length and let the
    order of a set matter, so scores are products of H here. A feature-level affinity, the weighted
    sum over pairs of fields of ``q W v``, would be one more bilinear form of the same two vectors:
    the one above holds it.

    Args:
        set_size: v, floats of a candidate.
        list_size: q, floats of a behaviour.
        size: floats of H.
    """

    def __init__(self, *, set_size: int, list_size: int, size: int) -> None:
        super().__init__()
        self.set = nn.Linear(set_size, 2 * size, bias=False)
        self.list = nn.Linear(list_size, 2 * size, bias=False)
        self.query = nn.Linear(size, 2 * size, bias=False)
        self.scale = 1 / math.sqrt(size)

    def forward(self, v: Tensor, q: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each candidate finds in the set and in the list.

        Args:
            v: ``[n, c, v]``.
            q: ``[n, l, q]``, zero where there is no behaviour.
            mask: ``[n, l]``, 1 where there is one.

        Returns:
            ``[n, c, v]`` and ``[n, c, q]``, the latter zero where there is no behaviour at all.
        """
        v_bridge, v_own = self.set(v).chunk(2, dim=-1)
        q_bridge, q_own = self.list(q).chunk(2, dim=-1)
        affinity = torch.tanh(torch.bmm(q_bridge, v_bridge.transpose(1, 2)))  # [n, l, c]
        v_both = torch.tanh(v_own + torch.bmm(affinity.transpose(1, 2), q_own))
        q_both = torch.tanh(q_own + torch.bmm(affinity, v_own))
        to_set, to_list = (self.query(v_both) * self.scale).chunk(2, dim=-1)
        absent = (mask == 0).unsqueeze(1)
        set_scores = torch.bmm(to_set, v_both.transpose(1, 2))
        # Finite, so that a list without behaviours has no NaN.
        list_scores = torch.bmm(to_list, q_both.transpose(1, 2)).masked_fill(absent, -1e9)
        return torch.bmm(set_scores.softmax(-1), v), torch.bmm(list_scores.softmax(-1), q)


class Mir(Reranker):
    """Candidates as a set beside the history as a list, and the attention between them.

    Self-attention puts candidates in the sight of each other, a GRU behaviours in the sight of
    those before; :class:`SLAttention` brings both together. In another order candidates get the
    same logits. The paper's decay by time wants timestamps and is left out, as in REKI's
    experiments.

    Args:
        spec: what lists look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the output MLP, at least one.
        dropout: of the output MLP.
        hidden_size: floats of the self-attention's output, of the GRU's state and of H.
        heads: of the self-attention.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        hidden_size: int = 64,
        heads: int = 2,
    ) -> None:
        super().__init__(spec, size=size)
        behaviour = self.inputs.history_count * size
        set_size, list_size = self.width + hidden_size, behaviour + hidden_size
        self.across = SelfAttention(input_size=self.width, size=hidden_size, heads=heads)
        self.gru = nn.GRU(behaviour, hidden_size, batch_first=True)
        self.attention = SLAttention(set_size=set_size, list_size=list_size, size=hidden_size)
        first, *rest = hidden_sizes
        self.each = nn.Linear(set_size + list_size + self.width, first)
        # The history's mean is the same for all candidates of a list: its share is computed once.
        self.mean = nn.Linear(list_size, first, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = Mlp(input_size=first, hidden_sizes=rest, activation="relu", dropout=dropout)

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n, c]``."""
        candidates = self.candidates(embedded)
        behaviours, mask = self._behaviours(embedded)
        members = torch.cat([candidates, self.across(candidates)], dim=-1)
        from_set, from_list = self.attention(members, behaviours, mask)
        mean = behaviours.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        each = self.each(torch.cat([from_set, from_list, candidates], dim=-1))
        hidden = torch.relu(each + self.mean(mean).unsqueeze(1))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits

    def _behaviours(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """Behaviours ``[n, l, q]`` with the GRU's states, zero where there is none, and mask.

        Padding goes to the end, where the states it makes come too late to matter.
        """
        order = embedded.mask.argsort(dim=1, descending=True, stable=True)
        mask = embedded.mask.gather(1, order)
        history = embedded.history.gather(1, order.unsqueeze(-1).expand_as(embedded.history))
        states, _ = self.gru(history)
        return torch.cat([history, states * mask.unsqueeze(-1)], dim=-1), mask
