"""DeepFM: a factorization machine beside an MLP (arXiv 1703.04247)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation


class DeepFm(ClickModel):
    """First-order terms, the products of all pairs of fields, and an MLP, summed (equation 1).

    What the paper weighs by a number a value, the first order, is linear in the embeddings here:
    the mean history has no value to give a number to.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the MLP.
        activation: of the MLP.
        dropout: of the MLP.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, size=size)
        width = self.inputs.count * size
        self.linear = nn.Linear(width, 1, bias=False)
        self.deep = self._mlp(hidden_sizes=hidden_sizes, activation=activation, dropout=dropout)

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The mean history ``[n, o]``; logits of both orders ``[n]``."""
        fields = embedded.fields()
        first: Tensor = self.linear(fields.flatten(1)).squeeze(-1)
        return embedded.mean_history, first + pair_products(fields)


def pair_products(fields: Tensor) -> Tensor:
    """Sum of the inner products of all pairs of fields (arXiv 1703.04247, equation 2).

    It is half of what the squared sum has over the sum of squares: f steps, not f squared.

    Args:
        fields: ``[n, f, d]``.

    Returns:
        ``[n]``.
    """
    return (fields.sum(1).square().sum(1) - fields.square().sum((1, 2))) / 2
