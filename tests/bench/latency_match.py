"""How long a caller waits for the match scores of a user and 256 candidates as tensors.

    python -m tests.bench.latency_match

by the scores of texts and HEIN beside the products of augmented vectors of 192 floats, which are
read for it; the two take turns, over one Redis. And for those of 256 pairs, each of another user.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, RepoConfig, ValueType

from reki_feast.stores import embedded, materialize_views
from reki_feast.stores.serving import TensorReader
from reki_feast.views import reki_match, reki_views
from tests.bench.common import finish
from tests.bench.latency import CANDIDATES, OURS, ROWS, Ids, Line, Read, Waits, by_threads, row

Q, PAIRS = 192, 6
KERNELS = [
    {"name": "text_wide", "sharpness": 4.0, "shrink": 3.0},
    {"name": "text_near", "sharpness": 8.0, "shrink": 1.0},
]
WIDTH = RECENT = TOWER = 32
SUMS = WIDTH + 5
USER, ITEM = RECENT * (WIDTH + 1) + TOWER, WIDTH + TOWER + len(KERNELS) + 2
TURNS = 4
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS, PRODUCTS = "reki", "vectors"  # prefixes of the views


def publish(folder: Path) -> None:
    """A scenario's tables and its manifest."""
    sides: dict[str, Any] = {}
    for kind, length in (("user", USER), ("item", ITEM)):
        side = {"key": f"{kind}_id", "type": "int64", "channels": [], "q": Q, "default": [0.0] * Q}
        sides[kind] = side
        _table(folder, kind, f"{kind}_aug", {f"{kind}_aug": Q})
        sums = {"user_sums": SUMS} if kind == "user" else {}
        _table(folder, kind, f"{kind}_match", {f"{kind}_match": length, **sums})
    manifest = {
        "version": 1,
        "scenario": "latency",
        "m": 8,
        "pairs": [[f"channel_{n}", "knowledge"] for n in range(PAIRS)],
        **sides,
        "match": {
            "kernels": KERNELS,
            "width": WIDTH,
            "recent": RECENT,
            "tower": TOWER,
            "sums": SUMS,
            "default": {"user": [0.0] * USER, "item": [0.0] * ITEM},
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _table(folder: Path, kind: str, name: str, features: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"{kind}_id": np.arange(ROWS)}
    for feature, length in features.items():
        numbers = rng.standard_normal(ROWS * length, np.float32) / np.float32(WIDTH**0.5)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(numbers), length)
        columns[feature] = lists.cast(pa.list_(pa.float32()))
    for time in ("event_timestamp", "created_timestamp"):
        columns[time] = pa.array([WHEN] * ROWS, pa.timestamp("us", "UTC"))
    (folder / name).mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / name / "0.parquet")


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, FeatureStore]]:
    """A repo of either layout with all that is read."""
    publish(folder / "data")
    address = embedded.start(folder / "redis").connection_string
    try:
        layouts = ("hash", "packed")
        yield {layout: _store(folder, address, layout) for layout in layouts}
    finally:
        embedded.stop(folder / "redis")


def _store(folder: Path, address: str, layout: str) -> FeatureStore:
    config = RepoConfig(
        project=f"latency{layout}",
        provider="local",
        registry=str(folder / f"{layout}.db"),
        repo_path=folder,
        online_store={**OURS, "connection_string": address, "layout": layout},
        offline_store={"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
        batch_engine={"type": "reki_feast.stores.engine.RekiComputeEngine"},
        entity_key_serialization_version=3,
    )
    user, item = (
        Entity(name=kind, join_keys=[f"{kind}_id"], value_type=ValueType.INT64)
        for kind in ("user", "item")
    )
    store, data = FeatureStore(config=config), folder / "data"
    texts = reki_match(data, user=user, item=item, prefix=TEXTS)
    vectors = reki_views(data, user=user, item=item, prefix=PRODUCTS)
    products = reki_match(vectors.user, vectors.item)
    store.apply([user, item, *texts.views(), vectors.user, vectors.item, products])
    read = [texts.user.name, texts.item.name, vectors.user.name, vectors.item.name]
    materialize_views(store, read, datetime.now(UTC))
    return store


def lines(folder: Path) -> Iterator[Line]:
    """What one caller waits for scores of texts, beside products of vectors."""
    with stores(folder) as by_layout:
        for layout, store in by_layout.items():
            yield _line(f"match_{layout}", store, lambda ids: ids)
            yield _line(f"match_pairs_{layout}", store, pairs)


def pairs(ids: Ids) -> Ids:
    """Each candidate with a user of its own."""
    return {**ids, "user_id": ids["item_id"][::-1]}


def _line(name: str, store: FeatureStore, asked: Callable[[Ids], Ids]) -> Line:
    found: dict[str, list[Waits]] = {TEXTS: [], PRODUCTS: []}
    for prefix in [TEXTS, PRODUCTS] * TURNS:
        view = store.get_on_demand_feature_view(f"{prefix}_match")
        refs = [f"{view.name}:{field.name}" for field in view.features]
        with TensorReader(store, refs, timeout=30) as reader:
            found[prefix].append(by_threads(_read(reader, asked), 1))
    return Line(name, _all(found[TEXTS]), _all(found[PRODUCTS]))


def _read(reader: TensorReader, asked: Callable[[Ids], Ids]) -> Read:
    return lambda ids: reader.read(asked(ids))


def _all(turns: list[Waits]) -> Waits:
    times = [time for waits in turns for time in waits.times]
    return Waits(times, sum(waits.seconds for waits in turns))


def rows() -> list[dict[str, object]]:
    """The lines of the table."""
    with tempfile.TemporaryDirectory() as name:
        made = [row(line) for line in lines(Path(name))]
    return [{**line, "unit": "ms p50, reference: products of vectors"} for line in made]


def main() -> None:
    """Measure it alone."""
    title = f"Match scores of a user and {CANDIDATES} candidates, beside products of vectors"
    finish("latency_match", title, rows(), ["ratio: the reference's median by ours"])


if __name__ == "__main__":
    main()
