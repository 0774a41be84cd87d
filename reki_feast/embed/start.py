"""Where embeddings of ids start, before a DIN refines them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reki_feast.encode import Floats
from reki_feast.recommend.data import Fields

Doubles = npt.NDArray[np.float64]

# Root mean square of what starts from factors, twice that of DIN's embeddings of attributes. Of
# 0.05, 0.1, 0.2, 0.5 DIN ranks best from the middle ones (MovieLens-100K); from half of it DIN
# moves the ids away from the factors, from twice it attributes hardly count.
_SCALE = 0.1
_FAINT = 1e-6  # of the largest singular value: nothing but rounding
_RIDGE = 1e-2  # of the mean square of what new ids are told from; a tenth does as well


class Met(NamedTuple):
    """Interactions: who met what and liked it.

    Attributes:
        user: ``[m]`` int64, numbered from 0.
        item: ``[m]`` int64, numbered from 0.
        liked: ``[m]``, 1 or 0.
    """

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    liked: npt.NDArray[Any]


def factors(noise: Floats, met: Met, seed: int) -> Floats:
    """Embeddings of ids from who met what: truncated SVDs (Deerwester et al. 1990, JASIS 41(6)).

    Half of the floats are factors of the clicks, each divided by the root of its user's and its
    item's number of clicks, without the factor of how much is clicked; the other half those of the
    likes less the item's share of likes. What people meet tells most of an item's kind (of
    MovieLens-100K's films: the genres), what they like of what they meet most of whose taste it is.
    A million interactions take seconds.

    Args:
        noise: ``[n, e]``; stays where there are fewer factors than floats.
        met: the interactions, at least one.
        seed: of the randomized SVD.

    Returns:
        float32 ``[n, e]``, both halves of one root mean square.
    """
    clicks, likes = _matrices(met, len(noise))
    known = np.sqrt(np.bincount(met.item, minlength=len(noise)) / len(met.item))
    made, half = noise.copy(), noise.shape[1] // 2
    for place, matrix, vector in (
        (slice(half), clicks, known),
        (slice(half, None), likes, np.zeros(len(noise))),
    ):
        columns = made[:, place]  # a view
        found = _factors(matrix, vector, columns.shape[1], seed)
        if found.any():
            size = np.sqrt(np.square(found).sum() / columns.size)
            columns[:, : found.shape[1]] = found * (_SCALE / size)
    return made


def folded(own: Floats, met: Met, total: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Embeddings of new ids from what those who met them met and liked besides.

    A user is the sum of the known ids met, and of those liked less those not liked; an item the
    sums of the users who met it, and of those who liked it less the others. On known items, each
    without itself, least squares tell how such sums make an id: what new factors are in a latent
    space that stands (folding-in, Deerwester et al. 1990), for ids that a DIN has refined.

    Args:
        own: ``[k, e]``, ids of the known items.
        met: interactions with n items, the known ones first.
        total: n.

    Returns:
        float32 ``[n - k, e]``, and which of them have a user who met a known item.
    """
    known = len(own)
    told, ones = [], np.ones((total, 1))
    matrices = _matrices(met, total)
    for matrix in matrices:
        sums = matrix.T @ (matrix[:, :known] @ own)
        sums[:known] -= own * matrix.power(2).sum(0).A1[:known, None]
        told.append(sums)
    clicks = matrices[0]
    has = clicks[:, known:].T @ clicks[:, :known].sum(1).A1 > 0
    if not has.any():
        return np.zeros((total - known, own.shape[1]), np.float32), has
    rows = np.hstack([*told, ones])
    rows /= np.sqrt(np.square(rows).mean(0)).clip(1e-12)
    weight = np.bincount(met.item, minlength=total)[:known, None]
    seen = rows[:known] * weight
    ridge = _RIDGE * weight.sum() * np.eye(rows.shape[1])
    turn = np.linalg.solve(seen.T @ rows[:known] + ridge, seen.T @ own)
    return (rows[known:] @ turn).astype(np.float32), has


def _matrices(met: Met, items: int) -> tuple[Any, Any]:
    """Sparse ``[users, items]``: clicks by the roots of counts, likes less items' shares."""
    from scipy import sparse

    shape = int(met.user.max(initial=-1)) + 1, items
    of_user, of_item = np.bincount(met.user), np.bincount(met.item, minlength=items)
    share = np.bincount(met.item, met.liked, items) / of_item.clip(1)
    click = 1 / np.sqrt(of_user[met.user] * of_item[met.item])
    like = met.liked - share[met.item]
    place = met.user, met.item
    return sparse.csr_matrix((click, place), shape), sparse.csr_matrix((like, place), shape)


def _factors(matrix: Any, known: Doubles, count: int, seed: int) -> Doubles:
    """Factors of the columns by their singular values, at most ``count``, without ``known``.

    That one is a right singular vector. Where others share its singular value, as where people
    fall apart into groups, an SVD gives any mixture of them: it is taken out of all.
    """
    from sklearn.utils.extmath import randomized_svd

    rank = min(count + 1, *matrix.shape)
    _, sizes, right = randomized_svd(matrix, rank, random_state=seed)
    rest = sizes[:, None] * right
    rest -= np.outer(rest @ known, known)
    _, left, right = np.linalg.svd(rest, full_matrices=False)
    kept = int((left > _FAINT * sizes.max()).sum())
    found: Doubles = (left[:, None] * right)[: min(kept, count)].T
    return found


def alike(every: Fields, own: Tensor, known: Tensor) -> Tensor:
    """Id embeddings for items that have none, from items that share attribute values.

    Args:
        every: attributes of n items.
        own: id embeddings, ``[n, e]`` or only the rows of the known items in front.
        known: ``[n]`` bool, which items have one.

    Returns:
        ``[k, e]`` for the k items that are not known: the mean over an item's values of the mean
        over the known items with that value; the mean over all known ones where there is none.
    """
    rows = known.nonzero().flatten()
    ids, codes = own[rows], every.codes[1:]
    starts = (
        torch.tensor([0, *every.sizes])
        .cumsum(0)[:-1]
        .repeat_interleave(torch.tensor(every.widths, dtype=torch.int64))
    )
    numbers = torch.where(codes > 0, codes + starts, 0)  # one number a value of any column
    sums, counts = (
        torch.zeros(1 + sum(every.sizes), ids.shape[1]),
        torch.zeros(1 + sum(every.sizes)),
    )
    for column in numbers[rows].T:
        sums.index_add_(0, column, ids)
        counts += column.bincount(minlength=len(counts))
    counts[0] = 0
    means = sums / counts.clamp(min=1).unsqueeze(1)
    wanted = numbers[~known]
    share = (counts[wanted] > 0).float()
    total = torch.zeros(len(wanted), ids.shape[1])
    for column, has in zip(wanted.T, share.T, strict=True):
        total += means[column] * has.unsqueeze(1)
    shared = share.sum(1, keepdim=True)
    return torch.where(shared > 0, total / shared.clamp(min=1), ids.mean(0))
