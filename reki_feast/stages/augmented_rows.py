"""Augmented vectors as rows: of which representation, at which time, by which block of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.project import now
from reki_feast.report import Bar
from reki_feast.schema import Kind, content_hash
from reki_feast.stages.context import StageContext
from reki_feast.stages.published_rows import ExpectedRows, write_wanted
from reki_feast.stages.snapshots import channels, representation_hashes
from reki_feast.stages.stored_hein import StoredHein
from reki_feast.tables.asof import Indices, place_at, place_before
from reki_feast.tables.parts import newest

if TYPE_CHECKING:
    from reki_feast.encoding import Floats
    from reki_feast.models.hein import FittedHein
    from reki_feast.models.text_match import Moments

#: Bytes of vectors that are read together, about.
_READ = 1 << 29
#: Rows whose hashes are made at a time.
_ROWS = 1 << 16


def write_augmented(
    context: StageContext, hein: StoredHein, kind: Kind, bar: Bar = lambda done, total: None
) -> tuple[int, int]:
    """Write a row at each cut and each later snapshot, by weights that saw only earlier labels.

    Args:
        context: the command's.
        hein: the weights.
        kind: users or items.
        bar: shows how many rows are written.

    Returns:
        The number of rows, and how many are new.

    Raises:
        CondenseError: the weights read a channel that the project lacks.
    """
    rows = _AugmentedRows(context, hein, kind, bar)
    if set(hein.channels(kind)) - set(channels(context, kind)):
        rows.check_readable()
    return write_wanted(context, f"{kind}_aug", context.key(kind), rows.expected)


class _AugmentedRows:
    """The rows of one kind; representations' vectors are read for new rows alone, part by part."""

    def __init__(self, context: StageContext, hein: StoredHein, kind: Kind, bar: Bar) -> None:
        self._context, self._hein, self._kind, self._bar = context, hein, kind, bar
        self._key = context.key(kind)
        stored = representation_hashes(context, self._key, kind)
        stored = stored.append_column("row", pa.array(np.arange(stored.num_rows)))
        self._rows = newest(stored, [self._key.name, "event_timestamp"])

    def expected(self) -> Iterator[ExpectedRows]:
        """All rows that there should be."""
        moments = self._moments()
        ids = self._rows[self._key.name].take(pa.array(moments.place))
        yield ExpectedRows(self._key, ids, moments, self._hashes(moments), self._made)

    def check_readable(self) -> None:
        """Raise CondenseError where the project lacks a channel that the weights read."""
        from reki_feast.models.hein import check_readable

        check_readable(self._hein.hein, self._schema.empty_table(), self._kind)

    def _made(self, moments: Moments) -> Iterator[pa.Table]:
        """Some of the rows, by block."""
        from reki_feast.models.hein import transform

        kind, stored = self._kind, self._rows["row"].take(pa.array(moments.place)).to_numpy()
        done = 0
        for first, vectors in self._read(stored):
            inside = (stored >= first) & (stored < first + vectors.num_rows)
            for number in np.unique(moments.block[inside]):
                chosen = np.flatnonzero(inside & (moments.block == number))
                part, hein = moments.take(chosen), self._hein.blocks[number - 1].hein
                table = transform(hein, vectors.take(stored[chosen] - first), kind, now())
                columns = {
                    f"{kind}_aug": _leaning(table, hein, kind, self._trust(part)),
                    "hash": self._hashes(part),
                    "event_timestamp": pa.array(part.time).cast(schema.TIMESTAMP),
                }
                yield _with_columns(table, columns)
                done += len(part)
                self._bar(done, len(moments))

    def _read(self, wanted: Indices) -> Iterator[tuple[int, pa.Table]]:
        """Stored rows with their vectors, those around ``wanted`` ones: the first one's number."""
        lake, bare = self._context.lake, schema.representation(self._key, [])
        paths = lake.parts(f"{self._kind}_representation")
        ends = np.cumsum([lake.read_parts([path], bare).num_rows for path in paths])
        most = _READ // (4 * self._hein.manifest["m"] * len(self._schema.names))
        start = at = 0
        while at < len(paths):
            last = max(int(np.searchsorted(ends, start + most, side="right")), at + 1)
            end = int(ends[last - 1])
            if ((wanted >= start) & (wanted < end)).any():
                yield start, lake.read_parts(paths[at:last], self._schema)
            start, at = end, last

    @cached_property
    def _schema(self) -> pa.Schema:
        return schema.representation(self._key, channels(self._context, self._kind))

    def _hashes(self, moments: Moments) -> pa.ChunkedArray:
        parts = [moments.take(slice(at, at + _ROWS)) for at in range(0, len(moments), _ROWS)]
        return pa.chunked_array([self._some_hashes(part) for part in parts], pa.string())

    def _some_hashes(self, moments: Moments) -> pa.Array:
        weights, rows = self._hein.hashes, self._rows["hash"].take(pa.array(moments.place))
        trust = (f"{one:.6f}" for one in self._trust(moments).tolist())
        parts = zip(rows.to_pylist(), moments.block.tolist(), trust, strict=True)
        made = [content_hash(weights[block - 1], self._kind, row, one) for row, block, one in parts]
        return pa.array(made, pa.string())

    def _trust(self, moments: Moments) -> Floats:
        """How far ``[k]`` each vector goes from the default one, 0 to 1.

        It grows with a user's interactions. An item's texts tell as much of it on its first day as
        later.
        """
        tables, half = self._context.tables, self._context.declared.training.shrink
        if self._kind == "item" or not tables.timed or not half:
            return np.ones(len(moments), np.float32)
        users, code, time = self._interactions
        ids = self._rows[self._key.name].take(pa.array(moments.place))
        owner = pc.index_in(ids, value_set=users).fill_null(-1).to_numpy().astype(np.int64)
        count = place_before(code, time, owner, moments.time) - np.searchsorted(code, owner)
        trust: Floats = (count / (count + half)).astype(np.float32)
        return trust

    @cached_property
    def _interactions(self) -> tuple[pa.Array, Indices, Indices]:
        """Users, and of each interaction the user's code and the time, sorted."""
        rows = self._context.tables.interactions
        users = pc.unique(rows[self._key.name])
        code = pc.index_in(rows[self._key.name], value_set=users).to_numpy().astype(np.int64)
        time = rows["event_timestamp"].cast(pa.int64()).to_numpy()
        order = np.lexsort((time, code))
        return users, code[order], time[order]

    def _moments(self) -> Moments:
        """When which representation gets vectors, by which block; none before the first block.

        Without times there is one block, which makes a vector of each.
        """
        from reki_feast.models.text_match.moments import moments_of

        ids = self._rows[self._key.name].unique()
        ids = ids.take(pc.sort_indices(ids))
        owner = pc.index_in(self._rows[self._key.name], value_set=ids).to_numpy().astype(np.int64)
        time = self._rows["event_timestamp"].cast(pa.int64()).to_numpy()
        order = np.lexsort((time, owner))

        def found_at(wanted: Indices, when: Indices) -> Indices:
            place = place_at(owner[order], time[order], wanted, when)
            return np.where(place >= 0, order[place], -1)

        starts = [pa.scalar(cut, schema.TIMESTAMP).value for cut in self._hein.cuts]
        earliest = np.iinfo(np.int64).min
        cuts = np.array([earliest if cut is None else cut for cut in starts], np.int64)
        moments = moments_of(cuts, owner, time, np.arange(len(owner)), len(ids), found_at)
        return moments.take(np.flatnonzero(moments.block > 0))


def _leaning(
    table: pa.Table, hein: FittedHein, kind: Kind, trust: Floats
) -> pa.Array | pa.ChunkedArray:
    """Vectors, nearer to the default one where there is less trust."""
    from reki_feast.encoding import vector_array, vector_matrix
    from reki_feast.models.hein import default_vector

    if (trust == 1).all():
        return table[f"{kind}_aug"]
    vectors, _ = vector_matrix(table[f"{kind}_aug"])
    default = default_vector(hein, kind)
    return vector_array((default + trust[:, None] * (vectors - default)).astype(np.float32))


def _with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with other values in some columns."""
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(at), values)
    return table
