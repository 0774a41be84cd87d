"""Answers about viewers, written by rule from what they watched and rated.

They stand in for a language model's answers in a demo: no model wrote them. A rule finds, for each
factor, the values (moods, themes, directors, ...) whose films the viewer rated highest and lowest
against the viewer's own mean, and names the films as evidence. Nothing but the visible history
goes in: neither the hidden tastes nor later interactions are known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from .films import FACTORS, Film
from .glosses import GLOSSES

#: How many of the last interactions an answer rests on.
HISTORY = 30
#: Ratings of 0 against the mean that each value starts with, lest one film decides.
_PRIOR = 2.0
#: A value counts as liked or disliked from this many stars above or below the mean.
_ENOUGH = 0.2
#: At most so many values are named as liked and as disliked: mostly likes, since a sentence encoder
#: hardly tells one from the other.
_LIKED, _DISLIKED = 4, 1

_STARS = ("no stars", "one star", "two stars", "three stars", "four stars", "five stars")

_KINDS = {
    "genre": "{values} films",
    "theme": "stories about {values}",
    "mood": "{values} films",
    "director": "films by {values}",
    "cast": "films with {values}",
    "setting": "films set {values}",
}
#: Tags that read better in a sentence with something before them.
_IN_WORDS = {
    "class divide": "the class divide",
    "cost of war": "the cost of war",
    **dict.fromkeys(("big city", "small town", "suburb", "prison", "school"), "in a {}"),
    **dict.fromkeys(("royal court", "workplace", "single house"), "in a {}"),
    "countryside": "in the {}",
    "desert": "in the {}",
    "wilderness": "in the {}",
    "battlefield": "on a {}",
    "open road": "on the {}",
    "imaginary kingdom": "in an {}",
    "dystopian future": "in a {}",
    "snowbound winter": "in a {}",
    **dict.fromkeys(("outer space", "gangland", "show business"), "in {}"),
    "Sci-Fi": "science-fiction",
}
_LIKES = (
    "Likes {kind}{gloss}.",
    "Seeks out {kind}{gloss}.",
    "Is drawn to {kind}{gloss}.",
    "Most enjoys {kind}{gloss}.",
    "Responds warmly to {kind}{gloss}.",
    "Feels at home with {kind}{gloss}.",
)
_EVIDENCE = (
    "Gave {evidence}.",
    "The ratings say so: {evidence}.",
    "Proof: {evidence}.",
    "Witness {evidence}.",
)
_DISLIKES = (
    "Less taken with {kind}: {evidence}.",
    "Cooler towards {kind}: {evidence}.",
    "Has little patience for {kind}: {evidence}.",
    "Left cold by {kind}: {evidence}.",
)
_NEITHER = (
    "No {factor} stands out among {count} rated so far; the best liked was {evidence}.",
    "The {factor} hardly seems to matter yet, after {count}; {evidence} came out on top.",
    "Too little to tell a favourite {factor} from {count}; so far {evidence} pleased most.",
)


@dataclass(frozen=True)
class Seen:
    """A film that a viewer rated with 1 to 5 stars."""

    film: Film
    rating: int


@dataclass(frozen=True)
class _Value:
    """A factor's value, how many stars it is above the mean, and the films that have it."""

    name: str
    score: float
    seen: list[Seen]
    mean: float

    def telling(self) -> list[Seen]:
        """The films on the value's own side of the mean, the clearest first."""
        same = [seen for seen in self.seen if (seen.rating - self.mean) * self.score > 0]
        return sorted(same, key=lambda seen: -abs(seen.rating - self.mean))


def compose_answer(history: Sequence[Seen]) -> dict[str, str]:
    """One text for each factor about a viewer, from the viewer's visible history alone.

    Args:
        history: what was seen before the as-of time, oldest first; the last ``HISTORY`` count.

    Raises:
        ValueError: the history is empty.
    """
    if not history:
        raise ValueError("cannot describe a viewer who has seen nothing")
    recent = history[-HISTORY:]
    return {factor: _describe(factor, recent) for factor in FACTORS}


def _describe(factor: str, history: Sequence[Seen]) -> str:
    ranked = _rank(factor, history)
    liked = [value for value in ranked if value.score >= _ENOUGH][:_LIKED]
    disliked = [value for value in reversed(ranked) if value.score <= -_ENOUGH][:_DISLIKED]
    sentences = []
    if liked:
        evidence = _evidence(liked[:2])
        sentences.append(_sentence(_LIKES, factor, liked, evidence))
        sentences.append(pick(_EVIDENCE, factor + evidence).format(evidence=evidence))
    if disliked:
        sentences.append(_sentence(_DISLIKES, factor, disliked, _evidence(disliked[:1])))
    return " ".join(sentences) or _no_favourite(factor, history)


def _rank(factor: str, history: Sequence[Seen]) -> list[_Value]:
    """The values of a factor, the best liked first; among equals the one seen last."""
    mean = sum(seen.rating for seen in history) / len(history)
    groups: dict[str, list[Seen]] = {}
    for seen in reversed(history):
        for name in seen.film.values(factor):
            groups.setdefault(name, []).append(seen)
    values = [
        _Value(name, sum(s.rating - mean for s in seen) / (len(seen) + _PRIOR), seen, mean)
        for name, seen in groups.items()
    ]
    return sorted(values, key=lambda value: -value.score)


def _sentence(forms: Sequence[str], factor: str, values: list[_Value], evidence: str) -> str:
    names = [value.name for value in values]
    kind, gloss = kind_of(factor, names), gloss_of(names)
    return pick(forms, factor + _in_words(names)).format(kind=kind, gloss=gloss, evidence=evidence)


def kind_of(factor: str, names: Sequence[str]) -> str:
    """Films that have these values of a factor, in words.

    >>> kind_of("setting", ["big city", "at sea"])
    'films set in a big city and at sea'
    """
    values = _in_words(names)
    return _KINDS[factor].format(values=values.lower() if factor == "genre" else values)


def gloss_of(names: Sequence[str]) -> str:
    """What these values mean, after a colon; empty where none needs explaining.

    >>> gloss_of(["revenge", "Ang Lee"])
    ': a wrong that must be paid back'
    """
    glosses = [GLOSSES[name] for name in names if name in GLOSSES]
    return ": " + "; ".join(glosses) if glosses else ""


def _in_words(names: Sequence[str]) -> str:
    return listing([_IN_WORDS.get(name, name).format(name) for name in names])


def _evidence(values: list[_Value]) -> str:
    """The clearest film of each value: ``five stars for "Alien"``."""
    named = {seen.film.title: seen.rating for value in values for seen in value.telling()[:1]}
    parts = [
        f"{_STARS[stars]} for "
        + listing([f'"{title}"' for title in named if named[title] == stars])
        for stars in dict.fromkeys(named.values())
    ]
    return listing(parts)


def _no_favourite(factor: str, history: Sequence[Seen]) -> str:
    top = max(history, key=lambda seen: (seen.rating, seen.film.title))
    evidence = f'"{top.film.title}" ({_STARS[top.rating]})'
    count = "1 film" if len(history) == 1 else f"{len(history)} films"
    name = "actor" if factor == "cast" else factor
    form = pick(_NEITHER, factor + evidence)
    return form.format(factor=name, count=count, evidence=evidence)


def listing(names: Sequence[str]) -> str:
    """Names as in a sentence.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def pick(forms: Sequence[str], text: str) -> str:
    """One of the forms, the same for the same text on every machine."""
    return forms[crc32(text.encode()) % len(forms)]
