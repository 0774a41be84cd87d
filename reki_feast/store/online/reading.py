"""What one call of ``get_online_features`` reads: its views, their entities, and the answer.

The views are asked for in one go. How a view's rows stand in Redis is its layout's matter alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from feast import FeatureView, utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.value_type import ValueType

from reki_feast.store.defaults import default_values
from reki_feast.store.lifetimes import expired

from .keys import VERSION, RedisKeys
from .protobuf import Unsupported
from .read_layouts import Found, HashRows, Layout
from .requests import Column
from .response import add_version, add_view


class Part(NamedTuple):
    """What one view has to do with a call.

    Attributes:
        view: the view.
        features: those asked for.
        layout: how its rows stand in Redis.
        entities: the entity keys, each once, without the project.
        places: for each row of the call its entity's place; None where they are in order.
        span: nanoseconds for which rows are used; None for ever.
    """

    view: FeatureView
    features: list[str]
    layout: Layout
    entities: list[bytes]
    places: list[int] | None
    span: int | None

    def aged(self, found: Found) -> Found:
        """Rows, with those told that are too old."""
        if self.span is None:
            return found
        old = expired(found.times, self.span)
        return found if old is None else found._replace(old=old.tolist())


class Asked:
    """What a call asks of Redis, for all its views.

    Attributes:
        parts: the views.
        commands: packed.
        count: how many replies they have.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        each = [part.layout.ask(part.entities) for part in parts]
        self.parts = parts
        self.commands = b"".join([commands for commands, _ in each])
        self._counts = [count for _, count in each]
        self.count = sum(self._counts)

    def found(self, replies: Sequence[Any]) -> list[Found]:
        """The rows of each view's entities, out of all replies."""
        rows, first = [], 0
        for part, count in zip(self.parts, self._counts, strict=True):
            rows.append(part.aged(part.layout.found(replies[first : first + count])))
            first += count
        return rows


def part_of(
    view: FeatureView,
    features: Sequence[str],
    layout: Layout,
    given: Mapping[str, Any],
    join_key_of: Mapping[str, str],
    version: int,
    span: int | None,
) -> Part:
    """One view's part of a call.

    Args:
        view: the view.
        features: those asked for.
        layout: how its rows stand in Redis.
        given: the call's join keys, each a ``Column`` or a list of messages.
        join_key_of: each entity's join key, by the entity's name.
        version: of the serialization of entity keys.
        span: nanoseconds for which rows are used; None for ever.

    Raises:
        KeyError: none of the view's join keys is given, or they have no values.
        TypeError: a join key is null.
    """
    names: Any = join_key_of
    columns: Any = utils._get_table_entity_values(view, names, dict(given))
    try:
        entities = _entities({name: _column(found) for name, found in columns.items()}, version)
    except Unsupported:
        _feasts_fault(view, given, names)
        raise
    if not entities:
        _feasts_fault(view, given, names)
    unique = dict.fromkeys(entities)
    if len(unique) == len(entities):
        return Part(view, list(features), layout, entities, None, span)
    place = {entity: number for number, entity in enumerate(unique)}
    places = [place[one] for one in entities]
    return Part(view, list(features), layout, list(unique), places, span)


def fill(
    response: GetOnlineFeaturesResponse,
    asked: Asked,
    replies: Sequence[Any],
    full_names: bool,
    versions: bool,
) -> None:
    """Add the views' columns to an answer.

    Args:
        response: takes the columns.
        asked: the views.
        replies: to the commands.
        full_names: whether columns bear the view's name, too.
        versions: whether to add the views' versions.
    """
    for part, rows in zip(asked.parts, asked.found(replies), strict=True):
        if part.places is not None:
            rows = rows.at(part.places)
        view: Any = part.view
        prefix = f"{view.projection.name_to_use()}__" if full_names else ""
        names = [prefix + feature for feature in part.features]
        if versions:
            add_version(response, view)
        there = add_view(response, names, rows, _defaults(view, part.features))
        _tell(view.name, there, len(names) * len(rows.times) - there)


def hashes(asked: Asked) -> list[tuple[bytes, list[str | bytes]]]:
    """Keys and fields of the hashes that a call reads; none if it reads anything else, too."""
    found: list[tuple[bytes, list[str | bytes]]] = []
    for part in asked.parts:
        if not isinstance(part.layout, HashRows):
            return []
        found += [(key, [*part.layout.fields]) for key in part.layout.keys(part.entities)]
    return found


def _tell(view: str, there: int, lacking: int) -> None:
    """Tell Feast's metrics, which are off unless a feature server has loaded them."""
    if metrics := sys.modules.get("feast.metrics"):
        metrics.track_feature_statuses(view, there, lacking)


def _column(values: Any) -> Column:
    """A join key as it is, or as Feast's own code hands it over."""
    return values if isinstance(values, Column) else Column(values, values, ValueType.UNKNOWN)


def _entities(columns: Mapping[str, Column], version: int) -> list[bytes]:
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
    """Keys without a project: how it goes into a key is the layout's matter."""
    return RedisKeys("", dict(kinds))


def _feasts_fault(view: FeatureView, given: Mapping[str, Any], join_key_of: dict[str, str]) -> None:
    """Let Feast's own code say what is wrong with the join keys, if it finds anything."""
    messages = {name: _column(values).messages for name, values in given.items()}
    utils._get_unique_entities(view, messages, join_key_of)


def _defaults(view: FeatureView, features: Sequence[str]) -> list[bytes | None]:
    values = default_values(view)
    if not values:
        return [None] * len(features)
    return [values[name].SerializeToString() if name in values else None for name in features]
