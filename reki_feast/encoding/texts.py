"""Encodes each distinct text once, and arranges vectors by channel; on whole Arrow columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.encoding.columns import Floats, take_vectors, vector_array
from reki_feast.encoding.encoder import TextEncoder
from reki_feast.errors import EncodeError
from reki_feast.schema import TIMESTAMP, VECTORS, Key, content_hash, representation


def encode_texts(
    texts: Sequence[str], encoder: TextEncoder, known: pa.Table | None = None
) -> pa.Table:
    """Encode the texts that ``known`` lacks, each distinct text once.

    Args:
        texts: Duplicates allowed.
        encoder: Encodes them.
        known: A table of :data:`~reki_feast.schema.VECTORS`; rows of other encoders are ignored.

    Returns:
        Only the new rows, of :data:`~reki_feast.schema.VECTORS`.

    Raises:
        EncodeError: the encoder fails, or gives vectors of a wrong shape, NaN or infinity.
    """
    stored = _stored_hashes(known, encoder.name)
    texts_by_hash = {content_hash(text): text for text in dict.fromkeys(texts)}
    new = {digest: text for digest, text in texts_by_hash.items() if digest not in stored}
    return encoded(new, encoder)


def encoded(texts: Mapping[str, str], encoder: TextEncoder) -> pa.Table:
    """The vectors of distinct texts.

    Args:
        texts: by their hashes, of :func:`text_hashes`.
        encoder: Encodes them.

    Returns:
        A row a text, of :data:`~reki_feast.schema.VECTORS`.

    Raises:
        EncodeError: as :func:`encode_texts`.
    """
    if not texts:
        return VECTORS.empty_table()
    vectors = encoder.encode(list(texts.values()))
    _check_vectors(vectors, list(texts.values()), encoder)
    names = pa.array([encoder.name] * len(texts), pa.string())
    columns = [pa.array(list(texts), pa.string()), names, vector_array(vectors)]
    return pa.Table.from_arrays(columns, schema=VECTORS)


@dataclass(frozen=True)
class RowTimes:
    """Times of rows; both have a time zone.

    Attributes:
        as_of: End of what the texts were made from.
        created: Now.
    """

    as_of: datetime
    created: datetime


def represent(
    key: Key,
    ids: Sequence[Any] | pa.Array,
    channel_texts: Mapping[str, Sequence[str | None]],
    vectors: pa.Table,
    encoder: TextEncoder,
    times: RowTimes,
) -> pa.Table:
    """Arrange encoded texts as the channels of entities.

    Args:
        key: the entities' join key.
        ids: one id an entity.
        channel_texts: for each channel one text an entity, None where it has none.
        vectors: the encoded texts, of :data:`~reki_feast.schema.VECTORS`.
        encoder: the encoder whose vectors are taken.
        times: Of the rows.

    Returns:
        One row an entity, of :func:`reki_feast.schema.representation`.

    Raises:
        EncodeError: a channel has another number of texts than there are ids, or a text has no
            vector.
    """
    keys = ids if isinstance(ids, pa.Array) else pa.array(ids, key.type)
    hashes: dict[str, pa.Array] = {}
    for channel, texts in channel_texts.items():
        if len(texts) != len(keys):
            found = f"{len(texts)} texts for {len(keys)} ids"
            raise EncodeError(f"channel {channel!r} has one text or None an id", detail=found)
        hashes[channel] = pa.array(text_hashes(texts), pa.string())
    return lay_out(key, keys, hashes, lambda some: _gather(some, vectors, encoder), encoder, times)


def lay_out(
    key: Key,
    ids: pa.Array,
    hashes: Mapping[str, pa.Array],
    take: Callable[[pa.Array], pa.ChunkedArray],
    encoder: TextEncoder,
    times: RowTimes,
) -> pa.Table:
    """Arrange vectors as the channels of entities, as :func:`represent`, by their texts' hashes.

    Args:
        key: the entities' join key.
        ids: one id an entity.
        hashes: for each channel the hash of each entity's text, null where it has none.
        take: gives the vectors of texts by their hashes, null for null.
        encoder: the encoder whose vectors these are.
        times: Of the rows.
    """
    columns = [take(column) for column in hashes.values()]
    parts = [column.to_pylist() for column in hashes.values()]
    rows = row_hashes(list(hashes), parts, encoder.name, len(ids))
    stamps = [pa.array([time] * len(ids), TIMESTAMP) for time in (times.as_of, times.created)]
    made = [ids.cast(key.type), *columns, rows, *stamps]
    return pa.Table.from_arrays(made, schema=representation(key, list(hashes)))


def _stored_hashes(known: pa.Table | None, name: str) -> set[str]:
    if known is None:
        return set()
    own = known.filter(pc.equal(known["encoder"], name))
    return set(own["text_hash"].to_pylist())


def _check_vectors(vectors: Floats, texts: list[str], encoder: TextEncoder) -> None:
    expected = (len(texts), encoder.dimension)
    if vectors.shape != expected:
        raise EncodeError(
            f"encoder {encoder.name!r} gives one vector of m floats a text",
            detail=f"shape {vectors.shape} instead of {expected}",
        )
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise EncodeError(
            "vectors are finite",
            detail=f"NaN or infinity in {int(bad.sum())} vectors of {encoder.name!r}, "
            f"the first of the text {texts[int(bad.argmax())][:60]!r}",
            hint="encode with another model, or without half precision",
        )


def text_hashes(texts: Sequence[str | None]) -> list[str | None]:
    """The hash of each text, by which its vector is found; None for None."""
    # Group knowledge repeats one long text over thousands of entities.
    known = {text: content_hash(text) for text in set(texts) if text is not None}
    return [None if text is None else known[text] for text in texts]


def _gather(wanted: pa.Array, vectors: pa.Table, encoder: TextEncoder) -> pa.ChunkedArray:
    mine = vectors.filter(pc.equal(vectors["encoder"], encoder.name)).combine_chunks()
    index = pc.index_in(wanted, value_set=mine["text_hash"], skip_nulls=True)
    missing = index.null_count - wanted.null_count
    if missing:
        raise EncodeError(
            "every text is encoded before it is laid out",
            detail=f"{missing} texts without a vector of {encoder.name!r}",
            hint="call encode_texts with them first",
        )
    return take_vectors(mine["vector"], index)


def row_hashes(
    channels: list[str], hashes: list[list[str | None]], encoder: str, count: int
) -> pa.Array:
    """The hash of each row of :func:`represent`, without its vectors.

    Args:
        channels: their names.
        hashes: for each channel the hashes of its texts, one a row.
        encoder: the encoder's name.
        count: number of rows.
    """
    rows = zip(*hashes, strict=True) if hashes else [()] * count
    names = "\n".join(channels)
    made = [content_hash(encoder, names, *(part or "" for part in row)) for row in rows]
    return pa.array(made, pa.string())
