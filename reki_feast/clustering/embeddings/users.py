"""User vectors from the item vectors of their histories; needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.clustering.embeddings.interactions import check_columns
from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.schema import Key


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of items.

    Attributes:
        ids: ``[n]``, each once.
        vectors: ``[n, d_i]``.
        key: The items' key.
    """

    ids: pa.Array
    vectors: Floats
    key: Key


def user_vectors(
    interactions: pa.Table,
    items: ItemVectors,
    *,
    user: Key,
    liked: bool,
    recent: int = 30,
    profiles: Callable[[pa.Array], Floats] | None = None,
) -> tuple[pa.Array, Floats]:
    """Mean of the vectors of the items that users liked last, or disliked last.

    A million interactions take about a second.

    Args:
        interactions: User key, item key, ``liked`` and ``order``, in any order of rows.
        items: Ids and vectors.
        user: The users' key.
        liked: Which interactions to use.
        recent: Number of interactions per user, the last ones; items without a vector are skipped.
        profiles: Gives vectors ``[k, d_p]`` of k users to concatenate, as
            :meth:`Embedder.profile_vectors`.

    Returns:
        k sorted ids of the users with such an interaction, and float32 ``[k, d_i + d_p]``.

    Raises:
        CondenseError: A column is missing, or there are not as many vectors as ids.
    """
    item = items.key
    check_columns(interactions, [user.name, item.name, "liked", "order"], "interactions")
    if len(items.ids) != len(items.vectors):
        found = f"{len(items.ids)} ids, {len(items.vectors)} vectors"
        raise CondenseError("each item has one vector", detail=found)
    asked = interactions.select([user.name, item.name, "order"])
    rows = asked.filter(pc.equal(interactions["liked"], liked))
    index = pc.index_in(rows[item.name].cast(item.type), value_set=items.ids.cast(item.type))
    rows = rows.drop_columns([item.name])
    if index.null_count:
        rows = rows.filter(index.is_valid())
    users = pc.unique(rows[user.name].cast(user.type)).sort()
    row_user = pc.index_in(rows[user.name].cast(user.type), value_set=users).to_numpy()
    by_time = np.lexsort((rows["order"].to_numpy(), row_user))
    counts = np.bincount(row_user, minlength=len(users))
    mean = _mean_of_last(index.drop_null().to_numpy()[by_time], counts, items.vectors, recent)
    return users, np.concatenate([mean, profiles(users)], axis=1) if profiles else mean


def _mean_of_last(
    index: np.ndarray[tuple[int], np.dtype[Any]],
    counts: np.ndarray[tuple[int], np.dtype[Any]],
    vectors: Floats,
    recent: int,
) -> Floats:
    """Mean of the last ``recent`` vectors of each run; ``counts`` are the runs' lengths."""
    ends, used = np.cumsum(counts), np.minimum(counts, recent)
    total = np.zeros((len(counts), vectors.shape[1]), np.float32)
    for back in range(1, int(used.max(initial=0)) + 1):  # a step of all users at a time
        runs = np.flatnonzero(used >= back)
        total[runs] += vectors[index[ends[runs] - back]]
    mean: Floats = total / used[:, None].astype(np.float32)
    return mean
