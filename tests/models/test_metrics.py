"""AUC and log loss against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from reki_feast.models.metrics import auc, log_loss

samples = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9])), min_size=2
).filter(lambda rows: len({label for label, _ in rows}) == 2)


@settings(deadline=None, max_examples=50)
@given(samples)
def test_auc_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    labels, scores = zip(*rows, strict=True)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


@settings(deadline=None, max_examples=50)
@given(samples)
def test_log_loss_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    labels, scores = zip(*rows, strict=True)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    assert log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, clipped))


def test_a_hundred_thousand_samples() -> None:
    draw = np.random.default_rng(0)
    labels, scores = draw.random(100_000) < 0.3, draw.random(100_000).astype(np.float32)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("labels", [[], [1, 1], [0]])
def test_auc_of_one_class_is_not_defined(labels: list[int]) -> None:
    assert math.isnan(auc(labels, [0.5] * len(labels)))


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_log_loss_of_one_class(labels: list[int]) -> None:
    assert log_loss(labels, [0.5, 0.5]) == pytest.approx(math.log(2))


def test_log_loss_of_nothing_of_nan_and_of_certain_mistakes() -> None:
    assert math.isnan(log_loss([], []))
    assert math.isnan(log_loss([1, 0], [math.nan, 0.5]))
    assert log_loss([1], [0.0]) == pytest.approx(16.118, abs=1e-3)


def test_lengths_differ() -> None:
    with pytest.raises(ValueError, match="as many labels as scores: 1 and 2"):
        auc([1], [0.1, 0.2])
