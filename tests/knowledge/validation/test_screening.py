"""The gates for texts made elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast.knowledge import import_entities, screen
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.knowledge.validation.gates import AnswerRules
from reki_feast.knowledge.validation.screening import GATES
from reki_feast.schema import KNOWLEDGE, Kind
from tests.conftest import shared

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENGLISH = AnswerRules(language="English")
OWN = (
    "This viewer likes slow films by the sea, number {}, with long takes and quiet people who wait."
)


def texts(
    *said: str, grouped: bool = False, prompts: Sequence[str] | None = None, channel: str = "liked"
) -> pa.Table:
    rows = [
        {
            "kind": "user",
            "channel": channel,
            "owner": str(n),
            "grouped": grouped,
            "text": text,
            "factors": None,
            "prompt_hash": prompts[n] if prompts else None,
            "hash": "",
            "event_timestamp": NOW,
            "created_timestamp": NOW,
        }
        for n, text in enumerate(said)
    ]
    return pa.Table.from_pylist(rows, schema=KNOWLEDGE)


def gates(knowledge: pa.Table, limits: AnswerRules = ENGLISH) -> list[str]:
    return [verdict.gate for verdict in screen(knowledge, limits)]


@pytest.mark.parametrize(
    ("text", "gate", "fault"),
    [
        (OWN, "", ""),
        ("likes lamps", "", ""),
        ("2.", "length", "it has fewer than 3 characters"),
        ("1234.", "length", "it has no words"),
        ("- funny and light\n" * 40, "length", "it says the same words over and over"),
        ("I'm sorry, but I can't help with that.", "refusal", "it declines to answer"),
        ("It is not possible to determine a taste.", "refusal", "it declines to answer"),
        (
            "基于用户喜欢的电影，推断出以下信息：用户喜欢的类型是剧情片。",
            "language",
            "it is in Chinese, not in",
        ),
        ("word " * 3 + OWN * 200, "length", "over and over"),
        (" ".join(f"word{n}" for n in range(5000)), "", ""),
    ],
)
def test_a_text_by_itself(text: str, gate: str, fault: str) -> None:
    [verdict] = screen(texts(text), ENGLISH)
    assert verdict.gate == gate
    assert gate in ("", *GATES)
    assert fault in verdict.fault


def test_factors_keep_to_the_limits_of_answers() -> None:
    table = pa.table(
        {"user_id": [1, 2, 3], "genre": ["Noir.", "x" * 2001, "N"], "mood": ["Dark."] * 3}
    )
    factors = ["genre", "mood"]
    known = import_entities(table, "user", "user_id", factors=factors, times=Timestamps(NOW, NOW))
    assert gates(known) == ["", "length", "length"]
    assert gates(known, AnswerRules(longest=5000, shortest=1)) == ["", "", ""]


def test_no_language_no_gate() -> None:
    assert gates(
        texts("基于用户喜欢的电影，推断出以下信息：用户喜欢的类型是剧情片。"), AnswerRules()
    ) == [""]


@pytest.mark.parametrize(
    ("shares", "generic"),
    [
        ([521, 35, 35, 19, *[1] * 5571], {521}),  # one sentence stands out
        ([125, 45, 44, 33, 30, *[1] * 1400], set[int]()),  # users of one and the same click
        ([45] * 135, set[int]()),  # the texts of groups, once a member
        ([147, 120, 90, 60, 30, 3], set[int]()),
        ([9, *[1] * 100], set[int]()),  # too few
        ([50, *[1] * 9950], set[int]()),  # too small a share
        ([300, 290, *[1] * 5000], {300, 290}),
        ([300, 290, 100, *[1] * 5000], {300, 290, 100}),
        ([300, 290, 280, 100, *[1] * 5000], set[int]()),
        ([600], set[int]()),
    ],
)
def test_a_text_is_generic_where_it_stands_out(shares: list[int], generic: set[int]) -> None:
    said = [OWN.format(n) for n, count in enumerate(shares) for _ in range(count)]
    failed = Counter(text for text, gate in zip(said, gates(texts(*said)), strict=True) if gate)
    assert set(failed.values()) == generic
    assert set(gates(texts(*said), AnswerRules(duplicates=None))) == {""}


def test_a_generic_text_is_told_with_its_count() -> None:
    said = [OWN] * 80 + [OWN.format(n) for n in range(900)]
    verdict = screen(texts(*said), ENGLISH)[0]
    assert verdict.gate == "repeated"
    assert verdict.fault == "80 users share it word for word, so it says nothing of this one's own"


def test_answers_to_one_prompt_count_once() -> None:
    said = [OWN] * 80 + [OWN.format(n) for n in range(900)]
    same = ["h"] * 80 + [str(n) for n in range(900)]
    other = [f"h{n}" for n in range(80)] + [str(n) for n in range(900)]
    assert Counter(gates(texts(*said, prompts=same))) == {"": 980}
    assert Counter(gates(texts(*said, prompts=other))) == {"": 900, "repeated": 80}


def test_groups_may_not_say_the_same() -> None:
    said = [
        OWN * 2,
        "A taste for loud comedies, and for actors who fall down stairs. " * 3,
        OWN * 2,
    ]
    assert gates(texts(*said, grouped=True)) == ["", "", "duplicate"]
    assert gates(texts(*said, grouped=True, prompts=["a", "b", "a"])) == ["", "", ""]
    assert gates(texts(*said, grouped=True, prompts=["a", "b", "c"])) == ["", "", "duplicate"]
    assert gates(texts(*said)) == ["", "", ""]
    apart = pa.concat_tables(
        [texts(said[0], grouped=True, channel=c) for c in ("liked", "disliked")]
    )
    assert gates(apart) == ["", ""]


@pytest.mark.parametrize(
    ("file", "kind", "failed"),
    [
        ("dbbook/user_knowledge_llama3", "user", {"repeated": 521, "length": 7}),
        ("ml-1m-individual/user_knowledge_llama3", "user", {"length": 17, "language": 3}),
        ("ml-1m-individual/item_knowledge_gpt35", "item", {}),
        ("mind-reclm/user_knowledge_gpt", "user", {}),
        ("mind-reclm/item_knowledge_gpt", "item", {}),
    ],
)
def test_real_texts(file: str, kind: Kind, failed: dict[str, int]) -> None:
    """Open and closed models on users and items; loops, Chinese, one generic profile."""
    folder, name = file.split("/")
    table = pq.read_table(shared(folder) / f"{name}.parquet")
    known = import_entities(table, kind, f"{kind}_id", times=Timestamps(NOW, NOW))
    found = Counter(gate for gate in gates(known) if gate)
    assert found == failed
