"""Vector search out of the online store: milliseconds a query, recall, memory, freshness.

    python -m tests.bench.recall [--rows 100000 --width 32 | --news]

``TensorReader.nearest`` for 50 rows, their features read from Redis, over an embedded server; the
reference is one product of all vectors by numpy and a partial sort, which reads nothing. Vectors
are of 1,000 overlapping Gaussians. Each size is a process of its own. Of several rounds the one
with the smallest p99 counts: what else runs on this machine takes turns with the measurement.

Beside these stands what is recalled of MIND's news that nobody has read before (`news.py`);
``--news`` measures that alone, and keeps the other figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, Int64

from reki_feast.stores import TensorReader, embedded
from tests.bench import news
from tests.bench.common import BUILD, ROOT, Row, data_folder, finish, stored_rows
from tests.bench.common import store as store_rows

K = 50
QUERIES, ROUNDS, SAMPLED = 200, 7, 100
SIZES = ((100_000, 32), (100_000, 384), (1_000_000, 32))
WRITTEN = 20  # items whose freshness is measured
BATCH = 50_000
PATIENCE_S = 3 * 3600

Measured = dict[str, float]


def vectors(count: int, width: int, seed: int = 1) -> np.ndarray:
    """Points of 1,000 Gaussians that overlap."""
    centres = np.random.default_rng(0).normal(size=(1000, width)).astype(np.float32)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, width), np.float32)
    noise *= 0.7
    noise += centres[rng.integers(1000, size=count)]
    return noise


def repo(folder: Path, address: str, width: int) -> FeatureStore:
    """A Feast repo with one view, without files."""
    config = RepoConfig(
        project="recall",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store={
            "type": "reki_feast.stores.redis_online.RekiRedisOnlineStore",
            "connection_string": address,
        },
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    vector = Field(
        name="vector",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=width,
        vector_search_metric="cosine",
    )
    source = FileSource(path=str(folder / "none"), timestamp_field="event_timestamp")
    schema = [Field(name="item_id", dtype=Int64), vector]
    store.apply([item, FeatureView(name="items", entities=[item], schema=schema, source=source)])
    return store


def batches(rows: np.ndarray, first: int = 0) -> Iterator[pa.RecordBatch]:
    """Rows as Arrow batches, with the ids that follow ``first``."""
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        numbers = pa.array(part.ravel())
        lists = pa.FixedSizeListArray.from_arrays(numbers, rows.shape[1])
        now = pa.array([datetime.now(UTC)] * len(part), pa.timestamp("us", "UTC"))
        yield pa.RecordBatch.from_pydict(
            {
                "item_id": pa.array(np.arange(len(part)) + first + start),
                "vector": lists.cast(pa.list_(pa.float32())),
                "event_timestamp": now,
            }
        )


def write(store: FeatureStore, rows: np.ndarray, first: int = 0) -> None:
    """Write rows online, with the ids that follow ``first``."""
    online: Any = store._get_provider().online_store
    online.write_arrow(store.config, store.get_feature_view("items"), batches(rows, first))


def measure(store: FeatureStore, count: int, width: int) -> Measured:
    """All figures of one size."""
    before = memory()
    reader = TensorReader(store, ["items:vector"], kind="numpy", timeout=60)
    queries = vectors(QUERIES, width, seed=2)
    begun = time.perf_counter()
    reader.nearest(queries[0], K)
    measured = {"load_s": time.perf_counter() - begun, "before_mb": before}
    measured["build_s"] = wait_for_graph(store, reader, queries)
    measured["memory_mb"] = memory()
    measured |= waits("", lambda query: reader.nearest(query, K), queries)
    rows = vectors(count, width)
    lengths = np.linalg.norm(rows, axis=1)
    measured |= waits("numpy_", lambda query: by_numpy(rows, lengths, query), queries)
    measured["recall"] = recall(reader, rows, lengths, queries)
    measured["fresh_ms"] = freshness(store, reader, count, width)
    return measured


def wait_for_graph(store: FeatureStore, reader: TensorReader, queries: np.ndarray) -> float:
    """Seconds until searches are answered by a graph; 0 where they stay exact."""
    from reki_feast.stores.search import Metric

    online: Any = store._get_provider().online_store
    (documents,) = online.searched._views.values()
    index = documents.index
    if len(index) <= store.config.online_store.search_exact_rows:
        return 0.0
    begun = time.perf_counter()
    while not index.is_approximate(Metric.COSINE):
        if time.perf_counter() > begun + PATIENCE_S:
            sys.exit("the graph did not come into service")
        time.sleep(0.5)
    reader.nearest(queries[0], K)
    return time.perf_counter() - begun


def waits(name: str, search: Callable[[np.ndarray], Any], queries: np.ndarray) -> Measured:
    """p50 and p99 in milliseconds, of the round with the smallest p99; p99 of processor time."""
    rounds, used = [], []
    for _ in range(ROUNDS):
        times, of_processor = [], []
        for query in queries:
            begun, before = time.perf_counter(), time.thread_time()
            search(query)
            times.append(1e3 * (time.perf_counter() - begun))
            of_processor.append(1e3 * (time.thread_time() - before))
        rounds.append((float(np.percentile(times, 99)), float(np.median(times))))
        used.append(float(np.percentile(of_processor, 99)))
    p99, p50 = min(rounds)
    return {f"{name}p99": p99, f"{name}p50": p50, f"{name}cpu": min(used)}


def by_numpy(rows: np.ndarray, lengths: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Numbers of the nearest rows by cosine."""
    scores = rows @ query / lengths
    top = np.argpartition(scores, len(scores) - K)[-K:]
    nearest: np.ndarray = top[np.argsort(-scores[top])]
    return nearest


def recall(
    reader: TensorReader, rows: np.ndarray, lengths: np.ndarray, queries: np.ndarray
) -> float:
    """Share of the true nearest rows that are found."""
    hits = 0
    for query in queries[:SAMPLED]:
        found = reader.nearest(query, K).ids["item_id"]
        hits += len(set(found) & set(by_numpy(rows, lengths, query).tolist()))
    return hits / K / SAMPLED


def freshness(store: FeatureStore, reader: TensorReader, count: int, width: int) -> float:
    """The longest that an item was not found after it was written, in milliseconds."""
    longest = 0.0
    new = 9 * vectors(WRITTEN, width, seed=3)
    for number, vector in enumerate(new):
        one = count + number
        write(store, vector[None], one)
        begun = time.perf_counter()
        while one not in reader.nearest(vector, K).ids["item_id"]:
            pass
        longest = max(longest, 1e3 * (time.perf_counter() - begun))
    return longest


def memory() -> float:
    """Resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def measured_apart(count: int, width: int) -> Measured:
    """One size, written here and measured in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        address = embedded.start(folder / "redis").connection_string
        try:
            write(repo(folder, address, width), vectors(count, width))
            command = [sys.executable, "-m", "tests.bench.recall", "--measure", name, address]
            command += ["--rows", str(count), "--width", str(width)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        finally:
            embedded.stop(folder / "redis")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def rows_of(count: int, width: int, measured: Measured) -> list[Row]:
    """One size as rows of the table."""
    size = "1m" if count == 1_000_000 else f"{count // 1000}k"
    prefix = f"nearest_{size}" if width == 32 else f"nearest_{size}_{width}"
    table: list[Row] = []

    def row(name: str, unit: str, ours: float, reference: float | None = None) -> None:
        ratio = round(reference / ours, 2) if reference else None
        told = round(reference, 3) if reference else None
        values = {"ours": round(ours, 4), "reference": told, "ratio": ratio, "unit": unit}
        table.append({"name": f"{prefix}_{name}", **values})

    row("p50_ms", "ms", measured["p50"], measured["numpy_p50"])
    row("p99_ms", "ms", measured["p99"], measured["numpy_p99"])
    row("p99_cpu_ms", "ms of the caller's processor", measured["cpu"], measured["numpy_cpu"])
    row("recall", "of 50", measured["recall"])
    row("memory_mb", "MB resident", measured["memory_mb"])
    row("without_mb", "MB resident before", measured["before_mb"])
    row("load_s", "s to read the rows", measured["load_s"])
    if measured["build_s"]:
        row("build_s", "s till the graph serves", measured["build_s"])
    row("fresh_ms", "ms, longest of 20", measured["fresh_ms"])
    return table


def with_news(rows: list[Row]) -> list[Row]:
    """The rows, and those of news as they are now."""
    project = news.news(data_folder(), BUILD / "news")
    made = news.rows(news.figures("MIND", project))
    names = {row["name"] for row in made}
    return [*(row for row in rows if row["name"] not in names), *made]


def main() -> None:
    """All sizes, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--news", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "ADDRESS"))
    options = parser.parse_args()
    if options.measure:
        folder, address = options.measure
        store = repo(Path(folder), address, options.width)
        sys.stdout.write(json.dumps(measure(store, options.rows, options.width)) + "\n")
        return
    if options.news:
        finish("recall", "News that nobody has read before", with_news(stored_rows("recall")))
        return
    sizes = ((options.rows, options.width),) if options.rows else SIZES
    rows: list[Row] = []
    for count, width in sizes:
        rows += rows_of(count, width, measured_apart(count, width))
        store_rows("recall", rows)  # the last size takes an hour
    rows = rows if options.rows else with_news(rows)
    load = ", ".join(f"{one:.0f}" for one in os.getloadavg())
    finish("recall", "Nearest vectors", rows, [f"load of the machine at the end: {load}"])


if __name__ == "__main__":
    main()
