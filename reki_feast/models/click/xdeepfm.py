"""xDeepFM: a compressed interaction network beside an MLP (arXiv 1803.05170)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation

#: Samples whose products are made at once. Those of a large batch take a hundred megabytes, which
#: come from the system anew each time: twice as slow as parts that the allocator keeps.
_CHUNK = 128


class Cin(nn.Module):
    """Compressed interaction network (arXiv 1803.05170, equations 6 to 8).

    A row of layer k is a weighted sum of the products, element by element, of the rows of layer
    k - 1 with the fields; each is summed over its d floats at the end. There is no activation: the
    paper finds the identity the best.

    Sum and weights are both linear, so the last layer is summed before it is weighed: its products
    become inner products, d times fewer numbers.

    Args:
        fields: f, number of fields.
        sizes: rows of each layer, at least one layer.
    """

    def __init__(self, *, fields: int, sizes: Sequence[int] = (50, 50)) -> None:
        super().__init__()
        # Weights read the product of row i and field j at place i * f + j.
        self.layers = nn.ModuleList(
            nn.Linear(rows * fields, size, bias=False) for rows, size in pairwise((fields, *sizes))
        )

    def forward(self, fields: Tensor) -> Tensor:
        """``[n, f, d]`` to ``[n, sum of sizes]``."""
        # d before the fields: each layer is then one matrix product over n * d rows.
        base = fields.transpose(1, 2).contiguous()
        *inner, last = self.layers
        rows, sums = base, []
        for layer in inner:
            parts = zip(rows.split(_CHUNK), base.split(_CHUNK), strict=True)
            rows = torch.cat([layer(outer(*part)) for part in parts])
            sums.append(rows.sum(1))
        products = rows.transpose(1, 2) @ base
        return torch.cat([*sums, last(products.flatten(1))], dim=-1)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """All products of the last dimensions: ``[..., p]`` and ``[..., q]`` to ``[..., p * q]``."""
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


class XDeepFm(ClickModel):
    """First-order terms, a compressed interaction network and an MLP, summed (equation 9).

    First-order terms are linear in the embeddings, as in
    :class:`~reki_feast.models.click.deepfm.DeepFm`.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the MLP.
        activation: of the MLP.
        dropout: of the MLP.
        cin_sizes: rows of the interaction network's layers.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        activation: Activation = "relu",
        dropout: float = 0.0,
        cin_sizes: Sequence[int] = (50, 50),
    ) -> None:
        super().__init__(spec, size=size)
        width = self.inputs.count * size
        self.cin = Cin(fields=self.inputs.count, sizes=cin_sizes)
        self.output = nn.Linear(sum(cin_sizes), 1, bias=False)
        self.linear = nn.Linear(width, 1, bias=False)
        self.deep = self._mlp(hidden_sizes=hidden_sizes, activation=activation, dropout=dropout)

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The mean history ``[n, o]``; logits of both other parts ``[n]``."""
        fields = embedded.fields()
        beside: Tensor = self.output(self.cin(fields)) + self.linear(fields.flatten(1))
        return embedded.mean_history, beside.squeeze(-1)
