"""How feature views are made of a scenario's published tables, whichever views they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, String

from reki_feast.errors import Fault, StoreError
from reki_feast.schema import KINDS, Kind, factor_column

from .defaults import FROM_REPO_TAG, SCENARIO_TAG, TRAINED_UNTIL_TAG, default_tag, default_tags
from .manifest import Manifest, MatchSection, Side, read_manifest
from .names import case_faults
from .scores import PAIRS_TAG, WEIGHTS_TAG

#: The ttl of views for which none is asked: `feast materialize-incremental` starts at now - ttl
#: and, for a ttl of 0, only a year back, which would leave out older snapshots.
FOREVER = timedelta(days=36_500)

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
_CHANNELS = {
    "knowledge": "what a language model knows and infers",
    "liked": "what a language model infers from what the user liked",
    "disliked": "what a language model infers from what the user disliked",
    "history": "the user's own history, as text",
    "taste": "the mean of what is known of the items that the user liked last",
    "description": "the catalogue's own description",
}


def view_maker(
    data: str | Path,
    caller: str | None,
    *,
    user: Entity,
    item: Entity,
    ttl: timedelta | None,
    prefix: str,
    owner: str,
    tags: Mapping[str, str] | None,
) -> ViewMaker:
    """A maker of views over a scenario's published tables.

    Args:
        data: the scenario's folder; a relative one starts at the Feast repo of the caller.
        caller: the file that asks for the views.
        user: entity of the users.
        item: entity of the items.
        ttl: None for never.
        prefix: first word of every view's name.
        owner: by default the scenario's.
        tags: added to every view.

    Raises:
        StoreError: nothing was published there, or an entity's key differs from the tables'.
    """
    repo = _repo(caller)
    data = Path(data).expanduser()
    manifest = read_manifest(((repo or Path()) / data).resolve())
    entities: dict[Kind, Entity] = {"user": user, "item": item}
    _check_entities(manifest, entities)
    relative = repo is not None and not data.is_absolute() and _starts_in_repo(repo)
    place = Path(os.path.normpath(data)) if relative else manifest.folder
    start = {FROM_REPO_TAG: "true" if relative else "false"}
    if not relative and not data.is_absolute():
        start = {}
    return ViewMaker(
        manifest,
        entities,
        ttl or FOREVER,
        prefix,
        owner or manifest.owner,
        tags or {},
        place,
        start,
    )


def _repo(caller: str | None) -> Path | None:
    """The Feast repo that a file is in."""
    folders = Path(caller).resolve().parents if caller else ()
    return next((f for f in folders if (f / "feature_store.yaml").is_file()), None)


def _starts_in_repo(repo: Path) -> bool:
    """Whether its offline store has relative paths start in the repo; not all of Feast's do.

    With such paths in the registry a project can be moved, and applied elsewhere than it is used.
    """
    try:
        text = os.path.expandvars((repo / "feature_store.yaml").read_text(encoding="utf-8"))
        said = (yaml.safe_load(text) or {}).get("offline_store") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return False  # Feast will say what is wrong with it
    kind = said.get("type", "dask") if isinstance(said, dict) else said
    return kind in ("dask", "file") or str(kind).startswith("reki_feast.store.")


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
class ViewMaker:
    """What all views of a scenario share.

    Attributes:
        manifest: of the scenario.
        entities: the users' and the items'.
        ttl: age at which a row is no longer used.
        prefix: first word of every view's name.
        owner: who answers for the views.
        tags: of the caller's own, added to every view.
        place: the scenario's folder as sources name it: absolute, or from the Feast repo on.
        start: the sources' tag that says which.
    """

    manifest: Manifest
    entities: Mapping[Kind, Entity]
    ttl: timedelta
    prefix: str
    owner: str
    tags: Mapping[str, str]
    place: Path
    start: Mapping[str, str]

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
        return self._view(kind, table, name, fields, about, default_tags(vectors), rows)

    def _check_published(self, table: str) -> None:
        if not self.manifest.has(table):
            raise StoreError(
                f"Table {table} of scenario {self.manifest.scenario} is published",
                found=f"no Parquet file in {self.manifest.folder / table}",
                mend="run `reki run`, or `reki publish` if the vectors are made already",
            )

    def _view(
        self,
        kind: Kind,
        table: str,
        name: str,
        fields: list[Field],
        about: str,
        tags: Mapping[str, str],
        rows: str = _ROWS,
    ) -> FeatureView:
        side = self.manifest.sides[kind]
        columns = [side.key, *(field.name for field in fields), *TIMES]
        mend = f"rename the key's column: another {kind}_key in the Scenario, then `reki run`"
        if faults := case_faults(f"Feature view {name}", columns, mend):
            raise StoreError(faults)
        key = Field(name=side.key, dtype=_TYPES[side.type][1], description=f"Id of the {kind}")
        scenario = self.manifest.scenario
        source = FileSource(
            name=f"{name}_source",
            path=str(self.place / table),
            tags={**self.start},
            file_format=ParquetFormat(),
            timestamp_field=TIMES[0],
            created_timestamp_column=TIMES[1],
            description=f"Table {table} of scenario {scenario}, written by `reki publish`: {rows}",
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
            tags={**self.shared_tags(), **tags, **self.tags},
        )

    def shared_tags(self) -> dict[str, str]:
        """What every view says of the scenario."""
        known = {
            SCENARIO_TAG: self.manifest.scenario,
            "reki.encoder": self.manifest.encoder,
            WEIGHTS_TAG: self.manifest.weights,
            TRAINED_UNTIL_TAG: self.manifest.trained_until,
        }
        return {tag: value for tag, value in known.items() if value}


def _vector(name: str, length: int, about: str) -> Field:
    return Field(name=name, dtype=Array(Float32), description=about, vector_length=length)
