"""The rows of a view as documents of a search: vectors, times and what they are filtered by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from feast import FeatureView, Field, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from reki_feast.stores.search import EVENT_TIME, QueryError, Rows
from reki_feast.stores.search.columns import Column, NumberColumn, TextColumn, Values

from .decoding import LISTS, SCALARS, EncodedColumn, decode, nanoseconds
from .layouts import Layout, layout_of
from .wire import execute

_TEXTS = {ValueType.STRING: "string_val", ValueType.BYTES: "bytes_val"}


@dataclass(frozen=True)
class DocumentRows:
    """Where the documents of one view are read.

    Attributes:
        config: of the repo.
        view: the view.
        vector: the field that is searched.
        client: gives a client of the online store's Redis.
    """

    config: RepoConfig
    view: FeatureView
    vector: Field
    client: Callable[[], Any]

    @property
    def key_prefix(self) -> bytes:
        """How the keys of the rows begin."""
        return self._layout().key_prefix(self.view.join_keys)

    def entities(self) -> Iterator[bytes]:
        """All entities that have a row."""
        return self._layout().entities(self.client(), self.view.join_keys)

    def entities_of(self, keys: Sequence[bytes]) -> list[bytes]:
        """The entities of some keys, without those of other rows."""
        layout, join_keys = self._layout(), self.view.join_keys
        found = (layout.entity_of(key, join_keys) for key in dict.fromkeys(keys))
        return [entity for entity in found if entity is not None]

    def read(self, entities: Sequence[bytes], names: Sequence[str]) -> tuple[Rows, list[bytes]]:
        """The documents of some entities; and the entities that have none.

        A row without a vector, or with numbers that are not finite, is no document.

        Args:
            entities: a few thousand at most.
            names: what the rows may be filtered by.

        Raises:
            StoreError: vectors differ in length, or values are of another type than declared.
            redis.RedisError: Redis cannot be reached.
        """
        features = [name for name in names if name not in self._join_keys]
        layout = self._layout(features)
        fetched = layout.rows(execute(self.client(), *layout.read(entities)))
        vectors, valid = decode(fetched.columns[0], self.vector.dtype.to_value_type())
        valid &= np.fromiter((time is not None for time in fetched.timestamps), bool, len(valid))
        with np.errstate(over="ignore"):  # of doubles
            vectors = vectors.astype(np.float32, copy=False)
        valid &= np.isfinite(vectors).all(1)
        encoded = dict(zip(features, fetched.columns[1:], strict=True))
        at = np.flatnonzero(valid)
        numbers = at.tolist()
        kept = [entities[n] for n in numbers]
        stored = {name: [column[n] for n in numbers] for name, column in encoded.items()}
        columns = {name: self._values(name, kept, stored.get(name, ())) for name in names}
        rows = Rows(kept, vectors[at], nanoseconds(fetched.timestamps)[at], columns)
        return rows, [entities[n] for n in np.flatnonzero(~valid).tolist()]

    def ids(self, name: str, entities: Sequence[bytes]) -> list[Any]:
        """The values of a join key."""
        version = self.config.entity_key_serialization_version
        keys = (deserialize_entity_key(entity, version) for entity in entities)
        values = (key.entity_values[list(key.join_keys).index(name)] for key in keys)
        return [getattr(value, value.WhichOneof("val")) for value in values]

    def column(self, name: str) -> Column:
        """An empty column for a feature or join key.

        Raises:
            QueryError: the view has none of that name, or it is no number, time or text.
        """
        kind = self._kinds.get(name)
        if kind in _TEXTS:
            return TextColumn()
        if kind in SCALARS:
            values, _ = decode([], kind)
            return NumberColumn(values.dtype, int(kind is ValueType.UNIX_TIMESTAMP))
        named = [name for name, kind in self._kinds.items() if kind in SCALARS | set(_TEXTS)]
        raise QueryError(
            f"A filter names a number, time or text of feature view {self.view.name}",
            detail=f"{name!r}{f' is {kind.name}' if kind else ''}",
            hint=f"name one of {', '.join([*named, EVENT_TIME])}",
        )

    @property
    def _join_keys(self) -> dict[str, ValueType]:
        return {column.name: column.dtype.to_value_type() for column in self.view.entity_columns}

    @property
    def _kinds(self) -> dict[str, ValueType]:
        features = {field.name: field.dtype.to_value_type() for field in self.view.features}
        return {**self._join_keys, **features}

    def _layout(self, features: Sequence[str] = ()) -> Layout:
        return layout_of(self.config, self.view, [self.vector.name, *features])

    def _values(
        self, name: str, entities: Sequence[bytes], stored: EncodedColumn
    ) -> tuple[Values, np.ndarray]:
        if name in self._join_keys:
            return self.ids(name, entities), np.ones(len(entities), np.bool_)
        kind = self._kinds[name]
        if kind not in _TEXTS:
            return decode(stored, kind)
        texts = [getattr(Value.FromString(each or b""), _TEXTS[kind]) for each in stored]
        return texts, np.fromiter(map(bool, stored), np.bool_, len(stored))


def vector_field(view: FeatureView, wanted: Sequence[str] = ()) -> Field:
    """The field of a view that is searched.

    Args:
        view: the view.
        wanted: where several fields have an index, the one among these counts.

    Raises:
        QueryError: the view has none, or several.
    """
    fields = [field for field in view.features if field.vector_index]
    if len(fields) > 1:
        fields = [field for field in fields if field.name in wanted] or fields
    if len(fields) != 1 or fields[0].dtype.to_value_type() not in LISTS:
        found = ", ".join(f"{field.name}: {field.dtype}" for field in fields) or "none has"
        raise QueryError(
            f"One field of feature view {view.name} is a list of floats with vector_index=True",
            detail=found,
            hint="declare it: Field(name=…, dtype=Array(Float32), vector_index=True, "
            'vector_length=32, vector_search_metric="cosine"), then `feast apply`',
        )
    return fields[0]
