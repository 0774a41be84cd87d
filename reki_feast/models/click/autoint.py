"""AutoInt, feature interactions by self-attention (arXiv 1810.11921)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation


class Interacting(nn.Module):
    """Every field looks at every field (the paper's interacting layer), with scaled scores.

    Args:
        input_size: floats of a field.
        size: floats of a field afterwards, those of all heads together.
        heads: attention heads; a divisor of ``size``.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, *, input_size: int, size: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if size % heads:
            raise ValueError(f"heads divide the size evenly: {heads} heads, size {size}")
        self.heads = heads
        #: Query, key, value and residual of all heads, one above the other.
        self.project = nn.Linear(input_size, 4 * size, bias=False)
        self.dropout = dropout

    def forward(self, fields: Tensor) -> Tensor:
        """``[n, f, input_size]`` to ``[n, f, size]``."""
        *parts, kept = self.project(fields).chunk(4, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        seen = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return torch.relu(seen.transpose(1, 2).flatten(2) + kept)


class AutoInt(ClickModel):
    """Layers of self-attention over the fields, and an MLP beside them: the paper's AutoInt+.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the MLP.
        layers: layers of self-attention.
        heads: attention heads, of ``attention_size / heads`` floats each.
        attention_size: floats of a field after a layer; None takes ``size``.
        activation: of the MLP.
        dropout: of the attention weights and of the MLP.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        layers: int = 2,
        heads: int = 2,
        attention_size: int | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, size=size)
        width, count = attention_size or size, self.inputs.count
        self.layers = nn.Sequential(
            *(
                Interacting(input_size=before, size=width, heads=heads, dropout=dropout)
                for before in (size, *[width] * (layers - 1))
            )
        )
        self.output = nn.Linear(count * width, 1)
        self.deep = self._mlp(hidden_sizes=hidden_sizes, activation=activation, dropout=dropout)

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The mean history ``[n, o]``; logits of self-attention ``[n]``."""
        fields = embedded.fields()
        beside: Tensor = self.output(self.layers(fields).flatten(1)).squeeze(-1)
        return embedded.mean_history, beside
