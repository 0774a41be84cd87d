"""A view's ttl means the same in a training join, in the online store and as tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis
from feast import FeatureService, FeatureStore, RepoConfig
from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.schema import Key
from reki_feast.stores import materialize_views
from reki_feast.stores.online.lifetimes import expired_rows
from reki_feast.stores.serving import TensorReader
from reki_feast.views import reki_match
from reki_feast.views.match_states import UserStates
from tests.stores.conftest import DEFAULT, OURS, SCORE, Published

Made = Callable[..., FeatureStore]
DAY = timedelta(days=1)
#: Vectors of users 0, 1 and 2 of a snapshot of two days ago, and of one that nobody knows.
KNOWN = [[0.0, n, 0.0, 0.0] for n in range(3)]
UNKNOWN = [DEFAULT["user"]] * 3
LIMITS = [(DAY, UNKNOWN), (3 * DAY, KNOWN), (timedelta(0), KNOWN), (None, KNOWN)]
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")


@pytest.fixture(params=["hash", "packed"])
def layout(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def films(tmp_path: Path, make_published: Callable[..., Published]) -> Published:
    """A scenario of one snapshot, two days ago."""
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    old = datetime.now(UTC) - 2 * DAY
    return make_published(tmp_path / "films", *keys, snapshots=[old], scored=True)


@pytest.fixture
def made(tmp_path: Path, films: Published, make_store: Made, redis_address: str) -> Made:
    """A repo over the scenario, materialized, its views with a ttl."""

    def make(ttl: timedelta | None, layout: str = "hash", **options: Any) -> FeatureStore:
        online = {**OURS["online"], "connection_string": redis_address, "layout": layout}
        store = make_store(online={**online, **options})
        user, item = films.entities()
        views = films.views(ttl=ttl)
        match = reki_match(films.folder, user=user, item=item, ttl=ttl)
        service = FeatureService(name="ctr", features=[views.user, match.match[["score"]]])
        store.apply([user, item, *views.views(), *match.views(), service])
        names = [view.name for view in [*views.views(), match.user, match.item]]
        materialize_views(store, names, datetime.now(UTC))
        return store

    return make


def rows(films: Published) -> list[dict[str, Any]]:
    return [{"user_id": films.ids["user"][n], "sku": films.ids["item"][n]} for n in range(3)]


def columns(films: Published) -> dict[str, list[Any]]:
    return {"user_id": films.ids["user"][:3], "sku": films.ids["item"][:3]}


@pytest.mark.parametrize(("ttl", "vectors"), LIMITS)
def test_the_same_everywhere(
    made: Made, films: Published, layout: str, ttl: timedelta | None, vectors: Any
) -> None:
    store = made(ttl, layout)
    refs = ["reki:user_aug", "reki_match:score", "reki_user_knowledge:text"]
    scores = [SCORE if vectors == KNOWN else 0.0] * 3
    texts = [f"text 0 {n}" if vectors == KNOWN else None for n in range(3)]

    frame = pd.DataFrame({**columns(films), "event_timestamp": datetime.now(UTC)})
    joined = store.get_historical_features(frame, refs).to_arrow().sort_by("user_id")
    online = store.get_online_features(refs, rows(films)).to_dict()
    remote = asyncio.run(asynchronously(store, refs, rows(films)))
    for found in (joined.to_pydict(), online, remote):
        assert found["user_aug"] == vectors
        assert found["score"] == pytest.approx(scores)
        assert found["text"] == texts

    with TensorReader(store, "ctr", kind="numpy") as reader:
        batch = reader.read(columns(films))
    assert batch["user_aug"].tolist() == vectors
    assert batch["score"].tolist() == pytest.approx(scores)
    for name in batch:
        assert batch.known[name].tolist() == [vectors == KNOWN] * 3


async def asynchronously(store: FeatureStore, refs: list[str], asked: Any) -> dict[str, Any]:
    online: Any = store._get_provider().online_store
    try:
        return (await store.get_online_features_async(refs, asked)).to_dict()
    finally:
        await (await online._get_client_async(store.config.online_store)).aclose()


def test_fresh_and_old_rows_of_one_answer(made: Made, films: Published, layout: str) -> None:
    store = made(DAY, layout)
    fresh = {"user_id": films.ids["user"][1:2], "user_aug": [[7.0] * 4]}
    now = datetime.now(UTC)
    times = {"event_timestamp": now - DAY / 2, "created_timestamp": now}
    store.write_to_online_store("reki", pd.DataFrame({**fresh, **times}))
    ids = [films.ids["user"][n] for n in (0, 1, 1, 0)] + [99]
    wanted = [DEFAULT["user"], [7.0] * 4, [7.0] * 4, DEFAULT["user"], DEFAULT["user"]]

    answer = store.get_online_features(["reki:user_aug"], [{"user_id": one} for one in ids])
    assert answer.to_dict()["user_aug"] == wanted
    old, here, gone = FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    assert list(answer.proto.results[1].statuses) == [old, here, here, old, gone]
    times = answer.to_dict(include_event_timestamps=True)["user_aug__ts"]
    assert times[0] == times[3] == int((films.snapshots[0]).timestamp())
    assert times[4] == 0
    with TensorReader(store, ["reki:user_aug"], kind="numpy") as reader:
        batch = reader.read({"user_id": ids})
    assert batch["user_aug"].tolist() == wanted
    assert batch.known["user_aug"].tolist() == [False, True, True, False, False]
    view = store.get_feature_view("reki")
    keys = [
        EntityKey(join_keys=["user_id"], entity_values=[value])
        for value in python_values_to_proto_values(ids[:2], ValueType.INT64)
    ]
    provider: Any = store._get_provider()
    read = provider.online_read(store.config, view, keys)
    assert [list(values["user_aug"].float_list_val.val) for _, values in read] == wanted[:2]
    assert [at.year for at, _ in read] == [1970, now.year]  # as of a row that is not there


def test_a_row_without_a_time_has_no_age(made: Made, films: Published, redis_address: str) -> None:
    """The stock store and ours say NOT_FOUND of it; tensors are read without a look at times."""
    store = made(DAY)
    (value,) = python_values_to_proto_values(films.ids["user"][:1], ValueType.INT64)
    key = EntityKey(join_keys=["user_id"], entity_values=[value])
    host, port = redis_address.split(":")
    with redis.Redis(host, int(port)) as client:
        assert client.hdel(_redis_key(store.project, key, 3), "_ts:reki") == 1
    asked = [{"user_id": films.ids["user"][0]}]
    assert store.get_online_features(["reki:user_aug"], asked).to_dict()["user_aug"] == UNKNOWN[:1]
    with TensorReader(store, ["reki:user_aug"], kind="numpy") as reader:
        batch = reader.read({"user_id": films.ids["user"][:2]})
    assert batch["user_aug"].tolist() == [KNOWN[0], DEFAULT["user"]]


@pytest.mark.parametrize("stock", [False, True])
def test_other_views_when_told_to(
    tmp_path: Path, films: Published, redis_address: str, stock: bool
) -> None:
    """Feast's own store has no ttl online, so other views keep what it answers by default."""
    views = films.views(ttl=DAY)
    plain: Any = views.user
    plain.tags = {"reki.dimension": "4"}
    for told, vectors in ((None, KNOWN), ("all", [[0.0] * 4] * 3)):
        if stock and told:
            continue
        kind = (
            {"type": "redis"}
            if stock
            else {**OURS["online"], **({"enforce_ttl": told} if told else {})}
        )
        config = RepoConfig(
            project=f"told{told}{stock}",
            provider="local",
            registry=str(tmp_path / f"{told}{stock}.db"),
            online_store={**kind, "connection_string": redis_address},
            offline_store=OURS["offline"],
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply([*films.entities(), plain])
        materialize_views(store, ["reki"], datetime.now(UTC))
        with TensorReader(store, ["reki:user_aug"], kind="numpy") as reader:
            batch = reader.read({"user_id": films.ids["user"][:3]})
        assert batch["user_aug"].tolist() == vectors


def test_stock_redis_with_our_views_as_tensors(
    films: Published, make_store: Made, redis_address: str
) -> None:
    store = make_store(online={"type": "redis", "connection_string": redis_address})
    store.apply([*films.entities(), *films.views(ttl=DAY).views()])
    materialize_views(store, ["reki"], datetime.now(UTC))
    with TensorReader(store, ["reki:user_aug"], kind="numpy") as reader:
        assert reader.read({"user_id": films.ids["user"][:3]})["user_aug"].tolist() == UNKNOWN


def test_an_update_builds_on_a_state_however_old(
    made: Made, films: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(DAY)
    (tmp_path / "feature_store.yaml").write_text("project: x")
    monkeypatch.setattr("reki_feast.views.match_states.FeatureStore", lambda **_: store)
    states = UserStates(tmp_path, "movies", films.folder / "user_match")
    (found, none) = states.read([films.ids["user"][0], 99], [4, 1])
    assert none is None
    assert found is not None
    assert np.allclose(found[0], [0.6, 0.8, 1.0, 0.5])


SECOND = 1_000_000_000


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(0, 2**40),  # the first minutes of 1970
            st.integers(-3, 3).map(lambda n: n * SECOND),  # about the limit, see below
            st.integers(1, 2**32).map(lambda n: n * SECOND + 1),
        ),
        max_size=5,
    ),
    st.integers(0, 40 * 365),
)
def test_what_is_too_old(times: list[int | None], days: int) -> None:
    """By a glance at the first bytes or by a look at each: as the times say themselves."""
    span = days * 86_400 * SECOND + SECOND // 2
    now = 1_800_000_000 * SECOND
    ages = [None if t is None else now - span + t if abs(t) < 4 * SECOND else t for t in times]
    stored = [
        None if t is None else Timestamp(seconds=t // SECOND, nanos=t % SECOND).SerializeToString()
        for t in ages
    ]
    with mock.patch("time.time_ns", return_value=now):
        old = expired_rows(stored, span)
    wanted = [t is not None and t < now - span for t in ages]
    assert (old is None) == (not any(wanted))
    assert old is None or old.tolist() == wanted
