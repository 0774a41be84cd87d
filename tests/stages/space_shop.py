"""A small shop whose Feast repo has a Redis database of its own, and spaces told by their bytes."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore

from reki_feast import stages
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.living_spaces import all_lakes
from reki_feast.stores import TensorReader
from tests.bench.serving import lay_repo
from tests.redis_server import HOST
from tests.stages.conftest import reseed, write_tables

#: Of the server that shops share; each has a database of its own.
DATABASES = ("--databases", "4096")
VECTORS = ["reki:user_aug", "reki_item:item_aug"]
STATES = ["reki_user_match:user_match", "reki_item_match:item_match"]
SCORES = ["reki_match:score"]
#: After everything.
LATER = datetime(2030, 1, 1, tzinfo=UTC)
LAST = "2029-01-01T00:00:00"
#: The last of them is unknown, as the 30th user is who never came.
USERS = [*(f"c'{n}" for n in range(0, 30, 3)), "c'29", "nobody"]
ITEMS = [*(f"s-{n}" for n in range(0, 20, 2)), "s-19", "nothing"]
ROWS = [{"customer_id": user, "sku": item} for user, item in zip(USERS, ITEMS, strict=True)]
_SIZE = "Training(blocks=1, output_size=2, components=3, shared_experts=1, dedicated_experts=1, "
_FEATURES = """
from feast import Entity, FeatureService, ValueType
from reki_feast.views import reki_match, reki_views

user = Entity(name="user", join_keys=["customer_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["sku"], value_type=ValueType.STRING)
reki, reki_item, *_ = reki_views("../data/shop", user=user, item=item)
vectors = FeatureService(name="vectors", features=[reki[["user_aug"]], reki_item[["item_aug"]]])
"""
_MATCH = """
match, reki_user_match, reki_item_match = reki_match("../data/shop", user=user, item=item)
"""
#: Names of features to a vector for each of ``ROWS``.
Read: TypeAlias = dict[str, Sequence[Any]]
Refs: TypeAlias = Sequence[str]


@dataclass(frozen=True)
class SpaceShop:
    """The shop's folder.

    Attributes:
        root: the folder.
        port: of the Redis server.
        database: number of its own.
    """

    root: Path
    port: int
    database: int

    @property
    def project(self) -> DeclaredProject:
        """The project as it is declared now."""
        return open_project(self.root)

    @property
    def repo(self) -> Path:
        """The Feast repo."""
        return self.root / "feature_repo"

    @property
    def data(self) -> Path:
        """The scenario's folder."""
        return self.root / "data" / "shop"

    def store(self) -> FeatureStore:
        """The repo, opened anew."""
        return FeatureStore(repo_path=str(self.repo))

    def laid(self, *, scores: bool = True, interactions: int = 120) -> SpaceShop:
        """The same, its files laid down: with views of vectors, and of scores or without them."""
        lay_repo(self.root, lambda text: text.replace("Training(", _SIZE))
        write_tables(self.root, interactions=interactions)
        (self.repo / "features.py").write_text(_FEATURES + (_MATCH if scores else ""))
        self._connect("embedded:../data/redis")
        return self

    def copied(self, root: Path, database: int) -> SpaceShop:
        """A copy in another folder, with a copy of its rows."""
        shutil.copytree(self.root, root)
        copy = SpaceShop(root, self.port, database)
        copy._connect(self._address)
        with self._client() as client:
            for key in client.scan_iter(count=1000):
                client.copy(key, key, destination_db=database)
        return copy

    def add_features(self, text: str) -> None:
        """Declare more in the repo."""
        path = self.repo / "features.py"
        path.write_text(path.read_text() + text)

    def row_names(self) -> set[bytes]:
        """The names of all rows online: the fields of Redis hashes that hold their times."""
        with self._client() as client:
            rows = [client.hkeys(key) for key in client.scan_iter(count=1000, _type="hash")]
        return {name for row in rows for name in row if name.startswith(b"_ts:")}

    def flush(self) -> None:
        """Remove all rows online."""
        with self._client() as client:
            client.flushdb()

    def _client(self) -> redis.Redis:
        return redis.Redis(HOST, self.port, db=self.database)

    @property
    def _address(self) -> str:
        return f"{HOST}:{self.port},db={self.database}"

    def _connect(self, before: str) -> None:
        path = self.repo / "feature_store.yaml"
        path.write_text(path.read_text().replace(before, self._address))


def ran(shop: SpaceShop) -> SpaceShop:
    """The shop after its first run: one space, online."""
    stages.run(shop.project, materialize=True)
    return shop


class Shops:
    """A shop's moments, of which tests take copies.

    Args:
        folder: an empty one.
        port: of a Redis server with ``DATABASES``.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port, self._databases = folder, port, count()

    @cached_property
    def ran(self) -> SpaceShop:
        """After its first run: space 0 is in service, and online."""
        root = self._folder / "ran" / "my shop"
        return ran(SpaceShop(root, self._port, next(self._databases)).laid())

    @cached_property
    def trained(self) -> SpaceShop:
        """After a second training, whose space has no vectors yet."""
        shop = self.copy("ran")
        stages.train(reseed(shop.root, 1), retrain=True)
        return shop

    @cached_property
    def published(self) -> SpaceShop:
        """Vectors of space 1 are in its tables; nothing is applied."""
        shop = self.copy("trained")
        stages.publish(shop.project)
        return shop

    @cached_property
    def promoted(self) -> SpaceShop:
        """Space 1 is in service; both are online."""
        shop = self.copy("published")
        stages.promote(shop.project)
        return shop

    def copy(self, moment: str) -> SpaceShop:
        """A copy to work on."""
        shop: SpaceShop = getattr(self, moment)
        number = next(self._databases)
        return shop.copied(self._folder / str(number) / "my shop", number)


class KilledError(BaseException):
    """In place of a signal."""


def kill(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int = 1) -> None:
    """Have a process die where a function is called for the so-manieth time."""
    function, calls = getattr(owner, name), count(1)

    def called(*given: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise KilledError
        return function(*given, **named)

    patch.setattr(owner, name, called)


@contextmanager
def killed(owner: Any, name: str, call: int = 1) -> Iterator[None]:
    """What is done in it is killed there."""
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, owner, name, call)
        with pytest.raises(KilledError):
            yield


# --- what is read ---------------------------------------------------------------------------


def online(store: FeatureStore, refs: Refs) -> Read:
    """Online, through Feast."""
    return dict(store.get_online_features(list(refs), ROWS).to_dict())


def tensors(store: FeatureStore, refs: Refs) -> Read:
    """Online, as arrays."""
    with TensorReader(store, refs, kind="numpy") as reader:
        asked = {"customer_id": USERS, "sku": ITEMS}
        return {**asked, **reader.read(asked)}


def joined(store: FeatureStore, refs: Refs, *times: datetime, created: bool = False) -> Read:
    """Offline: everybody as of each time; created: only rows that were made by then."""
    parts = [pd.DataFrame(ROWS).assign(event_timestamp=time) for time in times or (LATER,)]
    asked = pd.concat(parts, ignore_index=True)
    job = store.get_historical_features(asked, list(refs), filter_by_created_timestamp=created)
    found = job.to_df()
    return {name: list(found[name]) for name in found.columns if name != "event_timestamp"}


Reader: TypeAlias = Callable[[FeatureStore, Refs], Read]
READERS: tuple[Reader, ...] = (online, tensors, joined)


def pinned(refs: Refs, version: str) -> list[str]:
    """References to a version: ``reki@v1:user_aug``."""
    return [ref.replace(":", f"@{version}:") for ref in refs]


# --- of which space it is -------------------------------------------------------------------


@dataclass
class Book:
    """Which spaces have a vector, by its bytes: those of their own tables, and their defaults.

    It keeps what it has seen of spaces that are removed.
    """

    of: dict[tuple[str, bytes], set[str]] = field(default_factory=lambda: defaultdict(set))
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def learn(self, project: DeclaredProject) -> Book:
        """Take note of all that is stored."""
        for lake in all_lakes(project):
            for kind in ("user", "item"):
                for name in (f"{kind}_aug", f"{kind}_match"):
                    for path in lake.parts(name):
                        self._note(path, name, lake.space.name)
            manifest = lake.read_json("manifest") or {}
            for kind in ("user", "item"):
                if kind in manifest:
                    self._add(f"{kind}_aug", manifest[kind]["default"], lake.space.name)
                if manifest.get("match"):
                    default = manifest["match"]["default"][kind]
                    self._add(f"{kind}_match", default, lake.space.name)
        return self

    def spaces(self, read: Read) -> set[str]:
        """The spaces that all vectors of a read may be of: none where they are mixed."""
        found = [self._spaces(name, one) for name, column in read.items() for one in column]
        return set.intersection(*(one for one in found if one is not None))

    def unknown(self, read: Read) -> list[str]:
        """Features with a vector that no space has."""
        return [
            name
            for name, column in read.items()
            if any(self._spaces(name, one) == set() for one in column)
        ]

    def _spaces(self, name: str, one: Any) -> set[str] | None:
        """None for what tells no space."""
        name = name.rsplit("__")[-1]
        if not name.endswith(("_aug", "_match")):
            return None
        return self.of.get((name, _bytes(one)), set())

    def _note(self, path: Path, name: str, space: str) -> None:
        try:
            key = str(path), path.stat().st_mtime_ns
            if key in self._seen:
                return
            column = pq.read_table(path, columns=[name], partitioning=None)[name]
        except FileNotFoundError:  # somebody writes meanwhile
            return
        for one in column.to_pylist():
            self._add(name, one, space)
        self._seen.add(key)

    def _add(self, name: str, one: Iterable[float], space: str) -> None:
        self.of[name, _bytes(one)].add(space)


def newest(project: DeclaredProject, version: str = "") -> dict[str, dict[str, bytes]]:
    """By feature and id, the vector that is to be online of a space; of that in service by default.

    Unknown ids are left out.
    """
    from reki_feast.views.spaces import read_spaces

    spaces = read_spaces(project.data)
    space = spaces.of(int(version[1:])) if version else spaces.in_service
    lake, found = project.lake.in_space(space), {}
    for kind in ("user", "item"):
        for name in (f"{kind}_aug", f"{kind}_match"):
            parts = [pq.read_table(path, partitioning=None) for path in lake.parts(name)]
            if parts:
                found[name] = _last(pa.concat_tables(parts, promote_options="permissive"), name)
    return found


def stale(read: Read, wanted: Mapping[str, Mapping[str, bytes]]) -> list[str]:
    """Features and ids whose vector is not the newest one."""
    return [
        f"{name} of {one}"
        for name in read.keys() & wanted.keys()
        for one, vector in zip(
            read["customer_id" if name.startswith("user") else "sku"], read[name], strict=True
        )
        if one in wanted[name] and _bytes(vector) != wanted[name][one]
    ]


def _last(table: pa.Table, name: str) -> dict[str, bytes]:
    """The row of each id with the last times."""
    rows = table.sort_by(
        [("event_timestamp", "ascending"), ("created_timestamp", "ascending")]
    ).select([table.column_names[0], name])
    return {one: _bytes(vector) for one, vector in _pairs(rows)}


def _pairs(rows: pa.Table) -> Iterator[tuple[str, Any]]:
    yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _bytes(vector: Any) -> bytes:
    return b"" if vector is None else np.asarray(vector, np.float32).tobytes()
