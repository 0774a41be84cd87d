"""How feature views are made of a scenario's published tables, whichever views they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Array, Float32, Int64, String

from reki_feast.errors import Problem, StoreError
from reki_feast.schema import KINDS, Kind, factor_column, preference_column
from reki_feast.stores.defaults import SCENARIO_TAG, default_tag
from reki_feast.stores.names import case_problems
from reki_feast.stores.spaces import space_tag
from reki_feast.stores.versions import versions_tag

from .location import TableLocation, locate
from .manifest import Manifest, MatchSection, Side, published_spaces, read_manifest
from .tags import PAIRS_TAG, TRAINED_UNTIL_TAG, WEIGHTS_TAG

#: The ttl of views for which none is asked: `feast materialize-incremental` starts at now - ttl
#: and, for a ttl of 0, only a year back, which would leave out older snapshots.
FOREVER = timedelta(days=36_500)

#: What a space is of, after the scenario's name: a request reads each of one space.
VECTORS, SCORES, REPRESENTATIONS = "", ".match", ".encoding"

#: Columns of a row's times: what it is made of ends at the one, it was made at the other.
TIMES = ("event_timestamp", "created_timestamp")
_TYPES = {
    "int64": (ValueType.INT64, Int64),
    "string": (ValueType.STRING, String),
}
_ROWS = "one row an id and snapshot; event_timestamp is the time the knowledge ends"
_MATCH = {
    "user": (
        "The texts of what the user met last, by how much more than expected each was liked, and "
        "the user's vector of HEIN's tower: match scores are computed of it.",
        "one row a user and time at which that changed; event_timestamp comes after the "
        "interactions it counts",
    ),
    "item": (
        "The item's text, its vector of HEIN's tower, and the weights of scores: match scores are "
        "computed of it.",
        _ROWS,
    ),
}
#: The column of items' representations that is searched for those nearest to a vector.
SEARCHED = "description"
_CHANNELS = {
    "knowledge": "what a language model knows and infers",
    "liked": "what a language model infers from what the user liked",
    "disliked": "what a language model infers from what the user disliked",
    "history": "the user's own history, as text",
    "taste": "the mean of what is known of the items that the user liked last",
    "description": "the catalogue's own description",
}


class ViewOptions(TypedDict, total=False):
    """Options of ``reki_views`` and ``reki_match``, all of them optional.

    Attributes:
        ttl: age at which a row is no longer used, in training joins and by this package's online
            readers; by default never.
        prefix: first word of every view's name, where a repo has several scenarios; ``reki``.
        owner: who answers for the views; by default the scenario's owner.
        tags: tags of your own, added to every view.
        repo: the Feast repo in which a relative folder of tables starts; by default the one of the
            working folder, where `feast apply` runs, else the one on the Python path.
    """

    ttl: timedelta | None
    prefix: str
    owner: str
    tags: Mapping[str, str] | None
    repo: str | Path | None


@dataclass(frozen=True)
class ViewSettings:
    """:class:`ViewOptions` with their defaults."""

    ttl: timedelta | None = None
    prefix: str = "reki"
    owner: str = ""
    tags: Mapping[str, str] | None = None
    repo: str | Path | None = None


def view_maker(
    data: str | Path, entities: Mapping[Kind, Entity], settings: ViewSettings
) -> ViewMaker:
    """A maker of views over a scenario's published tables.

    Args:
        data: the scenario's folder; a relative one starts at the Feast repo.
        entities: the users' and the items'.
        settings: of the views.

    Raises:
        StoreError: nothing was published there, or an entity's key differs from the tables'.
    """
    location = locate(data, settings.repo)
    manifest = read_manifest(location.folder)
    _check_entities(manifest, entities)
    others = [
        ViewMaker(other, entities, settings, location)
        for other in published_spaces(location.folder)
    ]
    return ViewMaker(manifest, entities, settings, location, tuple(others))


def _check_entities(manifest: Manifest, entities: Mapping[Kind, Entity]) -> None:
    problems: list[Problem] = []
    for kind in KINDS:
        problems.extend(_entity_problems(manifest.sides[kind], entities[kind], kind))
    if problems:
        raise StoreError(problems)


def _entity_problems(side: Side, entity: Entity, kind: Kind) -> Iterator[Problem]:
    if entity.join_key != side.key:
        yield Problem(
            f"the tables' {kind} key is the join key of entity {entity.name}",
            detail=f"key {side.key!r} in the tables, {entity.join_key!r} in the entity",
            hint=f'{kind}_key="{entity.join_key}" in the Scenario, then `reki run`',
        )
    wanted = _TYPES[side.type][0]
    if entity.value_type not in (wanted, ValueType.UNKNOWN):
        yield Problem(
            f"{kind} ids have the value type of entity {entity.name}",
            detail=f"{wanted.name} in the tables, {entity.value_type.name} in the entity",
            hint=f"value_type=ValueType.{wanted.name} in the entity, or cast {side.key} in the "
            f'source of the Scenario (with {kind}_key="{entity.join_key}"), then `reki run`',
        )


@dataclass(frozen=True)
class _TableView:
    """What a view of one table differs in from the others.

    Attributes:
        table: its name.
        name: of the view.
        fields: the features.
        about: what they are.
        tags: of this view alone.
        rows: what a row of the table is.
    """

    table: str
    name: str
    fields: Sequence[Field]
    about: str
    tags: Mapping[str, str] = field(default_factory=dict)
    rows: str = _ROWS


@dataclass(frozen=True)
class ViewMaker:
    """What all views of a scenario share.

    Attributes:
        manifest: of the scenario.
        entities: the users' and the items'.
        settings: of the views.
        location: of the tables.
        others: makers of the views of the other published spaces: versions of these.
    """

    manifest: Manifest
    entities: Mapping[Kind, Entity]
    settings: ViewSettings
    location: TableLocation
    others: tuple[ViewMaker, ...] = ()

    @property
    def prefix(self) -> str:
        """First word of every view's name."""
        return self.settings.prefix

    @property
    def owner(self) -> str:
        """Who answers for the views."""
        return self.settings.owner or self.manifest.owner

    def augmented(self, kind: Kind) -> FeatureView:
        """The augmented vectors, with the default vector in a tag."""
        side = self.manifest.sides[kind]
        table = f"{kind}_aug"
        self._check_published(table)
        about = (
            f"Augmented {kind} vector: open-world knowledge of a language model, condensed "
            f"to {side.q} numbers by HEIN. An unknown {side.key} gets the default vector."
        )
        fields = [Field(name=table, dtype=Array(Float32), description=about)]
        name = self.prefix if kind == "user" else f"{self.prefix}_item"
        tags = {
            "reki.dimension": str(side.q),
            **default_tag({table: side.default}),
            **self.space_tags(VECTORS, [other.augmented(kind) for other in self.others]),
        }
        if self.manifest.pairs:
            tags[PAIRS_TAG] = json.dumps(self.manifest.pairs)
        return self._view(kind, _TableView(table, name, fields, about, tags))

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
        return self._view(kind, _TableView(table, f"{self.prefix}_{table}", fields, about))

    def representation(self, kind: Kind) -> FeatureView | None:
        """The encoded channels, for those who train a HEIN of their own."""
        table = f"{kind}_representation"
        if not self.manifest.has(table):
            return None
        m = self.manifest.m
        fields = [self._encoded(channel) for channel in self.manifest.sides[kind].channels]
        about = f"Each {kind}'s texts as vectors of the encoder, before HEIN condenses them."
        mine = self.manifest.space.encoding
        versions = {
            other.manifest.space.encoding: other.representation(kind)
            for other in self.others
            if other.manifest.space.encoding != mine
        }
        tags = {
            "reki.dimension": str(m),
            **self.space_tags(REPRESENTATIONS, [one for one in versions.values() if one]),
        }
        return self._view(kind, _TableView(table, f"{self.prefix}_{table}", fields, about, tags))

    def _encoded(self, column: str) -> Field:
        """A column of representations; Feast has one vector index a view."""
        m, is_searched = self.manifest.m, column == SEARCHED
        factors = {preference_column(name): name for name in self.manifest.factors}
        said = f"what a language model knows of: {factors.get(column, column)}"
        return Field(
            name=column,
            dtype=Array(Float32),
            description=f"{m} numbers, encoded from {_CHANNELS.get(column, said)}",
            vector_index=is_searched,
            vector_length=m if is_searched else 0,
            vector_search_metric="cosine" if is_searched else None,
        )

    def match(self, kind: Kind, section: MatchSection) -> FeatureView:
        """The vectors that match scores are computed of, with the default vectors in a tag."""
        table = f"{kind}_match"
        self._check_published(table)
        about, rows = _MATCH[kind]
        fields = [_vector(table, section.lengths[kind], about)]
        vectors: dict[str, Sequence[float]] = {table: section.default[kind]}
        if kind == "user":
            fields.append(_vector("user_sums", section.sums, "Sums that the vector is made of"))
            vectors["user_sums"] = [0.0] * section.sums
        name = f"{self.prefix}_{table}"
        versions = [
            other.match(kind, other.manifest.match) for other in self.others if other.manifest.match
        ]
        tags = {**default_tag(vectors), **self.space_tags(SCORES, versions)}
        return self._view(kind, _TableView(table, name, fields, about, tags, rows))

    def space_tags(
        self, of: str, versions: Sequence[FeatureView | OnDemandFeatureView]
    ) -> dict[str, str]:
        """The tags that say in which space a view's rows are, and what its other versions are.

        Args:
            of: what the rows are: vectors, scores or representations, a request reads each of one
                space.
            versions: the view in other spaces.
        """
        space = self.manifest.space
        name = space.encoding_name if of == REPRESENTATIONS else space.name
        group = f"{self.manifest.scenario}{of}"
        return {**space_tag(group, name), **versions_tag(versions)}

    def _check_published(self, table: str) -> None:
        if not self.manifest.has(table):
            raise StoreError(
                f"Table {table} of scenario {self.manifest.scenario} is published",
                detail=f"no Parquet file in {self.manifest.folder / self.manifest.table(table)}",
                hint="run `reki run`, or `reki publish` if the vectors are made already",
            )

    def _view(self, kind: Kind, view: _TableView) -> FeatureView:
        side, scenario = self.manifest.sides[kind], self.manifest.scenario
        columns = [side.key, *(field.name for field in view.fields), *TIMES]
        hint = f"rename the key's column: another {kind}_key in the Scenario, then `reki run`"
        if problems := case_problems(f"Feature view {view.name}", columns, hint):
            raise StoreError(problems)
        key = Field(name=side.key, dtype=_TYPES[side.type][1], description=f"Id of the {kind}")
        return FeatureView(
            name=view.name,
            entities=[self.entities[kind]],
            ttl=self.settings.ttl or FOREVER,
            schema=[key, *view.fields],
            source=self._source(view),
            description=f"{view.about} Scenario {scenario}: {self.manifest.description}".rstrip(
                ": "
            ),
            owner=self.owner,
            tags={**self.shared_tags(), **view.tags, **(self.settings.tags or {})},
        )

    def _source(self, view: _TableView) -> FileSource:
        return FileSource(
            name=f"{view.name}_source",
            path=str(self.location.path / self.manifest.table(view.table)),
            tags={**self.location.tags},
            file_format=ParquetFormat(),
            timestamp_field=TIMES[0],
            created_timestamp_column=TIMES[1],
            description=f"Table {view.table} of scenario {self.manifest.scenario}, written by "
            f"`reki publish`: {view.rows}",
            owner=self.owner,
        )

    def shared_tags(self) -> dict[str, str]:
        """Tags of every view of the scenario."""
        tags = {
            SCENARIO_TAG: self.manifest.scenario,
            "reki.encoder": self.manifest.encoder,
            WEIGHTS_TAG: self.manifest.weights,
            TRAINED_UNTIL_TAG: self.manifest.trained_until,
        }
        return {tag: value for tag, value in tags.items() if value}


def _vector(name: str, length: int, about: str) -> Field:
    return Field(name=name, dtype=Array(Float32), description=about, vector_length=length)
