"""`reki train --retrain --compatible`: the vectors of a new space stay near to those in service."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from reki_feast import Project, schema, stages
from reki_feast.cli import main
from reki_feast.errors import CondenseError
from reki_feast.models.hein import restore_backbones
from reki_feast.project import DeclaredProject, open_project
from reki_feast.schema import Key, Kind
from reki_feast.stages.compatible import OldSpace
from reki_feast.stages.context import StageContext
from reki_feast.stages.living_spaces import all_lakes
from reki_feast.stages.stored_hein import StoredHein
from reki_feast.tables.lake import Lake
from reki_feast.tables.parts import newest
from tests.stages.conftest import make_shop, reseed, write_tables

ONE = "Training(epochs=4, check=False, blocks=1)"
BLOCKS = "Training(epochs=4, check=False, blocks=3)"
FOLDS = "Training(epochs=4, check=False, blocks=1, folds=2, match=1)"


def trained_shop(root: Path, training: str = ONE) -> DeclaredProject:
    """A published shop, whose log has grown since."""
    shop = make_shop(root, lambda text: text.replace("Training(epochs=1, check=False)", training))
    stages.run(shop)
    write_tables(root, interactions=1000)
    return reseed(root, 7)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_shop(tmp_path_factory.mktemp("published") / "shop").root


@pytest.fixture
def shop(published: Path, tmp_path: Path) -> DeclaredProject:
    return open_project(shutil.copytree(published, tmp_path / "shop"))


def rows(lake: Lake, kind: Kind) -> dict[str, list[float]]:
    """The newest vector of each id."""
    key = Key("customer_id" if kind == "user" else "sku", pa.string())
    table = lake.read(f"{kind}_aug", schema.augmented(key, kind))
    return {row[key.name]: row[f"{kind}_aug"] for row in newest(table, [key.name]).to_pylist()}


def distance(shop: DeclaredProject, kind: Kind) -> float:
    """Mean squared distance of the rows of both spaces, as a share of the variance."""
    old, new = (rows(lake, kind) for lake in all_lakes(shop))
    shared = sorted(old.keys() & new.keys())
    assert len(shared) > 10
    mine, others = (np.array([side[one] for one in shared]) for side in (old, new))
    return float(np.square(mine - others).sum() / np.square(mine - mine.mean(0)).sum())


def test_a_compatible_space_is_near_to_the_one_in_service(shop: DeclaredProject) -> None:
    result = stages.run(shop, retrain=True, compatible=True)
    old, new = all_lakes(shop)
    mine, others = old.read_json("hein") or {}, new.read_json("hein") or {}
    assert others["compatible_with"] == mine["hash"] != others["hash"]
    assert "compatible_with" not in mine
    assert f"the vectors of {mine['hash']} can read these" in "".join(result.notes)
    assert distance(shop, "user") < 0.2
    assert distance(shop, "item") < 0.2


def test_a_plain_space_is_not(shop: DeclaredProject) -> None:
    stages.run(shop, retrain=True)
    _, new = all_lakes(shop)
    assert "compatible_with" not in (new.read_json("hein") or {})
    assert distance(shop, "user") > 0.5
    assert distance(shop, "item") > 0.5


@pytest.mark.parametrize("training", [BLOCKS, FOLDS], ids=["blocks", "folds"])
def test_blocks_and_folds(training: str, tmp_path: Path) -> None:
    """A block stays near to one of before that has learnt no later label."""
    shop = trained_shop(tmp_path / "shop", training)
    stages.run(shop, retrain=True, compatible=True)
    old, new = (StoredHein(*(lake.weights() or ({}, {}))) for lake in all_lakes(shop))
    first = old.cuts[0]
    assert first is not None
    assert all(cut is not None and cut >= first for cut in new.cuts)
    assert distance(shop, "user") < 0.2
    assert distance(shop, "item") < 0.2


def test_blocks_of_before_by_what_they_learnt(shop: DeclaredProject) -> None:
    old = OldSpace.of(StageContext.of(shop))
    until = old.stored.until
    assert until is not None
    for cut, is_last, found in [
        (until, False, True),
        (until + timedelta(days=1), False, True),
        (until - timedelta(days=1), False, False),
        (until - timedelta(days=1), True, True),
        (None, True, True),
    ]:
        near = old.predecessor(cut, is_last=is_last, encoding=0)
        assert (near is not None) == found


def test_vectors_of_another_length(shop: DeclaredProject) -> None:
    path = shop.declared.path
    path.write_text(path.read_text().replace("(model=", "(taste=True, model="))
    shop = open_project(shop.root)
    with pytest.raises(CondenseError, match=r"as long as those before\n.*each of 3 pairs"):
        stages.run(shop, retrain=True, compatible=True)


@pytest.mark.parametrize("command", ["train", "run"])
def test_compatible_alone(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = make_shop(tmp_path / "shop")
    assert main([command, "--compatible", "--project", str(shop.root)]) == 1
    said = capsys.readouterr().err
    assert "trained again" in said
    assert "reki train --retrain --compatible" in said


def test_nothing_to_be_compatible_with(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    with pytest.raises(CondenseError, match=r"with those before\n.*none are stored\n.*leave"):
        Project(shop.root).run(retrain=True, compatible=True)
    assert not (shop.data / "knowledge").exists()  # nothing was asked


def test_items_are_forgotten_by_stored_recommenders(shop: DeclaredProject) -> None:
    (path,) = shop.data.glob("backbone-*.safetensors")
    assert b'"s-7"' in path.read_bytes().replace(b"\\", b"")
    weights = StoredHein.of(shop).weights
    stages.forget(shop, items=["s-7"])
    (path,) = shop.data.glob("backbone-*.safetensors")
    raw = path.read_bytes().replace(b"\\", b"")
    assert b'"s-7"' not in raw
    assert b'"s-8"' in raw
    again = open_project(shop.root)
    assert StoredHein.of(again).weights.keys() == weights.keys()
    (model,) = restore_backbones(*(again.lake.backbones() or ({}, [])))
    assert model is not None
    assert "s-7" not in model.items.to_pylist()
    assert len(model.items) == 19
