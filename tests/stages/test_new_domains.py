"""`reki train --domain`: one domain goes on, on vectors that stay; and its scores in Feast."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, RepoConfig, ValueType

from reki_feast import Project, files
from reki_feast.cli import app
from reki_feast.errors import CondenseError, DeclarationError, SourceError, StoreError
from reki_feast.evaluation.domains import domain_log
from reki_feast.models.trained_backbone import restore_backbone
from reki_feast.project import open_project
from reki_feast.views import reki_match, reki_views
from reki_feast.views.domain_files import domain_path, domains_about
from tests.stages.conftest import GENERATOR, make_shop

DOMAINS = '\ndomains = Domains(column="kind", least=100)\n'


def with_domains(text: str) -> str:
    return text.replace("Sources, Training", "Sources, Training, Domains") + DOMAINS


def on_surfaces(text: str) -> str:
    """Interactions name where they happened: every third one in search, some nowhere."""
    query = (
        "select *, case when epoch(event_timestamp)::bigint // 3600 % 3 = 0 then 'search' "
        "when stars < 5 then 'home' end as surface from 'interactions.parquet'"
    )
    text = with_domains(text).replace('column="kind"', 'column="surface", of="interactions"')
    return text.replace("select * from 'interactions.parquet'", query)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) != after.get(name)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of lamps and chairs that ran; both are domains."""
    folder = tmp_path_factory.mktemp("domains") / "my shop"
    make_shop(folder, with_domains)
    Project(folder).run()
    return folder


def test_a_domain_writes_its_own_file_and_nothing_else(root: Path) -> None:
    shop, data = Project(root), root / "data" / "shop"
    before = digests(root)
    lamps = shop.train_domain("lamp")
    assert [one.model for one in lamps.held_out] == ["general", "domain", "reki_match"]
    assert lamps.samples.training > 100
    assert lamps.next == ['in your Feast repo: reki_match(views.user, views.item, domain="lamp")']
    after = digests(root)
    assert changed(before, after) == {str(lamps.file.relative_to(root))}

    chairs = shop.train_domain("chair")
    assert changed(after, digests(root)) == {str(chairs.file.relative_to(root))}
    assert {*domains_about(data)} == {"lamp", "chair"}
    again = shop.train_domain("chair")
    assert again.held_out == chairs.held_out
    assert changed(after, digests(root)) == {str(chairs.file.relative_to(root))}

    removed = shop.remove_domain("chair")
    assert removed.file == chairs.file
    assert changed(after, digests(root)) == set()
    with pytest.raises(StoreError, match="something is stored of domain chair"):
        shop.remove_domain("chair")


@pytest.mark.filterwarnings(
    "ignore:On demand feature view is an experimental feature:RuntimeWarning"
)
def test_scores_of_a_domain_are_its_own_weights_of_general_vectors(root: Path) -> None:
    shop, data = Project(root), root / "data" / "shop"
    shop.train_domain("lamp")
    head = domains_about(data)["lamp"]["match"]
    kind = ValueType.STRING
    entities = {"user": Entity(name="customer", join_keys=["customer_id"], value_type=kind)}
    entities["item"] = Entity(name="product", join_keys=["sku"], value_type=kind)
    views = reki_views(data, user=entities["user"], item=entities["item"])
    match = reki_match(views.user, views.item, domain="lamp")
    assert match.name == "reki_lamp_match"
    assert match.tags["reki.domain"] == "lamp"
    with pytest.raises(StoreError, match="Domain sofa is learnt"):
        reki_match(views.user, views.item, domain="sofa")

    store = FeatureStore(
        config=RepoConfig(
            project="lamps",
            provider="local",
            registry=str(root / "registry.db"),
            online_store={"type": "sqlite", "path": str(root / "online.db")},
            offline_store={"type": "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([*entities.values(), views.user, views.item, match])
    user = pq.read_table(data / "user_aug")
    wanted = {"customer_id": ["c'1"], "sku": ["s-2"]}
    frame = pa.table({**wanted, "event_timestamp": [pc.max(user["event_timestamp"]).as_py()]})
    refs = ["reki_lamp_match:score", "reki:user_aug", "reki_item:item_aug"]
    found = store.get_historical_features(frame.to_pandas(), refs).to_df()
    u, i = (np.array(found[name][0], np.float64) for name in ("user_aug", "item_aug"))
    by_hand = head["bias"] + sum(
        a * x + b * y + c * x * y
        for a, b, c, x, y in zip(head["user"], head["item"], head["product"], u, i, strict=True)
    )
    assert found["score"][0] == pytest.approx(by_hand, abs=1e-4)
    inputs = {"reki__user_aug": u, "reki_item__item_aug": i}
    columns = {name: [vector.astype(np.float32)] for name, vector in inputs.items()}
    transformation: Any = match.feature_transformation
    pandas = transformation.udf(pd.DataFrame(columns))
    assert pandas["score"][0] == pytest.approx(by_hand, abs=1e-4)


def test_a_stored_domain_is_a_click_model_over_all_items(root: Path) -> None:
    made = Project(root).train_domain("lamp")
    arrays, about = files.read_tensors(made.file)
    assert made.file == domain_path(root / "data" / "shop", "lamp")
    assert (about["format"], about["domain"]) == (1, "lamp")
    assert about["weights"] == (Project(root).open().lake.read_json("hein") or {})["hash"]
    backbone = restore_backbone(arrays, about["backbone"])
    assert backbone.items.to_pylist() == sorted(f"s-{n}" for n in range(20))


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The same shop, to change."""
    shutil.copytree(root, tmp_path / "shop", ignore=shutil.ignore_patterns("*.db"))
    return tmp_path / "shop"


def test_forgotten_items_leave_domains_too(copy: Path) -> None:
    shop = Project(copy)
    path = shop.train_domain("lamp").file
    shop.forget(items=["s-4"])
    arrays, about = files.read_tensors(path)
    assert "s-4" not in about["backbone"]["items"]
    assert len(arrays["inputs.item.weight"]) == len(about["backbone"]["items"]) + 1 == 20


@pytest.mark.parametrize(
    ("name", "edit", "error", "match"),
    [
        ("sofa", with_domains, CondenseError, r"'sofa' has 0; there are \w+ \(\d+\), \w+ \("),
        ("lamp", lambda text: text, DeclarationError, "declares no Domains"),
        ("lamp", lambda t: with_domains(t).replace("100)", "5_000)"), CondenseError, "5,000"),
        (
            "lamp",
            lambda t: with_domains(t).replace('column="kind"', 'column="colour"'),
            SourceError,
            "there are sku, title, kind",
        ),
    ],
    ids=["unknown", "undeclared", "small", "column"],
)
def test_what_is_no_domain(
    root: Path, name: str, edit: object, error: type[Exception], match: str
) -> None:
    path = root / "generators" / "shop.py"
    before = path.read_text("utf-8")
    try:
        path.write_text(edit(GENERATOR), "utf-8")  # type: ignore[operator]
        with pytest.raises(error, match=match):
            Project(root).train_domain(name)
    finally:
        path.write_text(before, "utf-8")


def test_nothing_is_learnt_before_a_training(tmp_path: Path) -> None:
    make_shop(tmp_path / "shop", with_domains)
    with pytest.raises(CondenseError, match="goes on with the click model"):
        Project(tmp_path / "shop").train_domain("lamp")


def test_interactions_name_surfaces(copy: Path) -> None:
    path = copy / "generators" / "shop.py"
    path.write_text(on_surfaces(GENERATOR), "utf-8")
    assert Project(copy).train_domain("search").domain == "search"
    log = domain_log(open_project(copy))
    assert set(log.domain.to_pylist()) == {"search", "home", None}
    times = log.interactions["event_timestamp"].cast(pa.int64()).to_numpy() // 3_600_000_000
    assert [one == "search" for one in log.domain.to_pylist()] == (times % 3 == 0).tolist()
    path.write_text(on_surfaces(GENERATOR).replace('="surface"', '="page"'), "utf-8")
    with pytest.raises(SourceError, match="is a column of the interactions"):
        Project(copy).train_domain("search")


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "--project", str(root)]
    assert app.main([*run, "--domain", "lamp"]) == 0
    assert "domain lamp, learnt in" in capsys.readouterr().out
    assert app.main([*run, "--remove-domain", "lamp"]) == 0
    assert "domain lamp is removed" in capsys.readouterr().out
    assert app.main([*run, "--domain", "lamp", "--retrain"]) == 2
    assert "two commands" in capsys.readouterr().err
