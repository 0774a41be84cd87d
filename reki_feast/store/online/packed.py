"""The packed layout: one string a row, which holds a view's vectors as raw numbers.

For views whose features are all lists of 32-bit floats, where ``online_store`` says
``layout: packed``. It takes about half of a hash's memory and one MGET reads any number of rows;
but only the readers of this package know it. A row's key is ``reki1:<project>:<view>:`` and the
entity key; its value, little-endian::

    int64      event time, nanoseconds since 1970
    uint32     numbers of the 1st feature (0xFFFFFFFF for null), of the 2nd, …
    float32    the numbers of the 1st feature, of the 2nd, …

in the order of the view's features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32

from reki_feast.errors import StoreError

from . import protobuf
from .commands import command, joined, literally
from .rows import Rows

NULL = 0xFFFFFFFF
SCAN = 10_000  # keys Redis looks at for one reply
TIME = 8  # bytes of the event time
#: Tags of a Value message's float list, and of the numbers in the list.
LIST, NUMBERS = b"\x82\x01", b"\x0a"


class Unpacked(NamedTuple):
    """Stored rows, taken apart.

    Attributes:
        times: (n,) int64 nanoseconds; 0 for a row that is not stored.
        vectors: feature to its (n, d) float32 numbers and a mask (n,) of those that there are.
    """

    times: np.ndarray
    vectors: dict[str, tuple[np.ndarray, np.ndarray]]


def packable(view: FeatureView) -> bool:
    """Whether a view's features are all lists of 32-bit floats."""
    return bool(view.features) and all(field.dtype == Array(Float32) for field in view.features)


def prefix(project: str, view: str) -> bytes:
    """What the keys of a view's rows start with; the entity key follows.

    >>> prefix("movies", "reki")
    b'reki1:movies:reki:'
    """
    return f"reki1:{project}:{view}:".encode()


def packed_keys(client: Any, project: str, view: str) -> Iterator[bytes]:
    """The keys of a view's rows."""
    found: Iterator[bytes] = client.scan_iter(literally(prefix(project, view)) + b"*", count=SCAN)
    return found


def delete_packed(client: Any, project: str, view: str) -> None:
    """Delete a view's rows."""
    keys = packed_keys(client, project, view)
    while some := list(islice(keys, SCAN)):
        with client.pipeline(transaction=False) as pipe:
            for key in some:
                pipe.delete(key)
            pipe.execute()


class PackedLayout:
    """How a view's rows stand in Redis, in one string each."""

    def __init__(
        self, project: str, view: str, features: Sequence[str], ttl: int | None = None
    ) -> None:
        """Of one view.

        Args:
            project: the Feast project.
            view: the view's name, with its version where Feast adds one.
            features: the names of all its features, in their order.
            ttl: seconds after which Redis drops a row; None for never.
        """
        self._prefix = prefix(project, view)
        self._features = list(features)
        self._expire = [b"EX", str(ttl).encode()] if ttl else []

    @property
    def replies(self) -> int:
        """How many replies the writing of one row has."""
        return 1

    def ask_times(self, rows: Rows) -> pa.BinaryArray:
        """Commands that ask for the event times stored, one a row."""
        return command(b"GETRANGE", self._keys(rows), b"0", b"%d" % (TIME - 1))

    def times(self, replies: Sequence[Any]) -> np.ndarray:
        """The event times in those replies: (n,) int64 nanoseconds, 0 where there is none."""
        return np.frombuffer(b"".join([reply or bytes(TIME) for reply in replies]), "<i8")

    def write(self, rows: Rows) -> pa.BinaryArray:
        """Commands that write the rows, whole."""
        if missing := [name for name in self._features if name not in rows.values]:
            raise StoreError(
                "A packed row is written with all features of its view",
                found=f"no {', '.join(missing)}",
                mend="write them too, or set `layout: hash` for the online store",
            )
        bare = [_bare(rows.values[name]) for name in self._features]
        head = np.column_stack([rows.times.view("<u4").reshape(-1, 2), *(w for _, w in bare)])
        heads = protobuf.rows(head.astype("<u4").view(np.uint8), np.ones(len(rows), np.bool_))
        value = joined([heads, *(numbers for numbers, _ in bare)])
        return command(b"SET", self._keys(rows), value, *self._expire)

    def _keys(self, rows: Rows) -> pa.BinaryArray:
        return joined([self._prefix, rows.entities])


def unpack(found: Sequence[bytes | None], features: Sequence[str]) -> Unpacked:
    """Rows as Redis holds them.

    Args:
        found: n stored values, None for a row that is not there.
        features: the names of all the view's features, in their order.

    Raises:
        StoreError: they were not packed by this version, or not with these features, or the
            vectors of a feature differ in length.
    """
    there = np.fromiter((row is not None for row in found), bool, len(found))
    stored = [row for row in found if row is not None]
    if len({len(row) for row in stored}) > 1:
        return _unpack_uneven(stored, there, features)
    start = TIME + 4 * len(features)
    table = np.frombuffer(b"".join(stored), np.uint8).reshape(len(stored), -1 if stored else start)
    if table.shape[1] < start:
        raise _unreadable(features)
    times = _spread(table[:, :TIME].copy().view("<i8")[:, 0], there)
    widths = table[:, TIME:start].copy().view("<u4")
    if (widths != widths[:1]).any():
        return _unpack_uneven(stored, there, features)
    sizes = [
        0 if w == NULL else int(w) for w in (widths[0] if len(stored) else [0] * len(features))
    ]
    if start + 4 * sum(sizes) != table.shape[1]:
        raise _unreadable(features)
    vectors = {}
    for number, (name, size) in enumerate(zip(features, sizes, strict=True)):
        numbers = np.ascontiguousarray(table[:, start : start + 4 * size]).view("<f4")
        known = there & (not len(stored) or bool(widths[0, number] != NULL))
        vectors[name] = (_spread(numbers.reshape(len(stored), size), there), known)
        start += 4 * size
    return Unpacked(times, vectors)


def _unpack_uneven(stored: Sequence[bytes], there: np.ndarray, features: Sequence[str]) -> Unpacked:
    """The same for rows some of whose vectors are null."""
    start = TIME + 4 * len(features)
    if any(len(row) < start for row in stored):
        raise _unreadable(features)
    times = np.array(
        [int.from_bytes(row[:TIME], "little", signed=True) for row in stored], np.int64
    )
    widths = np.array([np.frombuffer(row, "<u4", len(features), TIME) for row in stored])
    sizes = np.where(widths == NULL, 0, widths).astype(np.int64)
    if any(start + 4 * n != len(row) for n, row in zip(sizes.sum(1), stored, strict=True)):
        raise _unreadable(features)
    firsts = start + 4 * (np.cumsum(sizes, axis=1) - sizes)
    vectors = {}
    for number, name in enumerate(features):
        known = widths[:, number] != NULL
        lengths = set(widths[known, number].tolist())
        if len(lengths) > 1:
            raise StoreError(
                f"The stored vectors of feature {name} have one length",
                found=f"{min(lengths)} and {max(lengths)} numbers",
                mend="materialize the view again, from its beginning",
            )
        size = int(next(iter(lengths), 0))
        numbers = np.zeros((len(stored), size), np.float32)
        for row in np.flatnonzero(known).tolist():
            numbers[row] = np.frombuffer(stored[row], "<f4", size, int(firsts[row, number]))
        vectors[name] = (_spread(numbers, there), _spread(known, there))
    return Unpacked(_spread(times, there), vectors)


def messages(numbers: np.ndarray, known: np.ndarray) -> list[bytes]:
    """Vectors as the Value messages that the stock layout would hold; empty where unknown.

    Args:
        numbers: (n, d) float32.
        known: (n,) mask.
    """
    inner = protobuf.varint(4 * numbers.shape[1])
    body = len(inner) + 1 + 4 * numbers.shape[1] if numbers.shape[1] else 0
    head = LIST + protobuf.varint(body) + (NUMBERS + inner if body else b"")
    rows = np.ascontiguousarray(numbers, "<f4")
    return [head + row.tobytes() if k else b"" for row, k in zip(rows, known.tolist(), strict=True)]


def _bare(values: pa.BinaryArray) -> tuple[pa.BinaryArray, np.ndarray]:
    """The numbers' bytes in Value messages, and how many numbers each has (NULL for none)."""
    lengths = pc.binary_length(values).to_numpy(zero_copy_only=False)
    numbers, widths = values, np.zeros(len(values), np.uint32)
    for length, first in zip(*np.unique(lengths, return_index=True), strict=True):
        # The numbers stand at the end of a message; as many as its first row says.
        size = len(Value.FromString(values[first].as_py()).float_list_val.val)
        same = lengths == length
        widths[same] = size if length else NULL
        cut = pc.binary_slice(values, int(length) - 4 * size, int(length))
        numbers = cut if same.all() else pc.if_else(pa.array(same), cut, numbers)
    return numbers, widths


def _spread(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Rows at the places where there are some, zeros elsewhere."""
    if there.all():
        return rows
    out = np.zeros((len(there), *rows.shape[1:]), rows.dtype)
    out[there] = rows
    return out


def _unreadable(features: Sequence[str]) -> StoreError:
    return StoreError(
        f"A packed row holds the features {', '.join(features)} of its view",
        found="a row of another form: the view's features have changed since",
        mend="materialize the view again, from its beginning",
    )
