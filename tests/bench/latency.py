"""How long callers wait for 256 candidates x (user vector + item vector) as tensors.

    python -m tests.bench.latency

under 1, 8 and 64 callers at once, as threads and as coroutines of one event loop, by Feast's own
``get_online_features`` and by ``TensorReader``, over a Redis of its own; and for match scores, as
``tests.bench.latency_match`` measures them. Callers, Redis and measurement share this machine's
processors.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
from feast.types import Array, Float32, Int64

from reki_feast.stores import embedded
from reki_feast.stores.serving import TensorReader
from tests.bench.common import finish

CALLERS = (1, 8, 64)
SECONDS = 1.6  # of each measurement, after a warm-up
CANDIDATES = 256
ROWS = 5_000
WIDTH = 32
OURS = {"type": "reki_feast.stores.redis_online.RekiRedisOnlineStore"}

Ids = dict[str, list[int]]
Read = Callable[[Ids], Any]
ReadAsync = Callable[[Ids], Awaitable[Any]]


@dataclass(frozen=True)
class Waits:
    """What the callers of one measurement saw."""

    times: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds

    def percentile(self, q: int) -> float:
        """Milliseconds that q percent of the requests took at most."""
        return round(float(np.percentile(self.times, q)) * 1e3, 3)


class Line(NamedTuple):
    """One measurement, of ours and of Feast's own."""

    name: str
    ours: Waits
    theirs: Waits


Readers = Mapping[str, TensorReader]


@contextmanager
def repos(folder: Path) -> Iterator[tuple[FeatureStore, FeatureStore, FeatureStore]]:
    """Repos with Feast's own Redis store, with ours on the same rows, and with ours packed."""
    address = embedded.start(folder / "redis").connection_string
    try:
        stock = repo(folder, {"type": "redis", "connection_string": address})
        ours = {**OURS, "connection_string": address}
        hashed, packed = repo(folder, ours), repo(folder, {**ours, "layout": "packed"})
        for store in (stock, packed):
            write(store, folder)
        yield stock, hashed, packed
    finally:
        embedded.stop(folder / "redis")


def repo(folder: Path, online: dict[str, Any]) -> FeatureStore:
    """A Feast repo without files."""
    config = RepoConfig(
        project="latency",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store=online,
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def write(store: FeatureStore, folder: Path) -> None:
    """Two views with a vector each, as service ``ctr``."""
    rng = np.random.default_rng(0)
    views: list[Any] = []
    for name, kind in (("reki", "user"), ("reki_item", "item")):
        key, feature = f"{kind}_id", f"{kind}_aug"
        entity = Entity(name=kind, join_keys=[key], value_type=ValueType.INT64)
        source = FileSource(path=str(folder / name), timestamp_field="time")
        schema = [Field(name=key, dtype=Int64), Field(name=feature, dtype=Array(Float32))]
        view = FeatureView(name=name, entities=[entity], schema=schema, source=source)
        store.apply([entity, view])
        vectors = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
        rows = {key: np.arange(ROWS), feature: list(vectors), "time": datetime.now(UTC)}
        store.write_to_online_store(name, pd.DataFrame(rows))
        views.append(view)
    store.apply(FeatureService(name="ctr", features=views))


def requests(seed: int) -> Iterator[Ids]:
    """A user and candidates, drawn beforehand."""
    rng = np.random.default_rng(seed)
    drawn = [
        {
            "user_id": [int(rng.integers(ROWS))],
            "item_id": rng.choice(ROWS, CANDIDATES, replace=False).tolist(),
        }
        for _ in range(20)
    ]
    while True:
        yield from drawn


def wide(ids: Ids) -> Ids:
    """The ids as Feast wants them: the user in each row."""
    return {**ids, "user_id": ids["user_id"] * CANDIDATES}


def tensors(response: Any) -> dict[str, torch.Tensor]:
    """The vectors of Feast's response."""
    columns = response.to_dict()
    return {name: torch.tensor(columns[name]) for name in ("user_aug", "item_aug")}


def by_threads(read: Read, callers: int) -> Waits:
    """So many threads that read one request after another."""
    times: list[float] = []
    read(next(requests(0)))
    begun = time.perf_counter()

    def work(seed: int) -> None:
        waiting = requests(seed)
        while (now := time.perf_counter()) < begun + SECONDS:
            read(next(waiting))
            times.append(time.perf_counter() - now)

    threads = [Thread(target=work, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Waits(times, time.perf_counter() - begun)


async def by_coroutines(read: ReadAsync, callers: int) -> Waits:
    """So many coroutines of one loop that read one request after another."""
    times: list[float] = []
    await read(next(requests(0)))
    begun = time.perf_counter()

    async def work(seed: int) -> None:
        waiting = requests(seed)
        while (now := time.perf_counter()) < begun + SECONDS:
            await read(next(waiting))
            times.append(time.perf_counter() - now)

    await asyncio.gather(*map(work, range(callers)))
    return Waits(times, time.perf_counter() - begun)


def threads(stock: FeatureStore, readers: Readers) -> Iterator[Line]:
    """What threads wait for ours, and for Feast's own."""
    service = stock.get_feature_service("ctr")

    def reference(ids: Ids) -> dict[str, torch.Tensor]:
        return tensors(stock.get_online_features(service, wide(ids)))

    for reader in readers.values():
        _same(reader.read(next(requests(1))), reference(next(requests(1))))
    for callers in CALLERS:
        theirs = by_threads(reference, callers)
        for name, reader in readers.items():
            yield Line(f"{name}_threads_{callers}", by_threads(reader.read, callers), theirs)


async def coroutines(stock: FeatureStore, readers: Readers) -> list[Line]:
    """The same on an event loop."""
    service = stock.get_feature_service("ctr")

    async def reference(ids: Ids) -> dict[str, torch.Tensor]:
        return tensors(await stock.get_online_features_async(service, wide(ids)))

    lines = []
    for callers in CALLERS:
        theirs = await by_coroutines(reference, callers)
        for name, reader in readers.items():
            ours = await by_coroutines(reader.read_async, callers)
            lines.append(Line(f"{name}_asyncio_{callers}", ours, theirs))
    online: Any = stock._get_provider().online_store
    await (await online._get_client_async(stock.config.online_store)).aclose()
    for reader in readers.values():
        await reader.aclose()
    return lines


def _same(ours: Any, theirs: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def row(line: Line) -> dict[str, object]:
    """One line of the table: the medians; with the tails and the rate beside them."""
    ours, theirs = line.ours, line.theirs
    return {
        "name": line.name,
        "ours": ours.percentile(50),
        "reference": theirs.percentile(50),
        "ratio": round(theirs.percentile(50) / ours.percentile(50), 2),
        "unit": "ms p50, reference: Feast's own",
        "p95": ours.percentile(95),
        "p99": ours.percentile(99),
        "rate": round(ours.rate),
        "reference_p95": theirs.percentile(95),
        "reference_p99": theirs.percentile(99),
        "reference_rate": round(theirs.rate),
    }


def note(line: dict[str, object]) -> str:
    """The rest of a line, in words."""
    return (
        f"{line['name']}: p95 {line['p95']} ms, p99 {line['p99']} ms, {line['rate']} requests/s; "
        f"Feast's own {line['reference_p95']}, {line['reference_p99']}, {line['reference_rate']}"
    )


def main() -> None:
    """Measure all of it."""
    from tests.bench import latency_match  # which is made of this module's parts

    with tempfile.TemporaryDirectory() as name, repos(Path(name)) as (stock, *ours):
        names = ("hash", "packed")
        readers = {
            name: TensorReader(store, "ctr", timeout=30)
            for name, store in zip(names, ours, strict=True)
        }
        lines = [*threads(stock, readers), *asyncio.run(coroutines(stock, readers))]
        for reader in readers.values():
            reader.close()
    rows = [row(line) for line in lines]
    title = f"{CANDIDATES} candidates x (user + item vector) as tensors"
    finish("latency", title, [*rows, *latency_match.rows()], [note(line) for line in rows])


if __name__ == "__main__":
    main()
