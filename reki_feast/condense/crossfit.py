"""Users' networks out of fold: a user's vector comes from one that never saw the user's labels.

A HEIN fits the users it learns from better than others. A model that is trained later on these
users' stored vectors trusts them more than a new user's deserve, as trees trust a target encoding
that holds their own labels. So users are dealt into folds by their ids, and each fold has user
networks that learnt from the other folds alone. The item vectors stand meanwhile: networks that
learn against the same item vectors make user vectors of one space.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from reki_feast.condense.settings import Settings
from reki_feast.condense.task import Task, make_heins
from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.recommend.data import Batch, Labelled, Samples
from reki_feast.recommend.joint import Joint, match_loss
from reki_feast.recommend.train import Progress, fit, seeded

Folds = npt.NDArray[np.int64]


def folds_of(ids: pa.Array | pa.ChunkedArray, folds: int) -> Folds:
    """The fold ``[n]`` of each id, from 0: of the id alone, so new users have one, too."""
    numbers = (zlib.crc32(str(one).encode()) for one in ids.to_pylist())
    return np.fromiter(numbers, np.int64, len(ids)) % folds


def fold(task: Task, settings: Settings) -> tuple[Samples, ...]:
    """Training samples of each fold: those of the other folds' users.

    Raises:
        CondenseError: there is one fold, one holds all users, or no two-tower head is learnt.
    """
    folds = settings.folds
    if folds < 2:
        raise CondenseError(
            "user vectors are made out of 2 or more folds, or of none", found=str(folds)
        )
    if not settings.match_weight:
        raise CondenseError(
            "networks of folds learn by the two-tower head",
            found=f"{folds} folds, and its loss has no weight",
            mend="match=1 beside the folds",
        )
    by_index = torch.from_numpy(np.append(0, folds_of(task.users, folds)))
    mine = by_index[task.parts.train.user]
    parts = tuple(
        task.parts.train.take((mine != number).nonzero().squeeze(1)) for number in range(folds)
    )
    if not all(map(len, parts)):
        raise CondenseError(
            "each fold leaves users to learn from",
            found=f"all {task.people} users in one of {folds}",
            mend="collect more users, or leave Training(folds=…) out",
        )
    return parts


def cross_fit(
    joint: Joint,
    task: Task,
    parts: Sequence[Samples],
    *,
    settings: Settings,
    seed: int,
    progress: Progress | None = None,
) -> tuple[HeinSet, ...]:
    """Learn each fold's user networks by the two-tower loss, against the item vectors of ``joint``.

    Args:
        joint: trained; is left as it is.
        task: what it was trained on; its validation users choose the epoch.
        parts: of :func:`fold`.
        settings: sizes and training, as ``joint`` had them.
        seed: of the weights, the same for all folds, and of the order of the samples.
        progress: called after every batch of every fold.

    Returns:
        HEINs in evaluation mode, one set a fold; only their users' side has learnt anything.
    """
    items = joint.table("item")
    return tuple(
        _fit(joint, items, part, task.parts.validation, settings, seed, progress) for part in parts
    )


def _fit(
    joint: Joint,
    items: Tensor,
    train: Samples,
    validation: Samples,
    settings: Settings,
    seed: int,
    progress: Progress | None,
) -> HeinSet:
    heins = joint.heins
    with seeded(seed):
        made = make_heins(heins.pairs, heins.input_size, settings)
    made.load_state_dict({**made.state_dict(), **dict(heins.named_buffers())})
    tower = _Users(joint, made, items).to(items.device)
    fit(tower, train, validation, training=settings.training, seed=seed, progress=progress)
    return made.eval()


class _Users(nn.Module):
    """User networks before item vectors that stand: the two-tower head of a joint model."""

    items: Tensor

    def __init__(self, joint: Joint, heins: HeinSet, items: Tensor) -> None:
        super().__init__()
        banks = joint.banks("user"), joint.banks("item")
        self.towers = Joint(backbone=nn.Identity(), heins=heins, users=banks[0], items=banks[1])
        self.register_buffer("items", items, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``: the score of all pairs."""
        return self.scores(batch)[..., -1]

    def objective(self, batch: Labelled) -> Tensor:
        """Mean log loss of all scores."""
        return match_loss(self.scores(batch), batch.label)

    def scores(self, batch: Batch) -> Tensor:
        """Logits ``[n, pairs + 1]``."""
        return self.towers.match_logits(
            {"user": self.towers.side("user", batch.user), "item": self.items[batch.item]}
        )
