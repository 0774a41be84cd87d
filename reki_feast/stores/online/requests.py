"""What a call of ``get_online_features`` asks for, and its entities.

Resolving feature references takes Feast milliseconds, so it caches the result: for the whole
process, by the project's name and the references alone. Two stores whose projects have one name
then answer with each other's views. ``RequestCache`` belongs to one store, and resolves references
through ``UncacheableRegistry``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from feast import FeatureService, FeatureView, utils
from feast.feature_view import DUMMY_ENTITY, DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from reki_feast.stores._feast import (
    build_feature_types,
    get_cached_request_context,
    pending_feature_refs,
    validate_entity_values,
)
from reki_feast.stores.ids import check_ids
from reki_feast.stores.spaces import check_one_space, resolved_in_one_space

from .response import add_column

#: How many sets of references are cached.
CACHE_SIZE = 512
#: Types whose values become messages without a check of each, and the field of the message.
_UNCHECKED: dict[ValueType, tuple[str, set[type]]] = {
    ValueType.INT32: ("int32_val", {int, np.int32, np.int64}),
    ValueType.INT64: ("int64_val", {int, np.int32, np.int64}),
    ValueType.STRING: ("string_val", {str}),
}


class ReferenceContext(NamedTuple):
    """Resolved feature references: the result of Feast's own cached resolution, and types.

    Attributes:
        refs: the features asked for, ``view:feature``.
        on_demand: on-demand views among them.
        join_key_of: each entity's join key, by the entity's name.
        kinds: each join key's type.
        join_keys: the names of join keys that a request may have.
        views: the views to read, with the names of their features.
        names: of the response's columns.
        request_data: names of the values that on-demand views take from the request.
        entityless: whether a view among them has no entity.
        types: each feature's type, by its short and its full name.
    """

    refs: list[str]
    on_demand: list[Any]
    join_key_of: dict[str, str]
    kinds: dict[str, ValueType]
    join_keys: set[str]
    views: list[tuple[FeatureView, list[str]]]
    names: frozenset[str]
    request_data: set[str]
    entityless: bool
    types: dict[str, ValueType]


@dataclass(frozen=True)
class RequestColumn:
    """One entity's or one requested value's column.

    Attributes:
        values: of the request, or messages; both make the same Redis key.
        messages: as Feast's messages.
        kind: their type.
    """

    values: Sequence[Any]
    messages: list[Value]
    kind: ValueType

    def __len__(self) -> int:
        return len(self.messages)


class OnlineRequest(NamedTuple):
    """A call whose references are resolved.

    Attributes:
        context: its references.
        join_keys: join key to its values.
        names: of the response's columns, join keys among them.
        response: holds the columns of the request.
    """

    context: ReferenceContext
    join_keys: dict[str, RequestColumn]
    names: set[str]
    response: GetOnlineFeaturesResponse


class UncacheableRegistry:
    """A registry without a cached state, so that Feast does not cache what it resolves."""

    cached_registry_proto_created = None

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


class _Cached(NamedTuple):
    """Resolved references of one state of one registry."""

    registry: Any
    created: Any
    contexts: dict[tuple[Any, ...], ReferenceContext]


class RequestCache:
    """The resolved references of one online store's calls."""

    def __init__(self) -> None:
        self._cached = _Cached(None, None, {})

    def request(
        self, registry: Any, project: str, features: Any, rows: Any, full_names: bool
    ) -> OnlineRequest:
        """Resolve one call.

        Args:
            registry: the repo's.
            project: Feast's.
            features: references or a feature service.
            rows: entities, row by row or column by column.
            full_names: whether columns bear the view's name, too.

        Raises:
            ValueError: rows that differ in their keys; and whatever Feast raises.
            StoreError: an id that its entity's type would change, or views in different spaces.
        """
        context = self.context(registry, project, features, full_names)
        return _request(context, rows_to_columns(rows) if isinstance(rows, list) else rows)

    def context(
        self, registry: Any, project: str, features: Any, full_names: bool
    ) -> ReferenceContext:
        """References, resolved in the registry's present state.

        Raises:
            StoreError: they are of views in different spaces.
        """
        created = getattr(registry, "cached_registry_proto_created", None)
        key = (_features_key(features), project, full_names)
        cached = self._cached
        fresh = cached.registry is registry and cached.created == created
        if created is not None and fresh and _valid(registry):
            context = cached.contexts.get(key)
            if context is not None:
                return context
        context = resolved_in_one_space(lambda: _context(registry, project, features, full_names))
        # A registry that was refreshed meanwhile may have answered from two states.
        if created is not None and created == getattr(
            registry, "cached_registry_proto_created", None
        ):
            if not fresh or len(cached.contexts) >= CACHE_SIZE:
                cached = self._cached = _Cached(registry, created, {})
            cached.contexts[key] = context
        return context


def rows_to_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows turned into columns.

    >>> rows_to_columns([{"user": 1, "item": 2}, {"user": 3, "item": 4}])
    {'user': [1, 3], 'item': [2, 4]}

    Raises:
        ValueError: the rows differ in their keys.
    """
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        more = any(row.keys() - names for row in rows)
        what = (
            "entity_rows must have the same keys"
            if more
            else "entity rows must have the same columns"
        )
        raise ValueError(f"All {what}.")  # in Feast's words
    return {name: [row[name] for row in rows] for name in names}


def _valid(registry: Any) -> bool:
    valid = getattr(registry, "is_cache_valid", None)
    return bool(valid()) if callable(valid) else False


def _features_key(features: Any) -> tuple[Any, ...]:
    """Everything of a service that decides what is read; Feast's own key is its name."""
    if not isinstance(features, FeatureService):
        return tuple(features)
    pending = pending_feature_refs(features)
    projections = tuple(
        (
            projection.name,
            projection.name_alias,
            projection.version_tag,
            tuple(projection.join_key_map.items()),
            tuple(field.name for field in projection.features),
        )
        for projection in features.feature_view_projections
    )
    return (FeatureService, features.name, tuple(map(str, pending)), projections)


def _context(registry: Any, project: str, features: Any, full_names: bool) -> ReferenceContext:
    uncacheable: Any = UncacheableRegistry(registry)
    resolved: Any = get_cached_request_context(uncacheable, project, features, full_names)
    context = ReferenceContext._make((*resolved, build_feature_types(resolved[5])))
    check_one_space([*context.on_demand, *(view for view, _ in context.views)])
    return context


def _request(context: ReferenceContext, values_by_name: Mapping[str, Any]) -> OnlineRequest:
    columns = {
        name: _column(
            name,
            list(values) if isinstance(values, Sequence) else list(values.val),  # RepeatedValue
            context.kinds.get(name, ValueType.UNKNOWN),
        )
        for name, values in values_by_name.items()
    }
    rows = validate_entity_values(columns)  # type: ignore[arg-type]
    join_keys: dict[str, RequestColumn] = {}
    request_data: dict[str, RequestColumn] = {}
    for name, column in columns.items():
        if name in context.request_data:
            request_data[name] = column
        elif name in context.join_keys:
            join_keys[name] = column
        elif name in context.join_key_of:
            warnings.warn("Using entity name is deprecated. Use join_key instead.", stacklevel=2)
            join_keys[context.join_key_of[name]] = column
    utils.ensure_request_data_values_exist(context.request_data, request_data)  # type: ignore[arg-type]
    response = GetOnlineFeaturesResponse(results=[])
    for name, column in {**join_keys, **request_data}.items():
        add_column(response, name, column.messages)
    names = {*context.names, *join_keys}
    if context.entityless:
        values = [DUMMY_ENTITY_VAL] * rows
        join_keys[DUMMY_ENTITY_ID] = _column(DUMMY_ENTITY_ID, values, DUMMY_ENTITY.value_type)
    return OnlineRequest(context, join_keys, names, response)


def _column(name: str, values: list[Any], kind: ValueType) -> RequestColumn:
    field, types = _UNCHECKED.get(kind, ("", set()))
    if types.issuperset(map(type, values)):
        return RequestColumn(values, [Value(**{field: value}) for value in values], kind)
    check_ids(name, values, kind)
    messages = python_values_to_proto_values(values, kind)
    return RequestColumn(messages, messages, kind)
