"""What a call of ``get_online_features`` asks for, and the entities it names.

Working out the views and features behind references takes Feast milliseconds, so it remembers them:
for the whole process, by the project's name and the references alone. Two stores whose projects
have one name then answer with each other's views. ``Requests`` remembers for one store, and asks
Feast through ``Unremembered``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from feast import FeatureService, FeatureView, utils
from feast.feature_view import DUMMY_ENTITY, DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from reki_feast.store.ids import check_ids

from .response import add_known

#: How many different requests are remembered.
MOST = 512
#: Values that become messages without a look at each, and the field of the message.
_QUICK: dict[ValueType, tuple[str, set[type]]] = {
    ValueType.INT32: ("int32_val", {int, np.int32, np.int64}),
    ValueType.INT64: ("int64_val", {int, np.int32, np.int64}),
    ValueType.STRING: ("string_val", {str}),
}


class Context(NamedTuple):
    """What references mean, as ``feast.utils._get_cached_request_context`` gives it, and types.

    Attributes:
        refs: the features asked for, ``view:feature``.
        on_demand: on-demand views among them.
        join_key_of: each entity's join key, by the entity's name.
        kinds: each join key's type.
        join_keys: the names under which join keys may be given.
        views: the views to read, with the names of their features.
        names: of the answer's columns.
        request_data: of the values that on-demand views want from the caller.
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
class Column:
    """One entity's or one requested value's column.

    Attributes:
        values: as they were given, or messages; both make the same Redis key.
        messages: as Feast's messages.
        kind: their type.
    """

    values: Sequence[Any]
    messages: list[Value]
    kind: ValueType

    def __len__(self) -> int:
        return len(self.messages)


class Request(NamedTuple):
    """A call, ready to be read.

    Attributes:
        context: what its references mean.
        join_keys: join key to its values.
        names: of the answer's columns, join keys among them.
        response: holds the columns that came with the call.
    """

    context: Context
    join_keys: dict[str, Column]
    names: set[str]
    response: GetOnlineFeaturesResponse


class Unremembered:
    """A registry that says of itself that it has no state one could remember."""

    cached_registry_proto_created = None

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


class _Known(NamedTuple):
    """What is remembered of one state of one registry."""

    registry: Any
    created: Any
    contexts: dict[tuple[Any, ...], Context]


class Requests:
    """The calls of one online store."""

    def __init__(self) -> None:
        self._known = _Known(None, None, {})

    def request(
        self, registry: Any, project: str, features: Any, rows: Any, full_names: bool
    ) -> Request:
        """One call.

        Args:
            registry: the repo's.
            project: Feast's.
            features: references or a feature service.
            rows: entities, row by row or column by column.
            full_names: whether columns bear the view's name, too.

        Raises:
            ValueError: rows that don't fit together; and whatever Feast raises.
            StoreError: an id that its entity's type would change.
        """
        context = self.context(registry, project, features, full_names)
        return _request(context, rows_to_columns(rows) if isinstance(rows, list) else rows)

    def context(self, registry: Any, project: str, features: Any, full_names: bool) -> Context:
        """What references mean, as of the registry's present state."""
        created = getattr(registry, "cached_registry_proto_created", None)
        key = (_features_key(features), project, full_names)
        known = self._known
        fresh = known.registry is registry and known.created == created
        if created is not None and fresh and _valid(registry):
            found = known.contexts.get(key)
            if found is not None:
                return found
        context = _context(registry, project, features, full_names)
        # A registry that was read anew on the way may have answered of two states.
        if created is not None and created == getattr(
            registry, "cached_registry_proto_created", None
        ):
            if not fresh or len(known.contexts) >= MOST:
                known = self._known = _Known(registry, created, {})
            known.contexts[key] = context
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
    """All of a service that tells what is read: Feast takes its name for it."""
    if not isinstance(features, FeatureService):
        return tuple(features)
    pending = getattr(features, "_pending_feature_refs", None) or ()
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


def _context(registry: Any, project: str, features: Any, full_names: bool) -> Context:
    asking: Any = Unremembered(registry)
    found: Any = utils._get_cached_request_context(asking, project, features, full_names)
    return Context._make((*found, OnlineStore._build_feature_types(found[5])))


def _request(context: Context, given: Mapping[str, Any]) -> Request:
    columns = {
        name: _column(
            name,
            list(values) if isinstance(values, Sequence) else list(values.val),  # RepeatedValue
            context.kinds.get(name, ValueType.UNKNOWN),
        )
        for name, values in given.items()
    }
    rows = utils._validate_entity_values(columns)  # type: ignore[arg-type]
    join_keys: dict[str, Column] = {}
    request_data: dict[str, Column] = {}
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
        add_known(response, name, column.messages)
    names = {*context.names, *join_keys}
    if context.entityless:
        values = [DUMMY_ENTITY_VAL] * rows
        join_keys[DUMMY_ENTITY_ID] = _column(DUMMY_ENTITY_ID, values, DUMMY_ENTITY.value_type)
    return Request(context, join_keys, names, response)


def _column(name: str, values: list[Any], kind: ValueType) -> Column:
    field, types = _QUICK.get(kind, ("", set()))
    if types.issuperset(map(type, values)):
        return Column(values, [Value(**{field: value}) for value in values], kind)
    check_ids(name, values, kind)
    messages = python_values_to_proto_values(values, kind)
    return Column(messages, messages, kind)
