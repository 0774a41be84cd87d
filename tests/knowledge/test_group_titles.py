"""Names of groups: distinctive, without repetition, the same each time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.knowledge.group_titles import group_titles

GROUPS = [
    "genre: slapstick, family comedy and animation.\ntheme: friendship, talking animals.",
    "genre: war, history and epic films.\ntheme: survival, sacrifice.",
    "genre: haunted houses, ghosts.\ntheme: fear, survival.",
]


def test_each_group_is_named_by_what_it_alone_tells() -> None:
    assert group_titles(GROUPS) == [
        "slapstick · family comedy · friendship",
        "war · history · epic films",
        "haunted houses · fear · ghosts",
    ]


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([], []),
        ([""], [""]),
        (["war, ghosts"], ["war · ghosts"]),
        (["", "war", ""], ["", "war", ""]),
        (["war, love", "war, hope"], ["love · war", "hope · war"]),
        (["the and of", "1. 2. 3."], ["", ""]),
        (["日本, 東京"], ["日本 · 東京"]),
    ],
)
def test_few_texts(texts: list[str], names: list[str]) -> None:
    assert group_titles(texts) == names


@pytest.mark.parametrize(("words", "name"), [(1, "war"), (2, "war · ghosts"), (9, "war · ghosts")])
def test_how_many_terms(words: int, name: str) -> None:
    assert group_titles(["war, ghosts"], words=words) == [name]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("family comedy, comedy, family", "family comedy"),
        ("comedies, comedy, comedies, war", "comedies · war"),
        ("romance, romantic, war", "romance · war"),
        ("a ghost, ghosts", "ghost"),
    ],
)
def test_no_term_is_repeated(text: str, name: str) -> None:
    assert group_titles([text]) == [name]


def test_words_to_ignore() -> None:
    text = "films of war, viewers, time periods, the film's pacing"
    assert group_titles([text], ignore=["film", "Viewer", "time period"]) == ["war · pacing"]


@pytest.mark.parametrize(
    "text",
    [
        "genre: ghosts",
        "1. Genre: ghosts",
        "- **Genre & Mood**: ghosts",
        "题材：ghosts",
        'ghosts, as in "Poltergeist" and “Alien”',
        "ghosts (Poltergeist, 1982)",
        "A range of various ghosts and the like",
    ],
)
def test_headings_quotations_and_fillers_are_no_terms(text: str) -> None:
    assert group_titles([text]) == ["ghosts"]


def test_pairs_do_not_run_over_stops() -> None:
    assert group_titles(["crime, drama; war and love"], words=4) == ["crime · drama · war · love"]


def test_lists_weigh_more_than_running_prose() -> None:
    told = "Moving pictures keep returning towards deception, revenge and jealousy."
    assert group_titles([told], words=2) == ["revenge · jealousy"]


def test_names_of_their_own_weigh_less() -> None:
    assert group_titles(["Poltergeist, ghosts"]) == ["ghosts · Poltergeist"]


def test_early_words_weigh_more_than_late_ones() -> None:
    assert group_titles(["alpha, " + "the " * 60 + ", beta"], words=1) == ["alpha"]
    assert group_titles(["beta, " + "the " * 60 + ", alpha"], words=1) == ["beta"]


def test_what_most_groups_tell_names_none_of_many() -> None:
    own = ["war", "love", "ghosts", "trains", "music", "sport", "crime", "space"]
    texts = [f"adventure, {word}" for word in own]
    assert group_titles(texts) == own
    assert group_titles(texts[:2]) == ["war · adventure", "love · adventure"]


def test_what_single_groups_of_very_many_tell_names_none() -> None:
    texts = [f"{'xyz'[n % 10 % 3] * (n + 5)}, {('war', 'love', 'crime')[n % 3]}" for n in range(70)]
    assert group_titles(texts)[:4] == ["war", "love", "crime", "war · xxxxxxxx"]
    assert group_titles(texts[:3]) == ["xxxxx · war", "yyyyyy · love", "zzzzzzz · crime"]


def test_names_are_written_as_the_texts_write_them() -> None:
    texts = ["Western, films set in New York. A western.", "Horror of New York, horror."]
    assert group_titles(texts, ignore=["film"]) == ["western · New York", "horror · New York"]


def test_names_differ_where_the_texts_do() -> None:
    assert group_titles(["war, love, crime, hope"] * 3, words=2) == [
        "war · love",
        "war · crime",
        "war · hope",
    ]
    assert group_titles(["war, love"] * 2) == ["war · love", "war · love"]


words = st.sampled_from([*"abcdefgh", "war films", "love", "loves", "lovely", "New York", "the"])
texts = st.lists(st.lists(words, max_size=8).map(", ".join), max_size=12)


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(1, 4))
def test_names_hold_to_their_rules(texts: list[str], words: int) -> None:
    names = group_titles(texts, words=words)
    assert names == group_titles(texts, words=words)
    assert len(names) == len(texts)
    for name, text in zip(names, texts, strict=True):
        terms = name.split(" · ") if name else []
        assert len(terms) <= words
        single = [word for term in terms for word in term.lower().split()]
        assert len({word[:5].removesuffix("s") for word in single}) == len(single)
        assert all(term.lower().rstrip("s") in text.lower() for term in terms)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200))
def test_any_text_gives_one_line(text: str) -> None:
    [name] = group_titles([text])
    assert len(name.splitlines()) <= 1
    assert not set(name) & set('<>"{}')


def test_scikit_learn_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, reki_feast.knowledge; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
