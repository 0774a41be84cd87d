"""How a view's rows stand in Redis: what to ask for them, and their numbers in the replies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from feast import ValueType
from feast.protos.feast.types.Value_pb2 import Value

from reki_feast.errors import Fault, StoreError
from reki_feast.store.lifetimes import expired, too_old
from reki_feast.store.online import read_layouts
from reki_feast.store.online.stored import Found, scalars, vectors

LISTS = {ValueType.FLOAT_LIST, ValueType.DOUBLE_LIST}
SCALARS = {
    ValueType.INT32,
    ValueType.INT64,
    ValueType.FLOAT,
    ValueType.DOUBLE,
    ValueType.BOOL,
    ValueType.UNIX_TIMESTAMP,
}


class Column(NamedTuple):
    """One feature of n rows.

    Attributes:
        values: (n,) or (n, d) numbers; zeros where there is none.
        known: (n,) mask of the rows that have a value.
    """

    values: np.ndarray
    known: np.ndarray


class Layout(Protocol):
    """One view's rows in Redis."""

    def ask(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """Packed commands that ask for the rows of n entity keys, and how many replies they have.

        Args:
            entities: serialized entity keys, without the project.
        """

    def columns(self, replies: Sequence[Any]) -> list[Column]:
        """The features asked for, in their order, out of those replies."""


class HashRows:
    """Feast's own layout: one hash an entity, one field a feature."""

    def __init__(
        self,
        project: str,
        view: str,
        features: Sequence[tuple[str, ValueType]],
        span: int | None = None,
    ) -> None:
        """Of one view.

        Args:
            project: the Feast project.
            view: the view's name, with its version where Feast adds one.
            features: those to read, and their types.
            span: nanoseconds for which rows are used; None for ever.
        """
        self._features, self._span = list(features), span
        names = [name for name, _ in features]
        self._rows = read_layouts.HashRows(project, view, names, times=span is not None)

    def ask(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """One HGET or HMGET an entity."""
        return self._rows.ask(entities)

    def columns(self, replies: Sequence[Any]) -> list[Column]:
        """The fields' Value messages, read."""
        if self._span is not None:
            fields, times = self._rows.found(replies)[:2]
            columns, old = self._read(fields), expired(times, self._span)
            return columns if old is None else without(columns, old)
        return self._read([replies] if len(self._features) == 1 else zip(*replies, strict=True))

    def _read(self, found: Iterable[Found]) -> list[Column]:
        return [
            _column(values, feature, kind)
            for values, (feature, kind) in zip(found, self._features, strict=True)
        ]


class PackedRows:
    """The packed layout: one string an entity."""

    def __init__(
        self,
        project: str,
        view: str,
        features: Sequence[str],
        asked: Sequence[str],
        cluster: bool,
        span: int | None = None,
    ) -> None:
        """Of one view; ``span`` as of ``HashRows``, the others of ``read_layouts.PackedRows``."""
        self._rows = read_layouts.PackedRows(project, view, features, asked, cluster)
        self._asked, self._span = list(asked), span

    def ask(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """One MGET for all; one each in a cluster."""
        return self._rows.ask(entities)

    def columns(self, replies: Sequence[Any]) -> list[Column]:
        """The stored numbers, cut apart."""
        _, unpacked = self._rows.unpacked(replies)
        columns = [Column(*unpacked.vectors[feature]) for feature in self._asked]
        if self._span is None:
            return columns
        return without(columns, too_old(unpacked.times, self._span))


def without(columns: Sequence[Column], old: np.ndarray) -> list[Column]:
    """Columns in which some rows are not known: (n,) mask."""
    return [Column(values, known & ~old) for values, known in columns]


def _column(found: Found, feature: str, kind: ValueType) -> Column:
    try:
        if kind == ValueType.FLOAT_LIST:
            return Column(*vectors(found))
        return doubles(found) if kind == ValueType.DOUBLE_LIST else Column(*scalars(found, kind))
    except StoreError as error:
        faults = [Fault(f.rule, f"feature {feature}: {f.found}", f.mend) for f in error.faults]
        raise StoreError(faults) from error


def doubles(found: Found) -> Column:
    """Stored lists of doubles as one matrix.

    Raises:
        StoreError: the lists differ in length, or a value is no list of doubles.
    """
    known = [message for message in found if message]
    mask = np.fromiter(map(bool, found), np.bool_, len(found))
    if not known:
        return Column(np.zeros((len(found), 0)), mask)
    width = len(Value.FromString(known[0]).double_list_val.val)
    lengths = set(map(len, known))
    # All of one length and with the first one's head: the rest of each is its numbers.
    head = len(known[0]) - 8 * width
    if len(lengths) > 1 or any(message[:head] != known[0][:head] for message in known):
        lists = {len(Value.FromString(message).double_list_val.val) for message in known}
        raise StoreError(
            "the vectors of a feature have one length",
            found=f"vectors of {min(lists)} and of {max(lists)} doubles",
            mend="materialize the view again: the store holds what an earlier declaration wrote",
        )
    matrix = np.zeros((len(found), width))
    matrix[mask] = np.frombuffer(b"".join([m[head:] for m in known]), "<f8").reshape(-1, width)
    return Column(matrix, mask)
