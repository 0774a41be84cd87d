"""The simulated viewers: hidden tastes, and the films they watch and rate because of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from .films import Film

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: First and last moment of an interaction.
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
LAST = datetime(2026, 9, 30, tzinfo=UTC)

#: Share of each field in the variance of taste. Most of it is what the catalogue's columns do not
#: say, so that knowledge can help.
_TASTE = {
    "mood": 0.80,
    "theme": 0.12,
    "setting": 0.05,
    "genre": 0.01,
    "director": 0.01,
    "era": 0.01,
}
#: How many values of the other fields a viewer likes and dislikes, each for itself.
_SINGLE = {"genre": (2, 1), "director": (4, 2), "era": (2, 1)}
#: Tags that please the same people: of these fields a viewer likes one family, dislikes another.
_FAMILIES = {
    "mood": (
        ("bleak", "brooding", "eerie", "harrowing", "tense"),
        ("exuberant", "hopeful", "playful", "warm"),
        ("dreamlike", "meditative", "romantic", "tender", "wistful"),
        ("feverish", "majestic", "stylish", "thrilling"),
        ("darkly comic", "satirical"),
    ),
    "theme": (
        ("ageing", "family bonds", "first love", "friendship", "growing up", "marriage"),
        ("grief", "loneliness", "lost love", "memory"),
        ("ambition", "class divide", "corruption", "justice", "power", "prejudice"),
        ("betrayal", "deception", "revenge", "surveillance", "the big score"),
        ("art and performance", "guilt", "identity", "madness", "obsession"),
        ("cost of war", "courage", "nature", "sacrifice", "survival"),
        ("faith", "fate", "freedom", "technology"),
    ),
    "setting": (
        ("big city", "show business", "workplace"),
        ("countryside", "school", "single house", "small town", "suburb"),
        ("dystopian future", "imaginary kingdom", "outer space"),
        ("at sea", "desert", "open road", "snowbound winter", "wilderness"),
        ("battlefield", "gangland", "prison", "royal court"),
    ),
}
#: Standard deviations beside taste's, which is 1.
_QUALITY, _BIAS, _NOISE = 0.25, 0.2, 0.6
#: Utilities from which a film gets two, three, four and five stars.
_STARS = (-1.5, -0.7, 0.15, 1.15)
#: How strongly liking (in standard deviations of taste) pulls a viewer to a film.
_PULL = 0.35
_FEWEST, _MOST = 8, 140

_OCCUPATIONS = (
    *("accountant", "architect", "baker", "carpenter", "cook", "doctor", "driver", "electrician"),
    *("engineer", "farmer", "lawyer", "librarian", "musician", "nurse", "programmer", "retired"),
    *("sales assistant", "scientist", "student", "teacher"),
)
_REGIONS = (
    *("Central Europe", "Eastern Europe", "Northern Europe", "Southern Europe", "Western Europe"),
    *("East Asia", "South Asia", "Middle East", "North Africa", "West Africa"),
    *("North America", "Central America", "South America", "Oceania"),
)


@dataclass(frozen=True)
class People:
    """What is known of the viewers, an entry each: age in years, occupation, region."""

    age: Ints
    occupation: list[str]
    region: list[str]


@dataclass(frozen=True)
class Watched:
    """The interactions, an entry each, sorted by time.

    Attributes:
        viewer: position of the viewer, from 0.
        film: position of the film, from 0.
        rating: stars, 1 to 5.
        second: seconds since the Unix epoch.
    """

    viewer: Ints
    film: Ints
    rating: Ints
    second: Ints


def draw_people(seed: int, viewers: int) -> People:
    """Ages from 16 to 80, occupations and regions; only age has to do with taste."""
    rng = np.random.default_rng([seed, 1])
    age = np.clip(rng.gamma(6.0, 6.5, viewers), 16, 80).astype(np.int64)
    work = np.array(_OCCUPATIONS)[rng.integers(len(_OCCUPATIONS), size=viewers)]
    work = np.where(age >= 67, "retired", np.where(age <= 21, "student", work))
    region = np.array(_REGIONS)[rng.integers(len(_REGIONS), size=viewers)]
    return People(age, work.tolist(), region.tolist())


def draw_taste(seed: int, people: People, films: tuple[Film, ...]) -> Floats:
    """Hidden taste, [viewers, films], for each viewer with mean 0 and standard deviation 1.

    It sums up the weights of what a film has: of each field a viewer likes and dislikes a family
    of values (``_FAMILIES``) or a few (``_SINGLE``). Age favours the films of one's youth.
    """
    rng = np.random.default_rng([seed, 2])
    age = people.age[:, None]
    years = np.array([[film.year for film in films]])
    youth: Floats = np.exp(-(((years - (2026 - age + 20)) / 12.0) ** 2))
    taste = 0.2 * youth
    for field, share in _TASTE.items():
        names = sorted({name for film in films for name in _values(film, field)})
        has = _indicators([_values(film, field) for film in films], names)
        if field in _FAMILIES:
            kin = _indicators(_FAMILIES[field], names)
            weights = _weights(rng, np.ones(len(kin)), len(age), 1, 1) @ kin
        else:
            weights = _weights(rng, has.sum(axis=0), len(age), *_SINGLE[field])
        taste += np.sqrt(share) * _standard(weights @ has.T)
    return _standard(taste)


def draw_affinity(seed: int, taste: Floats) -> Floats:
    """How much each viewer would like each film, [viewers, films], before the noise of a day."""
    rng = np.random.default_rng([seed, 3])
    viewers, films = taste.shape
    quality = rng.normal(0.0, _QUALITY, (1, films))
    bias = rng.normal(0.0, _BIAS, (viewers, 1))
    return taste + quality + bias


def draw_watched(seed: int, taste: Floats, affinity: Floats) -> Watched:
    """Who watches what and when, and the stars given.

    Films are drawn without repetition by popularity and a mild pull of taste (Gumbel top-k); the
    rating is affinity plus noise, cut into stars.
    """
    rng = np.random.default_rng([seed, 4])
    viewers, films = taste.shape
    count = np.clip(rng.lognormal(4.5, 0.6, viewers), _FEWEST, min(_MOST, films)).astype(np.int64)
    fame = rng.normal(0.0, 0.9, (1, films))
    pull = fame + _PULL * taste + rng.gumbel(size=taste.shape)
    rank = np.argsort(np.argsort(-pull, axis=1), axis=1)
    viewer, film = np.nonzero(rank < count[:, None])
    utility = affinity[viewer, film] + rng.normal(0.0, _NOISE, len(viewer))
    second = _moments(rng, viewers, viewer)
    order = np.lexsort((film, viewer, second))
    rating = np.digitize(utility, _STARS) + 1
    return Watched(viewer[order], film[order], rating[order], second[order])


def _moments(rng: np.random.Generator, viewers: int, viewer: Ints) -> Ints:
    """When: evenly from a viewer's first day to the end. Most join early, a few in 2026."""
    first, last = FIRST.timestamp(), LAST.timestamp()
    early = rng.random(viewers) < 0.7
    joined = np.where(early, rng.uniform(0.0, 0.1, viewers), rng.uniform(0.0, 0.75, viewers))
    at = joined[viewer] + (1 - joined[viewer]) * rng.random(len(viewer))
    return (first + (last - first) * at).astype(np.int64)


def _values(film: Film, field: str) -> tuple[str, ...]:
    if field == "era":
        return (f"{max(1950, film.year // 10 * 10)}s",)
    return film.values(field)


def _indicators(values: Sequence[tuple[str, ...]], names: list[str]) -> Floats:
    """Which row has which name, [rows, names], as 0 and 1."""
    return np.array([[float(name in row) for name in names] for row in values])


def _weights(
    rng: np.random.Generator, films: Floats, viewers: int, liked: int, disliked: int
) -> Floats:
    """Sparse weights, [viewers, values]: some positive, some negative, the others 0."""
    shape = (viewers, len(films))
    # Gumbel top-k: a value as likely as the root of its films, lest tastes concern rarities.
    drawn = 0.5 * np.log(films) + rng.gumbel(size=shape)
    rank = np.argsort(np.argsort(-drawn, axis=1), axis=1)
    sign = np.where(rank < liked, 1.0, np.where(rank < liked + disliked, -1.0, 0.0))
    weights: Floats = sign * rng.uniform(0.6, 1.4, shape)
    return weights


def _standard(rows: Floats) -> Floats:
    """Each row with mean 0 and standard deviation 1; constant rows become 0."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    result: Floats = centred / np.where(spread > 0, spread, 1.0)
    return result
