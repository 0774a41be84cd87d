"""The six views through Feast, online and offline, with our stores and with Feast's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import String

from reki_feast.stores import count_online, materialize_views

# ibis 12 calls a method that DuckDB 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"
)

MakeStore = Callable[..., FeatureStore]
DAY_1 = datetime(2026, 3, 1, tzinfo=UTC)
DAY_2 = datetime(2026, 6, 1, tzinfo=UTC)
END = datetime(2026, 9, 1, tzinfo=UTC)
USER_DEFAULT = [0.5, -0.5, 0.25, 0.0]
ITEM_DEFAULT = [9.0, 8.0, 7.0, 6.0]


def apply(store: FeatureStore, published: Any, *more: Any, **options: Any) -> list[str]:
    views = published.views(**options).views()
    store.apply([*published.entities(), *views, *more])
    return [view.name for view in views]


@pytest.fixture
def served(published: Any, make_store: MakeStore) -> FeatureStore:
    """A repo with our stores, materialized."""
    store = make_store()
    service = FeatureService(name="all", features=published.views().views())
    counts = materialize_views(store, apply(store, published, service), END)
    assert [(c.source, c.online) for c in counts] == [(40, 40), (25, 25)] * 3
    return store


def unknown(published: Any) -> Any:
    return type(published.ids["user"][0])(77)


class TestOnline:
    @pytest.mark.parametrize("full", [True, False])
    def test_vectors_of_known_and_unknown_users(
        self, served: FeatureStore, published: Any, full: bool
    ) -> None:
        ids = [published.ids["user"][3], unknown(published), published.ids["user"][5]]
        rows = [{"user_id": one} for one in ids]
        found = served.get_online_features(["reki:user_aug"], rows, full_feature_names=full)
        assert found.to_dict() == {
            "user_id": ids,
            "reki__user_aug" if full else "user_aug": [[1, 3, 0, 0], USER_DEFAULT, [1, 5, 0, 0]],
        }
        present, missing = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
        assert list(found.proto.results[1].statuses) == [present, missing, present]

    def test_all_refs_in_one_service(self, served: FeatureStore, published: Any) -> None:
        service = served.get_feature_service("all")
        rows = [{"user_id": published.ids["user"][0], "sku": published.ids["item"][1]}]
        rows.append({"user_id": unknown(published), "sku": unknown(published)})
        found = served.get_online_features(service, rows, full_feature_names=True).to_dict()
        assert found["reki__user_aug"] == [[1, 0, 0, 0], USER_DEFAULT]
        assert found["reki_item__item_aug"] == [[1, 1, 0, 0], ITEM_DEFAULT]
        assert found["reki_user_knowledge__text"] == ["text 1 0", None]
        assert found["reki_item_knowledge__factor_genre"] == ["drama", None]
        assert found["reki_user_representation__knowledge"] == [[1, 2, 1], None]
        assert found["reki_item_representation__description"] == [[0, 0, 0], None]
        assert len(found) == 2 + 2 + 2 * 6 + 2 * 2

    def test_asynchronously(self, served: FeatureStore, published: Any) -> None:
        rows = [{"user_id": published.ids["user"][3]}, {"user_id": unknown(published)}]

        async def read() -> dict[str, Any]:
            await served.initialize()
            try:
                refs = ["reki:user_aug", "reki_user_knowledge:model"]
                return (await served.get_online_features_async(refs, rows)).to_dict()
            finally:
                online: Any = served._get_provider().online_store
                await (await online._get_client_async(served.config.online_store)).aclose()

        found = asyncio.run(read())
        assert found["user_aug"] == [[1, 3, 0, 0], USER_DEFAULT]
        assert found["model"] == ["a-model", None]

    @pytest.mark.usefixtures("served")
    def test_the_stock_class_reads_what_ours_wrote(
        self, published: Any, make_store: MakeStore, redis_address: str
    ) -> None:
        stock = make_store(online={"type": "redis", "connection_string": redis_address})
        assert type(stock._get_provider().online_store) is RedisOnlineStore
        rows = [{"user_id": published.ids["user"][3]}, {"user_id": unknown(published)}]
        found = stock.get_online_features(["reki:user_aug"], rows).to_dict()
        assert found["user_aug"] == [[1, 3, 0, 0], None]  # null: Feast's own knows no default
        assert count_online(stock, "reki") == 40

    def test_before_anything_is_materialized(self, published: Any, make_store: MakeStore) -> None:
        store = make_store()
        apply(store, published)
        found = store.get_online_features(["reki:user_aug"], [{"user_id": unknown(published)}])
        assert found.to_dict()["user_aug"] == [USER_DEFAULT]

    def test_new_weights_replace_vectors_of_the_same_time(
        self, served: FeatureStore, published: Any
    ) -> None:
        retrained = type(published)(published.folder, published.user_key, published.item_key)
        retrained.offset = 100
        retrained.write()
        materialize_views(served, ["reki"], END)
        rows = [{"user_id": published.ids["user"][3]}]
        assert served.get_online_features(["reki:user_aug"], rows).to_dict()["user_aug"] == [
            [101, 3, 0, 0]
        ]

    def test_an_older_snapshot_does_not_replace_a_newer(
        self, served: FeatureStore, published: Any
    ) -> None:
        served.materialize(DAY_1 - timedelta(days=1), DAY_1, feature_views=["reki"])
        rows = [{"user_id": published.ids["user"][3]}]
        found = served.get_online_features(["reki:user_aug"], rows).to_dict()
        assert found["user_aug"] == [[1, 3, 0, 0]]

    def test_a_second_snapshot_arrives_incrementally(
        self, published: Any, make_store: MakeStore
    ) -> None:
        store = make_store()
        apply(store, published)
        rows = [{"user_id": published.ids["user"][3]}]
        for end, expected in ((DAY_1, [0, 3, 0, 0]), (END, [1, 3, 0, 0])):
            materialize_views(store, ["reki"], end, incremental=True)
            found = store.get_online_features(["reki:user_aug"], rows).to_dict()
            assert found["user_aug"] == [expected]


class TestOffline:
    @pytest.mark.parametrize("full", [True, False])
    def test_every_row_as_of_its_own_time(
        self, published: Any, make_store: MakeStore, full: bool
    ) -> None:
        store = make_store()
        apply(store, published)
        cases = [
            (DAY_1 - timedelta(microseconds=1), USER_DEFAULT),
            (DAY_1, [0, 3, 0, 0]),
            (DAY_2 - timedelta(microseconds=1), [0, 3, 0, 0]),
            (DAY_2, [1, 3, 0, 0]),
            (END, [1, 3, 0, 0]),
        ]
        rows = pd.DataFrame(
            {"user_id": published.ids["user"][3], "event_timestamp": [time for time, _ in cases]}
        )
        found = store.get_historical_features(rows, ["reki:user_aug"], full).to_df()
        column = "reki__user_aug" if full else "user_aug"
        got = found.sort_values("event_timestamp")[column].map(list).to_list()
        assert got == [vector for _, vector in cases]

    def test_no_row_of_a_random_table_sees_the_future(
        self, published: Any, make_store: MakeStore
    ) -> None:
        store = make_store()
        apply(store, published)
        rng = np.random.default_rng(0)
        users = [*published.ids["user"], unknown(published)]
        picked = rng.integers(0, len(users), 3_000)
        seconds = rng.integers(-90, 180, 3_000) * 86_400 + rng.choice([0, 0, 1, 3_599], 3_000)
        rows = pd.DataFrame(
            {
                "row": np.arange(3_000),
                "user_id": [users[n] for n in picked],
                "sku": published.ids["item"][7],
                "event_timestamp": pd.to_datetime(DAY_1) + pd.to_timedelta(seconds, unit="s"),
            }
        )
        refs = ["reki:user_aug", "reki_item:item_aug", "reki_user_knowledge:text"]
        found = store.get_historical_features(rows, refs).to_df().sort_values("row")
        assert len(found) == 3_000
        times = rows["event_timestamp"]
        number = (times >= DAY_1).astype(int) + (times >= DAY_2) - 1
        known = (number >= 0) & (picked < 40)
        expected = [
            [float(s), float(u), 0, 0] if k else USER_DEFAULT
            for s, u, k in zip(number, picked, known, strict=True)
        ]
        assert found["user_aug"].map(list).to_list() == expected
        assert found["text"].isna().to_list() == (~known).tolist()

    def test_expired_vectors_give_the_default(self, published: Any, make_store: MakeStore) -> None:
        store = make_store()
        apply(store, published, ttl=timedelta(days=10))
        times = [DAY_2 + timedelta(days=10), DAY_2 + timedelta(days=10, seconds=1)]
        rows = pd.DataFrame({"user_id": published.ids["user"][3], "event_timestamp": times})
        found = store.get_historical_features(rows, ["reki:user_aug"]).to_df()
        got = found.sort_values("event_timestamp")["user_aug"].map(list).to_list()
        assert got == [[1, 3, 0, 0], USER_DEFAULT]

    def test_under_another_name_and_key(self, published: Any, make_store: MakeStore) -> None:
        friend = (
            published.views().user.with_name("friend").with_join_key_map({"user_id": "friend_id"})
        )
        service = FeatureService(name="friends", features=[friend])
        store = make_store()
        apply(store, published, service)
        ids = [published.ids["user"][3], unknown(published)]
        rows = pd.DataFrame({"friend_id": ids, "event_timestamp": [DAY_2] * 2})
        for full, column in ((True, "friend__user_aug"), (False, "user_aug")):
            found = store.get_historical_features(rows, service, full).to_df()
            got = dict(zip(found["friend_id"], found[column].map(list), strict=True))
            assert got == {ids[0]: [1, 3, 0, 0], ids[1]: USER_DEFAULT}

    def test_the_stock_duckdb_store_gives_null(self, published: Any, make_store: MakeStore) -> None:
        store = make_store(offline={"type": "duckdb"})
        apply(store, published)
        ids = [published.ids["user"][3], unknown(published)]
        rows = pd.DataFrame({"user_id": ids, "event_timestamp": [DAY_2] * 2})
        found = store.get_historical_features(rows, ["reki:user_aug"]).to_df()
        by_id = dict(zip(found["user_id"], found["user_aug"], strict=True))
        assert list(by_id[ids[0]]) == [1, 3, 0, 0]
        assert by_id[ids[1]] is None

    @pytest.mark.filterwarnings("ignore:Downcasting object dtype:FutureWarning")
    def test_the_stock_file_store_joins_known_ids(
        self, published: Any, make_store: MakeStore
    ) -> None:
        """Feast 0.67's fails on a row without a match when a table has several parts."""
        store = make_store(offline={"type": "file"})
        apply(store, published)
        rows = pd.DataFrame(
            {"user_id": published.ids["user"][:2], "event_timestamp": [DAY_1, DAY_2]}
        )
        found = store.get_historical_features(rows, ["reki:user_aug"]).to_df()
        got = found.sort_values("event_timestamp")["user_aug"].map(list).to_list()
        assert got == [[0, 0, 0, 0], [1, 1, 0, 0]]


def test_views_of_others_are_left_alone(published: Any, make_store: MakeStore) -> None:
    """A view without our tag gives null in both stores, beside ours."""
    other = FeatureView(
        name="other",
        entities=[published.entities()[0]],
        schema=[Field(name="hash", dtype=String)],
        source=FileSource(
            path=str(published.folder / "user_aug" / "0000.parquet"),
            timestamp_field="event_timestamp",
        ),
    )
    stock, ours = make_store(offline={"type": "duckdb"}), make_store()
    apply(ours, published, other)
    rows = pd.DataFrame({"user_id": [unknown(published)], "event_timestamp": [DAY_2]})
    for store in (stock, ours):
        found = store.get_historical_features(rows.copy(), ["other:hash"]).to_df()
        assert found["hash"].isna().all()
    online = ours.get_online_features(["other:hash"], [{"user_id": unknown(published)}])
    assert online.to_dict()["hash"] == [None]
    assert list(online.proto.results[1].statuses) == [FieldStatus.NOT_FOUND]


@pytest.mark.parametrize("way", ["ours", "stock"])
def test_a_default_is_filled_in_exact_to_the_bit(way: str) -> None:
    import ibis
    import pyarrow as pa

    from reki_feast.stores.offline.asof import JoinFeature
    from reki_feast.stores.offline.query import Query
    from reki_feast.stores.offline.stock import _fill

    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    default = tuple(float(x) for x in vector)
    if way == "ours":
        found = Query(f"SELECT {JoinFeature('v', 'v', default).sql('NULL::FLOAT[]')} AS v").arrow()
    else:
        rows = ibis.memtable(pa.table({"v": pa.array([None], pa.list_(pa.float32()))}))
        found = _fill(rows, {"v": default}).to_pyarrow()
    assert np.array_equal(np.array(found["v"][0].as_py(), np.float32), vector)
