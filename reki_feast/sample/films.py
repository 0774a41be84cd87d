"""The films of the embedded sample: public facts, tags, and what a knowing reader says of each.

The facts are true. The tags come from three fixed vocabularies. The texts were written for this
package, one for each film and factor, and stand in for a language model's answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

#: What the sample asks about a film or a viewer, in the order of the answers.
FACTORS = ("genre", "theme", "mood", "director", "cast", "setting")

MOODS = (
    *("wistful", "tense", "playful", "bleak", "tender", "eerie", "exuberant", "brooding"),
    *("dreamlike", "darkly comic", "hopeful", "thrilling", "meditative", "romantic", "feverish"),
    *("warm", "satirical", "majestic", "harrowing", "stylish"),
)
THEMES = (
    *("family bonds", "first love", "lost love", "revenge", "corruption", "power", "obsession"),
    *("identity", "memory", "growing up", "friendship", "grief", "guilt", "faith"),
    *("class divide", "justice", "survival", "cost of war", "technology", "freedom", "ambition"),
    *("art and performance", "the big score", "betrayal", "loneliness", "sacrifice", "prejudice"),
    *("ageing", "marriage", "madness", "nature", "courage", "surveillance", "fate", "deception"),
)
SETTINGS = (
    *("big city", "small town", "countryside", "battlefield", "outer space", "at sea", "desert"),
    *("wilderness", "suburb", "prison", "school", "royal court", "imaginary kingdom"),
    *("dystopian future", "gangland", "show business", "workplace", "snowbound winter"),
    *("single house", "open road"),
)


@dataclass(frozen=True)
class Film:
    """One film.

    Attributes:
        item_id: number from 1.
        title: English title, or the one the film is known by.
        year: year of the first release.
        genres: one to four genres, the main one first.
        director: directors, joined by " and ".
        cast: two to four leading players.
        country: countries of production, the main one first.
        mood: two to four of ``MOODS``.
        theme: two to four of ``THEMES``.
        setting: one or two of ``SETTINGS``.
        knowledge: one text for each of ``FACTORS``.
    """

    item_id: int
    title: str
    year: int
    genres: tuple[str, ...]
    director: str
    cast: tuple[str, ...]
    country: str
    mood: tuple[str, ...]
    theme: tuple[str, ...]
    setting: tuple[str, ...]
    knowledge: Mapping[str, str]

    def values(self, factor: str) -> tuple[str, ...]:
        """What the film has of a factor: its genres, tags, directors or players.

        >>> load_films()[0].values("director")
        ('Sidney Lumet',)
        """
        if factor == "director":
            return tuple(self.director.split(" and "))
        given: tuple[str, ...] = getattr(self, "genres" if factor == "genre" else factor)
        return given


@cache
def load_films() -> tuple[Film, ...]:
    """All films, by ``item_id``; read once."""
    text = (files(__package__) / "films.jsonl").read_text(encoding="utf-8")
    return tuple(_film(json.loads(line)) for line in text.splitlines())


def _film(row: dict[str, object]) -> Film:
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}
    return Film(**frozen)  # type: ignore[arg-type]  # JSON has no types; a test checks every row
