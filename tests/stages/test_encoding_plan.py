"""What a plan says of encoding: texts, and hours by a timed sample."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reki_feast import stages
from reki_feast.project import DeclaredProject
from tests.encoding.static_model import static_model
from tests.stages.conftest import make_shop, write_tables


@pytest.fixture
def shop(tmp_path: Path) -> DeclaredProject:
    folder = static_model(tmp_path / "model")
    return make_shop(
        tmp_path / "shop", lambda text: text.replace('model="hash"', f"model={str(folder)!r}")
    )


def test_a_plan_tells_how_long_encoding_takes(shop: DeclaredProject, tmp_path: Path) -> None:
    before = stages.plan(shop).encoding
    assert before is not None
    assert before.texts_per_second > 0
    assert before.hours == pytest.approx(before.texts / before.texts_per_second / 3600, rel=0.1)
    plain = stages.plan(shop).report().plain()["tables"]["encoding"]
    assert [*plain[0]] == ["texts", "texts a second", "hours"]
    done = stages.run(shop)
    assert done.encode is not None
    assert done.encode.texts == pytest.approx(before.texts, rel=0.25)
    later = stages.plan(shop).encoding
    assert later is not None
    assert later.texts == 0
    assert later.hours == 0
    write_tables(shop.root, interactions=624)
    day = stages.plan(shop).encoding
    assert day is not None
    assert day.texts == stages.run(shop).encode.texts  # type: ignore[union-attr]


def test_without_the_encoder_nothing_is_told(shop: DeclaredProject, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "model")
    assert stages.plan(shop).encoding is None


def test_a_fake_encoder_is_not_timed(tmp_path: Path) -> None:
    assert stages.plan(make_shop(tmp_path)).encoding is None
