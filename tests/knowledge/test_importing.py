"""Knowledge made elsewhere, by group and by entity."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast.errors import KnowledgeError
from reki_feast.knowledge import import_entities, import_groups
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.schema import KNOWLEDGE, MEMBERS, content_hash

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
CREATED = datetime(2026, 5, 1, tzinfo=UTC)
WHEN: Any = {"times": Timestamps(AS_OF, CREATED)}
GROUPS = pa.table(
    {
        "kind": ["item", "user_liked", "user_disliked"],
        "group_id": [7, 7, 8],
        "text": ["1. Genre: Noir.\n2. Mood: Dark.", "They like noir.", "They dislike puns."],
        "prompt": ["p1", "p2", None],
        "model": ["m", "m", "m"],
    }
)
ITEM_MAP = pa.table({"item_id": [1, 2], "group_id": pa.array([7, 7], pa.int16())})
USER_MAP = pa.table({"user_id": ["a"], "liked_group_id": [7], "disliked_group_id": [8]})
MAPS = {
    ("item", "knowledge"): ITEM_MAP,
    ("user", "liked"): USER_MAP,
    ("user", "disliked"): USER_MAP,
}


def test_groups_and_members() -> None:
    knowledge, members = import_groups(GROUPS, MAPS, **WHEN, factors=("genre", "mood"))
    assert (knowledge.schema, members.schema) == (KNOWLEDGE, MEMBERS)
    assert knowledge.to_pylist()[0] == {
        "kind": "item",
        "channel": "knowledge",
        "owner": "7",
        "grouped": True,
        "text": "1. Genre: Noir.\n2. Mood: Dark.",
        "factors": [("genre", "Noir."), ("mood", "Dark.")],
        "model": "m",
        "prompt_hash": content_hash("", "p1"),
        "hash": knowledge["hash"][0].as_py(),
        "event_timestamp": AS_OF,
        "created_timestamp": CREATED,
    }
    assert knowledge["channel"].to_pylist() == ["knowledge", "liked", "disliked"]
    assert knowledge["prompt_hash"].to_pylist()[2] is None
    assert len(set(knowledge["hash"].to_pylist())) == 3
    assert [tuple(row.values())[:4] for row in members.to_pylist()] == [
        ("item", "knowledge", "1", "7"),
        ("item", "knowledge", "2", "7"),
        ("user", "liked", "a", "7"),
        ("user", "disliked", "a", "8"),
    ]


def test_other_names_of_keys_and_whole_floats() -> None:
    maps = {("item", "knowledge"): pa.table({"sku": ["x"], "group_id": [7.0]})}
    _, members = import_groups(GROUPS, maps, **WHEN, keys={"item": "sku"})
    assert [(row["owner"], row["group"]) for row in members.to_pylist()] == [("x", "7")]


def with_group(**columns: Any) -> pa.Table:
    return pa.table({"kind": ["item"], "group_id": [7], "text": ["t"], **columns})


@pytest.mark.parametrize(
    ("knowledge", "says"),
    [
        (pa.table({"kind": ["item"]}), "no group_id, text among kind"),
        (with_group(kind=["movie"]), "of a known kind(.|\n)*movie(.|\n)*user_liked"),
        (with_group(text=[" "]), "has a text for every group(.|\n)*item 7"),
        (with_group(text=pa.array([None], pa.string())), "has a text for every group"),
        (with_group(group_id=pa.array([None], pa.int64())), "1 of 1 rows are null or NaN"),
        (with_group(group_id=[float("nan")]), "1 of 1 rows are null or NaN"),
        (with_group(group_id=[7.5]), "a whole number or a text(.|\n)*fractions"),
        (with_group(group_id=[[7]]), "a whole number or a text(.|\n)*list"),
        (with_group(group_id=[2.0**53]), "a whole number or a text(.|\n)*a float does not keep"),
        (pa.concat_tables([GROUPS, GROUPS.slice(0, 1)]), "unique(.|\n)*1 occur twice .*: item 7"),
        (with_group(group_id=[9]), "1 of 1 have none: 7(.|\n)*of kind 'item'"),
    ],
)
def test_group_knowledge_of_the_wrong_shape(knowledge: pa.Table, says: str) -> None:
    with pytest.raises(KnowledgeError, match=says):
        import_groups(knowledge, {("item", "knowledge"): ITEM_MAP}, **WHEN)


@pytest.mark.parametrize(
    ("slot", "table", "says"),
    [
        (("item", "liked"), ITEM_MAP, r"known kind and channel(.|\n)*\(item, liked\)"),
        (("item", "knowledge"), pa.table({"item_id": [1]}), "has the column knowledge_group_id or"),
        (("item", "knowledge"), pa.table({"id": [1], "group_id": [7]}), "has the column item_id"),
        (
            ("item", "knowledge"),
            pa.table({"item_id": [1, 1], "group_id": [7, 7]}),
            "item_id is unique(.|\n)*1 occur twice",
        ),
        (
            ("item", "knowledge"),
            pa.table({"item_id": [1, 2], "group_id": [7, None]}),
            "group_id has a value in every row(.|\n)*1 of 2(.|\n)*the mean stands in",
        ),
        (
            ("user", "liked"),
            pa.table({"user_id": [1, None], "group_id": [7, 7]}),
            "user_id has a value in every row",
        ),
        (
            ("user", "liked"),
            pa.table({"user_id": [1, 2, 3], "group_id": [7, 70, 71]}),
            "2 of 3 have none: 70, 71(.|\n)*of kind 'user_liked'",
        ),
    ],
)
def test_maps_of_the_wrong_shape(slot: tuple[str, str], table: pa.Table, says: str) -> None:
    with pytest.raises(KnowledgeError, match=says):
        import_groups(GROUPS, {slot: table}, **WHEN)


def test_all_faults_at_once() -> None:
    maps = {("item", "liked"): ITEM_MAP, ("user", "liked"): ITEM_MAP}
    with pytest.raises(KnowledgeError, match="3 problems") as caught:
        import_groups(with_group(text=[""]), maps, **WHEN)
    assert len(caught.value.problems) == 3


def test_no_maps() -> None:
    with pytest.raises(KnowledgeError, match="at least one map"):
        import_groups(GROUPS, {}, **WHEN)


def test_entities_with_a_text() -> None:
    table = pa.table({"sku": ["x", "y"], "text": ["Genre: Noir.", "Mood: dark\x00"]})
    found = import_entities(table, "item", "sku", **WHEN, factors=("genre", "mood"))
    assert found.schema == KNOWLEDGE
    assert found["owner"].to_pylist() == ["x", "y"]
    assert found["text"].to_pylist() == ["Genre: Noir.", "Mood: dark"]
    assert found["factors"].to_pylist() == [[("genre", "Noir.")], [("mood", "dark")]]
    assert found["grouped"].to_pylist() == [False, False]


def test_entities_with_a_column_per_factor() -> None:
    columns = {"id": [1, 2], "genre": ["Noir.", None], "factor_time_period": ["1940s", "1950s"]}
    found = import_entities(
        pa.table({**columns, "model": ["m", "m"]}),
        "item",
        "id",
        **WHEN,
        factors=("genre", "time period"),
    )
    assert found["text"].to_pylist() == ["genre: Noir.\ntime period: 1940s", "time period: 1950s"]
    assert found["factors"].to_pylist()[1] == [("time period", "1950s")]
    assert found["model"].to_pylist() == ["m", "m"]
    assert len(set(found["hash"].to_pylist())) == 2


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.table({"id": [1]}), "has a text(.|\n)*after the factors: genre"),
        (pa.table({"text": ["x"]}), "has the column id"),
        (pa.table({"id": [1, 1], "text": ["x", "y"]}), "id is unique"),
        (pa.table({"id": [1, None], "text": ["x", "y"]}), "id has a value in every row"),
        (pa.table({"id": [1, 2], "text": ["x", ""]}), "a text in every row(.|\n)*detail: 2"),
    ],
)
def test_entities_of_the_wrong_shape(table: pa.Table, says: str) -> None:
    with pytest.raises(KnowledgeError, match=says):
        import_entities(table, "item", "id", **WHEN, factors=("genre",))


def test_entities_of_an_unknown_channel() -> None:
    table = pa.table({"id": [1], "text": ["x"]})
    with pytest.raises(KnowledgeError, match="known kind and channel"):
        import_entities(table, "item", "id", **WHEN, channel="history")


def test_the_real_tables() -> None:
    root = os.environ.get("REKI_DATA") or Path(__file__).parents[3] / "shared" / "data"
    folder = Path(root) / "ml-1m-knowledge"
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}")
    users = pq.read_table(folder / "user_groups.parquet")
    maps = {
        ("item", "knowledge"): pq.read_table(folder / "item_groups.parquet"),
        ("user", "liked"): users,
        ("user", "disliked"): users,
    }
    factors = ("genre", "writing style", "theme", "setting", "time period", "critical acclaim")
    groups = pq.read_table(folder / "knowledge.parquet")
    knowledge, members = import_groups(groups, maps, **WHEN, factors=factors)
    assert (knowledge.num_rows, members.num_rows) == (377, 3706 + 2 * 6040)
    whole = [len(found or []) == len(factors) for found in knowledge["factors"].to_pylist()]
    assert sum(whole) > 250  # the rest tell of each film in turn, or merge factors
