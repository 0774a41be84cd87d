"""The tolerant reader of answers, and knowledge made of them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.errors import KnowledgeError
from reki_feast.extract import knowledge_from, parse_answer
from reki_feast.schema import KNOWLEDGE, PROMPTS, content_hash

FACTORS = ("genre", "Acting & cast", "time period")
WHOLE = {"genre": "Comedy.", "Acting & cast": "Jim Carrey.", "time period": "The 1990s."}
JSON = json.dumps(WHOLE)

SAYS_ALL = {
    "plain": JSON,
    "indented": json.dumps(WHOLE, indent=2),
    "fenced": f"```json\n{JSON}\n```",
    "fenced without a language": f"```\n{JSON}```",
    "prose around": f"Of course! Here is {{the}} answer:\n{JSON}\nI hope that helps :-}}",
    "thoughts before": f'<think>maybe {{"genre": "Drama."}}?</think>\n{JSON}',
    "a draft before": f'Draft: {{"genre": "Drama."}}\nFinal: {JSON}',
    "trailing commas": JSON[:-1] + ",}",
    "a comma before a brace within a text": JSON,
    "keys in another case": JSON.replace("genre", "GENRE"),
    "keys as columns": JSON.replace("Acting & cast", "acting_cast").replace("e p", "e_p"),
    "keys in camel case": JSON.replace("time period", "timePeriod"),
    "keys in the plural": JSON.replace("genre", "Genres").replace("time period", "Time periods"),
    "& spelt out": JSON.replace("&", "and"),
    "one level down": json.dumps({"answer": WHOLE}),
    "a list of one": json.dumps([WHOLE]),
    "a list of records": json.dumps([{"factor": k, "reasoning": v} for k, v in WHOLE.items()]),
    "an object a line": "\n".join(json.dumps({k: v}) for k, v in WHOLE.items()),
    "lists": json.dumps({k: [v] for k, v in WHOLE.items()}),
    "line breaks within texts": JSON.replace("Jim Carrey", "Jim\\n  Carrey"),
    "raw line breaks within texts": JSON.replace("Jim Carrey", "Jim\n\tCarrey"),
    "cut off after the last text": JSON[:-1],
    "numbered": "1. Genre: Comedy.\n2. Acting & Cast: Jim Carrey.\n3. Time Period: The 1990s.",
    "numbered and bold": "Sure:\n\n1. **Genre:** Comedy.\n\n2. **Acting and cast**: Jim Carrey."
    "\n\n3) __Time period__ - The 1990s.\n\nOverall, a film.",
    "bulleted": "- genre: Comedy.\n* Acting & cast: Jim\n  Carrey.\n• time period – The 1990s.",
    "headings": "## Genre\nComedy.\n\n## Acting & cast\nJim Carrey.\n\n### Time period\nThe 1990s.",
    "full-width colons": "genre：Comedy.\nActing & cast：Jim Carrey.\ntime period：The 1990s.",
    "a dict of Python": f"So: {WHOLE!r}.",
    "a dict of Python over lines": str(WHOLE).replace(", '", ",\n '"),
    "curly quotes": re.sub('"(.*?)"', "“\\1”", JSON),
    "another point between": "1. Genre: Comedy.\n2. Plot: A lawyer cannot lie.\n"
    "3. Acting & cast: Jim Carrey.\n4. Time period: The 1990s.",
}


@pytest.mark.parametrize("text", SAYS_ALL.values(), ids=SAYS_ALL.keys())
def test_the_whole_is_found(text: str) -> None:
    found = parse_answer(text, FACTORS)
    assert found == WHOLE
    assert list(found) == list(FACTORS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"genre": "A, B,}"}', {"genre": "A, B,}"}),
        ('{"genre": ["A", "B", null]}', {"genre": "A; B"}),
        ('{"genre": {"main": "A", "also": ["B"]}}', {"genre": "main: A; also: B"}),
        ('{"genre": 7, "time period": true}', {"genre": "7", "time period": "yes"}),
        ('{"genre": "", "time period": null}', {}),
        ('{"genre": "He said "hi" there", "x": "y"}', {"genre": 'He said "hi" there'}),
        ('{"genre": "A", "genre_": "B"}', {"genre": "A"}),
        ('{"genre": "\\u0000A\\u202eB\\ud800"}', {"genre": "AB"}),
        ("Genre/Time period: old comedies", dict.fromkeys(FACTORS[::2], "old comedies")),
        ("1. Genre: A\n\nIn sum, a good film.", {"genre": "A"}),
        ("", {}),
        ("no idea", {}),
        ("{}", {}),
        ("{" * 5000, {}),
        ("[" * 100_000, {}),
        ('{"a":' * 3000, {}),
        ('"' * 5000, {}),
        ("{}" * 100_000 + JSON, {}),  # beyond what is read
    ],
)
def test_parts_and_traps(text: str, found: dict[str, str]) -> None:
    assert parse_answer(text, FACTORS) == found


@pytest.mark.parametrize(
    "factors",
    [
        ("price (absolute)", "price (relative)"),
        ("theme", "themes"),
        ("mood (of the film)", "mood"),
    ],
)
@pytest.mark.parametrize("respell", [str, str.upper, lambda name: name.replace(" ", "_")])
def test_factors_that_are_nearly_the_same_are_told_apart(
    factors: tuple[str, ...], respell: Callable[[str], str]
) -> None:
    said = dict(zip(factors, ("A.", "B."), strict=True))
    text = json.dumps({respell(name): part for name, part in said.items()})
    assert parse_answer(text, factors) == said
    assert parse_answer("\n".join(f"- {n}: {part}" for n, part in said.items()), factors) == said


def test_what_may_mean_either_is_taken_for_neither() -> None:
    assert parse_answer('{"price": "A."}', ("price (absolute)", "price (relative)")) == {}


STUCK = {
    "brackets in a key": '{"' + "(" * 60_000 + '":"x"}',
    "keys without an end": '"a":"x' * 20_000,
    "escaped quotes": '"\\' * 60_000,
    "marks after a name": "genre" + "_" * 100_000,
    "spaces after a name": "genre" + " " * 100_000 + "x",
    "brackets in a line": "(" * 100_000 + ": x",
}


@pytest.mark.parametrize("text", STUCK.values(), ids=STUCK.keys())
def test_stuck_answers_take_no_time(text: str) -> None:
    start = time.perf_counter()
    assert parse_answer(text, FACTORS) == {}
    assert time.perf_counter() - start < 2


def test_no_factors_no_parts() -> None:
    assert parse_answer(JSON, ()) == {}


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(WORDS, min_size=3, max_size=3), st.sampled_from(["{}", "```json\n{}\n```", "So: {}"])
)
def test_any_text_comes_back(texts: list[str], frame: str) -> None:
    said = dict(zip(FACTORS, texts, strict=True))
    assert parse_answer(frame.replace("{}", json.dumps(said)), FACTORS) == said


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(alphabet='{}[]":,\n genre1.*\\'))
def test_no_text_breaks_it(text: str) -> None:
    found = parse_answer(text, FACTORS)
    assert set(found) <= set(FACTORS)
    for said in found.values():
        assert said.strip()
        said.encode()


# --- knowledge ------------------------------------------------------------------------------

AS_OF = datetime(2026, 1, 1, tzinfo=timezone.utc)
CREATED = datetime(2026, 5, 1, tzinfo=timezone.utc)


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
    assert [(fault.rule, fault.found) for fault in faults] == [
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
