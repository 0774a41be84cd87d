"""Dice and DIN's attention against plain formulas."""

from __future__ import annotations

import torch

from reki_feast.models.layers import Activation, Dice, Mlp, TargetAttention, activate


def test_dice_in_training_and_after() -> None:
    dice = Dice(size=2)
    with torch.no_grad():
        dice.alpha.fill_(0.25)
    x = torch.tensor([[1.0, 2.0], [3.0, -2.0]])
    standard = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-8).sqrt()
    p = torch.sigmoid(standard)
    torch.testing.assert_close(dice(x), p * x + (1 - p) * 0.25 * x)
    dice.eval()
    running = 0.1 * x.mean(0), 0.9 + 0.1 * x.var(0)
    p = torch.sigmoid((x - running[0]) / (running[1] + 1e-8).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * 0.25 * x)


def test_dice_bears_a_batch_of_one() -> None:
    assert torch.isfinite(Dice(size=2)(torch.ones(1, 2))).all()


def test_attention_is_an_mlp_of_behaviour_target_and_product() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(size=3, behaviour_size=5, hidden_sizes=(4,))
    history, target = torch.randn(2, 5, 5), torch.randn(2, 3)
    mask = torch.tensor([[0.0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    expected = torch.zeros(2, 5)
    for n in range(2):
        for behaviour, there in zip(history[n], mask[n], strict=True):
            units = attention.behaviour(behaviour) + attention.target(target[n])
            units = (units + attention.product(behaviour[:3] * target[n])).unsqueeze(0)
            weight = attention.rest(attention.activation(units))[0]
            expected[n] += weight * there * behaviour
    torch.testing.assert_close(attention(history, target, mask), expected)


def test_mlp_gives_one_number_a_row() -> None:
    names: tuple[Activation, ...] = ("dice", "prelu", "relu")
    for name in names:
        assert Mlp(input_size=3, hidden_sizes=(4, 2), activation=name)(torch.ones(5, 3)).shape == (
            5,
        )
    assert isinstance(activate("relu", 2), torch.nn.ReLU)
