"""Training: it learns, stops at the best epoch and follows its seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reki_feast.models.batching import shuffled
from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples, make_samples
from reki_feast.models.inputs import InputSpec
from reki_feast.models.scoring import evaluate, predict
from reki_feast.models.splitting import Split, split_samples
from reki_feast.models.training import few_threads, fit, seeded
from reki_feast.models.training_config import TrainingConfig

ONE = TrainingConfig(epochs=1)


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
    epochs = fit(din, parts.train, parts.validation, config=TrainingConfig(epochs=12, patience=12))
    after = evaluate(din, parts.test)
    assert before.auc < 0.7 < 0.95 < after.auc
    assert after.log_loss < before.log_loss
    assert epochs[-1].loss < epochs[0].loss
    assert after.samples == len(parts.test)


def test_the_same_seed_gives_the_same_weights(parts: Split[Samples]) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        din = model()
        fit(din, parts.train, parts.validation, config=TrainingConfig(epochs=2), seed=seed)
        return [tensor.clone() for tensor in din.state_dict().values()]

    one, two, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_rate_that_is_not_given_follows_the_batches(parts: Split[Samples]) -> None:
    def weights(how: TrainingConfig) -> torch.Tensor:
        din = model()
        fit(din, parts.train, parts.validation, config=how)
        return next(din.parameters()).detach()

    automatic, given = replace(ONE, batch_size=128), replace(ONE, learning_rate=0.00125)
    assert torch.equal(weights(ONE), weights(given))  # of batches of 32
    assert torch.equal(weights(automatic), weights(replace(automatic, learning_rate=0.0025)))
    assert not torch.equal(weights(automatic), weights(replace(given, batch_size=128)))


def test_the_callers_generator_is_left_alone(parts: Split[Samples]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(model(), parts.train, parts.validation, config=TrainingConfig(epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_it_keeps_the_best_epoch_and_stops(parts: Split[Samples]) -> None:
    din = model()
    wild = TrainingConfig(epochs=30, learning_rate=0.05, patience=2)
    epochs = fit(din, parts.train, parts.validation, config=wild)
    losses = [epoch.validation_loss for epoch in epochs]
    assert len(epochs) < 30
    assert len(epochs) == losses.index(min(losses)) + 1 + 2
    assert evaluate(din, parts.validation).log_loss == pytest.approx(min(losses), abs=1e-6)


def test_without_validation_the_last_epoch_is_kept(parts: Split[Samples]) -> None:
    nothing: Samples = parts.validation.take(torch.arange(0))
    din = model()
    epochs = fit(din, parts.train, nothing, config=TrainingConfig(epochs=3, patience=1))
    assert len(epochs) == 3
    assert math.isnan(epochs[0].validation.log_loss)
    assert predict(din, nothing).shape == (0,)


def test_progress_is_told_after_each_batch(parts: Split[Samples]) -> None:
    told: list[tuple[int, int, int]] = []
    few = parts.train.take(torch.arange(10))
    training = TrainingConfig(epochs=2, batch_size=4)
    fit(model(), few, few, config=training, progress=lambda *at: told.append(at))
    assert told == [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3)]


@given(
    users=st.lists(st.integers(1, 6), min_size=1, max_size=60),
    size=st.integers(1, 20),
    user_run=st.integers(1, 5),
)
def test_an_epoch_has_every_row_once_and_users_in_runs(
    users: list[int], size: int, user_run: int
) -> None:
    user = torch.tensor(users)
    with seeded(0):
        batches = shuffled(user, size, user_run=user_run)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(users)))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    _, lengths = torch.unique_consecutive(user[torch.cat(batches)], return_counts=True)
    # as few runs as there can be, but for those that chance laid side by side
    least = sum(-(-users.count(one) // user_run) for one in set(users))
    assert len(lengths) <= least


def test_runs_are_drawn_anew() -> None:
    user = torch.arange(8).repeat_interleave(32)
    with seeded(0):
        first, second = (torch.cat(shuffled(user, 64, user_run=16)) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[:16].sort().values, second[:16].sort().values)


class Deferred(nn.Module):
    """Counts what a model that holds something is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(31))
        self.groups: list[int] = []
        self.released = 0

    def forward(self, batch: Samples) -> torch.Tensor:
        return self.weight[batch.item]

    def precompute(self, batches: Sequence[Samples]) -> None:
        self.groups.append(len(batches))

    def backward_deferred(self) -> None:
        self.released += 1


@pytest.mark.parametrize(("size", "most", "sizes"), [(2, 8, {7, 6}), (2, 3, {3, 1}), (32, 8, {1})])
def test_several_batches_share_a_deferred_pass(
    parts: Split[Samples], size: int, most: int, sizes: set[int]
) -> None:
    model, count = Deferred(), math.ceil(len(parts.train) / size)
    how = TrainingConfig(epochs=1, batch_size=size, deferred_batches=most)
    fit(model, parts.train, parts.validation, config=how)
    assert sum(model.groups) == count
    assert set(model.groups) <= sizes | {count % max(sizes)}
    assert model.released == len(model.groups)


def test_small_batches_take_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for size, threads in ((256, 1), (1024, 2), (8192, 4)):
            with few_threads(size):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
