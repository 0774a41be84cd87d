"""Layers the click models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["dice", "prelu", "relu"]


class BatchNorm(nn.BatchNorm1d):
    """Standardises units over all rows; a row alone, which has no variance, by what it saw before.

    Args:
        size: number of units, the last dimension of ``[..., size]``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[..., size]`` to ``[..., size]``."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > 1 or not self.training:
            return super().forward(rows).view(x.shape)
        out = nn.functional.batch_norm(
            rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        return out.view(x.shape)


class Dice(nn.Module):
    """DIN's data-adaptive activation (arXiv 1706.06978, equation 3).

    ``p(x) * x + (1 - p(x)) * alpha * x`` with p the sigmoid of x, standardised over the batch.

    Args:
        size: number of units, the last dimension.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__()
        self.norm = BatchNorm(size, affine=False, eps=1e-8)
        self.alpha = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, size]`` to ``[n, size]``."""
        p = torch.sigmoid(self.norm(x))
        return x * (p + (1 - p) * self.alpha)


class Mlp(nn.Module):
    """Linear layers with an activation after each but the last, which gives one number.

    Args:
        input_size: floats of a row.
        hidden_sizes: widths of the hidden layers.
        activation: after each hidden layer.
        dropout: share of hidden units dropped in training.
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_sizes: Sequence[int],
        activation: Activation = "dice",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = input_size
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), activate(activation, size), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, input_size]`` to ``[n]``."""
        out: Tensor = self.layers(x)
        return out.squeeze(-1)


class TargetAttention(nn.Module):
    """DIN's local activation unit: the history weighed by how it bears on the target.

    Weights are an MLP's of (behaviour, target, their difference, their product), not normalised,
    as in the paper (arXiv 1706.06978, section 4.3). A behaviour is an item's embedding and more;
    the product is that of the two items. The first layer's share that depends on the target alone
    is computed once a sample instead of once a behaviour; the difference needs no weights of its
    own, being a sum of the two.

    Args:
        size: s, floats of an item's embedding.
        behaviour_size: b >= s, floats of a behaviour, of which its item's embedding is the start.
        hidden_sizes: widths of the MLP's hidden layers, at least one.
    """

    def __init__(
        self, *, size: int, behaviour_size: int, hidden_sizes: Sequence[int] = (36,)
    ) -> None:
        super().__init__()
        first, *rest = hidden_sizes
        self.size = size
        self.behaviour = nn.Linear(behaviour_size, first)
        self.target = nn.Linear(size, first, bias=False)
        self.product = nn.Linear(size, first, bias=False)
        self.activation = nn.PReLU(first)
        self.rest = Mlp(input_size=first, hidden_sizes=rest, activation="prelu")

    def forward(self, history: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """History ``[n, l, b]``, target ``[n, s]``, mask ``[n, l]`` to ``[n, b]``."""
        n, length, _ = history.shape
        both = history[..., : self.size] * target.unsqueeze(1)
        each = self.behaviour(history) + self.product(both)
        units = (each + self.target(target).unsqueeze(1)).flatten(0, 1)
        weights = self.rest(self.activation(units)).view(n, length) * mask
        return torch.einsum("nl,nlb->nb", weights, history)


def activate(activation: Activation, size: int) -> nn.Module:
    """The activation of that name for ``size`` units."""
    if activation == "dice":
        return Dice(size=size)
    return nn.PReLU(size) if activation == "prelu" else nn.ReLU()
