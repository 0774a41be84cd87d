"""HEIN against the paper's equation 3, written out with plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reki_feast.models.hein.network import Hein, HeinSet


def expert(hein: Hein, number: int, r: list[float]) -> list[float]:
    """e(r): an MLP with ReLU between its two layers."""
    w1, b1 = hein.first_weight[number].tolist(), hein.first_bias[number].tolist()
    w2, b2 = hein.second_weight[number].T.tolist(), hein.second_bias[number].tolist()
    hidden = [
        max(0.0, sum(w * x for w, x in zip(row, r, strict=True)) + b)
        for row, b in zip(w1, b1, strict=True)
    ]
    return [
        sum(w * h for w, h in zip(row, hidden, strict=True)) + b
        for row, b in zip(w2, b2, strict=True)
    ]


def equation_3(
    hein: Hein, numbers: list[int], gate: torch.nn.Linear, r: list[float]
) -> list[float]:
    """Sum over e in S_s and the side's own experts of alpha_e * e(r), alpha = softmax(g(r))."""
    outputs = [expert(hein, number, r) for number in numbers]
    scores = [
        sum(w * x for w, x in zip(row, r, strict=True)) + b
        for row, b in zip(gate.weight.tolist(), gate.bias.tolist(), strict=True)
    ]
    total = sum(math.exp(score) for score in scores)
    alpha = [math.exp(score) / total for score in scores]
    return [
        sum(a * output[o] for a, output in zip(alpha, outputs, strict=True))
        for o in range(len(outputs[0]))
    ]


def small(shared: int = 2, user: int = 3, item: int = 1) -> Hein:
    torch.manual_seed(0)
    return Hein(
        input_size=5,
        shared_experts=shared,
        user_experts=user,
        item_experts=item,
        hidden_size=4,
        output_size=3,
    )


@pytest.mark.parametrize("sizes", [(2, 3, 1), (1, 1, 1), (0, 2, 2), (2, 0, 3)])
def test_equation_3(sizes: tuple[int, int, int]) -> None:
    hein = small(*sizes)
    r = torch.randn(6, 5)
    shared, own, count = sizes[0], sizes[1], sum(sizes)
    users = [equation_3(hein, [*range(own + shared)], hein.user_gate, row) for row in r.tolist()]
    items = [equation_3(hein, [*range(own, count)], hein.item_gate, row) for row in r.tolist()]
    torch.testing.assert_close(hein.user(r), torch.tensor(users))
    torch.testing.assert_close(hein.item(r), torch.tensor(items))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (0, 5)])
def test_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    hein = small()
    r = torch.randn(*shape)
    assert hein.user(r).shape == (*shape[:-1], 3)
    if r.dim() == 3:
        torch.testing.assert_close(hein.user(r)[1, 2], hein.user(r[1, 2]))


def test_shared_experts_learn_from_both_sides_and_own_ones_from_theirs() -> None:
    hein = small()
    hein.user(torch.randn(4, 5)).sum().backward()  # 3 of the user's own, 2 shared, 1 of the item's
    assert hein.first_weight.grad is not None
    moved = hein.first_weight.grad.abs().sum((1, 2)) > 0
    assert moved.tolist() == [True] * 5 + [False]


def test_sizes_of_the_paper_are_the_defaults() -> None:
    hein = Hein(input_size=384)
    shapes = [tuple(p.shape) for p in (hein.first_weight, hein.second_weight)]
    assert shapes == [(2 + 4 + 4, 128, 384), (2 + 4 + 4, 128, 32)]
    assert hein.user_gate.out_features == hein.item_gate.out_features == 6


def test_dropout_only_in_training() -> None:
    torch.manual_seed(0)
    hein = Hein(input_size=5, dropout=0.5)
    r = torch.randn(3, 5)
    assert not torch.equal(hein.user(r), hein.user(r))
    hein.eval()
    assert torch.equal(hein.user(r), hein.user(r))


def test_a_side_without_experts() -> None:
    with pytest.raises(ValueError, match="at least one expert: shared 0, user 2, item 0"):
        small(0, 2, 0)
    with pytest.raises(TypeError, match="positional"):
        Hein(5)  # type: ignore[call-arg]


def test_set_joins_the_outputs_of_its_pairs() -> None:
    torch.manual_seed(0)
    pairs = [("liked", "knowledge"), ("history", "knowledge"), ("history", "description")]
    heins = HeinSet(pairs=pairs, input_size=5, output_size=3, hidden_size=4)
    assert heins.size == 9
    assert heins.channels("user") == ("liked", "history")
    assert heins.channels("item") == ("knowledge", "description")
    users = {"liked": torch.randn(2, 5), "history": torch.randn(2, 5)}
    mean, scale = torch.arange(5.0), 2.0
    heins.set_standardisation("user", "history", mean, scale)
    out = heins.user(users)

    def alone(pair: int, r: Tensor) -> Tensor:
        hein = heins.heins[pair]
        assert isinstance(hein, Hein)
        return hein.user(r)

    standard = (users["history"] - mean) / scale
    torch.testing.assert_close(out[:, :3], alone(0, users["liked"]))
    torch.testing.assert_close(out[:, 3:6], alone(1, standard))
    torch.testing.assert_close(out[:, 6:], alone(2, standard))


def test_means_and_scales_travel_with_the_weights() -> None:
    heins = HeinSet(pairs=[("history", "knowledge")], input_size=2)
    assert {"user_mean", "user_scale", "item_mean", "item_scale"} < set(heins.state_dict())


def test_a_set_reads_principal_components() -> None:
    torch.manual_seed(0)
    heins = HeinSet(pairs=[("history", "knowledge")], input_size=4, components=2, output_size=3)
    basis = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    heins.set_standardisation("item", "knowledge", torch.ones(4), 2.0, basis)
    read = heins.standardise("item", "knowledge", torch.tensor([[3.0, 7.0, 5.0, 9.0]]))
    assert read.tolist() == [[3.0, 1.0]]
    assert heins.item({"knowledge": torch.randn(6, 4)}).shape == (6, 3)
    assert {"user_basis", "item_basis"} < set(heins.state_dict())
