"""Items' texts as vectors, with the times since when they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.encoding import Floats, vector_matrix
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.schema import ITEM_CHANNELS, TIMESTAMP
from reki_feast.tables.asof import Indices, place_at

_SAMPLED = 20_000  # texts that principal components are fitted to, at most


@dataclass(frozen=True)
class Texts:
    """k texts of items, by item and the time since when they hold.

    Attributes:
        item: ``[k]``, code of the item, rising.
        since: ``[k]``, microseconds since 1970, rising within an item.
        vectors: ``[k, d]``, of length 1: the channels' vectors side by side, each of one length.
        digest: ``[k]`` uint64, of what the text is.
    """

    item: Indices
    since: Indices
    vectors: Floats
    digest: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.item)

    def at(self, item: Indices, time: Indices) -> Indices:
        """Row of the text that an item has at a time, since exactly then too; -1 without."""
        return place_at(self.item, self.since, item, time)

    def first(self, items: int) -> Indices:
        """Since when each of so many items has a text; the end of time for those without."""
        since = np.full(items, np.iinfo(np.int64).max)
        np.minimum.at(since, self.item, self.since)
        return since


def make_texts(representation: pa.Table, items: pa.Array, channels: Sequence[str]) -> Texts:
    """Texts of the rows of items' representations whose item is among ``items``.

    Texts begin when each channel has been there for some item: those of before are of another kind.

    Args:
        representation: of :func:`reki_feast.schema.representation`, every snapshot.
        items: ids; a text's item is its place among them.
        channels: whose vectors make a text.
    """
    code = pc.index_in(representation.column(0), value_set=items)
    rows = representation.filter(code.is_valid())
    item = code.drop_null().to_numpy().astype(np.int64)
    since = np.maximum(_micros(rows, "event_timestamp"), _begin(rows, channels))
    # of two as of one time, the one that is of the later snapshot, or was made last
    order = np.lexsort(
        (_micros(rows, "created_timestamp"), _micros(rows, "event_timestamp"), since, item)
    )
    item, since = item[order], since[order]
    last = np.ones(len(order), bool)
    last[:-1] = (item[1:] != item[:-1]) | (since[1:] != since[:-1])
    kept = order[last]
    hashes = rows["hash"].take(pa.array(kept)).to_pylist()
    digest = np.fromiter((int(one[:16], 16) for one in hashes), np.uint64, len(hashes))
    return Texts(item[last], since[last], joined(rows, channels)[kept], digest)


def _begin(rows: pa.Table, channels: Sequence[str]) -> int:
    """Since when each channel has been there for some item."""
    firsts = [pc.min(rows["event_timestamp"].filter(rows[name].is_valid())) for name in channels]
    micros = [first.cast(TIMESTAMP).value for first in firsts if first.is_valid]
    return max(micros, default=np.iinfo(np.int64).min)


def _micros(rows: pa.Table, column: str) -> Indices:
    times: Indices = rows[column].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    return times


def channels_of(representation: pa.Table) -> tuple[str, ...]:
    """The channels of items' representations that hold a vector."""
    return tuple(
        name
        for name in ITEM_CHANNELS
        if name in representation.column_names
        and representation[name].null_count < representation.num_rows
    )


def joined(rows: pa.Table, channels: Sequence[str]) -> Floats:
    """Vectors ``[n, d]`` of length 1 of all channels, side by side; 0 where there is none."""
    parts = []
    for channel in channels:
        vectors, present = vector_matrix(rows[channel])
        if len(vectors):
            part = np.zeros((rows.num_rows, vectors.shape[1]), np.float32)
            part[present] = _unit(vectors)
            parts.append(part)
    return _unit(np.concatenate(parts, axis=1)) if parts else np.zeros((rows.num_rows, 1), "f4")


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


@dataclass(frozen=True)
class Basis:
    """What reduces texts to few numbers; fitted to the first texts and the same ever after.

    Attributes:
        centre: ``[d]``, mean of the texts.
        components: ``[d, p]``, principal components.
    """

    centre: Floats
    components: Floats

    def reduced(self, vectors: Floats) -> Floats:
        """Texts ``[n, d]`` as vectors ``[n, p]`` of length 1; 0 for what has no text."""
        made = _unit(((vectors - self.centre) @ self.components).astype(np.float32))
        made[~vectors.any(axis=1)] = 0
        return made

    def arrays(self) -> dict[str, Floats]:
        """The numbers by name."""
        return {"centre": self.centre, "components": self.components}


def fit_basis(vectors: Floats, settings: MatchSettings) -> Basis:
    """Principal components of texts, of which some may repeat.

    Args:
        vectors: ``[n, d]`` of length 1, or 0 for no text.
        settings: p, and the seed that draws texts where there are many.
    """
    draw = np.random.default_rng(settings.seed)
    present = draw.permutation(np.flatnonzero(vectors.any(axis=1)))[:_SAMPLED]
    distinct = np.unique(vectors[present], axis=0)
    components = np.zeros((vectors.shape[1], settings.width), np.float32)
    if len(distinct) < 2:
        return Basis(np.zeros(vectors.shape[1], np.float32), components)
    centre = distinct.mean(axis=0, dtype=np.float64)
    centred = distinct - centre
    _, basis = np.linalg.eigh(centred.T @ centred)
    basis = basis[:, ::-1][:, : min(settings.width, len(distinct) - 1)]
    components[:, : basis.shape[1]] = basis
    return Basis(centre.astype(np.float32), components)
