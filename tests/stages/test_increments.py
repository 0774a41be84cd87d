"""A run after a change writes the rows that changed, and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import stages
from reki_feast.knowledge import Templates
from reki_feast.knowledge.prompts.fingerprints import _ANY
from reki_feast.knowledge.text import quoted
from reki_feast.project import open_project
from tests.bench.increments import parts, written
from tests.stages.conftest import make_shop, write_tables

Rows = list[dict[str, Any]]


def edit(root: Path, name: str, change: Callable[[Rows], object]) -> None:
    path = root / f"{name}.parquet"
    found = pq.read_table(path)
    rows = found.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, found.schema), path)


def new_user(root: Path) -> None:
    edit(root, "users", lambda rows: rows.append({"customer_id": "new", "region": "north"}))
    edit(root, "interactions", lambda rows: rows.append(met(rows, "new", timedelta(hours=1))))


def late(root: Path) -> None:
    """An interaction of long ago: of everybody who met the item since, more was to be expected."""
    edit(root, "interactions", lambda rows: rows.append(met(rows, "c'5", timedelta(hours=-500))))


def met(rows: Rows, user: str, after: timedelta) -> dict[str, Any]:
    last = rows[-1]
    time = last["event_timestamp"] + after + timedelta(minutes=7)
    return {**last, "customer_id": user, "sku": "s-4", "event_timestamp": time}


#: One after the other: what is changed, and how many rows each table gets.
INCREMENTS: list[tuple[str, Callable[[Path], object], dict[str, int]]] = [
    ("nothing", lambda root: None, {}),
    (
        "a day",  # 24 interactions of 16 users
        lambda root: write_tables(root, interactions=624),
        {
            "asked": 16,
            "inputs": 32,
            "knowledge": 16,
            "user_aug": 16,
            "user_knowledge": 16,
            "user_match": 24,
            "user_representation": 16,
            "vectors": 32,
        },
    ),
    (
        "a title",  # that 17 users see in their histories; nobody is asked again
        lambda root: edit(root, "items", lambda rows: rows[7].update(title="renamed lamp")),
        {
            "asked": 1,
            "inputs": 19,
            "item_aug": 1,
            "item_knowledge": 1,
            "item_match": 1,
            "item_representation": 1,
            "knowledge": 1,
            "user_aug": 17,
            "user_representation": 17,
            "vectors": 19,
        },
    ),
    (
        "a new item",
        lambda root: edit(
            root,
            "items",
            lambda rows: rows.append({"sku": "s-new", "title": "new thing", "kind": "lamp"}),
        ),
        {
            "asked": 1,
            "inputs": 2,
            "item_aug": 1,
            "item_knowledge": 1,
            "item_match": 1,
            "item_representation": 1,
            "knowledge": 1,
            "vectors": 2,
        },
    ),
    (
        "a new user",
        new_user,
        {
            "asked": 1,
            "inputs": 2,
            "knowledge": 1,
            "user_aug": 1,
            "user_knowledge": 1,
            "user_match": 1,
            "user_representation": 1,
            "vectors": 2,
        },
    ),
    (
        "a profile",
        lambda root: edit(root, "users", lambda rows: rows[3].update(region="west")),
        {
            "asked": 1,
            "inputs": 2,
            "knowledge": 1,
            "user_aug": 1,
            "user_knowledge": 1,
            "user_representation": 1,
            "vectors": 2,
        },
    ),
]


def test_rows_written_are_rows_changed(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    stages.run(shop)
    for name, change, expected in INCREMENTS:
        change(shop.root)
        before = parts(shop.root)
        stages.run(open_project(shop.root))
        found = written(before, parts(shop.root))
        assert set(before) <= set(parts(shop.root)), name
        assert {table: one.rows for table, one in found.items()} == expected, name
        assert {table: one.changed for table, one in found.items()} == expected, name


def test_texts_are_written_of_those_who_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(tmp_path)
    stages.run(shop)
    stages.run(open_project(shop.root))
    render, seen = Templates.render, Counter[str]()

    def counted(self: Templates, name: str, **variables: Any) -> str:
        is_frame = quoted(_ANY) in str(variables)  # of which a fingerprint is made
        seen[name] += not is_frame
        return render(self, name, **variables)

    monkeypatch.setattr(Templates, "render", counted)
    for name, users, items in (
        ("a day", 16, 0),
        ("a new item", 0, 1),
        ("a new user", 1, 0),
        ("a profile", 1, 0),
    ):
        change = next(change for told, change, _ in INCREMENTS if told == name)
        change(shop.root)
        seen.clear()
        stages.run(open_project(shop.root))
        assert (seen["user"], seen["history"], seen["item"]) == (users, users, items), name


def test_a_late_interaction_changes_what_came_after_it(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    stages.run(shop)
    late(shop.root)
    before = parts(shop.root)
    stages.run(open_project(shop.root))
    found = written(before, parts(shop.root))
    assert {table: one.rows for table, one in found.items()} == {
        table: one.changed for table, one in found.items()
    }
    assert found["knowledge"].rows == found["user_representation"].rows == 1
