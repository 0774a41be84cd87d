"""What click models share: an output MLP, the one place where extra vectors are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.backbone import Backbone
from reki_feast.models.data import Batch
from reki_feast.models.inputs import Embedded
from reki_feast.models.layers import Activation, Mlp
from reki_feast.schema import Kind


class ClickModel(Backbone):
    """A model of samples: an MLP over the sample's features.

    The MLP reads the target, what :meth:`read` makes of the sample, the user's fields and the extra
    vectors. Vectors are left out of feature crossings and attention, whose cost grows with the
    square of the number of fields: the MLP learns their interactions with target and user, and
    :meth:`precompute` makes them free once they are stored.
    """

    deep: Mlp

    def read(self, embedded: Embedded) -> tuple[Tensor, Tensor | None]:
        """Features ``[n, o]`` for the MLP, and logits ``[n]`` to add to the MLP's, if any.

        Extra vectors take no part in it.
        """
        raise NotImplementedError

    def logits(self, embedded: Embedded) -> Tensor:
        """``[n]``."""
        features, added = self.read(embedded)
        parts = [embedded.item, features, embedded.user, embedded.extras]
        logits: Tensor = self.deep(torch.cat(parts, dim=-1))
        return logits if added is None else added + logits

    @torch.no_grad()
    def precompute(self, tables: Mapping[Kind, Tensor]) -> PrecomputedClickModel:
        """The same model for stored vectors, called with a batch alone.

        Args:
            tables: ``[rows, size]``, the vectors of users and items by index, those that the model
                takes, in that order; empty for a model without vectors.
        """
        return PrecomputedClickModel(self, tables)

    @torch.no_grad()
    def rotate_vectors(self, rotation: Tensor) -> None:
        """Make of vectors ``v @ rotation`` what was made of ``v``, in place.

        Args:
            rotation: ``[size, size]``, invertible; the same for all extra vectors.
        """
        inverse = torch.linalg.inv(rotation).T
        first = self.deep.layers[0]
        assert isinstance(first, nn.Linear)
        start = first.in_features - self.inputs.extra_count * self.inputs.size
        for layer in self.inputs.extras:
            if isinstance(layer, nn.Linear):  # cuts vectors into fields: it alone reads them
                layer.weight.copy_(layer.weight @ inverse)
                continue
            part = slice(start, start + len(inverse))
            first.weight[:, part] = first.weight[:, part] @ inverse
            start += len(inverse)

    def _mlp(
        self,
        features: int | None = None,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> Mlp:
        """The MLP for ``features`` floats of :meth:`read`; None for those of the mean history."""
        inputs = self.inputs
        features = inputs.history_count * inputs.size if features is None else features
        fields = inputs.item_count + inputs.user_count + inputs.extra_count
        return Mlp(
            input_size=fields * inputs.size + features,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )


class PrecomputedClickModel(nn.Module):
    """A click model with everything precomputed that depends on an item or a user alone.

    Their fields are embedded. The MLP's first layer is linear, so the contribution of an item (id,
    fields, vector) and of a user (fields, vector) is computed once per id instead of once per
    sample: vectors add nothing to the cost of a sample.

    Args:
        model: With its weights.
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
        entity = [of_items.shape[1], of_users.shape[1], *(part.shape[1] for part in vectors)]
        widths = [entity[0], first.in_features - sum(entity), *entity[1:]]
        item, features, user, *extras = first.weight.split(widths, dim=1)
        partial_sums: dict[Kind, Tensor] = {"item": of_items @ item.T + first.bias}
        if of_users.numel():
            partial_sums["user"] = of_users @ user.T
        for kind, vector, weight in zip(tables, vectors, extras, strict=True):
            part = vector @ weight.T
            partial_sums[kind] = partial_sums[kind] + part if kind in partial_sums else part
        self.model = model
        self.kinds = tuple(partial_sums)
        buffers = {"items": of_items, "users": of_users, "weight": features.contiguous()}
        for name, tensor in (*buffers.items(), *partial_sums.items()):
            self.register_buffer(name, tensor.detach(), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``."""
        _, *rest = self.model.deep.layers
        embedded = self.model.inputs.embed(batch, items=self.items, users=self.users)
        features, added = self.model.read(embedded)
        hidden = features @ self.weight.T
        for kind in self.kinds:
            hidden += nn.functional.embedding(getattr(batch, kind), getattr(self, kind))
        for layer in rest:
            hidden = layer(hidden)
        logits = hidden.squeeze(-1)
        return logits if added is None else added + logits
