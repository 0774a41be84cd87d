"""The embedded sample as four tables, and as four Parquet files."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from reki_feast.tables.parquet import write_table

from .answers import Seen, compose_answer
from .films import Film, load_films
from .viewers import FIRST, Floats, draw_affinity, draw_people, draw_taste, draw_watched

#: The two moments whose answers the sample carries.
AS_OF = (
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 7, 1, tzinfo=UTC),
)
#: What the answers name as their model.
MODEL = "sample-1"
#: The number of the first viewer.
FIRST_USER = 1001
_SEED, _VIEWERS = 20260101, 400

_TIME = pa.timestamp("us", tz="UTC")
_ITEMS = pa.schema(
    {
        "item_id": pa.int64(),
        "title": pa.string(),
        "year": pa.int64(),
        "genres": pa.string(),
        "director": pa.string(),
        "cast": pa.string(),
        "country": pa.string(),
    }
)
_USERS = pa.schema(
    {"user_id": pa.int64(), "age": pa.int64(), "occupation": pa.string(), "region": pa.string()}
)
_INTERACTIONS = pa.schema(
    {
        "user_id": pa.int64(),
        "item_id": pa.int64(),
        "rating": pa.int64(),
        "event_timestamp": _TIME,
    }
)
_ANSWERS = pa.schema(
    {
        "kind": pa.string(),
        "owner": pa.string(),
        "event_timestamp": _TIME,
        "text": pa.string(),
        "model": pa.string(),
    }
)


@dataclass(frozen=True)
class Sample:
    """The four tables.

    Attributes:
        items: item_id (from 1), title, year, genres ("Crime, Drama"), director, cast (both joined
            in one text), country. The tags and texts of the films are not in it.
        users: user_id (from 1001), age in years, occupation, region.
        interactions: user_id, item_id, rating (1 to 5 stars), event_timestamp; sorted by time,
            each pair at most once.
        answers: kind ("item" or "user"), owner (its id as text), event_timestamp, text (a JSON
            object with a text for each of ``FACTORS``), model.
    """

    items: pa.Table
    users: pa.Table
    interactions: pa.Table
    answers: pa.Table


def simulate(*, seed: int = _SEED, viewers: int = _VIEWERS) -> Sample:
    """Real films and simulated viewers; the same for the same arguments.

    Each viewer has a hidden taste: sparse positive and negative weights over moods (80 % of the
    variance of taste), themes (12 %), settings (5 %), genres, directors and eras (1 % each), and
    a soft spot for the films of his or her youth. Moods, themes and settings are liked and
    disliked in families, such as all that is wistful, tender or meditative. So taste
    is mostly about what the catalogue's columns lack and knowledge tells. Affinity is taste, plus
    a film's quality, plus the viewer's bias; a rating is affinity plus noise, cut into one to
    five stars. Viewers choose films by popularity and a mild pull of taste, at times from
    2025-01-01 to 2026-09-30.

    The answers about films are the texts of this package, dated 2025-01-01. Those about viewers
    are written by rule (see ``answers``), for each moment of ``AS_OF``, from the ratings given
    before it, never from the hidden taste; they stand in for a language model's answers in a
    demo. A viewer without ratings before a moment has no answer of that moment.

    Args:
        seed: of all that is drawn; not negative.
        viewers: how many viewers, at least 1.

    Raises:
        ValueError: there is no viewer, or the seed is negative.
    """
    if viewers < 1:
        raise ValueError(f"a sample needs a viewer, not {viewers}")
    films = load_films()
    interactions = _interactions(seed, viewers, films)
    answers = pa.concat_tables([_item_answers(films), _user_answers(interactions, films)])
    return Sample(_items(films), _users(seed, viewers), interactions, answers.combine_chunks())


def write(folder: Path) -> None:
    """Write items.parquet, users.parquet, interactions.parquet and answers.parquet.

    Each file appears whole or not at all; writing again replaces it by the same. The folder is
    made where it does not exist.

    Raises:
        LakeError: the folder cannot be made or written to.
    """
    save(simulate(), folder)


def save(sample: Sample, folder: Path) -> None:
    """Write the tables of a sample to a folder, as ``write`` does."""
    for field in fields(sample):
        write_table(folder / f"{field.name}.parquet", getattr(sample, field.name))


def _items(films: tuple[Film, ...]) -> pa.Table:
    rows = [
        {
            "item_id": film.item_id,
            "title": film.title,
            "year": film.year,
            "genres": ", ".join(film.genres),
            "director": film.director,
            "cast": ", ".join(film.cast),
            "country": film.country,
        }
        for film in films
    ]
    return pa.Table.from_pylist(rows, schema=_ITEMS)


def _users(seed: int, viewers: int) -> pa.Table:
    people = draw_people(seed, viewers)
    ids = np.arange(viewers) + FIRST_USER
    return pa.table([ids, people.age, people.occupation, people.region], schema=_USERS)


def _affinity(seed: int, viewers: int) -> tuple[Floats, Floats]:
    """Hidden taste and affinity, both [viewers, films]; for drawing, and for tests alone."""
    taste = draw_taste(seed, draw_people(seed, viewers), load_films())
    return taste, draw_affinity(seed, taste)


def _interactions(seed: int, viewers: int, films: tuple[Film, ...]) -> pa.Table:
    watched = draw_watched(seed, *_affinity(seed, viewers))
    ids = np.array([film.item_id for film in films])
    times = pa.array(watched.second * 1_000_000).cast(_TIME)
    columns = [watched.viewer + FIRST_USER, ids[watched.film], watched.rating, times]
    return pa.table(columns, schema=_INTERACTIONS)


def _item_answers(films: tuple[Film, ...]) -> pa.Table:
    rows = [_answer("item", film.item_id, FIRST, dict(film.knowledge)) for film in films]
    return pa.Table.from_pylist(rows, schema=_ANSWERS)


def _user_answers(interactions: pa.Table, films: tuple[Film, ...]) -> pa.Table:
    """An answer for each viewer and moment of ``AS_OF`` with interactions before it."""
    by_id = {film.item_id: film for film in films}
    histories: dict[int, tuple[list[datetime], list[Seen]]] = {}
    for row in interactions.to_pylist():
        times, seen = histories.setdefault(row["user_id"], ([], []))
        times.append(row["event_timestamp"])
        seen.append(Seen(by_id[row["item_id"]], row["rating"]))
    rows = [
        _answer("user", user, moment, compose_answer(seen[:visible]))
        for moment in AS_OF
        for user, (times, seen) in sorted(histories.items())
        if (visible := bisect_left(times, moment))
    ]
    return pa.Table.from_pylist(rows, schema=_ANSWERS)


def _answer(kind: str, owner: int, moment: datetime, texts: dict[str, str]) -> dict[str, object]:
    return {
        "kind": kind,
        "owner": str(owner),
        "event_timestamp": moment,
        "text": json.dumps(texts, ensure_ascii=False),
        "model": MODEL,
    }
