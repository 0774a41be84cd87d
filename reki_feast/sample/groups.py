"""Answers about groups, written by rule from the films that each group is shown by.

They stand in for a language model's answers in a demo: no model wrote them. A rule finds, for each
factor, the values (moods, themes, directors, ...) that are more frequent among the films shown than
in the whole catalogue, and names films that have them. Nothing but the films shown goes in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache

import pyarrow as pa

from reki_feast.schema import TIMESTAMP

from .answers import gloss_of, kind_of, listing, pick
from .films import FACTORS, Film, load_films
from .tables import MODEL

#: A value is common to a group from this share above its share in the catalogue on, if two films
#: have it; at most so many values are named, and so many films that have them.
_ENOUGH, _LEAST = 0.1, 2
_VALUES, _EVIDENCE = 3, 3

#: By channel: that of items (``knowledge``) and those of users.
_COMMON = {
    "knowledge": (
        "What they share: {kind}{gloss}.",
        "Mostly {kind}{gloss}.",
        "Typical here: {kind}{gloss}.",
    ),
    "liked": (
        "These viewers like {kind}{gloss}.",
        "Their common ground is {kind}{gloss}.",
        "What draws these viewers: {kind}{gloss}.",
    ),
    "disliked": (
        "These viewers dislike {kind}{gloss}.",
        "What puts these viewers off: {kind}{gloss}.",
        "These viewers have little patience for {kind}{gloss}.",
    ),
}
_PROOF = {
    "knowledge": "{count} of {total} are such, among them {evidence}.",
    "liked": "{count} of the {total} films most liked are such, among them {evidence}.",
    "disliked": "{count} of the {total} films most disliked are such, among them {evidence}.",
}
_MIXED = {
    "knowledge": "Mixed: no {factor} is common to these {total}; among them are {evidence}.",
    "liked": "Mixed: no {factor} unites what they like most, such as {evidence}.",
    "disliked": "Mixed: no {factor} unites what they dislike most, such as {evidence}.",
}
_THIN = "The evidence is thin: only {evidence}."
_ANSWERS = pa.schema(
    {
        "kind": pa.string(),
        "owner": pa.string(),
        "channel": pa.string(),
        "event_timestamp": TIMESTAMP,
        "text": pa.string(),
        "model": pa.string(),
    }
)


def answer_groups(groups: pa.Table) -> pa.Table:
    """The sample's answers about groups of films and of viewers; no model wrote them.

    Args:
        groups: ``schema.GROUPS`` of G rows; ``shown`` holds ids of the sample's films as text.
            ``channel`` is ``knowledge`` for films, ``liked`` or ``disliked`` for viewers.

    Returns:
        A row for each row of ``groups``, in its order: kind, owner (the group's id), channel,
        event_timestamp, text (a JSON object with a text for each of ``FACTORS``), model. This is
        what ``reki_feast.llm.recorded`` reads. Ids that are no film's are passed over; a group
        without any film has no answer.

    Raises:
        KeyError: a column is missing, or a channel is none of the three.
    """
    rows = []
    for row in groups.select(["kind", "channel", "group", "event_timestamp", "shown"]).to_pylist():
        films = [film for key in row.pop("shown") if (film := _by_id().get(key))]
        if films:
            row["owner"] = row.pop("group")
            texts = {name: _describe(name, films, row["channel"]) for name in FACTORS}
            rows.append({**row, "text": json.dumps(texts, ensure_ascii=False), "model": MODEL})
    return pa.Table.from_pylist(rows, schema=_ANSWERS)


def _describe(factor: str, films: Sequence[Film], channel: str) -> str:
    names = _common(factor, films)
    having = [film for film in films if set(names) & set(film.values(factor))]
    # the films that have most of what is named prove it best; sorting keeps their order otherwise
    having.sort(key=lambda film: -len(set(names) & set(film.values(factor))))
    evidence = listing([f'"{film.title}"' for film in (having or films)[:_EVIDENCE]])
    figures = {"total": len(films), "count": len(having), "evidence": evidence}
    if not names:
        name = "actor" if factor == "cast" else factor
        return _MIXED[channel].format(factor=name, **figures)
    form = pick(_COMMON[channel], factor + "".join(names))
    text = form.format(kind=kind_of(factor, names), gloss=gloss_of(names))
    proof = _PROOF[channel] if len(films) > 1 else _THIN
    return f"{text} {proof.format(**figures)}"


def _common(factor: str, films: Sequence[Film]) -> list[str]:
    """The values of a factor that mark these films, the most marked first."""
    counts = Counter(value for film in films for value in film.values(factor))
    usual = _shares(factor)
    marked = {name: count / len(films) - usual[name] for name, count in counts.items()}
    least = min(_LEAST, len(films))
    names = [name for name in counts if counts[name] >= least and marked[name] >= _ENOUGH]
    return sorted(names, key=lambda name: (-marked[name], name))[:_VALUES]


@cache
def _shares(factor: str) -> dict[str, float]:
    films = load_films()
    counts = Counter(value for film in films for value in film.values(factor))
    return {name: count / len(films) for name, count in counts.items()}


@cache
def _by_id() -> dict[str, Film]:
    return {str(film.item_id): film for film in load_films()}
