"""What a domain makes of general vectors, as a formula that a feature store can compute.

A user's vector u and an item's vector i of the same q floats are scored by ::

    score = bias + user . u + item . i + product . (u * i)

which is a logistic regression, and is learnt from the domain's labels and from what its click
model, which reads histories, thinks of the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_RIDGE = 1e-3
_STEPS = 100
_TINY = 1e-6


@dataclass(frozen=True)
class DomainHead:
    """Weights of a domain's score.

    Attributes:
        bias: a number.
        user: q weights of the user's floats.
        item: q of the item's.
        product: q of their products.
    """

    bias: float
    user: tuple[float, ...]
    item: tuple[float, ...]
    product: tuple[float, ...]

    def scores(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits ``[n]`` of vectors ``[n, q]``."""
        weights = (torch.tensor(part) for part in (self.user, self.item, self.product))
        of_user, of_item, of_both = weights
        return self.bias + user @ of_user + item @ of_item + (user * item) @ of_both

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DomainHead:
        """From JSON of its fields.

        Raises:
            KeyError: a field is missing.
        """
        parts = (tuple(float(x) for x in raw[name]) for name in ("user", "item", "product"))
        return cls(float(raw["bias"]), *parts)


def fit_head(user: Tensor, item: Tensor, target: Tensor) -> DomainHead:
    """Fit the weights; the same inputs give the same weights.

    Args:
        user: ``[n, q]``, vectors of the samples' users.
        item: ``[n, q]``, those of their items.
        target: ``[n]``, from 0 to 1.
    """
    columns = torch.cat([user, item, user * item], dim=1).double()
    mean, spread = columns.mean(0), columns.std(0, unbiased=False).clamp(min=_TINY)
    standard, wanted = (columns - mean) / spread, target.double()
    weight = torch.zeros(columns.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = standard @ weight + bias
        fitted = nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        total = fitted + _RIDGE * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    raw = weight.detach() / spread
    parts = (_numbers(part) for part in raw.split(user.shape[1]))
    return DomainHead(float(bias.detach() - raw @ mean), *parts)


def _numbers(values: Tensor) -> tuple[float, ...]:
    numbers: Sequence[float] = values.tolist()
    return tuple(numbers)
