"""DIN, the deep interest network (arXiv 1706.06978)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation, TargetAttention


class Din(ClickModel):
    """Interest in the target: the history, weighed by how it bears on the target.

    The attention's MLP has PReLU, the output MLP Dice unless told otherwise.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the output MLP.
        activation: of the output MLP.
        dropout: of the output MLP.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        activation: Activation = "dice",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, size=size)
        inputs = self.inputs
        target, behaviour = inputs.item_count * size, inputs.history_count * size
        self.attention = TargetAttention(size=target, behaviour_size=behaviour)
        self.deep = self._mlp(
            behaviour + target, hidden_sizes=hidden_sizes, activation=activation, dropout=dropout
        )

    def read(self, embedded: Embedded) -> tuple[Tensor, None]:
        """The interest, and its product with the target ``[n, o]``; no other logits.

        The product is what the output MLP is slowest to find.
        """
        target = embedded.item
        interest = self.attention(embedded.history, target, embedded.mask)
        return torch.cat([interest, interest[:, : target.shape[1]] * target], dim=-1), None
