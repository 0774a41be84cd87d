"""`reki groups`: a list, and one entity's way down the tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reki_feast import stages
from reki_feast.cli.app import main
from reki_feast.errors import ClusterError
from reki_feast.project import DeclaredProject
from tests.stages.conftest import make_shop
from tests.stages.test_grouping import collective, members, rows


@pytest.fixture
def shop(tmp_path: Path) -> DeclaredProject:
    project = make_shop(tmp_path / "shop", collective)
    stages.generate(project)
    return project


def test_all_groups_are_listed_with_size_items_knowledge_and_name(shop: DeclaredProject) -> None:
    found = rows(stages.groups(shop), "groups")
    assert {row["group"]: row["size"] for row in found} == {
        group: list(members(shop).values()).count(group) for group in members(shop).values()
    }
    assert all(row["name"] and row["items"] and row["knowledge"] for row in found)
    assert all("\n" not in row["knowledge"] for row in found)


def test_kind_and_limit_choose(shop: DeclaredProject) -> None:
    report = stages.groups(shop, kind="item", limit=2)
    assert [row["of"] for row in rows(report, "groups")] == ["items", "items"]
    assert "more; --limit" in report.notes[0]


def test_a_path_leads_from_all_to_one(shop: DeclaredProject) -> None:
    user = next(owner for channel, owner in members(shop) if channel == "liked")
    report = stages.groups(shop, of=user)
    path = rows(report, f"path of user {user} through users, liked")
    counts = [row["members"] for row in path]
    assert counts[0] == sum(channel == "liked" for channel, _ in members(shop))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    assert path[-1]["mostly"] == members(shop)["liked", user]


def test_an_items_path_takes_the_kind(shop: DeclaredProject) -> None:
    report = stages.groups(shop, of="s-3", kind="item")
    assert rows(report, "path of item s-3 through items")[-1]["members"] == 1


def test_before_there_are_groups_the_way_to_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no groups are stored"):
        stages.groups(make_shop(tmp_path / "bare"))


def test_a_stranger_is_told_as_one(shop: DeclaredProject) -> None:
    with pytest.raises(ClusterError, match="nobody is in none"):
        stages.groups(shop, of="nobody")


def test_the_command_prints_json(shop: DeclaredProject, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", "--project", str(shop.root), "--kind", "item", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["tables"]["groups"][0]) == {"group", "of", "size", "name", "items", "knowledge"}


def test_the_command_says_what_is_wrong(
    shop: DeclaredProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["groups", "--project", str(shop.root), "--of", "nobody"]) == 1
    assert "--kind item looks among items" in capsys.readouterr().err
