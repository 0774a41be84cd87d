"""A published scenario made by hand, and Feast repos over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, RepoConfig, ValueType

from reki_feast.schema import (
    Key,
    augmented,
    entity_knowledge,
    item_match,
    representation,
    user_match,
)
from reki_feast.views import RekiViews, reki_views
from tests.stores.shop import Shop, Tap

DAY_1 = datetime(2026, 3, 1, tzinfo=UTC)
DAY_2 = datetime(2026, 6, 1, tzinfo=UTC)
LATER = datetime(2026, 9, 1, tzinfo=UTC)
Q = 4
M = 3
DEFAULT = {"user": [0.5, -0.5, 0.25, 0.0], "item": [9.0, 8.0, 7.0, 6.0]}
#: Of match scores: one kernel over two floats of one text.
KERNEL = {"name": "text_wide", "sharpness": 4.0, "shrink": 1.0}
TEXT, RESIDUAL, TOWER, STACK = [0.6, 0.8], [1.0], [0.5], [0.0, 2.0, 4.0]
SCORE = 2.0 * 0.5 + 4.0 * 0.25  # of any user and item that are known
CHANNELS = {"user": ["knowledge", "history"], "item": ["knowledge", "description"]}


@dataclass
class Published:
    """A scenario's folder with its ids; row r of snapshot s has the vector [s, r, 0, 0]."""

    folder: Path
    user_key: Key
    item_key: Key
    users: int = 40
    items: int = 25
    snapshots: Sequence[datetime] = (DAY_1, DAY_2)
    offset: int = 0  # added to s, as if made by other weights
    scored: bool = False  # whether match scores are published, too
    ids: dict[str, list[Any]] = field(default_factory=dict)

    def write(self) -> Published:
        for kind, key, count in (
            ("user", self.user_key, self.users),
            ("item", self.item_key, self.items),
        ):
            self.ids[kind] = _ids(key, count)
            for number, when in enumerate(self.snapshots):
                made = _tables(kind, key, self.ids[kind], number + self.offset, when)
                if self.scored:
                    made |= _scored(kind, key, self.ids[kind], when)
                for name, table in made.items():
                    place = self.folder / name
                    place.mkdir(parents=True, exist_ok=True)
                    pq.write_table(table, place / f"{number:04}.parquet", row_group_size=7)
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest()))
        return self

    def manifest(self) -> dict[str, Any]:
        return {
            "version": 1,
            "scenario": "movies",
            "description": "films",
            "owner": "films@example.org",
            "m": M,
            "pairs": [["knowledge", "knowledge"], ["history", "description"]],
            "factors": ["Genre", "Acting & cast"],
            "encoder": "a/model",
            "weights": "abc",
            "snapshots": [when.isoformat() for when in self.snapshots],
            "user": self._side("user", self.user_key),
            "item": self._side("item", self.item_key),
            **({"match": _match_section()} if self.scored else {}),
        }

    def _side(self, kind: str, key: Key) -> dict[str, Any]:
        type_ = "int64" if key.type == pa.int64() else "string"
        side = {"key": key.name, "type": type_, "q": Q}
        return {**side, "channels": CHANNELS[kind], "default": DEFAULT[kind]}

    def entities(self) -> tuple[Entity, Entity]:
        return _entity("user", self.user_key), _entity("item", self.item_key)

    def views(self, **options: Any) -> RekiViews:
        user, item = self.entities()
        return reki_views(self.folder, user=user, item=item, **options)


def _entity(kind: str, key: Key) -> Entity:
    type_ = ValueType.INT64 if key.type == pa.int64() else ValueType.STRING
    return Entity(name=kind, join_keys=[key.name], value_type=type_)


def _ids(key: Key, count: int) -> list[Any]:
    if key.type == pa.int64():
        return [(1 << 40) + n for n in range(count)]
    return [f"id {n} “q”" for n in range(count)]


def vector(snapshot: int, row: int) -> list[float]:
    return [float(snapshot), float(row), 0.0, 0.0]


def _tables(
    kind: str, key: Key, ids: list[Any], number: int, when: datetime
) -> dict[str, pa.Table]:
    n = len(ids)
    rows: dict[str, Any] = {
        key.name: ids,
        f"{kind}_aug": [vector(number, row) for row in range(n)],
        "text": [f"text {number} {row}" for row in range(n)],
        "factor_genre": ["drama"] * n,
        "factor_acting_cast": [None] * n,
        "group": [None] * n,
        "model": ["a-model"] * n,
        "prompt_hash": ["h"] * n,
        "knowledge": [[1.0, 2.0, float(number)]] * n,
        "history": [None if row % 2 else [0.0] * M for row in range(n)],
        "description": [[0.0] * M] * n,
        "hash": ["x"] * n,
        "event_timestamp": [when] * n,
        "created_timestamp": [when + timedelta(hours=1)] * n,
    }
    schemas = {
        f"{kind}_aug": augmented(key, "user" if kind == "user" else "item"),
        f"{kind}_knowledge": entity_knowledge(key, ["Genre", "Acting & cast"]),
        f"{kind}_representation": representation(key, CHANNELS[kind]),
    }
    return {name: pa.table({c: rows[c] for c in s.names}, schema=s) for name, s in schemas.items()}


def _scored(kind: str, key: Key, ids: list[Any], when: datetime) -> dict[str, pa.Table]:
    """Everybody met the one text, and every item has it."""
    n, created = len(ids), [when + timedelta(hours=1)] * len(ids)
    ends: list[Any] = [["x"] * n, [when] * n, created]
    if kind == "user":
        vectors = [[[*TEXT, *RESIDUAL, *TOWER]] * n, [[0.0]] * n]
        return {"user_match": pa.table([ids, *vectors, *ends], schema=user_match(key))}
    item = [[*TEXT, *TOWER, *STACK]] * n
    return {"item_match": pa.table([ids, item, *ends], schema=item_match(key))}


def _match_section() -> dict[str, Any]:
    default = {"user": [0.0] * 4, "item": [0.0] * 6}
    return {"kernels": [KERNEL], "width": 2, "recent": 1, "tower": 1, "sums": 1, "default": default}


@pytest.fixture(params=["int64", "string"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Published:
    """Two snapshots of users and items, with keys of either type, in a path with a space."""
    type_ = pa.int64() if request.param == "int64" else pa.string()
    return Published(tmp_path / "a b" / "movies", Key("user_id", type_), Key("sku", type_)).write()


@pytest.fixture(scope="session")
def make_published() -> Callable[..., Published]:
    """Publishes a scenario of one's own: folder, user key, item key, and what differs."""
    return lambda *args, **options: Published(*args, **options).write()


OURS = {
    "online": {"type": "reki_feast.stores.redis_online.RekiRedisOnlineStore"},
    "offline": {"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
}


@pytest.fixture
def make_store(tmp_path: Path, redis_address: str) -> Callable[..., FeatureStore]:
    """Makes a repo with a project of its own; with our stores, if not told otherwise."""

    def make(
        online: dict[str, Any] | None = None,
        offline: dict[str, Any] | None = None,
        project: str = "",
    ) -> FeatureStore:
        project = project or "p" + tmp_path.name.replace("_", "").replace("-", "")
        online = (
            {**OURS["online"], "connection_string": redis_address} if online is None else online
        )
        config = RepoConfig(
            project=project,
            provider="local",
            registry=str(tmp_path / "registry.db"),
            repo_path=tmp_path,
            online_store=online,
            offline_store=offline or OURS["offline"],
            entity_key_serialization_version=3,
        )
        return FeatureStore(config=config)

    return make


@pytest.fixture
def open_shop(
    tmp_path: Path, redis_address: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Shop]]:
    opened: list[Shop] = []

    def make(**options: Any) -> Shop:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        opened.append(Shop(folder, redis_address, Tap(monkeypatch), **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
