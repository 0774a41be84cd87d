"""Drawn keys: whole groups of neighbours, each with its last row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from feast.repo_config import RepoConfig

from reki_feast.stores.duckdb_offline import RekiDuckDBOfflineStore
from reki_feast.stores.offline.latest import KeySample, SourceColumns

T0 = datetime(2025, 1, 1, tzinfo=UTC)
KEYS, ROWS = 1_000, 3


def sample(folder: Path, keys: list[str], size: int, seed: int = 0) -> pa.Table:
    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    source = FileSource(path=str(folder / "rows"), timestamp_field="event_timestamp")
    bounds = (T0 - timedelta(days=1), T0 + timedelta(days=9))
    asked = SourceColumns(keys, ["value"], "event_timestamp", None)
    job = RekiDuckDBOfflineStore.pull_sample(config, source, asked, bounds, KeySample(size, seed))
    return job.to_arrow().sort_by([(key, "ascending") for key in keys])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of two columns, some of them null; three rows each, a file a time."""
    made = tmp_path_factory.mktemp("keys")
    (made / "rows").mkdir()
    for day in range(ROWS):
        numbers = list(range(KEYS))
        table = pa.table(
            {
                "shop": [None if n == 7 else f"shop {n // 100}" for n in numbers],
                "id": numbers,
                "value": [10 * n + day for n in numbers],
                "event_timestamp": pa.array([T0 + timedelta(days=day)] * KEYS),
            }
        )
        pq.write_table(table, made / "rows" / f"{day}.parquet")
    return made


@pytest.mark.parametrize("keys", [["id"], ["shop", "id"]])
def test_keys_are_drawn_in_groups_with_their_last_rows(folder: Path, keys: list[str]) -> None:
    found = sample(folder, keys, 80)
    ids = found["id"].to_pylist()
    assert len(ids) == 80
    assert len({one // 8 for one in ids}) <= 20  # 10 groups, each over at most two eights
    assert found["value"].to_pylist() == [10 * one + ROWS - 1 for one in ids]
    assert found.equals(sample(folder, keys, 80))
    assert ids != sample(folder, keys, 80, seed=1)["id"].to_pylist()


def test_all_keys_but_those_with_a_null(folder: Path) -> None:
    assert sample(folder, ["shop", "id"], 5_000).num_rows == KEYS - 1
    assert sample(folder, ["id"], 5_000).num_rows == KEYS
