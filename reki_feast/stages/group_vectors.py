"""The vectors that groups are formed by: handed in, or learnt from the interactions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import files
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress
from reki_feast.schema import KINDS, Key, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_state import Flags, Floats, folder
from reki_feast.tables import external_embeddings
from reki_feast.tables.attributes import attributes

if TYPE_CHECKING:
    from reki_feast.clustering.embeddings import Embedder


def forget(project: DeclaredProject, ids: Mapping[Kind, Collection[str]]) -> int:
    """Take items out of the stored embeddings, with values of attributes that nobody else has.

    Returns:
        How many items and values there were.

    Raises:
        SourceError: the project's tables, which say who has which, cannot be read.
        LakeError: the stored embeddings are damaged.
    """
    from reki_feast.clustering.embeddings import restore

    path = _embedder(project)
    if not path.exists() or not any(ids.values()):
        return 0
    before = restore(*files.read_tensors(path))
    given = StageContext.of(project).tables
    gone = {kind: pa.array(sorted(ids[kind]), pa.string()) for kind in KINDS}
    items = _without(given.items, given.item, gone["item"])
    users = None if given.users is None else _without(given.users, given.user, gone["user"])
    after = before.without(gone["item"], items, users)
    count = _size(before) - _size(after)
    if count:
        project.lake.write_tensors(path, after.tensors(), after.manifest())
    return count


def _without(table: pa.Table, key: Key, ids: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table[key.name].cast(pa.string()), value_set=ids)))


def _size(embedder: Embedder) -> int:
    books = (*embedder.item_vocabularies.values(), *embedder.user_vocabularies.values())
    return len(embedder.item_ids) + sum(map(len, books))


def _embedder(project: DeclaredProject) -> Path:
    return folder(project) / "embedder.safetensors"


class Vectors:
    """The vectors of items and profiles as of a time, made when first asked for."""

    def __init__(
        self,
        context: StageContext,
        seen: pa.Table,
        time: datetime,
        progress: Progress,
    ) -> None:
        self._project, self._given, self._seen = context, context.tables, seen
        self._time, self._progress = time, progress
        self._items: tuple[pa.Array, Floats] | None = None
        self._met: pa.Array | None = None
        self._embedder: Embedder | None = None

    def items(self) -> tuple[pa.Array, Floats]:
        """Ids in the key's type and vectors ``[n, d]``."""
        if self._items is None:
            self._items = self._own("item")
        if self._items is None:
            embedder = self._learnt()
            self._items = embedder.item_ids, embedder.item_vectors
        return self._items

    def is_cold(self, ids: pa.Array) -> Flags:
        """Which items nobody has met yet: their categories alone say where they belong."""
        if self._met is None:
            return np.zeros(len(ids), np.bool_)
        met: Flags = pc.is_in(ids, value_set=self._met).to_numpy(zero_copy_only=False)
        return ~met

    def users(self, *, liked: bool) -> tuple[pa.Array, Floats]:
        """Ids and vectors of users by what they liked, or did not."""
        from reki_feast.clustering.embeddings import ItemVectors, user_vectors

        ids, vectors = self.items()
        return user_vectors(
            self._seen,
            ItemVectors(ids, vectors, self._given.item),
            user=self._given.user,
            liked=liked,
            profiles=self._profiles,
        )

    def _profiles(self, ids: pa.Array) -> Floats:
        own = self._own("user")
        if own is not None:
            at = pc.index_in(ids, value_set=own[0])
            rows = np.where(at.is_valid(), pc.fill_null(at, 0), 0).astype(np.int64)
            there: Floats = at.is_valid().to_numpy(zero_copy_only=False).astype(np.float32)
            return own[1][rows] * there[:, None]
        if self._embedder is None:  # items' vectors were handed in: nothing was learnt
            return np.empty((len(ids), 0), np.float32)
        return self._embedder.profile_vectors(self._given.users, ids)

    def _own(self, kind: Kind) -> tuple[pa.Array, Floats] | None:
        key = self._given.item if kind == "item" else self._given.user
        declared, root = self._project.declared, self._project.root
        return external_embeddings.read(declared, root, kind, key, self._time)

    def _learnt(self) -> Embedder:
        """The embedder of all items; the stored one has only items with interactions.

        So an item is trained once it has interactions.
        """
        from reki_feast.clustering.embeddings import (
            EmbeddingConfig,
            EmbeddingData,
            fit_embeddings,
            fold_in,
            restore,
        )

        given, project = self._given, self._project
        self._met = self._seen[given.item.name].unique()
        met = given.items.filter(pc.is_in(given.items[given.item.name], value_set=self._met))
        seed, samples = project.declared.training.seed, project.declared.training.samples
        data = EmbeddingData(self._seen, met, given.users, samples)
        path = _embedder(project)
        with self._progress.bar("embedding") as bar:
            how: dict[str, Any] = {
                "seed": seed,
                "progress": lambda epoch, batch, batches: bar(batch, batches),
            }
            if path.exists():
                before = restore(*files.read_tensors(path))
                made = fold_in(before, data, **how)
            else:
                before = None
                made = fit_embeddings(
                    data,
                    user=given.user,
                    item=given.item,
                    config=EmbeddingConfig(
                        item_attributes=attributes(project.declared, given, "item"),
                        user_attributes=attributes(project.declared, given, "user"),
                    ),
                    **how,
                )
        if made is not before:
            project.lake.write_tensors(path, made.tensors(), made.manifest())
        self._embedder = fold_in(
            made, EmbeddingData(self._seen, given.items, given.users, samples), seed=seed
        )
        return self._embedder
