"""Users' vectors by the items of their histories. The items' vectors may be anybody's: no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.embed.interactions import check_columns
from reki_feast.encode import Floats
from reki_feast.errors import CondenseError
from reki_feast.schema import Key


def user_vectors(
    interactions: pa.Table,
    item_ids: pa.Array,
    item_vectors: Floats,
    *,
    user: Key,
    item: Key,
    liked: bool,
    recent: int = 30,
    profiles: Callable[[pa.Array], Floats] | None = None,
) -> tuple[pa.Array, Floats]:
    """What users liked of late, or did not: the mean of its items' vectors.

    The vectors may be anybody's. A million interactions take about a second.

    Args:
        interactions: user key, item key, ``liked`` and ``order``, in any order of rows.
        item_ids: ``[n]``, each once.
        item_vectors: ``[n, d_i]``.
        user: the users' key.
        item: the items' key.
        liked: which interactions count.
        recent: how many a user, the last ones; those whose item has no vector are passed over.
        profiles: gives ``[k, d_p]`` for k users, to be joined, as
            :meth:`Embedder.profile_vectors`.

    Returns:
        k ids, sorted, of the users who have such an interaction, and float32 ``[k, d_i + d_p]``.

    Raises:
        CondenseError: a column is missing, or there are not as many vectors as ids.
    """
    check_columns(interactions, [user.name, item.name, "liked", "order"], "interactions")
    if len(item_ids) != len(item_vectors):
        found = f"{len(item_ids)} ids, {len(item_vectors)} vectors"
        raise CondenseError("each item has one vector", found=found)
    rows = interactions.filter(pc.equal(interactions["liked"], liked))
    place = pc.index_in(rows[item.name].cast(item.type), value_set=item_ids.cast(item.type))
    rows = rows.filter(place.is_valid())
    users = pc.unique(rows[user.name].cast(user.type)).sort()
    owner = pc.index_in(rows[user.name].cast(user.type), value_set=users).to_numpy()
    by_time = np.lexsort((rows["order"].to_numpy(), owner))
    counts = np.bincount(owner, minlength=len(users))
    mean = _last_mean(place.drop_null().to_numpy()[by_time], counts, item_vectors, recent)
    return users, np.concatenate([mean, profiles(users)], axis=1) if profiles else mean


def _last_mean(
    place: np.ndarray[tuple[int], np.dtype[Any]],
    counts: np.ndarray[tuple[int], np.dtype[Any]],
    vectors: Floats,
    recent: int,
) -> Floats:
    """Mean of the last ``recent`` vectors of each run; ``counts`` are the runs' lengths."""
    ends, used = np.cumsum(counts), np.minimum(counts, recent)
    total = np.zeros((len(counts), vectors.shape[1]), np.float32)
    for back in range(1, int(used.max(initial=0)) + 1):  # one step for all users at a time
        runs = np.flatnonzero(used >= back)
        total[runs] += vectors[place[ends[runs] - back]]
    mean: Floats = total / used[:, None].astype(np.float32)
    return mean
