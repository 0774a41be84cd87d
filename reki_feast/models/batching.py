"""Batch sizes, learning rates and the order of samples in an epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reki_feast.models.training_config import TrainingConfig

#: Maximum number of consecutive samples of one user: HEIN runs once per user and batch.
USER_RUN = 16
#: Samples of a batch at most, where the config gives no size.
MAX_BATCH_SIZE = 2048
_GROUP_SAMPLES = 16_384  # of batches that share a HEIN pass, where the config gives no number
_GROUPS = 40  # of an epoch at least; with fewer, HEIN gets too few steps


def automatic_batch(samples: int) -> int:
    """About a hundredth of the samples, a power of two from 32 to 2048.

    >>> automatic_batch(100), automatic_batch(10_000), automatic_batch(10**6)
    (32, 64, 2048)
    """
    power = math.floor(math.log2(max(samples / 100, 1)))
    return min(max(1 << power, 32), MAX_BATCH_SIZE)


def automatic_rate(batch_size: int) -> float:
    """1e-2 for batches of 2,048 samples, scaled by the square root of the batch size.

    On 120 to 6,040 users of MovieLens-1M, with batches of :func:`automatic_batch`, one constant
    rate is too low for the large batches or too high for the small ones.

    >>> automatic_rate(2048), automatic_rate(128)
    (0.01, 0.0025)
    """
    return 1e-2 * math.sqrt(batch_size / MAX_BATCH_SIZE)


def group_size(config: TrainingConfig, batch_size: int, batches: int) -> int:
    """Number of batches that share a HEIN pass, in an epoch of ``batches`` batches.

    >>> few = TrainingConfig(deferred_batches=4)
    >>> group_size(TrainingConfig(), 2048, 400), group_size(few, 2048, 400)
    (8, 4)
    >>> group_size(TrainingConfig(), 256, 3000), group_size(TrainingConfig(), 256, 400)
    (64, 10)
    """
    most = config.deferred_batches or max(1, _GROUP_SAMPLES // batch_size)
    return min(most, max(1, batches // _GROUPS))


def shuffled(user: Tensor, batch_size: int, *, user_run: int = USER_RUN) -> tuple[Tensor, ...]:
    """Batches of row numbers in random order, the rows of a user in runs.

    A run is up to ``user_run`` random rows of one user. A batch then holds few distinct users, so
    what is computed per user is computed a few times an epoch instead of once a sample.

    Args:
        user: ``[n]``, user index of each row.
        batch_size: Rows of a batch.
        user_run: Rows of a user that stay together; 1 shuffles single rows.
    """
    order = torch.randperm(len(user), device=user.device)
    if user_run > 1:
        order = order[torch.argsort(user[order], stable=True)]  # by user, at random within
        _, counts = torch.unique_consecutive(user[order], return_counts=True)
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        offset = torch.arange(len(user), device=user.device) - first
        run = (offset % user_run == 0).cumsum(0) - 1
        rank = torch.randperm(int(run[-1]) + 1, device=user.device)
        order = order[torch.argsort(rank[run], stable=True)]
    batches: tuple[Tensor, ...] = order.split(batch_size)
    return batches
