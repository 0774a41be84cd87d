"""Whether columns help in time: closed forms, the bootstrap, and logs whose gain is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.errors import EvaluateError
from reki_feast.models import temporal_gain as in_time
from reki_feast.models.bootstrap import resampled_auc, two_sided
from reki_feast.models.metrics import auc
from reki_feast.models.temporal_gain import (
    Schedule,
    TemporalGains,
    TimedLabels,
    noise,
    score_auc,
    share_found,
    temporal_gain,
)

HOUR, DAY = 3_600_000_000, 86_400_000_000


class Log:
    """Likes by a plain column and a hidden one, of sixty users."""

    def __init__(self, seed: int, rows: int = 4_000) -> None:
        rng = np.random.default_rng(seed)
        self.plain, self.hidden = rng.standard_normal((2, rows, 1), np.float32)
        self.users = rng.integers(0, 60, rows)
        self.times = rng.integers(0, 1_000, rows)
        odds = np.exp(self.plain + self.hidden)[:, 0]
        self.labels = rng.random(rows) < odds / (1 + odds)

    def gains(self, sets: dict[str, npt.NDArray[np.float32]], **how: Any) -> TemporalGains:
        return temporal_gain(
            self.plain, sets, TimedLabels(self.labels, self.users, self.times), **how
        )


def test_a_column_that_tells_helps_and_noise_does_not() -> None:
    log = Log(0)
    found = log.gains({"hidden": log.hidden, "noise": noise(4_000, 2, seed=1)})
    hidden, chance = found.sets
    assert (hidden.name, hidden.width, chance.name, chance.width) == ("hidden", 1, "noise", 2)
    for model in (hidden.logistic, hidden.trees):
        assert model.gain > 0.05
        assert model.p < 0.05
    assert abs(chance.logistic.gain) < 0.01
    assert hidden.logistic.plain == chance.logistic.plain


def test_noise_is_seldom_taken_for_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_time, "TREES", 20)
    ps = []
    for seed in range(8):
        found = Log(seed, rows=1_000).gains({"noise": noise(1_000, 1, seed)}, rounds=200)
        ps += [found.sets[0].logistic.p, found.sets[0].trees.p]
    assert np.mean(np.array(ps) > 0.05) > 0.7


def test_the_last_rows_in_time_are_tested() -> None:
    log = Log(0, rows=500)
    log.times = np.repeat([3, 1, 2, 5, 4], 100)
    found = log.gains({}, rounds=10)
    assert (found.cut, found.train, found.test, found.rows, found.sampled) == (5, 400, 100, 500, 0)
    assert found.test_users == len(np.unique(log.users[log.times == 5]))
    assert log.gains({}, test=0.3, rounds=10).cut == 4


def test_a_label_of_the_future_trains_nothing() -> None:
    """Flip all labels tested: every AUC turns over and no more."""
    log = Log(1, rows=1_000)
    before = log.gains({"hidden": log.hidden}, rounds=10).sets[0]
    log.labels[log.times >= np.quantile(log.times, 0.8)] ^= True
    after = log.gains({"hidden": log.hidden}, rounds=10).sets[0]
    for one, other in ((before.logistic, after.logistic), (before.trees, after.trees)):
        assert (other.plain, other.ours) == pytest.approx((1 - one.plain, 1 - one.ours))


def test_columns_may_be_empty_or_have_holes() -> None:
    log = Log(2, rows=1_000)
    log.plain[::7] = np.nan
    found = log.gains({"nothing": np.full((1_000, 1), np.nan, np.float32)}, rounds=10)
    assert found.sets[0].logistic.gain == 0
    assert found.sets[0].trees.gain == 0
    assert found.sets[0].trees.p == 1


def test_of_a_long_log_some_users_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_time, "MOST_ROWS", 800)
    log = Log(3, rows=2_000)
    found = log.gains({}, rounds=10)
    assert found.sampled
    assert 600 < found.train + found.test <= 800
    assert log.gains({}, rounds=10) == found
    monkeypatch.setattr(in_time, "MOST_ROWS", 1)
    assert log.gains({}, rounds=10).test_users == 1


@pytest.mark.parametrize("labels", [[True] * 10, [False] * 10, [True, False] * 4 + [True] * 2])
def test_one_class_is_not_enough(labels: list[bool]) -> None:
    plain, row = np.zeros((10, 1), np.float32), np.arange(10)
    with pytest.raises(EvaluateError, match="takes liked and other rows"):
        temporal_gain(plain, {}, TimedLabels(labels, row, row))


def test_noise_is_the_same_for_a_seed() -> None:
    assert noise(5, 3, 0).shape == (5, 3)
    assert np.array_equal(noise(5, 3, 0), noise(5, 3, 0))
    assert not np.array_equal(noise(5, 3, 0), noise(5, 3, 1))


def test_score_on_some_rows() -> None:
    score, labels = [0.1, 0.9, np.nan, 0.5, 0.2], [0, 1, 1, 0, 1]
    assert score_auc(score, labels, [1, 1, 1, 0, 0]) == 1
    assert score_auc(score, labels, [0, 0, 1, 1, 1]) == 0
    assert np.isnan(score_auc(score, labels, [0, 0, 1, 0, 0]))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 5)), min_size=1, max_size=30
    ),
    st.integers(0, 99),
)
def test_resamples_are_aucs_of_rows_as_often_as_their_users_are_drawn(
    rows: list[tuple[int, bool, int]], seed: int
) -> None:
    users, labels, score = (np.array(part) for part in zip(*rows, strict=True))
    codes = np.unique(users)
    drawn = np.random.default_rng(seed).integers(0, len(codes), (3, len(codes)))
    expected = []
    for draw in drawn:
        places = np.concatenate([np.flatnonzero(users == codes[one]) for one in draw])
        expected.append(auc(labels[places], score[places]))
    found = resampled_auc([score], labels, users, rounds=3, seed=seed)
    np.testing.assert_allclose(found[0], expected)


def test_scores_share_their_resamples() -> None:
    log = Log(4, rows=300)
    score = log.plain[:, 0]
    found = resampled_auc([score, 2 * score, -score], log.labels, log.users, rounds=40)
    np.testing.assert_allclose(found[0], found[1])
    np.testing.assert_allclose(found[0], 1 - found[2])
    # sixty users drawn with replacement: the spread is about that of the mean
    assert found[0].std() == pytest.approx(0.03, abs=0.01)
    assert found[0].mean() == pytest.approx(auc(log.labels, score), abs=0.02)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0] * 99, 2 / 100),
        ([-1.0] * 99, 2 / 100),
        ([1.0] * 97 + [-1.0] * 2, 6 / 100),
        ([1.0, -1.0], 1.0),
        ([0.0] * 9, 1.0),
        ([1.0, float("nan")], 1.0),
        ([], 1.0),
    ],
)
def test_two_sided(differences: list[float], p: float) -> None:
    assert two_sided(differences) == pytest.approx(p)


# user, item, time
VISITS = [
    (1, 1, 0),
    (2, 2, 1),
    (1, 2, HOUR),  # both known since before this hour, not since before this day
    (1, 1, DAY),
    (2, 1, DAY + HOUR + 2),
    (3, 1, DAY + HOUR + 3),  # nobody knows the user
    (3, 2, DAY + HOUR + 5),  # known since this hour
    (3, 2, 2 * DAY),
    (4, 4, 2 * DAY),
    (4, 4, 2 * DAY),  # at one time with the first
]


@pytest.mark.parametrize(
    ("cut", "schedule", "found"),
    [
        (0, "event", 5 / 10),
        (HOUR, "event", 5 / 8),
        (0, "hourly", 4 / 10),
        (0, "nightly", 3 / 10),
        (2 * DAY, "nightly", 1 / 3),
        (DAY + HOUR + 3, "hourly", 1 / 5),
    ],
)
def test_share_found(cut: int, schedule: Schedule, found: float) -> None:
    users, items, times = np.array(VISITS).T
    assert share_found(users, items, times, cut, schedule) == pytest.approx(found)


def test_no_later_rows_no_share() -> None:
    users, items, times = np.array(VISITS).T
    assert np.isnan(share_found(users, items, times, 3 * DAY, "event"))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3 * DAY)), min_size=1)
)
def test_more_runs_find_more(visits: list[tuple[int, int, int]]) -> None:
    users, items, times = np.array(visits).T
    shares = [
        share_found(users, items, times, 0, schedule) for schedule in ("nightly", "hourly", "event")
    ]
    assert shares == sorted(shares)
