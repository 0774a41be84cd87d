"""Shingles, MinHash bands, and the memory of recent answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.knowledge.validation.near_duplicates import (
    MinHashBands,
    RecentAnswers,
    Shingles,
    jaccard,
    normalize_text,
    normalized_words,
    shingles,
)

WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=60)


def pair(rng: random.Random, limit: float, size: int = 300) -> tuple[Shingles, Shingles]:
    """Two sets whose Jaccard index is ``limit`` or just above."""
    differing = int((1 - limit) * size)
    shared = [f"s{rng.random()}" for _ in range(size - differing)]
    own = [f"o{rng.random()}" for _ in range(differing)]
    half = differing // 2
    return frozenset(shared + own[:half]), frozenset(shared + own[half:])


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Amélie", "amelie"),
        ("Ame\u0301lie", "amelie"),
        ("Søren Łukasz", "soren lukasz"),
        ("Don’t", "don't"),
        ("STRAẞE", "strasse"),
        ("Йод", "йод"),
        ("が 한국", "が 한국"),
        ("", ""),
    ],
)
def test_fold_text(text: str, folded: str) -> None:
    assert normalize_text(text) == folded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Alien 3, by D. Fincher", ["alien", "3", "by", "d", "fincher"]),
        ("七人の侍", ["七", "人", "の", "侍"]),
        ("snake_case", ["snake", "case"]),
        ("…!", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert normalized_words(text) == words


def test_shingles_of_few_words() -> None:
    assert shingles([]) == frozenset()
    assert shingles(["a", "b"]) == {"a b"}
    assert shingles(["a", "b", "c"]) == {"a b c"}


@given(WORDS, WORDS)
def test_jaccard_is_symmetric_and_bounded(a: list[str], b: list[str]) -> None:
    one, other = shingles(a), shingles(b)
    assert jaccard(one, other) == jaccard(other, one)
    assert 0 <= jaccard(one, other) <= 1
    assert jaccard(one, one) == (1 if one else 0)


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_texts_as_alike_as_the_limit_share_a_band(limit: float) -> None:
    rng, bands = random.Random(7), MinHashBands(limit)
    found = 0
    for _ in range(300):
        one, other = pair(rng, limit)
        assert jaccard(one, other) >= limit
        found += bool(set(bands.of("item", "k", one)) & set(bands.of("item", "k", other)))
    assert found >= 297


def test_texts_that_are_hardly_alike_share_none() -> None:
    rng, bands = random.Random(7), MinHashBands(0.95)
    pairs = [pair(rng, 0.2) for _ in range(300)]
    assert not any(set(bands.of("i", "k", a)) & set(bands.of("i", "k", b)) for a, b in pairs)


def test_bands_tell_kinds_channels_and_limits_apart() -> None:
    text = shingles(normalized_words("a text of seven words or so"))
    places = [
        ("item", "knowledge"),
        ("user", "knowledge"),
        ("user", "liked"),
        ("i", "temknowledge"),
    ]
    marks = [set(MinHashBands(0.95).of(*place, text)) for place in places]
    marks.append(set(MinHashBands(0.5).of("item", "knowledge", text)))
    assert len(set.union(*marks)) == sum(map(len, marks))


def test_bands_never_change() -> None:
    """They are stored: another hash would find no earlier answer."""
    bands = MinHashBands(0.95).of(
        "item", "knowledge", shingles(normalized_words("never change these marks"))
    )
    assert len(bands) == 16
    assert bands[:2] == (-2612459063487773608, -4274610587257474025)


@given(st.frozensets(st.text(max_size=20)))
def test_bands_fit_a_signed_64_bit_column(text: Shingles) -> None:
    bands = MinHashBands(0.95).of("item", "knowledge", text)
    assert bands == MinHashBands(0.95).of("item", "knowledge", text)
    assert all(-(2**63) <= band < 2**63 for band in bands)


def test_recent_answers_are_found_once_the_oldest_first() -> None:
    recent = RecentAnswers()
    recent.add("1", "one", (1, 2))
    recent.add("2", "two", (2, 3))
    assert list(recent.alike([2, 1, 3])) == [("1", "one"), ("2", "two")]
    assert list(recent.alike([3, 9])) == [("2", "two")]
    assert list(recent.alike([])) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40), st.integers(1, 5))
def test_only_the_last_answers_are_kept(added: list[tuple[int, int]], size: int) -> None:
    recent = RecentAnswers(size)
    for at, bands in enumerate(added):
        recent.add(str(at), "text", bands)
    kept = list(enumerate(added))[-size:]
    for band in range(6):
        expected = [(str(at), "text") for at, bands in kept if band in bands]
        assert list(recent.alike([band])) == expected
