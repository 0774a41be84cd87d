"""DIN, the deep interest network (arXiv 1706.06978)."""

from __future__ import annotations

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
        item = embedded.item
        interest = self.interest(item, embedded.history, embedded.mask)
        read = torch.cat([item, interest, embedded.user, embedded.extras], dim=-1)
        logits: Tensor = self.output(read)
        return logits

    def fold(self, tables: Mapping[Kind, Tensor]) -> Folded:
        """The same model for vectors that are known beforehand, called with a batch alone.

        Args:
            tables: ``[rows, size]``, the vectors of users and items by index, those that the model
                takes, in that order; of none for a model without vectors.
        """
        return Folded(self, tables)

    def interest(self, target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """``[n, behaviour + target]``: the interest, and its product with the target.

        The product is what the output MLP is slowest to find.
        """
        interest = self.attention(history, target, mask)
        return torch.cat([interest, interest[:, : target.shape[1]] * target], dim=-1)


class Folded(nn.Module):
    """A DIN whose first output layer is run beforehand over what is an item's or a user's own.

    That layer is linear: what an item (id, fields, vector) and a user (fields, vector) bring to it
    is made once an id instead of once a sample. So vectors add nothing to the cost of a sample.

    Args:
        din: the model, with its weights.
        tables: ``[rows, size]``, vectors of users and items by index, those that the model takes.
    """

    weight: Tensor

    def __init__(self, din: Din, tables: Mapping[Kind, Tensor]) -> None:
        super().__init__()
        first = din.output.layers[0]
        assert isinstance(first, nn.Linear)
        vectors = din.inputs.as_fields(tuple(tables.values()))
        of_items, of_users = din.inputs.of_items(), din.inputs.of_users()
        known = [of_items.shape[1], of_users.shape[1], *(part.shape[1] for part in vectors)]
        widths = [known[0], first.in_features - sum(known), *known[1:]]
        item, own, user, *extras = first.weight.split(widths, dim=1)
        shares: dict[Kind, Tensor] = {"item": of_items @ item.T + first.bias}
        if of_users.numel():
            shares["user"] = of_users @ user.T
        for kind, vector, weight in zip(tables, vectors, extras, strict=True):
            share = vector @ weight.T
            shares[kind] = shares[kind] + share if kind in shares else share
        self.din = din
        self.kinds = tuple(shares)
        self.register_buffer("weight", own.detach().contiguous(), persistent=False)
        for kind, share in shares.items():
            self.register_buffer(kind, share.detach(), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``."""
        _, *rest = self.din.output.layers
        hidden = self.din.interest(*self.din.inputs.embed_items(batch)) @ self.weight.T
        for kind in self.kinds:
            hidden += nn.functional.embedding(getattr(batch, kind), getattr(self, kind))
        for layer in rest:
            hidden = layer(hidden)
        return hidden.squeeze(-1)
