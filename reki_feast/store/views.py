"""Feature views of a published scenario, over the entities of whoever asks.

In any file of a Feast repo::

    from reki_feast.store import reki_views
    globals().update(reki_views("../data/movies", user=customer, item=sku).by_name())

Feast finds feature views by the names of a module and does not look into lists or tuples: so the
second line puts them among the module's names. Unpacking into six names does the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, String

from reki_feast.errors import Fault, StoreError
from reki_feast.schema import KINDS, Kind, factor_column

from .defaults import SCENARIO_TAG, TRAINED_UNTIL_TAG, default_tag
from .manifest import Manifest, Side, read_manifest
from .match import PAIRS_TAG, WEIGHTS_TAG

#: The ttl of views for which none is asked: `feast materialize-incremental` starts at now - ttl
#: and, for a ttl of 0, only a year back, which would leave out older snapshots.
FOREVER = timedelta(days=36_500)

_TYPES = {
    "int64": (ValueType.INT64, Int64),
    "string": (ValueType.STRING, String),
}
_CHANNELS = {
    "knowledge": "what a language model knows and infers",
    "liked": "what a language model infers from what the user liked",
    "disliked": "what a language model infers from what the user disliked",
    "history": "the user's own history, as text",
    "taste": "the mean of what is known of the items that the user liked last",
    "description": "the catalogue's own description",
}


class RekiViews(NamedTuple):
    """The six views of a scenario; None for a table that was not published.

    Attributes:
        user: ``reki``, feature ``user_aug``.
        item: ``reki_item``, feature ``item_aug``.
        user_knowledge: ``reki_user_knowledge``, texts.
        item_knowledge: ``reki_item_knowledge``, texts.
        user_representation: ``reki_user_representation``, one vector a channel.
        item_representation: ``reki_item_representation``, one vector a channel.
    """

    user: FeatureView
    item: FeatureView
    user_knowledge: FeatureView | None
    item_knowledge: FeatureView | None
    user_representation: FeatureView | None
    item_representation: FeatureView | None

    def views(self) -> list[FeatureView]:
        """The views that there are, for ``FeatureStore.apply`` or a FeatureService."""
        return [view for view in self if view is not None]

    def by_name(self) -> dict[str, FeatureView]:
        """The views that there are, by name: ``globals().update(views.by_name())``."""
        return {view.name: view for view in self.views()}


def reki_views(
    data: str | Path,
    *,
    user: Entity,
    item: Entity,
    ttl: timedelta | None = None,
    prefix: str = "reki",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> RekiViews:
    """Feature views over a scenario's published tables, for entities that exist already.

    Args:
        data: the scenario's folder, ``<project>/data/<scenario>``; a relative one starts at the
            Feast repo that the calling file is in.
        user: entity of the users; its join key and value type are those of the tables.
        item: entity of the items.
        ttl: age at which a vector is no longer used in training joins; None for never.
        prefix: first word of every view's name, to tell scenarios apart.
        owner: who answers for the views; by default the scenario's owner.
        tags: tags of your own, added to every view.

    Raises:
        StoreError: nothing was published there, or an entity's key differs from the tables'.
    """
    manifest = read_manifest(_located(Path(data), sys._getframe(1).f_globals.get("__file__")))
    entities: dict[Kind, Entity] = {"user": user, "item": item}
    _check_entities(manifest, entities)
    make = _Maker(manifest, entities, ttl or FOREVER, prefix, owner or manifest.owner, tags or {})
    return RekiViews(
        make.augmented("user"),
        make.augmented("item"),
        make.knowledge("user"),
        make.knowledge("item"),
        make.representation("user"),
        make.representation("item"),
    )


def _located(data: Path, caller: str | None) -> Path:
    """An absolute folder: Feast's stores disagree about where relative ones start."""
    data = data.expanduser()
    if data.is_absolute():
        return data.resolve()
    for folder in Path(caller).resolve().parents if caller else ():
        if (folder / "feature_store.yaml").is_file():
            return (folder / data).resolve()
    return data.resolve()


def _check_entities(manifest: Manifest, entities: Mapping[Kind, Entity]) -> None:
    faults: list[Fault] = []
    for kind in KINDS:
        faults.extend(_entity_faults(manifest.sides[kind], entities[kind], kind))
    if faults:
        raise StoreError(faults)


def _entity_faults(side: Side, entity: Entity, kind: Kind) -> Iterator[Fault]:
    if entity.join_key != side.key:
        yield Fault(
            f"the tables' {kind} key is the join key of entity {entity.name}",
            found=f"key {side.key!r} in the tables, {entity.join_key!r} in the entity",
            mend=f'{kind}_key="{entity.join_key}" in the Scenario, then `reki run`',
        )
    wanted = _TYPES[side.type][0]
    if entity.value_type not in (wanted, ValueType.UNKNOWN):
        yield Fault(
            f"{kind} ids have the value type of entity {entity.name}",
            found=f"{wanted.name} in the tables, {entity.value_type.name} in the entity",
            mend=f"value_type=ValueType.{wanted.name} in the entity, or cast {side.key} in the "
            f'source of the Scenario (with {kind}_key="{entity.join_key}"), then `reki run`',
        )


@dataclass(frozen=True)
class _Maker:
    """What all views of a scenario share."""

    manifest: Manifest
    entities: Mapping[Kind, Entity]
    ttl: timedelta
    prefix: str
    owner: str
    tags: Mapping[str, str]

    def augmented(self, kind: Kind) -> FeatureView:
        """The augmented vectors, with the default vector in a tag."""
        side = self.manifest.sides[kind]
        table = f"{kind}_aug"
        if not self.manifest.has(table):
            raise StoreError(
                f"Table {table} of scenario {self.manifest.scenario} is published",
                found=f"no Parquet file in {self.manifest.folder / table}",
                mend="run `reki run`, or `reki publish` if the vectors are made already",
            )
        about = (
            f"Augmented {kind} vector: open-world knowledge of a language model, condensed "
            f"to {side.q} numbers by HEIN. An unknown {side.key} gets the default vector."
        )
        fields = [Field(name=table, dtype=Array(Float32), description=about)]
        name = self.prefix if kind == "user" else f"{self.prefix}_item"
        tags = {"reki.dimension": str(side.q), **default_tag(table, side.default)}
        if self.manifest.pairs:
            tags[PAIRS_TAG] = json.dumps(self.manifest.pairs)
        return self._view(kind, table, name, fields, about, tags)

    def knowledge(self, kind: Kind) -> FeatureView | None:
        """The texts, whole and by factor, and where they come from."""
        table = f"{kind}_knowledge"
        if not self.manifest.has(table):
            return None
        texts = {
            "text": "Everything the language model said, as one text",
            **{factor_column(f): f"What it said about: {f}" for f in self.manifest.factors},
            "group": f"Group the knowledge was asked for; empty when for the {kind} alone",
            "model": "Language model that wrote it",
            "prompt_hash": "Hash of the prompt it answers",
        }
        fields = [Field(name=n, dtype=String, description=about) for n, about in texts.items()]
        about = f"Open-world knowledge about each {kind}, written by a language model."
        return self._view(kind, table, f"{self.prefix}_{table}", fields, about, {})

    def representation(self, kind: Kind) -> FeatureView | None:
        """The encoded channels, for those who train a HEIN of their own."""
        table = f"{kind}_representation"
        if not self.manifest.has(table):
            return None
        m = self.manifest.m
        fields = [
            Field(
                name=channel,
                dtype=Array(Float32),
                description=f"{m} numbers, encoded from {_CHANNELS.get(channel, channel)}",
            )
            for channel in self.manifest.sides[kind].channels
        ]
        about = f"Each {kind}'s texts as vectors of the encoder, before HEIN condenses them."
        tags = {"reki.dimension": str(m)}
        return self._view(kind, table, f"{self.prefix}_{table}", fields, about, tags)

    def _view(
        self,
        kind: Kind,
        table: str,
        name: str,
        fields: list[Field],
        about: str,
        tags: Mapping[str, str],
    ) -> FeatureView:
        side = self.manifest.sides[kind]
        key = Field(name=side.key, dtype=_TYPES[side.type][1], description=f"Id of the {kind}")
        scenario = self.manifest.scenario
        source = FileSource(
            name=f"{name}_source",
            path=str(self.manifest.folder / table),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
            description=f"Table {table} of scenario {scenario}, written by `reki publish`: one "
            "row an id and snapshot; event_timestamp is the time the knowledge ends",
            owner=self.owner,
        )
        return FeatureView(
            name=name,
            entities=[self.entities[kind]],
            ttl=self.ttl,
            schema=[key, *fields],
            source=source,
            description=f"{about} Scenario {scenario}: {self.manifest.description}".rstrip(": "),
            owner=self.owner,
            tags={**self._shared_tags(), **tags, **self.tags},
        )

    def _shared_tags(self) -> dict[str, str]:
        known = {
            SCENARIO_TAG: self.manifest.scenario,
            "reki.encoder": self.manifest.encoder,
            WEIGHTS_TAG: self.manifest.weights,
            TRAINED_UNTIL_TAG: self.manifest.trained_until,
        }
        return {tag: value for tag, value in known.items() if value}
