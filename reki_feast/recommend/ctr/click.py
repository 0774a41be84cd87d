"""What click models share: an output MLP, the one place where extra vectors are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reki_feast.recommend.backbone import Backbone
from reki_feast.recommend.data import Batch
from reki_feast.recommend.inputs import Embedded
from reki_feast.recommend.layers import Activation, Mlp
from reki_feast.schema import Kind


class ClickModel(Backbone):
    """A model of samples: an MLP, and what else it makes of a sample.

    The MLP reads the target, what :meth:`read` makes of the sample, the user's fields and the extra
    vectors. Vectors are left out of crossings and attention, whose cost grows with the square of
    the fields: MLPs find what they say of target and user, and :meth:`fold` makes them cost nothing
    once they are stored.
    """

    deep: Mlp

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor | None]:
        """What the MLP reads of a sample ``[n, o]``, and logits ``[n]`` beside the MLP's, if any.

        Extra vectors take no part in it.
        """
        raise NotImplementedError

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n]``."""
        own, beside = self.read(embedded)
        parts = [embedded.item, own, embedded.user, embedded.extras]
        logits: Tensor = self.deep(torch.cat(parts, dim=-1))
        return logits if beside is None else beside + logits

    @torch.no_grad()
    def fold(self, tables: Mapping[Kind, Tensor]) -> Folded:
        """The same model for vectors that are known beforehand, called with a batch alone.

        Args:
            tables: ``[rows, size]``, the vectors of users and items by index, those that the model
                takes, in that order; of none for a model without vectors.
        """
        return Folded(self, tables)

    def _mlp(
        self,
        own: int | None = None,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> Mlp:
        """The MLP for ``own`` floats of :meth:`read`; None for those of the mean history."""
        inputs = self.inputs
        own = inputs.history_count * inputs.size if own is None else own
        fields = inputs.item_count + inputs.user_count + inputs.extra_count
        return Mlp(
            input_size=fields * inputs.size + own,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )


class Folded(nn.Module):
    """A click model that has made beforehand what is an item's or a user's own.

    Their fields are embedded. The MLP's first layer is linear, so what an item (id, fields, vector)
    and a user (fields, vector) bring to it is made once an id instead of once a sample: vectors
    add nothing to the cost of a sample.

    Args:
        model: with its weights.
        tables: ``[rows, size]``, vectors of users and items by index, those that the model takes.
    """

    weight: Tensor
    items: Tensor
    users: Tensor

    def __init__(self, model: ClickModel, tables: Mapping[Kind, Tensor]) -> None:
        super().__init__()
        first = model.deep.layers[0]
        assert isinstance(first, nn.Linear)
        vectors = model.inputs.as_fields(tuple(tables.values()))
        of_items, of_users = model.inputs.of_items(), model.inputs.of_users()
        known = [of_items.shape[1], of_users.shape[1], *(part.shape[1] for part in vectors)]
        widths = [known[0], first.in_features - sum(known), *known[1:]]
        item, own, user, *extras = first.weight.split(widths, dim=1)
        shares: dict[Kind, Tensor] = {"item": of_items @ item.T + first.bias}
        if of_users.numel():
            shares["user"] = of_users @ user.T
        for kind, vector, weight in zip(tables, vectors, extras, strict=True):
            share = vector @ weight.T
            shares[kind] = shares[kind] + share if kind in shares else share
        self.model = model
        self.kinds = tuple(shares)
        made = {"items": of_items, "users": of_users, "weight": own.contiguous()}
        for name, tensor in (*made.items(), *shares.items()):
            self.register_buffer(name, tensor.detach(), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``."""
        _, *rest = self.model.deep.layers
        embedded = self.model.inputs.embed(batch, items=self.items, users=self.users)
        own, beside = self.model.read(embedded)
        hidden = own @ self.weight.T
        for kind in self.kinds:
            hidden += nn.functional.embedding(getattr(batch, kind), getattr(self, kind))
        for layer in rest:
            hidden = layer(hidden)
        logits = hidden.squeeze(-1)
        return logits if beside is None else beside + logits
