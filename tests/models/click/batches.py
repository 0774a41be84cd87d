"""Small random inputs for the tests of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reki_feast.models.data import Samples
from reki_feast.models.fields import Fields
from reki_feast.models.inputs import InputSpec

USERS, ITEMS, LENGTH, VERDICTS = 7, 12, 5, 4


def spec(extra_sizes: tuple[int, ...] = ()) -> InputSpec:
    """7 users with two fields, 12 items with two, of which one has up to three values."""
    draw = torch.Generator().manual_seed(11)
    users = torch.randint(0, 4, (USERS + 1, 2), generator=draw)
    items = torch.randint(0, 5, (ITEMS + 1, 4), generator=draw)
    users[0], items[0] = 0, 0
    return InputSpec(
        items=ITEMS,
        verdicts=VERDICTS,
        user_fields=Fields(users, (4, 4)),
        item_fields=Fields(items, (5, 5), (1, 3)),
        extra_sizes=extra_sizes,
    )


def batch(n: int = 6, seed: int = 0) -> Samples:
    """Sample i has i behaviours, counted round: none, 1 to 4, all 5, none again."""
    draw = torch.Generator().manual_seed(seed)
    places = torch.arange(LENGTH, 0, -1)
    there = places <= (torch.arange(n) % (LENGTH + 1)).unsqueeze(1)
    items = torch.randint(1, ITEMS + 1, (n, LENGTH), generator=draw) * there
    verdicts = torch.randint(1, VERDICTS, (n, LENGTH), generator=draw) * there
    return Samples(
        user=torch.randint(1, USERS + 1, (n,), generator=draw),
        item=torch.randint(1, ITEMS + 1, (n,), generator=draw),
        history=items.int(),
        history_verdict=verdicts.int(),
        label=(torch.arange(n) % 2).float(),
    )


def extras(n: int, sizes: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Random extra vectors ``[n, size]``."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(n, size, generator=draw) for size in sizes]
