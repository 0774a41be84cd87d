"""Backward-compatible training: models that learnt from older vectors can read the new ones.

Shen et al. (CVPR 2020, arXiv 2003.11942) let the classifier of before, frozen, read the new
representations as a second loss. Here new vectors begin with, and stay near to, those that the old
HEINs make of the same users and items (distillation). HEINs of the same encoder and sizes start
from the old weights; others are fitted to the old vectors first. On samples of MovieLens-1M's users
that serves DCNv2 and LightGBM better, old ones and new ones, than the frozen recommender's loss,
which adds nothing to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from reki_feast.errors import CondenseError
from reki_feast.models.data import Batch, Labelled
from reki_feast.models.hein.config import (
    FittedHein,
    HeinConfig,
    HeinData,
    Pairs,
    Predecessor,
)
from reki_feast.models.hein.cross_fitting import Fold
from reki_feast.models.hein.joint import JointModel
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.old_vectors import OldVectors, begin_near
from reki_feast.models.hein.task import Task
from reki_feast.models.hein.transformation import default_vector, vectors_of
from reki_feast.schema import Kind
from reki_feast.tables.asof import Indices, place_at

#: Fields of a config that weights of the same pairs and encoder have their shapes by.
_SIZES = (
    "shared_experts",
    "user_experts",
    "item_experts",
    "hidden_size",
    "output_size",
    "components",
)


class CompatibleModel(nn.Module):
    """A joint model whose vectors stay near to older ones.

    Args:
        joint: The model to train.
        users: The old vectors of users.
        items: The old vectors of items.
    """

    def __init__(self, joint: JointModel, users: OldVectors, items: OldVectors) -> None:
        super().__init__()
        self.joint, self.old_users, self.old_items = joint, users, items

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]`` of the recommender."""
        logits: Tensor = self.joint(batch)
        return logits

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The recommender's loss, by which the epoch is chosen."""
        return self.joint.loss(logits, label)

    def begin_near(self, *, seed: int) -> None:
        """Fit the HEINs to the old vectors; see :func:`begin_near`."""
        users, items = partial(self.joint.tower, "user"), partial(self.joint.tower, "item")
        sides = ((users, self.old_users), (items, self.old_items))
        begin_near(self.joint.heins, sides, seed=seed)

    def objective(self, batch: Labelled) -> Tensor:
        """The joint model's loss, and the distances to the old vectors."""
        vectors = self.joint.vectors(batch)
        loss = self.joint.objective_of(vectors, batch)
        near_users: Tensor = self.old_users(batch.user, vectors["user"])
        near_items: Tensor = self.old_items(batch.item, vectors["item"])
        return loss + near_users + near_items

    def precompute(self, batches: Sequence[Batch]) -> None:
        """As :meth:`JointModel.precompute`."""
        self.joint.precompute(batches)

    def backward_deferred(self) -> None:
        """As :meth:`JointModel.backward_deferred`."""
        self.joint.backward_deferred()


def compatible_model(
    joint: JointModel, before: Predecessor, task: Task, data: HeinData
) -> CompatibleModel:
    """An untrained joint model as one whose vectors stay near to older ones.

    Args:
        joint: Of the task and the data.
        before: The old HEINs.
        task: Samples and ids.
        data: Representations of users and items.
    """
    old = replace(before.hein, folds=())
    rows = _rows(task.items, data.items)
    return CompatibleModel(
        joint,
        _old_vectors(old, before.users, data.users, _user_rows(task, data), "user"),
        _old_vectors(old, before.items, data.items, rows, "item"),
    )


def own_start(before: Predecessor, pairs: Pairs, config: HeinConfig) -> HeinSet | None:
    """The old HEINs, where new ones can start from their weights.

    Args:
        before: The old HEINs.
        pairs: Channel pairs of the new ones.
        config: Of the new ones.
    """
    old = before.hein
    same = all(getattr(old.config, size) == getattr(config, size) for size in _SIZES)
    can = before.is_same_encoder and same and old.pairs == tuple(pairs)
    return old.heins if can else None


def compatible_folds(
    folds: Sequence[Fold], before: Predecessor, task: Task, data: HeinData, *, can_start: bool
) -> tuple[Fold, ...]:
    """Folds whose user vectors stay near to older ones, of networks that saw none of its labels.

    Args:
        folds: Of the task.
        before: Old HEINs of as many folds.
        task: Samples and ids.
        data: Representations of users and items.
        can_start: Whether the networks can start from the old weights.
    """
    rows, made = _user_rows(task, data), []
    for fold, network in zip(folds, before.hein.folds, strict=True):
        old = replace(before.hein, heins=network, folds=())
        users = _old_vectors(old, before.users, data.users, rows, "user")
        start = network if can_start else None
        made.append(replace(fold, start=start, old_users=users))
    return tuple(made)


def check_predecessor(old: FittedHein, pairs: Pairs, config: HeinConfig) -> None:
    """See that new vectors can stay near to older ones.

    Args:
        old: The old HEINs.
        pairs: Channel pairs of the new ones.
        config: Of the new ones.

    Raises:
        CondenseError: The new vectors are of another length, or of another number of folds.
    """
    q = config.output_size * len(pairs)
    if old.q != q:
        raise CondenseError(
            "compatible vectors are as long as those before",
            detail=f"{q} floats, {config.output_size} for each of {len(pairs)} pairs of channels; "
            f"{old.q} before",
            hint="declare the sizes and channels of before, or leave --compatible out",
        )
    if old.config.folds != config.folds:
        raise CondenseError(
            "compatible user vectors are made out of as many folds as those before",
            detail=f"{config.folds} folds, {old.config.folds} before",
            hint=f"Training(folds={old.config.folds}), or leave --compatible out",
        )


def _user_rows(task: Task, data: HeinData) -> Indices:
    return _rows(task.users, data.users) if task.user_rows is None else task.user_rows


def _rows(ids: pa.Array, table: pa.Table) -> Indices:
    """Row of each id in a table, -1 for none."""
    found = pc.index_in(ids, value_set=table.column(0)).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def _old_vectors(
    old: FittedHein, read: pa.Table, table: pa.Table, rows: Indices, kind: Kind
) -> OldVectors:
    """Old vectors by entity index; of the unknown one, and those without a row, the default.

    Args:
        old: The old HEINs, of no folds.
        read: The representations that they read.
        table: The representations that the new HEINs read.
        rows: Row in ``table`` of each entity index after 0, -1 for none.
        kind: Of users or of items.
    """
    at = np.append(-1, rows)
    place = np.append(newest_before(read, table), -1)[at]
    used, inverse = np.unique(place, return_inverse=True)
    vectors = np.empty((len(used), old.q), np.float32)
    vectors[used < 0] = default_vector(old, kind)
    vectors[used >= 0] = vectors_of(old, read.take(used[used >= 0]), kind)
    known = torch.from_numpy(((place >= 0) | (at < 0)).astype(np.float32))
    return OldVectors(torch.from_numpy(vectors[inverse]), known)


def newest_before(read: pa.Table, table: pa.Table) -> Indices:
    """For each row of ``table`` the newest row of ``read`` of its id up to its time; -1: none."""
    ids = pc.unique(table.column(0))
    keys, key = (_rows_of(one.column(0), ids) for one in (read, table))
    times, time = (_microseconds(one) for one in (read, table))
    order = np.lexsort((times, keys))
    place = place_at(keys[order], times[order], key, time)
    return np.where(place >= 0, order[place], -1)


def _rows_of(column: pa.ChunkedArray, ids: pa.Array) -> Indices:
    found = pc.index_in(column, value_set=ids).fill_null(-1)
    return np.asarray(found.to_numpy(), np.int64)


def _microseconds(table: pa.Table) -> Indices:
    return np.asarray(table["event_timestamp"].cast(pa.int64()).to_numpy(), np.int64)
