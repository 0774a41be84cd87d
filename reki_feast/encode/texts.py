"""Each distinct text encoded once, and its vector laid out by channel; on whole Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.encode.columns import Floats, take_vectors, vector_array
from reki_feast.encode.encoder import Encoder
from reki_feast.errors import EncodeError
from reki_feast.schema import TIMESTAMP, VECTORS, Key, content_hash, representation


def encode_texts(texts: Sequence[str], encoder: Encoder, known: pa.Table | None = None) -> pa.Table:
    """Encode the texts that ``known`` lacks, each distinct text once.

    Args:
        texts: any texts, repeats allowed.
        encoder: turns them into vectors.
        known: a table of :data:`~reki_feast.schema.VECTORS`; rows of other encoders are ignored.

    Returns:
        Only the new rows, of :data:`~reki_feast.schema.VECTORS`.

    Raises:
        EncodeError: the encoder fails, or gives vectors of a wrong shape, NaN or infinity.
    """
    have = _known_hashes(known, encoder.name)
    wanted = {content_hash(text): text for text in dict.fromkeys(texts)}
    new = {digest: text for digest, text in wanted.items() if digest not in have}
    if not new:
        return VECTORS.empty_table()
    vectors = encoder.encode(list(new.values()))
    _check_vectors(vectors, list(new.values()), encoder)
    names = pa.array([encoder.name] * len(new), pa.string())
    columns = [pa.array(list(new), pa.string()), names, vector_array(vectors)]
    return pa.Table.from_arrays(columns, schema=VECTORS)


def represent(
    key: Key,
    ids: Sequence[Any] | pa.Array,
    channel_texts: Mapping[str, Sequence[str | None]],
    vectors: pa.Table,
    encoder: Encoder,
    as_of: datetime,
    created: datetime,
) -> pa.Table:
    """Lay encoded texts out as the channels of entities.

    Args:
        key: the entities' join key.
        ids: one id an entity.
        channel_texts: for each channel one text an entity, None where it has none.
        vectors: the encoded texts, of :data:`~reki_feast.schema.VECTORS`.
        encoder: the encoder whose vectors are taken.
        as_of: what the texts were made from ended here; has a time zone.
        created: now; has a time zone.

    Returns:
        One row an entity, of :func:`reki_feast.schema.representation`.

    Raises:
        EncodeError: a channel has another number of texts than there are ids, or a text has no
            vector.
    """
    keys = ids if isinstance(ids, pa.Array) else pa.array(ids, key.type)
    schema = representation(key, list(channel_texts))
    hashes: list[list[str | None]] = []
    for channel, texts in channel_texts.items():
        if len(texts) != len(keys):
            found = f"{len(texts)} texts for {len(keys)} ids"
            raise EncodeError(f"channel {channel!r} has one text or None an id", found=found)
        hashes.append(_hash_all(texts))
    columns = [_gather(column, vectors, encoder) for column in hashes]
    rows = _row_hashes(list(channel_texts), hashes, encoder.name, len(keys))
    times = [pa.array([time] * len(keys), TIMESTAMP) for time in (as_of, created)]
    return pa.Table.from_arrays([keys.cast(key.type), *columns, rows, *times], schema=schema)


def _known_hashes(known: pa.Table | None, name: str) -> set[str]:
    if known is None:
        return set()
    mine = known.filter(pc.equal(known["encoder"], name))
    return set(mine["text_hash"].to_pylist())


def _check_vectors(vectors: Floats, texts: list[str], encoder: Encoder) -> None:
    expected = (len(texts), encoder.dimension)
    if vectors.shape != expected:
        raise EncodeError(
            f"encoder {encoder.name!r} gives one vector of m floats a text",
            found=f"shape {vectors.shape} instead of {expected}",
        )
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise EncodeError(
            "vectors are finite",
            found=f"NaN or infinity in {int(bad.sum())} vectors of {encoder.name!r}, "
            f"the first of the text {texts[int(bad.argmax())][:60]!r}",
            mend="encode with another model, or without half precision",
        )


def _hash_all(texts: Sequence[str | None]) -> list[str | None]:
    # Group knowledge repeats one long text over thousands of entities.
    known = {text: content_hash(text) for text in set(texts) if text is not None}
    return [None if text is None else known[text] for text in texts]


def _gather(hashes: list[str | None], vectors: pa.Table, encoder: Encoder) -> pa.ChunkedArray:
    mine = vectors.filter(pc.equal(vectors["encoder"], encoder.name)).combine_chunks()
    wanted = pa.array(hashes, pa.string())
    index = pc.index_in(wanted, value_set=mine["text_hash"], skip_nulls=True)
    missing = index.null_count - wanted.null_count
    if missing:
        raise EncodeError(
            "every text is encoded before it is laid out",
            found=f"{missing} texts without a vector of {encoder.name!r}",
            mend="call encode_texts with them first",
        )
    return take_vectors(mine["vector"], index)


def _row_hashes(
    channels: list[str], hashes: list[list[str | None]], encoder: str, count: int
) -> pa.Array:
    rows = zip(*hashes, strict=True) if hashes else [()] * count
    names = "\n".join(channels)
    made = [content_hash(encoder, names, *(part or "" for part in row)) for row in rows]
    return pa.array(made, pa.string())
