"""Deletion from the online store of a Feast repo: rows of entities or of a version of a view.

Feast deletes the rows of whole views only, so this module knows how stores lay rows out: Redis, as
Feast's store and this package's do it, and SQLite. An entity here is its serialized key.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewVersionNotFound
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from reki_feast.errors import StoreError

from ._feast import provider_of, redis_client_of, sqlite_connection_of
from .address import URL_VARIABLE, embedded_folder
from .embedded import compact
from .exceptions import map_store_errors
from .online.checkpoints import delete_checkpoint
from .online.documents import delete_graphs
from .online.layouts import Layout, all_layouts, stored_name
from .redis_online import RekiRedisOnlineStore
from .spaces import space_of
from .versions import living_versions, version_of

#: Entities whose rows are deleted at once.
_CHUNK = 1_000
_HINT = "see that it is up, then run the command again: deleted rows stay deleted"
#: By view, the entities that had a row.
Deleted: TypeAlias = dict[str, set[bytes]]


def delete_version(store: FeatureStore, view: str, number: int) -> int:
    """Delete all rows of one version of a view, which is not in service, from the online store.

    Repeat it where it was killed: it deletes the rest. The registry is not changed.

    Args:
        store: the repo; its online store is Redis or SQLite.
        view: name of a feature view.
        number: of the version: 1 for ``view@v1``.

    Returns:
        How many rows there were.

    Raises:
        StoreError: there is no such version, it is in service, or the online store fails or is of
            another kind.
    """
    rows, in_service = EntityRows(store), store.get_feature_view(view)
    version = _version(store, in_service, number)
    if stored_name(store.config, version) == stored_name(store.config, in_service):
        raise StoreError(
            "The rows of a version are deleted when another one is in service",
            detail=f"{view}@v{number} has the rows that are served as {view}",
            hint="put another version in service first, and `feast apply`",
        )
    if not rows.is_supported:
        raise StoreError(
            "Rows are deleted from a Redis or SQLite online store",
            detail=str(store.config.online_store.type),
            hint="delete them with the online store's own tools",
        )
    return rows.delete_all(version)


def _version(store: FeatureStore, view: FeatureView, number: int) -> Any:
    """A version of a view: one that its tag declares or, where it has none, one of Feast's own."""
    if space_of(view) is not None:
        return version_of(view, number)
    try:
        return store.registry.get_feature_view_by_version(view.name, store.project, number)
    except (FeatureViewVersionNotFound, NotImplementedError) as error:
        raise StoreError(
            f"Version v{number} of feature view {view.name} is registered",
            detail=str(error),
            hint="`feast feature-views` lists what is; name one of these",
        ) from error


class EntityRows:
    """The rows of entities in a repo's online store, of all living versions of a view.

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
            versions = (version for view in views for version in living_versions(view))
            entities = (entity for version in versions for entity in self._rows.entities(version))
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
            By the name of a view's rows, with its version where it has several, the ids that had
            rows.

        Raises:
            StoreError: the store fails; called again, it deletes the rest.
        """
        deleted: dict[str, set[str]] = {}
        if self._rows is None or not ids:
            return deleted
        with map_store_errors("The online store deletes rows", _HINT):
            for version in (version for view in views for version in living_versions(view)):
                entities = self._entities(version, join_key, ids)
                for name, rows in self._rows.delete(version, entities, all_views).items():
                    deleted.setdefault(name, set()).update(
                        self._id(entity, join_key) for entity in rows
                    )
        return deleted

    def delete_all(self, version: FeatureView) -> int:
        """Delete all rows of one version of a view; how many there were.

        Args:
            version: as the registry or a space tag describes it; its other versions stay.

        Raises:
            StoreError: the store fails; called again, it deletes the rest.
        """
        if self._rows is None:
            return 0
        with map_store_errors("The online store deletes rows", _HINT):
            return self._rows.delete_all(version)

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

    def delete_all(self, view: FeatureView) -> int:
        """Delete all rows of a view; how many there were."""

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

    def delete_all(self, view: FeatureView) -> int:
        client = self._client()
        delete_checkpoint(client, self.store.config, view)
        return sum(layout.delete_all(client, view.join_keys) for layout in self._layouts(view))

    def compact(self) -> None:
        delete_graphs(self.store.config)
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
        return {stored_name(self.store.config, view): deleted}

    def delete_all(self, view: FeatureView) -> int:
        if (table := self._table(view)) is None:
            return 0
        connection = self._connection()
        count = connection.execute(f"SELECT COUNT(DISTINCT entity_key) FROM {table}").fetchone()
        connection.execute("PRAGMA secure_delete = ON")
        with connection:
            connection.execute(f"DELETE FROM {table}")
        return int(count[0])

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
