"""Fi-GNN, feature interactions as messages on a graph of the fields (arXiv 1910.05552)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation


class FieldGraph(nn.Module):
    """States of the fields after messages along all edges, from field to other field.

    An edge's matrix is the product of one of the field it leaves and one of the field it enters,
    so that there are 2 f matrices and not f^2. All steps share all weights.

    Args:
        count: f, number of fields.
        size: d, floats of a field.
        steps: rounds of messages.
    """

    loops: Tensor

    def __init__(self, *, count: int, size: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.source = nn.Linear(size, 1, bias=False)
        self.sink = nn.Linear(size, 1, bias=False)
        self.leave = nn.Parameter(_matrices(count, size))
        self.enter = nn.Parameter(_matrices(count, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.update = nn.GRUCell(size, size)
        self.register_buffer("loops", torch.eye(count, dtype=torch.bool), persistent=False)

    def edges(self, fields: Tensor) -> Tensor:
        """``[n, f, f]``: weights of the edges that enter each field; they add up to 1."""
        scores = self.sink(fields) + self.source(fields).transpose(1, 2)
        return nn.functional.leaky_relu(scores).masked_fill(self.loops, -torch.inf).softmax(-1)

    def forward(self, fields: Tensor) -> Tensor:
        """``[n, f, d]`` to ``[n, f, d]``."""
        edges, states = self.edges(fields), fields
        for _ in range(self.steps):
            received = edges @ _each(states, self.leave)
            message = _each(received, self.enter) + self.bias
            after = self.update(message.flatten(0, 1), states.flatten(0, 1))
            states = after.view_as(fields) + fields
        return states


class FiGnn(ClickModel):
    """A graph of the fields, a weighted vote of their states (attentional scoring), and an MLP.

    The paper has no MLP. Here it is what reads extra vectors.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the MLP.
        steps: rounds of messages.
        activation: of the MLP.
        dropout: of the states that vote, and of the MLP.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        steps: int = 2,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, size=size)
        count = self.inputs.count
        self.graph = FieldGraph(count=count, size=size, steps=steps)
        self.dropout = nn.Dropout(dropout)
        self.vote = nn.Linear(size, 1)
        self.weight = nn.Linear(count * size, count)
        self.deep = self._mlp(hidden_sizes=hidden_sizes, activation=activation, dropout=dropout)

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The mean history ``[n, o]``; the vote ``[n]``."""
        fields = embedded.fields()
        states = self.dropout(self.graph(fields))
        weights = torch.sigmoid(self.weight(states.flatten(1)))
        vote: Tensor = (weights * self.vote(states).squeeze(-1)).sum(-1)
        return embedded.mean_history, vote


def _each(fields: Tensor, matrices: Tensor) -> Tensor:
    """Each field ``[n, f, d]`` times its own matrix ``[f, d, d]``."""
    return torch.bmm(fields.transpose(0, 1), matrices).transpose(0, 1)


def _matrices(count: int, size: int) -> Tensor:
    """``[f, d, d]``, each matrix as Glorot starts it."""
    return torch.randn(count, size, size) / math.sqrt(size)
