"""`feast monitor run` over views of vectors: norms, share of defaults, age, drift."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.cli.cli import cli
from feast.monitoring.monitoring_service import MonitoringService
from feast.types import Array, Float32, Float64, Int64, String

from reki_feast.errors import StoreError
from reki_feast.stores.defaults import default_tag
from tests.stores.offline.tables import OURS

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
#: Feast's pandas concatenates a table without rows; Feast's own store does the same.
pytestmark = pytest.mark.filterwarnings("ignore:The behavior of DataFrame concat:FutureWarning")
DEFAULT = [0.1, 0.2]
ROWS: list[tuple[float, list[float | None] | None, list[float], int | None, str]] = [
    # days ago, vector, wide, count, word
    (40.0, [3.0, 0.0], [1.0, 1.0], 1, "a"),
    (40.0, [5.0, 0.0], [1.0, 1.0], 2, "a"),
    (0.5, [0.0, 2.0], [1.0, 1.0], 3, "b"),
    (0.5, [3.0, 4.0], [1.0, 1.0], None, "b"),
    (0.25, [0.1, 0.2], [2.0, 2.0], 5, "c"),
    (0.25, None, [2.0, 2.0], 6, "c"),
    (0.25, [], [2.0, 2.0], 7, "c"),
    (0.0, [1.0, None], [2.0, 2.0], 8, "c"),
]


def write(folder: Path) -> None:
    """Two parts, in a folder, as a Feast view's table is."""
    folder.mkdir()
    columns = list(zip(*ROWS, strict=True))
    table = pa.table(
        {
            "user_id": pa.array(range(len(ROWS)), pa.int64()),
            "vector": pa.array(columns[1], pa.list_(pa.float32())),
            "wide vector": pa.array(columns[2], pa.list_(pa.float64(), 2)),
            "n": pa.array(columns[3], pa.int64()),
            "word": pa.array(columns[4], pa.string()),
            "event_timestamp": pa.array(
                [NOW - timedelta(days=days) for days in columns[0]], pa.timestamp("us", "UTC")
            ),
        }
    )
    pq.write_table(table.slice(0, 3), folder / "a.parquet")
    pq.write_table(table.slice(3), folder / "b.parquet")


def view(folder: Path, **options: Any) -> FeatureView:
    fields: dict[str, Any] = {
        "vector": Array(Float32),
        "wide": Array(Float64),
        "count": Int64,
        "word": String,
    }
    return FeatureView(
        name="users",
        entities=[USER],
        schema=[Field(name=name, dtype=kind) for name, kind in fields.items()],
        source=FileSource(
            name="users_source",
            path=str(folder),
            timestamp_field="event_timestamp",
            field_mapping={"wide vector": "wide", "n": "count"},
        ),
        tags=default_tag({"vector": DEFAULT}),
        **options,
    )


@pytest.fixture
def store(tmp_path: Path, make_ours: Callable[..., FeatureStore]) -> FeatureStore:
    write(tmp_path / "users")
    ours = make_ours()
    users = view(tmp_path / "users")
    ours.apply([USER, users, FeatureService(name="all", features=[users])])
    return ours


def figures(store: FeatureStore, **filters: Any) -> dict[str, dict[str, Any]]:
    found = MonitoringService(store).get_feature_metrics("p", feature_view_name="users", **filters)
    return {one["feature_name"]: one for one in found}


def test_figures_of_a_window(store: FeatureStore) -> None:
    service = MonitoringService(store)
    made = service.auto_compute("p")
    assert (made["status"], made["computed_feature_views"]) == ("completed", 1)
    daily = figures(store, granularity="daily")
    assert set(daily) == {
        *("vector", "vector__age_days", "vector__drift"),
        *("wide", "wide__age_days", "wide__drift"),
        *("count", "word"),
    }
    vector = daily["vector"]
    assert (vector["row_count"], vector["null_count"], vector["null_rate"]) == (6, 4, 4 / 6)
    assert (vector["min_val"], vector["mean"], vector["max_val"]) == (2.0, 3.5, 5.0)
    assert sum(vector["histogram"]["counts"]) == 2
    # the mean before was (4, 0), and is (1.5, 3) now
    assert daily["vector__drift"]["mean"] == pytest.approx(1 - 1.5 / 11.25**0.5)
    assert daily["vector__drift"]["null_rate"] == vector["null_rate"]
    assert daily["vector__age_days"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert daily["wide__drift"]["mean"] == pytest.approx(0.0)
    assert daily["wide"]["max_val"] == pytest.approx(8**0.5)
    assert (daily["count"]["null_count"], daily["count"]["mean"]) == (1, 5.8)
    assert daily["word"]["histogram"]["values"][0] == {"value": "c", "count": 4}
    quarter = figures(store, granularity="quarterly")
    assert quarter["vector"]["row_count"] == len(ROWS)
    assert quarter["vector__drift"]["mean"] is None
    # a share of nulls, by which Feast tells how well a view is: of the features alone
    [whole] = service.get_feature_view_metrics("p", granularity="daily")
    assert whole["max_null_rate"] == 4 / 6
    [served] = service.get_feature_service_metrics("p", granularity="daily")
    assert served["total_feature_views"] == 1


def test_the_baseline_is_of_all_rows_and_made_once(store: FeatureStore) -> None:
    service = MonitoringService(store)
    assert service.compute_baseline("p")["computed_feature_views"] == 1
    found = {one["feature_name"]: one for one in service.get_baseline("p")}
    assert (found["vector"]["row_count"], found["vector"]["mean"]) == (len(ROWS), 15 / 4)
    assert found["vector__drift"]["mean"] is None
    assert service.compute_baseline("p")["computed_feature_views"] == 0


def test_what_a_view_lacks_is_told(
    store: FeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "users" / "a.parquet").unlink()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "users" / "b.parquet")
    offline, config = store._get_provider().offline_store, store.config
    source: Any = store.get_feature_view("users").batch_source
    with pytest.raises(StoreError, match="has columns? event_timestamp, "):
        offline.compute_monitoring_metrics(
            config, source, [("vector", "numeric")], "event_timestamp"
        )


def test_by_the_command_line(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    write(repo / "users")
    settings = {
        "project": "p",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": OURS,
        "online_store": {"type": "sqlite", "path": "online.db"},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    (repo / "monitored_views.py").write_text(  # a name that no other repo has
        "from pathlib import Path\n"
        "from tests.stores.offline.test_monitoring import USER, view\n"
        "users = view(Path(__file__).parent / 'users')\n"
    )
    for words in (["apply", "--skip-source-validation"], ["monitor", "run"]):
        done = CliRunner().invoke(cli, ["--chdir", str(repo), *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert "Feature views computed: 1" in done.output
    assert "Features computed: 40" in done.output  # eight figures, over five windows
