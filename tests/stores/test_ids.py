"""No id becomes another on its way into a join, a request, tensors or the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64, Int64, String
from feast.value_type import ValueType as Kind

from reki_feast.errors import StoreError
from reki_feast.stores import materialize_views
from reki_feast.stores.ids import check_ids
from reki_feast.stores.offline.build import frame_of
from reki_feast.stores.serving import TensorReader
from tests.stores.conftest import OURS

ONE, TWO = 1239162456494753670, 1239162456494753671
THEN = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 4, 1, tzinfo=UTC)
TYPES = {Kind.INT64: Int64, Kind.STRING: String}
Apply = Callable[..., FeatureStore]


@pytest.fixture
def shop(tmp_path: Path, redis_address: str) -> Apply:
    """A repo with a view ``v`` of feature ``n`` over a table of ids."""

    def make(
        ids: Any,
        kind: Kind = Kind.INT64,
        path: Path | None = None,
        engine: str = "reki_feast.stores.engine.RekiComputeEngine",
    ) -> FeatureStore:
        if path is None:
            path = tmp_path / "v.parquet"
            numbers = pa.array([float(n) for n in range(len(ids))])
            pq.write_table(pa.table({"id": ids, "n": numbers, "at": [THEN] * len(ids)}), path)
        config = RepoConfig(
            project="ids" + "".join(filter(str.isalnum, tmp_path.name)),
            provider="local",
            registry=str(tmp_path / "registry.db"),
            repo_path=tmp_path,
            online_store={**OURS["online"], "connection_string": redis_address},
            offline_store=OURS["offline"],
            batch_engine={"type": engine},
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        entity = Entity(name="user", join_keys=["id"], value_type=kind)
        source = FileSource(name="src", path=str(path), timestamp_field="at")
        fields = [Field(name="id", dtype=TYPES[kind]), Field(name="n", dtype=Float64)]
        view = FeatureView(name="v", entities=[entity], schema=fields, source=source)
        store.apply([entity, view])
        return store

    return make


def joined(store: FeatureStore, ids: Any) -> dict[Any, Any]:
    if isinstance(ids, str):
        rows: Any = f"SELECT {ids} AS id, TIMESTAMPTZ '{LATER}' AS event_timestamp"
    else:
        rows = pd.DataFrame({"id": ids}).assign(event_timestamp=LATER)
    found = store.get_historical_features(rows, ["v:n"]).to_arrow()
    return dict(zip(found["id"].to_pylist(), found["n"].to_pylist(), strict=True))


BOTH = pa.array([ONE, TWO])


@pytest.mark.parametrize(
    "ids",
    [
        [ONE, TWO, None],  # floats, to pandas
        pd.array([float(2**53), 1.0], dtype="Float64"),
        np.array([2**24], np.float32),
        "1239162456494753671::DOUBLE",
    ],
)
def test_floats_that_stand_for_several_ids_do_not_join(shop: Apply, ids: Any) -> None:
    with pytest.raises(StoreError, match=r"(?s)Ids of id in the entity rows are.*Int64"):
        joined(shop(BOTH), ids)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (pd.array([ONE, TWO, None], dtype="Int64"), {ONE: 0.0, TWO: 1.0, None: None}),
        (pd.Series([ONE, TWO, None], dtype=object), {ONE: 0.0, TWO: 1.0, None: None}),
        (np.array([TWO], np.uint64), {TWO: 1.0}),
        ([Decimal(TWO)], {Decimal(TWO): 1.0}),
        ([7.0, 8.5, None], {7.0: 2.0, 8.5: None, None: None}),
        ("1239162456494753671::HUGEINT", {Decimal(TWO): 1.0}),
    ],
)
def test_ids_that_are_whole_join(shop: Apply, ids: Any, found: dict[Any, Any]) -> None:
    assert joined(shop(pa.array([ONE, TWO, 7])), ids) == found


def test_a_table_of_floats(shop: Apply) -> None:
    """What pandas wrote for integers among which one was missing."""
    match = r"(?s)Ids of id in the source of v are whole.*DOUBLE up to 1239162456494753792"
    with pytest.raises(StoreError, match=match):
        joined(shop(pa.array([float(ONE), None])), [ONE])
    assert joined(shop(pa.array([7.0, None])), [7]) == {7: 0.0}


@pytest.mark.parametrize(
    ("ids", "kind", "rows"),
    [
        (["1", "2"], Kind.STRING, [1]),
        (["1", "2"], Kind.STRING, [1.0]),
        (["true"], Kind.STRING, [True]),
        ([1, 2], Kind.INT64, [True]),
        ([1, 2], Kind.INT64, ["1"]),
    ],
)
def test_keys_of_two_kinds_do_not_join(shop: Apply, ids: Any, kind: Kind, rows: Any) -> None:
    match = r"(?s)Key id of the entity rows has the type of the source of v"
    with pytest.raises(StoreError, match=match):
        joined(shop(ids, kind), rows)


def test_entity_rows_for_feasts_own_store(shop: Apply) -> None:
    store = shop(BOTH)
    views = store.list_feature_views()
    frame = pd.DataFrame({"id": [ONE, TWO, None], "event_timestamp": LATER})
    with pytest.raises(StoreError, match="Ids of id in the entity rows are whole numbers"):
        frame_of(store.config, frame, views)
    whole = frame.assign(id=pd.Series([ONE, TWO, None], dtype=object))
    assert frame_of(store.config, whole, views)["id"].tolist() == [ONE, TWO, None]
    table = pa.table({"id": pa.array([ONE, TWO, None], pa.int64())})
    assert frame_of(store.config, table, views)["id"].tolist() == [ONE, TWO, None]


BAD = [float(TWO), 7.5, np.float64(2**53), np.float32(2**24), True, np.bool_(1), Decimal("7.5")]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_a_request_of_what_is_no_id(shop: Apply, bad: Any) -> None:
    store = shop(BOTH)
    match = rf"(?s)Ids of id are whole numbers, and stay as they are.*{type(bad).__name__}"
    with pytest.raises(StoreError, match=match):
        store.get_online_features(["v:n"], [{"id": ONE}, {"id": bad}])
    with pytest.raises(StoreError, match=match):
        asyncio.run(store.get_online_features_async(["v:n"], [{"id": ONE}, {"id": bad}]))
    with (
        TensorReader(store, ["v:n"], kind="numpy") as reader,
        pytest.raises(StoreError, match=match),
    ):
        reader.read({"id": [ONE, bad]})


@pytest.mark.parametrize(
    "ids",
    [
        torch.tensor([2.0**24]),
        torch.tensor([2.0**53], dtype=torch.float64),
        torch.tensor([256.0], dtype=torch.bfloat16),
        np.array([2**11], np.float16),
        pa.array([2**24], pa.float32()),
        pd.Series([ONE, None]),
    ],
    ids=lambda ids: f"{type(ids).__module__} {getattr(ids, 'dtype', '')}",
)
def test_arrays_of_floats(shop: Apply, ids: Any) -> None:
    with (
        TensorReader(shop(BOTH), ["v:n"], kind="numpy") as reader,
        pytest.raises(StoreError, match=r"Ids of id are whole numbers, and stay as they are"),
    ):
        reader.read({"id": ids})


def test_requests_of_whole_ids(shop: Apply) -> None:
    store = shop(BOTH)
    materialize_views(store, ["v"], LATER)
    good = [TWO, np.int64(ONE), np.uint64(TWO), Decimal(TWO), 7.0]
    rows = [{"id": one} for one in good]
    wanted = [1.0, 0.0, 1.0, 1.0, None]
    assert store.get_online_features(["v:n"], rows).to_dict()["n"] == wanted
    with TensorReader(store, ["v:n"], kind="numpy") as reader:
        assert reader.read({"id": good})["n"].tolist() == [1, 0, 1, 1, 0]
        assert reader.read({"id": np.array([ONE, TWO], np.uint64)})["n"].tolist() == [0, 1]
        assert reader.read({"id": torch.tensor([TWO])})["n"].tolist() == [1]


@pytest.mark.parametrize("bad", [7.0, True, Decimal("7.0"), b"7"], ids=repr)
def test_what_is_no_text_as_it_stands(shop: Apply, bad: Any) -> None:
    store = shop(["7", "8"], Kind.STRING)
    materialize_views(store, ["v"], LATER)
    with pytest.raises(StoreError, match=r"(?s)Ids of id are texts.*detail: .*7|True"):
        store.get_online_features(["v:n"], [{"id": bad}])
    rows = [{"id": one} for one in ("7", 8, Decimal(8), "9")]
    assert store.get_online_features(["v:n"], rows).to_dict()["n"] == [0.0, 1.0, 1.0, None]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([float(ONE), 1.0]), Kind.INT64),
        (pa.array([1.0, 2.5]), Kind.INT64),
        (pa.array([1.0, 2.0]), Kind.STRING),
        (pa.array([True, False]), Kind.INT64),
        (pa.array([True, False]), Kind.STRING),
        (pa.array([Decimal("1.5")]), Kind.INT64),
    ],
)
def test_a_table_that_would_be_written_under_other_ids(shop: Apply, ids: Any, kind: Kind) -> None:
    with pytest.raises(StoreError, match=r"Ids of id .*are (whole numbers|texts), and stay"):
        materialize_views(shop(ids, kind), ["v"], LATER)


def test_no_engine_writes_floats_that_stand_for_several_ids(shop: Apply) -> None:
    store = shop(pa.array([float(ONE), 1.0]), engine="local")
    with pytest.raises(StoreError, match=r"(?s)Ids of id in .*v\.parquet are.*DOUBLE up to 123"):
        materialize_views(store, ["v"], LATER)


def test_small_floats_are_written(shop: Apply) -> None:
    store = shop(pa.array([1.0, 2.0**53 - 1]))
    materialize_views(store, ["v"], LATER)
    rows = [{"id": 1}, {"id": 2**53 - 1}]
    assert store.get_online_features(["v:n"], rows).to_dict()["n"] == [0.0, 1.0]


def test_nulls_and_other_types_are_left_to_feast() -> None:
    check_ids("id", [None, float("nan"), pd.NA, 7], Kind.INT64)
    check_ids("id", [7.5, True], Kind.DOUBLE)


HIVES = [["42"], ["42", "7"], ["007", "42"], ["2024-1-1"], ["2024-01-01 00:00:00"], ["-0"]]


@pytest.mark.parametrize("values", HIVES, ids=" ".join)
def test_text_keys_of_folders(shop: Apply, tmp_path: Path, values: list[str]) -> None:
    """DuckDB would take ``id=42`` for a number and ``id=2024-1-1`` for a date."""
    for n, value in enumerate(values):
        place = tmp_path / "hive" / f"id={value}" / "0.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(pa.table({"n": [float(n)], "at": [THEN]}), place)
    store = shop(None, Kind.STRING, tmp_path / "hive")
    wanted = {value: float(n) for n, value in enumerate(values)}
    assert joined(store, values) == wanted
    job = store.get_historical_features(
        entity_df=None, features=["v:n"], start_date=THEN, end_date=LATER
    )
    assert sorted(job.to_arrow()["id"].to_pylist()) == sorted(values)
    if values == ["-0"]:  # a whole number, where the entity's type is not known
        return
    materialize_views(store, ["v"], LATER)
    rows = [{"id": value} for value in values]
    assert store.get_online_features(["v:n"], rows).to_dict()["n"] == list(wanted.values())


def test_whole_keys_of_folders(shop: Apply, tmp_path: Path) -> None:
    place = tmp_path / "hive" / "id=42" / "0.parquet"
    place.parent.mkdir(parents=True)
    pq.write_table(pa.table({"n": [0.5], "at": [THEN]}), place)
    store = shop(None, Kind.INT64, tmp_path / "hive")
    assert joined(store, [42]) == {42: 0.5}
    materialize_views(store, ["v"], LATER)
    assert store.get_online_features(["v:n"], [{"id": 42}]).to_dict()["n"] == [0.5]
