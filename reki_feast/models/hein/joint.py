"""HEINs and a recommender as one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.data import Batch, Labelled
from reki_feast.models.hein.embedding_tables import EmbeddingTable, EmbeddingTables
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.scoring import loss_of
from reki_feast.schema import KINDS, Kind

_ROWS = 8192  # entities whose vectors are made at a time


@dataclass(frozen=True)
class _DeferredVectors:
    """Vectors shared by a group of batches.

    Attributes:
        output: ``[k, q]``, in the graph of the HEINs.
        leaf: ``[k, q]``, detached; collects the batches' gradients.
        row: Row in both of each entity index.
    """

    output: Tensor
    leaf: Tensor
    row: Tensor


class JointModel(nn.Module):
    """A backbone whose extra vectors come from HEINs.

    A HEIN runs once for each distinct representation of a batch, or once for the whole embedding
    table where that is smaller. Its gradients may be deferred over a group of batches
    (:class:`~reki_feast.models.training.DeferredGradients`).

    Args:
        backbone: Takes a batch and the augmented vectors of ``towers``.
        heins: The HEINs.
        users: Embedding tables whose codes follow the users' indices, 0 the unknown one.
        items: The same for items.
        towers: Whose vectors the backbone sees (users', items'), in the order it takes them.
        match_weight: Weight of the two-tower loss in :meth:`objective`; 0 leaves it out. The
            two-tower head sees the vectors alone: its logits are the dot products of the user's
            and the item's floats, one a pair of channels and one of all, each with a bias.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        heins: HeinSet,
        users: EmbeddingTables,
        items: EmbeddingTables,
        towers: Sequence[Kind] = KINDS,
        match_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heins = heins
        self.towers = tuple(towers)
        self.match_weight = match_weight
        self.two_tower_bias = nn.Parameter(torch.zeros(len(heins.pairs) + 1))
        self._deferred: dict[Kind, _DeferredVectors] = {}
        for kind, tables in zip(KINDS, (users, items), strict=True):
            for channel, table in tables.items():  # data: moves with the model, not its weights
                self.register_buffer(f"{kind}_{channel}", table.vectors, persistent=False)
                self.register_buffer(f"{kind}_{channel}_code", table.codes, persistent=False)

    def embedding_tables(self, kind: Kind) -> dict[str, EmbeddingTable]:
        """The embedding tables of users or items, by channel."""
        return {
            channel: EmbeddingTable(
                getattr(self, f"{kind}_{channel}"), getattr(self, f"{kind}_{channel}_code")
            )
            for channel in self.heins.channels(kind)
        }

    def with_stored_vectors(self) -> nn.Module:
        """The recommender with every entity's augmented vectors computed in advance.

        Of a click model, the first layer of its MLP is precomputed too.
        """
        tables = {kind: self.vector_table(kind) for kind in self.towers}
        if isinstance(self.backbone, ClickModel):
            return self.backbone.precompute(tables).eval()
        return StoredVectorModel(self.backbone, tables, self.towers).eval()

    def vector_table(self, kind: Kind) -> Tensor:
        """Augmented vectors ``[entities + 1, q]`` by index, in evaluation mode."""
        self.eval()
        codes = next(iter(self.embedding_tables(kind).values())).codes
        rows = torch.arange(len(codes), device=codes.device).split(_ROWS)
        with torch.no_grad():
            return torch.cat([self.tower(kind, part) for part in rows])

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``, or ``[n, c]`` of lists."""
        return self._logits(batch, self.vectors(batch))

    def vectors(self, batch: Batch) -> dict[Kind, Tensor]:
        """Augmented vectors, ``[n, q]`` of users and ``[n, q]`` or ``[n, c, q]`` of items."""
        return {"user": self.tower("user", batch.user), "item": self.tower("item", batch.item)}

    def tower(self, kind: Kind, index: Tensor) -> Tensor:
        """Augmented vectors ``[..., q]`` of the users or items at ``index`` ``[...]``."""
        deferred = self._deferred.get(kind)
        if deferred is not None:
            return nn.functional.embedding(deferred.row[index], deferred.leaf)
        rows = {channel: self._rows(kind, channel, index) for channel in self.heins.channels(kind)}
        parts = []
        for pair, channel in enumerate(self.heins.pair_channels(kind)):
            r, inverse = rows[channel]
            output = self.heins.condense(kind, pair, r)
            parts.append(nn.functional.embedding(inverse, output))
        return torch.cat(parts, dim=-1)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The backbone's loss."""
        return loss_of(self.backbone, logits, label)

    def precompute(self, batches: Sequence[Batch]) -> None:
        """Compute the vectors of several batches at once, until :meth:`backward_deferred`.

        HEIN runs once per user and item of the group. Losses of the batches send their gradients
        as far as the vectors.
        """
        self._deferred = {}
        for kind in KINDS:
            index = torch.cat([getattr(batch, kind).flatten() for batch in batches])
            distinct, inverse = torch.unique(index, return_inverse=True)
            output = self.tower(kind, distinct)
            row = inverse.new_empty(int(distinct[-1]) + 1)
            row[index] = inverse
            self._deferred[kind] = _DeferredVectors(output, output.detach().requires_grad_(), row)

    def backward_deferred(self) -> None:
        """Send the gradients that the precomputed vectors collected into the HEINs."""
        used = [one for one in self._deferred.values() if one.leaf.grad is not None]
        self._deferred = {}
        gradients = [one.leaf.grad for one in used]
        torch.autograd.backward([one.output for one in used], gradients)

    def objective(self, batch: Labelled) -> Tensor:
        """The backbone's loss, plus the weighted two-tower loss."""
        return self.objective_of(self.vectors(batch), batch)

    def objective_of(self, vectors: Mapping[Kind, Tensor], batch: Labelled) -> Tensor:
        """The same where a batch's augmented vectors are at hand, of :meth:`vectors`."""
        loss = self.loss(self._logits(batch, vectors), batch.label)
        if not self.match_weight:
            return loss
        logits = self.two_tower_logits(vectors)
        return loss + self.match_weight * two_tower_loss(logits, batch.label)

    def two_tower_logits(self, vectors: Mapping[Kind, Tensor]) -> Tensor:
        """Logits ``[..., pairs + 1]`` of the two-tower head."""
        return self.two_tower_scores(vectors) + self.two_tower_bias

    def two_tower_scores(self, vectors: Mapping[Kind, Tensor]) -> Tensor:
        """Dot products ``[..., pairs + 1]`` of user and item vectors: of each pair, then of all."""
        user, item = vectors["user"], vectors["item"]
        products = _expanded(user, item[..., 0]) * item
        pairs = products.unflatten(-1, (-1, self.heins.output_size)).sum(-1)
        return torch.cat([pairs, pairs.sum(-1, keepdim=True)], dim=-1)

    def extras(self, batch: Batch, vectors: Mapping[Kind, Tensor]) -> list[Tensor]:
        """A batch's vectors as a backbone takes them."""
        return [_expanded(vectors[kind], batch.item) for kind in self.towers]

    def _logits(self, batch: Batch, vectors: Mapping[Kind, Tensor]) -> Tensor:
        logits: Tensor = self.backbone(batch, self.extras(batch, vectors))
        return logits

    def _rows(self, kind: Kind, channel: str, index: Tensor) -> tuple[Tensor, Tensor]:
        """The representations to run HEIN on, and the inverse index of ``index`` into them."""
        vectors: Tensor = getattr(self, f"{kind}_{channel}")
        codes: Tensor = getattr(self, f"{kind}_{channel}_code")[index]
        if 4 * len(vectors) <= codes.numel():
            return vectors, codes
        distinct, inverse = torch.unique(codes, return_inverse=True)
        return vectors[distinct], inverse


class StoredVectorModel(nn.Module):
    """A backbone with stored vectors, as a feature store would hand them in.

    Args:
        backbone: Takes a batch and the augmented vectors of ``towers``.
        tables: ``[entities + 1, q]``, the vectors of users and items by index.
        towers: Whose vectors the backbone sees.
    """

    def __init__(
        self, backbone: nn.Module, tables: Mapping[Kind, Tensor], towers: Sequence[Kind]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.towers = tuple(towers)
        for kind, table in tables.items():
            self.register_buffer(f"{kind}_aug", table, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``, or ``[n, c]`` of lists."""
        index = {"user": batch.user, "item": batch.item}
        vectors: dict[Kind, Tensor] = {
            kind: nn.functional.embedding(index[kind], getattr(self, f"{kind}_aug"))
            for kind in KINDS
            if kind in self.towers
        }
        extras = [_expanded(vectors[kind], batch.item) for kind in self.towers]
        logits: Tensor = self.backbone(batch, extras)
        return logits

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The backbone's loss."""
        return loss_of(self.backbone, logits, label)


def two_tower_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean log loss of two-tower logits ``[..., pairs + 1]``, each against the same label."""
    labels = label.unsqueeze(-1).expand_as(logits)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels)


def _expanded(vector: Tensor, item: Tensor) -> Tensor:
    """A user's vector ``[n, q]`` repeated for c items ``[n, c]``; others ``[..., q]`` unchanged."""
    if vector.ndim > item.ndim:
        return vector
    return vector.unsqueeze(1).expand(*item.shape, vector.shape[-1])
