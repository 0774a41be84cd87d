"""The embedded sample: true to its vocabulary, the same each time, and without leaks."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from reki_feast.errors import LakeError
from reki_feast.sample import AS_OF, FACTORS, Film, Sample, load_films, simulate, tables, write
from reki_feast.sample.answers import HISTORY, Seen, compose_answer
from reki_feast.sample.films import MOODS, SETTINGS, THEMES
from reki_feast.sample.glosses import GLOSSES

FILMS = load_films()
TABLES = ("items", "users", "interactions", "answers")


@pytest.fixture(scope="module")
def sample() -> Sample:
    return simulate()


def user_answers(sample: Sample) -> list[tuple[int, datetime, dict[str, str]]]:
    rows = sample.answers.filter(pc.field("kind") == "user").to_pylist()
    return [(int(r["owner"]), r["event_timestamp"], json.loads(r["text"])) for r in rows]


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.title)
def test_a_film_has_its_facts_tags_and_knowledge(film: Film) -> None:
    assert film.title
    assert film.country
    assert film.director
    assert 1925 <= film.year <= 2026
    assert 1 <= len(film.genres) <= 4
    assert 2 <= len(film.cast) <= 4
    for given, known, most in ((film.mood, MOODS, 4), (film.theme, THEMES, 4)):
        assert 2 <= len(set(given)) == len(given) <= most
        assert set(given) <= set(known)
    assert 1 <= len(set(film.setting)) == len(film.setting) <= 2
    assert set(film.setting) <= set(SETTINGS)
    assert tuple(film.knowledge) == FACTORS
    assert all(15 <= len(text.split()) <= 35 for text in film.knowledge.values())


def test_no_film_and_no_text_is_there_twice() -> None:
    assert 148 <= len(FILMS) <= 156
    assert [film.item_id for film in FILMS] == list(range(1, len(FILMS) + 1))
    assert len({film.title for film in FILMS}) == len(FILMS)
    texts = Counter(text for film in FILMS for text in film.knowledge.values())
    assert max(texts.values()) == 1


def test_every_tag_is_used_and_has_a_gloss() -> None:
    used = {tag for film in FILMS for tag in (*film.mood, *film.theme, *film.setting)}
    assert used == {*MOODS, *THEMES, *SETTINGS}
    assert used | {genre for film in FILMS for genre in film.genres} == set(GLOSSES)


@pytest.mark.parametrize("factor", ["mood", "theme", "setting"])
def test_knowledge_mentions_its_tags(factor: str) -> None:
    told = [tag in film.knowledge[factor].lower() for film in FILMS for tag in film.values(factor)]
    assert np.mean(told) > 0.97


def test_the_tables_have_their_columns(sample: Sample) -> None:
    assert sample.items.column_names == [
        *("item_id", "title", "year", "genres", "director", "cast", "country"),
    ]
    assert sample.users.column_names == ["user_id", "age", "occupation", "region"]
    assert sample.interactions.column_names == ["user_id", "item_id", "rating", "event_timestamp"]
    assert sample.answers.column_names == ["kind", "owner", "event_timestamp", "text", "model"]
    for table in (sample.interactions, sample.answers):
        assert table.schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    for name in ("user_id", "item_id", "rating"):
        assert sample.interactions.schema.field(name).type == pa.int64()
    assert all(
        getattr(sample, name)[column].null_count == 0
        for name in TABLES
        for column in getattr(sample, name).column_names
    )


def test_the_interactions_are_as_promised(sample: Sample) -> None:
    seen = sample.interactions.to_pandas()
    times = seen["event_timestamp"]
    assert times.is_monotonic_increasing
    assert times.min() >= datetime(2025, 1, 1, tzinfo=UTC)
    assert times.max() <= datetime(2026, 9, 30, tzinfo=UTC)
    assert not seen.duplicated(["user_id", "item_id"]).any()
    assert set(seen["rating"]) == {1, 2, 3, 4, 5}
    assert set(seen["user_id"]) == set(sample.users["user_id"].to_pylist())
    assert set(seen["item_id"]) <= set(sample.items["item_id"].to_pylist())
    counts = seen.groupby("user_id").size()
    assert 80 <= counts.mean() <= 110
    assert counts.min() < 15
    assert counts.max() > 100
    assert (times >= AS_OF[0]).mean() >= 0.35
    assert 0.15 <= (times >= AS_OF[1]).mean() <= 0.25


def test_answers_cover_all_films_and_all_viewers_with_a_past(sample: Sample) -> None:
    rows = sample.answers.to_pylist()
    assert set(sample.answers["model"].to_pylist()) == {"sample-1"}
    items = [row for row in rows if row["kind"] == "item"]
    assert [json.loads(row["text"]) for row in items] == [dict(film.knowledge) for film in FILMS]
    assert {row["event_timestamp"] for row in items} == {datetime(2025, 1, 1, tzinfo=UTC)}
    seen = sample.interactions.to_pandas()
    for moment in AS_OF:
        past = set(seen[seen["event_timestamp"] < moment]["user_id"])
        answered = [user for user, at, _ in user_answers(sample) if at == moment]
        assert sorted(past) == sorted(answered)
    assert 5 <= 400 - len({user for user, at, _ in user_answers(sample) if at == AS_OF[0]}) <= 60
    assert all(tuple(texts) == FACTORS for _, _, texts in user_answers(sample))
    assert all(text for _, _, texts in user_answers(sample) for text in texts.values())


def test_the_same_seed_gives_the_same_tables_and_another_seed_others(sample: Sample) -> None:
    again = simulate()
    assert all(getattr(sample, name).equals(getattr(again, name)) for name in TABLES)
    other = simulate(seed=1, viewers=20)
    assert other.users.num_rows == 20
    assert not other.interactions.equals(simulate(seed=2, viewers=20).interactions)


@pytest.mark.parametrize("viewers", [0, -1])
def test_a_sample_needs_a_viewer(viewers: int) -> None:
    with pytest.raises(ValueError, match="needs a viewer"):
        simulate(viewers=viewers)


def test_an_answer_names_only_films_seen_before_its_moment(sample: Sample) -> None:
    titles = {film.item_id: film.title for film in FILMS}
    seen = sample.interactions.to_pandas()
    mentioned = 0
    for user, moment, texts in user_answers(sample):
        past = seen[(seen["user_id"] == user) & (seen["event_timestamp"] < moment)]
        allowed = {titles[item] for item in past["item_id"].tail(HISTORY)}
        named = set(re.findall(r'"([^"]+)"', " ".join(texts.values())))
        assert named <= allowed
        mentioned += bool(named)
    assert mentioned == len(user_answers(sample))


def test_answers_depend_on_the_visible_history_alone(sample: Sample) -> None:
    """Other ratings from the moment on, a different future, change nothing said at the moment."""
    table = sample.interactions
    later = np.asarray(table["event_timestamp"].to_pandas() >= AS_OF[0])
    rating = table["rating"].to_numpy()
    changed = np.where(later, 6 - rating, rating)
    future = table.set_column(2, "rating", pa.array(changed))
    before = table.filter(pa.array(~later))
    for other in (future, before):
        answers = tables._user_answers(other, FILMS)
        first = answers.filter(pc.field("event_timestamp") == pa.scalar(AS_OF[0]))
        said = sample.answers.filter(
            (pc.field("kind") == "user") & (pc.field("event_timestamp") == pa.scalar(AS_OF[0]))
        )
        assert first.equals(said.combine_chunks())


def test_an_interaction_at_the_very_moment_is_not_visible() -> None:
    rows = {
        "user_id": [1001, 1001],
        "item_id": [1, 2],
        "rating": [5, 1],
        "event_timestamp": [AS_OF[0] - timedelta(microseconds=1), AS_OF[0]],
    }
    first = tables._user_answers(pa.table(rows), FILMS).to_pylist()[0]
    assert FILMS[0].title in first["text"]
    assert FILMS[1].title not in first["text"]


def test_an_answer_says_what_was_liked_and_what_was_not() -> None:
    tender = [film for film in FILMS if "tender" in film.mood and "bleak" not in film.mood][:4]
    bleak = [film for film in FILMS if "bleak" in film.mood and "tender" not in film.mood][:4]
    said = compose_answer([*(Seen(f, 5) for f in tender), *(Seen(f, 1) for f in bleak)])["mood"]
    liked, disliked = said.split(".")[0], said.split(". ", 2)[2]
    assert "tender" in liked
    assert "bleak" not in liked
    assert "bleak" in disliked
    assert "one star" in disliked


def test_an_answer_without_a_favourite_says_so() -> None:
    said = compose_answer([Seen(FILMS[0], 3)])
    assert all(FILMS[0].title in text for text in said.values())
    with pytest.raises(ValueError, match="seen nothing"):
        compose_answer([])


def test_only_the_last_interactions_count() -> None:
    history = [Seen(film, 1 + n % 5) for n, film in enumerate(FILMS[: HISTORY + 20])]
    assert compose_answer(history) == compose_answer(history[-HISTORY:])


def test_whoever_knew_the_affinity_would_predict_likes_well_but_not_perfectly(
    sample: Sample,
) -> None:
    _, affinity = tables._affinity(20260101, 400)
    user = sample.interactions["user_id"].to_numpy() - tables.FIRST_USER
    item = sample.interactions["item_id"].to_numpy() - 1
    liked = sample.interactions["rating"].to_numpy() >= 4
    assert 0.45 <= liked.mean() <= 0.60
    assert 0.85 <= roc_auc_score(liked, affinity[user, item]) <= 0.93


def test_writing_twice_gives_the_same_files_and_leaves_no_other(
    sample: Sample, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "sample"
    write(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {f"{name}.parquet" for name in TABLES}
    for name in TABLES:
        assert pq.read_table(folder / f"{name}.parquet").equals(getattr(sample, name))


def test_a_failed_write_keeps_the_old_file(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.save(sample, tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(where: Path, _schema: pa.Schema, **_: object) -> None:
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "ParquetWriter", fail)
    with pytest.raises(LakeError, match="disk full"):
        tables.save(sample, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_the_command_prints_a_line_for_each_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reki_feast.sample.__main__ import main

    monkeypatch.setattr("sys.argv", ["sample", str(tmp_path)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(TABLES)
    assert lines[0].endswith(f"items.parquet: {len(FILMS)} rows")
