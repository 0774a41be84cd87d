"""Names that differ by case only, which DuckDB takes for one: told when a view is made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Float64, Int64

from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import apply_and_materialize, materialize_views
from tests.stores.conftest import OURS

THEN = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 4, 1, tzinfo=UTC)
USER = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
SQLITE = {"type": "sqlite"}


def view(path: Path, *features: str, name: str = "v", time: str = "at", **source: Any) -> Any:
    fields = [Field(name="id", dtype=Int64), *(Field(name=f, dtype=Float64) for f in features)]
    place = FileSource(name=f"{name}_source", path=str(path), timestamp_field=time, **source)
    return FeatureView(name=name, entities=[USER], schema=fields, source=place)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(*columns: str, time: str = "at") -> Path:
        path = tmp_path / "v.parquet"
        names = ["id", time, *columns]
        pq.write_table(
            pa.Table.from_arrays(
                [pa.array([1]), pa.array([THEN]), *[pa.array([0.5])] * len(columns)], names
            ),
            path,
        )
        return path

    return write


@pytest.mark.parametrize(
    ("user", "clash"),
    [("Text", "Text and text"), ("EVENT_TIMESTAMP", "EVENT_TIMESTAMP and event_timestamp")],
)
def test_a_scenarios_key(
    tmp_path: Path, make_published: Callable[..., Any], user: str, clash: str
) -> None:
    keys = Key(user, pa.int64()), Key("sku", pa.int64())
    published = make_published(tmp_path / "films", *keys)
    match = rf"(?s)Feature view reki.* has names that differ by more than case.*{clash}.*user_key"
    with pytest.raises(StoreError, match=match):
        published.views()


@pytest.mark.parametrize(
    ("features", "time", "clash"),
    [
        (("Score", "score"), "at", "Score and score"),
        (("Id",), "at", "id and Id"),
        (("AT",), "at", "AT and at"),
    ],
)
def test_when_a_view_is_applied(
    make_store: Callable[..., FeatureStore],
    table: Callable[..., Path],
    features: tuple[str, ...],
    time: str,
    clash: str,
) -> None:
    store, made = make_store(), view(table(*features), *features, time=time)
    match = rf"(?s)Feature view v has names that differ by more than case.*{clash}.*feast apply"
    with pytest.raises(StoreError, match=match):
        store.apply([USER, made])
    assert not store.list_feature_views()


def test_another_offline_store_may_tell_them_apart(
    make_store: Callable[..., FeatureStore], table: Callable[..., Path]
) -> None:
    store = make_store(offline={"type": "file"})
    store.apply([USER, view(table("Score", "score"), "Score", "score")])
    assert [view.name for view in store.list_feature_views()] == ["v"]


def test_a_join_and_a_table_on_its_way_online(
    make_store: Callable[..., FeatureStore], table: Callable[..., Path], tmp_path: Path
) -> None:
    """Where nobody looked when the view was made: another online store, or a later table."""
    store = make_store(online={**SQLITE, "path": str(tmp_path / "online.db")})
    store.apply([USER, view(table("Score", "score"), "Score", "score")])
    rows = pd.DataFrame({"id": [1], "event_timestamp": LATER})
    match = r"(?s)v.* has column score, and no other that differs from it by case only.*Score"
    with pytest.raises(StoreError, match=match):
        store.get_historical_features(rows, ["v:score"])
    with pytest.raises(StoreError, match=match):
        materialize_views(store, ["v"], LATER)


def test_names_of_two_views_in_one_result(
    make_store: Callable[..., FeatureStore], table: Callable[..., Path], tmp_path: Path
) -> None:
    store, path = make_store(), table("n")
    upper = view(path, "N", name="upper", field_mapping={"n": "N"})
    store.apply([USER, view(path, "n"), upper])
    rows = pd.DataFrame({"id": [1], "event_timestamp": LATER})
    job = store.get_historical_features(rows.assign(ID=7), ["v:n", "upper:N"])
    found = job.to_arrow().drop_columns(["event_timestamp"]).to_pylist()
    assert found == [{"id": 1, "ID": 7, "n": 0.5, "N": 0.5}]
    place = SavedDatasetFileStorage(str(tmp_path / "saved.parquet"))
    with pytest.raises(StoreError, match=r"(?s)writes has names.*id and ID, n and N.*full_feat"):
        job.persist(place)
    full = store.get_historical_features(rows, ["v:n", "upper:N"], full_feature_names=True)
    full.persist(place)
    names = pq.read_schema(tmp_path / "saved.parquet").names
    assert names == ["id", "event_timestamp", "v__n", "upper__N"]


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb")
def test_feast_apply_looks_at_the_table(tmp_path: Path, table: Callable[..., Path]) -> None:
    """A feature ``score`` alone would be read from the column ``Score``, or not at all."""
    path = table("Score", "score")
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(
        "project: names\nprovider: local\nregistry: registry.db\n"
        "online_store: {type: sqlite, path: online.db}\n"
        f"offline_store: {{type: {OURS['offline']['type']}}}\n"
        "entity_key_serialization_version: 3\n"
    )
    (repo / "features.py").write_text(
        "from feast import Entity, FeatureView, Field, FileSource, ValueType\n"
        "from feast.types import Float64, Int64\n"
        "user = Entity(name='user', join_keys=['id'], value_type=ValueType.INT64)\n"
        f"source = FileSource(name='s', path={str(path)!r}, timestamp_field='at')\n"
        "fields = [Field(name='id', dtype=Int64), Field(name='score', dtype=Float64)]\n"
        "v = FeatureView(name='v', entities=[user], schema=fields, source=source)\n"
    )
    with pytest.raises(StoreError, match=r"(?s)Source .*v\.parquet has names.*Score and score"):
        apply_and_materialize(repo, LATER)
