"""Augmented vectors of representations, computed with fitted HEINs."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reki_feast.encoding import Floats, vector_array
from reki_feast.models.hein.config import FittedHein
from reki_feast.models.hein.cross_fitting import fold_of
from reki_feast.models.hein.embedding_tables import check_channels, make_tables
from reki_feast.models.hein.export import fingerprint
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.task import key_name
from reki_feast.schema import TIMESTAMP, Key, Kind, augmented, content_hash

_ROWS = 8192  # representations transformed at a time


def transform(
    hein: FittedHein, representation: pa.Table, kind: Kind, created: datetime
) -> pa.Table:
    """Transform every row's representation to its augmented vector, equal ones once.

    Args:
        hein: Fitted HEINs.
        representation: Of :func:`reki_feast.schema.representation`, from the encoder they were
            trained with. A null channel counts as the training data's mean.
        kind: Users or items.
        created: Now; has a time zone.

    Returns:
        As many rows, of :func:`reki_feast.schema.augmented`, with the as-of times they had.

    Raises:
        CondenseError: A channel is missing, of another length, or holds NaN or infinity.
    """
    key = Key(key_name(representation), representation.schema.field(0).type)
    vectors = vectors_of(hein, representation, kind)
    weights_hash = fingerprint(hein)
    hashes = [content_hash(weights_hash, kind, row) for row in representation["hash"].to_pylist()]
    columns = [
        representation[key.name],
        vector_array(vectors),
        pa.array(hashes, pa.string()),
        representation["event_timestamp"],
        pa.array([created] * representation.num_rows, TIMESTAMP),
    ]
    return pa.Table.from_arrays(columns, schema=augmented(key, kind))


def check_readable(hein: FittedHein, representation: pa.Table, kind: Kind) -> None:
    """Raise CondenseError where a representation lacks a channel that the weights read.

    Args:
        hein: The fitted HEINs.
        representation: Representations of users or items.
        kind: Which of them.
    """
    check_channels(representation, kind, hein.heins.channels(kind))


def default_vector(hein: FittedHein, kind: Kind) -> Floats:
    """The vector ``[q]`` of an unknown id: HEIN of the mean representation, averaged over folds.

    Args:
        hein: The fitted HEINs.
        kind: Of users or of items.

    Returns:
        Float32 ``[q]``.
    """
    vectors = []
    for heins in _networks(hein, kind):
        means = {channel: heins.mean(kind, channel) for channel in heins.channels(kind)}
        with torch.no_grad():
            vector: Tensor = heins.user(means) if kind == "user" else heins.item(means)
        vectors.append(vector.numpy())
    mean: Floats = np.mean(vectors, axis=0)
    return mean


def vectors_of(hein: FittedHein, representation: pa.Table, kind: Kind) -> Floats:
    """Augmented vectors ``[n, q]``; of users by the network of the fold they are in.

    Args:
        hein: The fitted HEINs.
        representation: Rows with the id first and a vector a channel.
        kind: Of users or of items.

    Returns:
        Float32 ``[n, q]``.

    Raises:
        CondenseError: A channel is missing, of another length, or holds NaN or infinity.
    """
    networks = _networks(hein, kind)
    if len(networks) == 1:
        return _apply(networks[0], representation, kind)
    fold = fold_of(representation.column(0), len(networks))
    vectors = np.empty((representation.num_rows, hein.q), np.float32)
    for number, heins in enumerate(networks):
        rows = np.flatnonzero(fold == number)
        vectors[rows] = _apply(heins, representation.take(rows), kind)
    return vectors


def _networks(hein: FittedHein, kind: Kind) -> tuple[HeinSet, ...]:
    """The networks that make the vectors of users or items: one for all, or one a fold."""
    return hein.folds if kind == "user" and hein.folds else (hein.heins,)


def _apply(heins: HeinSet, representation: pa.Table, kind: Kind) -> Floats:
    tables = make_tables(heins, representation, kind)
    parts = []
    for pair, channel in enumerate(heins.pair_channels(kind)):
        table = tables[channel]
        with torch.no_grad():
            rows = table.vectors.split(_ROWS)
            distinct = torch.cat([heins.condense(kind, pair, part) for part in rows])
        parts.append(distinct[table.codes])
    vectors: Floats = torch.cat(parts, dim=1).numpy()
    return vectors
