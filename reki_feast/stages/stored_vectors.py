"""The vectors of texts as they are stored: which texts have one, and the vectors of some of them.

The table ``vectors`` may have more rows than memory holds. Of each row its text's hash is kept;
vectors are read part by part, and those of the parts that were read last are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.errors import EncodeError
from reki_feast.tables.lake import Lake

if TYPE_CHECKING:
    from reki_feast.encoding import Floats
    from reki_feast.encoding.projection import Projection

_TABLE = "vectors"
_HASHES = pa.schema([schema.VECTORS.field(name) for name in ("text_hash", "encoder")])
_VECTORS = pa.schema([schema.VECTORS.field("vector")])
#: Bytes of vectors that are kept of parts that were read; the last part stays, whatever its size.
_KEPT = 1 << 28
#: Bits of a place that tell the row within a part.
_ROW = 32

_Hashes: TypeAlias = npt.NDArray[np.bytes_]
_Places: TypeAlias = npt.NDArray[np.int64]


class StoredVectors:
    """The stored vectors of one encoder.

    Args:
        lake: the scenario's tables.
        encoder: name of the encoder.
        projection: what makes representations of vectors; None leaves them as they are.
    """

    def __init__(self, lake: Lake, encoder: str, projection: Projection | None = None) -> None:
        self._lake, self._encoder, self._projection = lake, encoder, projection
        self._paths: list[Path] = []
        self._read: OrderedDict[int, Floats] = OrderedDict()
        self._hashes: _Hashes = np.empty(0, "S32")
        self._places: _Places = np.empty(0, np.int64)
        found = [self._index(path) for path in lake.parts(_TABLE)]
        if found:
            hashes, places = zip(*found, strict=True)
            self._insert(np.concatenate(hashes), np.concatenate(places))

    def projected(self, projection: Projection | None) -> StoredVectors:
        """The same by a projection."""
        made = StoredVectors.__new__(StoredVectors)
        made.__dict__.update(vars(self), _projection=projection)
        return made

    def __len__(self) -> int:
        """How many texts have a vector."""
        return len(self._hashes)

    @property
    def width(self) -> int | None:
        """Length of a vector; None where there is none."""
        return self.matrix(pa.array([self._hashes[0].decode()])).shape[1] if len(self) else None

    def has(self, hashes: list[str]) -> npt.NDArray[np.bool_]:
        """Which of some texts, given by their hashes, have a vector."""
        return self._places_of(np.array(hashes, "S32")) >= 0

    def append(self, rows: pa.Table) -> None:
        """Store vectors of texts that had none; they stay where the process is killed next."""
        path = self._lake.append(_TABLE, rows)
        if path is not None:
            self._insert(*self._index(path))

    def take(self, hashes: pa.Array) -> pa.ChunkedArray:
        """The vectors of texts by their hashes; null where that is null.

        Raises:
            EncodeError: a text has none.
        """
        from reki_feast.encoding import take_vectors, vector_array

        distinct = hashes.drop_null().unique()
        vectors = self.matrix(distinct)
        at = pc.index_in(hashes, value_set=distinct, skip_nulls=True)
        return take_vectors(vector_array(vectors), at)

    def matrix(self, hashes: pa.Array) -> Floats:
        """The vectors ``[n, m]`` of n texts by their hashes.

        Raises:
            EncodeError: a text has none.
        """
        places = self._places_of(np.array(hashes.to_pylist(), "S32"))
        if (places < 0).any():
            raise EncodeError(
                "every text is encoded before it is laid out",
                detail=f"{int((places < 0).sum())} texts without a vector of {self._encoder!r}",
                hint="reki encode",
            )
        parts, rows = places >> _ROW, places & ((1 << _ROW) - 1)
        made: Floats | None = None
        for part in np.unique(parts).tolist():
            chosen = parts == part
            some = self._part(part)[rows[chosen]]
            if self._projection is not None:
                some = self._projection.reduced(some)
            if made is None:
                made = np.empty((len(places), some.shape[1]), np.float32)
            made[chosen] = some
        return np.empty((0, 0), np.float32) if made is None else made

    def sample(self, hashes: list[pa.Array], count: int) -> Floats:
        """The vectors of some texts, at most so many: those whose hashes come first."""
        distinct = pa.chunked_array(hashes, pa.string()).drop_null().unique()
        first = distinct.take(pc.array_sort_indices(distinct)[:count])
        return self.matrix(first)

    def _index(self, path: Path) -> tuple[_Hashes, _Places]:
        """Hashes of a part's texts by this encoder, and where they are."""
        part = len(self._paths)
        self._paths.append(path)
        rows = self._lake.read_parts([path], _HASHES)
        own = np.flatnonzero(pc.equal(rows["encoder"], self._encoder).to_numpy())
        hashes = rows["text_hash"].take(pa.array(own)).to_numpy().astype("S32")
        return hashes, own.astype(np.int64) | (part << _ROW)

    def _insert(self, hashes: _Hashes, places: _Places) -> None:
        order = np.argsort(hashes, kind="stable")
        hashes, places = hashes[order], places[order]
        at = np.searchsorted(self._hashes, hashes)
        self._hashes = np.insert(self._hashes, at, hashes)
        self._places = np.insert(self._places, at, places)

    def _places_of(self, hashes: _Hashes) -> _Places:
        """Where the vectors are; -1 for what is not stored."""
        if not len(self._hashes) or not len(hashes):
            return np.full(len(hashes), -1, np.int64)
        at = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        found: _Places = np.where(self._hashes[at] == hashes, self._places[at], -1)
        return found

    def _part(self, part: int) -> Floats:
        """All vectors of a part, of whichever encoder."""
        if part not in self._read:
            self._read[part] = self._matrix_of(self._paths[part])
            while len(self._read) > 1 and sum(x.nbytes for x in self._read.values()) > _KEPT:
                self._read.popitem(last=False)
        self._read.move_to_end(part)
        return self._read[part]

    def _matrix_of(self, path: Path) -> Floats:
        from reki_feast.encoding import vector_matrix

        return vector_matrix(self._lake.read_parts([path], _VECTORS)["vector"])[0]
