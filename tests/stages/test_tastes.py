"""The channel of users that is a mean of vectors: its values, its times, turning it on and off."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.encoding import Floats, vector_matrix
from reki_feast.errors import CondenseError
from reki_feast.evaluation.command import evaluation_data
from reki_feast.evaluation.dataset import RAW_TASTE, pairs_of
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.training_data import training_data
from reki_feast.views.spaces import read_spaces
from tests.stages.conftest import make_shop, write_tables


def with_taste(text: str) -> str:
    return text.replace('model="hash"', 'model="hash", taste=True')


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    made = make_shop(tmp_path_factory.mktemp("tastes") / "my shop", with_taste)
    stages.run(made)
    return made


def stored(project: DeclaredProject, kind: str) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(path) for path in project.lake.parts(f"{kind}_representation")]
    )


def expected(project: DeclaredProject, user: str, time: datetime, channel: str) -> Floats | None:
    """The mean of the vectors of the last 30 products that the customer gave 4 or 5 stars."""
    items = stored(project, "item").filter(pc.field("event_timestamp") <= time)
    items = items.sort_by("event_timestamp")
    vector = dict(zip(items["sku"].to_pylist(), vector_matrix(items[channel])[0], strict=True))
    log = pq.read_table(project.root / "interactions.parquet").to_pylist()
    liked = [
        row["sku"]
        for row in log
        if row["customer_id"] == user and row["stars"] >= 4 and row["event_timestamp"] < time
    ]
    if not liked:
        return None
    mean: Floats = np.mean([vector[sku] for sku in liked[-30:]], axis=0)
    return mean


def test_a_taste_is_the_mean_of_what_is_known_of_liked_items(shop: DeclaredProject) -> None:
    rows = stored(shop, "user").to_pylist()
    times = {row["event_timestamp"] for row in rows}
    assert len(times) == 6  # ends of sixths of the log
    for row in rows:
        wanted = expected(shop, row["customer_id"], row["event_timestamp"], "knowledge")
        if wanted is None:
            assert row["taste"] is None
        else:
            np.testing.assert_allclose(row["taste"], wanted, atol=1e-5)
    assert any(row["taste"] is None for row in rows)  # liked nothing yet


def test_views_and_networks_know_it(shop: DeclaredProject) -> None:
    manifest = json.loads((shop.data / "manifest.json").read_text())
    assert manifest["user"]["channels"] == ["knowledge", "history", "taste"]
    assert manifest["pairs"][-1] == ["taste", "knowledge"]
    assert manifest["user"]["q"] == 3 * 32


def test_new_interactions_change_the_tastes_of_those_who_had_some(tmp_path: Path) -> None:
    made = make_shop(tmp_path / "shop", with_taste)
    stages.run(made)
    before = stored(made, "user")
    assert stages.encode(made).tables[0].rows[-2][-1] == 0
    write_tables(made.root, interactions=603)
    stages.run(made)
    after = stored(made, "user").slice(len(before))
    log = pq.read_table(made.root / "interactions.parquet").slice(600)
    assert set(after["customer_id"].to_pylist()) == set(log["customer_id"].to_pylist())


def test_turned_on_later_it_waits_for_new_networks(tmp_path: Path) -> None:
    made = make_shop(tmp_path / "shop")
    stages.run(made)
    file = made.root / "generators" / "shop.py"
    file.write_text(with_taste(file.read_text()))
    made = open_project(made.root)
    notes = stages.run(made).notes  # old networks read their channels
    assert "Encoder(taste): True is declared, the weights were trained with False" in notes
    manifest = json.loads((made.data / "manifest.json").read_text())
    assert manifest["user"]["q"] == 2 * 32
    assert manifest["user"]["channels"][-1] == "history"
    with pytest.raises(CondenseError, match=r"none are stored(.|\n)*reki encode --retrain"):
        stages.train(made, retrain=True)
    stages.encode(made, retrain=True)
    stages.train(made, retrain=True)
    stages.publish(made)
    assert json.loads((made.data / "manifest.json").read_text()) == manifest
    new = json.loads((made.data / "spaces/v1/manifest.json").read_text())
    assert new["user"]["q"] == 3 * 32
    assert new["snapshots"] == manifest["snapshots"]


def test_turned_off_networks_that_read_it_go_on_with_it(tmp_path: Path) -> None:
    made = make_shop(tmp_path / "shop", with_taste)
    stages.run(made)
    file = made.root / "generators" / "shop.py"
    file.write_text(file.read_text().replace(", taste=True", ""))
    made = open_project(made.root)
    before = stored(made, "user")
    write_tables(made.root, interactions=605)
    stages.run(made)
    after = stored(made, "user")
    assert after.num_rows > before.num_rows
    stages.run(made, retrain=True)
    assert stored(made, "user").equals(after)
    found = [made.lake.in_space(one) for one in read_spaces(made.data).spaces]
    manifests = [lake.read_json("manifest") or {} for lake in found]
    assert [manifest["user"]["q"] for manifest in manifests] == [3 * 32, 2 * 32]


def test_an_evaluation_without_a_language_model_has_tastes_too(shop: DeclaredProject) -> None:
    found = training_data(shop)
    made = evaluation_data(shop, found)
    raw = made.users[RAW_TASTE].to_pylist()
    for user, vector in zip(made.users["customer_id"].to_pylist(), raw, strict=True):
        wanted = expected(shop, user, found.time, "description")
        assert (vector is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_allclose(np.array(vector), wanted, atol=1e-5)
    assert pairs_of(made.users, made.items, "raw", imported=False) == [
        ("history", "description"),
        (RAW_TASTE, "description"),
    ]
    assert pairs_of(made.users, made.items, "llm", imported=False) == [
        ("knowledge", "knowledge"),
        ("taste", "knowledge"),
    ]


def test_without_knowledge_a_taste_is_of_descriptions(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        return with_taste(text).replace('products = Individual(kind="item")\n', "")

    made = make_shop(tmp_path / "shop", edit)
    stages.generate(made)
    stages.encode(made)
    row = next(row for row in stored(made, "user").to_pylist() if row["taste"])
    wanted = expected(made, row["customer_id"], row["event_timestamp"], "description")
    assert wanted is not None
    np.testing.assert_allclose(row["taste"], wanted, atol=1e-5)
    found = evaluation_data(made, training_data(made))
    pairs = pairs_of(found.users, found.items, "llm", imported=False)
    assert pairs == [("knowledge", "description")]
