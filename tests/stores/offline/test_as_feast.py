"""Row for row what Feast's own DuckDB store gives: names and order of columns, types, rows."""

from __future__ import annotations

import itertools
import tempfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureService, FeatureView, Field, FileSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64, String
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.stores.duckdb_offline import RekiDuckDBOfflineStore
from tests.stores.offline.tables import (
    OURS,
    SHOP,
    SHOPS,
    STOCK,
    USER,
    USERS,
    Stores,
    bag,
    config,
    hour,
    shops_view,
    user,
    users_view,
    write,
)

# ibis 12 calls a method that DuckDB 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"
)

NO_ON_DEMAND: Any = SimpleNamespace(list_on_demand_feature_views=lambda *_, **__: [])
REFS = ["users:word", "users:vector", "users:seen", "shops:score"]

IDS = [1, 2, 1, 2, 3, None]
HOURS = [0, 1, 2, 3, 4, 1, 2, 3, None]
SHOP_NAMES = ["a", "", "a", None]
TTLS = [None, timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(days=36_500)]
#: Sizes shrink, what is in the rows comes of a seed: so no two examples are alike.
sizes = st.integers(0, 16)
seeds = st.integers(0, 1 << 32)


def drawn(random: Random, size: int, *columns: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(random.choice(values) for values in columns) for _ in range(size)]


def user_table(rows: list[Any], created: bool) -> list[dict[str, Any]]:
    """Rows that differ in what settles ties: where they do not, Feast picks any."""
    table = {}
    for number, (key, at, made, gap) in enumerate(rows):
        tie = (key, at, made) if created else (key, at)
        row = user(key, at, f"w{number}", made)
        table[tie] = {**row, "word": None, "vector": None} if gap else row
    return list(table.values())


def shop_table(rows: list[Any]) -> list[dict[str, Any]]:
    return [
        {"shop": name, "Score": number, "at": None if at is None else hour(at)}
        for number, (name, at) in enumerate(dict.fromkeys(rows))
    ]


def entity_frame(rows: list[Any]) -> pd.DataFrame:
    """Some rows twice, and a column that no view knows."""
    rows = rows + rows[:2]
    times = pd.to_datetime([None if at is None else hour(at) for _, _, at in rows], utc=True)
    return pd.DataFrame(
        {
            "label": range(len(rows)),
            "buyer": pd.array([key for key, _, _ in rows], dtype="Int64"),
            "event_timestamp": times,
            "shop": pd.array([name for _, name, _ in rows], dtype="string"),
        }
    )


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("known_by_then", [True, False])
@settings(max_examples=14, deadline=None)
@given(sizes, sizes, sizes, seeds)
def test_random_tables(
    created: bool, known_by_then: bool, users: int, shops: int, rows: int, seed: int
) -> None:
    random = Random(seed)
    table = user_table(drawn(random, users, IDS, HOURS, HOURS, [True, False, False]), created)
    scores = shop_table(drawn(random, shops, SHOP_NAMES, HOURS))
    frame = entity_frame(drawn(random, rows, IDS, SHOP_NAMES, HOURS))
    ttl, full = random.choice(TTLS), random.random() < 0.5
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder / "users" / "0.parquet", table[::2], USERS)
        write(folder / "users" / "1.parquet", table[1::2], USERS)
        write(folder / "shops.parquet", scores, SHOPS)
        view = users_view(folder / "users" / "*.parquet", created=created, ttl=ttl)
        view.projection.join_key_map = {"user_id": "buyer"}
        views = [view, shops_view(folder / "shops.parquet", ttl=ttl)]
        expected, found = (
            store.get_historical_features(
                config(folder, offline),
                views,
                REFS,
                frame.copy(),
                NO_ON_DEMAND,
                "p",
                full,
                known_by_then,
            ).to_arrow()
            for store, offline in ((DuckDBOfflineStore, STOCK), (RekiDuckDBOfflineStore, OURS))
        )
    assert found.schema == expected.schema
    assert bag(found) == bag(expected)


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("keyed", [True, False])
@settings(max_examples=8, deadline=None)
@given(sizes, seeds)
def test_random_tables_on_their_way_online(
    created: bool, keyed: bool, size: int, seed: int
) -> None:
    random = Random(seed)
    # Without a key one row is the last: no two may be equally late.
    ids = IDS if keyed else [None]
    table = user_table(drawn(random, size, ids, HOURS, HOURS, [True, False]), created)
    start, end = random.choice([0, 1, 2]), random.choice([1, 2, 3, 4, 6])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder / "0.parquet", table, USERS)
        source = FileSource(path=str(folder / "0.parquet"), timestamp_field="event_timestamp")
        made = "created" if created else None
        keys = ["user_id"] if keyed else []
        features = ["word", "vector"] if keyed else ["user_id", "word"]
        asked: Any = (source, keys, features, "event_timestamp", made, hour(start), hour(end))
        for verb in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
            expected, found = (
                getattr(store, verb)(config(folder, offline), *asked).to_arrow()
                for store, offline in ((DuckDBOfflineStore, STOCK), (RekiDuckDBOfflineStore, OURS))
            )
            assert found.schema == expected.schema
            assert bag(found) == bag(expected)


TIMES = {
    "utc": pd.to_datetime([hour(1), hour(2)], utc=True),
    "naive": pd.to_datetime([hour(1), hour(2)]).tz_localize(None),
    "another zone": pd.to_datetime([hour(1), hour(2)]).tz_convert("Asia/Tokyo"),
    "objects": pd.Series([hour(1), hour(2)], dtype=object),
    "naive objects": pd.Series([hour(1).replace(tzinfo=None)] * 2, dtype=object),
    "strings": pd.Series([hour(1).isoformat(), hour(2).isoformat()]),
    "naive strings": pd.Series(["2026-03-01 01:00", "2026-03-01 02:00"]),
    "seconds": pd.to_datetime([hour(1), hour(2)], utc=True).as_unit("s"),
    "with a gap": pd.to_datetime([hour(1), None], utc=True),
}


@pytest.fixture
def served(stores: Stores, tmp_path: Path) -> Stores:
    """Two users and two shops, two rows each."""
    rows = [user(1, 0, "early"), user(1, 2, "late"), user(2, 1, "other")]
    write(tmp_path / "users.parquet", rows, USERS)
    scores = [("a", 1, 0), ("a", 2, 2)]
    table = [{"shop": name, "Score": score, "at": hour(at)} for name, score, at in scores]
    write(tmp_path / "shops.parquet", table, SHOPS)
    return stores.apply(
        users_view(tmp_path / "users.parquet"), shops_view(tmp_path / "shops.parquet")
    )


@pytest.mark.parametrize("coerced", [True, False])
@pytest.mark.parametrize("kind", TIMES)
def test_times_of_any_kind(served: Stores, kind: str, coerced: bool) -> None:
    for store in (served.stock, served.ours):
        store.config.coerce_tz_aware = coerced
    rows = pd.DataFrame({"user_id": [1, 1], "event_timestamp": TIMES[kind]})
    before = rows.copy()
    found = served.agree(rows, ["users:word"])
    assert "early" in found["word"].to_pylist()
    pd.testing.assert_frame_equal(rows, before)


def test_a_time_column_of_another_name(served: Stores) -> None:
    rows = pd.DataFrame({"when": pd.to_datetime([hour(1)], utc=True), "user_id": [1]})
    assert served.agree(rows, ["users:word"])["word"].to_pylist() == ["early"]


COLUMNS = {
    "int8": pd.Series([1, 2], dtype="int8"),
    "uint64": pd.Series([1, 1 << 63], dtype="uint64"),
    "float": pd.Series([1.5, None]),
    "float32": pd.Series([1.5, float("inf")], dtype="float32"),
    "bool": pd.Series([True, False]),
    "bool with a gap": pd.Series([True, None], dtype=object),
    "text": pd.Series(["ü", None], dtype=object),
    "pandas text": pd.Series(["x", None], dtype="string"),
    "category": pd.Series(["x", "y"], dtype="category"),
    "bytes": pd.Series([b"\x00", b"y"]),
    "time": pd.to_datetime([hour(1), None], utc=True),
    "naive time": pd.to_datetime([hour(1), None]).tz_localize(None),
    "time of another zone": pd.to_datetime([hour(1), None]).tz_convert("Asia/Tokyo"),
    "time in seconds": pd.Series([hour(1).replace(tzinfo=None)] * 2, dtype="datetime64[s]"),
    "date": pd.Series([date(2026, 1, 1), None]),
    "clock": pd.Series([datetime(2026, 1, 1, 1).time(), None]),
    "decimal": pd.Series([Decimal("1.50"), Decimal("2.25")]),
    "list": pd.Series([[1, 2], []]),
    "texts": pd.Series([["a", None], None]),
    "struct": pd.Series([{"a": 1}, {"a": None}]),
    "nothing": pd.Series([None, None], dtype=object),
    'a "quoted" name': pd.Series([1, 2]),
    "index-like": pd.Series([1, 2], index=[7, 7]).reset_index(drop=True),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_any_type(served: Stores, name: str) -> None:
    times = pd.to_datetime([hour(1), hour(1)], utc=True)
    rows = pd.DataFrame({"user_id": [1, 3], name: COLUMNS[name], "event_timestamp": times})
    served.agree(rows, ["users:word", "users:vector"])


def test_all_columns_at_once_under_an_odd_index(served: Stores) -> None:
    rows = pd.DataFrame({**COLUMNS, "user_id": [1, 2], "event_timestamp": [hour(1)] * 2})
    rows.index = pd.Index(["x", "x"])
    served.agree(rows, ["users:word"])


@pytest.mark.parametrize("full", [True, False])
def test_no_rows(served: Stores, full: bool) -> None:
    times = pd.to_datetime([], utc=True)
    rows = pd.DataFrame({"user_id": pd.Series([], dtype="int64"), "event_timestamp": times})
    found = served.agree(rows, ["users:vector", "users:word"], full_feature_names=full)
    assert found.num_rows == 0


@pytest.mark.parametrize("full", [True, False])
def test_a_view_twice_under_other_names(served: Stores, tmp_path: Path, full: bool) -> None:
    view = served.ours.get_feature_view("users")
    me = view.with_name("me")[["word"]]
    friend = view.with_name("friend").with_join_key_map({"user_id": "friend_id"})[["vector"]]
    service = FeatureService(name="pair", features=[me, friend])
    served.ours.apply(service)
    rows = pd.DataFrame({"user_id": [1, 2], "friend_id": [2, 9], "event_timestamp": [hour(3)] * 2})
    found = served.agree(rows, service, full_feature_names=full)
    column = "friend__vector" if full else "vector"
    assert found[column].to_pylist() == [[5.0, 0.5], None]


def test_columns_in_the_order_of_the_refs(served: Stores) -> None:
    rows = pd.DataFrame({"shop": ["a"], "user_id": [1], "event_timestamp": [hour(3)]})
    refs = ["users:seen", "shops:score", "users:word"]
    found = served.agree(rows, refs)
    assert found.column_names == ["shop", "user_id", "event_timestamp", "seen", "word", "score"]
    assert found["score"].to_pylist() == [2]


def test_several_keys_and_none(stores: Stores, tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("user_id", pa.int32()),
            ("shop", pa.string()),
            ("visits", pa.int64()),
            ("ts", pa.timestamp("ns")),
        ]
    )
    pairs = itertools.product([1, 2], ["a", "b"])
    table = [
        {"user_id": u, "shop": s, "visits": n, "ts": hour(n).replace(tzinfo=None)}
        for n, (u, s) in enumerate(pairs)
    ]
    write(tmp_path / "pairs.parquet", table, schema)
    source = FileSource(path=str(tmp_path / "pairs.parquet"), timestamp_field="ts")
    fields = [Field(name="visits", dtype=Int64)]
    keyed = FeatureView(name="pairs", entities=[USER, SHOP], schema=fields, source=source)
    stores.apply(keyed)
    rows = pd.DataFrame(
        {"shop": ["a", "b", "b"], "user_id": [1, 1, 2], "event_timestamp": [hour(1)] * 3}
    )
    found = stores.agree(rows, ["pairs:visits"])
    by_pair = dict(
        zip(
            zip(*[found[c].to_pylist() for c in ("user_id", "shop")], strict=True),
            found["visits"].to_pylist(),
            strict=True,
        )
    )
    assert by_pair == {(1, "a"): 0, (1, "b"): 1, (2, "b"): None}


def test_one_of_several_keys_renamed(stores: Stores, tmp_path: Path) -> None:
    """Not as in Feast's DuckDB store, which then forgets the other keys; as in its other stores."""
    schema = pa.schema([*SHOPS, ("user_id", pa.int64())])
    table = [{"shop": s, "user_id": 1, "Score": n, "at": hour(n)} for n, s in enumerate("ab")]
    write(tmp_path / "pairs.parquet", table, schema)
    source = FileSource(path=str(tmp_path / "pairs.parquet"), timestamp_field="at")
    fields = [Field(name="Score", dtype=Int64)]
    pairs = FeatureView(name="pairs", entities=[USER, SHOP], schema=fields, source=source)
    stores.apply(pairs)
    view = stores.ours.get_feature_view("pairs")
    service = FeatureService(name="s", features=[view.with_join_key_map({"user_id": "buyer"})])
    stores.apply(service)
    rows = pd.DataFrame({"buyer": [1], "shop": ["a"], "event_timestamp": [hour(3)]})
    expected, found = stores.both(rows, service)
    assert expected["Score"].to_pylist() == [1]
    assert found["Score"].to_pylist() == [0]


def test_a_view_without_entities(stores: Stores, tmp_path: Path) -> None:
    table = [{"shop": "x", "Score": n, "at": hour(n)} for n in range(3)]
    write(tmp_path / "global.parquet", table, SHOPS)
    view = FeatureView(
        name="everywhere",
        entities=[],
        schema=[Field(name="Score", dtype=Int64)],
        source=FileSource(path=str(tmp_path / "global.parquet"), timestamp_field="at"),
    )
    stores.apply(view)
    rows = pd.DataFrame({"n": [1, 2], "event_timestamp": [hour(1), hour(-1)]})
    found = stores.agree(rows, ["everywhere:Score"])
    assert dict(zip(found["n"].to_pylist(), found["Score"].to_pylist(), strict=True)) == {
        1: 1,
        2: None,
    }


@pytest.mark.filterwarnings("ignore:On demand feature view is an experimental:RuntimeWarning")
def test_an_on_demand_view(served: Stores) -> None:
    users = served.ours.get_feature_view("users")

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[users], schema=[Field(name="loud", dtype=String)], mode="pandas"
    )
    def shout(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"loud": frame["word"].str.upper()})

    served.ours.apply(shout)
    rows = pd.DataFrame({"user_id": [1, 2, 3], "event_timestamp": [hour(3)] * 3})
    found = served.agree(rows, ["shout:loud", "users:word"])
    assert found["loud"].to_pylist() == [w and w.upper() for w in found["word"].to_pylist()]


def test_metadata(served: Stores) -> None:
    rows = pd.DataFrame({"user_id": [1, 2], "x": [0, 0], "event_timestamp": [hour(3), hour(1)]})
    stock, ours = (
        store.get_historical_features(rows.copy(), ["users:word"]).metadata
        for store in (served.stock, served.ours)
    )
    assert stock is not None
    assert ours is not None
    assert (ours.features, sorted(ours.keys)) == (stock.features, sorted(stock.keys))
    assert (ours.min_event_timestamp, ours.max_event_timestamp) == (hour(1), hour(3))
    assert stock.min_event_timestamp == ours.min_event_timestamp
