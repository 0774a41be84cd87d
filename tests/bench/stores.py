"""The path into Feast beside Feast's own: rows a second, milliseconds a request, memory.

Every measurement is a process of its own, so that its peak memory is its own; ours and Feast's
stores take turns on the same files and the same Redis. ``ratio`` is how many times faster ours is,
by the medians. ``floor`` is the least that the engines below allow, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64

from reki_feast import rendering
from reki_feast.report import Bar
from reki_feast.stores import embedded
from reki_feast.stores.address import from_configured
from tests.bench.common import ROOT, Row, finish

Q = 32
MANY = 200_000  # rows to materialize
USERS, SNAPSHOTS, ROWS = 100_000, 8, 1_000_000  # of the historical join
REQUEST, REPEATS = 256, 200
DAY = datetime(2026, 1, 1, tzinfo=UTC)
MICROS = pa.timestamp("us", "UTC")

OURS = {
    "online_store": {"type": "reki_feast.stores.redis_online.RekiRedisOnlineStore"},
    "offline_store": {"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
    "batch_engine": {"type": "reki_feast.stores.engine.RekiComputeEngine"},
}
STOCK = {"online_store": {"type": "redis"}, "offline_store": {"type": "duckdb"}}
#: A Redis database for each of the ways.
DATABASE = {"ours": 0, "feast": 1, "packed": 2, "floor": 3}

Measured = dict[str, float]


def vectors(count: int, rng: np.random.Generator) -> pa.Array:
    numbers = pa.array(rng.normal(size=count * Q).astype(np.float32))
    return pa.FixedSizeListArray.from_arrays(numbers, Q).cast(pa.list_(pa.float32()))


def snapshot(key: str, feature: str, count: int, number: int) -> pa.Table:
    """A vector for each of many ids, as of a week."""
    rng = np.random.default_rng(number)
    when = [DAY + timedelta(weeks=number)] * count
    return pa.table(
        {
            key: rng.permutation(count),
            feature: vectors(count, rng),
            "event_timestamp": pa.array(when, MICROS),
            "created_timestamp": pa.array([DAY + timedelta(weeks=20)] * count, MICROS),
        }
    )


def make_files(folder: Path) -> None:
    """The tables of all measurements."""
    for name, key, count, snapshots in (
        ("user_aug", "user_id", MANY, 1),
        ("item_aug", "item_id", MANY // 10, 1),
        ("history", "user_id", USERS, SNAPSHOTS),
    ):
        (folder / name).mkdir()
        for number in range(snapshots):
            made = snapshot(key, "user_aug" if name == "history" else name, count, number)
            pq.write_table(made, folder / name / f"{number}.parquet")


def entity_rows() -> pd.DataFrame:
    """Who clicked when: a million rows over nine weeks."""
    rng = np.random.default_rng(1)
    seconds = rng.integers(-86_400, 9 * 7 * 86_400, ROWS)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, USERS, ROWS),
            "event_timestamp": pd.Timestamp(DAY) + pd.to_timedelta(seconds, unit="s"),
            "label": rng.integers(0, 2, ROWS),
        }
    )


def make_store(way: str, folder: Path, address: str) -> FeatureStore:
    """A repo of one of the ways; ``feast`` is Feast's own."""
    options: dict[str, Any] = dict(STOCK if way == "feast" else OURS)
    online = {**options["online_store"], "connection_string": f"{address},db={DATABASE[way]}"}
    if way == "packed":
        online["layout"] = "packed"
    options["online_store"] = online
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / f"{way}.db"),
        repo_path=folder,
        entity_key_serialization_version=3,
        **options,
    )
    store = FeatureStore(config=config)
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.INT64)
        for key in ("user_id", "item_id")
    }
    views = [
        FeatureView(
            name=name,
            entities=[entities[key]],
            ttl=timedelta(0),
            schema=[Field(name=key, dtype=Int64), Field(name=feature, dtype=Array(Float32))],
            source=FileSource(
                path=str(folder / table),
                file_format=ParquetFormat(),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for name, key, feature, table in (
            ("reki", "user_id", "user_aug", "user_aug"),
            ("reki_item", "item_id", "item_aug", "item_aug"),
            ("reki_history", "user_id", "user_aug", "history"),
        )
    ]
    store.apply([*entities.values(), *views])
    return store


def client_of(address: str, way: str) -> Any:
    place = from_configured(f"{address},db={DATABASE[way]}")
    return redis.Redis(**place.options)


def measure_materialize(way: str, folder: Path, address: str) -> Measured:
    store, client = make_store(way, folder, address), client_of(address, way)
    client.flushdb()
    before, peak = client.info("memory")["used_memory"], reset_peak()
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        store.materialize(DAY, DAY + timedelta(days=1), feature_views=["reki"])
    seconds = time.perf_counter() - began
    assert client.dbsize() >= MANY  # and how far that is
    bytes_a_row = (client.info("memory")["used_memory"] - before) / MANY
    with redirect_stdout(StringIO()):  # for the readers that are measured later
        store.materialize(DAY, DAY + timedelta(days=1), feature_views=["reki_item"])
    return {"seconds": seconds, "bytes_a_row": bytes_a_row, "grown_mb": peak_mb() - peak}


def measure_floor(_: str, folder: Path, address: str) -> Measured:
    """Commands packed beforehand, and their replies counted: Redis' own part of materializing."""
    from reki_feast.stores.online.commands import command, contents
    from reki_feast.stores.online.wire import open_pipeline

    client = client_of(address, "floor")
    client.flushdb()
    ids = pa.array([b"entity %032d" % n for n in range(MANY)], pa.binary())
    written = command(b"HSET", ids, b"feat", b"v" * 134, b"_ts:reki", b"t" * 6)
    parts = [contents(written.slice(start, 10_000)) for start in range(0, MANY, 10_000)]
    began = time.perf_counter()
    with open_pipeline(client) as line:
        for part in parts:
            line.send(part)
            line.replies(10_000)
    seconds = time.perf_counter() - began
    client.flushdb()
    return {"seconds": seconds}


def timed(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The median of many calls, in seconds; some before are not counted."""
    for _ in range(repeats // 10):
        call()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return median(took)


def measure_online(way: str, folder: Path, address: str) -> Measured:
    store = make_store(way, folder, address)
    rows = [{"user_id": n * 7} for n in range(REQUEST)]
    refs = ["reki:user_aug"]
    assert len(store.get_online_features(refs, rows).to_dict()["user_aug"][5]) == Q
    return {"seconds": timed(lambda: store.get_online_features(refs, rows).to_dict())}


def measure_hmget(_: str, folder: Path, address: str) -> Measured:
    """What redis-py takes to fetch the same rows as bytes."""
    client = client_of(address, "feast")
    keys = list(client.scan_iter(b"*user_id*", count=1_000))[:REQUEST]
    fields = list(client.hgetall(keys[0]))

    def ask() -> Any:
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, fields)
            return pipe.execute()

    return {"seconds": timed(ask)}


def measure_tensors(way: str, folder: Path, address: str, *, users: int = 1) -> Measured:
    """256 candidates and the user they are for, as two tensors."""
    import torch

    from reki_feast.stores.serving import TensorReader

    store = make_store(way, folder, address)
    refs = ["reki:user_aug", "reki_item:item_aug"]
    items = list(range(0, REQUEST * 7, 7))
    who = [7] * REQUEST if users == 1 else list(range(REQUEST))
    ids = {"user_id": [7] if users == 1 else who, "item_id": items}
    rows = [{"user_id": u, "item_id": i} for u, i in zip(who, items, strict=True)]

    def feast() -> dict[str, torch.Tensor]:
        found = store.get_online_features(refs, rows).to_dict()
        return {name: torch.tensor(found[name]) for name in ("user_aug", "item_aug")}

    if way == "feast":
        expected = feast()
        assert expected["item_aug"].shape == (REQUEST, Q)
        return {"seconds": timed(feast)}
    with TensorReader(store, refs) as reader:
        batch = reader.read(ids)
        assert torch.equal(batch["user_aug"], feast()["user_aug"])
        assert torch.equal(batch["item_aug"], feast()["item_aug"])
        return {"seconds": timed(lambda: reader.read(ids))}


def measure_pairs(way: str, folder: Path, address: str) -> Measured:
    return measure_tensors(way, folder, address, users=REQUEST)


def measure_historical(way: str, folder: Path, address: str) -> Measured:
    store, rows = make_store(way, folder, address), entity_rows()
    peak = reset_peak()
    began = time.perf_counter()
    joined = store.get_historical_features(rows, ["reki_history:user_aug"]).to_arrow()
    seconds = time.perf_counter() - began
    assert joined.num_rows == ROWS
    return {"seconds": seconds, "grown_mb": peak_mb() - peak}


def measure_asof(_: str, folder: Path, address: str) -> Measured:
    """The plain query, written by hand."""
    rows = pa.Table.from_pandas(entity_rows(), preserve_index=False)
    peak = reset_peak()
    began = time.perf_counter()
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET asof_loop_join_threshold = 0")
        con.register("clicks", rows)
        joined = con.execute(
            "SELECT c.*, v.user_aug FROM clicks c ASOF LEFT JOIN "
            f"read_parquet('{folder}/history/*.parquet') v "
            "ON c.user_id = v.user_id AND c.event_timestamp >= v.event_timestamp"
        ).fetch_arrow_table()
    seconds = time.perf_counter() - began
    assert joined.num_rows == ROWS
    return {"seconds": seconds, "grown_mb": peak_mb() - peak}


def reset_peak() -> float:
    """Memory now, in MB; the peak counts from here on (where Linux lets it be reset)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def peak_mb() -> float:
    """The most memory this process has had, in MB."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


MEASURES: dict[str, Callable[[str, Path, str], Measured]] = {
    "materialize": measure_materialize,
    "materialize_floor": measure_floor,
    "online_256": measure_online,
    "online_256_floor": measure_hmget,
    "tensors_256": measure_tensors,
    "tensors_256_pairs": measure_pairs,
    "historical_1m": measure_historical,
    "historical_1m_floor": measure_asof,
}


def in_turns(
    name: str, ways: tuple[str, ...], folder: Path, address: str, turns: int, bar: Bar
) -> Any:
    """Each way's medians over some turns, every one in a process of its own."""
    found: dict[str, list[Measured]] = {way: [] for way in ways}
    for number, way in enumerate(ways * turns, 1):
        found[way].append(in_a_process(name, way, folder, address))
        bar(number, len(ways) * turns)
    return {
        way: {key: median(m[key] for m in measured) for key in measured[0]}
        for way, measured in found.items()
    }


def in_a_process(name: str, way: str, folder: Path, address: str) -> Measured:
    part = "_floor" if way == "floor" else ""
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.stores", "--one", name + part]
    done = subprocess.run(
        [*command, way, str(folder), address],
        cwd=ROOT,
        env={**os.environ, "FEAST_USAGE": "False"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def rate(name: str, measured: Any, ours: str, unit: str, scale: Callable[[float], float]) -> Row:
    """One row of the table: ours and Feast's by one unit, and how many times faster ours is."""
    seconds = {way: m["seconds"] for way, m in measured.items()}
    row: dict[str, Any] = {
        "name": name,
        "ours": round(scale(seconds[ours]), 3),
        "reference": round(scale(seconds["feast"]), 3),
        "ratio": round(seconds["feast"] / seconds[ours], 2),
        "unit": unit,
    }
    if "floor" in seconds:
        row["floor"] = round(scale(seconds["floor"]), 3)
    for key in ("grown_mb", "bytes_a_row"):
        for way, label in ((ours, "ours"), ("feast", "reference"), ("floor", "floor")):
            if way in measured and key in measured[way]:
                row[f"{key}_{label}"] = round(measured[way][key], 1)
    return row


def run(turns: int) -> None:
    with tempfile.TemporaryDirectory(prefix="reki-bench-") as made:
        folder = Path(made)
        address = embedded.start(folder / "redis").connection_string
        try:
            make_files(folder)
            rows = measured_rows(folder, address, turns)
        finally:
            embedded.stop(folder / "redis")
    finish(
        "stores",
        "The path into Feast, beside Feast's own",
        rows,
        [
            "reference: Feast 0.67's DuckDB and Redis stores and local engine; ratio: times faster",
            *(note for row in rows if (note := memory_note(row))),
        ],
    )


def measured_rows(folder: Path, address: str, turns: int) -> list[Row]:
    def milliseconds(seconds: float) -> float:
        return seconds * 1_000

    def rows_a_second(seconds: float) -> float:
        return MANY / seconds

    def go(name: str, *ways: str) -> Any:
        with rendering.ProgressBars().bar(name) as bar:
            return in_turns(name, ways, folder, address, turns, bar)

    written = go("materialize", "ours", "packed", "feast", "floor")
    online = go("online_256", "ours", "packed", "feast", "floor")
    tensors = go("tensors_256", "ours", "packed", "feast")
    pairs = go("tensors_256_pairs", "ours", "packed", "feast")
    joined = go("historical_1m", "ours", "feast", "floor")
    return [
        rate("materialize", written, "ours", "rows/s", rows_a_second),
        rate("materialize_packed", written, "packed", "rows/s", rows_a_second),
        rate("online_256", online, "ours", "ms", milliseconds),
        rate("online_256_packed", online, "packed", "ms", milliseconds),
        rate("tensors_256", tensors, "ours", "ms", milliseconds),
        rate("tensors_256_packed", tensors, "packed", "ms", milliseconds),
        rate("tensors_256_pairs", pairs, "ours", "ms", milliseconds),
        rate("tensors_256_pairs_packed", pairs, "packed", "ms", milliseconds),
        rate("historical_1m", joined, "ours", "s", lambda seconds: seconds),
    ]


def memory_note(row: Row) -> str:
    """What a row says of memory, as a sentence."""
    parts = []
    if "grown_mb_ours" in row:
        ours, feast = row["grown_mb_ours"], row["grown_mb_reference"]
        parts.append(f"memory grew by {ours:,.0f} MB, Feast's {feast:,.0f}")
    if "bytes_a_row_ours" in row:
        ours, feast = row["bytes_a_row_ours"], row["bytes_a_row_reference"]
        parts.append(f"{ours:.0f} bytes a row in Redis, Feast's {feast:.0f}")
    if "floor" in row:
        parts.append(f"floor {row['floor']:,} {row['unit']}")
    return f"{row['name']}: {'; '.join(parts)}" if parts else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=2, help="processes a measurement and way")
    parser.add_argument(
        "--one", nargs=4, metavar=("NAME", "WAY", "FOLDER", "ADDRESS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.one:
        name, way, folder, address = options.one
        sys.stdout.write(json.dumps(MEASURES[name](way, Path(folder), address)) + "\n")
    else:
        run(options.turns)


if __name__ == "__main__":
    main()
