"""Which text says something about an entity: its own before its group's."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from reki_feast import schema
from reki_feast.knowledge.by_entity import changed_rows, channels, entity_ids, entity_table, texts
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.schema import Key

T0 = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("reader", pa.int64())


def row(channel: str, owner: str, text: str, *, grouped: bool, **factors: str) -> dict[str, object]:
    return {
        "kind": "user",
        "channel": channel,
        "owner": owner,
        "grouped": grouped,
        "text": text,
        "factors": list(factors.items()),
        "model": "m",
        "prompt_hash": f"p-{text}",
        "hash": f"h-{text}",
        "event_timestamp": T0,
        "created_timestamp": T0,
    }


def knowledge(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema.KNOWLEDGE)


def members(*triples: tuple[str, str, str]) -> pa.Table:
    names = ("channel", "owner", "group")
    rows = [dict(zip(names, triple, strict=True)) for triple in triples]
    whole = [
        {"kind": "user", "event_timestamp": T0, "created_timestamp": T0, **found} for found in rows
    ]
    return pa.Table.from_pylist(whole, schema=schema.MEMBERS)


LIKED = knowledge(
    row("liked", "g1", "likes noir", grouped=True, genre="noir"),
    row("disliked", "g1", "dislikes slapstick", grouped=True),
    row("liked", "7", "likes heists", grouped=False, genre="heist"),
)
GROUPS = members(
    ("liked", "7", "g1"), ("liked", "8", "g1"), ("disliked", "8", "g1"), ("disliked", "9", "g1")
)


def test_channels_come_in_the_order_of_the_schema() -> None:
    assert channels(LIKED, "user") == ["liked", "disliked"]
    assert channels(LIKED, "item") == []


def test_owners_are_those_with_knowledge_of_their_own_or_a_groups() -> None:
    assert sorted(entity_ids(LIKED, GROUPS, "user").to_pylist()) == ["7", "8", "9"]


def test_own_knowledge_goes_before_the_groups() -> None:
    found = texts(LIKED, GROUPS, "user", "liked", pa.array(["9", "8", "7", "unknown"]))
    assert found == [None, "likes noir", "likes heists", None]


def test_a_group_named_like_an_entity_is_not_that_entity() -> None:
    table = knowledge(row("liked", "7", "of group 7", grouped=True))
    assert texts(table, members(("liked", "1", "7")), "user", "liked", pa.array(["7", "1"])) == [
        None,
        "of group 7",
    ]


def served(table: pa.Table, groups: pa.Table) -> dict[int, dict[str, object]]:
    made = entity_table(
        table, groups, kind="user", key=KEY, factors=["genre"], times=Timestamps(T0, T0)
    )
    assert made.schema == schema.entity_knowledge(KEY, ["genre"])
    return {found["reader"]: found for found in made.to_pylist()}


def test_several_channels_stand_under_their_names() -> None:
    rows = served(LIKED, GROUPS)
    assert rows[8]["text"] == "Liked:\nlikes noir\n\nDisliked:\ndislikes slapstick"
    assert rows[8]["group"] == "liked:g1, disliked:g1"
    assert (rows[7]["factor_genre"], rows[7]["group"]) == ("Liked:\nheist", None)
    assert rows[9]["factor_genre"] is None


def test_one_channel_stands_alone() -> None:
    rows = served(knowledge(row("knowledge", "7", "a", grouped=False, genre="b")), members())
    assert (rows[7]["text"], rows[7]["factor_genre"], rows[7]["model"]) == ("a", "b", "m")


def test_no_knowledge_gives_an_empty_table() -> None:
    assert served(knowledge(), members()) == {}


def test_only_changed_rows_are_kept() -> None:
    old = pa.table({"id": [1, 2], "hash": ["a", "b"]})
    new = pa.table({"id": [1, 2, 3], "hash": ["a", "x", "c"]})
    assert changed_rows(new, old, ["id"])["id"].to_pylist() == [2, 3]
    assert changed_rows(new, old.slice(0, 0), ["id"]) is new


def test_rows_are_compared_by_all_keys() -> None:
    old = pa.table({"id": [1], "at": [5], "hash": ["a"]})
    new = pa.table({"id": [1, 1], "at": [5, 6], "hash": ["a", "a"]})
    assert changed_rows(new, old, ["id", "at"])["at"].to_pylist() == [6]


@pytest.mark.parametrize("block", [1, 2])
def test_rows_put_together_block_by_block_are_the_same(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    whole = served(LIKED, GROUPS)
    monkeypatch.setattr("reki_feast.knowledge.by_entity._ROWS", block)
    assert served(LIKED, GROUPS) == whole
