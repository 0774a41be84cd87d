"""Fitted scores as tables: a row a user and moment, and a row an item and moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reki_feast import schema
from reki_feast.encoding import Floats, vector_array
from reki_feast.models.text_match.fitted import Fitted
from reki_feast.models.text_match.interactions import InteractionIndex
from reki_feast.models.text_match.moments import Moments, moments_of
from reki_feast.models.text_match.states import (
    Encoded,
    Events,
    UserHistory,
    recent_texts,
    taste,
)
from reki_feast.schema import TIMESTAMP, Key
from reki_feast.tables.asof import Doubles, Indices
from reki_feast.tables.digests import Hashes, mixed

#: Microseconds between the last interaction that a row counts and the row's time.
TICK = 1
_ROWS = 20_000  # of a table
_PART = 1 << 20


def user_moments(fitted: Fitted, events: Events, users: int) -> Moments:
    """A row where a user's state changed, and at each cut: there the towers change."""
    is_last = np.ones(len(events.user), bool)
    is_last[:-1] = np.diff(events.user).astype(bool) | np.diff(events.since).astype(bool)
    place = np.flatnonzero(is_last)
    return moments_of(
        fitted.cuts, events.user[place], events.since[place] + TICK, place, users, events.before
    )


def item_moments(fitted: Fitted, encoded: Encoded, items: int) -> Moments:
    """A row where an item got another text, and at each cut."""
    texts = encoded.texts
    place = np.arange(len(texts))
    return moments_of(fitted.cuts, texts.item, texts.since, place, items, texts.at)


def user_rows(
    fitted: Fitted,
    history: UserHistory,
    moments: Moments,
    *,
    key: Key,
    created: datetime,
) -> Iterator[pa.Table]:
    """Rows of :func:`reki_feast.schema.user_match`, some thousand per table."""
    log, encoded, counts = history.log, history.encoded, _counts(history.log, moments)
    events, places = history.events.of_users(moments.owner)
    moments = replace(moments, place=np.searchsorted(places, moments.place))
    for at in range(0, len(moments), _ROWS):
        some = moments.take(slice(at, at + _ROWS))
        texts, residuals = recent_texts(events, some.place, encoded, fitted.settings.recent)
        sums = events.sums[some.place]
        towers = _by_block(some, fitted.users, taste(sums))
        vectors = np.concatenate([texts.reshape(len(some), -1), residuals, towers], axis=1)
        recent = _recent_sum(events, some, fitted.settings.recent)
        counted = counts[at : at + _ROWS]
        sums = np.concatenate([sums, counted, recent, time_parts(some.time)], axis=1)
        columns = [
            log.users.take(pa.array(some.owner)).cast(key.type),
            vector_array(vectors.astype(np.float32)),
            vector_array(sums.astype(np.float32)),
            *_ends(fitted, some, events.digest, created),
        ]
        yield pa.Table.from_arrays(columns, schema=schema.user_match(key))


def item_rows(
    fitted: Fitted,
    log: InteractionIndex,
    encoded: Encoded,
    moments: Moments,
    *,
    key: Key,
    created: datetime,
) -> Iterator[pa.Table]:
    """Rows of :func:`reki_feast.schema.item_match`, some thousand a table."""
    for at in range(0, len(moments), _ROWS):
        some = moments.take(slice(at, at + _ROWS))
        text = encoded.vectors[some.place]
        towers = _by_block(some, fitted.items, text)
        stacks = np.stack([fitted.stack(int(number)) for number in some.block])
        vectors = np.concatenate([text, towers, stacks], axis=1)
        columns = [
            log.items.take(pa.array(some.owner)).cast(key.type),
            vector_array(vectors.astype(np.float32)),
            *_ends(fitted, some, encoded.texts.digest, created),
        ]
        yield pa.Table.from_arrays(columns, schema=schema.item_match(key))


def time_parts(time: Indices) -> Doubles:
    """Times ``[n]`` as three numbers each ``[n, 3]``, which float32 holds: not all stores do.

    >>> time_of(time_parts(np.array([1_767_225_600_000_001]))[0])
    1767225600000001
    """
    high, low = np.divmod(time, _PART)
    return np.column_stack([*np.divmod(high, _PART), low]).astype(np.float64)


def time_of(parts: npt.NDArray[np.floating]) -> int:
    """The time of which these are the parts ``[3]``."""
    highest, high, low = (int(part) for part in parts)
    return (highest * _PART + high) * _PART + low


def row_hashes(fitted: Fitted, moments: Moments, digest: Hashes) -> list[str]:
    """Hash of all that makes each row; ``digest`` is of the places."""
    made_by = np.array(
        [int(fitted.fingerprint(number)[:16], 16) for number in range(len(fitted.blocks) + 1)],
        np.uint64,
    )
    own = mixed(digest[moments.place], made_by[moments.block])
    return [f"{one:016x}" for one in own.tolist()]


def _by_block(moments: Moments, make: Callable[[int, Floats], Floats], read: Floats) -> Floats:
    """What each block's towers make ``[k, tower]`` of its rows of ``read``."""
    made: list[tuple[Indices, Floats]] = []
    for number in np.unique(moments.block):
        rows = np.flatnonzero(moments.block == number)
        made.append((rows, make(int(number), read[rows])))
    order = np.concatenate([rows for rows, _ in made])
    joined: Floats = np.concatenate([part for _, part in made])[np.argsort(order)]
    return joined


def _counts(log: InteractionIndex, moments: Moments) -> Floats:
    """Interactions and likes ``[k, 4]`` that a state knows, and those before its last moment.

    The latter two are what is expected of one more interaction at that moment: interactions of one
    moment do not see each other.
    """
    known = log.seen(moments.owner, moments.time)
    earlier = log.seen(moments.owner, moments.time - TICK)
    return np.column_stack([*known, *earlier]).astype(np.float32)


def _recent_sum(events: Events, moments: Moments, count: int) -> Doubles:
    """Sum ``[k, 1]`` of the last residuals before they were levelled: an update needs them so."""
    back = events.recent(moments.place, count)
    sums: Doubles = np.where(back >= 0, events.residual[back], 0).sum(axis=1, keepdims=True)
    return sums


def _ends(fitted: Fitted, moments: Moments, digest: Hashes, created: datetime) -> list[pa.Array]:
    return [
        pa.array(row_hashes(fitted, moments, digest), pa.string()),
        pa.array(moments.time).cast(TIMESTAMP),
        pa.array([created] * len(moments), TIMESTAMP),
    ]
