"""Knowledge made of answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from reki_feast.errors import KnowledgeError
from reki_feast.knowledge import knowledge_from
from reki_feast.schema import KNOWLEDGE, PROMPTS, content_hash

FACTORS = ("genre", "Acting & cast", "time period")
WHOLE = {"genre": "Comedy.", "Acting & cast": "Jim Carrey.", "time period": "The 1990s."}
JSON = json.dumps(WHOLE)
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
CREATED = datetime(2026, 5, 1, tzinfo=UTC)


def prompts(*hashes: str, factors: tuple[str, ...] = FACTORS) -> pa.Table:
    rows = [
        {
            "kind": "user",
            "channel": "knowledge",
            "owner": f"u{n}",
            "grouped": False,
            "system": "s",
            "prompt": "p",
            "factors": factors,
            "prompt_hash": prompt_hash,
            "event_timestamp": AS_OF,
        }
        for n, prompt_hash in enumerate(hashes)
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def answers(**texts: str) -> pa.Table:
    columns = {
        "prompt_hash": list(texts),
        "text": list(texts.values()),
        "model": ["m"] * len(texts),
    }
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def test_knowledge_of_an_answer() -> None:
    table, faults = knowledge_from(prompts("h1"), answers(h1=JSON), created=CREATED)
    assert faults == []
    assert table.schema == KNOWLEDGE
    assert table.to_pylist() == [
        {
            "kind": "user",
            "channel": "knowledge",
            "owner": "u0",
            "grouped": False,
            "text": "genre: Comedy.\nActing & cast: Jim Carrey.\ntime period: The 1990s.",
            "factors": list(WHOLE.items()),
            "model": "m",
            "prompt_hash": "h1",
            "hash": content_hash("h1", "m", JSON),
            "event_timestamp": AS_OF,
            "created_timestamp": CREATED,
        }
    ]


def test_one_answer_serves_all_who_asked_the_same() -> None:
    table, _ = knowledge_from(prompts("h1", "h1"), answers(h1=JSON), created=CREATED)
    assert table["owner"].to_pylist() == ["u0", "u1"]


def test_what_is_lost_is_told() -> None:
    some = answers(h1=JSON, h2="no idea", h3='{"genre": "A"}')
    table, faults = knowledge_from(prompts("h0", "h1", "h2", "h3"), some, created=CREATED)
    assert table["owner"].to_pylist() == ["u1", "u3"]
    assert [(fault.problem, fault.detail) for fault in faults] == [
        ("every prompt has an answer", "1 of 4 do not: user u0"),
        (
            "every answer can be read as a JSON object with a key per factor",
            "1 of 4 do not: user u2",
        ),
        ("every answer covers every factor", "1 of 4 do not: user u3"),
    ]


def test_without_factors_the_text_is_kept() -> None:
    some = answers(h0=" They like\x00 old films.\n\n And new ones. ")
    table, faults = knowledge_from(prompts("h0", factors=()), some, created=CREATED)
    assert faults == []
    assert table["text"].to_pylist() == ["They like old films.\nAnd new ones."]
    assert table["factors"].to_pylist() == [None]


def test_no_prompts() -> None:
    table, faults = knowledge_from(prompts(), answers(), created=CREATED)
    assert (table.num_rows, table.schema, faults) == (0, KNOWLEDGE, [])


def test_answers_of_the_wrong_shape() -> None:
    with pytest.raises(KnowledgeError, match="no text, model"):
        knowledge_from(prompts("h"), pa.table({"prompt_hash": ["h"]}), created=CREATED)
