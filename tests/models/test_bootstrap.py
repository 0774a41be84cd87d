"""AUC over resampled users against scikit-learn's weighted AUC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from reki_feast.models import bootstrap
from reki_feast.models.bootstrap import resampled_auc

ROUNDS = 40


@pytest.mark.parametrize("levels", [4, 10**9], ids=["ties", "no ties"])
def test_a_resample_is_a_weighted_auc(levels: int) -> None:
    draw = np.random.default_rng(0)
    users, labels = draw.integers(0, 30, 500), draw.random(500) < 0.4
    score = np.floor(draw.random(500) * levels)
    found = resampled_auc([score, -score], labels, users, rounds=ROUNDS, seed=1)
    codes, owner = np.unique(users, return_inverse=True)
    chunks = bootstrap._resample_counts(len(codes), ROUNDS, np.random.default_rng(1))
    counts = np.concatenate(list(chunks))
    assert counts.shape == (ROUNDS, 30)
    assert (counts == 0).any()
    for number, weights in enumerate(counts[:, owner]):
        expected = roc_auc_score(labels, score, sample_weight=weights)
        assert found[0, number] == pytest.approx(expected)
        assert found[1, number] == pytest.approx(1 - expected)


def test_a_resample_of_one_class_has_no_auc() -> None:
    found = resampled_auc([np.array([0.0, 1.0])], [False, True], [0, 1], rounds=50)
    assert set(np.unique(np.isnan(found))) == {False, True}
    assert (found[~np.isnan(found)] == 1).all()
