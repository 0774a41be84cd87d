"""Training, validation and test parts of samples or lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Generic, Literal

import numpy as np
import torch
from torch import Tensor

from reki_feast.models.data import L, Samples
from reki_feast.tables.asof import Indices

Holdout = Literal["users", "latest"]


@dataclass(frozen=True)
class Split(Generic[L]):
    """Samples to learn from, to choose the epoch by, and to report on."""

    train: L
    validation: L
    test: L


def split_samples(
    samples: L,
    *,
    holdout: Holdout,
    test: float,
    validation: float,
    seed: int,
    owner: Tensor | None = None,
) -> Split[L]:
    """Split samples or lists by users, whole; a part gets a user while the others keep one.

    Args:
        samples: all samples.
        holdout: ``"users"`` tests on users held out of training, ``"latest"`` on the last samples
            of every user.
        test: share of the users, or of each user's samples, for the test.
        validation: share of the other users for validation.
        seed: of the draw.
        owner: ``[n]``, whose the samples are, sorted; None takes the index of the user.
    """
    owner = samples.user if owner is None else owner
    shuffled = _shuffled(owner, seed)
    if holdout == "latest":
        counts = torch.bincount(owner)[owner]
        tested = later(owner) < torch.floor(counts * test + 0.5)
    else:
        shuffled, held = _cut(shuffled, test, keep=2)
        tested = torch.isin(owner, torch.from_numpy(held))
    return _parts(samples, owner, tested, _cut(shuffled, validation, keep=1)[1])


def split_held_out(
    samples: L, held_out: Tensor, *, validation: float, seed: int, owner: Tensor | None = None
) -> Split[L]:
    """Split samples or lists of which some are declared to be the test.

    Args:
        samples: all samples.
        held_out: ``[n]`` bool, those of the test.
        validation: share of the users with other samples for validation, whole but for their
            samples of the test.
        seed: of the draw.
        owner: as for :func:`split_samples`.
    """
    owner = samples.user if owner is None else owner
    shuffled = _shuffled(owner[~held_out], seed)
    return _parts(samples, owner, held_out, _cut(shuffled, validation, keep=1)[1])


def _shuffled(owner: Tensor, seed: int) -> Indices:
    users: Indices = np.random.default_rng(seed).permutation(np.unique(owner.numpy()))
    return users


def _parts(samples: L, owner: Tensor, tested: Tensor, validated: Indices) -> Split[L]:
    """The test's samples, the others of some users, and all else."""
    chosen = torch.isin(owner, torch.from_numpy(validated)) & ~tested
    masks = (~tested & ~chosen, chosen, tested)
    train, valid, held_out = (samples.take(mask.nonzero().flatten()) for mask in masks)
    return Split(train, valid, held_out)


def split_by_users(samples: L, tested: Indices, validated: Indices) -> Split[L]:
    """Split samples by the users of the test and of validation.

    Args:
        samples: all samples.
        tested: indices of users.
        validated: indices of others.
    """
    is_test, is_valid = (
        torch.isin(samples.user, torch.from_numpy(users)) for users in (tested, validated)
    )
    masks = (~is_test & ~is_valid, is_valid, is_test)
    return Split(*(samples.take(mask.nonzero().flatten()) for mask in masks))


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples of several parts, by user."""
    names = [field.name for field in fields(Samples)]
    every = Samples(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
    return every.take(torch.argsort(every.user, stable=True))


def later(user: Tensor) -> Tensor:
    """How many rows of the same user come after each row; ``user`` ``[n]`` is sorted."""
    return torch.searchsorted(user, user, right=True) - 1 - torch.arange(len(user))


def _cut(users: Indices, share: float, *, keep: int) -> tuple[Indices, Indices]:
    wanted = max(1, round(len(users) * share)) if share > 0 else 0
    count = max(0, min(wanted, len(users) - keep))
    return users[: len(users) - count], users[len(users) - count :]
