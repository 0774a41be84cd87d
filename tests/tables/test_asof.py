"""What held at a time, against a loop over all rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.tables.asof import earlier, place_at, place_before

small = st.integers(0, 3)
ROWS = st.lists(st.tuples(small, small), max_size=8).map(sorted)
VALUED = st.lists(st.tuples(small, small, st.integers(0, 9)))
ASKED = st.lists(st.tuples(small, st.integers(-1, 4)), min_size=1, max_size=6)


@given(ROWS, ASKED)
def test_places_are_those_of_a_loop(
    rows: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    keys, times = np.array(rows, np.int64).reshape(-1, 2).T
    key, time = np.array(asked, np.int64).T
    before = [sum(row < one for row in rows) for one in asked]
    assert place_before(keys, times, key, time).tolist() == before
    at = [
        max((n for n, row in enumerate(rows) if row[0] == k and row[1] <= t), default=-1)
        for k, t in asked
    ]
    assert place_at(keys, times, key, time).tolist() == at


@given(VALUED)
def test_earlier_rows_are_those_of_a_loop(rows: list[tuple[int, int, int]]) -> None:
    key, time, value = np.array(rows, np.int64).reshape(-1, 3).T
    found = zip(*earlier(key, time, value.astype(np.float64)), strict=True)
    expected = [
        [one for other, when, one in rows if (other, when < time) == (key, True)]
        for key, time, _ in rows
    ]
    assert list(found) == [(len(values), sum(values)) for values in expected]
