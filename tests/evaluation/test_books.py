"""The scenario of books: a declared test part, profiles made elsewhere, and the tables on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.errors import SourceError
from reki_feast.evaluation import command
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.context import StageContext
from reki_feast.stages.training_data import training_data
from tests.bench import books_groups, dbbook
from tests.conftest import shared

USERS, BOOKS, STRANGERS = 60, 40, 30
GENRES = ["crime", "romance", "fantasy", "poetry"]
GENERIC = "Such a reader likes books that are well written, and have a compelling story."


def books(folder: Path, *, flipped: bool = False) -> Path:
    """Data of the same shape: a reader likes a genre; ``flipped``: the test's labels are others."""
    draw = np.random.default_rng(0)
    rows = [
        (user, int(book), int(book % 4 == user % 4), "test" if n > 8 else "train")
        for user in range(USERS)
        for n, book in enumerate(draw.permutation(BOOKS)[:14])
    ]
    user, book, label, split = (list(column) for column in zip(*rows, strict=True))
    if flipped:
        label = [1 - one if part == "test" else one for one, part in zip(label, split, strict=True)]
    folder.mkdir()
    pq.write_table(
        pa.table(
            {
                "user_id": pa.array(user, pa.int32()),
                "item_id": pa.array(book, pa.int32()),
                "label": pa.array(label, pa.int8()),
                "split": split,
            }
        ),
        folder / "interactions.parquet",
    )
    titles = [f"A book of {GENRES[n % 4]}, volume {n}" for n in range(BOOKS)]
    items = {"item_id": list(range(BOOKS)), "title": titles, "dbpedia": titles}
    pq.write_table(pa.table(items), folder / "items.parquet")
    texts = [f"Reader {n} loves {GENRES[n % 4]} above all." for n in range(USERS)]
    profiles = {
        "user_id": pa.array(range(USERS + STRANGERS), pa.int32()),
        "text": [*texts, *[GENERIC] * STRANGERS],
        "model": ["m"] * (USERS + STRANGERS),
    }
    pq.write_table(pa.table(profiles), folder / dbbook.PROFILES)
    return folder


def encoded(data: Path, folder: Path) -> DeclaredProject:
    made = dbbook.lay_down(
        data,
        folder,
        encoder='Encoder(model="hash")',
        training="Training(epochs=1, batch_size=64)",
    )
    stages.import_knowledge(made, {"users": str(data / dbbook.PROFILES)})
    stages.encode(made)
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    folder = tmp_path_factory.mktemp("books")
    return encoded(books(folder / "data"), folder / "project")


def test_profiles_without_content_are_quarantined(project: DeclaredProject) -> None:
    found = stages.quality(project)
    [row] = [one for one in found.imported if one.kind == "user"]
    assert (row.texts, row.quarantined) == (USERS, STRANGERS)
    assert [(one.gate, one.quarantined) for one in found.imported_gates] == [
        ("repeated", STRANGERS)
    ]


def test_the_scenario_is_trained_and_published(project: DeclaredProject) -> None:
    trained = stages.train(project)
    assert any("held out for the test: «split = 'test'»" in note for note in trained.notes)
    rows = {one.table: one.rows for one in stages.publish(project).published}
    assert (rows["user_aug"], rows["user_knowledge"], rows["item_aug"]) == (USERS, USERS, BOOKS)


def test_test_rows_are_scored_and_nothing_else(project: DeclaredProject, tmp_path: Path) -> None:
    data = command.evaluation_data(project, training_data(project))
    held = data.interactions.filter(pc.field("held_out"))
    assert held.num_rows == 5 * USERS
    assert pc.all(held["sample"]).as_py()
    command.evaluate(
        project,
        tables=["table2", "table3", "figure3", "figure5"],
        backbones=["din", "prm"],
        seeds=2,
        workers=1,
        out=tmp_path,
    )
    text = (tmp_path / "table2.md").read_text()
    assert f"540 interactions, {held.num_rows} to test, {USERS} users" in text
    assert "REKI-I" in text
    assert "the same for all seeds" in text
    assert "KG" in (tmp_path / "figure3.md").read_text()
    assert json.loads((tmp_path / "table3.json").read_text())


def test_nothing_stored_follows_from_labels_of_the_test(
    project: DeclaredProject, tmp_path: Path
) -> None:
    other = encoded(books(tmp_path / "data", flipped=True), tmp_path / "project")
    tables = [
        one.lake.read(
            "user_representation", schema.representation(StageContext.of(one).key("user"), [])
        )
        for one in (project, other)
    ]
    hashes = [table.sort_by("user_id")["hash"].to_pylist() for table in tables]
    assert hashes[0] == hashes[1]
    one, two = (
        command.evaluation_data(made, training_data(made)).interactions for made in (project, other)
    )
    assert one.filter(~pc.field("held_out")).equals(two.filter(~pc.field("held_out")))
    assert not one.equals(two)


def test_a_project_without_interactions_imports_and_says_what_else_needs_them(
    tmp_path: Path,
) -> None:
    data = group_data(tmp_path / "data")
    made = books_groups.lay_down(data, tmp_path / "project", "hash")
    path = made.declared.path
    path.write_text(
        "\n".join(line for line in path.read_text().splitlines() if "interactions=" not in line)
    )
    alone = open_project(made.root)
    named = {"groups": "knowledge", "user_groups": "user_groups", "item_groups": "item_groups"}
    found = stages.import_knowledge(
        alone, {name: str(data / f"{file}.parquet") for name, file in named.items()}
    )
    assert (found.texts, found.quarantined, found.memberships) == (5, 1, 28)
    assert stages.quality(alone).imported_gates[0].gate == "refusal"
    with pytest.raises(SourceError, match=r"(?s)has interactions.*add Sources\(interactions"):
        stages.encode(alone)


def group_data(folder: Path) -> Path:
    """Group knowledge of the shape of the paper's: two groups a kind, 8 readers, 12 books."""
    folder.mkdir()
    kinds = ["item", "item", "user_liked", "user_liked", "user_disliked", "user_disliked"]
    texts = [f"Genre: {GENRES[n % 4]}. Theme: the number {n} in all its forms." for n in range(5)]
    tables = {
        "knowledge": {
            "kind": kinds,
            "group_id": [1, 2] * 3,
            "text": [*texts, "I'm sorry, but it is not possible to describe them."],
        },
        "item_groups": {"item_id": list(range(12)), "group_id": [1 + n % 2 for n in range(12)]},
        "user_groups": {
            "user_id": list(range(8)),
            "liked_group_id": [1 + n % 2 for n in range(8)],
            "disliked_group_id": [2 - n % 2 for n in range(8)],
        },
    }
    for side in ("liked", "disliked"):
        pairs = [(1 + n % 2, n) for n in range(12)]
        group, item = (list(column) for column in zip(*pairs, strict=True))
        tables[f"{side}_group_items"] = {"group_id": group, "item_id": item}
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_group_knowledge_goes_all_the_way(tmp_path: Path) -> None:
    rows = books_groups.run(group_data(tmp_path / "data"), tmp_path / "project", "hash")
    found = {row["name"].removeprefix("books_groups_"): row for row in rows}
    # of 28 memberships 4 are of the group whose text is a refusal
    assert (found["encoded_texts"]["ours"], found["encoded_texts"]["reference"]) == (5, 24)
    assert found["failed_refusal"]["ours"] == pytest.approx(1 / 6, abs=1e-4)
    assert found["hedging_user_disliked"]["ours"] == 0.5
    assert found["bytes_user_aug"]["ours"] > 0


def test_the_generic_profiles_of_the_real_data(tmp_path: Path) -> None:
    data = shared("dbbook")
    made = dbbook.lay_down(data, tmp_path / "project")
    table = pq.read_table(data / dbbook.PROFILES)
    # the generic ones, and every fifth of the others: the same shares, in a fifth of the time
    generic = pc.equal(table["train_positives"], 0)
    others = table.filter(pc.invert(generic))
    some = others.take(list(range(0, others.num_rows, 5)))
    pq.write_table(pa.concat_tables([table.filter(generic), some]), tmp_path / "some.parquet")
    found = stages.import_knowledge(made, {"users": str(tmp_path / "some.parquet")})
    gates = {one.gate: one.quarantined for one in found.imported_gates}
    assert gates["repeated"] == 521
    assert found.quarantined - 521 <= 0.01 * some.num_rows
