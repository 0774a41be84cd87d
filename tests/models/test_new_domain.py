"""What a model does without ids, and how a trained one goes on with others."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from reki_feast.models.click import CTR
from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples
from reki_feast.models.domain_head import DomainHead, fit_head
from reki_feast.models.hein import FitOptions, HeinConfig, HeinData, fingerprint, fit_hein
from reki_feast.models.inputs import InputLayer, InputSpec
from reki_feast.models.new_domain import few, fit_few, for_items, on_stored_vectors, rate_scores
from reki_feast.models.splitting import Split
from reki_feast.models.trained_backbone import TrainedBackbone
from reki_feast.models.training import fit
from reki_feast.models.training_config import TrainingConfig
from tests.models.hein.test_fit import films, viewers, watched
from tests.models.test_inputs import GENRES, samples

HOW = HeinConfig(hidden_size=16, output_size=4, training=TrainingConfig(epochs=1))
DATA = HeinData(watched(12), viewers(12), films())


def drawn(count: int, items: int, seed: int = 0) -> Samples:
    draw = np.random.default_rng(seed)
    item = draw.integers(1, items + 1, count).tolist()
    made = samples(item, draw.integers(0, items + 1, (count, 4)).tolist())
    label = torch.from_numpy(draw.integers(0, 2, count).astype(np.float32))
    return replace(made, user=torch.arange(count) // 5 + 1, label=label)


def test_forgotten_ids_are_zero_wherever_they_are_in_a_batch() -> None:
    layer = InputLayer(InputSpec(items=3, item_fields=GENRES, forget=0.5), size=2)
    torch.manual_seed(0)
    batch = samples([1, 2, 1], [[0, 2], [3, 1], [2, 3]])
    found = layer.train()(batch)
    whole = layer.eval()(batch)
    forgotten = {
        number: bool((found.item[row, :2] == 0).all()) for row, number in enumerate([1, 2, 1])
    }
    assert set(forgotten.values()) == {True, False}
    for row, history in enumerate([[0, 2], [3, 1], [2, 3]]):
        for place, number in enumerate(history):
            if number in forgotten:
                wanted = torch.zeros(2) if forgotten[number] else layer.item.weight[number]
                torch.testing.assert_close(found.behaviours[row, place, :2], wanted)
    torch.testing.assert_close(found.item[:, 2:], whole.item[:, 2:])  # fields stay
    torch.testing.assert_close(found.mask, whole.mask)


def test_a_share_of_ids_is_forgotten_in_training_alone() -> None:
    layer = InputLayer(InputSpec(items=4_000, forget=0.3), size=2)
    batch = samples([*range(1, 4_001)], [[0]] * 4_000)
    torch.manual_seed(0)
    zero = (layer.train()(batch).item == 0).all(1).float().mean().item()
    assert zero == pytest.approx(0.3, abs=0.03)
    assert not (layer.eval()(batch).item == 0).all(1).any()


def test_ids_that_are_never_learnt_are_zero() -> None:
    train, validation = drawn(200, 8), drawn(50, 8, seed=1)
    for forget, unlearnt in ((0.3, True), (0.0, False)):
        model = Din(InputSpec(items=10, forget=forget))
        fit(model, train, validation, config=TrainingConfig(epochs=1))
        weight = model.inputs.item.weight
        assert bool((weight[9:] == 0).all()) is unlearnt
        assert not (weight[1:9] == 0).all(1).any()


def test_without_forgetting_nothing_is_drawn_and_weights_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def weights(config: HeinConfig) -> str:
        options = FitOptions(seed=3, compare=False)
        return fingerprint(fit_hein(DATA, config=config, options=options))

    now, forgetful = weights(HOW), weights(replace(HOW, forget=0.3))
    monkeypatch.setattr(InputLayer, "_forgetful", lambda self, table: table)
    monkeypatch.setattr(InputLayer, "begin", lambda self, train: None)
    assert weights(HOW) == now != forgetful


@pytest.mark.parametrize("name", CTR)
def test_a_trained_model_knows_the_items_that_it_learnt(name: str) -> None:
    torch.manual_seed(0)
    model = CTR[name](InputSpec(items=4, extra_sizes=(3, 3))).eval()
    old = TrainedBackbone(model, pa.array(["a", "b", "c", "d"]), (), (3, 3))
    new = for_items(old, pa.array(["c", "x", "a"]))
    batch = samples([1, 3, 1], [[0, 3], [1, 3], [3, 1]])  # of c and a
    before = samples([3, 1, 3], [[0, 1], [3, 1], [1, 3]])
    extras = [torch.randn(3, 3), torch.randn(3, 3)]
    torch.testing.assert_close(new.model.eval()(batch, extras), model(before, extras))
    assert (new.model.inputs.item.weight[2] == 0).all()
    assert len(model.inputs.item.weight) == 5


def test_going_on_leaves_vectors_and_the_model_of_before() -> None:
    torch.manual_seed(0)
    model = Din(InputSpec(items=8, extra_sizes=(3, 3), forget=0.3))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    tables = {"user": torch.randn(50, 3), "item": torch.randn(9, 3)}
    start = on_stored_vectors(model, {"user": tables["user"], "item": tables["item"]})
    assert model.inputs.forget == 0.3
    made = fit_few(start, few(drawn(200, 8), None, seed=1), seed=1)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    after: Any = made.model
    assert torch.equal(after.user_aug, tables["user"])
    assert torch.equal(after.item_aug, tables["item"])
    assert not torch.equal(after.backbone.deep.layers[0].weight, before["deep.layers.0.weight"])
    again = fit_few(start, few(drawn(200, 8), None, seed=1), seed=1)
    assert (again.loss, again.rate) == (made.loss, made.rate)


def test_some_samples_are_drawn_by_a_seed_and_stay_by_user() -> None:
    parts = few(drawn(100, 8), 50, seed=4)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [40, 10, 0]
    assert (parts.train.user.diff() >= 0).all()
    assert isinstance(parts, Split)
    other = few(drawn(100, 8), 50, seed=5)
    assert not torch.equal(parts.train.item, other.train.item)


def test_like_rates_lean_to_the_mean() -> None:
    item, label = torch.tensor([1, 1, 1, 2]), torch.tensor([1.0, 1, 0, 0])
    found = rate_scores((item, label), torch.tensor([1, 2, 3]), shrink=2.0)
    torch.testing.assert_close(found, torch.tensor([3 / 5, 1 / 3, 1 / 2]))


def test_a_head_is_a_logistic_regression_of_floats_and_products() -> None:
    torch.manual_seed(0)
    user, item = torch.randn(4_000, 2), torch.randn(4_000, 2)
    true = 0.3 + user @ torch.tensor([1.0, -0.5]) + 2 * user[:, 0] * item[:, 0] - item[:, 1]
    target = torch.bernoulli(torch.sigmoid(true))
    head = fit_head(user, item, target)
    assert head == fit_head(user, item, target)
    assert head.user == pytest.approx((1.0, -0.5), abs=0.25)
    assert head.product == pytest.approx((2.0, 0.0), abs=0.25)
    by_hand = [
        head.bias
        + sum(w * x for w, x in zip(head.user, u, strict=True))
        + sum(w * x for w, x in zip(head.item, i, strict=True))
        + sum(w * x * y for w, x, y in zip(head.product, u, i, strict=True))
        for u, i in zip(user[:5].tolist(), item[:5].tolist(), strict=True)
    ]
    assert head.scores(user[:5], item[:5]).tolist() == pytest.approx(by_hand, abs=1e-5)
    assert all(math.isfinite(x) for x in (head.bias, *head.item))
    raw = {"bias": 1, "user": [1], "item": [2], "product": [3]}
    assert DomainHead.from_json(raw) == DomainHead(1.0, (1.0,), (2.0,), (3.0,))
