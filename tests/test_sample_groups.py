"""Answers of the sample about groups: from the films shown alone, fit for the recorded model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from reki_feast.knowledge import parse_answer
from reki_feast.llm.interface import Request
from reki_feast.llm.recorded import RecordedLLM
from reki_feast.sample import FACTORS, Film, answer_groups, load_films
from reki_feast.schema import GROUPS

FILMS = load_films()
AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 7, 1, tzinfo=UTC)
CHANNELS = [("item", "knowledge"), ("user", "liked"), ("user", "disliked")]


def having(factor: str, value: str) -> list[Film]:
    return [film for film in FILMS if value in film.values(factor)]


def groups(*rows: tuple[str, str, str, Sequence[str], datetime]) -> pa.Table:
    """Rows of (kind, channel, group, shown, as-of time)."""
    dicts = [
        {
            "kind": kind,
            "channel": channel,
            "group": group,
            "shown": shown,
            "hash": "h",
            "event_timestamp": at,
            "created_timestamp": LATER,
        }
        for kind, channel, group, shown, at in rows
    ]
    return pa.Table.from_pylist(dicts, schema=GROUPS)


def said(films: Sequence[Film], kind: str = "item", channel: str = "knowledge") -> dict[str, str]:
    shown = [str(film.item_id) for film in films]
    [row] = answer_groups(groups((kind, channel, "1", shown, AT))).to_pylist()
    texts: dict[str, str] = json.loads(row["text"])
    return texts


def test_the_table_has_a_row_for_each_group() -> None:
    table = answer_groups(
        groups(("user", "liked", "7", ["1", "2"], LATER), ("item", "knowledge", "7", ["3"], AT))
    )
    assert table.schema.names == ["kind", "owner", "channel", "event_timestamp", "text", "model"]
    assert table.drop_columns(["text"]).to_pylist() == [
        {
            "kind": "user",
            "owner": "7",
            "channel": "liked",
            "event_timestamp": LATER,
            "model": "sample-1",
        },
        {
            "kind": "item",
            "owner": "7",
            "channel": "knowledge",
            "event_timestamp": AT,
            "model": "sample-1",
        },
    ]
    for text in table["text"].to_pylist():
        assert tuple(parse_answer(text, FACTORS)) == FACTORS


@pytest.mark.parametrize(("kind", "channel"), CHANNELS)
def test_the_recorded_model_reads_them(kind: str, channel: str) -> None:
    both = [
        ("user", "liked", "1", ["1"], AT),
        ("user", "disliked", "1", ["2"], AT),
        ("item", "knowledge", "1", ["3"], AT),
    ]
    model = RecordedLLM(answer_groups(groups(*both)))
    request = Request(
        kind=kind,
        channel=channel,
        owner="1",
        system="",
        prompt="",
        factors=FACTORS,
        prompt_hash="",
        event_timestamp=LATER,
    )
    answer = asyncio.run(model.ask(request))
    film = {"liked": FILMS[0], "disliked": FILMS[1], "knowledge": FILMS[2]}[channel]
    assert f'"{film.title}"' in answer.text.replace('\\"', '"')
    assert answer.model == "sample-1"


def test_what_items_share_is_told_with_films_as_evidence() -> None:
    texts = said(having("mood", "eerie")[:6])
    assert "eerie" in texts["mood"].split(":")[0] + texts["mood"].split(":")[1]
    assert "creeping unease, ghostly silence and dread" in texts["mood"]
    assert re.search(r"\d of 6 are such, among them \"", texts["mood"])
    assert not any("viewers" in text for text in texts.values())


def test_viewers_who_like_and_dislike_the_same_films_are_told_apart() -> None:
    films = having("genre", "Western")[:5]
    liked, disliked = (said(films, "user", channel) for channel in ("liked", "disliked"))
    assert "western" in liked["genre"]
    assert "western" in disliked["genre"]
    assert "5 films most liked" in liked["genre"]
    assert "5 films most disliked" in disliked["genre"]
    assert not any("dislike" in text for text in liked.values())
    assert all(re.search("dislike|little patience|puts these", t) for t in disliked.values())


@pytest.mark.parametrize(("kind", "channel"), CHANNELS)
def test_only_films_shown_are_named_the_most_telling_first(kind: str, channel: str) -> None:
    films = FILMS[10:25]
    titles = {film.title for film in films}
    for factor, text in said(films, kind, channel).items():
        named = re.findall(r'"([^"]+)"', text)
        assert 1 <= len(named) <= 3, factor
        assert set(named) <= titles


def test_a_mixed_group_is_said_to_be_mixed() -> None:
    apart = [FILMS[0]]
    for film in FILMS[1:]:
        if not {*film.cast} & {name for other in apart for name in other.cast}:
            apart.append(film)
    text = said(apart[:5])["cast"]
    assert text.startswith("Mixed: no actor is common to these 5;")
    assert f'"{apart[0].title}"' in text


def test_a_single_film_is_thin_evidence() -> None:
    texts = said(FILMS[:1], "user", "liked")
    assert all(
        text.endswith(f'The evidence is thin: only "{FILMS[0].title}".') for text in texts.values()
    )
    assert FILMS[0].director in texts["director"]


def test_what_is_usual_is_not_called_common() -> None:
    """Drama marks a group only where it is more frequent than in the whole catalogue."""
    assert "drama" not in said(FILMS)["genre"]
    assert all(text.startswith("Mixed") for text in said(FILMS).values())


def test_unknown_films_are_passed_over() -> None:
    known = answer_groups(groups(("item", "knowledge", "1", ["1", "2"], AT)))
    more = groups(
        ("item", "knowledge", "1", ["999999", "1", "x", "2"], AT),
        ("item", "knowledge", "2", ["999999"], AT),
        ("item", "knowledge", "3", [], AT),
    )
    assert answer_groups(more).equals(known)


def test_no_groups() -> None:
    assert answer_groups(GROUPS.empty_table()).num_rows == 0


def test_another_channel_is_refused() -> None:
    with pytest.raises(KeyError, match="history"):
        answer_groups(groups(("user", "history", "1", ["1"], AT)))
