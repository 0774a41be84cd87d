"""Knowledge made elsewhere: groups and their members, texts of entities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import pipeline, schema
from reki_feast.errors import KnowledgeError
from reki_feast.project import Project
from tests.pipeline.conftest import T0, make_shop


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    return make_shop(tmp_path, lambda text: text[: text.index("customers =")])


def parquet(folder: Path, name: str, **columns: Sequence[object]) -> str:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def groups(folder: Path) -> dict[str, str]:
    users = [f"c'{n}" for n in range(30)]
    return {
        "groups": parquet(
            folder,
            "knowledge",
            kind=["item", "user_liked", "user_disliked"],
            group_id=[1, 1, 1],
            text=["1. Price: low\n2. Style: plain", "likes lamps", "dislikes chairs"],
            model=["m"] * 3,
        ),
        "item_groups": parquet(folder, "ig", sku=[f"s-{n}" for n in range(20)], group_id=[1] * 20),
        "user_groups": parquet(
            folder, "ug", customer_id=users, liked_group_id=[1] * 30, disliked_group_id=[1] * 30
        ),
    }


def test_groups_serve_their_members(shop: Project, tmp_path: Path) -> None:
    report = pipeline.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    rows = report.plain()["tables"]["imported"]
    assert [(r["kind"], r["channel"], r["texts"], r["members"]) for r in rows] == [
        ("user", "liked", 1, 30),
        ("user", "disliked", 1, 30),
        ("item", "knowledge", 1, 20),
    ]
    again = pipeline.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    assert "0 texts and 0 memberships are new" in again.title


def test_imported_knowledge_becomes_vectors(shop: Project, tmp_path: Path) -> None:
    pipeline.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    pipeline.run(shop)
    manifest = shop.lake.read_json("manifest")
    assert manifest is not None
    assert manifest["user"]["channels"] == ["liked", "disliked", "history"]
    key = schema.Key("customer_id", pa.string())
    made = schema.entity_knowledge(key, ["price", "style"])
    row = shop.lake.read("user_knowledge", made).to_pylist()[0]
    assert row["group"] == "liked:1, disliked:1"
    assert row["text"] == "Liked:\nlikes lamps\n\nDisliked:\ndislikes chairs"


def test_texts_of_entities(shop: Project, tmp_path: Path) -> None:
    file = parquet(tmp_path, "texts", sku=["s-1", "s-2"], price=["low", "high"])
    report = pipeline.import_knowledge(shop, {"items": file}, as_of=[T0])
    assert report.plain()["tables"]["imported"][0]["texts"] == 2


@pytest.mark.parametrize("confirmed", ["true", "false"])
def test_factors_of_the_file_name_columns_too(tmp_path: Path, confirmed: str) -> None:
    def edit(text: str) -> str:
        return text[: text.index("customers =")].replace(', factors=["price", "style"]', "")

    shop = make_shop(tmp_path, edit)
    file = parquet(tmp_path, "texts", sku=["s-1", "s-2"], mood=["low", "high"])
    with pytest.raises(KnowledgeError, match="name a column `text`$"):
        pipeline.import_knowledge(shop, {"items": file}, as_of=[T0])
    shop.factors_path.write_text(f"confirmed: {confirmed}\nfactors: [price, mood]\n")
    pipeline.import_knowledge(shop, {"items": file}, as_of=[T0])
    stored = shop.lake.read("knowledge", schema.KNOWLEDGE)
    assert stored["factors"].to_pylist() == [[("mood", "low")], [("mood", "high")]]


def test_a_wrong_shape_stores_nothing(shop: Project, tmp_path: Path) -> None:
    bad = groups(tmp_path)
    bad["groups"] = parquet(tmp_path, "bad", kind=["item"], group_id=[1], words=["x"])
    with pytest.raises(KnowledgeError, match="text"):
        pipeline.import_knowledge(shop, bad, as_of=[T0])
    assert not shop.lake.parts("knowledge")
    assert not shop.lake.parts("members")


def test_what_is_missing_is_named(shop: Project, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"(?s)as-of time.*--as-of"):
        pipeline.import_knowledge(shop, groups(tmp_path))
    with pytest.raises(KnowledgeError, match=r"(?s)something to import.*--groups"):
        pipeline.import_knowledge(shop, {}, as_of=[T0])
    with pytest.raises(KnowledgeError, match=r"(?s)comes with the groups.*--groups"):
        pipeline.import_knowledge(
            shop, {"user_groups": groups(tmp_path)["user_groups"]}, as_of=[T0]
        )
