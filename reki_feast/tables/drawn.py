"""Users drawn from a log that is longer than what training reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.schema import Key
from reki_feast.tables.digests import mixed, row_digests


def drawn_users(interactions: pa.Table, user: Key, most: int | None, seed: int) -> pa.Array | None:
    """Ids of drawn users, sorted, who have ``most`` interactions at most; None where all have.

    Whether a user comes before another follows from both ids and the seed, so that a log that
    grows draws the same users, or fewer of them.

    Args:
        interactions: has the users' key.
        user: the key.
        most: how many interactions; None: no limit. One user is drawn at least.
        seed: of the draw.
    """
    if most is None or interactions.num_rows <= most:
        return None
    counted = pc.value_counts(interactions[user.name].combine_chunks())
    ids, counts = counted.field("values"), counted.field("counts").to_numpy()
    own = row_digests(pa.table({user.name: ids}))
    order = np.argsort(mixed(own, np.full(len(own), seed, np.int64).view(np.uint64)))
    kept = int(np.searchsorted(np.cumsum(counts[order]), most, side="right"))
    drawn = ids.take(pa.array(order[: max(kept, 1)]))
    return drawn.take(pc.array_sort_indices(drawn))
