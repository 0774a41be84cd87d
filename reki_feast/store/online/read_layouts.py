"""How a view's rows stand in Redis: what asks for them, and the rows in the replies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from feast.infra.online_stores.helpers import _mmh3
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from . import packed
from .commands import repeated


class Found(NamedTuple):
    """Rows of one view, as they stand in Redis.

    Attributes:
        columns: for each feature the rows' Value messages; empty or None where there is none.
        times: the rows' Timestamp messages; None for a row that is not there.
        old: for each row whether it is older than its view's ttl; empty where none is.
    """

    columns: list[Sequence[bytes | None]]
    times: Sequence[bytes | None]
    old: Sequence[bool] = ()

    def at(self, places: Sequence[int]) -> Found:
        """The rows at some places."""
        return Found(
            [[column[place] for place in places] for column in self.columns],
            [self.times[place] for place in places],
            [self.old[place] for place in places] if self.old else (),
        )


class Layout(Protocol):
    """How one view's rows stand in Redis, and which of its features are read."""

    def ask(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """Packed commands that ask for the rows of entity keys, and how many replies they have.

        Args:
            entities: serialized entity keys, without the project.
        """

    def found(self, replies: Sequence[Any]) -> Found:
        """The rows in those replies."""


class HashRows:
    """Feast's layout: one hash an entity, one field a feature, one for the event time."""

    def __init__(
        self, project: str, view: str, features: Sequence[str], *, times: bool = True
    ) -> None:
        """Of one view; its name with the version where Feast adds one.

        Args:
            project: the Feast project.
            view: the view's name.
            features: the features to read.
            times: whether the event times are read, too.
        """
        self._project = project.encode()
        self.fields = [_mmh3(f"{view}:{name}") for name in features]
        if times:
            self.fields.append(f"_ts:{view}".encode())
        name = b"HGET" if len(self.fields) == 1 else b"HMGET"
        self._head = b"*%d\r\n$%d\r\n%b\r\n" % (2 + len(self.fields), len(name), name)
        self._tail = b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in self.fields])

    def ask(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """One HMGET an entity; one HGET where there is one field."""
        return repeated(entities, self._head, b"", self._project, self._tail), len(entities)

    def keys(self, entities: Sequence[bytes]) -> list[bytes]:
        """The entities' keys in Redis."""
        return [entity + self._project for entity in entities]

    def found(self, replies: Sequence[Any]) -> Found:
        """The fields as they stand there."""
        columns = list(zip(*replies, strict=True)) if replies else [()] * len(self.fields)
        return Found([*columns[:-1]], columns[-1])


class PackedRows:
    """The packed layout: one string an entity."""

    def __init__(
        self, project: str, view: str, features: Sequence[str], asked: Sequence[str], cluster: bool
    ) -> None:
        """Of one view.

        Args:
            project: the Feast project.
            view: the view's name, with its version where Feast adds one.
            features: the names of all the view's features, in their order.
            asked: those to read.
            cluster: whether the keys lie on several nodes, where no MGET reaches them.
        """
        self._prefix = packed.prefix(project, view)
        self._features, self._asked, self._cluster = list(features), list(asked), cluster

    def ask(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """One MGET for all; one each in a cluster."""
        if self._cluster:
            return repeated(entities, b"*2\r\n$4\r\nMGET\r\n", self._prefix, b"", b""), len(
                entities
            )
        if not entities:
            return b"", 0
        head = b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(entities))
        return head + repeated(entities, b"", self._prefix, b"", b""), 1

    def unpacked(self, replies: Sequence[Any]) -> tuple[list[bytes | None], packed.Unpacked]:
        """The rows in those replies, as they are stored and taken apart."""
        stored = [row for reply in replies for row in reply]
        return stored, packed.unpack(stored, self._features)

    def found(self, replies: Sequence[Any]) -> Found:
        """The vectors as Value messages."""
        stored, rows = self.unpacked(replies)
        times = [
            None if row is None else _time(nanoseconds)
            for row, nanoseconds in zip(stored, rows.times.tolist(), strict=True)
        ]
        return Found([packed.messages(*rows.vectors[name]) for name in self._asked], times)


@lru_cache(maxsize=1024)
def hash_rows(project: str, view: str, features: tuple[str, ...]) -> HashRows:
    """A view in Feast's layout."""
    return HashRows(project, view, features)


def _time(nanoseconds: int) -> bytes:
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return bytes(Timestamp(seconds=seconds, nanos=nanos).SerializeToString())
