"""The packed layout: one string a row, with a view's vectors as raw numbers.

For views whose features are all lists of 32-bit floats, where ``online_store`` says
``layout: packed``. It takes about half of a hash's memory and one MGET reads any number of rows;
but only this package reads it. A row's key is ``reki1:<project>:<view>:`` and the entity key; its
value is described in ``packing``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from feast import FeatureView, ValueType
from feast.types import Array, Float32
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from typing_extensions import override

from reki_feast.errors import StoreError
from reki_feast.stores.online import protobuf
from reki_feast.stores.online.commands import command, concat, escape_glob, per_entity
from reki_feast.stores.online.lifetimes import too_old
from reki_feast.stores.online.rows import RowBlock

from .base import SCAN, FeatureColumn, FetchedRows, Layout, masked
from .packing import TIME, Unpacked, lengths_and_numbers, messages, unpack


class PackedLayout(Layout):
    """One view whose rows are strings."""

    def __init__(
        self,
        project: str,
        view: str,
        stored: Sequence[str],
        features: Sequence[str] | None = None,
        *,
        cluster: bool = False,
        key_ttl: int | None = None,
    ) -> None:
        """Of one view.

        Args:
            project: the Feast project.
            view: the view's name, with its version where Feast adds one.
            stored: the names of all its features, in their order.
            features: those that are read; None for all.
            cluster: whether the keys are on several nodes, where no MGET reaches them.
            key_ttl: seconds after which Redis drops a row; None for never.
        """
        self.prefix = f"reki1:{project}:{view}:".encode()
        self._view, self._stored = view, list(stored)
        self._features = self._stored if features is None else list(features)
        self._cluster = cluster
        self._expire = [b"EX", str(key_ttl).encode()] if key_ttl else []

    @override
    def read_timestamps(self, rows: RowBlock) -> pa.BinaryArray:
        """One GETRANGE a row."""
        return command(b"GETRANGE", self._row_keys(rows), b"0", b"%d" % (TIME - 1))

    @override
    def timestamps(self, replies: Sequence[Any]) -> np.ndarray:
        """The first bytes of the values."""
        return np.frombuffer(b"".join([reply or bytes(TIME) for reply in replies]), "<i8")

    @override
    def write(self, rows: RowBlock) -> pa.BinaryArray:
        """One SET a row, of all features."""
        if missing := [name for name in self._stored if name not in rows.values]:
            raise StoreError(
                "A packed row is written with all features of its view",
                detail=f"no {', '.join(missing)}",
                hint="write them too, or set `layout: hash` for the online store",
            )
        columns = [lengths_and_numbers(rows.values[name]) for name in self._stored]
        lengths = [length for length, _ in columns]
        head = np.column_stack([rows.times.view("<u4").reshape(-1, 2), *lengths])
        heads = protobuf.rows(head.astype("<u4").view(np.uint8), np.ones(len(rows), np.bool_))
        value = concat([heads, *(numbers for _, numbers in columns)])
        return command(b"SET", self._row_keys(rows), value, *self._expire)

    @override
    def read(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """One MGET for all; one each in a cluster."""
        if self._cluster:
            head = b"*2\r\n$4\r\nMGET\r\n"
            return per_entity(entities, head, self.prefix, b"", b""), len(entities)
        if not entities:
            return b"", 0
        head = b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(entities))
        return head + per_entity(entities, b"", self.prefix, b"", b""), 1

    @override
    def rows(self, replies: Sequence[Any]) -> FetchedRows:
        """The vectors as Value messages."""
        values, unpacked = self._unpacked(replies)
        timestamps = [
            None if value is None else _timestamp(time)
            for value, time in zip(values, unpacked.times.tolist(), strict=True)
        ]
        columns = [messages(*unpacked.vectors[name]) for name in self._features]
        return FetchedRows([*columns], timestamps)

    @override
    def columns(
        self,
        replies: Sequence[Any],
        types: Sequence[ValueType],
        max_age: int | None,
    ) -> list[FeatureColumn]:
        """The stored numbers; all features are lists of 32-bit floats."""
        _, unpacked = self._unpacked(replies)
        columns = [FeatureColumn(*unpacked.vectors[name]) for name in self._features]
        return columns if max_age is None else masked(columns, too_old(unpacked.times, max_age))

    @override
    def entities(self, client: Any, join_keys: Sequence[str] = ()) -> Iterator[bytes]:
        """What follows the view's prefix in its keys."""
        keys = client.scan_iter(escape_glob(self.prefix) + b"*", count=SCAN)
        return (key[len(self.prefix) :] for key in keys)

    @override
    def key_prefix(self, join_keys: Sequence[str] = ()) -> bytes:
        """Of the view's strings."""
        return self.prefix

    @override
    def entity_of(self, key: bytes, join_keys: Sequence[str] = ()) -> bytes | None:
        """What follows the prefix."""
        return key.removeprefix(self.prefix)

    @override
    def delete(
        self,
        client: Any,
        entities: Sequence[bytes],
        *,
        all_views: bool = False,
    ) -> dict[str, set[bytes]]:
        """The entities' strings, which no other view shares."""
        with client.pipeline(transaction=False) as pipe:
            for entity in entities:
                pipe.delete(self.prefix + entity)
            existed = pipe.execute()
        deleted = {entity for entity, was in zip(entities, existed, strict=True) if was}
        return {self._view: deleted} if deleted else {}

    def _unpacked(self, replies: Sequence[Any]) -> tuple[list[bytes | None], Unpacked]:
        """The values in some replies, and their contents."""
        values = [value for reply in replies for value in reply]
        return values, unpack(values, self._stored)

    def _row_keys(self, rows: RowBlock) -> pa.BinaryArray:
        return concat([self.prefix, rows.entities])


def packable(view: FeatureView) -> bool:
    """Whether a view's features are all lists of 32-bit floats."""
    return bool(view.features) and all(field.dtype == Array(Float32) for field in view.features)


def _timestamp(nanoseconds: int) -> bytes:
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return bytes(Timestamp(seconds=seconds, nanos=nanos).SerializeToString())
