"""The vectors that groups are formed by: handed in, or learnt from the interactions."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import lake, own_vectors
from reki_feast.attributes import attributes
from reki_feast.inputs import Inputs
from reki_feast.pipeline.group_state import Flags, Floats, folder
from reki_feast.project import Project
from reki_feast.report import Progress
from reki_feast.schema import Kind

if TYPE_CHECKING:
    from reki_feast.embed import Embedder


class Vectors:
    """The vectors of items and profiles as of a time, made when first asked for."""

    def __init__(
        self, project: Project, given: Inputs, seen: pa.Table, time: datetime, progress: Progress
    ) -> None:
        self._project, self._given, self._seen = project, given, seen
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
        from reki_feast.embed import user_vectors

        ids, vectors = self.items()
        return user_vectors(
            self._seen,
            ids,
            vectors,
            user=self._given.user,
            item=self._given.item,
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
        return own_vectors.read(declared, root, kind, key, self._time)

    def _learnt(self) -> Embedder:
        from reki_feast.embed import extend, learn, restore

        """The embedder of all items; what is stored knows only those that somebody met.

        So an item that is met later is learnt then, and not held to be known.
        """
        given, project = self._given, self._project
        self._met = self._seen[given.item.name].unique()
        met = given.items.filter(pc.is_in(given.items[given.item.name], value_set=self._met))
        path = folder(project) / "embedder.safetensors"
        seed = project.declared.training.seed
        with self._progress.bar("embedding") as bar:
            how: dict[str, Any] = {
                "seed": seed,
                "progress": lambda epoch, batch, batches: bar(batch, batches),
            }
            if path.exists():
                before = restore(*lake.read_tensors(path))
                made = extend(before, self._seen, met, given.users, **how)
            else:
                before = None
                made = learn(
                    self._seen,
                    met,
                    given.users,
                    user=given.user,
                    item=given.item,
                    item_attributes=attributes(project.declared, given, "item"),
                    user_attributes=attributes(project.declared, given, "user"),
                    **how,
                )
        if made is not before:
            lake.write_tensors(path, made.tensors(), made.manifest())
        self._embedder = extend(made, self._seen, given.items, given.users, seed=seed)
        return self._embedder
