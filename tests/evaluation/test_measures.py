"""Statistics over seeds beside closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, Stat, gain, stat


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # t of 2 degrees of freedom has the closed form p = 1 - |t| / sqrt(t² + 2);
        # mean 2, deviation 1: t = 2 sqrt 3
        ([1.0, 2.0, 3.0], 1 - math.sqrt(12 / 14)),
        ([-1.0, -2.0, -3.0], 1 - math.sqrt(12 / 14)),
        ([-1.0, 0.0, 1.0], 1.0),
        # of 1 degree of freedom p = 1 - 2 atan(t) / pi; mean 2, deviation sqrt 2: t = 2
        ([1.0, 3.0], 1 - 2 * math.atan(2) / math.pi),
    ],
)
def test_p_of_a_paired_t_test(differences: list[float], p: float) -> None:
    before = {seed: 10.0 * seed for seed in range(len(differences))}
    after = {seed: before[seed] + more for seed, more in enumerate(differences)}
    assert gain(before, after)[1] == pytest.approx(p)


@pytest.mark.parametrize("differences", [[0.5], [0.5, 0.5], [0.0, 0.0]])
def test_no_p_where_nothing_varies(differences: list[float]) -> None:
    after = dict(enumerate(differences))
    found, p = gain(dict.fromkeys(after, 0.0), after)
    assert found.mean == differences[0]
    assert p is None


def test_only_seeds_that_both_have_count() -> None:
    found, _ = gain({0: 1.0, 1: 2.0, 7: 99.0}, {1: 5.0, 0: 2.0, 8: -99.0})
    assert found == Stat(2.0, math.sqrt(2), 2)
    with pytest.raises(ValueError, match="a seed in both"):
        gain({0: 1.0}, {1: 1.0})


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(-1e3, 1e3))
def test_a_shift_moves_the_mean_alone(values: list[float], by: float) -> None:
    here, there = stat(values), stat(value + by for value in values)
    assert there.mean == pytest.approx(here.mean + by, abs=1e-6)
    assert there.std == pytest.approx(here.std, abs=1e-6)


def test_a_column_without_measures_is_not_shown() -> None:
    table = ResultTable(
        "t",
        "T",
        ("row",),
        (
            ResultColumn("AUC", "AUC"),
            ResultColumn("of REKI-I", "AUC", "REKI-I"),
            ResultColumn("paper", "AUC", show="reference"),
            ResultColumn("p", "AUC", show="p"),
        ),
        (Measure(("a",), "AUC", stat([0.5]), "score", "AUC"),),
    )
    assert [column.head for column in table.shown()] == ["AUC", "p"]
