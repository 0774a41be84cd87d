"""Users drawn from a long log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from reki_feast.schema import Key
from reki_feast.tables.drawn import drawn_users

KEYS = [Key("who", pa.int64()), Key("who", pa.string())]


def log(key: Key, rows: int) -> pa.Table:
    """Rows of a log that begins alike, whatever its length; users of unlike activity."""
    draw = np.random.default_rng(0)
    return pa.table({"who": pa.array(draw.zipf(1.6, 5_000)[:rows] % 400)}).cast(
        pa.schema([key.field])
    )


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("most", [None, 5_000, 10_000])
def test_of_a_log_that_is_short_enough_all_are_taken(key: Key, most: int | None) -> None:
    assert drawn_users(log(key, 5_000), key, most, 0) is None


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("most", [100, 1_000, 4_999])
def test_drawn_users_have_as_many_interactions_as_may_be(key: Key, most: int) -> None:
    rows = log(key, 5_000)
    drawn = drawn_users(rows, key, most, 0)
    assert drawn is not None
    assert drawn.type == key.type
    assert drawn.to_pylist() == sorted(set(drawn.to_pylist()))
    counts = dict(zip(*np.unique(rows["who"].to_pylist(), return_counts=True), strict=True))
    taken = sum(counts[one] for one in drawn.to_pylist())
    assert most - max(counts.values()) < taken <= most


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_longer_log_draws_the_same_users_or_fewer(key: Key) -> None:
    few, many = (drawn_users(log(key, rows), key, 1_000, 3) for rows in (2_000, 5_000))
    assert few is not None
    assert many is not None
    there = set(log(key, 2_000)["who"].to_pylist())
    assert set(many.to_pylist()) & there <= set(few.to_pylist())
    assert 0 < len(set(many.to_pylist()) & there) < len(few)


def test_another_seed_draws_others() -> None:
    key = KEYS[0]
    one, other = (drawn_users(log(key, 5_000), key, 1_000, seed) for seed in (0, 1))
    assert one is not None
    assert not one.equals(other)


def test_one_user_is_drawn_at_least() -> None:
    rows = pa.table({"who": [7] * 10})
    drawn = drawn_users(rows, KEYS[0], 3, 0)
    assert drawn is not None
    assert drawn.to_pylist() == [7]
