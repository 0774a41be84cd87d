"""What every backbone reads: embeddings of the target, the history, the user and extra vectors.

The same layer stands before all backbones, so that they differ in what they make of their inputs
and in nothing else. Augmented vectors are cut into fields beside the embedded ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from reki_feast.models.data import Batch, Labelled
from reki_feast.models.fields import Fields


@dataclass(frozen=True)
class InputSpec:
    """What samples look like; a backbone is built from it.

    Attributes:
        items: number of items; their indices are 1 to ``items``, 0 is padding.
        verdicts: number of verdicts in histories, padding included.
        user_fields: categorical fields of users, or None.
        item_fields: categorical fields of items, or None.
        extra_sizes: floats of each extra vector: none, or those of the user's and of the item's
            augmented vector.
        forget: share of the item ids of a training batch whose embeddings count as zero.
    """

    items: int
    verdicts: int = 3
    user_fields: Fields | None = None
    item_fields: Fields | None = None
    extra_sizes: tuple[int, ...] = ()
    forget: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """n embedded samples; a field is d floats.

    Attributes:
        item: ``[n, t * d]``, or ``[n, c, t * d]`` for lists: the target's id, then its fields.
        behaviours: ``[n, l, t * d]``: the history's items, as the target; zero where there is none.
        verdicts: ``[n, l, d]``: what the user thought of them; zero where there is none.
        mask: ``[n, l]``, 1 where there is a behaviour, 0 for padding.
        user: ``[n, u * d]``: the user's fields; there is no embedding of a user's id, since users
            met later have none.
        extras: ``[n, e * d]`` (or ``[n, c, e * d]``): extra vectors as fields.
        size: d.
    """

    item: Tensor
    behaviours: Tensor
    verdicts: Tensor
    mask: Tensor
    user: Tensor
    extras: Tensor
    size: int

    @cached_property
    def history(self) -> Tensor:
        """``[n, l, (t + 1) * d]``: behaviours and verdicts side by side."""
        return torch.cat([self.behaviours, self.verdicts], dim=-1)

    @cached_property
    def mean_history(self) -> Tensor:
        """``[n, (t + 1) * d]``: mean of the behaviours there are, zero where there are none."""
        # Padding is zero. Two sums are faster than what they are of side by side.
        total = torch.cat([self.behaviours.sum(1), self.verdicts.sum(1)], dim=-1)
        return total / self.mask.sum(1, keepdim=True).clamp(min=1)

    def flat(self) -> Tensor:
        """``[n, f * d]``: target, mean history and user side by side."""
        return torch.cat([self.item, self.mean_history, self.user], dim=-1)

    def fields(self) -> Tensor:
        """``[n, f, d]``: the same, a row a field."""
        fields: Tensor = self.flat().unflatten(-1, (-1, self.size))
        return fields


class FieldTables(nn.Module):
    """Embeddings of categorical fields.

    Args:
        fields: the codes of all entities, or None for no field.
        size: d, floats of an embedding.
    """

    codes: Tensor

    def __init__(self, fields: Fields | None, *, size: int) -> None:
        super().__init__()
        codes = torch.zeros(1, 0, dtype=torch.int64) if fields is None else fields.codes
        self.register_buffer("codes", codes, persistent=False)
        self.widths = () if fields is None else fields.widths
        self.tables = nn.ModuleList(
            embedding(count, size) for count in (() if fields is None else fields.sizes)
        )

    def __len__(self) -> int:
        return len(self.tables)

    def forward(self, index: Tensor) -> list[Tensor]:
        """``[k, d]`` a field, of the entities at ``index`` ``[k]``."""
        codes = self.codes[index].split(self.widths, dim=1)
        return [average(table, code) for table, code in zip(self.tables, codes, strict=True)]


class InputLayer(nn.Module):
    """Embeds a batch.

    With ``spec.forget`` a model learns to do without ids, as it must with new items: in each
    training batch some ids count as unknown, wherever they are in it, and ids that no training
    sample has are zero. Fields and vectors of the items stay.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
    """

    def __init__(self, spec: InputSpec, *, size: int) -> None:
        super().__init__()
        self.size = size
        self.forget = spec.forget
        self.item = embedding(spec.items + 1, size)
        self.verdict = embedding(spec.verdicts, size)
        self.user_fields = FieldTables(spec.user_fields, size=size)
        self.item_fields = FieldTables(spec.item_fields, size=size)
        self.extras = nn.ModuleList(_as_fields(width, size) for width in spec.extra_sizes)
        #: t, fields of an item, its id included.
        self.item_count = 1 + len(self.item_fields)
        #: Fields of a behaviour.
        self.history_count = self.item_count + 1
        #: u, fields of a user.
        self.user_count = len(self.user_fields)
        #: e, fields of extra vectors.
        self.extra_count = sum(math.ceil(width / size) for width in spec.extra_sizes)

    @property
    def count(self) -> int:
        """f, fields in :meth:`Embedded.fields`."""
        return self.item_count + self.history_count + self.user_count

    def forward(self, batch: Batch, extras: Sequence[Tensor] = ()) -> Embedded:
        """Embed a batch; ``extras`` are ``[n, size]`` each, or ``[n, c, size]``."""
        if len(extras) != len(self.extras):
            raise ValueError(f"{len(self.extras)} extra vectors, as declared: {len(extras)}")
        return self.embed(batch, self.as_fields(extras))

    def as_fields(self, extras: Sequence[Tensor]) -> list[Tensor]:
        """Each extra vector ``[..., size]`` as fields ``[..., fields * d]``."""
        return [layer(extra) for layer, extra in zip(self.extras, extras, strict=True)]

    def embed(
        self,
        batch: Batch,
        extras: Sequence[Tensor] = (),
        *,
        items: Tensor | None = None,
        users: Tensor | None = None,
    ) -> Embedded:
        """Embed a batch.

        Args:
            batch: n samples or lists.
            extras: fields already.
            items: what :meth:`of_items` makes of all items, where that is at hand.
            users: what :meth:`of_users` makes of all users, where that is at hand.
        """
        item, behaviours = self._items(batch, items)
        mask = (batch.history > 0).to(behaviours.dtype)
        verdicts = self.verdict(batch.history_verdict)
        user = self.of_users(batch.user) if users is None else users[batch.user]
        extra = torch.cat(tuple(extras), dim=-1) if extras else item.new_zeros(*item.shape[:-1], 0)
        return Embedded(item, behaviours, verdicts, mask, user, extra, self.size)

    def _items(self, batch: Batch, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """Targets and behaviours of a batch, as in :class:`Embedded`.

        Each item is embedded once, however often it is in the batch: all of them where the batch
        is larger than the catalogue, else the distinct ones of the batch.
        """
        lists = batch.item.ndim == 2
        targets = batch.item if lists else batch.item.unsqueeze(1)
        index = torch.cat([batch.history, targets], dim=1)
        if table is None and index.numel() < self.item.num_embeddings:
            rows, index = torch.unique(index, return_inverse=True)
            table = self._forgetful(self.of_items(rows))
        elif table is None:
            table = self._forgetful(self.of_items())
        both = nn.functional.embedding(index, table)
        behaviours, target = both.split([batch.history.shape[1], targets.shape[1]], dim=1)
        return target if lists else target.squeeze(1), behaviours

    def _forgetful(self, table: Tensor) -> Tensor:
        """Items ``[k, t * d]``; in training some of them without their ids."""
        if not self.training or not self.forget:
            return table
        keep = torch.rand(len(table), 1, device=table.device) >= self.forget
        return torch.cat([table[:, : self.size] * keep, table[:, self.size :]], dim=-1)

    @torch.no_grad()
    def begin(self, train: Labelled) -> None:
        """Prepare for training: with ``forget``, zero the ids that no sample has."""
        if self.forget:
            used = torch.cat([train.item.flatten(), train.history.flatten().to(train.item.dtype)])
            known = torch.zeros(len(self.item.weight), 1, device=self.item.weight.device)
            known[used.unique()] = 1
            self.item.weight.mul_(known)

    def of_items(self, index: Tensor | None = None) -> Tensor:
        """Ids and fields ``[k, t * d]`` of the items at ``index`` ``[k]``; None for all."""
        weight = self.item.weight
        rows = torch.arange(len(weight), device=weight.device) if index is None else index
        return torch.cat([self.item(rows), *self.item_fields(rows)], dim=-1)

    def of_users(self, index: Tensor | None = None) -> Tensor:
        """Fields ``[k, u * d]`` of the users at ``index`` ``[k]``; None for all."""
        codes, weight = self.user_fields.codes, self.item.weight
        rows = torch.arange(len(codes), device=weight.device) if index is None else index
        fields = self.user_fields(rows)
        return torch.cat(fields, dim=-1) if fields else weight.new_zeros(len(rows), 0)


def average(table: nn.Module, codes: Tensor) -> Tensor:
    """Mean of the embeddings of a field's values; absent values do not count.

    Args:
        table: an embedding whose row 0 is zero.
        codes: ``[n, width]``.

    Returns:
        ``[n, size]``, 0 where there is no value.
    """
    if codes.shape[1] == 1:
        single: Tensor = table(codes[:, 0])
        return single
    total: Tensor = table(codes).sum(1)
    return total / (codes > 0).sum(1, keepdim=True).clamp(min=1)


def embedding(count: int, size: int) -> nn.Embedding:
    """An embedding whose row 0 is zero and stays so."""
    table = nn.Embedding(count, size, padding_idx=0)
    with torch.no_grad():
        table.weight.normal_(0, 0.05)[0] = 0
    return table


def _as_fields(width: int, size: int) -> nn.Module:
    """A vector of ``width`` floats as fields of ``size``: as it is where it can be cut."""
    if width % size == 0:
        return nn.Identity()
    return nn.Linear(width, math.ceil(width / size) * size)
