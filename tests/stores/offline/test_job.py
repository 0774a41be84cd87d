"""Ways to the rows of a job: table, stream, Parquet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, Field
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import String

from reki_feast.errors import StoreError
from reki_feast.stores.offline.query import Query, QueryLimits
from reki_feast.stores.offline.retrieval import DuckDBRetrievalJob
from tests.stores.offline.tables import USER, USERS, bag, hour, user, users_view, write

pytestmark = pytest.mark.filterwarnings(
    "ignore:On demand feature view is an experimental:RuntimeWarning",
    # ibis 12 calls a method that DuckDB 2.0 deprecates.
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb",
)

MakeOurs = Callable[..., FeatureStore]
N = 2_100
ROWS = pd.DataFrame({"user_id": range(N), "event_timestamp": [hour(1)] * N})
REFS = ["users:word", "users:vector"]


@pytest.fixture
def make_store(make_ours: MakeOurs, tmp_path: Path) -> MakeOurs:
    def make(**options: Any) -> FeatureStore:
        write(tmp_path / "data" / "0.parquet", [user(n, 0, f"w{n}") for n in range(N)], USERS)
        store = make_ours(**options)
        store.apply([USER, users_view(tmp_path / "data" / "0.parquet")])
        return store

    return make


@pytest.fixture
def job(make_store: MakeOurs) -> DuckDBRetrievalJob:
    return asked(make_store())


def asked(store: FeatureStore, refs: Any = REFS, rows: Any = ROWS) -> DuckDBRetrievalJob:
    job = store.get_historical_features(rows, refs)
    assert isinstance(job, DuckDBRetrievalJob)
    return job


@pytest.fixture
def loud(make_store: MakeOurs) -> DuckDBRetrievalJob:
    """A job with an on-demand view."""
    store = make_store()
    view = store.get_feature_view("users")

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[view], schema=[Field(name="loud", dtype=String)], mode="pandas"
    )
    def shout(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"loud": frame["word"].str.upper()})

    store.apply(shout)
    return asked(store, ["users:word", "shout:loud"])


def test_a_stream_has_the_rows_of_the_table(job: DuckDBRetrievalJob) -> None:
    reader = job.to_batches(1_000)
    batches = list(reader)
    assert len(batches) > 1
    table = pa.Table.from_batches(batches)
    assert table.schema == reader.schema == job.to_arrow().schema
    assert bag(table) == bag(job.to_arrow())


def test_streams_and_tables_at_once(job: DuckDBRetrievalJob) -> None:
    one, other = job.to_batches(1_000), job.to_batches(2_000)
    first = one.read_next_batch()
    assert job.to_df()["word"].notna().all()
    assert other.read_all().num_rows == N
    assert first.num_rows + one.read_all().num_rows == N


def test_in_threads(job: DuckDBRetrievalJob) -> None:
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(len(job.to_df()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [N] * 3


def test_a_stream_left_early(job: DuckDBRetrievalJob) -> None:
    reader = job.to_batches(1_000)
    assert reader.read_next_batch().num_rows > 0
    del reader
    assert job.to_batches().read_all().num_rows == N


def test_a_source_gone_meanwhile(job: DuckDBRetrievalJob, tmp_path: Path) -> None:
    (tmp_path / "data" / "0.parquet").unlink()
    with pytest.raises(StoreError, match=r"(?s)DuckDB can run.*0\.parquet"):
        job.to_arrow()
    with pytest.raises(StoreError, match=r"(?s)DuckDB can run.*0\.parquet"):
        job.to_batches()


def test_a_fault_in_the_middle_of_a_stream() -> None:
    sql = "SELECT CASE WHEN n < 900000 THEN n ELSE error('late') END AS n FROM range(1000000) r(n)"
    reader = Query(sql, limits=QueryLimits(threads=1)).batches(1_000)
    with pytest.raises(StoreError, match=r"(?s)DuckDB can run.*late"):
        reader.read_all()


def test_its_sql(job: DuckDBRetrievalJob) -> None:
    assert "ASOF LEFT JOIN" in job.to_sql()


def test_on_demand_views_in_a_stream(loud: DuckDBRetrievalJob) -> None:
    table = loud.to_batches(1_000).read_all()
    assert bag(table) == bag(loud.to_arrow())
    assert set(table["loud"].to_pylist()) == {f"W{n}" for n in range(N)}


@pytest.mark.parametrize("path", ["saved/x.parquet", "saved/folder", "{tmp}/y.parquet"])
@pytest.mark.parametrize("which", ["job", "loud"])
def test_persist(request: pytest.FixtureRequest, tmp_path: Path, which: str, path: str) -> None:
    job = request.getfixturevalue(which)
    storage = SavedDatasetFileStorage(path.format(tmp=tmp_path))
    expected = bag(job.to_arrow())
    job.persist(storage)
    place = tmp_path / path.removeprefix("{tmp}/")
    assert place.is_dir() == (not path.endswith(".parquet"))
    assert bag(pq.read_table(place)) == expected
    with pytest.raises(SavedDatasetLocationAlreadyExists, match="already exists"):
        job.persist(storage)
    stale = place / "stale.parquet" if place.is_dir() else place
    stale.write_text("not Parquet")
    job.persist(storage, allow_overwrite=True)
    assert bag(pq.read_table(place)) == expected
    assert [p.name for p in place.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(("old", "new"), [("file", "folder"), ("folder", "x.parquet")])
def test_persist_over_something_of_another_kind(
    job: DuckDBRetrievalJob, tmp_path: Path, old: str, new: str
) -> None:
    place = tmp_path / new
    if old == "file":
        place.write_text("x")
    else:
        place.mkdir()
    job.persist(SavedDatasetFileStorage(str(place)), allow_overwrite=True)
    assert pq.read_table(place).num_rows == N


def test_persist_over_its_own_source(job: DuckDBRetrievalJob, tmp_path: Path) -> None:
    expected = bag(job.to_arrow())
    place = tmp_path / "data" / "0.parquet"
    job.persist(SavedDatasetFileStorage(str(place)), allow_overwrite=True)
    assert bag(pq.read_table(place)) == expected


def test_a_persist_that_fails_leaves_what_was_there(make_store: MakeOurs, tmp_path: Path) -> None:
    place = tmp_path / "x.parquet"
    place.write_text("old")
    rows = "SELECT n AS user_id, CASE WHEN n < 2080 THEN now() ELSE error('late') END AS at "
    job = asked(make_store(), rows=f"{rows} FROM range(2100) r(n)")
    with pytest.raises(StoreError, match=r"(?s)DuckDB can run.*late"):
        job.persist(SavedDatasetFileStorage(str(place)), allow_overwrite=True)
    assert place.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "registry.db", "x.parquet"]


def test_a_saved_dataset_comes_back(make_store: MakeOurs, tmp_path: Path) -> None:
    """Also from a relative path, which Feast writes in the repo and reads in the working folder."""
    store = make_store()
    job = asked(store)
    storage = SavedDatasetFileStorage("saved.parquet")
    with pytest.warns(RuntimeWarning, match="experimental"):
        store.create_saved_dataset(job, "saved", storage)
    with pytest.warns(RuntimeWarning, match="experimental"):
        found = store.get_saved_dataset("saved").to_df()
    assert sorted(found["word"]) == sorted(job.to_df()["word"])


def test_staging(make_store: MakeOurs, tmp_path: Path) -> None:
    job = asked(make_store(staging_location=str(tmp_path / "stage")))
    assert job.supports_remote_storage_export()
    first, second = job.to_remote_storage(), job.to_remote_storage()
    assert not set(first) & set(second)
    for parts in (first, second):
        assert all(Path(part).suffix == ".parquet" for part in parts)
        assert bag(pa.concat_tables(pq.read_table(p) for p in parts)) == bag(job.to_arrow())
    assert len(list((tmp_path / "stage").iterdir())) == 2


def test_no_staging(job: DuckDBRetrievalJob) -> None:
    assert not job.supports_remote_storage_export()
    with pytest.raises(StoreError, match=r"(?s)staging location.*set staging_location"):
        job.to_remote_storage()


def test_limits_reach_duckdb(make_store: MakeOurs, tmp_path: Path) -> None:
    options = {"memory_limit": "200MiB", "threads": 1, "temp_directory": str(tmp_path)}
    limits = asked(make_store(**options)).query.limits
    with limits.connect() as connection:
        settings = [
            connection.execute(f"SELECT current_setting('{name}')").fetchall()[0][0]
            for name in ("memory_limit", "threads", "temp_directory", "TimeZone")
        ]
        made = [oct(one.stat().st_mode & 0o777) for one in tmp_path.glob("reki-duckdb-*")]
        assert made == ["0o700"]
    assert settings[:2] == ["200.0 MiB", 1]
    assert Path(settings[2]).parents[1] == tmp_path
    assert settings[3] == "UTC"


def test_more_than_the_memory_limit_goes_to_disk_and_is_cleared_away(tmp_path: Path) -> None:
    limits = QueryLimits(memory_limit="100MiB", threads=1, temp_directory=str(tmp_path))
    table = (
        "CREATE TEMP TABLE big AS SELECT n, repeat(md5(n::VARCHAR), 8) AS s FROM range(600000) r(n)"
    )
    query = Query("SELECT n FROM big ORDER BY s", setup=(table,), limits=limits)
    assert query.batches(10_000).read_all().num_rows == 600_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [{"threads": 0}, {"memory_limit": 4}, {"memory": "4GB"}])
def test_options_that_are_none(make_ours: MakeOurs, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        make_ours(**option).config.offline_store  # noqa: B018


@pytest.mark.parametrize("created", [True, False])
def test_of_rows_alike_in_key_and_time_the_last_is_joined(
    make_ours: MakeOurs, tmp_path: Path, created: bool
) -> None:
    keys, times = 100, 60
    rows = [user(n % keys, 0, f"w{n}") for n in range(keys * times)]
    write(tmp_path / "many.parquet", rows, USERS)
    store = make_ours()
    store.apply([USER, users_view(tmp_path / "many.parquet", created=created)])
    for _ in range(3):
        found = asked(store, ["users:word"], ROWS.head(keys)).to_df().sort_values("user_id")
        assert found["word"].to_list() == [f"w{keys * (times - 1) + n}" for n in range(keys)]
