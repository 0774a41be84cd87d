"""Running features beside closed forms, and what they may not know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.models.running_features import Running, running
from reki_feast.tables.asof import earlier


def column(found: Running, name: str) -> list[float]:
    return [round(float(x), 6) for x in found.columns[:, found.names.index(name)]]


# user, item, time, rating; a like is 4 or 5
LOG = np.array([(7, 1, 10, 5), (7, 2, 20, 1), (9, 1, 20, 3), (7, 1, 30, 4)])


def features(log: npt.NDArray[np.int64] = LOG, *, stars: bool = True) -> Running:
    user, item, when, rating = log.T
    return running(user, item, when, rating >= 4, rating if stars else None)


def test_closed_forms() -> None:
    found = features()
    assert found.columns.dtype == np.float32
    assert column(found, "user_count") == [0, 1, 0, 2]
    assert column(found, "item_count") == [0, 0, 1, 2]
    # rates lean on 1 of 1, and last on 1 of 3, with the weight of ten
    assert column(found, "user_rate")[1:] == pytest.approx([11 / 11, 1, (1 + 10 / 3) / 12])
    assert column(found, "item_rate")[1:] == pytest.approx([1, 11 / 11, (1 + 10 / 3) / 12])
    assert column(found, "user_mean")[1:] == pytest.approx([5, 5, (6 + 30) / 12])
    assert column(found, "item_mean")[1:] == pytest.approx([5, 5, (8 + 30) / 12])
    # the first rating had no usual one to be above of; the second lay 4 below it
    assert column(found, "user_kindness") == pytest.approx([0, 0, 0, -4 / 12])


def test_without_ratings_likes_are_kind() -> None:
    found = features(stars=False)
    assert found.names == (
        *("user_count", "user_rate", "item_count", "item_rate", "user_kindness"),
    )
    assert column(found, "user_kindness") == pytest.approx([0, 0, 0, -1 / 12], abs=1e-6)


def test_where_nothing_is_earlier_no_mean_is_known() -> None:
    found = features()
    assert column(found, "user_kindness")[0] == 0
    named = [
        name for name, value in zip(found.names, found.columns[0], strict=True) if value != value
    ]
    assert named == ["user_rate", "user_mean", "item_rate", "item_mean"]
    assert np.isfinite(found.columns[1:]).all()


@pytest.mark.parametrize(
    ("when", "counts", "sums"),
    [
        ([1, 2, 3, 4], [0, 1, 0, 2], [0, 1, 0, 3]),
        ([1, 1, 1, 2], [0, 0, 0, 2], [0, 0, 0, 3]),
        ([5, 5, 5, 5], [0, 0, 0, 0], [0, 0, 0, 0]),
        ([4, 3, 2, 1], [2, 1, 0, 0], [10, 8, 0, 0]),
    ],
)
def test_rows_of_one_time_do_not_see_each_other(
    when: list[int], counts: list[float], sums: list[float]
) -> None:
    key, value = np.array([3, 3, 5, 3]), np.array([1.0, 2, 4, 8])
    count, total = earlier(key, np.array(when), value)
    assert (count.tolist(), total.tolist()) == (counts, sums)


def test_no_rows() -> None:
    assert features(LOG[:0]).columns.shape == (0, 7)


ROWS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 8), st.integers(1, 5))
LOGS = st.lists(ROWS, min_size=1, max_size=40).map(lambda rows: np.array(rows, np.int64))


@given(log=LOGS, at=st.integers(0, 8), others=st.lists(st.integers(1, 5), min_size=40, max_size=40))
def test_no_feature_knows_a_label_of_its_time_or_later(
    log: npt.NDArray[np.int64], at: int, others: list[int]
) -> None:
    later = log[:, 2] >= at
    flipped = log.copy()
    flipped[later, 3] = np.array(others)[: len(log)][later]
    known = log[:, 2] <= at
    before, after = (features(given_).columns[known] for given_ in (log, flipped))
    assert before.tobytes() == after.tobytes()


@given(log=LOGS, seed=st.integers(0, 9))
def test_the_order_of_the_rows_says_nothing(log: npt.NDArray[np.int64], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(log))
    assert features(log[order]).columns.tobytes() == features(log).columns[order].tobytes()
