"""What of which source is asked for, in the names that Feast's views give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
from feast import FeatureView, FileSource
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
from feast.types import String

from reki_feast.stores.defaults import default_vectors

from .asof import JoinFeature, ViewJoin
from .entities import Entities, entities_of, instant
from .query import name
from .sources import Source, missing_columns, open_source


@dataclass(frozen=True)
class ViewTable:
    """A view's source, its columns under the names that the view has for them.

    Attributes:
        view: the feature view.
        declared: its source, as declared.
        source: its table.
        columns: the table's column by name.
    """

    view: FeatureView
    declared: FileSource
    source: Source
    columns: Mapping[str, str]

    def column(self, wanted: str) -> str:
        """The table's column of a name.

        Raises:
            StoreError: there is none.
        """
        mapped = self.declared.field_mapping.get(wanted, wanted)
        for known in (wanted, mapped):
            if known in self.columns:
                return self.columns[known]
        raise missing_columns(
            f"The source of feature view {self.view.name}", [wanted], self.columns
        )

    @property
    def keys(self) -> dict[str, str]:
        """Names of the view's keys by the names that entity rows have for them.

        All keys join, also where only some are renamed; Feast's DuckDB store forgets the others.
        """
        renamed = self.view.projection.join_key_map or {}
        return {renamed.get(e.name, e.name): e.name for e in self.view.entity_columns}


def tables_of(
    connection: duckdb.DuckDBPyConnection, views: Sequence[FeatureView], repo: str
) -> list[ViewTable]:
    """Look the sources of views up; a key that is text is read as text, also where a folder has it.

    Raises:
        StoreError: a source is not there or cannot be read.
    """
    tables = []
    for n, view in enumerate(views):
        declared = view.batch_source
        assert isinstance(declared, FileSource)
        named = {new: old for old, new in declared.field_mapping.items()}
        keys = [key.name for key in view.entity_columns if key.dtype == String]
        texts = [named.get(key, key) for key in keys]
        source = open_source(connection, declared, repo, f"source_{n}", texts)
        tables.append(ViewTable(view, declared, source, _named(source, declared)))
    return tables


def _named(source: Source, declared: FileSource) -> dict[str, str]:
    """Columns by name, after the source's field mapping."""
    mapping = {old: new for old, new in declared.field_mapping.items() if old in source.types}
    kept = {column: column for column in source.types if column not in mapping}
    return {**kept, **{new: old for old, new in mapping.items()}}


def plan_joins(
    entities: Entities, tables: Sequence[ViewTable], refs: Sequence[str], full_names: bool
) -> list[ViewJoin]:
    """What to join to entity rows.

    Args:
        entities: the rows.
        tables: of the views, in order.
        refs: features asked for, ``view:feature``.
        full_names: whether columns are named ``view__feature``.

    Raises:
        StoreError: a column is missing on either side.
    """
    return [_joined(entities, t, n, refs, full_names) for n, t in enumerate(tables)]


def _joined(
    entities: Entities, table: ViewTable, n: int, refs: Sequence[str], full_names: bool
) -> ViewJoin:
    declared = table.declared
    features = tuple(_features(table, refs, full_names))
    keys = []
    for row_key, key in table.keys.items():
        column = table.column(key)
        keys.append((entities.column(row_key), column))
    time = table.column(declared.timestamp_field)
    made = declared.created_timestamp_column
    created = table.column(made) if made else None
    asked = [*(c for _, c in keys), time, *(f.column for f in features)]
    source = table.source.holding([*asked, *([created] if created else [])], f"copy_{n}")
    return ViewJoin(source, tuple(keys), time, created, table.view.ttl or None, features)


def _features(table: ViewTable, refs: Sequence[str], full_names: bool) -> list[JoinFeature]:
    projection: Any = table.view.projection
    asked = f"{projection.name_to_use()}:"
    prefix = f"{projection.name_alias or table.view.name}__" if full_names else ""
    defaults = default_vectors(table.view)
    wanted = [ref.split(":")[1] for ref in refs if ref.startswith(asked)]
    return [JoinFeature(table.column(f), prefix + f, defaults.get(f)) for f in wanted]


def entities_in_range(
    connection: duckdb.DuckDBPyConnection,
    tables: Sequence[ViewTable],
    start: datetime,
    end: datetime,
) -> Entities:
    """Entity rows of a range: one for each key and time at which a view has a row.

    Keys that a view lacks are null in its rows.
    """
    parts = []
    for table in tables:
        at = f"{name(table.column(table.declared.timestamp_field))}::TIMESTAMPTZ"
        shown = [f"{at} AS {name(DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL)}"]
        shown += [f"{name(table.column(key))} AS {name(row)}" for row, key in table.keys.items()]
        parts.append(
            f"SELECT DISTINCT {', '.join(shown)} FROM {table.source.scan} "
            f"WHERE {at} BETWEEN {instant(start)} AND {instant(end)}"
        )
    return entities_of(connection, "\nUNION BY NAME\n".join(parts))
