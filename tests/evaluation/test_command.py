"""`reki evaluate` on the small shop: real models, one seed, a few tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from reki_feast import stages
from reki_feast.errors import CondenseError, EncodeError, EvaluateError
from reki_feast.evaluation import command
from reki_feast.project import DeclaredProject, open_project
from reki_feast.schema import VECTORS
from tests.encoding.static_model import static_model
from tests.stages.conftest import make_shop

GRAPH = (
    "select sku, [1.0 * length(kind), length(sku), hash(title) % 7] as vector from 'items.parquet'"
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DeclaredProject:
    root = tmp_path_factory.mktemp("evaluate") / "my shop"
    made = make_shop(root, lambda text: text.replace("Sources(", f'Sources(embeddings="{GRAPH}", '))
    stages.generate(made)
    stages.encode(made)
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tables_are_written_and_nothing_is_trained_twice(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    wanted = ["figure3", "figure5", "table7"]
    report = command.evaluate(
        shop, tables=wanted, backbones=["din"], seeds=1, workers=1, out=tmp_path
    )
    endings = (".json", ".md", ".png", ".svg")
    expected = {f"{name}{ending}" for name in wanted for ending in endings}
    assert set(names(tmp_path)) == {"cells.jsonl", *expected}
    # none; item, user, both; graph alone, both: six models for the two tables
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == 6
    assert [table.title.split(":")[0] for table in report.tables] == [
        "Figure 3",
        "Figure 5",
        "Table 7",
    ]
    rows = json.loads((tmp_path / "figure5.json").read_text())
    auc = {row["name"]: row["ours"] for row in rows if row["unit"] == "AUC"}
    assert all(0 < value < 1 for name, value in auc.items() if name.endswith("/auc"))
    assert "29 users" in (tmp_path / "figure5.md").read_text()

    stamp = (tmp_path / "cells.jsonl").stat().st_mtime_ns
    again = command.evaluate(shop, tables=["figure5"], seeds=1, workers=1, out=tmp_path)
    assert (tmp_path / "cells.jsonl").stat().st_mtime_ns == stamp
    assert again.tables[0].rows == report.tables[1].rows


def test_every_kind_of_cell_trains(shop: DeclaredProject, tmp_path: Path) -> None:
    command.evaluate(
        shop,
        tables=["table3", "table8", "table6"],
        backbones=["mir", "prm"],
        seeds=1,
        workers=1,
        out=tmp_path,
    )
    report = json.loads((tmp_path / "table8.json").read_text())
    assert len([row for row in report if row["name"].endswith("/auc")]) == 9
    lists = json.loads((tmp_path / "table3.json").read_text())
    assert {row["name"].split("/")[1] for row in lists} == {"mir", "prm"}


def test_the_same_tables_with_workers(shop: DeclaredProject, tmp_path: Path) -> None:
    one, two = (
        command.evaluate(
            shop, tables=["figure5"], seeds=1, workers=workers, out=tmp_path / str(workers)
        )
        for workers in (1, 2)
    )
    assert [len(table.rows) for table in one.tables] == [len(table.rows) for table in two.tables]


def test_other_encoders(shop: DeclaredProject, tmp_path: Path) -> None:
    other = str(static_model(tmp_path / "static"))
    wanted = {"tables": ["table6"], "seeds": 1, "workers": 1, "out": tmp_path / "out"}
    command.evaluate(shop, **wanted)  # type: ignore[arg-type]
    trained = (tmp_path / "out" / "cells.jsonl").read_text()
    command.evaluate(shop, encoders=[other], **wanted)  # type: ignore[arg-type]
    assert (tmp_path / "out" / "cells.jsonl").read_text().startswith(trained)
    rows = json.loads((tmp_path / "out" / "table6.json").read_text())
    named = {row["name"].split("/")[2] for row in rows if row["unit"] == "AUC"}
    assert named >= {"hash", "static"}
    assert shop.lake.read("vectors", VECTORS)["encoder"].unique().to_pylist() == ["hash-32"]
    with pytest.raises(EncodeError, match="sentence-transformers can load"):
        command.evaluate(shop, encoders=[f"{tmp_path}/none"], **wanted)  # type: ignore[arg-type]


def test_learning_rates_are_chosen_on_validation_users(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    wanted = {"tables": ["figure5"], "seeds": 2, "workers": 1, "out": tmp_path}
    command.evaluate(shop, rates=[1e-9, 0.01], **wanted)  # type: ignore[arg-type]
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    cells = [json.loads(line) for line in lines if line]
    tried = [one for one in cells if one["cell"]["scored"] == "validation"]
    assert {(one["cell"]["sides"], one["cell"]["learning_rate"]) for one in tried} == {
        ("none", 1e-9),
        ("none", 0.01),
        ("both", 1e-9),
        ("both", 0.01),
    }
    scores = {(one["cell"]["sides"], one["cell"]["learning_rate"]): one for one in tried}
    final = [one["cell"] for one in cells if one["cell"]["scored"] == "test"]
    assert len(final) == 2 * 4
    for cell in final:
        sides = "none" if cell["sides"] == "none" else "both"
        aucs = {rate: scores[sides, rate]["outcome"]["metrics"]["auc"] for rate in (1e-9, 0.01)}
        assert aucs[cell["learning_rate"]] == max(aucs.values())
    note = "Learning rates, chosen among 1e-09, 0.01 on validation users of the first seed: DIN "
    assert note in (tmp_path / "figure5.md").read_text()

    stamp = (tmp_path / "cells.jsonl").stat().st_mtime_ns
    command.evaluate(shop, rates=[1e-9, 0.01], **wanted)  # type: ignore[arg-type]
    assert (tmp_path / "cells.jsonl").stat().st_mtime_ns == stamp


def test_the_projects_own_rate_trains_nothing_anew(shop: DeclaredProject, tmp_path: Path) -> None:
    own, path = 0.01, shop.declared.path
    path.write_text(path.read_text().replace("Training(", f"Training(learning_rate={own}, "))
    shop = open_project(shop.root)
    wanted = {"tables": ["figure5"], "seeds": 1, "workers": 1, "out": tmp_path}
    command.evaluate(shop, **wanted)  # type: ignore[arg-type]
    before = (tmp_path / "cells.jsonl").read_text()
    command.evaluate(shop, rates=[own], **wanted)  # type: ignore[arg-type]
    added = (tmp_path / "cells.jsonl").read_text().removeprefix(before).split("\n")
    assert [json.loads(line)["cell"]["scored"] for line in added if line] == ["validation"] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rates": [0.003, 0.0, math.nan]}, "a learning rate is .* above 0\n  detail: 0, nan\n"),
        ({"tables": ["table2"], "encoders": ["bge"]}, r"in table6\n  detail: bge for table2\n"),
        ({"tables": ["table9"]}, r"a table is one of table2, .*\n  detail: table9"),
        ({"backbones": ["gpt"]}, r"a backbone is one of dcnv2, .*\n  detail: gpt"),
    ],
)
def test_strange_names(shop: DeclaredProject, given: dict[str, list[object]], message: str) -> None:
    with pytest.raises(EvaluateError, match=message):
        command.evaluate(shop, seeds=1, **given)  # type: ignore[arg-type]


def test_the_projects_own_encoder_is_not_another(shop: DeclaredProject, tmp_path: Path) -> None:
    own = shop.declared.encoder.model
    command.evaluate(shop, tables=["table6"], encoders=[own], seeds=1, workers=1, out=tmp_path)
    cells = (tmp_path / "cells.jsonl").read_text().splitlines()
    assert len(cells) == 2  # without vectors and with them


def test_nothing_is_encoded_yet(tmp_path: Path) -> None:
    with pytest.raises(CondenseError, match="none are stored\n  hint:   reki encode"):
        command.evaluate(make_shop(tmp_path / "new shop"), seeds=1)


def test_vectors_longer_than_the_encoders(tmp_path: Path) -> None:
    long = "select sku, list_transform(range(200), x -> x::double) as vector from 'items.parquet'"
    root = tmp_path / "long shop"
    made = make_shop(root, lambda text: text.replace("Sources(", f'Sources(embeddings="{long}", '))
    stages.generate(made)
    stages.encode(made)
    with pytest.raises(EvaluateError, match=r"at most the encoder's \d+ floats\n  detail: 200"):
        command.evaluate(open_project(root), tables=["figure3"], seeds=1, workers=1)
