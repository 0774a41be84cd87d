"""Lists to rerank, as tables in and out."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.errors import CondenseError
from reki_feast.models.data import make_samples
from reki_feast.models.lists import ListOptions, Lists, ListSet, make_lists


def interactions(*rows: tuple[Any, Any, bool, int, bool]) -> pa.Table:
    names = ["user", "item", "liked", "order", "sample"]
    return pa.table(
        dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
    )


def made(table: pa.Table, **how: Any) -> ListSet:
    return make_lists(table, user="user", item="item", options=ListOptions(**how))


def candidates(lists: Lists) -> list[dict[int, float]]:
    """The label of each candidate, a dict a list."""
    return [
        dict(zip(items, labels, strict=True))
        for items, labels in zip(lists.item.tolist(), lists.label.tolist(), strict=True)
    ]


WALK = interactions(
    ("b", 1, True, 1, True),
    ("a", 5, True, 50, True),
    ("a", 1, False, 10, False),
    ("a", 2, True, 20, True),
    ("a", 4, True, 40, True),
    ("a", 3, False, 30, True),
)


def test_rows_of_the_test_have_lists_of_their_own() -> None:
    tested = pa.array([False, True, False, False, True, False])
    table = WALK.append_column("held_out", tested)
    found = made(table, history_length=2, list_length=3, block_length=2)
    assert found.held_out is not None
    assert (found.lists.user.tolist(), found.held_out.tolist()) == ([1, 1, 2], [False, True, False])
    own = [{k for k, v in one.items() if v} for one in candidates(found.lists)]
    assert own == [{2}, {4, 5}, {1}]
    # item 1, then 2; of the rest 2, then 3
    assert found.lists.history.tolist() == [[0, 1], [2, 3], [0, 0]]


def test_a_block_of_samples_is_a_list() -> None:
    found = made(WALK, history_length=2, list_length=3, block_length=3)
    assert found.users.to_pylist() == ["a", "b"]
    assert found.items.to_pylist() == [1, 2, 3, 4, 5]
    assert (found.verdicts, found.levels) == (3, ())
    lists = found.lists
    assert lists.user.tolist() == [1, 1, 2]
    assert candidates(lists)[0] == {2: 1, 3: 0, 4: 1}
    rest = [{k: v for k, v in one.items() if v} for one in candidates(lists)[1:]]
    assert rest == [{5: 1}, {1: 1}]
    assert lists.history.tolist() == [[0, 1], [3, 4], [0, 0]]
    assert lists.history_verdict.tolist() == [[0, 1], [1, 2], [0, 0]]
    assert [len(set(row)) for row in lists.item.tolist()] == [3, 3, 3]


def test_histories_are_those_of_the_first_samples() -> None:
    rows = [(u, (7 * u + n) % 30, n % 3 == 0, n, n > 4) for u in range(5) for n in range(20)]
    table = interactions(*rows)
    lists = made(table, history_length=6, block_length=4).lists
    samples = make_samples(table, user="user", item="item", history_length=6).samples
    firsts = torch.tensor([15 * u + n for u in range(5) for n in (0, 4, 8, 12)])
    for name in ("user", "history", "history_verdict"):
        assert torch.equal(getattr(lists, name), getattr(samples, name)[firsts])


@settings(deadline=None, max_examples=30)
@given(
    walks=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    length=st.integers(1, 6),
    data=st.data(),
)
def test_every_sample_is_in_one_list(walks: list[int], length: int, data: st.DataObject) -> None:
    taken = data.draw(st.integers(1, length))
    rows = [(0, item, False, item, item == 0) for item in range(12)]
    rows += [(u, n, n % 2 == 0, n, True) for u, count in enumerate(walks, 1) for n in range(count)]
    lists = made(interactions(*rows), list_length=length, block_length=taken).lists
    counts = [1, *(count for count in walks if count)]
    expected = [u for u, count in enumerate(counts, 1) for _ in range(0, count, taken)]
    assert lists.user.tolist() == expected
    assert lists.item.shape == lists.label.shape == (len(expected), length)
    assert all(len(set(row)) == length for row in lists.item.tolist())
    assert lists.label.sum() == sum((count + 1) // 2 for count in walks)
    assert 1 <= int(lists.item.min()) <= int(lists.item.max()) <= 12


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    rows = WALK.take(pa.array([4, 0, 5, 2, 3, 1]))
    one, two = made(WALK, list_length=4).lists, made(rows, list_length=4).lists
    other = made(WALK, list_length=4, seed=1).lists
    assert all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(Lists))
    assert not torch.equal(one.item, other.item)
    assert torch.equal(one.history, other.history)


def test_drawn_items_and_places_are_uniform() -> None:
    users = 4000
    rows: list[tuple[Any, Any, bool, int, bool]] = [(u, 1, True, 0, True) for u in range(users)]
    rows += [(-1, item, False, item, False) for item in range(1, 9)]
    lists = made(interactions(*rows), list_length=5, block_length=1).lists
    drawn = Counter(lists.item[lists.item != 1].tolist())
    places = Counter(lists.label.argmax(dim=1).tolist())
    assert sorted(drawn) == [2, 3, 4, 5, 6, 7, 8]
    # Standard deviations: 31 and 25.
    assert all(abs(count - users * 4 / 7) < 150 for count in drawn.values())
    assert all(abs(places[place] - users / 5) < 125 for place in range(5))


def test_an_item_met_twice_in_a_block_stays() -> None:
    rows = [("a", 1, True, 0, True), ("a", 1, False, 1, True), ("a", 2, False, 2, False)]
    table = interactions(*rows, ("a", 3, False, 3, False))
    lists = made(table, list_length=3, block_length=2).lists
    items, labels = lists.item[0].tolist(), lists.label[0].tolist()
    assert items.count(1) == 2
    assert sum(labels) == 1


def test_a_part_of_the_lists() -> None:
    lists = made(WALK, list_length=3, block_length=3).lists
    part = lists.take(torch.tensor([2, 0]))
    assert len(part) == 2
    assert all(
        torch.equal(getattr(part, f.name)[1], getattr(lists, f.name)[0]) for f in fields(part)
    )


def test_levels_are_those_of_samples() -> None:
    table = WALK.append_column("rating", pa.array([5.0, 4.0, 1.0, 3.0, 4.0, 2.0]))
    found = made(table, history_length=2, list_length=3, block_length=3)
    assert (found.levels, found.verdicts) == ((1, 2, 3, 4, 5), 7)
    assert found.lists.history_verdict.tolist() == [[0, 1], [2, 4], [0, 0]]
    given = made(table, list_length=4, levels=(1.0, 4.0))
    assert (given.levels, given.verdicts) == ((1.0, 4.0), 4)


def test_what_cannot_be_a_list() -> None:
    with pytest.raises(CondenseError, match="6 different items\n.*5 items in all"):
        made(WALK, list_length=6)
    with pytest.raises(CondenseError, match="none of them a sample"):
        made(interactions(("a", 1, True, 0, False)))
    for taken in (0, 4):
        with pytest.raises(ValueError, match=f"a block of a list has 1 to 3 candidates: {taken}"):
            made(WALK, list_length=3, block_length=taken)


def test_no_python_runs_for_a_list() -> None:
    draw = np.random.default_rng(0)
    n = 200_000
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
    lists = made(table).lists
    assert time.process_time() - began < 5  # about 0.5
    assert lists.label.sum() == np.count_nonzero(table["liked"].to_numpy() & table["sample"])
