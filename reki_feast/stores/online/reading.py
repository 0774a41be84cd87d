"""What one call of ``get_online_features`` reads: its views, their entities, and the response.

All views are read in one round trip, each by the layout of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.value_type import ValueType

from reki_feast.stores._feast import (
    get_table_entity_values,
    get_unique_entities,
    track_feature_statuses,
)
from reki_feast.stores.defaults import default_values
from reki_feast.stores.online.lifetimes import expired_rows

from .keys import VERSION, RedisKeys
from .layouts import FetchedRows, HashLayout, Layout
from .protobuf import Unsupported
from .requests import RequestColumn
from .response import add_version, add_view


@dataclass(frozen=True)
class ViewQuery:
    """What is read of one view.

    Attributes:
        view: the view.
        features: those asked for.
        layout: of its rows in Redis.
        max_age: nanoseconds for which rows are used; None for ever.
    """

    view: FeatureView
    features: list[str]
    layout: Layout
    max_age: int | None

    def rows(self, replies: Sequence[Any]) -> FetchedRows:
        """The rows in some replies, those that are too old marked as expired."""
        rows = self.layout.rows(replies)
        if self.max_age is None:
            return rows
        expired = expired_rows(rows.timestamps, self.max_age)
        return rows if expired is None else rows._replace(expired=expired.tolist())


@dataclass(frozen=True)
class ViewRead:
    """One view's part of a call.

    Attributes:
        query: what is read.
        entities: the entity keys, each once, without the project.
        inverse: for each row of the call the index of its entity; None where each row has its own.
    """

    query: ViewQuery
    entities: list[bytes]
    inverse: list[int] | None = None


class ReadRequest:
    """What a call reads from Redis, for all its views.

    Attributes:
        parts: the views.
        commands: packed.
        count: how many replies they have.
    """

    def __init__(self, parts: Sequence[ViewRead]) -> None:
        requests = [part.query.layout.read(part.entities) for part in parts]
        self.parts = parts
        self.commands = b"".join([commands for commands, _ in requests])
        self._counts = [count for _, count in requests]
        self.count = sum(self._counts)

    def rows(self, replies: Sequence[Any]) -> list[FetchedRows]:
        """The rows of each view's entities, out of all replies."""
        rows, first = [], 0
        for part, count in zip(self.parts, self._counts, strict=True):
            rows.append(part.query.rows(replies[first : first + count]))
            first += count
        return rows

    def hash_fields(self) -> list[tuple[bytes, list[str | bytes]]]:
        """Keys and fields of the hashes that are read; none if anything else is read, too."""
        fields: list[tuple[bytes, list[str | bytes]]] = []
        for part in self.parts:
            layout = part.query.layout
            if not isinstance(layout, HashLayout):
                return []
            fields += [(key, [*layout.fields]) for key in layout.keys(part.entities)]
        return fields


def view_read(
    query: ViewQuery,
    join_keys: Mapping[str, Any],
    join_key_of: Mapping[str, str],
    version: int,
) -> ViewRead:
    """One view's part of a call.

    Args:
        query: what is read of the view.
        join_keys: the call's, each a ``RequestColumn`` or a list of messages.
        join_key_of: each entity's join key, by the entity's name.
        version: of the serialization of entity keys.

    Raises:
        KeyError: the call has none of the view's join keys, or they have no values.
        TypeError: a join key is null.
    """
    names: Any = join_key_of
    columns: Any = get_table_entity_values(query.view, names, dict(join_keys))
    try:
        entities = _entities({name: _column(values) for name, values in columns.items()}, version)
    except Unsupported:
        _raise_as_feast(query.view, join_keys, names)
        raise
    if not entities:
        _raise_as_feast(query.view, join_keys, names)
    unique = dict.fromkeys(entities)
    if len(unique) == len(entities):
        return ViewRead(query, entities)
    index = {entity: number for number, entity in enumerate(unique)}
    return ViewRead(query, list(unique), [index[entity] for entity in entities])


def fill(
    response: GetOnlineFeaturesResponse,
    request: ReadRequest,
    replies: Sequence[Any],
    full_names: bool,
    versions: bool,
) -> None:
    """Add the views' columns to a response.

    Args:
        response: takes the columns.
        request: the views.
        replies: to the commands.
        full_names: whether columns are named ``view__feature``.
        versions: whether to add the views' versions.
    """
    for part, rows in zip(request.parts, request.rows(replies), strict=True):
        if part.inverse is not None:
            rows = rows.take(part.inverse)
        view: Any = part.query.view
        prefix = f"{view.projection.name_to_use()}__" if full_names else ""
        names = [prefix + feature for feature in part.query.features]
        if versions:
            add_version(response, view)
        present = add_view(response, names, rows, _defaults(view, part.query.features))
        track_feature_statuses(view.name, present, len(names) * len(rows.timestamps) - present)


def _column(values: Any) -> RequestColumn:
    """A join key as a column; Feast's own code passes lists of messages."""
    if isinstance(values, RequestColumn):
        return values
    return RequestColumn(values, values, ValueType.UNKNOWN)


def _entities(columns: Mapping[str, RequestColumn], version: int) -> list[bytes]:
    """The entity key of each row; none without a column."""
    if not columns:
        return []
    if version != VERSION:
        rows = zip(*(column.messages for column in columns.values()), strict=True)
        keys = (EntityKey(join_keys=list(columns), entity_values=row) for row in rows)
        return [serialize_entity_key(key, version) for key in keys]
    kinds = tuple((name, column.kind) for name, column in columns.items())
    return _keys_of(kinds).of_values({name: column.values for name, column in columns.items()})


@lru_cache(maxsize=256)
def _keys_of(kinds: tuple[tuple[str, ValueType], ...]) -> RedisKeys:
    """Keys without the project, which the layout adds."""
    return RedisKeys("", dict(kinds))


def _raise_as_feast(
    view: FeatureView, join_keys: Mapping[str, Any], join_key_of: dict[str, str]
) -> None:
    """Let Feast's own code raise its error for join keys that do not fit."""
    messages = {name: _column(values).messages for name, values in join_keys.items()}
    get_unique_entities(view, messages, join_key_of)


def _defaults(view: FeatureView, features: Sequence[str]) -> list[bytes | None]:
    values = default_values(view)
    if not values:
        return [None] * len(features)
    return [values[name].SerializeToString() if name in values else None for name in features]
