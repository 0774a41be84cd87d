"""Training: it learns, stops at the best epoch and follows its seed."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
import torch

from reki_feast.recommend.ctr.din import Din
from reki_feast.recommend.data import Samples, Split, make_samples, split_samples
from reki_feast.recommend.inputs import InputSpec
from reki_feast.recommend.train import Training, evaluate, fit, predict, seeded


@pytest.fixture(scope="module")
def parts() -> Split[Samples]:
    """Users of two tastes: an item is liked when its parity is the user's."""
    rows = [
        (user, (user * 7 + step * 5) % 30, ((user * 7 + step * 5) % 2) == user % 2, step, step > 3)
        for user in range(60)
        for step in range(20)
    ]
    names = ["user", "item", "liked", "order", "sample"]
    table = pa.table(
        dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
    )
    samples = make_samples(table, user="user", item="item").samples
    return split_samples(samples, holdout="users", test=0.2, validation=0.2, seed=0)


def model() -> Din:
    with seeded(0):
        return Din(InputSpec(items=30), size=8)


def test_it_learns_a_taste_that_only_the_history_tells(parts: Split[Samples]) -> None:
    din = model()
    before = evaluate(din, parts.test)
    epochs = fit(din, parts.train, parts.validation, training=Training(epochs=12, patience=12))
    after = evaluate(din, parts.test)
    assert before.auc < 0.7 < 0.95 < after.auc
    assert after.log_loss < before.log_loss
    assert epochs[-1].loss < epochs[0].loss
    assert after.samples == len(parts.test)


def test_the_same_seed_gives_the_same_weights(parts: Split[Samples]) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        din = model()
        fit(din, parts.train, parts.validation, training=Training(epochs=2), seed=seed)
        return [tensor.clone() for tensor in din.state_dict().values()]

    one, two, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_callers_generator_is_left_alone(parts: Split[Samples]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(model(), parts.train, parts.validation, training=Training(epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_it_keeps_the_best_epoch_and_stops(parts: Split[Samples]) -> None:
    din = model()
    wild = Training(epochs=30, learning_rate=0.05, patience=2)
    epochs = fit(din, parts.train, parts.validation, training=wild)
    losses = [epoch.validation.log_loss for epoch in epochs]
    assert len(epochs) < 30
    assert len(epochs) == losses.index(min(losses)) + 1 + 2
    assert evaluate(din, parts.validation).log_loss == pytest.approx(min(losses))


def test_without_validation_the_last_epoch_is_kept(parts: Split[Samples]) -> None:
    nothing: Samples = parts.validation.take(torch.arange(0))
    din = model()
    epochs = fit(din, parts.train, nothing, training=Training(epochs=3, patience=1))
    assert len(epochs) == 3
    assert math.isnan(epochs[0].validation.log_loss)
    assert predict(din, nothing).shape == (0,)


def test_progress_is_told_after_each_batch(parts: Split[Samples]) -> None:
    told: list[tuple[int, int, int]] = []
    few = parts.train.take(torch.arange(10))
    training = Training(epochs=2, batch_size=4)
    fit(model(), few, few, training=training, progress=lambda *at: told.append(at))
    assert told == [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3)]
