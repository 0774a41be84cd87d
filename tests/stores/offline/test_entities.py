"""Entity rows: SQL, an Arrow table, none at all, and those of no use."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from reki_feast.errors import StoreError
from tests.stores.offline.tables import (
    SHOP,
    SHOPS,
    USER,
    USERS,
    bag,
    hour,
    shops_view,
    user,
    users_view,
    write,
)

MakeOurs = Callable[..., FeatureStore]


@pytest.fixture
def store(make_ours: MakeOurs, tmp_path: Path) -> FeatureStore:
    """Users 1 and 2, shops a and b."""
    rows = [user(1, 0, "early"), user(1, 2, "late"), user(2, 1, "other"), user(2, 1, "redone", 5)]
    write(tmp_path / "data" / "users.parquet", rows, USERS)
    scores = [("a", 10, 1), ("b", 20, 2)]
    table = [{"shop": name, "Score": score, "at": hour(at)} for name, score, at in scores]
    write(tmp_path / "data" / "shops.parquet", table, SHOPS)
    made = make_ours()
    users = users_view(tmp_path / "data" / "users.parquet", ttl=timedelta(days=1))
    made.apply([USER, SHOP, users, shops_view(tmp_path / "data" / "shops.parquet")])
    return made


def ask(store: FeatureStore, rows: Any, refs: Any = ("users:word",), **options: Any) -> pa.Table:
    return store.get_historical_features(rows, list(refs), **options).to_arrow()


FRAME = pd.DataFrame({"user_id": [1, 2, 3, 1], "event_timestamp": [hour(1)] * 3 + [hour(3)]})
EXPECTED = [("early", 1), ("late", 1), ("redone", 2), (None, 3)]


def words(found: pa.Table) -> list[tuple[str, int]]:
    pairs = zip(found["word"].to_pylist(), found["user_id"].to_pylist(), strict=True)
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM 'rows.parquet'",
        "SELECT * FROM read_parquet('{tmp}/rows.parquet');",
        "WITH r AS (FROM 'rows.parquet') SELECT event_timestamp AS \"When\", user_id FROM r -- all",
        "SELECT user_id, event_timestamp::TIMESTAMP AS event_timestamp FROM 'rows.parquet'",
        "SELECT user_id, event_timestamp::VARCHAR AS event_timestamp FROM 'rows.parquet'",
    ],
)
def test_by_sql(store: FeatureStore, tmp_path: Path, sql: str) -> None:
    """A relative path starts in the repo where the working folder has no such file."""
    pq.write_table(pa.Table.from_pandas(FRAME), tmp_path / "rows.parquet")
    job = store.get_historical_features(sql.format(tmp=tmp_path), ["users:word"])
    found = job.to_arrow()
    assert words(found) == EXPECTED
    if '"When"' in sql:
        assert found.column_names == ["When", "user_id", "word"]
    assert job.metadata is not None
    assert job.metadata.keys == ["user_id"]
    assert (job.metadata.min_event_timestamp, job.metadata.max_event_timestamp) == (
        hour(1),
        hour(3),
    )


def test_by_sql_that_gives_other_rows_each_time(store: FeatureStore) -> None:
    """It is run once a result, also where rows are looked at twice."""
    sql = (
        "SELECT (1 + random() * 2)::INT AS user_id, n, TIMESTAMPTZ '2026-03-01 06:00:00+00' AS at "
        "FROM range(200) r(n)"
    )
    found = ask(store, sql, filter_by_created_timestamp=True)
    assert sorted(found["n"].to_pylist()) == list(range(200))
    expected = {1: "late", 2: "redone", 3: None}
    pairs = zip(found["user_id"].to_pylist(), found["word"].to_pylist(), strict=True)
    assert all(expected[key] == word for key, word in pairs)


def test_only_what_was_known_by_then(store: FeatureStore) -> None:
    rows = pd.DataFrame({"user_id": [2, 2], "event_timestamp": [hour(4), hour(5)]})
    assert words(ask(store, rows)) == [("redone", 2), ("redone", 2)]
    found = ask(store, rows, filter_by_created_timestamp=True)
    assert words(found) == [("other", 2), ("redone", 2)]


def test_an_arrow_table(store: FeatureStore) -> None:
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    table = table.append_column("cut", pa.array(["x", "y", "x", None]).dictionary_encode())
    found = ask(store, table)
    assert words(found) == EXPECTED
    assert found.schema.field("cut").type == pa.string()


def test_durations_come_back(store: FeatureStore) -> None:
    """Feast's store fails on them."""
    rows = FRAME.assign(wait=pd.to_timedelta([1, 2, None, 4], unit="s"))
    assert ask(store, rows)["wait"].to_pylist().count(None) == 1
    assert ask(store, rows).schema.field("wait").type == pa.duration("ns")


def test_times_finer_than_duckdb_counts(store: FeatureStore) -> None:
    """Feast's store fails on them."""
    times = pd.to_datetime([hour(2), hour(2)], utc=True) + pd.to_timedelta([-1, 1], unit="ns")
    rows = pd.DataFrame({"user_id": [1, 1], "event_timestamp": times})
    assert words(ask(store, rows)) == [("early", 1), ("late", 1)]


def test_a_key_of_nulls_only(store: FeatureStore) -> None:
    rows = pd.DataFrame({"user_id": [None, None], "event_timestamp": [hour(1)] * 2})
    assert ask(store, rows)["word"].to_pylist() == [None, None]


def test_names_that_differ_in_case(store: FeatureStore) -> None:
    rows = FRAME.assign(User_ID=9, WORD="mine")
    found = ask(store, rows)
    assert found.column_names == ["user_id", "event_timestamp", "User_ID", "WORD", "word"]
    assert words(found) == EXPECTED


class TestNone:
    """Without entity rows: one for each key and time within a range."""

    def test_of_one_view(self, store: FeatureStore) -> None:
        job = store.get_historical_features(
            None, ["users:word"], start_date=hour(0.5), end_date=hour(2)
        )
        found = job.to_arrow()
        assert bag(found) == bag(
            pa.table(
                {
                    "event_timestamp": pa.array([hour(1), hour(2)], pa.timestamp("us", "UTC")),
                    "user_id": [2, 1],
                    "word": ["redone", "late"],
                }
            )
        )
        assert job.metadata is not None
        assert job.metadata.min_event_timestamp == hour(0.5)
        assert job.metadata.max_event_timestamp == hour(2)

    def test_of_two_views(self, store: FeatureStore) -> None:
        refs = ["users:word", "shops:score"]
        found = ask(store, None, refs, start_date=hour(2), end_date=hour(2))
        assert sorted(found.select(["user_id", "shop", "word", "score"]).to_pylist(), key=repr) == [
            {"user_id": 1, "shop": None, "word": "late", "score": None},
            {"user_id": None, "shop": "b", "word": None, "score": 20},
        ]

    def test_of_an_open_range(self, store: FeatureStore) -> None:
        """From the longest ttl before the end, which is naive here and means UTC."""
        end = datetime(2026, 3, 2, 1)
        assert words(ask(store, None, end_date=end)) == [("late", 1), ("redone", 2)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (FRAME.drop(columns="user_id"), r"(?s)rows have column user_id\n.*with_join_key_map"),
        (FRAME.drop(columns="event_timestamp"), r"(?s)column event_timestamp, or one.*0 columns"),
        (
            FRAME.assign(user_id=["1", "2", "3", "1"]),
            r"(?s)Key user_id .*VARCHAR in the.*BIGINT in",
        ),
        (FRAME.assign(event_timestamp=[1, 2, 3, 4]), r"(?s)event_timestamp .*has times.*int64"),
        (FRAME[:1].assign(event_timestamp="2026-13-45"), r"(?s)event_timestamp .*has times.*45"),
        (FRAME.assign(mixed=[1, "x", 2.5, None]), r"(?s)has one type.*mixed"),
        (FRAME.assign(word="mine"), r"(?s)different names.*twice: word.*full_feature_names=True"),
        ("SELECT 1 AS user_id", r"(?s)column event_timestamp, or one.*0 columns.*SELECT user_id"),
        (
            "SELECT 1 AS user_id, now() AS a, now() AS b",
            r"(?s)column event_timestamp, or one.*2 columns of times among user_id, a, b",
        ),
        ("SELECT nothing", r"(?s)DuckDB can run.*nothing"),
        ("SELECT * FROM 'none.parquet'", r"(?s)DuckDB can run.*none\.parquet"),
        ([1], r"(?s)DataFrame, an Arrow table or SQL.*list"),
        (
            pa.table({"x": [1]}).append_column("x", pa.array([2])),
            r"(?s)different names.*detail: x",
        ),
    ],
)
def test_rows_of_no_use(store: FeatureStore, rows: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        ask(store, rows)
