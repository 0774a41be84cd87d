"""`reki status` and `publish --materialize` tell of rows online that are not the tables'."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
from feast import FeatureStore

from reki_feast import stages
from reki_feast.errors import StoreError
from reki_feast.project import DeclaredProject
from reki_feast.results import OnlineView
from reki_feast.stores import embedded

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]


@pytest.fixture
def shop(materialized: DeclaredProject) -> Iterator[DeclaredProject]:
    """A shop that is materialized, before and after."""
    with client_of(materialized) as client:
        kept = {key: client.dump(key) for key in client.scan_iter()}
    yield materialized
    embedded.start(materialized.redis)
    with client_of(materialized) as client:
        client.flushdb()
        for key, raw in kept.items():
            client.restore(key, 0, raw)


def client_of(shop: DeclaredProject) -> Any:
    address = embedded.status(shop.redis).address
    assert address is not None
    return redis.Redis(unix_socket_path=address.path)


def store_of(shop: DeclaredProject) -> FeatureStore:
    return FeatureStore(repo_path=str(shop.feature_repo))


def write(shop: DeclaredProject, view: str, *, days: float, change: float = 0) -> None:
    """Rows of ten users online, as of a time after or before the newest."""
    rows = store_of(shop).get_feature_view(view)
    table = pd.read_parquet(Path(shop.feature_repo, rows.batch_source.path))  # type: ignore[union-attr]
    newest = table.sort_values("event_timestamp").groupby("customer_id", as_index=False).last()
    some = newest.head(10).reset_index(drop=True)
    some["event_timestamp"] += timedelta(days=days)
    feature = rows.features[0].name
    some[feature] = [value + change for value in some[feature]]
    store: Any = store_of(shop)
    store.config.online_store.skip_dedup = True
    store.write_to_online_store(view, some)


def found(shop: DeclaredProject) -> tuple[dict[str, OnlineView], list[str]]:
    """What `reki status` shows of views, and its notes about them."""
    result = stages.status(shop)
    assert not result.failed
    notes = [note for note in result.notes if "online are the newest" in note]
    return {view.view: view for view in result.online}, notes


def test_all_is_as_it_should_be(shop: DeclaredProject) -> None:
    views, notes = found(shop)
    assert {"reki", "reki_item", "reki_user_match", "reki_item_match"} <= views.keys()
    assert all(view.equal == view.compared > 0 for view in views.values())
    assert notes == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"days": -1}, "10 older"),
        ({"days": 0, "change": 1.0}, "10 with other values"),
        ({"days": 400}, "10 of a later time"),
    ],
)
def test_rows_that_are_others_are_told_with_the_mend(
    shop: DeclaredProject, change: Any, expected: str
) -> None:
    write(shop, "reki", **change)
    views, [note] = found(shop)
    assert views["reki"].compared - views["reki"].equal == 10
    rule = "the rows of view reki online are the newest of its table, but of "
    assert note.startswith(f"{rule}{views['reki'].compared} rows {expected}: ")
    assert "\n" not in note
    if "later" not in expected:
        assert "run `reki publish --materialize`" in note
        stages.publish(shop, materialize=True)
        assert found(shop)[1] == []
        return
    with pytest.raises(StoreError, match=r"(?s)view reki online.*of a later time.*feast teardown"):
        stages.publish(shop, materialize=True)


def test_pushed_rows_are_later_ones(shop: DeclaredProject) -> None:
    write(shop, "reki_user_match", days=1)
    views, notes = found(shop)
    assert views["reki_user_match"].later == 10
    assert notes == []
    assert stages.publish(shop, materialize=True).online


def test_rows_that_are_online_are_not_written_again(shop: DeclaredProject) -> None:
    """But for users' states, which are pushed, too; lost rows are."""

    def written(change: str) -> int:
        with client_of(shop) as client:
            for key in client.scan_iter():
                if change == "all are lost" or (change == "one is lost" and b"s-4" in key):
                    client.delete(key)
            client.config_resetstat()
            stages.publish(shop, materialize=True)
            counts = client.info("commandstats")
        return sum(counts.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("hset", "hmset"))

    nothing, one, all_of_them = map(written, ("", "one is lost", "all are lost"))
    assert nothing < one < all_of_them
    assert nothing < all_of_them / 2
    assert found(shop)[1] == []


def test_lost_rows_are_missing(shop: DeclaredProject) -> None:
    with client_of(shop) as client:
        client.flushdb()
    views, notes = found(shop)
    assert all(view.missing == view.compared > 0 for view in views.values())
    assert len(notes) == len(views)


def test_nothing_is_started_or_asked_where_it_is_down(shop: DeclaredProject) -> None:
    embedded.stop(shop.redis)
    assert stages.status(shop).online == []
    assert not embedded.status(shop.redis).running


def test_a_repo_that_cannot_be_read_is_told(shop: DeclaredProject) -> None:
    file = shop.feature_repo / "feature_store.yaml"
    said = file.read_text()
    file.write_text("project: [")
    try:
        result = stages.status(shop)
    finally:
        file.write_text(said)
    assert (result.online, result.failed) == ([], 0)
    assert any("Feast can read the repo" in note for note in result.notes)
