"""No row is lost on the way online, whichever stores a repo has."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.compute_engines.backends.pandas_backend import PandasBackend
from feast.types import Int64

from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import (
    apply_and_materialize,
    count_online,
    materialize_views,
    verify_materialized,
)
from reki_feast.stores.counting import BEGINNING, Count

# ibis 12 calls a method that DuckDB 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"
)

MakeStore = Callable[..., FeatureStore]
END = datetime(2026, 9, 1, tzinfo=UTC)
SQLITE = {"type": "sqlite", "path": "online.db"}
STOCK = {"type": "duckdb"}


@pytest.fixture
def texts(tmp_path: Path, make_published: Callable[..., Any]) -> Any:
    """String keys and texts."""
    keys = Key("customer_id", pa.string()), Key("sku", pa.string())
    return make_published(tmp_path / "films", *keys, users=60)


@pytest.fixture
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand Feast tables of several Arrow batches, as pyarrow does beyond 2 GiB of text a column."""
    whole = PandasBackend.to_arrow

    def in_sevens(self: PandasBackend, frame: pd.DataFrame) -> pa.Table:
        table: pa.Table = whole(self, frame)  # type: ignore[no-untyped-call]
        return pa.Table.from_batches(table.to_batches(max_chunksize=7))

    monkeypatch.setattr(PandasBackend, "to_arrow", in_sevens)


def apply(store: FeatureStore, published: Any) -> list[str]:
    views = published.views().views()
    store.apply([*published.entities(), *views])
    return [view.name for view in views]


@pytest.mark.usefixtures("several_batches")
def test_feast_alone_loses_rows_silently(texts: Any, make_store: MakeStore) -> None:
    """The defect itself; should it go, so may `reki_feast.stores.batches`."""
    store = make_store(SQLITE, STOCK)
    apply(store, texts)
    store.materialize(BEGINNING, END, feature_views=["reki_user_knowledge"])
    assert count_online(store, "reki_user_knowledge") == 7
    with pytest.raises(StoreError, match=r"7 rows online of 60 ids in the source"):
        verify_materialized(store, ["reki_user_knowledge"])


@pytest.mark.usefixtures("several_batches")
@pytest.mark.parametrize("online", [SQLITE, None], ids=["sqlite", "redis"])
@pytest.mark.parametrize("offline", [STOCK, {"type": "file"}, None], ids=["duckdb", "file", "ours"])
def test_our_way_loses_none(
    texts: Any,
    make_store: MakeStore,
    online: dict[str, Any] | None,
    offline: dict[str, Any] | None,
) -> None:
    store = make_store(online, offline)
    counts = materialize_views(store, apply(store, texts), END)
    assert [(c.source, c.online) for c in counts] == [(60, 60), (25, 25)] * 3


@pytest.mark.usefixtures("several_batches")
def test_our_offline_store_loses_none_in_feasts_way(texts: Any, make_store: MakeStore) -> None:
    store = make_store(SQLITE)
    names = apply(store, texts)
    store.materialize(BEGINNING, END)
    assert all(c.source == c.online for c in verify_materialized(store, names))
    assert store.config.materialization_config.online_write_batch_size == 10_000


def test_more_rows_than_a_batch_and_several_parts(
    tmp_path: Path, make_published: Callable[..., Any], make_store: MakeStore
) -> None:
    keys = Key("u", pa.int64()), Key("i", pa.string())
    published = make_published(tmp_path / "films", *keys, users=1_050, items=3)
    store = make_store()
    store.config.materialization_config.online_write_batch_size = 100
    apply(store, published)
    counts = materialize_views(store, ["reki", "reki_item"], END)
    assert [(c.view, c.source, c.online) for c in counts] == [
        ("reki", 1_050, 1_050),
        ("reki_item", 3, 3),
    ]


def test_count_is_of_one_view_and_project(published: Any, make_store: MakeStore) -> None:
    one = make_store()
    other = make_store(project=f"my_{one.project}")
    for store in (one, other):
        apply(store, published)
    materialize_views(one, ["reki"], END)
    assert count_online(one, "reki") == 40
    assert count_online(one, "reki_user_knowledge") == 0
    assert count_online(other, "reki") == 0


def test_only_what_was_materialized_is_expected(published: Any, make_store: MakeStore) -> None:
    store = make_store(SQLITE)
    apply(store, published)
    before = datetime(2026, 1, 1, tzinfo=UTC)
    assert materialize_views(store, ["reki"], before)[0].source == 0
    with pytest.raises(StoreError, match="0 rows online of 40 ids"):
        verify_materialized(store, ["reki"])


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("renamed", [False, True])
def test_rows_before_the_start_are_not_expected(
    tmp_path: Path, make_store: MakeStore, incremental: bool, renamed: bool
) -> None:
    now = datetime.now(UTC)
    times = [now - timedelta(days=days) for days in (100, 2, 1)]
    names = ("uid", "at") if renamed else ("user_id", "event_timestamp")
    rows = pd.DataFrame({names[0]: [1, 2, 3], names[1]: times, "x": [1, 2, 3]})
    rows.to_parquet(tmp_path / "rows.parquet")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(
        path=str(tmp_path / "rows.parquet"),
        timestamp_field=names[1],
        field_mapping={"uid": "user_id"} if renamed else None,
    )
    schema = [Field(name="user_id", dtype=Int64), Field(name="x", dtype=Int64)]
    view = FeatureView(
        name="v", entities=[user], ttl=timedelta(days=30), schema=schema, source=source
    )
    store = make_store()
    store.apply([user, view])
    how: Any = {"incremental": True} if incremental else {"start": now - timedelta(days=10)}
    assert materialize_views(store, ["v"], now, **how) == [Count("v", 2, 2)]


def test_a_view_that_is_not_there(published: Any, make_store: MakeStore) -> None:
    with pytest.raises(StoreError, match=r"(?s)reki is registered.*`feast apply`"):
        count_online(make_store(SQLITE), "reki")


def test_a_store_that_cannot_be_counted(published: Any, make_store: MakeStore) -> None:
    store = make_store(SQLITE)
    apply(store, published)
    store._get_provider()._online_store = object()  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match=r"(?s)Redis or SQLite.*detail: object"):
        count_online(store, "reki")


#: Files that import each other, read what is beside them, print, and change their surroundings.
STRAY = {
    "feature_store.yaml": "project: stray\nprovider: local\nregistry: registry.db\n"
    "online_store: {type: sqlite, path: online.db}\noffline_store: {type: duckdb}\n"
    "entity_key_serialization_version: 3\n",
    "name.txt": "customer",
    "entities.py": "from feast import Entity, ValueType\n"
    "name = open('name.txt').read()\n"
    "customer = Entity(name=name, value_type=ValueType.INT64)\n",
    "pytest.py": "import os, sys\nfrom entities import customer\nprint('hello')\n"
    "os.environ['STRAY'] = '1'\nsys.path.insert(0, '/stray')\n",
}


def test_a_whole_repo(published: Any, tmp_path: Path) -> None:
    repo = published.folder.parent / "feature_repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(
        "project: films\nprovider: local\nregistry: registry.db\n"
        "online_store: {type: sqlite, path: online.db}\n"
        "offline_store: {type: duckdb}\nentity_key_serialization_version: 3\n"
    )
    kind = "INT64" if published.user_key.type == pa.int64() else "STRING"
    (repo / "features.py").write_text(
        "from feast import Entity, ValueType\n"
        f"customer = Entity(name='c', join_keys=['user_id'], value_type=ValueType.{kind})\n"
        f"sku = Entity(name='sku', value_type=ValueType.{kind})\n"
        "from reki_feast.views import reki_views\n"
        "globals().update(reki_views('../movies', user=customer, item=sku).by_name())\n"
    )
    counts = {count.view: count for count in apply_and_materialize(repo, END)}
    assert len(counts) == 6
    assert counts["reki"].source == counts["reki"].online == 40
    shutil.move(published.folder / "manifest.json", tmp_path)
    with pytest.raises(StoreError, match=r"(?s)manifest\.json.*reki run"):
        apply_and_materialize(repo, END)
    (repo / "features.py").write_text("1 / 0")
    with pytest.raises(StoreError, match=r"(?s)Feast accepts the repo.*ZeroDivisionError"):
        apply_and_materialize(repo, END)


def test_a_repo_is_read_without_a_trace(tmp_path: Path) -> None:
    """Neither the caller's modules of the same names nor its folder are touched."""
    for name, text in STRAY.items():
        (tmp_path / name).write_text(text)
    before = Path.cwd(), list(sys.path), sys.dont_write_bytecode, dict(os.environ)
    modules = {name: module for name, module in sys.modules.items() if "feast" not in name}
    assert apply_and_materialize(tmp_path, END) == []
    assert (Path.cwd(), list(sys.path), sys.dont_write_bytecode, dict(os.environ)) == before
    assert modules.items() <= sys.modules.items()
    assert "entities" not in sys.modules
    assert not (tmp_path / "__pycache__").exists()
    store = FeatureStore(repo_path=str(tmp_path))
    assert [entity.name for entity in store.list_entities()] == ["customer"]
