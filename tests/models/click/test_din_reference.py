"""DIN's attention against those of torch-rechub and FuxiCTR, their weights folded into ours.

Theirs read (target, behaviour, target - behaviour, target * behaviour); ours has no difference: its
weights add to the target's and are taken from the behaviour's.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reki_feast.models.layers import TargetAttention

SIZE = 3


def fold(ours: TargetAttention, weight: Tensor, bias: Tensor) -> None:
    """Give ours the first layer ``[h, 4 s]`` of theirs, which knows of items alone."""
    target, behaviour, difference, product = weight.split(SIZE, dim=1)
    with torch.no_grad():
        ours.behaviour.weight.zero_()
        ours.behaviour.weight[:, :SIZE] = behaviour - difference
        ours.behaviour.bias.copy_(bias)
        ours.target.weight.copy_(target + difference)
        ours.product.weight.copy_(product)


def fold_norm(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A linear layer and the normalisation after it, as one linear layer."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return linear.weight * scale[:, None], (linear.bias - norm.running_mean) * scale + norm.bias


def compare(ours: TargetAttention, expected: Tensor, history: Tensor, *rest: Tensor) -> None:
    more = ours.behaviour.in_features - SIZE
    wide = torch.cat([history, torch.randn(*history.shape[:2], more)], dim=-1)
    torch.testing.assert_close(ours(wide, *rest)[:, :SIZE], expected)


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("hidden", [[6], [6, 4]])
def test_fuxictr(hidden: list[int], more: int) -> None:
    fuxictr = pytest.importorskip("fuxictr.pytorch.layers.attentions")
    torch.manual_seed(0)
    theirs = fuxictr.DIN_Attention(
        embedding_dim=SIZE, attention_units=hidden, hidden_activations="prelu"
    )
    linears = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear)]
    slopes = [layer for layer in theirs.modules() if isinstance(layer, nn.PReLU)]
    ours = TargetAttention(size=SIZE, behaviour_size=SIZE + more, hidden_sizes=hidden)
    fold(ours, linears[0].weight, linears[0].bias)
    adopt(ours, linears[1:], slopes)
    history, target = torch.randn(4, 5, SIZE), torch.randn(4, SIZE)
    mask = (torch.arange(5) >= torch.tensor([0, 2, 4, 5]).unsqueeze(1)).float()
    compare(ours, theirs(target, history, mask), history, target, mask)


@pytest.mark.parametrize("hidden", [[6], [6, 4]])
def test_torch_rechub(hidden: list[int]) -> None:
    rechub = pytest.importorskip("torch_rechub.models.ranking.din")
    torch.manual_seed(0)
    theirs = rechub.ActivationUnit(SIZE, dims=hidden, activation="prelu").eval()
    norms = [layer for layer in theirs.modules() if isinstance(layer, nn.BatchNorm1d)]
    for norm in norms:
        for values in (norm.running_mean, norm.weight, norm.bias):
            nn.init.normal_(values)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    linears = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear)]
    folded = [fold_norm(*pair) for pair in zip(linears, norms, strict=False)]
    slopes = [layer for layer in theirs.modules() if isinstance(layer, nn.PReLU)]
    ours = TargetAttention(size=SIZE, behaviour_size=SIZE, hidden_sizes=hidden)
    fold(ours, *folded[0])
    adopt(ours, [*map(linear, folded[1:]), linears[-1]], slopes)
    history, target = torch.randn(4, 5, SIZE), torch.randn(4, SIZE)
    compare(ours, theirs(history, target), history, target, torch.ones(4, 5))


def linear(folded: tuple[Tensor, Tensor]) -> nn.Linear:
    weight, bias = folded
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    return made


def adopt(ours: TargetAttention, linears: list[nn.Linear], slopes: list[Any]) -> None:
    """Give ours the layers of theirs after the first, and the slopes of all PReLUs."""
    own = [layer for layer in ours.rest.modules() if isinstance(layer, nn.Linear)]
    for mine, other in zip(own, linears, strict=True):
        mine.load_state_dict(other.state_dict())
    activations = [layer for layer in ours.modules() if isinstance(layer, nn.PReLU)]
    with torch.no_grad():
        for activation, slope in zip(activations, slopes, strict=True):
            activation.weight.copy_(slope.weight.expand_as(activation.weight))
