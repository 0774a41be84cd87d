"""The tolerant reader of answers: all forms that models write, cut anywhere."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.knowledge import parse_answer
from reki_feast.knowledge.factors.merging import parse_factors

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
    start = time.thread_time()
    assert parse_answer(text, FACTORS) == {}
    assert time.thread_time() - start < 2


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


# --- cut off --------------------------------------------------------------------------------

TRICKY = {
    "genre": 'Noir, long and "dark": a {film}, [sic].',
    "Acting & cast": 'He said "yes", then left\\; "no".',
    "time period": "The 1990s; réalisé à Paris — “soon”.",
}
CUT = {
    "plain": json.dumps(TRICKY),
    "not escaped": json.dumps(TRICKY, ensure_ascii=False),
    "indented": json.dumps(TRICKY, indent=2),
    "fenced": f"```json\n{json.dumps(TRICKY, indent=1)}\n```",
    "prose around": f"Here is {{the}} answer:\n{json.dumps(TRICKY)}\nBye",
    "compact": json.dumps(TRICKY, separators=(",", ":")),
    "one level down": json.dumps({"answer": TRICKY}),
    "records": json.dumps([{"factor": name, "text": text} for name, text in TRICKY.items()]),
    "an object a line": "\n".join(json.dumps({name: text}) for name, text in TRICKY.items()),
    "a dict of Python": repr({"genre": "Noir, dark.", "time period": "It's the 1990s, mostly."}),
    "curly quotes": re.sub('"(.*?)"', "“\\1”", JSON),
}


@pytest.mark.parametrize("text", CUT.values(), ids=CUT.keys())
def test_an_answer_cut_anywhere_gives_whole_texts_alone(text: str) -> None:
    whole = parse_answer(text, FACTORS)
    assert len(whole) >= 2
    counts = []
    for length in range(len(text)):
        found = parse_answer(text[:length], FACTORS)
        assert found.items() <= whole.items()
        counts.append(len(found))
    assert sorted(counts) == counts
    assert set(range(len(whole))) <= set(counts)


def test_a_list_cut_anywhere_gives_whole_entries_alone() -> None:
    text = json.dumps({"genre": ["Noir", 'a "dark", wet film', "[sic]"], "time period": "now"})
    found = {parse_answer(text[:length], FACTORS).get("genre") for length in range(len(text))}
    entries = ("Noir", 'a "dark", wet film', "[sic]")
    assert found == {None, *("; ".join(entries[:n]) for n in (1, 2, 3))}


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.text("ab\"'{}[]:,\\\n é“", min_size=1), min_size=3, max_size=3),
    st.sampled_from([None, 1]),
    st.data(),
)
def test_no_text_is_invented(texts: list[str], indent: int | None, data: st.DataObject) -> None:
    said = dict(zip(FACTORS, texts, strict=True))
    text = json.dumps(said, indent=indent)
    cut = text[: data.draw(st.integers(0, len(text)))]
    assert parse_answer(cut, FACTORS).items() <= parse_answer(text, FACTORS).items()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"genre": "Noir, long and', {}),
        ('{"genre": "Noir", "time period": "the', {"genre": "Noir"}),
        ('{"genre": "Noir", "time peri', {"genre": "Noir"}),
        ('{"genre": "Noir", "time period": 199', {"genre": "Noir"}),
        ('{"genre": "He said \\"', {}),
        ('"genre": "Noir, long and', {}),
        ('genre: "Noir, long and', {}),
        ("{'genre': 'Noir', 'time period': 'the", {"genre": "Noir"}),
        (
            'genre: "Noir"\ntime period: ["now", "then"]',
            {"genre": "Noir", "time period": "now; then"},
        ),
        ('genre: "Alien" is horror.', {"genre": '"Alien" is horror.'}),
        ('{"genre": "Noir" "time period": "now"}', {"genre": "Noir", "time period": "now"}),
        ('{"genre": "Likes "A", and "B" too", "x": "y"}', {"genre": 'Likes "A", and "B" too'}),
    ],
)
def test_no_debris_is_kept(text: str, found: dict[str, str]) -> None:
    assert parse_answer(text, FACTORS) == found


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"factors": ["Genre", "Cast", "Mood"]}),
        json.dumps({"factors": [{"name": n, "why": "it, too"} for n in ("Genre", "Cast", "Mood")]}),
        json.dumps(dict.fromkeys(("Genre", "Cast", "Mood"), "it decides")),
    ],
)
def test_a_list_of_factors_cut_anywhere_names_no_other(text: str) -> None:
    names = ["Genre", "Cast", "Mood"]
    found = [parse_factors(text[:length]) for length in range(len(text) + 1)]
    assert all(one == names[: len(one)] for one in found)
    assert {len(one) for one in found} == {0, 1, 2, 3}
