"""`reki report`: what is collected, with texts and ids and without."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import Project, stages
from reki_feast.cli.app import WRONG_USE, main
from reki_feast.errors import DeclarationError
from reki_feast.project import DeclaredProject
from reki_feast.results import GroupNode
from reki_feast.stages.context import StageContext
from reki_feast.stages.report_figures import measured_gain
from reki_feast.stages.report_groups import _by_size, group_trees
from reki_feast.stages.report_maps import projected
from tests.stages.conftest import AWKWARD, make_shop
from tests.stages.test_grouping import collective, members

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]


def data_of(path: Path) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'id="report-data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def pages(materialized: DeclaredProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page of a shop that is online, and the anonymous one."""
    folder = tmp_path_factory.mktemp("pages")
    project = Project(materialized.root)
    project.report(out=folder / "whole.html")
    project.report(out=str(folder / "bare.html"), anonymous=True)
    return folder


def test_everybody_of_a_small_shop_is_explained(pages: Path, materialized: Any) -> None:
    entities = {(one["kind"], one["id"]): one for one in data_of(pages / "whole.html")["entities"]}
    assert len(entities) == 50
    told = stages.explain(materialized, "user", "c'3")
    shown = entities["user", "c'3"]
    assert (shown["outcome"], shown["answer"]) == (told.outcome, told.answer)
    assert [one["title"] for one in shown["history"]] == [one.title for one in told.history]
    assert shown["prompts"][0]["prompt"] == told.prompts[0].prompt
    assert [one["view"] for one in shown["views"]] == [one.view for one in told.views]
    assert [one["item"] for one in shown["nearest"]] == [one.item for one in told.nearest]
    assert entities["user", "c'29"]["outcome"] == "no history"


def test_maps_have_a_point_for_each_vector(pages: Path) -> None:
    maps = {one["title"]: one for one in data_of(pages / "whole.html")["maps"]}
    assert {"users: knowledge", "items: description", "users: user_aug"} <= set(maps)
    for one in maps.values():
        assert len(one["ids"]) == len(one["x"]) == len(one["y"]) <= one["of"]
        assert {min(one["x"]), max(one["x"])} <= set(range(1001))
        assert all(len(colour["of"]) == len(one["x"]) for colour in one["colours"])


def test_tables_views_and_calls_are_told(pages: Path, materialized: DeclaredProject) -> None:
    text = (pages / "whole.html").read_text("utf-8")
    rows = materialized.lake.size("user_aug")[1]
    assert re.search(rf"<code>user_aug</code>.*?<td class=\"n\">{rows:,}</td>", text)
    assert re.search(r"<code>reki</code>.*?(\d+) of \1 are the newest", text)
    assert "1 of 30" in text  # users with the default vector
    assert "maps show 29 of 29 users and 20 of 20 items" in text


def test_an_anonymous_page_has_neither_ids_nor_texts(pages: Path, materialized: Any) -> None:
    text = (pages / "bare.html").read_text("utf-8")
    assert "c&#39;" not in text
    assert not re.search(r"c'\d|s-\d", text)
    titles = ["product 3", "Ünïcode", AWKWARD[0]]
    told = materialized.lake.read("knowledge", pq_schema(materialized, "knowledge"))["text"]
    for private in [*titles, *(one[:30] for one in told.to_pylist()[:20])]:
        assert private not in text
    entities = data_of(pages / "bare.html")["entities"]
    assert {one["id"] for one in entities} == {str(n + 1) for n in range(50)}
    assert {one["outcome"] for one in entities} == {"row", "no history"}


def pq_schema(project: DeclaredProject, table: str) -> Any:
    return pq.read_schema(project.lake.parts(table)[0])


def test_a_project_that_never_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = make_shop(tmp_path / "my shop")
    assert main(["report", "--project", str(shop.root)]) == 0
    assert "report.html" in capsys.readouterr().out
    path = shop.data / "report.html"
    assert path.stat().st_mode & 0o777 == 0o600
    data = data_of(path)
    assert (data["groups"], data["maps"]) == ({}, [])
    assert {one["outcome"] for one in data["entities"]} == {"not asked", "no history"}


def test_what_cannot_be_read_is_noted(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    (shop.root / "items.parquet").unlink()
    found = stages.report(shop, out=tmp_path / "page.html")
    assert any("tables: not shown" in note for note in found.notes)
    assert "tables: not shown" in (tmp_path / "page.html").read_text("utf-8")


def test_who_is_forgotten_is_in_no_page_of_the_folder(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    path = stages.report(shop).path
    found = stages.forget(shop, users=["c'1"])
    assert not path.exists()
    assert [one.what for one in found.removed if one.place == path.name] == [
        "pages of `reki report`"
    ]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    with pytest.raises(DeclarationError, match="HTML file"):
        stages.report(shop, out=tmp_path / "page.pdf")
    words = ["report", "--project", str(shop.root), "--out", str(tmp_path / "page.txt")]
    assert main(words) == WRONG_USE


# --- groups ---------------------------------------------------------------------------------


def leaves(node: GroupNode) -> Iterator[GroupNode]:
    for part in node.parts:
        yield from leaves(part)
    if not node.parts:
        yield node


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    shop = make_shop(tmp_path_factory.mktemp("groups") / "shop", collective)
    stages.generate(shop)
    return shop


@pytest.mark.parametrize("boxes", [2, 3, 16])
def test_each_group_has_one_box(
    grouped: DeclaredProject, monkeypatch: pytest.MonkeyPatch, boxes: int
) -> None:
    monkeypatch.setattr("reki_feast.stages.report_groups._BOXES", boxes)
    trees, about = group_trees(StageContext.of(grouped), anonymous=False)
    assert list(trees) == ["users, liked", "users, disliked", "items"]
    for of, root in trees.items():
        found = list(leaves(root))
        wanted = {one.group: one.size for one in about.values() if name_of(one) == of}
        assert {one.group: one.size for one in found} == wanted
        assert len(found) == len(wanted) == root.groups
        assert root.size == sum(wanted.values())
        assert all(one.knowledge for one in found)


def name_of(about: Any) -> str:
    return f"{about.kind}s" if about.channel == "knowledge" else f"users, {about.channel}"


def test_imported_groups_have_boxes_by_size() -> None:
    sizes = range(5_000, 0, -1)
    root = _by_size([GroupNode(f"g{size}", size, 1) for size in sizes])
    assert [one.size for one in leaves(root)] == [*sizes]
    assert (len(root.parts), root.groups, root.size) == (16, 5_000, sum(sizes))
    assert root.parts[0].name == "groups of 4,688 to 5,000 members"
    most = max(len(one.parts) for one in [root, *root.parts, *root.parts[0].parts])
    assert most == 16


def test_groups_and_their_members_in_a_page(grouped: DeclaredProject, tmp_path: Path) -> None:
    stages.report(grouped, out=tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    user = next(owner for channel, owner in members(grouped) if channel == "liked")
    group = members(grouped)["liked", user]
    size = list(members(grouped).values()).count(group)
    [one] = [x for x in data["entities"] if (x["kind"], x["id"]) == ("user", user)]
    told = {x["group"]: x for x in one["groups"]}[group]
    assert told["size"] == size
    assert told["name"] == stages.groups(grouped, of=user).groups[0].name or told["name"]


def test_of_a_long_catalogue_the_sample_has_what_its_users_met(
    grouped: DeclaredProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.report(grouped, out=tmp_path / "whole.html")
    monkeypatch.setattr("reki_feast.stages.report_sample._ITEMS", 5)
    monkeypatch.setattr("reki_feast.stages.report_sample._EXPLAINED", 6)
    stages.report(grouped, out=tmp_path / "few.html")
    whole, few = (data_of(tmp_path / f"{name}.html")["entities"] for name in ("whole", "few"))
    assert (len(whole), len(few)) == (50, 12)
    for one in few:
        assert one == next(x for x in whole if (x["kind"], x["id"]) == (one["kind"], one["id"]))


def test_groups_have_no_names_in_an_anonymous_page(grouped: DeclaredProject) -> None:
    trees, about = group_trees(StageContext.of(grouped), anonymous=True)
    for root in trees.values():
        assert all(re.fullmatch(r"group \d+", one.name) for one in leaves(root))
        assert all((one.group, one.items, one.knowledge) == ("", [], "") for one in leaves(root))
    assert about


# --- figures --------------------------------------------------------------------------------


def test_gains_with_their_intervals_and_the_models_share(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")

    def measured(gain: float, **ends: float) -> dict[str, float]:
        return {"plain": 0.6, "ours": 0.6 + gain, "gain": gain, "p": 0.01, **ends}

    sets = [
        {"name": "texts: knowledge", "width": 1, "logistic": measured(0.04, low=0.03, high=0.05)},
        {"name": "texts: description", "width": 1, "logistic": measured(0.01)},
        {"name": "score", "width": 1, "logistic": measured(0.05)},
        {"name": "score of permuted texts", "width": 1, "logistic": measured(0.0)},
    ]
    for one in sets:
        one["trees"] = measured(-0.01)
    found = {"cut": "2026-01-01T00:00:00", "train": 10, "test": 5, "score_auc": {"a": 0, "b": 0}}
    said = {"q": 4, "hash": "ab", "trained_as_of": "2026-01-01", "helps": {"sets": sets, **found}}
    shop.lake.write_json("hein", said)
    gain = measured_gain(StageContext.of(shop))
    assert gain is not None
    first, *_, last = gain.bars
    assert (first.columns, first.gain, first.low, first.high) == (
        "texts: knowledge",
        0.04,
        0.03,
        0.05,
    )
    assert (last.model, last.low) == ("trees", None)
    assert [one.share for one in gain.shares] == [pytest.approx(0.75), None]


def test_a_projection_keeps_distances_in_a_plane() -> None:
    draw = np.random.default_rng(0)
    flat = draw.standard_normal((40, 2)).astype(np.float32)
    turned = flat @ np.linalg.qr(draw.standard_normal((5, 5)))[0][:2].astype(np.float32)
    x, y, explained = projected(turned)
    points = np.array([x, y]).T
    ours = np.linalg.norm(points[:, None] - points[None], axis=2)
    theirs = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    assert sum(explained) == pytest.approx(1.0, abs=1e-3)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
    assert pc.max(x).as_py() <= 1000
