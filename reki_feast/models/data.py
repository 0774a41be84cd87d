"""Samples of a click model as tensors, made from an Arrow table of interactions.

Every step is a sort, a shift or a look-up over whole columns: a million interactions take about a
second, and no Python runs for a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from reki_feast.errors import CondenseError
from reki_feast.tables.asof import Indices

#: Values of :attr:`Samples.history_verdict` where there are no ratings.
PADDING, NOT_LIKED, LIKED = 0, 1, 2
_LEVELS = 16  # finer ratings than that are put in bins of equal size


class Batch(Protocol):
    """Indices of n samples: :class:`Samples`, or lists of c targets.

    Attributes:
        user: ``[n]``, index of the user.
        item: ``[n]``, index of the target, or ``[n, c]``, of c targets.
        history: ``[n, l]``, the items before, padded with 0.
        history_verdict: ``[n, l]``, what the user thought of them, 0 for padding.
    """

    @property
    def user(self) -> Tensor: ...  # noqa: D102
    @property
    def item(self) -> Tensor: ...  # noqa: D102
    @property
    def history(self) -> Tensor: ...  # noqa: D102
    @property
    def history_verdict(self) -> Tensor: ...  # noqa: D102


class Labelled(Batch, Protocol):
    """A batch with labels ``[n]``, or ``[n, c]`` of lists, of which smaller ones can be taken."""

    @property
    def label(self) -> Tensor: ...  # noqa: D102

    def __len__(self) -> int: ...
    def take(self, rows: Tensor) -> Self: ...  # noqa: D102
    def to(self, device: torch.device) -> Self: ...  # noqa: D102


L = TypeVar("L", bound=Labelled)


@dataclass(frozen=True)
class TensorRows:
    """n rows of tensors, and batches of them."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, rows: Tensor) -> Self:
        """The rows at ``rows`` ``[k]`` int64."""
        return self._each(lambda tensor: tensor.index_select(0, rows))

    def to(self, device: torch.device) -> Self:
        """The same rows on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(**{f.name: change(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class Samples(TensorRows):
    """n samples, or a batch of them. Index 0 is padding in a history and never a user or item.

    Attributes:
        user: ``[n]`` int64, index of the user.
        item: ``[n]`` int64, index of the target item.
        history: ``[n, l]`` int32, the items before it, oldest first, padded with 0 on the left.
        history_verdict: ``[n, l]`` int32, what the user thought of them: 0 for padding, from 1 the
            levels of ``rating``, or NOT_LIKED and LIKED.
        label: ``[n]`` float32, 1 where the target was liked.
    """

    user: Tensor
    item: Tensor
    history: Tensor
    history_verdict: Tensor
    label: Tensor


@dataclass(frozen=True)
class SampleSet:
    """Samples and whose they are.

    Attributes:
        samples: all samples, by user and order.
        users: ids; the user of index i is ``users[i - 1]``.
        items: ids; the item of index i is ``items[i - 1]``.
        verdicts: number of verdicts, padding included.
        rows: ``[n]``, the interaction of each sample.
        levels: the ratings that verdicts tell apart, rising; none where they are of ``liked``.
        held_out: ``[n]`` bool, which samples are the test's, a user's last; None where no column
            says so.
    """

    samples: Samples
    users: pa.Array
    items: pa.Array
    verdicts: int
    rows: Indices
    levels: tuple[float, ...] = ()
    held_out: Tensor | None = None


def make_samples(
    interactions: pa.Table,
    *,
    user: str,
    item: str,
    history_length: int = 10,
    levels: Sequence[float] | None = None,
) -> SampleSet:
    """Turn interactions into samples with their behaviour histories.

    Args:
        interactions: columns ``user`` and ``item`` (ids), ``liked`` (bool), ``order`` (int64, a
            user's history in time order) and ``sample`` (bool; a row that is not a sample is still
            part of later rows' histories); optionally ``rating`` (a number), which says more of
            the history than ``liked``, and ``held_out`` (bool): rows of the test, whose histories
            are a user's other rows, and which are in no history.
        user: name of the user's key column.
        item: name of the item's key column.
        history_length: l, number of earlier interactions a sample sees.
        levels: :attr:`SampleSet.levels` of samples whose verdicts these shall share; None finds
            them in ``rating``.

    Raises:
        CondenseError: a column is missing or holds nulls, or no row is a sample.
    """
    _check(interactions, [user, item, "liked", "order", "sample"])
    user_code, users = _index(interactions[user])
    item_code, items = _index(interactions[item])
    order, held = interactions["order"].to_numpy(), _held_out(interactions)
    by_time = np.lexsort((order, held, user_code))
    held = held[by_time]
    user_code, item_code = user_code[by_time], item_code[by_time]
    liked = interactions["liked"].to_numpy()[by_time]
    sample = np.flatnonzero(interactions["sample"].to_numpy()[by_time])
    if not len(sample):
        raise CondenseError(
            "some interactions come after those that fed the prompts",
            detail=f"{len(order)} interactions, none of them a sample",
            hint="take more interactions, or an earlier snapshot",
        )
    first = np.searchsorted(user_code, user_code, side="left")
    start, end = first[sample], (np.arange(len(held)) - _held_before(held, first))[sample]
    back = end[:, None] - np.arange(history_length, 0, -1)
    inside = back >= start[:, None]
    back[~inside] = 0
    history = np.where(inside, item_code[back], PADDING)
    levels = _levels(interactions) if levels is None else tuple(levels)
    verdict, count = _verdicts(interactions, levels)
    verdicts = np.where(inside, verdict[by_time][back], PADDING)
    samples = Samples(
        user=torch.from_numpy(user_code[sample]),
        item=torch.from_numpy(item_code[sample]),
        history=torch.from_numpy(history.astype(np.int32)),
        history_verdict=torch.from_numpy(verdicts.astype(np.int32)),
        label=torch.from_numpy(liked[sample].astype(np.float32)),
    )
    tested = torch.from_numpy(held[sample]) if "held_out" in interactions.schema.names else None
    return SampleSet(samples, users, items, count, by_time[sample], levels, tested)


def _held_out(interactions: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows are the test's; none without the column."""
    if "held_out" not in interactions.schema.names:
        return np.zeros(interactions.num_rows, np.bool_)
    found: npt.NDArray[np.bool_] = interactions["held_out"].to_numpy()
    return found


def _held_before(held: npt.NDArray[np.bool_], first: Indices) -> Indices:
    """How many test rows of the same user come before each row; ``first``: the user's first row."""
    before = np.concatenate([[0], np.cumsum(held)])
    count: Indices = before[:-1] - before[first]
    return count


def _levels(interactions: pa.Table) -> tuple[float, ...]:
    """The ratings that are told apart; none where there are no ratings."""
    names = interactions.schema.names
    if "rating" not in names or interactions["rating"].null_count == interactions.num_rows:
        return ()
    ratings = pc.cast(interactions["rating"], pa.float64()).to_numpy()
    levels = np.unique(ratings[~np.isnan(ratings)])
    if len(levels) > _LEVELS:
        levels = np.unique(np.quantile(ratings[~np.isnan(ratings)], np.linspace(0, 1, _LEVELS)))
    return tuple(levels.tolist())


def _verdicts(interactions: pa.Table, levels: tuple[float, ...]) -> tuple[Indices, int]:
    """A code from 1 for what each interaction says, and the number of codes with 0."""
    if not levels:
        return np.where(interactions["liked"].to_numpy(), LIKED, NOT_LIKED).astype(np.int64), 3
    # No rating: a code of its own, after the levels.
    codes = np.full(interactions.num_rows, len(levels) + 1, np.int64)
    if "rating" in interactions.schema.names:
        ratings = pc.cast(interactions["rating"], pa.float64()).to_numpy()
        rated = ~np.isnan(ratings)
        found = np.searchsorted(levels, ratings[rated], side="right")
        codes[rated] = found.clip(1, len(levels))
    return codes, len(levels) + 2


def _check(interactions: pa.Table, columns: list[str]) -> None:
    for column in columns:
        if column not in interactions.schema.names:
            raise CondenseError(
                f"interactions have the columns {', '.join(columns)}",
                detail=f"{column!r} is missing from {interactions.schema.names}",
            )
        nulls = interactions[column].null_count
        if nulls:
            raise CondenseError(f"interactions' {column!r} is never null", detail=f"{nulls} nulls")


def _index(column: pa.ChunkedArray) -> tuple[Indices, pa.Array]:
    """Indices from 1 in the order of the sorted ids, whatever the order of the rows."""
    ids = pc.unique(column)
    ids = ids.take(pc.array_sort_indices(ids))
    codes = pc.index_in(column, value_set=ids).to_numpy()
    return codes.astype(np.int64) + 1, ids
