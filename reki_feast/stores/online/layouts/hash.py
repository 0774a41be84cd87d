"""Feast's layout: one hash an entity, one field a feature, one more for each view's event time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from feast import ValueType
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from typing_extensions import override

from reki_feast.errors import Problem, StoreError
from reki_feast.stores._feast import mmh3
from reki_feast.stores.online.commands import Argument, command, concat, escape_glob, per_entity
from reki_feast.stores.online.decoding import EncodedColumn, decode, nanoseconds
from reki_feast.stores.online.lifetimes import expired_rows
from reki_feast.stores.online.rows import RowBlock
from reki_feast.stores.online.wire import execute

from .base import SCAN, FeatureColumn, FetchedRows, Layout, masked

#: With a view's name, the field of an entity's hash with the event time of the view's row.
TIMESTAMP = "_ts:"


class HashLayout(Layout):
    """One view in Feast's layout, which Feast's own store reads and writes, too."""

    def __init__(
        self,
        project: str,
        view: str,
        features: Sequence[str] = (),
        *,
        with_timestamps: bool = True,
        key_ttl: int | None = None,
    ) -> None:
        """Of one view.

        Args:
            project: the Feast project.
            view: the view's name, with its version where Feast adds one.
            features: those that are read or deleted.
            with_timestamps: whether event times are read, too.
            key_ttl: seconds after which Redis drops an entity; None for never.
        """
        self._project = project.encode()
        self._view, self._features = view, list(features)
        self._key_ttl, self._timestamp = key_ttl, f"{TIMESTAMP}{view}".encode()
        self.replies_per_row = 2 if key_ttl else 1
        self.fields = [self._field(feature) for feature in features]
        if with_timestamps:
            self.fields.append(self._timestamp)
        name = b"HGET" if len(self.fields) == 1 else b"HMGET"
        self._head = b"*%d\r\n$%d\r\n%b\r\n" % (2 + len(self.fields), len(name), name)
        self._tail = b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in self.fields])

    def keys(self, entities: Sequence[bytes]) -> list[bytes]:
        """The entities' keys in Redis."""
        return [entity + self._project for entity in entities]

    @override
    def read_timestamps(self, rows: RowBlock) -> pa.BinaryArray:
        """One HGET a row."""
        return command(b"HGET", self._row_keys(rows), self._timestamp)

    @override
    def timestamps(self, replies: Sequence[Any]) -> np.ndarray:
        """The Timestamp messages, decoded."""
        return nanoseconds(replies)

    @override
    def write(self, rows: RowBlock) -> pa.BinaryArray:
        """One HSET a row, and an EXPIRE where keys have a ttl."""
        keys = self._row_keys(rows)
        arguments: list[Argument] = [self._timestamp, rows.timestamps]
        for feature, values in rows.values.items():
            arguments += [self._field(feature), values]
        commands = command(b"HSET", keys, *arguments)
        if not self._key_ttl:
            return commands
        return concat([commands, command(b"EXPIRE", keys, str(self._key_ttl).encode())])

    @override
    def read(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """One HMGET an entity; one HGET where there is one field."""
        return per_entity(entities, self._head, b"", self._project, self._tail), len(entities)

    @override
    def rows(self, replies: Sequence[Any]) -> FetchedRows:
        """The fields as they are stored."""
        columns = list(zip(*replies, strict=True)) if replies else [()] * len(self.fields)
        return FetchedRows([*columns[:-1]], columns[-1])

    @override
    def columns(
        self, replies: Sequence[Any], types: Sequence[ValueType], max_age: int | None
    ) -> list[FeatureColumn]:
        """The fields' Value messages, decoded."""
        fields = [replies] if len(self.fields) == 1 else list(zip(*replies, strict=True))
        columns = [
            _decoded(values, feature, kind)
            for values, feature, kind in zip(fields, self._features, types, strict=False)
        ]
        if max_age is None:
            return columns
        expired = expired_rows(fields[-1], max_age)
        return columns if expired is None else masked(columns, expired)

    @override
    def entities(self, client: Any, join_keys: Sequence[str]) -> Iterator[bytes]:
        """The hashes of the join keys that have the view's event time."""
        keys = client.scan_iter(escape_glob(self.key_prefix(join_keys)) + b"*", count=SCAN)
        entities = (self.entity_of(key, join_keys) for key in keys)
        candidates = (entity for entity in entities if entity is not None)
        while chunk := list(islice(candidates, SCAN)):
            exists = execute(client, self._exist(chunk), len(chunk))
            yield from (entity for entity, stored in zip(chunk, exists, strict=True) if stored)

    @override
    def key_prefix(self, join_keys: Sequence[str]) -> bytes:
        """Of the hashes of all views with these join keys."""
        return _key_prefix(tuple(join_keys))

    @override
    def entity_of(self, key: bytes, join_keys: Sequence[str]) -> bytes | None:
        """What comes before the project."""
        entity = _entity(key, len(self.key_prefix(join_keys)), len(join_keys))
        return entity if entity + self._project == key else None

    @override
    def delete(
        self, client: Any, entities: Sequence[bytes], *, all_views: bool = False
    ) -> dict[str, set[bytes]]:
        """The view's fields; all fields where no other view has a row in the hash."""
        deleted, keys = defaultdict[str, set[bytes]](set), self.keys(entities)
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hkeys(key)
            fields = pipe.execute()
        prefix = TIMESTAMP.encode()
        timestamps = [{name for name in names if name.startswith(prefix)} for names in fields]
        with client.pipeline(transaction=False) as pipe:
            for key, names, stored in zip(keys, fields, timestamps, strict=True):
                if all_views:
                    pipe.delete(key)
                elif names:  # not the key, in which others may write meanwhile
                    is_alone = stored <= {self._timestamp}
                    pipe.hdel(key, *(names if is_alone else self.fields))
            pipe.execute()
        for entity, stored in zip(entities, timestamps, strict=True):
            for name in stored if all_views else stored & {self._timestamp}:
                deleted[name.removeprefix(prefix).decode()].add(entity)
        return deleted

    def _exist(self, entities: Sequence[bytes]) -> bytes:
        """One HEXISTS an entity, of the view's event time."""
        tail = b"$%d\r\n%b\r\n" % (len(self._timestamp), self._timestamp)
        return per_entity(entities, b"*3\r\n$7\r\nHEXISTS\r\n", b"", self._project, tail)

    def _field(self, feature: str) -> bytes:
        field: bytes = mmh3(f"{self._view}:{feature}")
        return field

    def _row_keys(self, rows: RowBlock) -> pa.BinaryArray:
        return concat([rows.entities, self._project])


def _decoded(values: EncodedColumn, feature: str, kind: ValueType) -> FeatureColumn:
    try:
        return FeatureColumn(*decode(values, kind))
    except StoreError as error:
        problems = [
            Problem(f.problem, f"feature {feature}: {f.detail}", f.hint) for f in error.problems
        ]
        raise StoreError(problems) from error


@lru_cache(maxsize=256)
def _key_prefix(join_keys: tuple[str, ...]) -> bytes:
    prefix: bytes = serialize_entity_key_prefix(list(join_keys))
    return prefix


def _entity(key: bytes, at: int, values: int) -> bytes:
    r"""A Redis key without what follows the entity's values: the project's name.

    >>> _entity(b"prefix" + b"\x02\x00\x00\x00" + b"\x03\x00\x00\x00" + b"abcmovies", 6, 1)
    b'prefix\x02\x00\x00\x00\x03\x00\x00\x00abc'
    """
    for _ in range(values):
        at += 8 + int.from_bytes(key[at + 4 : at + 8], "little")
    return key[:at]
