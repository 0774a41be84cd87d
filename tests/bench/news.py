"""Recall on MIND, by the scenario of ``generators/news.py``, and on MovieLens-100K in time.

    python -m tests.bench.news [--table]

MIND: the readers' profiles that RecLM's authors have of gpt-3.5 are lists of phrases without
categories. Each phrase is a preference in the category of that article, of those its reader
clicked in training, which it is nearest to by the encoder. MovieLens: a film has a sentence by
ChatGPT, no viewer has knowledge; the last fifth of the log is the test. DBbook: a profile of every
reader, the data's own split, no cold books; encoded as `tests.bench.tables` has it. ``--table``
keeps the table in ``tests/bench/tables/``.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast import files, rendering, schema, stages
from reki_feast.encoding import Floats, vector_matrix
from reki_feast.evaluation import plot, recall_table, render
from reki_feast.evaluation.command import machine
from reki_feast.evaluation.recall import PREFERENCES, TEXTLESS, unit
from reki_feast.evaluation.recall_table import RecallFigures
from reki_feast.evaluation.spec import Scope
from reki_feast.evaluation.tables import TABLES
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Progress, Report, Silent
from reki_feast.stages.context import StageContext
from tests.bench.common import BUILD, ROOT, Row, data_folder
from tests.bench.tables import DATA, OUT
from tests.bench.time_data import BEFORE, films

NOTES = (
    "MIND: profiles are gpt-3.5's, made of training clicks alone, as released with RecLM: phrases "
    "without categories, of 1.6 clicks a reader. A phrase stands in the category of the reader's "
    "clicked article that it is nearest to.",
    "{pairs}",
    "MovieLens-100K: the last fifth of the log is the test. Items' knowledge: a sentence a film by "
    "ChatGPT.",
    "DBbook: profiles of Llama3-ChatQA-1.5-8B, made of what readers liked in training; books have "
    "titles alone.",
)
FILMS = """
from reki_feast import Encoder, Scenario, Sources

scenario = Scenario(
    name="films", item="film", liked="rating >= 4", description="{{{{ said }}}}",
    as_of=["{cut}"],
)
sources = Sources(
    items="select * from 'items.parquet'",
    interactions="select * from 'interactions.parquet'",
)
encoder = Encoder(max_tokens=128, pooling="mean", taste=True, history=False)
"""


def news(data: Path, folder: Path, progress: Progress | None = None) -> DeclaredProject:
    """Lay the project down in ``folder``, import what is known of readers, and encode it.

    Args:
        data: folder of all data.
        folder: of the project.
        progress: shows how many texts are encoded.
    """
    source = (data / "mind-reclm").resolve()
    project = lay_down(source, folder)
    profiles = source / "user_knowledge_gpt.parquet"
    stages.import_knowledge(project, {"users": str(profiles)})
    stages.encode(project, progress=progress or Silent())
    by_category = folder / "preferences.parquet"
    if not by_category.exists():
        pq.write_table(preferences(project, pq.read_table(profiles)), by_category)
    stages.import_knowledge(project, {"users": str(by_category)})
    stages.encode(project, progress=progress or Silent())
    return project


def lay_down(source: Path, folder: Path, **changed: str) -> DeclaredProject:
    """Write the project's declarations.

    Args:
        source: folder of MIND.
        folder: of the project.
        changed: declared names with another value, ``encoder='Encoder(model="hash")'``.
    """
    text = (ROOT / "generators" / "news.py").read_text(encoding="utf-8")
    text = re.sub(r"^DATA = .*$", f'DATA = "{source}"', text, flags=re.MULTILINE)
    text += "".join(f"{name} = {value}\n" for name, value in changed.items())
    files.write_text(folder / "generators" / "news.py", text)
    templates = Path("generators") / "templates" / "news"
    shutil.copytree(ROOT / templates, folder / templates, dirs_exist_ok=True)
    return open_project(folder)


def preferences(project: DeclaredProject, profiles: pa.Table) -> pa.Table:
    """Profiles with a column a category, of the phrases that belong there."""
    articles, clicked = _articles(project), _clicked(project)
    phrases = [phrases_of(text) for text in profiles["text"].to_pylist()]
    every = sorted({phrase for some in phrases for phrase in some})
    vectors = dict(zip(every, unit(project.encoder().encode(every)), strict=True))
    rows = []
    for row, some in zip(profiles.to_pylist(), phrases, strict=True):
        found: dict[str, list[str]] = {}
        read = [articles[item] for item in clicked.get(row["user_id"], ())]
        for phrase in some if read else ():
            nearest = max(read, key=lambda one: float(one.vector @ vectors[phrase]))
            found.setdefault(nearest.category, []).append(phrase)
        by_factor = {name: "; ".join(found.get(name, ())) for name in project.known_factors()}
        rows.append({**row, **{name: text or None for name, text in by_factor.items()}})
    return pa.Table.from_pylist(rows)


def phrases_of(text: str) -> list[str]:
    """The phrases of a profile, once each.

    >>> phrases_of("User identity: Sports fan, Nurse; User interests: Football, Nurse.")
    ['Sports fan', 'Nurse', 'Football']
    """
    parts = re.split(r"[;,]", re.sub(r"User (identity|interests):", "", text))
    return list(dict.fromkeys(filter(None, (part.strip(" .\n") for part in parts))))


@dataclass(frozen=True)
class _Article:
    """The category of an article, as the scenario calls it, and its vector of length 1."""

    category: str
    vector: Floats


def _articles(project: DeclaredProject) -> Mapping[int, _Article]:
    key = schema.Key("item_id", pa.int64())
    columns = schema.representation(key, ["description"])
    rows = project.lake.read("item_representation", columns)
    matrix, _ = vector_matrix(rows["description"])
    vectors = dict(zip(rows["item_id"].to_pylist(), unit(matrix), strict=True))
    items = StageContext.of(project).tables.items.select(["item_id", "category"]).to_pylist()
    return {
        row["item_id"]: _Article(
            row["category"].replace("foodanddrink", "food and drink"), vectors[row["item_id"]]
        )
        for row in items
    }


def _clicked(project: DeclaredProject) -> Mapping[int, list[int]]:
    """What readers clicked before the snapshot."""
    log = StageContext.of(project).tables.interactions
    [cut] = project.declared.scenario.as_of
    rows = log.filter(pc.field("event_timestamp") < pa.scalar(cut, schema.TIMESTAMP))
    found: dict[int, list[int]] = {}
    for user, item in zip(rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True):
        found.setdefault(user, []).append(item)
    return found


def movielens(data: Path, folder: Path, progress: Progress | None = None) -> DeclaredProject:
    """The same of MovieLens-100K; texts that `tests.bench.time` encoded are taken from there."""
    found = films(data)
    cut = found.ratings["event_timestamp"].quantile(BEFORE).floor("us")
    files.write_text(folder / "generators" / "films.py", FILMS.format(cut=cut.isoformat()))
    found.items[["item_id", "title", "said"]].to_parquet(folder / "items.parquet")
    found.ratings.drop(columns="liked").to_parquet(folder / "interactions.parquet")
    known = found.items[["item_id", "known"]].dropna().rename(columns={"known": "text"})
    known.to_parquet(folder / "known.parquet")
    project = open_project(folder)
    texts = BUILD / "time" / "texts" / "ml100k"
    if texts.exists() and not (project.data / "vectors").exists():
        shutil.copytree(texts, project.data / "vectors")
    stages.import_knowledge(project, {"items": str(folder / "known.parquet")})
    stages.encode(project, progress=progress or Silent())
    return project


def books(data: Path, progress: Progress | None = None) -> DeclaredProject:
    """The project of DBbook, by the static encoder where that was laid down."""
    found = DATA["dbbook-static"]
    if (BUILD / found.folder / "data").exists():
        return open_project(BUILD / found.folder)
    found = DATA["dbbook"]
    return found.project(data, BUILD / found.folder, progress)


def same_category(project: DeclaredProject) -> str:
    """How often two clicks of a reader are of one category, beside chance."""
    category = {item: one.category for item, one in _articles(project).items()}
    by_reader = [[category[item] for item in some] for some in _clicked(project).values()]
    shares = Counter(one for some in by_reader for one in some)
    total = sum(shares.values())
    chance = sum((count / total) ** 2 for count in shares.values())
    pairs = [one == other for some in by_reader for one, other in combinations(some, 2)]
    share = sum(pairs) / len(pairs)
    return (
        f"MIND: two training clicks of a reader are of one category in {share:.1%} of "
        f"{len(pairs):,} pairs, and two of anybody in {chance:.1%}. In these data a click says "
        "nothing of the category of another, so whatever reads texts stays at chance."
    )


def figures(title: str, project: DeclaredProject) -> list[RecallFigures]:
    """The figures of a data set."""
    made = recall_table.figures(project)
    return [replace(one, users=f"{title}, {one.users}") for one in made]


def rows(found: list[RecallFigures]) -> list[Row]:
    """Recall@50 of cold articles by preferences, beside the best that reads no text."""
    informed = next(one for one in found if PREFERENCES in one.by_way[True])
    ours = informed.mean(True, PREFERENCES)
    reference = max(informed.mean(True, way) for way in TEXTLESS)
    return [
        {
            "name": "news_cold_recall_50",
            "ours": round(ours, 4),
            "reference": round(reference, 4),
            "ratio": round(ours / reference, 2) if reference else None,
            "unit": "Recall@50, readers with knowledge",
        }
    ]


def main() -> None:
    """Both data sets; the table with ``--table``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true")
    asked, data, progress = parser.parse_args(), data_folder(), rendering.ProgressBars()
    mind = news(data, BUILD / "news", progress)
    found = [
        *figures("MIND", mind),
        *figures("MovieLens-100K", movielens(data, BUILD / "films", progress)),
        *figures("DBbook", books(data, progress)),
    ]
    said = tuple(note.format(pairs=same_category(mind)) for note in NOTES)
    table = TABLES["recall"].table(Scope((), recall=tuple(found)), {})
    if asked.table:
        titles = "MIND, MovieLens-100K and DBbook"
        context = render.TableContext(titles, machine(), (), said)
        render.write([table], OUT, context)
        plot.draw(table, OUT)
    notes = [*table.notes, *said]
    rendering.report(Report(table.title, tables=[render.terminal(table)], notes=notes))


if __name__ == "__main__":
    main()
