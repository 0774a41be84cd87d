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
from reki_feast.models.hein.task import Task, make_heins
from reki_feast.models.training import Progress, fit, seeded

FoldNumbers = npt.NDArray[np.int64]


def fold_of(ids: pa.Array | pa.ChunkedArray, folds: int) -> FoldNumbers:
    """Fold ``[n]`` of each id, from 0; a hash of the id alone, so new users have one too."""
    hashes = (zlib.crc32(str(entity_id).encode()) for entity_id in ids.to_pylist())
    return np.fromiter(hashes, np.int64, len(ids)) % folds


def samples_by_fold(task: Task, config: HeinConfig) -> tuple[Samples, ...]:
    """Training samples of each fold: those of the other folds' users.

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
    return parts


def cross_fit(
    joint: JointModel,
    task: Task,
    fold_samples: Sequence[Samples],
    *,
    config: HeinConfig,
    seed: int,
    progress: Progress | None = None,
) -> tuple[HeinSet, ...]:
    """Train each fold's user networks by the two-tower loss, against fixed item vectors.

    Args:
        joint: The trained model; it is not changed.
        task: What it was trained on; its validation users choose the epoch.
        fold_samples: Of :func:`samples_by_fold`.
        config: Sizes and training, as ``joint`` had them.
        seed: Of the weights, the same for all folds, and of the order of the samples.
        progress: Called after every batch of every fold.

    Returns:
        HEINs in evaluation mode, one set a fold; only their user networks are trained.
    """
    items, validation = joint.vector_table("item"), task.parts.validation
    folds = []
    for train in fold_samples:
        heins = _untrained(joint.heins, config, seed)
        model = _UserNetworks(joint, heins, items).to(items.device)
        fit(model, train, validation, config=config.training, seed=seed, progress=progress)
        folds.append(heins.eval())
    return tuple(folds)


def _untrained(trained: HeinSet, config: HeinConfig, seed: int) -> HeinSet:
    """New HEINs with the standardisation of trained ones."""
    with seeded(seed):
        heins = make_heins(trained.pairs, trained.input_size, config)
    heins.load_state_dict({**heins.state_dict(), **dict(trained.named_buffers())})
    return heins


class _UserNetworks(nn.Module):
    """User networks against fixed item vectors: the two-tower head of a joint model."""

    items: Tensor

    def __init__(self, joint: JointModel, heins: HeinSet, items: Tensor) -> None:
        super().__init__()
        users, item_tables = joint.embedding_tables("user"), joint.embedding_tables("item")
        self.joint = JointModel(backbone=nn.Identity(), heins=heins, users=users, items=item_tables)
        self.register_buffer("items", items, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``: the score of all pairs."""
        return self.scores(batch)[..., -1]

    def objective(self, batch: Labelled) -> Tensor:
        """Mean log loss of all scores."""
        return two_tower_loss(self.scores(batch), batch.label)

    def scores(self, batch: Batch) -> Tensor:
        """Logits ``[n, pairs + 1]``."""
        return self.joint.two_tower_logits(
            {"user": self.joint.tower("user", batch.user), "item": self.items[batch.item]}
        )
