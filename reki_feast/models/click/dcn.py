"""DCN, deep and cross networks: version 1 (arXiv 1708.05123) and version 2 (arXiv 2008.13535)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation


class VectorCross(nn.Module):
    """DCN's cross network, whose layers weigh with vectors (arXiv 1708.05123, equation 3).

    ``x_(k+1) = x_0 (x_k . w_k) + b_k + x_k``, so every x_k is ``s_k x_0 + c_k`` with one number s_k
    a sample and c_k the sum of the biases before: a single product with all w_k is enough.

    Args:
        size: floats of a row.
        layers: number of layers, at least one.
    """

    def __init__(self, *, size: int, layers: int = 3) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(layers, size) / size**0.5)
        self.biases = nn.Parameter(torch.zeros(layers, size))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, size]`` to ``[n, size]``."""
        products = (x @ self.weights.T).unbind(1)
        scale, shift = torch.ones_like(products[0]), torch.zeros_like(self.biases[0])
        for product, weight, bias in zip(products, self.weights, self.biases, strict=True):
            scale = scale + scale * product + shift @ weight
            shift = shift + bias
        return torch.addcmul(shift, x, scale.unsqueeze(1))


class MatrixCross(nn.Module):
    """DCN-V2's cross network, whose layers weigh with matrices (arXiv 2008.13535, equation 1).

    ``x_(k+1) = x_0 * (W_k x_k + b_k) + x_k``

    Args:
        size: floats of a row.
        layers: number of layers, at least one.
    """

    def __init__(self, *, size: int, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, size]`` to ``[n, size]``."""
        crossed = x
        for layer in self.layers:
            crossed = torch.addcmul(crossed, x, layer(crossed))
        return crossed


class Dcn(ClickModel):
    """A cross network beside an MLP; one linear layer reads both (the parallel structure).

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the MLP.
        activation: of the MLP.
        dropout: of the MLP.
        cross_layers: layers of the cross network.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        activation: Activation = "relu",
        dropout: float = 0.0,
        cross_layers: int = 3,
    ) -> None:
        super().__init__(spec, size=size)
        width = self.inputs.count * size
        self.cross = self._cross(width, cross_layers)
        self.output = nn.Linear(width, 1, bias=False)
        # Its last layer is the share of the joint linear layer that reads the MLP.
        self.deep = self._mlp(hidden_sizes=hidden_sizes, activation=activation, dropout=dropout)

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The mean history ``[n, o]``; logits of the cross network ``[n]``."""
        x = embedded.flat()
        return embedded.mean_history, self.output(self.cross(x)).squeeze(-1)

    @staticmethod
    def _cross(size: int, layers: int) -> nn.Module:
        return VectorCross(size=size, layers=layers)


class DcnV2(Dcn):
    """DCN with full matrices in its cross layers; else as :class:`Dcn`."""

    @staticmethod
    def _cross(size: int, layers: int) -> nn.Module:
        return MatrixCross(size=size, layers=layers)
