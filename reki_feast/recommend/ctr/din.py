"""DIN, the deep interest network (arXiv 1706.06978)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reki_feast.recommend.backbone import Backbone
from reki_feast.recommend.data import Batch
from reki_feast.recommend.inputs import Embedded, InputSpec
from reki_feast.recommend.layers import Activation, Mlp, TargetAttention
from reki_feast.schema import Kind


class Din(Backbone):
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
        others = (inputs.user_count + inputs.extra_count) * size
        self.output = Mlp(
            input_size=target + behaviour + target + others,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n]``."""
        logits: Tensor = self.output(torch.cat(self.read(embedded), dim=-1))
        return logits

    def fold(self, tables: Mapping[Kind, Tensor]) -> Folded:
        """The same model for vectors that are known beforehand, called with a batch alone.

        Args:
            tables: ``[rows, size]``, the vectors of users and items by index, those that the model
                takes, in that order.
        """
        first = self.output.layers[0]
        assert isinstance(first, nn.Linear)
        fields = self.inputs.as_fields(tuple(tables.values()))
        own = first.in_features - sum(field.shape[1] for field in fields)
        widths = [own, *(field.shape[1] for field in fields)]
        weight, *shares = first.weight.detach().split(widths, dim=1)
        made = [field @ share.T for field, share in zip(fields, shares, strict=True)]
        return Folded(self, weight.contiguous(), dict(zip(tables, made, strict=True)))

    def read(self, embedded: Embedded) -> list[Tensor]:
        """What the output MLP reads, extra vectors last."""
        target = embedded.item
        interest = self.attention(embedded.history, target, embedded.mask)
        # The interest's product with the target is what the output MLP is slowest to find.
        product = interest[:, : target.shape[1]] * target
        return [target, interest, product, embedded.user, embedded.extras]


class Folded(nn.Module):
    """A DIN whose extra vectors' share of the first output layer is made already.

    That layer is linear, so a vector's share can be made once an id instead of once a sample.

    Args:
        din: the model, with its weights.
        weight: of the first output layer, the columns of extra vectors left out.
        shares: ``[rows, hidden]``, of users and items by index.
    """

    weight: Tensor
    table: Tensor

    def __init__(self, din: Din, weight: Tensor, shares: Mapping[Kind, Tensor]) -> None:
        super().__init__()
        self.din = din
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("table", torch.cat(list(shares.values())).detach(), persistent=False)
        rows = [0, *itertools.accumulate(len(share) for share in shares.values())]
        self.starts = dict(zip(shares, rows, strict=False))

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``."""
        read = self.din.read(self.din.inputs.embed(batch))
        first, *rest = self.din.output.layers
        bias = first.get_parameter("bias")
        hidden = nn.functional.linear(torch.cat(read, dim=-1), self.weight, bias)
        index = [getattr(batch, kind) + start for kind, start in self.starts.items()]
        hidden += nn.functional.embedding_bag(torch.stack(index, dim=1), self.table, mode="sum")
        for layer in rest:
            hidden = layer(hidden)
        return hidden.squeeze(-1)
