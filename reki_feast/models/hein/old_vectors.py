"""Vectors that older HEINs made, which new HEINs begin with, and stay near to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reki_feast.models.hein.network import HeinSet
from reki_feast.models.training import few_threads, seeded

#: Weight of the mean squared distance to the old vectors, as a share of their variance.
WEIGHT = 10.0
_STEPS, _BATCH, _RATE = 600, 512, 3e-3


class OldVectors(nn.Module):
    """The vectors that old HEINs make of the same users, or items, and the distance to them.

    Args:
        table: ``[entities + 1, q]`` by index.
        known: ``[entities + 1]``, 1 where the old HEINs made one, else 0.
    """

    table: Tensor
    known: Tensor

    def __init__(self, table: Tensor, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("known", known, persistent=False)
        self.variance = max(float(table[known > 0].var(0, correction=0).sum()), 1e-6)

    def forward(self, index: Tensor, vectors: Tensor) -> Tensor:
        """Weighted distance ``[]`` of the vectors ``[n, q]`` of the entities at ``index``."""
        squares = (vectors - self.table[index]).square().sum(-1) * self.known[index]
        return WEIGHT / self.variance * squares.mean()


#: What makes vectors ``[n, q]`` of the entities at an index ``[n]``, and what is wanted of them.
Side = tuple[Callable[[Tensor], Tensor], OldVectors]


def begin_near(heins: HeinSet, sides: Sequence[Side], *, seed: int) -> None:
    """Fit untrained HEINs to old vectors, in place, before they learn from labels.

    That takes seconds, whatever the number of labels: a small log has too few batches for it.

    Args:
        heins: What makes the vectors.
        sides: Of users, of items.
        seed: Of the order of the entities.
    """
    optimizer = torch.optim.Adam(heins.parameters(), lr=_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    pools = [old.known.nonzero().squeeze(1) for _, old in sides]
    heins.train()
    with seeded(seed), few_threads(_BATCH):
        for _ in range(_STEPS):
            optimizer.zero_grad(set_to_none=True)
            for (tower, old), pool in zip(sides, pools, strict=True):
                index = pool[torch.randint(len(pool), (_BATCH,), device=pool.device)]
                old(index, tower(index)).backward()
            optimizer.step()
            schedule.step()
