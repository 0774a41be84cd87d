"""Deletion of entities from the online store of a Feast repo: their rows, and the bytes on disk.

Feast deletes the rows of whole views only. So this module knows how stores lay rows out: Redis, as
Feast's store and this package's do it, and SQLite. An entity here is its serialized key.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from feast import FeatureStore, FeatureView
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from ._feast import provider_of, redis_client_of, sqlite_connection_of
from .address import URL_VARIABLE, embedded_folder
from .embedded import compact
from .exceptions import map_store_errors
from .online.layouts import Layout, all_layouts
from .redis_online import RekiRedisOnlineStore

#: Entities whose rows are deleted at once.
_CHUNK = 1_000
_HINT = "see that it is up, then run the command again: deleted rows stay deleted"
#: By view, the entities that had a row.
Deleted: TypeAlias = dict[str, set[bytes]]


class EntityRows:
    """The rows of entities in a repo's online store.

    Args:
        store: the repo; its online store is Redis or SQLite, or ``is_supported`` is false and
            nothing is found.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._rows = _rows_of(provider_of(store).online_store, store)

    @property
    def is_supported(self) -> bool:
        """Whether rows can be listed and deleted; also where the repo has no online store."""
        return self._rows is not None or self._store.config.online_store is None

    def ids(self, views: Iterable[FeatureView], join_key: str) -> set[str]:
        """Ids, as text, that some views have rows of.

        Args:
            views: of the repo, each with the join key.
            join_key: of the ids.

        Raises:
            StoreError: the store fails.
        """
        if self._rows is None:
            return set()
        with map_store_errors("The online store lists the entities that it has", _HINT):
            entities = (entity for view in views for entity in self._rows.entities(view))
            return {self._id(entity, join_key) for entity in entities}

    def delete(
        self,
        views: Iterable[FeatureView],
        join_key: str,
        ids: Collection[str],
        *,
        all_views: bool = False,
    ) -> dict[str, set[str]]:
        """Delete the rows of entities; further join keys of a view may have any value.

        Args:
            views: of the repo, each with the join key.
            join_key: of the ids.
            ids: as text.
            all_views: also delete the rows of other views that are stored under the same keys, as
                those of views that are no longer registered.

        Returns:
            By view, the ids that had rows.

        Raises:
            StoreError: the store fails; called again, it deletes the rest.
        """
        deleted: dict[str, set[str]] = {}
        if self._rows is None or not ids:
            return deleted
        with map_store_errors("The online store deletes rows", _HINT):
            for view in views:
                entities = self._entities(view, join_key, ids)
                for name, rows in self._rows.delete(view, entities, all_views).items():
                    deleted.setdefault(name, set()).update(
                        self._id(entity, join_key) for entity in rows
                    )
        return deleted

    def compact(self) -> None:
        """Rewrite the store's files without deleted bytes, where they are on this machine.

        Raises:
            StoreError: the store fails.
        """
        if self._rows is not None:
            with map_store_errors("The online store rewrites its files", _HINT):
                self._rows.compact()

    def _entities(self, view: FeatureView, join_key: str, ids: Collection[str]) -> list[bytes]:
        """The entities of some ids; with further join keys, those that are stored."""
        assert self._rows is not None
        if len(view.join_keys) > 1:
            return [x for x in self._rows.entities(view) if self._id(x, join_key) in ids]
        (column,) = view.entity_columns
        kind = column.dtype.to_value_type()
        typed = [one if kind == ValueType.STRING else int(one) for one in ids]
        values = python_values_to_proto_values(typed, kind)
        keys = (EntityKey(join_keys=[column.name], entity_values=[value]) for value in values)
        return [serialize_entity_key(key, self._version) for key in keys]

    def _id(self, entity: bytes, join_key: str) -> str:
        key = deserialize_entity_key(entity, self._version)
        value = key.entity_values[list(key.join_keys).index(join_key)]
        return str(getattr(value, value.WhichOneof("val")))

    @property
    def _version(self) -> int:
        return int(self._store.config.entity_key_serialization_version)


class _StoredRows(Protocol):
    """Rows of views in one kind of online store."""

    def entities(self, view: FeatureView) -> Iterator[bytes]:
        """All entities that have a row of a view."""

    def delete(self, view: FeatureView, entities: Sequence[bytes], all_views: bool) -> Deleted:
        """Delete rows of a view, or of all views under the same keys."""

    def compact(self) -> None:
        """Rewrite the store's files, if there are any."""


def _rows_of(online: Any, store: FeatureStore) -> _StoredRows | None:
    if isinstance(online, RedisOnlineStore):
        return _RedisRows(online, store)
    return _SqliteRows(online, store) if isinstance(online, SqliteOnlineStore) else None


@dataclass(frozen=True)
class _RedisRows:
    """Rows in any layout: a view's may have been written under an earlier configuration."""

    online: RedisOnlineStore
    store: FeatureStore

    def entities(self, view: FeatureView) -> Iterator[bytes]:
        client = self._client()
        for layout in self._layouts(view):
            yield from layout.entities(client, view.join_keys)

    def delete(self, view: FeatureView, entities: Sequence[bytes], all_views: bool) -> Deleted:
        client, deleted = self._client(), Deleted()
        for start in range(0, len(entities), _CHUNK):
            chunk = entities[start : start + _CHUNK]
            for layout in self._layouts(view):
                for name, rows in layout.delete(client, chunk, all_views=all_views).items():
                    deleted.setdefault(name, set()).update(rows)
        return deleted

    def compact(self) -> None:
        options: Any = self.store.config.online_store
        is_reki = isinstance(self.online, RekiRedisOnlineStore)
        if is_reki and not os.environ.get(URL_VARIABLE, "").strip():
            folder = embedded_folder(options.connection_string, Path(str(self.store.repo_path)))
            if folder is not None:
                compact(folder)

    def _layouts(self, view: FeatureView) -> list[Layout]:
        return all_layouts(self.store.config, view)

    def _client(self) -> Any:
        if isinstance(self.online, RekiRedisOnlineStore):
            self.online.bind(self.store.config)
        return redis_client_of(self.online, self.store.config.online_store)


@dataclass(frozen=True)
class _SqliteRows:
    """A table a view, a row a feature."""

    online: SqliteOnlineStore
    store: FeatureStore

    def entities(self, view: FeatureView) -> Iterator[bytes]:
        if (table := self._table(view)) is None:
            return
        rows = self._connection().execute(f"SELECT DISTINCT entity_key FROM {table}")
        yield from (entity for (entity,) in rows)

    def delete(
        self,
        view: FeatureView,
        entities: Sequence[bytes],
        all_views: bool,  # noqa: ARG002
    ) -> Deleted:
        connection, table = self._connection(), self._table(view)
        if table is None:
            return {}
        connection.execute("PRAGMA secure_delete = ON")
        deleted = set()
        with connection:
            for entity in entities:
                done = connection.execute(f"DELETE FROM {table} WHERE entity_key = ?", (entity,))
                deleted |= {entity} if done.rowcount else set()
        return {view.name: deleted}

    def compact(self) -> None:
        connection = self._connection()
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _table(self, view: FeatureView) -> str | None:
        """The view's table, quoted; None before anything is applied."""
        versioned = self.store.config.registry.enable_online_feature_view_versioning
        name = compute_table_id(self.store.project, view, versioned)
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if self._connection().execute(query, (name,)).fetchone() is None:
            return None
        return '"' + name.replace('"', '""') + '"'

    def _connection(self) -> Any:
        return sqlite_connection_of(self.online, self.store.config)
