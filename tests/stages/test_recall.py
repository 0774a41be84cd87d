"""`reki recall`: items for a user by each preference, out of the online store of a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore

from reki_feast import Encoder, Project, schema, stages
from reki_feast.cli import app
from reki_feast.encoding import vector_matrix
from reki_feast.errors import DeclarationError, StoreError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.snapshots import vector_columns
from reki_feast.stores import TensorReader, embedded
from reki_feast.tables.parts import newest
from tests.bench.serving import lay_repo
from tests.stages.conftest import make_shop

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
USER, UNASKED = "c'1", "c'9"
REF = "reki_item_representation:description"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeclaredProject]:
    """A shop with preferences, materialized; c'9 was not asked about, c'29 has no interactions."""
    root = tmp_path_factory.mktemp("recall") / "my shop"
    how = 'Encoder(model="hash", preferences=True, taste=True)'
    lay_repo(root, lambda text: text.replace('Encoder(model="hash")', how))
    path = root / "interactions.parquet"
    rows = pq.read_table(path)
    few = rows["sku"].to_numpy(zero_copy_only=False) < "s-15"  # the others are new to everybody
    pq.write_table(rows.filter(pa.array(few)), path)
    project = open_project(root)
    stages.generate(project, limit=40)
    stages.encode(project)
    stages.train(project)
    stages.publish(project, materialize=True)
    yield project
    embedded.stop(project.redis)


def stored(project: DeclaredProject, kind: schema.Kind) -> dict[str, dict[str, np.ndarray]]:
    """The newest vectors of each id, by column."""
    key = schema.Key("customer_id" if kind == "user" else "sku", pa.string())
    columns = vector_columns(project, kind)
    table = project.lake.read(f"{kind}_representation", schema.representation(key, columns))
    rows = newest(table, [key.name])
    found: dict[str, dict[str, np.ndarray]] = {one: {} for one in rows[key.name].to_pylist()}
    for name in columns:
        matrix, valid = vector_matrix(rows[name])
        ids = np.array(rows[key.name].to_pylist())[valid]
        for one, vector in zip(ids.tolist(), matrix, strict=True):
            found[one][name] = vector
    return found


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def met(project: DeclaredProject, user: str) -> set[str]:
    rows = pq.read_table(project.root / "interactions.parquet").to_pylist()
    return {row["sku"] for row in rows if row["customer_id"] == user}


def test_items_are_the_nearest_to_any_preference(shop: DeclaredProject) -> None:
    found = stages.recall(shop, USER, k=6)
    mine = stored(shop, "user")[USER]
    items = {sku: one["description"] for sku, one in stored(shop, "item").items()}
    scores = {
        sku: {name: cosine(mine[f"preference_{name}"], vector) for name in ("price", "style")}
        for sku, vector in items.items()
        if sku not in met(shop, USER)
    }
    best = sorted(scores, key=lambda sku: -max(scores[sku].values()))[:6]
    assert [one.item for one in found.items] == best
    assert [one.place for one in found.items] == [1, 2, 3, 4, 5, 6]
    for one in found.items:
        by = max(scores[one.item], key=scores[one.item].__getitem__)
        assert one.preference == by
        assert one.score == pytest.approx(scores[one.item][by], abs=1e-5)
    assert [one.preference for one in found.preferences] == ["price", "style"]
    for alone in found.preferences:
        assert alone.score == pytest.approx(
            max(s[alone.preference] for s in scores.values()), abs=1e-5
        )
    assert sum(one.found for one in found.preferences) == 6


def test_titles_and_a_line_of_knowledge_are_shown(shop: DeclaredProject) -> None:
    found = Project(shop.root).recall(USER, k=3)
    rows = pq.read_table(shop.root / "items.parquet").to_pylist()
    titles = {row["sku"]: row["title"] for row in rows}
    assert [one.title for one in found.items] == [
        " ".join(titles[one.item].split())[:100] for one in found.items
    ]
    known = {row["owner"]: dict(row["factors"]) for row in knowledge(shop) if row["kind"] == "user"}
    for one in found.preferences:
        assert one.because[:50] == known[USER][one.preference][:50]


def knowledge(project: DeclaredProject) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = project.lake.read("knowledge", schema.KNOWLEDGE).to_pylist()
    return rows


def test_what_the_command_prints(shop: DeclaredProject, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["recall", USER, "--k", "2", "--project", str(shop.root)]
    assert app.main([*line, "--json"]) == app.DONE
    said = json.loads(capsys.readouterr().out)["tables"]
    assert list(said["items"][0]) == ["place", "item", "title", "score", "found by", "because"]
    assert len(said["items"]) == len(said["preferences"]) == 2
    assert app.main(line) == app.DONE
    assert "2 items for c'1 by 2 vectors" in capsys.readouterr().out


def test_feast_and_a_model_server_search_the_same_rows(shop: DeclaredProject) -> None:
    store = FeatureStore(repo_path=str(shop.feature_repo))
    refs = ["reki_user_representation:preference_style"]
    row = store.get_online_features(refs, [{"customer_id": USER}]).to_dict()
    [vector] = row["preference_style"]
    assert vector == pytest.approx(stored(shop, "user")[USER]["preference_style"].tolist())
    with TensorReader(store, [REF], kind="numpy") as reader:
        nearest = reader.nearest(vector, 20)
    documents = store.retrieve_online_documents_v2([REF], 20, vector, distance_metric="cosine")
    assert documents.to_dict()["sku"] == nearest.ids["sku"]
    assert len(nearest.ids["sku"]) == 20


def test_a_user_without_preferences_is_searched_for_by_a_channel(shop: DeclaredProject) -> None:
    found = stages.recall(shop, UNASKED, k=3)
    assert [(one.preference, one.because) for one in found.preferences] == [("taste", "")]
    assert found.notes == ["no preferences are known: searched by the channel taste"]
    assert len(found.items) == 3


@pytest.mark.parametrize("user", ["nobody", "c'29"])
def test_who_has_no_vector_is_told(shop: DeclaredProject, user: str) -> None:
    message = f"{user}.* has none in view reki_user_representation\n  hint:.*`reki run`"
    with pytest.raises(StoreError, match=message):
        stages.recall(shop, user)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("*c'1*", "who items are recalled for has a vector in the online store"),
        ("*s-*", "items that are recalled have a vector in the online store"),
    ],
)
def test_rows_that_are_not_online(shop: DeclaredProject, lost: str, message: str) -> None:
    address = embedded.status(shop.redis).address
    assert address is not None
    with redis.Redis(unix_socket_path=address.path) as client:
        kept: dict[Any, Any] = {key: client.dump(key) for key in client.scan_iter(lost)}
        assert kept
        client.delete(*kept)
        with pytest.raises(StoreError, match=f"{message}(.|\n)*`reki publish --materialize`"):
            stages.recall(open_project(shop.root), USER)
        for key, raw in kept.items():
            client.restore(key, 0, raw)


def test_no_feast_repo(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no .*feature_store.yaml\n  hint: .*`reki init`"):
        stages.recall(make_shop(tmp_path), USER)


def test_ids_are_of_the_users_type(tmp_path: Path) -> None:
    project = make_shop(tmp_path)
    rows = pq.read_table(tmp_path / "interactions.parquet")
    numbers = pa.array(range(rows.num_rows))
    pq.write_table(rows.set_column(0, "customer_id", numbers), tmp_path / "interactions.parquet")
    users = pq.read_table(tmp_path / "users.parquet")
    numbers = pa.array(range(users.num_rows))
    pq.write_table(users.set_column(0, "customer_id", numbers), tmp_path / "users.parquet")
    with pytest.raises(DeclarationError, match="customer_id is a whole number.*\n  detail: 'ann'"):
        stages.recall(project, "ann")


@pytest.mark.parametrize(
    ("given", "channels"),
    [
        ({}, ["knowledge", "history"]),
        ({"taste": True}, ["knowledge", "history", "taste"]),
        ({"taste": True, "history": False}, ["knowledge", "taste"]),
        ({"preferences": True}, ["knowledge", "history", "preference_price", "preference_style"]),
    ],
)
def test_vectors_as_declared(tmp_path: Path, given: dict[str, bool], channels: list[str]) -> None:
    how = ", ".join(f"{name}={value}" for name, value in given.items())
    declared = f'Encoder(model="hash", {how})'
    project = make_shop(tmp_path, lambda text: text.replace('Encoder(model="hash")', declared))
    stages.generate(project, limit=4)
    stages.encode(project)
    assert vector_columns(project, "user") == channels
    [first, *_] = project.lake.parts("user_representation")
    names = pq.read_schema(first).names
    assert [name for name in names if name in channels] == channels
    assert set(channels) == set(names) - {
        "customer_id",
        "hash",
        "event_timestamp",
        "created_timestamp",
    }


def test_vectors_of_others_stay_when_one_is_forgotten(tmp_path: Path) -> None:
    declared = 'Encoder(model="hash", preferences=True)'
    project = make_shop(tmp_path, lambda text: text.replace('Encoder(model="hash")', declared))
    stages.generate(project, limit=20)
    stages.encode(project)
    for name in ("interactions", "users"):
        rows = pq.read_table(tmp_path / f"{name}.parquet")
        others = [one != USER for one in rows["customer_id"].to_pylist()]
        pq.write_table(rows.filter(pa.array(others)), tmp_path / f"{name}.parquet")
    assert stages.forget(project, users=[USER]).users == 1
    assert stages.encode(project).texts == 0


def test_a_channel_is_left() -> None:
    with pytest.raises(DeclarationError, match="users without knowledge have a channel"):
        Encoder(history=False)
