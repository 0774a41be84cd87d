"""Where Parquet sources lie: files, folders, patterns, relative paths, numbered rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, FileSource
from feast.data_format import DeltaFormat, ParquetFormat

from reki_feast.errors import StoreError
from reki_feast.stores.offline.sources import is_readable
from tests.stores.offline.tables import USERS, Stores, hour, user, users_view, write

# ibis 12 calls a method that DuckDB 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"
)

ROWS = pd.DataFrame({"user_id": [1, 2], "event_timestamp": [hour(5)] * 2})
MakeOurs = Callable[..., FeatureStore]


def words(found: pa.Table) -> dict[int, str]:
    return dict(zip(found["user_id"].to_pylist(), found["word"].to_pylist(), strict=True))


def two_parts(folder: Path) -> Path:
    """Each part has a last word; the second is in a folder of its own."""
    write(folder / "0.parquet", [user(1, 0, "a"), user(2, 2, "b")], USERS)
    write(folder / "more" / "1.parquet", [user(1, 1, "c"), user(2, 1, "d")], USERS)
    return folder


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{folder}", {1: "c", 2: "b"}),
        ("{folder}/", {1: "c", 2: "b"}),
        ("file://{folder}", {1: "c", 2: "b"}),
        ("{folder}/0.parquet", {1: "a", 2: "b"}),
        ("file://{folder}/0.parquet", {1: "a", 2: "b"}),
        ("{folder}/*.parquet", {1: "a", 2: "b"}),
        ("{folder}/**/*.parquet", {1: "c", 2: "b"}),
        ("{folder}/[a-z]*/?.parquet", {1: "c", 2: "d"}),
    ],
)
def test_paths_as_feast_reads_them(
    stores: Stores, tmp_path: Path, path: str, expected: dict[int, str]
) -> None:
    folder = two_parts(tmp_path / "a b's")
    view = users_view(path.format(folder=folder), file_format=ParquetFormat())
    stores.apply(view)
    assert words(stores.agree(ROWS, ["users:word"])) == expected


@pytest.mark.parametrize("name", ["x[1]", "every*thing", "wh?t"])
def test_a_name_that_looks_like_a_pattern(make_ours: MakeOurs, tmp_path: Path, name: str) -> None:
    decoys = {"x[1]": "x1", "every*thing": "everything", "wh?t": "what"}
    write(tmp_path / decoys[name] / "0.parquet", [user(1, 4, "decoy")], USERS)
    store = make_ours()
    folder = two_parts(tmp_path / name)
    view = users_view(folder, schema=[])
    found = ask(store, view)
    assert words(found) == {1: "c", 2: "b"}


def ask(store: FeatureStore, view: Any, rows: Any = ROWS, refs: Any = ("users:word",)) -> pa.Table:
    """Past ``apply``, which has a reader of its own for paths."""
    offline: Any = store._get_provider().offline_store
    view.entity_columns = users_view("x").entity_columns
    job = offline.get_historical_features(
        store.config, [view], list(refs), rows, store.registry, store.project
    )
    table: pa.Table = job.to_arrow()
    return table


def test_relative_paths(
    make_ours: MakeOurs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the working folder as in Feast's DuckDB store, else in the repo as elsewhere in Feast."""
    two_parts(tmp_path / "data")
    store = make_ours()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert words(ask(store, users_view("data"))) == {1: "c", 2: "b"}
    write(elsewhere / "data" / "0.parquet", [user(1, 0, "nearer")], USERS)
    assert words(ask(store, users_view("data"))) == {1: "nearer", 2: None}
    assert words(ask(store, users_view("data/*.parquet"))) == {1: "nearer", 2: None}


def test_parts_of_different_columns_and_order(make_ours: MakeOurs, tmp_path: Path) -> None:
    """Feast's store takes the first file's columns for all."""
    folder = two_parts(tmp_path / "data")
    old = pa.Table.from_pylist([user(1, 3, "x"), user(2, 0, "y")], USERS).drop_columns("word")
    pq.write_table(old.select(old.column_names[::-1]), folder / "00.parquet")
    found = ask(make_ours(), users_view(folder), refs=["users:word", "users:vector"])
    assert words(found) == {1: None, 2: "b"}
    assert found["vector"].null_count == 0


@pytest.mark.parametrize("column", ["file_row_number", "File_Index"])
def test_a_table_whose_columns_hide_row_numbers(
    make_ours: MakeOurs, tmp_path: Path, column: str
) -> None:
    folder = two_parts(tmp_path / "data")
    for part in folder.rglob("*.parquet"):
        table = pq.read_table(part)
        pq.write_table(table.append_column(column, pa.array([7, 7])), part)
    store = make_ours()
    assert words(ask(store, users_view(folder))) == {1: "c", 2: "b"}
    source = FileSource(path=str(folder), timestamp_field="event_timestamp")
    offline: Any = store._get_provider().offline_store
    asked = (source, ["user_id"], ["word", column], "event_timestamp", None, hour(0), hour(9))
    found = offline.pull_latest_from_table_or_query(store.config, *asked).to_arrow()
    assert words(found) == {1: "c", 2: "b"}
    assert found[column].to_pylist() == [7, 7]


@pytest.mark.parametrize("time", ["when", "event_timestamp"])
def test_times_and_keys_by_a_field_mapping(make_ours: MakeOurs, tmp_path: Path, time: str) -> None:
    """A time's name may be the table's or the view's; Feast's store takes the view's only."""
    rows = pa.Table.from_pylist([user(1, 0, "a"), user(2, 2, "b")], USERS)
    names = {"user_id": "uid", "event_timestamp": "when"}
    pq.write_table(rows.rename_columns(names), tmp_path / "x.parquet")
    view: Any = users_view(tmp_path / "x.parquet")
    view.batch_source.field_mapping = {"uid": "user_id", "when": "event_timestamp"}
    view.batch_source.timestamp_field = time
    assert words(ask(make_ours(), view)) == {1: "a", 2: "b"}


def test_folders_of_a_hive(stores: Stores, tmp_path: Path) -> None:
    """A folder's value is a column where it is asked for, as in Feast's store."""
    for key, word in ((1, "a"), (2, "b")):
        row = pa.Table.from_pylist([user(0, key, word)], USERS).drop_columns("user_id")
        place = tmp_path / "data" / f"user_id={key}" / "0.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(row, place)
    stores.apply(users_view(tmp_path / "data", file_format=ParquetFormat()))
    found = stores.agree(ROWS, ["users:word"])
    assert found.column_names == ["user_id", "event_timestamp", "word"]
    assert words(found) == {1: "a", 2: "b"}


def test_event_times_in_folders(make_ours: MakeOurs, tmp_path: Path) -> None:
    """DuckDB then numbers only the files of the times that a scan asks for."""
    for day in range(1, 5):
        rows = [user(key, 0, f"{day} {key}") for key in (1, 10 + day)]
        table = pa.Table.from_pylist(rows, USERS).drop_columns("event_timestamp")
        place = tmp_path / "a [b]'s" / f"event_timestamp=2026-03-0{day}" / "0.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(table, place)
    view = users_view(tmp_path / "a [b]'s", ttl=timedelta(days=1))
    times = [hour(24 * 2.5), hour(24 * 3.5), hour(24 * 3.5), hour(24 * 9)]
    rows = pd.DataFrame({"user_id": [1, 14, 12, 11], "event_timestamp": times})
    store = make_ours()
    assert words(ask(store, view, rows)) == {1: "3 1", 14: "4 14", 12: None, 11: None}
    offline: Any = store._get_provider().offline_store
    job = offline.pull_latest_from_table_or_query(
        store.config,
        view.batch_source,
        ["user_id"],
        ["word"],
        "event_timestamp",
        None,
        hour(24),
        hour(24 * 2),
    )
    assert words(job.to_arrow()) == {1: "3 1", 12: "2 12", 13: "3 13"}


@pytest.mark.parametrize("path", ["{tmp}/none", "{tmp}/*.parquet", "none.parquet", "{tmp}"])
def test_no_files(make_ours: MakeOurs, tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match=r"(?s)has Parquet files.*detail: none in .*FileSource"):
        ask(make_ours(), users_view(path.format(tmp=tmp_path / "x")))


def test_a_file_that_is_not_parquet(make_ours: MakeOurs, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("not at all")
    with pytest.raises(StoreError, match=r"(?s)DuckDB can run.*x\.parquet"):
        ask(make_ours(), users_view(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        ("word2", {"refs": ["users:word2"]}),
        ("event_timestamp", {"without": "event_timestamp"}),
        ("created", {"without": "created"}),
        ("user_id", {"without": "user_id"}),
    ],
)
def test_a_missing_column(
    make_ours: MakeOurs, tmp_path: Path, missing: str, options: dict[str, Any]
) -> None:
    table = pa.Table.from_pylist([user(1, 0, "a")], USERS)
    if "without" in options:
        table = table.drop_columns(options["without"])
    pq.write_table(table, tmp_path / "x.parquet")
    refs = options.get("refs", ["users:word"])
    with pytest.raises(StoreError, match=rf"(?s)view users has column {missing}\n.*columns "):
        ask(make_ours(), users_view(tmp_path / "x.parquet"), refs=refs)


def test_a_missing_column_on_the_way_online(make_ours: MakeOurs, tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [user(1, 0, "a")], USERS)
    store = make_ours()
    offline: Any = store._get_provider().offline_store
    source = FileSource(path=str(tmp_path / "x.parquet"), timestamp_field="event_timestamp")
    for verb in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        asked = (source, ["user"], ["word", "w"], "event_timestamp", None, hour(0), hour(9))
        with pytest.raises(StoreError, match=r"(?s)x\.parquet has columns user, w\n"):
            getattr(offline, verb)(store.config, *asked)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (FileSource(path="data", timestamp_field="t"), True),
        (FileSource(path="data", timestamp_field="t", file_format=ParquetFormat()), True),
        (FileSource(path="s3://bucket/data", timestamp_field="t"), True),
        (FileSource(path="gs://bucket/data", timestamp_field="t"), True),
        (FileSource(path="https://host/data.parquet", timestamp_field="t"), True),
        (FileSource(path="data", timestamp_field="t", file_format=DeltaFormat()), False),
        (FileSource(path="strange://data", timestamp_field="t"), False),
        (None, False),
    ],
)
def test_what_is_left_to_feasts_store(source: Any, expected: bool) -> None:
    assert is_readable(source) is expected


def test_feasts_store_is_asked_for_the_rest(
    make_ours: MakeOurs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source of another kind, with entity rows by SQL and with a default vector."""
    write(tmp_path / "x.parquet", [user(1, 0, "a")], USERS)
    view = users_view(tmp_path / "x.parquet", tags={"reki.default": '{"vector": [0.1, 1e-9]}'})
    refs = ["users:vector", "users:word"]
    store = make_ours()
    rows = (
        "SELECT unnest([1, 2]) AS user_id, TIMESTAMPTZ '2026-03-02 00:00:00+00' AS event_timestamp"
    )
    ours = ask(store, view, rows, refs)
    monkeypatch.setattr("reki_feast.stores.duckdb_offline.is_readable", lambda _: False)
    found = ask(store, view, rows, refs)
    assert words(found) == words(ours) == {1: "a", 2: None}
    assert found["vector"].to_pylist() == ours["vector"].to_pylist()
    assert found["vector"].to_pylist()[1] == pa.array([0.1, 1e-9], pa.float32()).to_pylist()
    with pytest.raises(StoreError, match=r"(?s)without entity rows is of Parquet.*entity_df"):
        ask(store, view, None, refs)


def test_feasts_job_of_several_batches_becomes_one(
    make_ours: MakeOurs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.parquet", [user(n, 0, "a") for n in range(5_000)], USERS)
    source = FileSource(path=str(tmp_path / "x.parquet"), timestamp_field="event_timestamp")
    store = make_ours()
    offline: Any = store._get_provider().offline_store
    asked = (source, ["user_id"], ["word"], "event_timestamp", None, hour(-1), hour(9))
    monkeypatch.setattr("reki_feast.stores.duckdb_offline.is_readable", lambda _: False)
    for verb in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        table = getattr(offline, verb)(store.config, *asked).to_arrow()
        assert [len(batch) for batch in table.to_batches()] == [5_000]
