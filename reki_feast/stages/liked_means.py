"""Users' tastes: one more channel, made of vectors alone, without a text or a call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.schema import ITEM_CHANNELS, TASTE, USER_CHANNELS, Key, content_hash
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.snapshot_times import split

if TYPE_CHECKING:
    from reki_feast.encoding import Floats


@dataclass(frozen=True)
class LikedMeans:
    """For each of k users the mean of the vectors of items that the user liked last.

    Attributes:
        user: the users' key.
        ids: ``[k]``.
        means: ``[k, m]``.
    """

    user: Key
    ids: pa.Array
    means: Floats

    @classmethod
    def of(cls, given: Inputs, items: pa.Table, time: datetime, recent: int) -> LikedMeans:
        """The means of all users who liked an item that has a vector.

        Args:
            given: the project's tables.
            items: representations of items. Their first channel counts, knowledge where there is
                any; items that lack it are passed over.
            time: only what happened before counts; without times, what prompts may show.
            recent: how many liked items of a user, the last ones.
        """
        from reki_feast.clustering.embeddings import ItemVectors, user_vectors
        from reki_feast.encoding import vector_matrix

        matrix, present = vector_matrix(items[_first_channel(items)])
        present_ids = items.column(0).filter(pa.array(present)).combine_chunks()
        rows = split(given, time, recent)
        ids, means = user_vectors(
            rows.filter(rows["prompt"]),
            ItemVectors(present_ids, matrix, given.item),
            user=given.user,
            liked=True,
            recent=recent,
        )
        return cls(given.user, ids, means)

    def hashes(self, ids: pa.Array, hashes: pa.Array) -> pa.Array:
        """The hashes of users' representations, their means included."""
        digests = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in self.means]
        of_user = pa.array(digests, pa.string()).take(self._rows(ids)).fill_null("").to_pylist()
        pairs = zip(hashes.to_pylist(), of_user, strict=True)
        return pa.array([content_hash(one, mean) for one, mean in pairs], pa.string())

    def column(self, ids: pa.Array) -> pa.ChunkedArray:
        """The mean of each user, null where there is none."""
        from reki_feast.encoding import take_vectors, vector_array

        return take_vectors(vector_array(self.means), self._rows(ids))

    def _rows(self, ids: pa.Array) -> pa.Array:
        return pc.index_in(ids, value_set=self.ids)


def with_taste(users: pa.Table, means: LikedMeans) -> pa.Table:
    """Users' representations with the channel ``taste``, null where a user liked no such item.

    It separates a user of group knowledge from the rest of the group, and moves with each
    interaction, without a question to a language model. Every row gets another hash.
    """
    ids = users.column(0).combine_chunks()
    vectors = [one.name for one in users.schema if one.type == schema.VECTOR and one.name != TASTE]
    channels = [name for name in vectors if name in USER_CHANNELS]
    preferences = [name for name in vectors if name not in USER_CHANNELS]
    columns = {
        **{name: users[name] for name in users.column_names},
        TASTE: means.column(ids),
        "hash": means.hashes(ids, users["hash"]),
    }
    wanted = schema.representation(means.user, [*channels, TASTE, *preferences])
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def _first_channel(items: pa.Table) -> str:
    """The item channel that tastes are means of."""
    return next(name for name in ITEM_CHANNELS if name in items.column_names)
