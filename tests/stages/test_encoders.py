"""One project, one encoder: what earlier versions made of a model is brought up to date."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast import schema, stages
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages import snapshots
from reki_feast.stages.doctor import doctor
from reki_feast.stages.representation_rows import RowWriter
from tests.encoding.tiny_models import tiny_model
from tests.stages.conftest import in_space, make_shop, write_tables

CLS = "cls+Dense+Normalize"

CHANNELS = schema.USER_CHANNELS + schema.ITEM_CHANNELS


def declare(project: DeclaredProject, said: str) -> DeclaredProject:
    """The project with another encoder."""
    path = project.declared.path
    lines = path.read_text().splitlines(keepends=True)
    lines = [f"encoder = Encoder({said})\n" if x.startswith("encoder") else x for x in lines]
    path.write_text("".join(lines))
    return open_project(project.root)


def vectors(project: DeclaredProject) -> dict[Path, int]:
    """The stored parts with vectors, and when they were written."""
    tables = ("vectors", "*_representation", "*_aug", "*_match")
    paths = (path for table in tables for path in project.data.glob(f"{table}/*.parquet"))
    return {path: path.stat().st_mtime_ns for path in paths}


def old_shop(folder: Path, model: Path) -> DeclaredProject:
    """A shop whose vectors are those that version 0.1 made: means of tokens, and no more."""
    shop = declare(make_shop(folder), f"model={str(model)!r}, pooling='mean'")
    stages.run(shop)
    stored = shop.lake.read_json("encoder") or {}
    assert stored["name"] == f"{model}/mean"
    shop.lake.write_json("encoder", {"name": stored["name"]})
    return declare(shop, f"model={str(model)!r}")


def all_times(project: DeclaredProject) -> list[datetime]:
    return snapshots.times(project, "user_representation", "item_representation")


def makers(project: DeclaredProject, kind: schema.Kind) -> set[str]:
    """Which encoders made the vectors that are laid out as texts' channels."""
    key = schema.Key("sku" if kind == "item" else "customer_id", pa.string())
    rows = snapshots.representation(project, key, kind)
    vectors = project.lake.read("vectors", schema.VECTORS)
    whose = {tuple(row["vector"]): row["encoder"] for row in vectors.to_pylist()}
    channels = [name for name in rows.column_names if name in CHANNELS]
    found = [vector for name in channels for vector in rows[name].to_pylist() if vector]
    return {whose[tuple(vector)] for vector in found}


def test_vectors_of_an_earlier_version_are_made_anew_in_another_space(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, CLS)
    shop = old_shop(tmp_path / "shop", model)
    times = all_times(shop)
    stages.encode(shop, retrain=True)
    new = in_space(shop, 1)
    for project, name in ((shop, "mean"), (new, CLS)):
        assert all_times(project) == times
        assert makers(project, "user") == makers(project, "item") == {f"{model}/{name}"}
    stages.run(shop, retrain=True)
    manifest = new.lake.read_json("manifest") or {}
    assert (manifest["encoder"], manifest["m"]) == (f"{model}/{CLS}", 8)
    assert stages.encode(shop).title.startswith("shop: 0 new texts")
    assert (shop.lake.read_json("manifest") or {})["encoder"] == f"{model}/mean"


def test_trained_weights_keep_the_vectors_that_they_read(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, CLS)
    shop = old_shop(tmp_path / "shop", model)
    weights = shop.lake.read_json("hein")
    write_tables(shop.root, interactions=605)
    report = stages.run(shop)
    (note,) = [note for note in report.notes if "vectors stay" in note]
    assert f"them, {model}/mean, since" in note
    assert f"own are {model}/{CLS}: `reki run --retrain`" in note
    assert makers(shop, "user") == makers(shop, "item") == {f"{model}/mean"}
    assert shop.lake.read_json("hein") == weights


def test_a_renewal_that_is_cut_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path, CLS)
    shop = old_shop(tmp_path / "shop", model)
    times = all_times(shop)
    assert len(times) > 2
    write = RowWriter.write

    def cut_short(writer: RowWriter, found: Any, time: datetime) -> Any:
        if time == times[1]:
            raise KeyboardInterrupt
        return write(writer, found, time)

    monkeypatch.setattr(RowWriter, "write", cut_short)
    with pytest.raises(KeyboardInterrupt):
        stages.encode(shop, retrain=True)
    monkeypatch.undo()
    stages.encode(shop, retrain=True)
    new = in_space(shop, 1)
    assert all_times(new) == times
    assert makers(new, "user") == makers(new, "item") == {f"{model}/{CLS}"}


def test_vectors_that_are_the_models_own_already_stay(tmp_path: Path) -> None:
    shop = old_shop(tmp_path / "shop", tiny_model(tmp_path, "mean"))
    before = vectors(shop)
    report = stages.encode(shop)
    assert report.title.startswith("shop: 0 new texts")
    assert vectors(shop) == before
    assert shop.lake.weights() is not None


@pytest.mark.parametrize("said", ["pooling='max'", "prompt='about '"])
def test_another_encoder_on_purpose_is_refused(said: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, CLS)
    shop = old_shop(tmp_path / "shop", model)
    shop = declare(shop, f"model={str(model)!r}, {said}")
    with pytest.raises(LakeError, match="(?s)one encoder.*/mean made the stored ones"):
        stages.encode(shop)


def test_another_model_of_an_evaluation_has_its_own_prompt(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "mean/prompt='passage : '")
    shop = declare(make_shop(tmp_path / "shop"), "model='minilm', prompt='x: '")
    other = shop.encoder(model=str(model))
    assert other.name == f"{model}/mean/prompt='passage : '"


def test_doctor_tells_what_is_declared_and_used(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, CLS)
    shop = declare(make_shop(tmp_path / "shop"), f"model={str(model)!r}")
    rows = {row["check"]: row for row in doctor(shop.root).plain()["tables"]["checks"]}
    assert rows["encoder"]["state"] == "fine"
    assert rows["encoder"]["found"] == (
        f"{model}/{CLS}, m = 8; declares Transformer, Pooling(cls), Dense, Dropout, Normalize; "
        "used as declared, no prompt, long texts in windows of 12 tokens"
    )
