"""Users' tastes: one more channel, made of vectors alone, without a text or a call."""

from __future__ import annotations

import hashlib
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import inputs as sources
from reki_feast import schema
from reki_feast.inputs import Inputs
from reki_feast.schema import ITEM_CHANNELS, TASTE, USER_CHANNELS, content_hash


def with_taste(
    given: Inputs, users: pa.Table, items: pa.Table, *, time: datetime, recent: int
) -> pa.Table:
    """Users' representations with the channel ``taste``: what is known of the items they liked.

    A user of group knowledge is told from the rest of the group by this mean; and it moves with
    each interaction, without a question to a language model.

    Args:
        given: the project's tables.
        users: of :func:`reki_feast.schema.representation`, one row a user.
        items: the same for items. Their first channel counts, knowledge where there is any; items
            that lack it are passed over.
        time: only what happened before counts; without times, what prompts may show.
        recent: how many liked items of a user, the last ones.

    Returns:
        The rows, null where a user liked no such item; every row with another hash.
    """
    from reki_feast.embed import user_vectors
    from reki_feast.encode import take_vectors, vector_array, vector_matrix

    matrix, has = vector_matrix(items[_first_channel(items)])
    rows = sources.split(given, time, recent)
    ids, means = user_vectors(
        rows.filter(rows["prompt"]),
        items.column(0).filter(pa.array(has)).combine_chunks(),
        matrix,
        user=given.user,
        item=given.item,
        liked=True,
        recent=recent,
    )
    place = pc.index_in(users.column(0).combine_chunks(), value_set=ids)
    digests = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in means]
    of_user = pa.array(digests, pa.string()).take(place).fill_null("").to_pylist()
    old = users["hash"].to_pylist()
    made = [content_hash(one, taste) for one, taste in zip(old, of_user, strict=True)]
    channels = [name for name in users.column_names if name in USER_CHANNELS and name != TASTE]
    columns = {
        **{name: users[name] for name in users.column_names},
        TASTE: take_vectors(vector_array(means), place),
        "hash": pa.array(made, pa.string()),
    }
    wanted = schema.representation(given.user, [*channels, TASTE])
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def _first_channel(items: pa.Table) -> str:
    """The item channel that tastes are means of."""
    return next(name for name in ITEM_CHANNELS if name in items.column_names)
