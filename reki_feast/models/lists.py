"""Lists to rerank as tensors: a few of a user's interactions among random items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from reki_feast.errors import CondenseError
from reki_feast.models.data import TensorRows, make_samples
from reki_feast.tables.asof import Indices


@dataclass(frozen=True)
class Lists(TensorRows):
    """n lists of c candidates, or a batch of them. Index 0 is padding and never a user or item.

    Attributes:
        user: ``[n]`` int64, index of the user.
        item: ``[n, c]`` int64, indices of the candidates, in random order.
        history: ``[n, l]`` int32, the items before the block, oldest first, padded with 0 on the
            left.
        history_verdict: ``[n, l]`` int32, what the user thought of them, as in
            :class:`~reki_feast.models.data.Samples`.
        label: ``[n, c]`` float32, 1 where the user interacted with the candidate and liked it.
    """

    user: Tensor
    item: Tensor
    history: Tensor
    history_verdict: Tensor
    label: Tensor


@dataclass(frozen=True)
class ListSet:
    """Lists, and the ids behind their indices.

    Attributes:
        lists: all lists, by user and order.
        users: ids; the user of index i is ``users[i - 1]``.
        items: ids; the item of index i is ``items[i - 1]``.
        verdicts: number of verdicts, padding included.
        levels: the ratings that verdicts distinguish, rising; empty where they come from ``liked``.
        held_out: ``[n]`` bool, which lists are the test's; None where no column says so.
    """

    lists: Lists
    users: pa.Array
    items: pa.Array
    verdicts: int
    levels: tuple[float, ...] = ()
    held_out: Tensor | None = None


@dataclass(frozen=True)
class ListOptions:
    """How lists are made.

    Attributes:
        history_length: l, number of interactions before the block that a list sees.
        list_length: c, candidates of a list.
        block_length: Maximum number of candidates that are the user's own interactions.
        seed: Of the drawn items and of the candidates' order; the order of the rows of the
            interactions does not matter.
        levels: :attr:`ListSet.levels` to use; None derives them from the ratings.
    """

    history_length: int = 10
    list_length: int = 10
    block_length: int = 4
    seed: int = 0
    levels: Sequence[float] | None = None


def make_lists(
    interactions: pa.Table, *, user: str, item: str, options: ListOptions | None = None
) -> ListSet:
    """Turn interactions into lists, by the rule of KAR's reranking experiments (arXiv 2306.10933).

    A user's samples are cut in order into blocks of ``block_length``, the last maybe shorter;
    those of the test are cut apart from the others. A
    block, filled up with random items labelled 0, is a list. The random items may be ones of the
    user's other interactions; unlike in those experiments, none is in the block itself, since a
    candidate with both labels carries no information.

    Args:
        interactions: as :func:`~reki_feast.models.data.make_samples` takes them.
        user: name of the user's key column.
        item: name of the item's key column.
        options: Lengths, seed and rating levels; None for the defaults.

    Raises:
        CondenseError: a column is missing or holds nulls, no row is a sample, or there are fewer
            items than a list has.
    """
    options = options or ListOptions()
    list_length, block_length = options.list_length, options.block_length
    if not 1 <= block_length <= list_length:
        raise ValueError(f"a block of a list has 1 to {list_length} candidates: {block_length}")
    made = make_samples(
        interactions,
        user=user,
        item=item,
        history_length=options.history_length,
        levels=options.levels,
    )
    if len(made.items) < list_length:
        raise CondenseError(
            f"a list has {list_length} different items", detail=f"{len(made.items)} items in all"
        )
    samples = made.samples
    owner = samples.user if made.held_out is None else 2 * samples.user + made.held_out
    first, rows, valid = _blocks(owner.numpy(), block_length)
    padding = ((0, 0), (0, list_length - block_length))
    items = np.pad(np.where(valid, samples.item.numpy()[rows], 0), padding)
    labels = np.pad(np.where(valid, samples.label.numpy()[rows], np.float32(0)), padding)
    draw = np.random.default_rng(options.seed)
    _fill(items, len(made.items), draw)
    order = draw.random(items.shape).argsort(axis=1)
    at = torch.from_numpy(first)
    lists = Lists(
        user=samples.user[at],
        item=torch.from_numpy(np.take_along_axis(items, order, axis=1)),
        history=samples.history[at],
        history_verdict=samples.history_verdict[at],
        label=torch.from_numpy(np.take_along_axis(labels, order, axis=1)),
    )
    held_out = None if made.held_out is None else made.held_out[at]
    return ListSet(lists, made.users, made.items, made.verdicts, made.levels, held_out)


def _blocks(user: Indices, length: int) -> tuple[Indices, Indices, npt.NDArray[np.bool_]]:
    """First rows ``[n]`` of blocks, rows ``[n, length]``, and their validity mask.

    Args:
        user: ``[k]``, sorted: rows of one value are cut together.
        length: Of a block, at most.
    """
    rank = np.arange(len(user)) - np.searchsorted(user, user, side="left")
    first = np.flatnonzero(rank % length == 0)
    sizes = np.diff(first, append=len(user))
    offsets = np.arange(length)
    valid = offsets < sizes[:, None]
    return first, np.where(valid, first[:, None] + offsets, 0), valid


def _fill(items: Indices, count: int, draw: np.random.Generator) -> None:
    """Replace the zeros by random items of 1 to ``count``, without repeats in a row.

    Rejection sampling: repeats are drawn again, so all choices are equally likely.
    """
    drawn = items == 0
    items[drawn] = draw.integers(1, count, int(drawn.sum()), endpoint=True)
    rows = np.arange(len(items))
    while len(rows):
        again = _repeats(items[rows]) & drawn[rows]
        faulty = again.any(axis=1)
        rows, again = rows[faulty], again[faulty]
        part = items[rows]
        part[again] = draw.integers(1, count, int(again.sum()), endpoint=True)
        items[rows] = part


def _repeats(items: Indices) -> npt.NDArray[np.bool_]:
    """Mask of items that an earlier column of the row holds too."""
    order = items.argsort(axis=1, kind="stable")
    rising = np.take_along_axis(items, order, axis=1)
    same = np.zeros(items.shape, bool)
    np.put_along_axis(same, order[:, 1:], rising[:, 1:] == rising[:, :-1], axis=1)
    return same
