"""Domains held out in turn: nothing of them is learnt, and what comes of it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from reki_feast import Project
from reki_feast.encoding import vector_array, vector_matrix
from reki_feast.errors import DeclarationError, EvaluateError
from reki_feast.evaluation import domains
from reki_feast.evaluation.domain_data import DomainLog
from reki_feast.evaluation.domain_models import DomainScores, trained_part
from reki_feast.evaluation.domains import DomainFigures, DomainRun, DomainStore, figures
from reki_feast.models.hein import HeinConfig
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import Key
from tests.bench import domains as bench
from tests.stages.conftest import make_shop
from tests.stages.test_new_domains import with_domains

NAMES = ("a", "b", "c")
ITEMS, USERS, ROWS = 30, 40, 1600


def log(seed: int = 0) -> DomainLog:
    """Items of three domains in turn; the first ten interactions of a user feed the prompts."""
    draw = np.random.default_rng(seed)
    user = np.sort(draw.integers(1, USERS + 1, ROWS))
    item = draw.integers(1, ITEMS + 1, ROWS)
    order = np.arange(ROWS)
    rank = order - np.searchsorted(user, user)
    vectors = draw.normal(size=(ITEMS, 6)).astype(np.float32)
    rows = pa.table(
        {
            "user": user,
            "item": item,
            "liked": draw.random(ROWS) < 0.4 + 0.4 * (vectors[item - 1, 0] > 0),
            "order": order,
            "sample": rank >= 10,
        }
    )
    items = pa.table({"item": np.arange(1, ITEMS + 1), "description": vector_array(vectors)})
    domain = pa.array([NAMES[one % 3] if one % 10 else None for one in item])
    config = HeinConfig(hidden_size=8, output_size=4, training=TrainingConfig(epochs=1))
    keys = Key("user", pa.int64()), Key("item", pa.int64())
    return DomainLog(rows, items, domain, *keys, replace(config, forget=0.3), recent=4)


def of_domain(items: torch.Tensor, name: str) -> torch.Tensor:
    numbers = [one for one in range(1, ITEMS + 1) if one % 10 and NAMES[one % 3] == name]
    return torch.isin(items, torch.tensor(numbers))


@pytest.mark.parametrize("name", NAMES)
def test_no_row_title_or_taste_of_a_held_out_domain_is_learnt(name: str) -> None:
    made = log()
    held = made.held_out(name, seed=1)
    assert held.task.items.to_pylist() == [*range(1, ITEMS + 1)]
    for part in (held.others.train, held.others.validation):
        assert not of_domain(part.item, name).any()
        assert not of_domain(part.history, name).any()
    for part in (held.own.train, held.own.validation, held.own.test):
        assert of_domain(part.item, name).all()
        assert not of_domain(part.history, name).any()
        assert len(part)
    # Titles and tastes: other vectors of the domain's items change no user's.
    rows = pc.index_in(made.items["item"], value_set=pa.array([*range(1, ITEMS + 1)])).to_numpy()
    vectors, _ = vector_matrix(made.items["description"])
    own = of_domain(torch.from_numpy(rows + 1), name).numpy()
    vectors = np.where(own[:, None], 99.0, vectors).astype(np.float32)
    others = made.items.set_column(1, "description", vector_array(vectors))
    assert replace(made, items=others).zero_shot(name).users == made.zero_shot(name).users
    # Nor do its labels.
    inside = pc.fill_null(pc.equal(made.domain, name), False)
    liked = pc.if_else(inside, pc.invert(made.interactions["liked"]), made.interactions["liked"])
    flipped = made.interactions.set_column(2, "liked", liked)
    assert replace(made, interactions=flipped).zero_shot(name).users == made.zero_shot(name).users


def test_users_are_learnt_from_or_tested() -> None:
    held = log().held_out("a", seed=2)
    groups = [
        set(torch.cat([others.user, own.user]).tolist())
        for others, own in (
            (held.others.train, held.own.train),
            (held.others.validation, held.own.validation),
            (held.others.test, held.own.test),
        )
    ]
    assert [len(group) for group in groups] == [32, 4, 4]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    together = held.together()[0]
    assert len(together) == len(held.others.train) + len(held.own.train)
    assert (together.user.diff() >= 0).all()


def test_tastes_are_of_knowledge_where_there_is_some() -> None:
    made = log()
    assert made.pairs == (("history", "description"), ("taste", "description"))
    vectors, _ = vector_matrix(made.items["description"])
    known = made.items.append_column("knowledge", vector_array(10 * vectors))
    knowing = replace(made, items=known)
    assert knowing.pairs == (("history", "description"), ("taste", "knowledge"))
    plain, found = made.zero_shot("a"), knowing.zero_shot("a")
    assert found.items.column_names == ["item", "description", "knowledge"]
    assert found.users["history"] == plain.users["history"]
    means, others = (vector_matrix(one.users["taste"])[0] for one in (found, plain))
    np.testing.assert_allclose(means, 10 * others, rtol=1e-5, atol=1e-5)


def test_users_vectors_are_means_of_what_they_met_last() -> None:
    made = log()
    found = made.zero_shot("b").users
    vectors, _ = vector_matrix(made.items["description"])
    rows = made.interactions.append_column("domain", made.domain).to_pylist()
    for user in (1, 7):
        seen = [
            row
            for row in rows
            if row["user"] == user and not row["sample"] and row["domain"] != "b"
        ]
        signs = [(row["item"] - 1, 1 if row["liked"] else -1) for row in seen][-4:]
        history = np.mean([sign * vectors[item] for item, sign in signs], axis=0)
        liked = [row["item"] - 1 for row in seen if row["liked"]][-4:]
        place = found["user"].to_pylist().index(user)
        np.testing.assert_allclose(found["history"][place].as_py(), history, atol=1e-6)
        np.testing.assert_allclose(found["taste"][place].as_py(), vectors[liked].mean(0), atol=1e-6)


def test_small_domains_and_rows_of_none_are_no_domain() -> None:
    assert log().names(least=1) == NAMES
    assert log().names(least=10_000) == ()


def test_what_is_trained_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reki_feast.evaluation.domain_models.COUNTS", (100, 9_999))
    store = DomainStore(tmp_path / "domains.jsonl", log().hash())
    run = DomainRun(("a",), (0,))
    (found,) = figures(log(), run, store)
    scores = found.by_seed[0]
    assert {model: set(found) for model, found in scores.auc.items()} == {
        "base": {"none", "100", "all"},
        "vectors": {"none", "100", "all"},
        "kept": {"100"},
        "like-rate": {"all"},
    }
    assert all(0 <= auc <= 1 for by_learnt in scores.auc.values() for auc in by_learnt.values())
    text = store.path.read_text("utf-8")
    store.path.write_text(text + '\n{"key": "half', "utf-8")
    assert figures(log(), replace(run, is_trained=False), store) == (found,)
    assert figures(log(), replace(run, seeds=(1,), is_trained=False), store)[0].by_seed == {}
    assert trained_part(log(), "a", "fresh", 0, "din").auc == {
        model: {"100": scores.auc[model]["100"]} for model in ("base", "vectors")
    }


def test_gains_are_over_none_and_over_vectors() -> None:
    seeds = {
        seed: DomainScores(
            {
                "base": {"none": 0.6, "5000": 0.7},
                "vectors": {"none": 0.7 + seed / 100, "5000": 0.72},
                "kept": {"5000": 0.75},
            },
            {"kept": {"5000": 4.0}},
        )
        for seed in (0, 1)
    }
    found = DomainFigures("horror", "din", seeds)
    measures = {(m.row, m.metric, m.series): m for m in domains.measures([found])}
    gain = measures[("horror", "with vectors"), "gain", "unseen"]
    assert gain.ours.mean == pytest.approx(0.105)
    assert gain.p is not None
    kept = measures[("horror", "kept model, frozen vectors"), "gain", "5,000 samples"]
    assert kept.ours.mean == pytest.approx(0.03)
    rows = {str(row["name"]): row["ours"] for row in bench.rows([found])}
    assert rows == pytest.approx({"horror_unseen_gain": 0.105, "few_shot_5k_gain": 0.03})
    assert bench.table((found,)).rows[0] == ("horror", "without vectors")
    assert [*domains.notes(())] == []


def test_the_table_of_a_project(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", with_domains)
    shop = Project(project.root)
    shop.generate()
    shop.encode()
    made = shop.evaluate(tables=["domains"], seeds=1)
    (table,) = made.results
    assert {row[0] for row in table.rows} == {"chair", "lamp"}
    assert {path.name for path in made.files} >= {"domains.md", "domains.json", "domains.png"}
    assert shop.evaluate(tables=["domains"], seeds=1).results == made.results
    path = project.root / "generators" / "shop.py"
    text = path.read_text("utf-8")
    path.write_text(text.replace("least=100", "least=100_000"), "utf-8")
    with pytest.raises(EvaluateError, match="none has, of column kind"):
        shop.evaluate(tables=["domains"])
    path.write_text(text.split("\ndomains =")[0], "utf-8")
    with pytest.raises(DeclarationError, match="declares no Domains"):
        shop.evaluate(tables=["domains"])


@pytest.mark.parametrize(
    ("genres", "domain"),
    [("Action, Horror", "horror"), ("Children's, Drama", "family"), ("Unknown", None)],
)
def test_a_films_domain(genres: str, domain: str | None) -> None:
    assert bench.domain_of(genres) == domain
