"""Knowledge made elsewhere: groups and their members, texts of entities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.cli import app
from reki_feast.errors import KnowledgeError
from reki_feast.project import DeclaredProject
from tests.stages.conftest import T0, make_shop


@pytest.fixture
def shop(tmp_path: Path) -> DeclaredProject:
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


def test_groups_serve_their_members(shop: DeclaredProject, tmp_path: Path) -> None:
    report = stages.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    rows = report.plain()["tables"]["imported"]
    assert [(r["kind"], r["channel"], r["texts"], r["members"]) for r in rows] == [
        ("user", "liked", 1, 30),
        ("user", "disliked", 1, 30),
        ("item", "knowledge", 1, 20),
    ]
    again = stages.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    assert "0 texts and 0 memberships are new" in again.title


def test_imported_knowledge_becomes_vectors(shop: DeclaredProject, tmp_path: Path) -> None:
    stages.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    stages.run(shop)
    manifest = shop.lake.read_json("manifest")
    assert manifest is not None
    assert manifest["user"]["channels"] == ["liked", "disliked", "history"]
    key = schema.Key("customer_id", pa.string())
    made = schema.entity_knowledge(key, ["price", "style"])
    row = shop.lake.read("user_knowledge", made).to_pylist()[0]
    assert row["group"] == "liked:1, disliked:1"
    assert row["text"] == "Liked:\nlikes lamps\n\nDisliked:\ndislikes chairs"


def test_texts_of_entities(shop: DeclaredProject, tmp_path: Path) -> None:
    file = parquet(tmp_path, "texts", sku=["s-1", "s-2"], price=["low", "high"])
    report = stages.import_knowledge(shop, {"items": file}, as_of=[T0])
    assert report.plain()["tables"]["imported"][0]["texts"] == 2


@pytest.mark.parametrize("confirmed", ["true", "false"])
def test_factors_of_the_file_name_columns_too(tmp_path: Path, confirmed: str) -> None:
    def edit(text: str) -> str:
        return text[: text.index("customers =")].replace(', factors=["price", "style"]', "")

    shop = make_shop(tmp_path, edit)
    file = parquet(tmp_path, "texts", sku=["s-1", "s-2"], mood=["low", "high"])
    with pytest.raises(KnowledgeError, match="name a column `text`$"):
        stages.import_knowledge(shop, {"items": file}, as_of=[T0])
    shop.factors_path.write_text(f"confirmed: {confirmed}\nfactors: [price, mood]\n")
    stages.import_knowledge(shop, {"items": file}, as_of=[T0])
    stored = shop.lake.read("knowledge", schema.KNOWLEDGE)
    assert stored["factors"].to_pylist() == [[("mood", "low")], [("mood", "high")]]


GOOD = "Cheap and plain things for a small flat, such as lamps and folding chairs, number {}."
BAD = {
    "c'1": "2.",
    "c'2": "基于用户喜欢的产品，推断出以下信息：用户喜欢便宜的灯具和椅子。",
    "c'3": "It is not possible to determine the preferences of this customer.",
}


def customers(folder: Path, **said: str) -> dict[str, str]:
    """A file of texts of 30 customers, some of them as given."""
    ids = [f"c'{n}" for n in range(30)]
    texts = [{**BAD, **said}.get(one, GOOD.format(one)) for one in ids]
    return {"users": parquet(folder, "users", customer_id=ids, text=texts)}


def known_users(shop: DeclaredProject) -> set[str]:
    return set(shop.lake.read("knowledge", schema.KNOWLEDGE)["owner"].to_pylist())


def test_texts_that_fail_a_gate_are_quarantined_and_listed(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    report = stages.import_knowledge(shop, customers(tmp_path), as_of=[T0])
    tables = report.plain()["tables"]
    assert report.title == "shop: 27 texts and 0 memberships are new, 3 texts are quarantined"
    assert report.failed == 0
    assert report.next == ["reki quality", "reki encode"]
    assert any("--no-gates" in note for note in report.notes)
    assert known_users(shop) == {f"c'{n}" for n in range(30)} - BAD.keys()
    [row] = tables["imported"]
    assert (row["texts"], row["quarantined"], row["members"]) == (27, 3, 0)
    listed = {row["owner"]: (row["gate"], row["fault"]) for row in tables["imported examples"]}
    assert listed == {
        "c'1": ("length", "it has fewer than 3 characters"),
        "c'2": ("language", "it is in Chinese, not in English"),
        "c'3": ("refusal", "it declines to answer"),
    }


def test_quality_covers_imported_texts(shop: DeclaredProject, tmp_path: Path) -> None:
    assert stages.quality(shop).title == "shop: 0 answers, 0 quarantined"
    stages.import_knowledge(shop, customers(tmp_path), as_of=[T0])
    stages.import_knowledge(shop, groups(tmp_path), as_of=[T0])
    report = stages.quality(shop)
    tables = report.plain()["tables"]
    assert report.title == ("shop: 0 answers, 0 quarantined; 30 imported texts, 3 quarantined")
    rows = {(row["kind"], row["channel"]): row for row in tables["imported"]}
    assert rows["user", "knowledge"]["quarantined"] == 3
    assert rows["user", "knowledge"]["texts"] == 27
    assert rows["item", "knowledge"]["coverage"] == 1.0
    assert {row["gate"]: row["quarantined"] for row in tables["imported gates"]} == {
        "length": 1,
        "language": 1,
        "refusal": 1,
    }
    assert len(tables["imported examples"]) == 3
    assert report.next == []


def test_importing_again_adds_nothing_and_a_mended_text_leaves_quarantine(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    stages.import_knowledge(shop, customers(tmp_path), as_of=[T0])
    again = stages.import_knowledge(shop, customers(tmp_path), as_of=[T0])
    assert again.title.startswith("shop: 0 texts and 0 memberships are new, 3 texts")
    assert len(shop.lake.parts("imported")) == 1
    mended = customers(tmp_path, **{"c'1": GOOD.format("one")})
    stages.import_knowledge(shop, mended, as_of=[T0])
    assert "c'1" in known_users(shop)
    assert "28 imported texts, 2 quarantined" in stages.quality(shop).title


def test_without_gates_all_texts_are_taken(shop: DeclaredProject, tmp_path: Path) -> None:
    stages.import_knowledge(shop, customers(tmp_path), as_of=[T0])
    words = ["import-knowledge", "--project", str(shop.root), "--as-of", T0.isoformat()]
    words += ["--users", customers(tmp_path)["users"], "--no-gates"]
    assert app.main(words) == app.DONE
    assert len(known_users(shop)) == 30
    assert "30 imported texts, 0 quarantined" in stages.quality(shop).title


def test_a_generic_text_is_quarantined_whatever_model_is_declared(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    many = {f"c'{n}": "Well made products at a fair price." for n in range(4, 14)}
    stages.import_knowledge(shop, customers(tmp_path, **many), as_of=[T0])
    assert "17 imported texts, 13 quarantined" in stages.quality(shop).title


def test_members_of_a_quarantined_group_get_the_default_vector(
    shop: DeclaredProject, tmp_path: Path
) -> None:
    files = groups(tmp_path)
    files["groups"] = parquet(
        tmp_path,
        "with a refusal",
        kind=["item", "user_liked", "user_disliked"],
        group_id=[1, 1, 1],
        text=["1. Price: low\n2. Style: plain", "likes lamps", "Please provide the products."],
    )
    report = stages.import_knowledge(shop, files, as_of=[T0])
    rows = report.plain()["tables"]["imported"]
    assert [(r["channel"], r["texts"], r["quarantined"], r["members"]) for r in rows] == [
        ("liked", 1, 0, 30),
        ("disliked", 0, 1, 30),
        ("knowledge", 1, 0, 20),
    ]
    stages.run(shop)
    manifest = shop.lake.read_json("manifest")
    assert manifest is not None
    assert manifest["user"]["channels"] == ["liked", "history"]


def test_a_wrong_shape_stores_nothing(shop: DeclaredProject, tmp_path: Path) -> None:
    bad = groups(tmp_path)
    bad["groups"] = parquet(tmp_path, "bad", kind=["item"], group_id=[1], words=["x"])
    with pytest.raises(KnowledgeError, match="text"):
        stages.import_knowledge(shop, bad, as_of=[T0])
    assert not shop.lake.parts("knowledge")
    assert not shop.lake.parts("members")


def test_what_is_missing_is_named(shop: DeclaredProject, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"(?s)as-of time.*--as-of"):
        stages.import_knowledge(shop, groups(tmp_path))
    with pytest.raises(KnowledgeError, match=r"(?s)something to import.*--groups"):
        stages.import_knowledge(shop, {}, as_of=[T0])
    with pytest.raises(KnowledgeError, match=r"(?s)comes with the groups.*--groups"):
        stages.import_knowledge(shop, {"user_groups": groups(tmp_path)["user_groups"]}, as_of=[T0])
