"""Representations as rows: the vectors of each entity's texts, its channels side by side."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from reki_feast import schema
from reki_feast.knowledge import by_entity
from reki_feast.project import now
from reki_feast.results import Representations
from reki_feast.schema import KINDS, Kind
from reki_feast.stages import entity_texts
from reki_feast.stages.context import StageContext
from reki_feast.stages.entity_texts import EntityHashes, EntityTexts
from reki_feast.stages.liked_means import LikedMeans, with_taste
from reki_feast.stages.snapshots import (
    channels,
    representation_hashes,
    up_to,
    vector_columns,
)
from reki_feast.stages.stored_vectors import StoredVectors
from reki_feast.stages.unchanged_texts import remember_texts
from reki_feast.tables.parts import conformed, newest

if TYPE_CHECKING:
    from reki_feast.encoding import TextEncoder


class RowWriter:
    """Adds representations that differ from the stored ones; vectors are read for these alone.

    Args:
        context: the command's.
        encoder: makes representations; its name is part of their hashes.
        vectors: of the texts.
    """

    def __init__(self, context: StageContext, encoder: TextEncoder, vectors: StoredVectors) -> None:
        self._context, self._encoder, self._vectors = context, encoder, vectors

    def write(self, found: Mapping[Kind, EntityHashes], time: datetime) -> list[Representations]:
        """Add the rows of a time."""
        means = self._liked_means(found["item"], time)
        return [
            Representations(
                kind,
                time,
                channels(self._context, kind),
                len(found[kind].ids) + found[kind].unchanged,
                self._add(kind, found[kind], time, means if kind == "user" else None),
            )
            for kind in KINDS
        ]

    def _add(
        self, kind: Kind, found: EntityHashes, time: datetime, means: LikedMeans | None
    ) -> int:
        context, key = self._context, self._context.key(kind)
        ids, hashes = found.ids.cast(key.type), found.rows(self._encoder.name)
        if means is not None:
            hashes = means.hashes(ids, hashes)
        made = pa.table({key.name: ids, "hash": hashes, "row": range(len(ids))})
        stored = newest(up_to(representation_hashes(context, key, kind), time), [key.name])
        fresh = by_entity.changed_rows(made, stored, [key.name])["row"].combine_chunks()
        for start in range(0, len(fresh), entity_texts.PART):
            rows = self._rows(kind, found.take(fresh.slice(start, entity_texts.PART)), time)
            rows = rows if means is None else with_taste(rows, means)
            context.lake.append(f"{kind}_representation", rows)
        made_of = dict(zip(found.ids.to_pylist(), hashes.to_pylist(), strict=True))
        remember_texts(context, self._encoder, kind, time, made_of)
        return len(fresh)

    def _liked_means(self, items: EntityHashes, time: datetime) -> LikedMeans | None:
        context = self._context
        if not context.declared.encoder.taste:
            return None
        rows = self._rows("item", items, time)
        return LikedMeans.of(context.tables, rows, time, context.declared.scenario.history)

    def _rows(self, kind: Kind, found: EntityHashes, time: datetime) -> pa.Table:
        from reki_feast.encoding import RowTimes, lay_out

        key, times = self._context.key(kind), RowTimes(time, now())
        ids, take = found.ids.cast(key.type), self._vectors.take
        rows = lay_out(key, ids, found.hashes, take, self._encoder, times)
        return _whole(self._context, kind, rows)


def representations(
    context: StageContext,
    time: datetime,
    found: Mapping[Kind, EntityTexts],
    vectors: pa.Table,
    encoder: TextEncoder,
) -> tuple[pa.Table, pa.Table]:
    """Users' and items' representations as of a time, from their ids, texts and vectors."""
    from reki_feast.encoding import RowTimes, represent

    def rows(kind: Kind) -> pa.Table:
        key, texts = context.key(kind), found[kind].texts
        ids, times = found[kind].ids.cast(key.type), RowTimes(time, now())
        return _whole(context, kind, represent(key, ids, texts, vectors, encoder, times))

    users, items = (rows(kind) for kind in KINDS)
    if context.declared.encoder.taste:
        recent = context.declared.scenario.history
        users = with_taste(users, LikedMeans.of(context.tables, items, time, recent))
    return users, items


def _whole(context: StageContext, kind: Kind, rows: pa.Table) -> pa.Table:
    """The rows with every vector of the project but tastes; unknown ones are null."""
    every = [name for name in vector_columns(context, kind) if name != schema.TASTE]
    return conformed(rows, schema.representation(context.key(kind), every))
