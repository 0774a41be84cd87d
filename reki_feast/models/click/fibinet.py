"""FiBiNET: fields weighed by importance, and bilinear products of pairs (arXiv 1905.09433)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation

#: Which pairs share a matrix: all of them, those with the same first field, or none.
Bilinear = Literal["all", "each", "interaction"]
#: What becomes of a pair: the sum of its products, or the products themselves.
Product = Literal["inner", "hadamard"]
#: What importances end in.
Excitation = Literal["sigmoid", "relu"]


class Importance(nn.Module):
    """SENET's weights of fields: an MLP of every field's mean (equations 2 and 3).

    Args:
        fields: f, number of fields.
        reduction: the hidden layer has f over this many units.
        excitation: last activation; the paper leaves it open. With ReLU weights start near zero
            or dead, as small as the embeddings do.
    """

    def __init__(
        self, *, fields: int, reduction: float = 3, excitation: Excitation = "sigmoid"
    ) -> None:
        super().__init__()
        hidden = max(1, int(fields / reduction))
        self.squeeze = nn.Linear(fields, hidden, bias=False)
        self.excite = nn.Linear(hidden, fields, bias=False)
        self.activation = nn.ReLU() if excitation == "relu" else nn.Sigmoid()

    def forward(self, fields: Tensor) -> Tensor:
        """``[n, f, d]`` to ``[n, f]``."""
        weights: Tensor = self.activation(self.excite(self.squeeze(fields.mean(-1)).relu()))
        return weights


class BilinearPairs(nn.Module):
    """``(v_i W) * v_j`` for all pairs of fields i < j (equations 5 to 7).

    Args:
        fields: f, number of fields.
        size: d, floats of a field.
        bilinear: which pairs share a matrix W.
        product: ``"hadamard"`` as in the paper, or ``"inner"``, its sum over d (arXiv 2209.05016).
    """

    first: Tensor
    second: Tensor

    def __init__(
        self, *, fields: int, size: int, bilinear: Bilinear = "all", product: Product = "inner"
    ) -> None:
        super().__init__()
        first, second = torch.triu_indices(fields, fields, offset=1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.bilinear, self.product = bilinear, product
        matrices = {"all": 1, "each": fields, "interaction": len(first)}[bilinear]
        self.weights = nn.Parameter(torch.randn(matrices, size, size) / size**0.5)

    def forward(self, fields: Tensor) -> Tensor:
        """``[n, f, d]`` to ``[n, p]`` for inner products, else to ``[n, p, d]``."""
        if self.bilinear == "interaction":
            left, right = fields[:, self.first], fields[:, self.second]
            made = torch.einsum("npd,pde->npe", left, self.weights) * right
            return made.sum(-1) if self.product == "inner" else made
        left = self._left(fields)
        if self.product == "inner":
            return (left @ fields.transpose(1, 2))[:, self.first, self.second]
        return left[:, self.first] * fields[:, self.second]

    def _left(self, fields: Tensor) -> Tensor:
        """``[n, f, d]``, each field times its matrix."""
        if self.bilinear == "all":
            return fields @ self.weights[0]
        return torch.einsum("nfd,fde->nfe", fields, self.weights)


class FiBiNet(ClickModel):
    """An MLP of bilinear products of pairs, and of the same pairs weighed by importance.

    Both shares have the same matrices, so the weighed product of two fields is their product times
    both importances. Defaults are the cheapest: one matrix for all pairs, the paper's kind "all",
    and the inner products of the successor, FiBiNet++ (arXiv 2209.05016). The MLP reads 132 of them
    for 12 fields of 32, where there are 4224 Hadamard products; they say less of the fields alone,
    so those stand beside them.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the MLP.
        activation: of the MLP.
        dropout: of the MLP.
        bilinear: which pairs share a matrix.
        product: what becomes of a pair; ``"hadamard"`` is the paper's.
        reduction: of :class:`Importance`.
        excitation: of :class:`Importance`.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        activation: Activation = "relu",
        dropout: float = 0.0,
        bilinear: Bilinear = "all",
        product: Product = "inner",
        reduction: float = 3,
        excitation: Excitation = "sigmoid",
    ) -> None:
        super().__init__(spec, size=size)
        count = self.inputs.count
        self.product = product
        self.importance = Importance(fields=count, reduction=reduction, excitation=excitation)
        self.pairs = BilinearPairs(fields=count, size=size, bilinear=bilinear, product=product)
        pairs = count * (count - 1)  # plain and weighed
        self.deep = self._mlp(
            self.inputs.history_count * size + (pairs if product == "inner" else pairs * size),
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )

    def read(self, embedded: Embedded) -> tuple[Tensor, None]:
        """The mean history and all products ``[n, o]``; no other logits."""
        fields = embedded.fields()
        pairs = self.pairs(fields)
        importance = self.importance(fields)
        both = importance[:, self.pairs.first] * importance[:, self.pairs.second]
        weighed = pairs * (both if self.product == "inner" else both.unsqueeze(-1))
        parts = [embedded.mean_history, pairs.flatten(1), weighed.flatten(1)]
        return torch.cat(parts, dim=-1), None
