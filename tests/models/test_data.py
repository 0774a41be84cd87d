"""Samples, splits and categorical fields, as tables in and out."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from reki_feast.errors import CondenseError
from reki_feast.models.data import make_samples
from reki_feast.models.fields import make_fields
from reki_feast.models.splitting import Holdout, later, split_held_out, split_samples


def interactions(*rows: tuple[Any, Any, bool, int, bool]) -> pa.Table:
    names = ["user", "item", "liked", "order", "sample"]
    return pa.table(
        dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
    )


def test_histories_are_the_interactions_before() -> None:
    table = interactions(
        ("b", "x", True, 1, True),
        ("a", "z", True, 30, True),
        ("a", "x", True, 10, False),
        ("a", "y", False, 20, True),
        ("a", "x", False, 40, True),
    )
    made = make_samples(table, user="user", item="item", history_length=2)
    assert made.users.to_pylist() == ["a", "b"]
    assert made.items.to_pylist() == ["x", "y", "z"]
    samples = made.samples
    assert samples.user.tolist() == [1, 1, 1, 2]
    assert samples.item.tolist() == [2, 3, 1, 1]
    assert samples.history.tolist() == [[0, 1], [1, 2], [2, 3], [0, 0]]
    assert samples.history_verdict.tolist() == [[0, 2], [2, 1], [1, 2], [0, 0]]
    assert samples.label.tolist() == [0, 1, 0, 1]
    assert later(samples.user).tolist() == [2, 1, 0, 0]


def test_rows_of_the_test_are_in_no_history() -> None:
    table = interactions(
        ("a", "x", True, 10, False),
        ("a", "t", True, 15, True),
        ("a", "y", False, 20, True),
        ("a", "u", False, 25, True),
        ("b", "x", True, 5, True),
        ("c", "y", True, 1, True),
    )
    table = table.append_column("held_out", pa.array([False, True, False, True, True, False]))
    made = make_samples(table, user="user", item="item", history_length=2)
    items = made.items.to_pylist()
    assert [items[n - 1] for n in made.samples.item.tolist()] == ["y", "t", "u", "x", "y"]
    x, y = items.index("x") + 1, items.index("y") + 1
    assert made.samples.history.tolist() == [[0, x], [x, y], [x, y], [0, 0], [0, 0]]
    assert made.samples.history_verdict.tolist() == [[0, 2], [2, 1], [2, 1], [0, 0], [0, 0]]
    assert made.held_out is not None
    assert made.held_out.tolist() == [False, True, True, True, False]


def test_a_split_with_declared_rows_of_the_test() -> None:
    table = many(30)
    tested = pa.array([n % 3 == 0 or n < 20 for n in range(table.num_rows)])
    made = make_samples(table.append_column("held_out", tested), user="user", item="item")
    assert made.held_out is not None
    parts = split_held_out(made.samples, made.held_out, validation=0.1, seed=0)
    assert len(parts.test) == sum(tested.to_pylist())
    # the first two users have no other rows, so they are drawn for nothing else
    assert set(parts.test.user.tolist()) == set(range(1, 31))
    validated, learnt = (set(one.user.tolist()) for one in (parts.validation, parts.train))
    assert (len(validated), validated & learnt) == (3, set())
    assert validated | learnt == set(range(3, 31))
    again = split_held_out(made.samples, made.held_out, validation=0.1, seed=1)
    assert set(again.validation.user.tolist()) != validated


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [(u, i, (u + i) % 2 == 0, i, i > 1) for u in range(4) for i in range(5)]
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    one = make_samples(interactions(*rows), user="user", item="item").samples
    two = make_samples(interactions(*shuffled), user="user", item="item").samples
    assert torch.equal(one.history, two.history)
    assert torch.equal(one.label, two.label)


@pytest.mark.parametrize("missing", ["user", "item", "liked", "order", "sample"])
def test_a_missing_column(missing: str) -> None:
    table = interactions((1, 2, True, 3, True)).drop_columns([missing])
    with pytest.raises(CondenseError, match=f"'{missing}' is missing from"):
        make_samples(table, user="user", item="item")


def test_null_ids_and_no_samples() -> None:
    with pytest.raises(CondenseError, match=r"'user' is never null\n.*1 nulls"):
        make_samples(interactions((None, 2, True, 3, True)), user="user", item="item")
    with pytest.raises(CondenseError, match="none of them a sample"):
        make_samples(interactions((1, 2, True, 3, False)), user="user", item="item")


def test_no_python_runs_for_a_sample() -> None:
    draw = np.random.default_rng(0)
    n = 250_000
    table = pa.table(
        {
            "user": draw.integers(0, 6040, n),
            "item": draw.integers(0, 3706, n),
            "liked": draw.random(n) < 0.5,
            "order": np.arange(n),
            "sample": draw.random(n) < 0.85,
        }
    )
    began = time.process_time()
    made = make_samples(table, user="user", item="item")
    assert time.process_time() - began < 5  # about 0.5; a million take 2.5
    assert len(made.samples) == table["sample"].to_numpy().sum()


def many(users: int) -> pa.Table:
    return interactions(*[(u, i, i % 2 == 0, i, True) for u in range(users) for i in range(10)])


@pytest.mark.parametrize(
    ("users", "sizes"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (12, (10, 1, 1)), (100, (81, 9, 10))],
)
def test_split_by_users(users: int, sizes: tuple[int, int, int]) -> None:
    samples = make_samples(many(users), user="user", item="item").samples
    parts = split_samples(samples, holdout="users", test=0.1, validation=0.1, seed=0)
    owners = [set(part.user.tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert tuple(len(part) for part in owners) == sizes
    assert len(set.union(*owners)) == users


def test_split_by_time_tests_on_everybodys_last_samples() -> None:
    samples = make_samples(many(20), user="user", item="item").samples
    order = replace(samples, item=later(samples.user))  # to find the rows again
    parts = split_samples(order, holdout="latest", test=0.2, validation=0.1, seed=0)
    assert len(parts.test) == 20 * 2
    assert parts.test.item.max() == 1
    assert parts.train.item.min() == parts.validation.item.min() == 2
    assert len(parts.validation) == 2 * 8


@pytest.mark.parametrize("holdout", ["users", "latest"])
def test_a_split_follows_its_seed(holdout: Holdout) -> None:
    samples = make_samples(many(40), user="user", item="item").samples

    def validation(seed: int) -> list[int]:
        parts = split_samples(samples, holdout=holdout, test=0.1, validation=0.1, seed=seed)
        return parts.validation.user.unique().tolist()  # type: ignore[no-any-return]

    assert validation(1) == validation(1) != validation(2)


def test_fields_number_categories_and_leave_0_for_the_absent() -> None:
    table = pa.table({"item": ["x", "y", "z"], "genre": ["war", None, "war"], "year": [1, 2, 3]})
    ids = pa.array(["z", "w", "x"])
    fields = make_fields(table, "item", ids, ["genre", "year"])
    assert fields.codes.tolist() == [[0, 0], [1, 3], [0, 0], [1, 1]]
    assert fields.sizes == (2, 4)


def test_lists_are_padded_codes() -> None:
    lists = pa.array([["b", None, "a"], None, ["c", "?"], []])
    table = pa.table({"sku": [1, 2, 3, 4], "kinds": lists, "one": ["x", "y", "x", None]})
    books = {"kinds": pa.array(["a", "b", "c"]), "one": pa.array(["y"])}
    ids = pa.array([3, 1, 9, 4])
    fields = make_fields(table, "sku", ids, ["kinds", "one"], vocabularies=books)
    assert (fields.sizes, fields.widths) == ((4, 2), (3, 1))
    assert fields.codes.tolist() == [[0] * 4, [3, 0, 0, 0], [2, 0, 1, 0], [0] * 4, [0] * 4]


def test_a_list_counts_up_to_its_64th_value() -> None:
    table = pa.table({"sku": [1, 2], "kinds": [[str(n) for n in range(70)], ["3"]]})
    fields = make_fields(table, "sku", pa.array([2, 1]), ["kinds"])
    assert fields.codes[1:, :2].tolist() == [[4, 0], [1, 2]]
    assert fields.codes.shape == (3, 64)
    assert int(fields.codes.max()) == 64


def verdicts(*ratings: float | None) -> tuple[list[int], int]:
    """The verdicts on one user's interactions as the last sample's history has them."""
    table = interactions(*[("u", n, True, n, True) for n in range(len(ratings) + 1)])
    table = table.append_column("rating", pa.array([*ratings, None], pa.float64()))
    made = make_samples(table, user="user", item="item", history_length=len(ratings))
    return made.samples.history_verdict[-1].tolist(), made.verdicts


@pytest.mark.parametrize(
    ("ratings", "codes", "count"),
    [
        ((1.0, 5.0, 4.5, 1.0), [1, 3, 2, 1], 5),
        ((5.0, None, 1.0), [2, 3, 1], 4),
        ((None, None), [2, 2], 3),
    ],
)
def test_histories_show_ratings_where_there_are_any(
    ratings: tuple[float | None, ...], codes: list[int], count: int
) -> None:
    assert verdicts(*ratings) == (codes, count)


def test_fine_ratings_are_binned() -> None:
    codes, count = verdicts(*np.linspace(0, 1, 100).tolist())
    assert count == 18
    assert codes == sorted(codes)
    assert set(codes) == set(range(1, 17))
