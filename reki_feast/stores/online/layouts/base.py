"""What a Redis layout of a view's rows does: write, read, list and delete them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from feast import ValueType

from reki_feast.stores.online.rows import RowBlock

#: Keys that Redis looks at for one reply to SCAN, and entities handled in one pipeline.
SCAN = 10_000


class FetchedRows(NamedTuple):
    """Rows of one view, as Feast's messages.

    Attributes:
        columns: for each feature the rows' Value messages; empty or None where there is none.
        timestamps: the rows' Timestamp messages; None for a row that is not stored.
        expired: for each row whether it is older than its view's ttl; empty where none is.
    """

    columns: list[Sequence[bytes | None]]
    timestamps: Sequence[bytes | None]
    expired: Sequence[bool] = ()

    def take(self, indices: Sequence[int]) -> FetchedRows:
        """The rows at some indices."""
        return FetchedRows(
            [[column[index] for index in indices] for column in self.columns],
            [self.timestamps[index] for index in indices],
            [self.expired[index] for index in indices] if self.expired else (),
        )


class FeatureColumn(NamedTuple):
    """One feature of n rows.

    Attributes:
        values: (n,) or (n, d) numbers; zeros where there is none.
        valid: (n,) validity mask: which rows have a value.
    """

    values: np.ndarray
    valid: np.ndarray


class Layout(ABC):
    """How the rows of one view are laid out in Redis: keys, bytes, and the commands for them.

    A new storage format is one subclass, chosen in ``layout_of``. ``entities`` are serialized
    entity keys, without the project.
    """

    #: How many replies the commands that write one row have.
    replies_per_row: int = 1

    @abstractmethod
    def read_timestamps(self, rows: RowBlock) -> pa.BinaryArray:
        """Commands that read the stored event times of some entities, one a row."""

    @abstractmethod
    def timestamps(self, replies: Sequence[Any]) -> np.ndarray:
        """The event times in those replies: (n,) int64 nanoseconds, 0 where there is none."""

    @abstractmethod
    def write(self, rows: RowBlock) -> pa.BinaryArray:
        """Commands that write the rows."""

    @abstractmethod
    def read(self, entities: Sequence[bytes]) -> tuple[bytes, int]:
        """Packed commands that read the features of entities, and how many replies they have."""

    @abstractmethod
    def rows(self, replies: Sequence[Any]) -> FetchedRows:
        """The rows in those replies, as Feast's messages."""

    @abstractmethod
    def columns(
        self, replies: Sequence[Any], types: Sequence[ValueType], max_age: int | None
    ) -> list[FeatureColumn]:
        """The rows in those replies, as arrays.

        Args:
            replies: to the commands of ``read``.
            types: of the layout's features.
            max_age: nanoseconds for which rows are used; None for ever.

        Raises:
            StoreError: stored values are not of these types.
        """

    @abstractmethod
    def entities(self, client: Any, join_keys: Sequence[str]) -> Iterator[bytes]:
        """All entities that have a row of the view.

        Args:
            client: ``redis.Redis`` or ``redis.RedisCluster``.
            join_keys: of the view.
        """

    @abstractmethod
    def key_prefix(self, join_keys: Sequence[str]) -> bytes:
        """How the keys of all rows of the view begin; others may, too.

        Args:
            join_keys: of the view.
        """

    @abstractmethod
    def entity_of(self, key: bytes, join_keys: Sequence[str]) -> bytes | None:
        """The entity of a key with that prefix; None where the key is not of the view's rows.

        Args:
            key: in Redis.
            join_keys: of the view.
        """

    @abstractmethod
    def delete(
        self, client: Any, entities: Sequence[bytes], *, all_views: bool = False
    ) -> dict[str, set[bytes]]:
        """Delete rows of some entities.

        Args:
            client: ``redis.Redis`` or ``redis.RedisCluster``.
            entities: a few thousand at most.
            all_views: also delete what other views store under the same keys.

        Returns:
            By view, the entities that had a row.
        """

    def delete_all(self, client: Any, join_keys: Sequence[str]) -> int:
        """Delete the view's rows of all entities; how many there were.

        Args:
            client: ``redis.Redis`` or ``redis.RedisCluster``.
            join_keys: of the view.
        """
        count, entities = 0, self.entities(client, join_keys)
        while chunk := list(islice(entities, SCAN)):
            count += sum(map(len, self.delete(client, chunk).values()))
        return count


def masked(columns: Sequence[FeatureColumn], expired: np.ndarray) -> list[FeatureColumn]:
    """Columns in which some rows, an (n,) mask, are not valid."""
    return [FeatureColumn(values, valid & ~expired) for values, valid in columns]
