"""A project that was applied in one folder, and is used in another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore

from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import apply_and_materialize, materialize_views
from reki_feast.views.match_states import UserStates
from tests.stores.conftest import OURS, SCORE

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning"),
    # ibis 12 calls a method that DuckDB 2.0 deprecates.
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]

END = datetime(2026, 9, 1, tzinfo=UTC)
FEATURES = """
from feast import Entity, ValueType
from reki_feast.views import reki_match, reki_views

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["sku"], value_type=ValueType.INT64)
globals().update(reki_views({data!r}, user=user, item=item).by_name())
globals().update(reki_match({data!r}, user=user, item=item).by_name())
"""
Make = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, make_published: Callable[..., Any], redis_address: str) -> Make:
    """Makes a project, applied and materialized, and moves it."""

    def make(offline: str = OURS["offline"]["type"], data: str = "../data/movies") -> Path:
        home = tmp_path / "here" / "shop"
        keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
        make_published(home / "data" / "movies", *keys, scored=True)
        repo = home / "feature_repo"
        repo.mkdir()
        (repo / "feature_store.yaml").write_text(
            f"project: moving{''.join(filter(str.isalnum, tmp_path.name))}\n"
            "provider: local\nregistry: registry.db\nonline_store:\n"
            f"  type: {OURS['online']['type']}\n  connection_string: {redis_address}\n"
            f"offline_store: {{type: {offline}}}\nentity_key_serialization_version: 3\n"
        )
        (repo / "features.py").write_text(FEATURES.format(data=data.format(home=home)))
        apply_and_materialize(repo, END)
        (tmp_path / "there").mkdir()
        return home.rename(tmp_path / "there" / "the shop")

    return make


def joined(home: Path) -> dict[str, list[Any]]:
    store = FeatureStore(repo_path=str(home / "feature_repo"))
    ids = {"user_id": [(1 << 40) + 3], "sku": [(1 << 40) + 2]}
    rows = pd.DataFrame({**ids, "event_timestamp": END})
    job = store.get_historical_features(rows, ["reki:user_aug", "reki_match:score"])
    found: dict[str, list[Any]] = job.to_arrow().select(["user_aug", "score"]).to_pydict()
    return found


def test_it_is_joined_and_materialized(
    project: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_published: Callable[..., Any],
) -> None:
    home = project()
    # From a folder beside another project's data, which are not taken for its own.
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    make_published(tmp_path / "data" / "movies", *keys, offset=50, scored=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert joined(home) == {"user_aug": [[1, 3, 0, 0]], "score": [pytest.approx(SCORE)]}
    store = FeatureStore(repo_path=str(home / "feature_repo"))
    names = [view.name for view in store.list_feature_views()]
    assert len(names) == 8
    for count in materialize_views(store, names, END):
        assert count.online == count.source > 0
    states = UserStates(
        home / "feature_repo", "another name", home / "data" / "movies" / "user_match"
    )
    assert states.names == ["reki_user_match"]


def test_feasts_own_file_store(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    home = project("file")
    monkeypatch.chdir(home.parent)
    store = FeatureStore(repo_path=str(home / "feature_repo"))
    (count,) = materialize_views(store, ["reki"], END)
    assert count.online == count.source == 40


def test_a_store_that_starts_elsewhere_keeps_whole_paths(project: Make) -> None:
    """Feast's DuckDB store has relative paths start in the working folder."""
    store = FeatureStore(repo_path=str(project("duckdb") / "feature_repo"))
    sources: list[Any] = [view.batch_source for view in store.list_feature_views()]
    assert len(sources) == 8
    assert all(Path(source.path).is_absolute() for source in sources)


def test_a_whole_path_is_told(project: Make) -> None:
    """As given in the repo, or by a registry that an earlier version wrote."""
    home = project(data="{home}/data/movies")
    with pytest.raises(StoreError, match=r"(?s)has Parquet files.*here/shop.*run `feast apply`"):
        joined(home)
    store = FeatureStore(repo_path=str(home / "feature_repo"))
    with pytest.raises(StoreError, match=r"(?s)has Parquet files.*here/shop.*run `feast apply`"):
        materialize_views(store, ["reki"], END)
    text = FEATURES.format(data=str(home / "data" / "movies"))
    (home / "feature_repo" / "features.py").write_text(text)
    apply_and_materialize(home / "feature_repo", END)
    assert joined(home)["user_aug"] == [[1, 3, 0, 0]]


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("", True),
        ("offline_store: file", True),
        ("offline_store: {type: dask}", True),
        ("offline_store: {type: ${KIND}}", True),
        ("offline_store: duckdb", False),
        ("offline_store: {type: spark}", False),
        ("offline_store: [", False),
        ("- no mapping", False),
    ],
)
def test_who_has_paths_start_in_the_repo(
    tmp_path: Path,
    make_published: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    relative: bool,
) -> None:
    monkeypatch.setenv("KIND", "file")
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    make_published(tmp_path / "data" / "movies", *keys, scored=True)
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "feature_store.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "repo")  # where `feast apply` runs
    scope: dict[str, Any] = {}
    exec(compile(FEATURES.format(data="../data/./movies"), "features.py", "exec"), scope)
    view: Any = scope["reki"]
    whole = str(tmp_path / "data" / "movies" / "user_aug")
    assert view.batch_source.path == ("../data/movies/user_aug" if relative else whole)
