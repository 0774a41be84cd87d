"""A project of many users, end to end: seconds, memory and disk by stage, then of a day's news.

    python -m tests.bench.scale [--users N]… [--keep FOLDER]

Users' activity and items' popularity follow power laws, from a seed: 50 interactions a user in the
mean, 200,000 items for a million users. Knowledge is of groups (REKI-C) by the fake language model,
vectors are of 384 floats by the fake encoder; weights are learnt from half a million interactions,
in one epoch. Each stage is a process of its own, so that its peak memory is its own. Then 1 % more
interactions come, a tenth of them of new users, and all stages run once more in one process, as
`reki run` does. Rows of the numbers of users go to ``build/bench/scale.json``, beside those of
other numbers that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import rendering, stages
from reki_feast.project import open_project
from reki_feast.report import Report, Table
from reki_feast.stages.context import StageContext
from reki_feast.stores import embedded
from tests.bench.common import BUILD, Row, store

USERS, ITEMS_PER_USER, EACH, NEWS = 100_000, 0.2, 50, 0.01
#: Floats of the fake encoder.
SIZE = 384
_GENRES, _BRANDS, _WORDS, _REGIONS = 24, 400, 4_000, 40
#: Interactions a visit, and the exponents of activity and popularity.
_VISIT, _ACTIVITY, _POPULARITY = 10, 1.6, 0.9
#: Users whose interactions are drawn at a time.
_PART = 50_000
_YEAR, _DAY = 365 * 86_400 * 1_000_000, 86_400 * 1_000_000
_T0 = int(np.datetime64("2025-01-01", "us").astype(np.int64))
GENERATOR = """
from reki_feast import LLM, Collective, Encoder, Gates, Scenario, Sources, Training

scenario = Scenario(name="shop", item="product", action="bought", factors=["use", "style"],
                    rating="rating", description="{{ title }}, {{ genre }}, {{ brand }}",
                    profile="from {{ region }}")
sources = Sources(items="select * from 'items.parquet'", users="select * from 'users.parquet'",
                  interactions="select * from 'interactions/*.parquet'")
products = Collective(kind="item", attributes=["genre", "brand"])
customers = Collective(kind="user", attributes=["region"])
llm = LLM(provider="echo", concurrency=64)
gates = Gates(duplicates=None)
encoder = Encoder(model="hash", history=False, taste=True)
training = Training(epochs=1, check=False, samples=500_000)
"""
STORE = """
project: shop
provider: local
registry:
  path: data/registry.db
  registry_store_type: reki_feast.stores.registry.WholeFileRegistryStore
offline_store: {type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}
online_store:
  type: reki_feast.stores.redis_online.RekiRedisOnlineStore
  connection_string: embedded:../data/redis
  layout: packed
batch_engine: {type: reki_feast.stores.engine.RekiComputeEngine}
entity_key_serialization_version: 3
"""
FEATURES = """
from feast import Entity, FeatureService, ValueType

from reki_feast.views import reki_match, reki_views

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
match, user_match, item_match = reki_match("../data/shop", user=user, item=item)
reki, reki_item, user_text, item_text, user_vectors, item_vectors = reki_views(
    "../data/shop", user=user, item=item
)
service = FeatureService(name="ctr", features=[match[["score"]], reki[["user_aug"]]])
"""
#: The commands of the first run, each in a process of its own.
STAGES = ("groups", "generate", "encode", "train", "publish --materialize")
#: What the increment's process makes one after the other, over one context.
Stage = Callable[[StageContext], object]
_AGAIN: dict[str, Stage] = {
    "groups": stages.form_groups,
    "generate": stages.generate,
    "encode": stages.encode,
    "train": stages.train,
    "publish --materialize": lambda context: stages.publish(context, materialize=True),
}
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Taken:
    """What a stage took.

    Attributes:
        seconds: by the clock, without imports.
        cpu: seconds of all cores.
        peak_gb: the most memory that its process held, or one that it started.
        disk_gb: what it added to the project's folder.
    """

    seconds: float
    cpu: float
    peak_gb: float = 0.0
    disk_gb: float = 0.0


class World:
    """Users and items, drawn from a seed; the same whatever parts are asked for.

    Args:
        users: how many before the news.
    """

    def __init__(self, users: int) -> None:
        self.users, self.items = users, max(int(users * ITEMS_PER_USER) // _GENRES, 20) * _GENRES
        ranks = np.arange(1, self.items // _GENRES + 1, dtype=np.float64) ** -_POPULARITY
        self._popular = np.cumsum(ranks) / ranks.sum()
        draw = np.random.default_rng(0)
        active = np.minimum(draw.pareto(_ACTIVITY, users) + 0.3, 40)
        self.counts: Ids = np.maximum(active * (EACH / active.mean()), 3).astype(np.int64)

    def catalogue(self) -> pa.Table:
        """The items; the genre of item i is i modulo their number."""
        draw = np.random.default_rng(1)
        words = draw.integers(0, _WORDS, (self.items, 3))
        ids = np.arange(self.items)
        return pa.table(
            {
                "item_id": ids,
                "title": [" ".join(f"word{n}" for n in row) for row in words.tolist()],
                "genre": [f"genre{n}" for n in (ids % _GENRES).tolist()],
                "brand": [f"brand{n}" for n in draw.integers(0, _BRANDS, self.items).tolist()],
            }
        )

    def people(self, count: int) -> pa.Table:
        """The first users."""
        regions = np.random.default_rng(2).integers(0, _REGIONS, 2 * self.users)[:count]
        return pa.table(
            {"user_id": np.arange(count), "region": [f"region{n}" for n in regions.tolist()]}
        )

    def log(self) -> Iterator[pa.Table]:
        """A year's interactions, of some users at a time."""
        for start in range(0, self.users, _PART):
            draw = np.random.default_rng([3, start])
            counts = self.counts[start : start + _PART]
            visits = np.repeat(np.arange(start, start + len(counts)), -(-counts // _VISIT))
            begun = draw.integers(0, _YEAR, len(visits))
            left = np.repeat(counts, -(-counts // _VISIT))
            number = np.arange(len(visits)) - np.searchsorted(visits, visits)
            yield self._rows(draw, visits, begun, np.minimum(left - number * _VISIT, _VISIT))

    def news(self) -> tuple[pa.Table, int]:
        """A day's interactions, by users as active as they were and by new ones; all users then."""
        draw = np.random.default_rng(4)
        visits = int(self.counts.sum() * NEWS) // _VISIT
        new = max(visits // 10, 1)
        known = draw.choice(self.users, visits - new, p=self.counts / self.counts.sum())
        who = np.concatenate([known, np.arange(self.users, self.users + new)])
        begun = _YEAR + draw.integers(0, _DAY, len(who))
        return self._rows(draw, who, begun, np.full(len(who), _VISIT)), self.users + new

    def _rows(self, draw: np.random.Generator, visits: Ids, begun: Ids, sizes: Ids) -> pa.Table:
        """Rows of visits: whose each is, when it begins (microseconds), how many rows it has."""
        user, begin = np.repeat(visits, sizes), np.repeat(begun, sizes)
        step = np.arange(len(user)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        favourite = (user * 2_654_435_761 + draw.integers(0, 2, len(user)) * 7) % _GENRES
        genre = np.where(
            draw.random(len(user)) < 0.7, favourite, draw.integers(0, _GENRES, len(user))
        )
        item = np.searchsorted(self._popular, draw.random(len(user))) * _GENRES + genre
        rating = np.where(genre == favourite, 4, 2) + draw.integers(-1, 2, len(user))
        times = _T0 + begin + step * 60_000_000
        return pa.table(
            {
                "user_id": user,
                "item_id": item,
                "rating": rating,
                "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            }
        )


def lay_down(root: Path, world: World) -> int:
    """Tables, declarations, the fake encoder and a Feast repo; the number of interactions."""
    from tests.encoding.static_model import static_model

    for name in ("generators", "interactions", "feature_repo/data"):
        (root / name).mkdir(parents=True)
    pq.write_table(world.catalogue(), root / "items.parquet")
    pq.write_table(world.people(world.users), root / "users.parquet")
    rows = 0
    for number, part in enumerate(world.log()):
        pq.write_table(part, root / f"interactions/{number:04}.parquet")
        rows += part.num_rows
    words = ["[UNK]", *(f"word{n}" for n in range(_WORDS)), *(f"genre{n}" for n in range(_GENRES))]
    words += ["quiet", "bold", "warm", "bleak", "playful", "grand", "tender", "strange", "sharp"]
    model = static_model(root / "model", size=SIZE, vocabulary=words)
    (root / "generators/shop.py").write_text(GENERATOR.replace('"hash"', repr(str(model))))
    (root / "feature_repo/feature_store.yaml").write_text(STORE)
    (root / "feature_repo/features.py").write_text(FEATURES)
    return rows


def stage_here(root: Path, name: str) -> Taken:
    """Run one stage in this process."""
    context = StageContext.of(open_project(root))
    began, used = time.perf_counter(), _cpu()
    _AGAIN[name](context)
    return Taken(time.perf_counter() - began, _cpu() - used, _peak())


def news_here(root: Path) -> dict[str, Taken]:
    """Run all stages in this process, over one context as `reki run` does."""
    context, taken = StageContext.of(open_project(root)), {}
    for name, stage in _AGAIN.items():
        began, used = time.perf_counter(), _cpu()
        stage(context)
        taken[name] = Taken(time.perf_counter() - began, _cpu() - used, _peak())
    return taken


def apart(root: Path, *what: str) -> dict[str, Any]:
    """What this module tells of some work in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.scale", "--folder", str(root), *what]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def measure(root: Path, users: int) -> Row:
    """The first run and a day's news of a project."""
    world = World(users)
    interactions, before = lay_down(root, world), _disk(root)
    first: dict[str, Taken] = {}
    try:
        for name in STAGES:
            taken = Taken(**apart(root, "--stage", name))
            now = _disk(root)
            first[name] = Taken(**{**asdict(taken), "disk_gb": now - before})
            before = now
            _tell(f"{users:,} users: {name}", first[name])
        redis, tables = _redis(root), _stored(root)
        news, everybody = world.news()
        pq.write_table(news, root / "interactions/news.parquet")
        pq.write_table(world.people(everybody), root / "users.parquet")
        again = {name: Taken(**taken) for name, taken in apart(root, "--news").items()}
        for name, taken in again.items():
            _tell(f"{users:,} users, a day: {name}", taken)
    finally:
        stages.down(open_project(root))
    seconds = sum(one.seconds for one in first.values())
    more = sum(one.seconds for one in again.values())
    return {
        "name": _name(users),
        "ours": round(seconds, 1),
        "unit": "s",
        "seconds": round(seconds, 1),
        "peak_gb": round(max(one.peak_gb for one in first.values()), 2),
        "interactions": interactions,
        "news": news.num_rows,
        "users_with_news": len(news["user_id"].unique()),
        "news_seconds": round(more, 1),
        "news_share": round(more / seconds, 4),
        "stages": {name: asdict(one) for name, one in first.items()},
        "news_stages": {name: asdict(one) for name, one in again.items()},
        "redis_gb": round(redis, 3),
        "tables": tables,
        "load": round(os.getloadavg()[1], 1),
    }


def _name(users: int) -> str:
    return f"users_{users // 1_000_000}m" if users >= 1_000_000 else f"users_{users // 1_000}k"


def _tell(what: str, taken: Taken) -> None:
    sys.stderr.write(
        f"{what}: {taken.seconds:.1f} s ({taken.cpu:.1f} s of all cores), "
        f"{taken.peak_gb:.2f} GB, {taken.disk_gb:.2f} GB on disk\n"
    )


def _cpu() -> float:
    own, others = (resource.getrusage(n) for n in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _peak() -> float:
    """GB that this process held at most, or one that it has waited for.

    What `getrusage` says of this process is the most of its parent's, too.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1e6


def _disk(root: Path) -> float:
    return sum(one.stat().st_size for one in root.rglob("*") if one.is_file()) / 1e9


def _redis(root: Path) -> float:
    """GB that the embedded server holds."""
    return embedded.status(open_project(root).redis).memory / 1e9


def _stored(root: Path) -> dict[str, dict[str, int]]:
    """Rows and bytes of each stored table."""
    lake = open_project(root).lake
    names = sorted({path.parent.name for path in lake.root.glob("*/*.parquet")})
    sizes = {name: lake.size(name) for name in names}
    return {name: {"rows": rows, "bytes": size} for name, (_, rows, size) in sizes.items()}


def _kept(rows: list[Row]) -> list[Row]:
    """These rows, and those of other numbers of users that are stored."""
    path = BUILD / "bench/scale.json"
    had: list[Row] = json.loads(path.read_text()) if path.exists() else []
    names = {row["name"] for row in rows}
    return sorted([*(row for row in had if row["name"] not in names), *rows], key=_size_of)


def _size_of(row: Row) -> int:
    interactions: int = row["interactions"]
    return interactions


def _tables(row: Row) -> list[Table]:
    columns = ("stage", "seconds", "of all cores", "peak GB", "GB on disk", "a day's seconds")
    rows = []
    for name, one in row["stages"].items():
        numbers = [round(one[key], 2) for key in ("seconds", "cpu", "peak_gb", "disk_gb")]
        rows.append((name, *numbers, round(row["news_stages"][name]["seconds"], 2)))
    return [Table(row["name"], columns, rows)]


def main(*sizes: int, keep: Path | None = None) -> None:
    """Measure, print the tables, write ``build/bench/scale.json``."""
    rows = []
    for users in sizes or (USERS,):
        folder = Path(mkdtemp(prefix=f"reki-scale-{users}-", dir=keep))
        try:
            rows.append(measure(folder, users))
        finally:
            if keep is None:
                shutil.rmtree(folder)
        notes = [
            f"{row['name']}: {row['seconds']:,} s, {row['peak_gb']} GB; a day with news of "
            f"{row['users_with_news']:,} users {row['news_seconds']} s ({row['news_share']:.1%})"
            for row in rows[-1:]
        ]
        notes.append(f"written to {store('scale', _kept(rows))}")
        rendering.report(Report("a project of many users", tables=_tables(rows[-1]), notes=notes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, action="append", default=[])
    parser.add_argument("--keep", type=Path, help="keep the projects, under this folder")
    parser.add_argument("--folder", type=Path, help="of a project: run in this process")
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--news", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    said = _arguments()
    if said.folder and said.news:
        taken = news_here(said.folder)
        sys.stdout.write(json.dumps({name: asdict(one) for name, one in taken.items()}) + "\n")
    elif said.folder:
        sys.stdout.write(json.dumps(asdict(stage_here(said.folder, said.stage))) + "\n")
    else:
        main(*said.users, keep=said.keep)
