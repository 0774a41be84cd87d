"""What is expected of an interaction: closed forms, ties, and nothing of its future."""

from __future__ import annotations

import numpy as np
import pytest

from reki_feast.models.text_match.interactions import DAY, PRIOR
from tests.models.text_match.logs import HOUR, drawn_log, flipped, log_of


def test_the_users_rate_counts_what_was_strictly_earlier() -> None:
    log = log_of([0, 0, 0, 0], [0, 1, 2, 3], [0, HOUR, HOUR, 2 * HOUR], [1, 1, 0, 1])
    mean = 1 / 2  # nothing on days before
    rates = [mean, (1 + 5) / 11, (1 + 5) / 11, (2 + 5) / 13]
    np.testing.assert_allclose(log.expected, [rate + mean - mean for rate in rates])
    assert PRIOR == 10


def test_items_and_the_mean_count_days_before() -> None:
    log = log_of([0, 1, 2], [5, 5, 5], [DAY - HOUR, DAY - HOUR, DAY], [1, 1, 0])
    mean = (2 + 1) / (2 + 2)
    of_item = (2 + 10 * mean) / 12
    np.testing.assert_allclose(log.expected, [0.5, 0.5, of_item])


def test_what_is_expected_is_kept_off_certainty() -> None:
    log = log_of([0] * 500, [0] * 500, np.arange(500) * DAY, [1] * 500)
    assert log.expected.max() == pytest.approx(0.98)


@pytest.mark.parametrize("step", [HOUR, DAY])
def test_later_labels_change_nothing_that_was_expected_before(step: int) -> None:
    log = drawn_log(step=step)
    since = int(np.median(log.time))
    other = flipped(log, since)
    early = log.time <= since
    assert np.array_equal(log.expected[early], other.expected[early])
    assert not np.array_equal(log.expected, other.expected)
