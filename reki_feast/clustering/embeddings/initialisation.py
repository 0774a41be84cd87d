"""Initial embeddings of ids, before a DIN refines them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reki_feast.encoding import Floats
from reki_feast.models.fields import Fields

Doubles = npt.NDArray[np.float64]

# Root mean square of embeddings initialised with factors, twice that of DIN's embeddings of
# attributes. Of 0.05, 0.1, 0.2, 0.5 DIN ranks best with the middle ones (MovieLens-100K); with half
# of it DIN moves the ids away from the factors, with twice it attributes hardly count.
_SCALE = 0.1
_FAINT = 1e-6  # of the largest singular value: nothing but rounding
_RIDGE = 1e-2  # of the mean square of the regression's features; a tenth does as well


class Interactions(NamedTuple):
    """Interactions as index arrays.

    Attributes:
        user: ``[m]`` int64, index from 0.
        item: ``[m]`` int64, index from 0.
        liked: ``[m]``, 1 or 0.
    """

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    liked: npt.NDArray[Any]


def latent_factors(noise: Floats, interactions: Interactions, seed: int) -> Floats:
    """Embeddings of ids from interactions: truncated SVDs (Deerwester et al. 1990, JASIS 41(6)).

    Half of the floats are factors of the clicks, each divided by the root of its user's and its
    item's number of clicks, without the factor of how much is clicked; the other half those of the
    likes less the item's share of likes. Clicks say most about an item's kind (of MovieLens-100K's
    films: the genres), likes most about the preferences of its users.
    A million interactions take seconds.

    Args:
        noise: ``[n, e]``; kept where there are fewer factors than floats.
        interactions: At least one.
        seed: of the randomized SVD.

    Returns:
        float32 ``[n, e]``, both halves of one root mean square.
    """
    item = interactions.item
    clicks, likes = _matrices(interactions, len(noise))
    popularity = np.sqrt(np.bincount(item, minlength=len(noise)) / len(item))
    embeddings, half = noise.copy(), noise.shape[1] // 2
    for part, matrix, trivial in (
        (slice(half), clicks, popularity),
        (slice(half, None), likes, np.zeros(len(noise))),
    ):
        columns = embeddings[:, part]  # a view
        factors = _factors(matrix, trivial, columns.shape[1], seed)
        if factors.any():
            size = np.sqrt(np.square(factors).sum() / columns.size)
            columns[:, : factors.shape[1]] = factors * (_SCALE / size)
    return embeddings


def fold_in_ids(
    ids: Floats, interactions: Interactions, total: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Embeddings of new ids from the other items of their users (folding-in).

    A user is the sum of the known ids of their items, and that of the liked ones minus the disliked
    ones; an item the sums of its users, and of those who liked it minus the others. A ridge
    regression from such sums to ids is fitted on known items, each without itself. (Folding-in of
    Deerwester et al. 1990, for ids that a DIN has refined.)

    Args:
        ids: ``[k, e]``, embeddings of the known items.
        interactions: With n items, the known ones first.
        total: n.

    Returns:
        float32 ``[n - k, e]``, and the mask of those with a user of a known item.
    """
    known = len(ids)
    features, ones = [], np.ones((total, 1))
    matrices = _matrices(interactions, total)
    for matrix in matrices:
        sums = matrix.T @ (matrix[:, :known] @ ids)
        sums[:known] -= ids * matrix.power(2).sum(0).A1[:known, None]
        features.append(sums)
    clicks = matrices[0]
    valid = clicks[:, known:].T @ clicks[:, :known].sum(1).A1 > 0
    if not valid.any():
        return np.zeros((total - known, ids.shape[1]), np.float32), valid
    rows = np.hstack([*features, ones])
    rows /= np.sqrt(np.square(rows).mean(0)).clip(1e-12)
    weight = np.bincount(interactions.item, minlength=total)[:known, None]
    weighted = rows[:known] * weight
    ridge = _RIDGE * weight.sum() * np.eye(rows.shape[1])
    coefficients = np.linalg.solve(weighted.T @ rows[:known] + ridge, weighted.T @ ids)
    return (rows[known:] @ coefficients).astype(np.float32), valid


def _matrices(interactions: Interactions, items: int) -> tuple[Any, Any]:
    """Sparse ``[users, items]``: clicks by the roots of counts, likes less items' shares."""
    from scipy import sparse

    user, item, liked = interactions
    shape = int(user.max(initial=-1)) + 1, items
    of_user, of_item = np.bincount(user), np.bincount(item, minlength=items)
    share = np.bincount(item, liked, items) / of_item.clip(1)
    click = 1 / np.sqrt(of_user[user] * of_item[item])
    like = liked - share[item]
    index = user, item
    return sparse.csr_matrix((click, index), shape), sparse.csr_matrix((like, index), shape)


def _factors(matrix: Any, trivial: Doubles, count: int, seed: int) -> Doubles:
    """Factors of the columns by their singular values, at most ``count``, without ``trivial``.

    That one is a right singular vector. Where others share its singular value, as where users
    form disconnected groups, an SVD gives any mixture of them, so it is projected out of all.
    """
    from sklearn.utils.extmath import randomized_svd

    rank = min(count + 1, *matrix.shape)
    _, sizes, right = randomized_svd(matrix, rank, random_state=seed)
    rest = sizes[:, None] * right
    rest -= np.outer(rest @ trivial, trivial)
    _, left, right = np.linalg.svd(rest, full_matrices=False)
    kept = int((left > _FAINT * sizes.max()).sum())
    factors: Doubles = (left[:, None] * right)[: min(kept, count)].T
    return factors


def mean_of_similar(item_fields: Fields, ids: Tensor, known: Tensor) -> Tensor:
    """Id embeddings of items without one, from items that share attribute values.

    Args:
        item_fields: Attributes of n items.
        ids: Id embeddings, ``[n, e]`` or only the rows of the known items in front.
        known: ``[n]`` bool, mask of the items that have one.

    Returns:
        ``[k, e]`` for the k items that are not known: the mean over an item's values of the mean
        over the known items with that value; the mean over all known ones where there is none.
    """
    rows = known.nonzero().flatten()
    ids, codes = ids[rows], item_fields.codes[1:]
    starts = (
        torch.tensor([0, *item_fields.sizes])
        .cumsum(0)[:-1]
        .repeat_interleave(torch.tensor(item_fields.widths, dtype=torch.int64))
    )
    numbers = torch.where(codes > 0, codes + starts, 0)  # one number a value of any column
    sums, counts = (
        torch.zeros(1 + sum(item_fields.sizes), ids.shape[1]),
        torch.zeros(1 + sum(item_fields.sizes)),
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
