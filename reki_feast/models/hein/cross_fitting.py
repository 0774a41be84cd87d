"""Cross-fitting of user networks: a user's vector comes from one that never saw their labels.

A HEIN fits the users it learns from better than others. A downstream model that is trained on
these users' stored vectors trusts them more than it should trust a new user's, as trees trust a
target encoding that holds their own labels. So users are assigned to folds by their ids, and each
fold has user networks that learnt from the other folds alone. The item vectors are fixed meanwhile:
networks that learn against the same item vectors make user vectors of one space.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from reki_feast.errors import CondenseError
from reki_feast.models.data import Batch, Labelled, Samples
from reki_feast.models.hein.config import HeinConfig
from reki_feast.models.hein.joint import JointModel, two_tower_loss
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.old_vectors import OldVectors, begin_near
from reki_feast.models.hein.task import Task, make_heins
from reki_feast.models.training import Progress, fit, seeded

FoldNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """What a fold's user networks learn from.

    Attributes:
        samples: Of the other folds' users.
        start: Older user networks of the fold, whose weights they start from; None for new ones.
        old_users: What older user networks of the fold make of all users, which theirs stay near
            to; None for a space of their own.
    """

    samples: Samples
    start: HeinSet | None = None
    old_users: OldVectors | None = None


def fold_of(ids: pa.Array | pa.ChunkedArray, folds: int) -> FoldNumbers:
    """Fold ``[n]`` of each id, from 0; a hash of the id alone, so new users have one too."""
    hashes = (zlib.crc32(str(entity_id).encode()) for entity_id in ids.to_pylist())
    return np.fromiter(hashes, np.int64, len(ids)) % folds


def make_folds(task: Task, config: HeinConfig) -> tuple[Fold, ...]:
    """Each fold with the training samples of the other folds' users.

    Raises:
        CondenseError: There is one fold, one holds all users, or no two-tower head is learnt.
    """
    folds = config.folds
    if folds < 2:
        raise CondenseError(
            "user vectors are made out of 2 or more folds, or of none", detail=str(folds)
        )
    if not config.match_weight:
        raise CondenseError(
            "networks of folds learn by the two-tower head",
            detail=f"{folds} folds, and its loss has no weight",
            hint="match=1 beside the folds",
        )
    fold_of_index = torch.from_numpy(np.append(0, fold_of(task.users, folds)))
    sample_fold = fold_of_index[task.parts.train.user]
    parts = tuple(
        task.parts.train.take((sample_fold != number).nonzero().squeeze(1))
        for number in range(folds)
    )
    if not all(map(len, parts)):
        raise CondenseError(
            "each fold leaves users to learn from",
            detail=f"all {task.people} users in one of {folds}",
            hint="collect more users, or leave Training(folds=…) out",
        )
    return tuple(map(Fold, parts))


def cross_fit(
    joint: JointModel,
    task: Task,
    folds: Sequence[Fold],
    *,
    config: HeinConfig,
    seed: int,
    progress: Progress | None = None,
) -> tuple[HeinSet, ...]:
    """Train each fold's user networks by the two-tower loss, against fixed item vectors.

    Args:
        joint: The trained model; it is not changed.
        task: What it was trained on; its validation users choose the epoch.
        folds: Of :func:`make_folds`.
        config: Sizes and training, as ``joint`` had them.
        seed: Of the weights, the same for all folds, and of the order of the samples.
        progress: Called after every batch of every fold.

    Returns:
        HEINs in evaluation mode, one set a fold; only their user networks are trained.
    """
    items, validation = joint.vector_table("item"), task.parts.validation
    networks = []
    for fold in folds:
        heins = _begun(joint.heins, fold.start, config, seed)
        model = _UserNetworks(joint, heins, items, fold.old_users).to(items.device)
        if fold.old_users is not None and fold.start is None:
            users = partial(model.joint.tower, "user")
            begin_near(heins, [(users, fold.old_users)], seed=seed)
        fit(model, fold.samples, validation, config=config.training, seed=seed, progress=progress)
        networks.append(heins.eval())
    return tuple(networks)


def _begun(trained: HeinSet, start: HeinSet | None, config: HeinConfig, seed: int) -> HeinSet:
    """HEINs with the standardisation of trained ones, and new weights or those of ``start``."""
    with seeded(seed):
        heins = make_heins(trained.pairs, trained.input_size, config)
    weights = {} if start is None else dict(start.named_parameters())
    heins.load_state_dict({**heins.state_dict(), **weights, **dict(trained.named_buffers())})
    return heins


class _UserNetworks(nn.Module):
    """User networks against fixed item vectors: the two-tower head of a joint model."""

    items: Tensor

    def __init__(
        self, joint: JointModel, heins: HeinSet, items: Tensor, old_users: OldVectors | None
    ) -> None:
        super().__init__()
        users, item_tables = joint.embedding_tables("user"), joint.embedding_tables("item")
        self.joint = JointModel(backbone=nn.Identity(), heins=heins, users=users, items=item_tables)
        self.old_users = old_users
        self.register_buffer("items", items, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``: the score of all pairs."""
        return self._scores(self.joint.tower("user", batch.user), batch)[..., -1]

    def objective(self, batch: Labelled) -> Tensor:
        """Mean log loss of all scores, and the distance to older vectors, if there are any."""
        users = self.joint.tower("user", batch.user)
        loss = two_tower_loss(self._scores(users, batch), batch.label)
        return loss if self.old_users is None else loss + self.old_users(batch.user, users)

    def _scores(self, users: Tensor, batch: Batch) -> Tensor:
        """Logits ``[n, pairs + 1]``."""
        return self.joint.two_tower_logits({"user": users, "item": self.items[batch.item]})
