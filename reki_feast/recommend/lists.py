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
from reki_feast.instants import Indices
from reki_feast.recommend.data import Rows, make_samples


@dataclass(frozen=True)
class Lists(Rows):
    """n lists of c candidates, or a batch of them. Index 0 is padding and never a user or item.

    Attributes:
        user: ``[n]`` int64, index of the user.
        item: ``[n, c]`` int64, indices of the candidates, in random order.
        history: ``[n, l]`` int32, the items before the first of them that the user met, oldest
            first, padded with 0 on the left.
        history_verdict: ``[n, l]`` int32, what the user thought of them, as in
            :class:`~reki_feast.recommend.data.Samples`.
        label: ``[n, c]`` float32, 1 where the user met the candidate and liked it.
    """

    user: Tensor
    item: Tensor
    history: Tensor
    history_verdict: Tensor
    label: Tensor


@dataclass(frozen=True)
class ListSet:
    """Lists and whose they are.

    Attributes:
        lists: all lists, by user and order.
        users: ids; the user of index i is ``users[i - 1]``.
        items: ids; the item of index i is ``items[i - 1]``.
        verdicts: number of verdicts, padding included.
        levels: the ratings that verdicts tell apart, rising; none where they are of ``liked``.
    """

    lists: Lists
    users: pa.Array
    items: pa.Array
    verdicts: int
    levels: tuple[float, ...] = ()


def make_lists(
    interactions: pa.Table,
    *,
    user: str,
    item: str,
    history_length: int = 10,
    list_length: int = 10,
    taken: int = 4,
    seed: int = 0,
    levels: Sequence[float] | None = None,
) -> ListSet:
    """Turn interactions into lists, by the rule of KAR's reranking experiments (arXiv 2306.10933).

    A user's samples are taken in order in blocks of ``taken``, the last maybe shorter. A block,
    filled up with items drawn from all, is a list. The drawn ones are labelled 0. They may be
    items the user met at other times; unlike in those experiments, they are none of the
    block's, since a candidate that is both liked and not says nothing.

    Args:
        interactions: as :func:`~reki_feast.recommend.data.make_samples` takes them.
        user: name of the user's key column.
        item: name of the item's key column.
        history_length: l, number of interactions before the block that a list sees.
        list_length: c, candidates of a list.
        taken: how many of them the user met, at most.
        seed: of the drawn items and of the candidates' order; the order of the rows of
            ``interactions`` does not matter.
        levels: :attr:`ListSet.levels` that these lists shall share; None finds them.

    Raises:
        CondenseError: a column is missing or holds nulls, no row is a sample, or there are fewer
            items than a list has.
    """
    if not 1 <= taken <= list_length:
        raise ValueError(f"a list of {list_length} takes 1 to {list_length}: {taken}")
    made = make_samples(
        interactions, user=user, item=item, history_length=history_length, levels=levels
    )
    if len(made.items) < list_length:
        raise CondenseError(
            f"a list has {list_length} different items", found=f"{len(made.items)} items in all"
        )
    samples = made.samples
    first, rows, inside = _blocks(samples.user.numpy(), taken)
    room = ((0, 0), (0, list_length - taken))
    items = np.pad(np.where(inside, samples.item.numpy()[rows], 0), room)
    labels = np.pad(np.where(inside, samples.label.numpy()[rows], np.float32(0)), room)
    draw = np.random.default_rng(seed)
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
    return ListSet(lists, made.users, made.items, made.verdicts, made.levels)


def _blocks(user: Indices, taken: int) -> tuple[Indices, Indices, npt.NDArray[np.bool_]]:
    """First rows ``[n]`` of blocks, all rows ``[n, taken]``, and which of those there are."""
    rank = np.arange(len(user)) - np.searchsorted(user, user, side="left")
    first = np.flatnonzero(rank % taken == 0)
    sizes = np.diff(first, append=len(user))
    places = np.arange(taken)
    inside = places < sizes[:, None]
    return first, np.where(inside, first[:, None] + places, 0), inside


def _fill(items: Indices, count: int, draw: np.random.Generator) -> None:
    """Put items of 1 to ``count`` in place of the zeros, no item twice in a row.

    Those that an earlier column has are drawn again. No item is treated unlike another, so every
    choice of items not in the block is as likely.
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
    """Where a row has an item that an earlier column has, too."""
    order = items.argsort(axis=1, kind="stable")
    rising = np.take_along_axis(items, order, axis=1)
    same = np.zeros(items.shape, bool)
    np.put_along_axis(same, order[:, 1:], rising[:, 1:] == rising[:, :-1], axis=1)
    return same
