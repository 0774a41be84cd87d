"""A Feast repo over vectors of customers and goods, in one space or several; no REKI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.cli.cli import cli
from feast.types import Array, Float32, Int64, String

from reki_feast.stores.defaults import default_tag
from reki_feast.stores.formulas import DotProducts, formula_view
from reki_feast.stores.registry import STORE
from reki_feast.stores.repo_process import call_in_repo
from reki_feast.stores.spaces import space_tag
from reki_feast.stores.versions import pinned, versions_tag

WHEN = datetime(2026, 6, 1, tzinfo=UTC)
END = datetime(2026, 9, 1, tzinfo=UTC)
CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
ARTICLE = Entity(name="article", join_keys=["sku"], value_type=ValueType.STRING)
SKUS = [f"s{n}" for n in range(4)]
ROWS = [{"customer_id": n, "sku": sku} for n, sku in enumerate(SKUS)]
REFS = ["taste:likes", "style:looks"]
FEATURES = """
from functools import partial
from pathlib import Path
from tests.stores.toy_shop import Shop
globals().update(Shop.read(Path(__file__).parent).objects())
"""
OURS = {
    "offline_store": {"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
    "batch_engine": {"type": "reki_feast.stores.engine.RekiComputeEngine"},
    "provider": "local",
    "entity_key_serialization_version": 3,
}
REGISTRY = {
    "path": "registry.db",
    "registry_store_type": STORE,
    "enable_online_feature_view_versioning": True,
}


def shop_config(redis: str, project: str, **online: Any) -> dict[str, Any]:
    """``feature_store.yaml`` with our stores; with other options of the online store."""
    kind = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
    options = {"type": kind, "connection_string": redis, **online}
    return {**OURS, "registry": REGISTRY, "project": project, "online_store": options}


def run_feast(*command: str) -> None:
    cli([*command], standalone_mode=False)


def vector(space: int, row: int) -> list[float]:
    """What is stored in a space: the first number tells the space."""
    return [float(space + 1), float(row)]


def default(space: int) -> list[float]:
    return [float(space + 1), -1.0]


@dataclass
class Shop:
    """A repo's folder.

    Attributes:
        repo: the folder.
        spaces: number to id of the living spaces; an empty id is of a project without spaces.
        service: number of the space in service.
        refs: of the feature service ``pinned``: references as text.
        pins: number of the version of both views that the feature service ``held`` holds.
    """

    repo: Path
    spaces: dict[int, str]
    service: int = 0
    refs: Sequence[str] = ()
    pins: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def after(self, **changes: Any) -> Shop:
        """The same repo with changes, written."""
        return replace(self, **changes).write()

    def write(self) -> Shop:
        """The files of the repo, and the tables of its spaces."""
        self.repo.mkdir(parents=True, exist_ok=True)
        for number, id in self.spaces.items():
            self._write_tables(number, id)
        said = {**vars(self), "repo": "", "config": ""}
        (self.repo / "shop.json").write_text(json.dumps(said))
        (self.repo / "features.py").write_text(FEATURES)
        # JSON is YAML
        (self.repo / "feature_store.yaml").write_text(json.dumps({**self.config}))
        return self

    @classmethod
    def read(cls, repo: Path) -> Shop:
        said = json.loads((repo / "shop.json").read_text())
        spaces = {int(number): id for number, id in said["spaces"].items()}
        return cls(repo, spaces, said["service"], said["refs"], said["pins"])

    def feast(self, *command: str) -> None:
        """A command of Feast's, in the repo."""
        call_in_repo(self.repo, f"{__name__}:run_feast", *command)

    def store(self) -> FeatureStore:
        return FeatureStore(repo_path=str(self.repo))

    def objects(self) -> dict[str, Any]:
        """Entities, views in service with their versions, and feature services, by name."""
        taste, style, fit = map(self._in_service, ("taste", "style", "fit"))
        made = {"customer": CUSTOMER, "article": ARTICLE, "taste": taste, "style": style}
        services = [FeatureService(name="in_service", features=[taste, style])]
        if self.refs:
            services.append(FeatureService(name="pinned", features=[*self.refs]))
        if self.pins is not None:
            held = [pinned(taste, self.pins)[["likes"]], pinned(style, self.pins)[["looks"]]]
            services.append(FeatureService(name="held", features=held))
        return {**made, "fit": fit, **{service.name: service for service in services}}

    def _in_service(self, name: str) -> Any:
        make = self._fit if name == "fit" else partial(self._view, name)
        others = [make(number) for number in self.spaces if number != self.service]
        return make(self.service, versions_tag(others))

    def _fit(self, number: int, tags: Mapping[str, str] | None = None) -> Any:
        """A product of the two vectors."""
        return formula_view(
            "fit",
            "dot_products",
            DotProducts("taste:likes", "style:looks", 2, ("score", "score_all")),
            [self._view("taste", number), self._view("style", number)],
            tags={**self._tag(number), **(tags or {})},
        )

    def _view(self, name: str, number: int, tags: Mapping[str, str] | None = None) -> FeatureView:
        entity, key, feature = (
            (CUSTOMER, Field(name="customer_id", dtype=Int64), "likes")
            if name == "taste"
            else (ARTICLE, Field(name="sku", dtype=String), "looks")
        )
        path = self._folder(number, self.spaces[number]) / name
        return FeatureView(
            name=name,
            entities=[entity],
            schema=[key, Field(name=feature, dtype=Array(Float32), vector_length=2)],
            source=FileSource(name=f"{name}_source", path=str(path), timestamp_field="t"),
            tags={**default_tag({feature: default(number)}), **self._tag(number), **(tags or {})},
        )

    def _tag(self, number: int) -> dict[str, str]:
        id = self.spaces[number]
        return space_tag("shop", f"v{number}-{id}" if id else f"v{number}")

    def _folder(self, number: int, id: str) -> Path:
        return self.repo / "tables" / f"v{number}{id}"

    def _write_tables(self, number: int, id: str) -> None:
        vectors = [vector(number, row) for row in range(len(ROWS))]
        for name, key, feature in (("taste", "customer_id", "likes"), ("style", "sku", "looks")):
            place = self._folder(number, id) / name
            place.mkdir(parents=True, exist_ok=True)
            rows = {key: [row[key] for row in ROWS], feature: vectors, "t": WHEN}
            pd.DataFrame(rows).to_parquet(place / "0.parquet")
