"""Entities out of the online store of a Feast repo: their rows, and the bytes of these on disk.

Feast deletes rows of whole views only. So this knows how stores lay rows out: Redis, as Feast's
store and this package's do it, and SQLite. An entity is its serialized key here.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from feast import FeatureStore, FeatureView
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, compute_table_id, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from reki_feast.errors import StoreError
from reki_feast.schema import Kind

from .address import URL_VARIABLE, embedded_folder
from .defaults import SCENARIO_TAG
from .embedded import compact
from .online.entities import STAMP, hashed_entities, packed_entities
from .online.packed import prefix
from .redis_online import RekiRedisOnlineStore
from .states import at_the_store

#: Entities asked about at once.
_CHUNK = 1_000
_MEND = "see that it is up, then run the command again: what is removed stays so"
#: By view, the entities that a row went of.
Removed: TypeAlias = dict[str, set[bytes]]


class OnlineRows:
    """What a repo's online store holds of a scenario's users and items.

    Args:
        repo: folder of feature_store.yaml.
        data: the scenario's folder, named as it is, whose tables its views read.
        keys: join keys of users and items.

    Raises:
        StoreError: there is no such repo, or Feast cannot open it.
    """

    def __init__(self, repo: Path, data: Path, keys: Mapping[Kind, str]) -> None:
        if not (repo / "feature_store.yaml").exists():
            raise StoreError(
                "a Feast repo has a feature_store.yaml",
                found=f"none in {repo}",
                mend="name the folder that has it",
            )
        with at_the_store("Feast opens the repo", f"cd {repo} && feast apply"):
            self._store = store = FeatureStore(repo_path=str(repo))
            self._views = list(store.list_feature_views())
            provider: Any = store._get_provider()
            self._rows = _rows_of(provider.online_store, store)
        self._repo, self._data, self._keys = repo, data, keys

    @property
    def fault(self) -> str:
        """Why rows cannot be removed; empty where they can, or where there are none."""
        options: Any = self._store.config.online_store
        if self._rows is not None or options is None:
            return ""
        return (
            f"rows in the online store of {self._repo} are NOT removed: this package knows Redis "
            f"and SQLite, and this is {options.type}; remove them with the store's own tools"
        )

    def ids(self, kind: Kind) -> set[str]:
        """Ids, as text, that the scenario's views have rows of.

        Raises:
            StoreError: the store fails.
        """
        rows = self._rows
        if rows is None:
            return set()
        with at_the_store("the online store tells whose rows it has", _MEND):
            views = self._of(kind, every=False)
            return {self._id(one, kind) for view in views for one in rows.entities(view)}

    def remove(self, kind: Kind, ids: Collection[str], *, every: bool) -> dict[str, set[str]]:
        """Remove the rows of entities.

        Args:
            kind: users or items.
            ids: theirs, as text.
            every: those of all views of the repo that have the join key, whoever's they are; else
                those of the scenario's views.

        Returns:
            By view, the ids that had rows.

        Raises:
            StoreError: the store fails; done again, it removes the rest.
        """
        found: dict[str, set[str]] = {}
        if self._rows is None or not ids:
            return found
        with at_the_store("the online store removes rows", _MEND):
            for view in self._of(kind, every=every):
                entities = self._entities(view, kind, ids)
                for name, those in self._rows.remove(view, entities, every=every).items():
                    found.setdefault(name, set()).update(self._id(one, kind) for one in those)
        return found

    def compact(self) -> None:
        """Have on disk what there still is and no byte of what went, where that can be told.

        Raises:
            StoreError: the store fails.
        """
        if self._rows is not None:
            with at_the_store("the online store writes what it holds to disk", _MEND):
                self._rows.compact()

    def _of(self, kind: Kind, *, every: bool) -> list[FeatureView]:
        key = self._keys[kind]
        if every:
            return [view for view in self._views if key in view.join_keys]
        return [view for view in self._views if view.join_keys == [key] and self._is_ours(view)]

    def _is_ours(self, view: FeatureView) -> bool:
        path = (self._repo / str(getattr(view.batch_source, "path", ""))).resolve()
        return (
            view.tags.get(SCENARIO_TAG) == self._data.name or self._data.resolve() in path.parents
        )

    def _entities(self, view: FeatureView, kind: Kind, ids: Collection[str]) -> list[bytes]:
        """Those of a view that are of some ids; with further join keys, those that are stored."""
        assert self._rows is not None
        if len(view.join_keys) > 1:
            return [one for one in self._rows.entities(view) if self._id(one, kind) in ids]
        (column,) = view.entity_columns
        as_type = str if (of := column.dtype.to_value_type()) == ValueType.STRING else int
        values = python_values_to_proto_values([as_type(one) for one in ids], of)
        keys = (EntityKey(join_keys=[column.name], entity_values=[value]) for value in values)
        return [serialize_entity_key(key, self._version) for key in keys]

    def _id(self, entity: bytes, kind: Kind) -> str:
        key = deserialize_entity_key(entity, self._version)
        value = key.entity_values[list(key.join_keys).index(self._keys[kind])]
        return str(getattr(value, value.WhichOneof("val")))

    @property
    def _version(self) -> int:
        return int(self._store.config.entity_key_serialization_version)


class _Rows(Protocol):
    """Rows of views in an online store."""

    def entities(self, view: FeatureView) -> Iterator[bytes]:
        """All that a view has a row of."""

    def remove(self, view: FeatureView, entities: Sequence[bytes], *, every: bool) -> Removed:
        """Remove a view's rows; with ``every``, in passing, all that stand beside them."""

    def compact(self) -> None:
        """Write the file anew, if there is one."""


def _rows_of(online: Any, store: FeatureStore) -> _Rows | None:
    if isinstance(online, RedisOnlineStore):
        return _RedisRows(online, store)
    return _SqliteRows(online, store) if isinstance(online, SqliteOnlineStore) else None


@dataclass(frozen=True)
class _RedisRows:
    """A hash an entity, of all views; or a string a row, where a view is packed, or was."""

    online: Any
    store: FeatureStore

    def entities(self, view: FeatureView) -> Iterator[bytes]:
        client, project, name = self._client(), self.store.project, _name(self.store, view)
        yield from hashed_entities(client, project, view.join_keys, name)
        yield from packed_entities(client, project, name)

    def remove(self, view: FeatureView, entities: Sequence[bytes], *, every: bool) -> Removed:
        client, found = self._client(), defaultdict[str, set[bytes]](set)
        name, project = _name(self.store, view), self.store.project
        stamp = STAMP + name.encode()
        fields = [stamp, *(_mmh3(f"{name}:{field.name}") for field in view.features)]
        for at in range(0, len(entities), _CHUNK):
            some = entities[at : at + _CHUNK]
            hashes = [entity + project.encode() for entity in some]
            with client.pipeline(transaction=False) as pipe:
                for key in hashes:
                    pipe.hkeys(key)
                held = [{f for f in names if f.startswith(STAMP)} for names in pipe.execute()]
            with client.pipeline(transaction=False) as pipe:
                for entity in some:
                    pipe.delete(prefix(project, name) + entity)
                for key, stamps in zip(hashes, held, strict=True):
                    if every or stamps <= {stamp}:
                        pipe.delete(key)
                    else:
                        pipe.hdel(key, *fields)
                packed = pipe.execute()[: len(some)]
            for entity, stamps, was_packed in zip(some, held, packed, strict=True):
                for one in stamps if every else stamps & {stamp}:
                    found[one.removeprefix(STAMP).decode()].add(entity)
                if was_packed:
                    found[name].add(entity)
        return found

    def compact(self) -> None:
        options: Any = self.store.config.online_store
        is_ours = isinstance(self.online, RekiRedisOnlineStore)
        if is_ours and not os.environ.get(URL_VARIABLE, "").strip():
            folder = embedded_folder(options.connection_string, Path(str(self.store.repo_path)))
            if folder is not None:
                compact(folder)

    def _client(self) -> Any:
        if isinstance(self.online, RekiRedisOnlineStore):
            self.online.at(self.store.config)
        return self.online._get_client(self.store.config.online_store)


@dataclass(frozen=True)
class _SqliteRows:
    """A table a view, a row a feature."""

    online: Any
    store: FeatureStore

    def entities(self, view: FeatureView) -> Iterator[bytes]:
        if (table := self._table(view)) is None:
            return
        rows = self._connection().execute(f"SELECT DISTINCT entity_key FROM {table}")
        yield from (entity for (entity,) in rows)

    def remove(self, view: FeatureView, entities: Sequence[bytes], *, every: bool) -> Removed:  # noqa: ARG002
        connection, table = self._connection(), self._table(view)
        if table is None:
            return {}
        connection.execute("PRAGMA secure_delete = ON")
        found = set()
        with connection:
            for entity in entities:
                done = connection.execute(f"DELETE FROM {table} WHERE entity_key = ?", (entity,))
                found |= {entity} if done.rowcount else set()
        return {view.name: found}

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
        return self.online._get_conn(self.store.config)


def _name(store: FeatureStore, view: FeatureView) -> str:
    """A view's name in the store, with its version where Feast adds one."""
    versioned = store.config.registry.enable_online_feature_view_versioning
    return str(compute_versioned_name(view, versioned))
