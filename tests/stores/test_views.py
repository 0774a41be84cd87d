from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Entity, FeatureView, ValueType

from reki_feast.errors import StoreError
from reki_feast.stores.defaults import DEFAULT_TAG, default_values, default_vectors
from reki_feast.views import RekiViews, reki_views


def test_six_views(published: Any) -> None:
    views = published.views()
    assert {view.name: [field.name for field in view.features] for view in views} == {
        "reki": ["user_aug"],
        "reki_item": ["item_aug"],
        "reki_user_knowledge": KNOWLEDGE,
        "reki_item_knowledge": KNOWLEDGE,
        "reki_user_representation": ["knowledge", "history"],
        "reki_item_representation": ["knowledge", "description"],
    }
    assert list(views.by_name()) == [view.name for view in views]
    assert views.user.entity_columns[0].name == "user_id"
    assert views.item.join_keys == ["sku"]
    assert all(view.entities == ["user"] for view in (views.user, views.user_knowledge))


KNOWLEDGE = ["text", "factor_genre", "factor_acting_cast", "group", "model", "prompt_hash"]


def test_they_explain_themselves(published: Any) -> None:
    for view in published.views():
        assert "movies" in view.description
        assert view.owner == "films@example.org"
        assert view.tags["reki.encoder"] == "a/model"
        assert view.tags["reki.weights"] == "abc"
        assert all(field.description for field in view.schema)
        assert view.batch_source.description
        assert Path(view.batch_source.path).is_absolute()


def test_options(published: Any) -> None:
    views = published.views(
        ttl=timedelta(days=3), prefix="films", owner="me", tags={"team": "ranking"}
    )
    assert list(views.by_name())[:3] == ["films", "films_item", "films_user_knowledge"]
    assert views.user.ttl == timedelta(days=3)
    assert views.user.owner == views.user.batch_source.owner == "me"
    assert views.user.tags["team"] == "ranking"


def test_the_default_is_in_a_tag(published: Any) -> None:
    views = published.views()
    assert default_vectors(views.user) == {"user_aug": (0.5, -0.5, 0.25, 0.0)}
    assert list(default_values(views.item)["item_aug"].float_list_val.val) == [9.0, 8.0, 7.0, 6.0]
    assert default_vectors(views.user_knowledge) == {}


@pytest.mark.parametrize("tag", ["", "[1]", "{}x", '{"user_aug": ["a"]}', '{"user_aug": 1}'])
def test_a_default_tag_that_is_damaged(published: Any, tag: str) -> None:
    view = published.views().user
    view.tags[DEFAULT_TAG] = tag
    if not tag:
        assert default_vectors(view) == {}
        return
    with pytest.raises(StoreError, match="JSON object of vectors"):
        default_vectors(view)


def test_nothing_was_published(tmp_path: Path) -> None:
    entity = Entity(name="user", value_type=ValueType.INT64)
    with pytest.raises(StoreError, match=r"(?s)no .*manifest\.json.*`reki run`"):
        reki_views(tmp_path / "movies", user=entity, item=entity)


def test_entities_that_differ_are_all_named(published: Any) -> None:
    user = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.BOOL)
    item = Entity(name="product", join_keys=["product_id"], value_type=ValueType.INT32)
    with pytest.raises(StoreError, match="4 problems") as caught:
        reki_views(published.folder, user=user, item=item)
    message = str(caught.value)
    assert "'user_id' in the tables, 'customer_id' in the entity" in message
    assert 'user_key="customer_id" in the Scenario' in message
    assert "BOOL in the entity" in message
    assert 'item_key="product_id"' in message


@pytest.mark.filterwarnings("ignore:Entity value_type will be mandatory:DeprecationWarning")
def test_an_entity_without_a_type_takes_the_tables(published: Any) -> None:
    user, item = (Entity(name=n, join_keys=[n]) for n in ("user_id", "sku"))
    views = reki_views(published.folder, user=user, item=item)
    declared = published.views()
    assert views.user.entity_columns == declared.user.entity_columns


def test_a_table_that_was_not_published(published: Any) -> None:
    shutil.rmtree(published.folder / "user_knowledge")
    views = published.views()
    assert views.user_knowledge is None
    assert len(views.views()) == 5
    shutil.rmtree(published.folder / "item_aug")
    with pytest.raises(StoreError, match="Table item_aug .* is published"):
        published.views()


def test_unpacking_finds_all_six(published: Any) -> None:
    user, item, *rest = published.views()
    assert all(isinstance(view, FeatureView) for view in (user, item, *rest))
    assert len(RekiViews._fields) == 6


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: [], "version 'list'"),
        (lambda m: {**m, "version": 2}, "version 2 instead of 1"),
        (lambda m: {k: v for k, v in m.items() if k != "m"}, "KeyError: 'm'"),
        (lambda m: {**m, "user": {**m["user"], "default": [1.0]}}, "1 numbers"),
        (lambda m: {**m, "item": {**m["item"], "type": "double"}}, "double"),
        (lambda m: {**m, "item": None}, "TypeError"),
    ],
)
def test_manifests_that_are_not_ours(
    published: Any, change: Callable[[dict[str, Any]], Any], found: str
) -> None:
    (published.folder / "manifest.json").write_text(json.dumps(change(published.manifest())))
    with pytest.raises(StoreError, match=found):
        published.views()


def test_a_manifest_cut_short(published: Any) -> None:
    (published.folder / "manifest.json").write_text('{"version": 1,')
    with pytest.raises(StoreError, match="manifest that this version"):
        published.views()


@pytest.fixture
def repo(published: Any) -> Path:
    """A Feast repo beside the tables."""
    repo: Path = published.folder.parent / "feature_repo"
    (repo / "deep").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text("")
    return repo


def path_of(published: Any, **options: Any) -> str:
    user, item = published.entities()
    views = reki_views("../movies", user=user, item=item, **options)
    return str(getattr(views.user.batch_source, "path", ""))


@pytest.mark.parametrize("folder", ["", "deep", ".."])
def test_relative_data_starts_at_the_repo_of_the_working_folder(
    published: Any, repo: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`feast apply` works in the repo; `reki init` lays one down below the project."""
    monkeypatch.chdir(repo / folder)
    assert path_of(published) == "../movies/user_aug"


def test_or_at_the_repo_on_the_python_path(
    published: Any, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script there imports the repo's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(repo)
    assert path_of(published) == "../movies/user_aug"


@pytest.mark.parametrize("named", ["", "deep", "deep/films.py"])
def test_or_at_the_repo_that_is_named(
    published: Any, repo: Path, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (repo / "deep" / "films.py").touch()
    assert path_of(published, repo=repo / named) == "../movies/user_aug"


def test_or_at_the_working_folder(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published.folder.parent / "movies")
    assert path_of(published) == str(published.folder / "user_aug")


@pytest.mark.parametrize(
    ("offline", "relative"),
    [
        ("duckdb", False),
        ("dask", True),
        ("reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore", True),
        ("reki_feast.store.duckdb_offline.RekiDuckDBOfflineStore", True),
    ],
)
def test_paths_are_relative_where_the_offline_store_takes_them(
    published: Any, repo: Path, offline: str, *, relative: bool
) -> None:
    (repo / "feature_store.yaml").write_text(f"offline_store: {{type: {offline}}}")
    whole = str(published.folder / "user_aug")
    assert path_of(published, repo=repo) == ("../movies/user_aug" if relative else whole)


def test_an_option_that_is_none(published: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        published.views(colour="red")
