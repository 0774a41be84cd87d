"""What is online is compared with what should be there, whichever stores a repo has."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any

import pandas as pd
import pytest

from reki_feast.errors import StoreError
from reki_feast.stores import RowComparison, compare_online, default_tag
from tests.stores.shop import OURS, SCENARIO, Shop, day

# ibis 12 calls a method that DuckDB 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"
)

#: Online and offline stores.
STORES: dict[str, dict[str, Any]] = {
    "hash": {},
    "packed": {"layout": "packed"},
    "stock redis": {"online": {"type": "redis"}},
    "sqlite": {"online": {"type": "sqlite", "path": "online.db"}},
    "stock duckdb": {"offline": {"type": "duckdb"}},
}


@pytest.fixture(params=STORES)
def shop(request: pytest.FixtureRequest, open_shop: Callable[..., Shop]) -> Shop:
    """A hundred users as of day 0, all online."""
    made = open_shop(**STORES[request.param])
    made.add(range(100), at=0, made=1)
    made.full(2)
    return made


def compared(shop: Shop, end: datetime | None = None, **options: Any) -> RowComparison:
    store = shop.stores[OURS]
    return compare_online(store, store.get_feature_view("v"), end, **options)


def nothing(shop: Shop) -> None:
    pass


def new_ids(shop: Shop) -> None:
    shop.add(range(100, 110), at=1, made=3)


def newer_rows(shop: Shop) -> None:
    shop.add(range(20), at=1, made=3)


def rows_made_anew(shop: Shop) -> None:
    shop.add(range(30), at=0, made=3)


def pushed(shop: Shop) -> None:
    rows = {"user_id": [1, 2], "vec": [[9.0, 1.0]] * 2, "at": [day(3)] * 2, "made": [day(3)] * 2}
    shop.stores[OURS].write_to_online_store("v", pd.DataFrame(rows))


def a_folder_made_afresh(shop: Shop) -> None:
    """With the rows of an earlier time; what is online stays in Redis, as it is newer."""
    (shop.table / "1.parquet").unlink()
    shop.add(range(100), at=-9, made=9)
    shop.full(4)


FOUND = {
    "nothing": (nothing, RowComparison("v", 100, equal=100), "of 100 rows none differs"),
    "new ids": (new_ids, RowComparison("v", 110, equal=100, missing=10), "of 110 rows 10 missing"),
    "newer rows": (newer_rows, RowComparison("v", 100, equal=80, stale=20), "of 100 rows 20 older"),
    "rows made anew": (
        rows_made_anew,
        RowComparison("v", 100, equal=70, other=30),
        "of 100 rows 30 with other values",
    ),
    "pushed": (
        pushed,
        RowComparison("v", 100, equal=98, newer=2),
        "of 100 rows 2 of a later time",
    ),
    "a folder made afresh": (
        a_folder_made_afresh,
        RowComparison("v", 100, newer=100),
        "of 100 rows 100 of a later time",
    ),
}


@pytest.mark.parametrize("happened", FOUND)
def test_what_differs_is_counted(shop: Shop, happened: str) -> None:
    act, expected, words = FOUND[happened]
    if act is a_folder_made_afresh and shop.online["type"] == "sqlite":
        pytest.skip("Feast's SQLite store takes older rows, too")
    act(shop)
    found = compared(shop)
    assert found == expected
    assert str(found) == words
    assert found.wrong == expected.missing + expected.stale + expected.other


def test_only_what_was_to_be_materialized(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.add(range(100), at=0, made=1)
    shop.add(range(40), at=5, made=6)
    shop.full(2)
    assert compared(shop, day(2)) == RowComparison("v", 100, equal=100)
    assert compared(shop) == RowComparison("v", 100, equal=60, stale=40)


@pytest.mark.parametrize("stores", ["hash", "stock duckdb"])
def test_a_sample_is_the_same_each_time_and_another_by_its_seed(
    open_shop: Callable[..., Shop], stores: str
) -> None:
    shop = open_shop(**STORES[stores])
    shop.add(range(400), at=0, made=1)
    shop.full(2)
    shop.add(range(200), at=1, made=3)
    found = [compared(shop, sample=50, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert all(one.compared == 50 and 5 < one.stale < 45 for one in found)
    assert found[0] == found[1]
    assert len({one.stale for one in found}) > 1
    assert compared(shop).compared == 200


def test_rows_too_old_to_be_served_are_not_compared(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(ttl_days=30)
    shop.add(range(10), at=-3_000, made=0)
    shop.full(2)
    assert compared(shop) == RowComparison("v", 0)


def test_nulls(open_shop: Callable[..., Shop]) -> None:
    """A null online is a null, not the default that it is served as."""
    shop = open_shop(tags={**SCENARIO, **default_tag({"vec": [0.0, 0.5]})})
    shop.add(range(10), at=0, made=1, vectors=False)
    shop.full(2)
    assert compared(shop) == RowComparison("v", 10, equal=10)


def test_another_store_that_was_never_written_is_told(open_shop: Callable[..., Shop]) -> None:
    """As where a line of ``feature_store.yaml`` is lost, and Feast takes its default."""
    shop = open_shop(**STORES["sqlite"])
    shop.add(range(10), at=0, made=1)
    with closing(sqlite3.connect(shop.folder / "online.db")) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            database.execute(f'DROP TABLE "{table}"')
    with pytest.raises(StoreError, match=r"has rows of view v to read\n.*no such table"):
        compared(shop)
