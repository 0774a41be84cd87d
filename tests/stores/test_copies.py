"""A project that was copied: it reads its own tables, and serves from its own Redis."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore

from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import apply_and_materialize, embedded, materialize_views
from tests.stores.conftest import OURS
from tests.stores.test_moving import END, FEATURES

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning"),
    # ibis 12 calls a method that DuckDB 2.0 deprecates.
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
KEYS = Key("user_id", pa.int64()), Key("sku", pa.int64())
USER = (1 << 40) + 3


@pytest.fixture
def projects(tmp_path: Path, make_published: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Makes A, applied and materialized, and B, its copy with vectors made anew: 50 is added."""
    roots = [tmp_path / "A", tmp_path / "B"]

    def make(
        data: str = "../data/movies", applied_with: str = OURS["offline"]["type"]
    ) -> list[Path]:
        original, copy = roots
        make_published(original / "data" / "movies", *KEYS, scored=True)
        repo = original / "feature_repo"
        repo.mkdir()
        (repo / "feature_store.yaml").write_text(
            "project: copied\nprovider: local\nregistry: registry.db\nonline_store:\n"
            f"  type: {OURS['online']['type']}\n  connection_string: embedded:../data/redis\n"
            f"offline_store: {{type: {applied_with}}}\nentity_key_serialization_version: 3\n"
        )
        (repo / "features.py").write_text(FEATURES.format(data=data.format(home=original)))
        apply_and_materialize(repo, END)
        config = (repo / "feature_store.yaml").read_text()
        (repo / "feature_store.yaml").write_text(
            config.replace(applied_with, OURS["offline"]["type"])
        )
        subprocess.run(["cp", "-r", str(original), str(copy)], check=True)
        make_published(copy / "data" / "movies", *KEYS, offset=50, scored=True)
        return roots

    yield make
    for root in roots:
        embedded.stop(root / "data" / "redis")


def store_of(root: Path) -> FeatureStore:
    return FeatureStore(repo_path=str(root / "feature_repo"))


def served(root: Path) -> Any:
    return (
        store_of(root)
        .get_online_features(["reki:user_aug"], [{"user_id": USER}])
        .to_dict()["user_aug"][0]
    )


def joined(root: Path) -> Any:
    rows = pd.DataFrame({"user_id": [USER], "event_timestamp": [END]})
    job = store_of(root).get_historical_features(rows, ["reki:user_aug"])
    return job.to_arrow()["user_aug"].to_pylist()[0]


def test_a_copy_serves_its_own_and_the_original_its(projects: Callable[..., Any]) -> None:
    original, copy = projects()
    assert joined(copy) == [51, 3, 0, 0]
    materialize_views(store_of(copy), ["reki"], END)
    assert (served(original), served(copy)) == ([1, 3, 0, 0], [51, 3, 0, 0])
    assert embedded.stop(copy / "data" / "redis")
    assert embedded.status(original / "data" / "redis").running
    assert served(original) == [1, 3, 0, 0]


def test_a_copied_registry_with_whole_paths_is_told(projects: Callable[..., Any]) -> None:
    """As earlier versions wrote it, and this one for Feast's own DuckDB store."""
    original, copy = projects(applied_with="duckdb")
    assert joined(original) == [1, 3, 0, 0]
    for act in (joined, lambda root: materialize_views(store_of(root), ["reki"], END)):
        with pytest.raises(
            StoreError, match=r"(?s)it was copied, and names .*/A/data.*feast apply"
        ):
            act(copy)
    apply_and_materialize(copy / "feature_repo", END)
    assert (joined(copy), served(copy)) == ([51, 3, 0, 0], [51, 3, 0, 0])
    assert (joined(original), served(original)) == ([1, 3, 0, 0], [1, 3, 0, 0])


def test_a_whole_path_of_the_repo_s_own_is_kept(projects: Callable[..., Any]) -> None:
    """What features.py names is what the copy's repo means, too."""
    original, copy = projects("{home}/data/movies")
    assert joined(original) == joined(copy) == [1, 3, 0, 0]
