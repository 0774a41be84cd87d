"""DIEN against torch-rechub's AUGRU and torch's GRU on histories without padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from reki_feast.models.click.dien import (
    Dien,
    InterestEvolution,
    NextBehaviour,
    SteeredGru,
    Steering,
)
from tests.models.click.batches import batch, extras, spec

SIZE, LENGTHS = 4, (0, 1, 3, 5)
MASK = (torch.arange(5) >= 5 - torch.tensor(LENGTHS).unsqueeze(1)).float()


def torch_gru(ours: SteeredGru) -> nn.GRU:
    """Torch's GRU with our weights; its second gate is how much of the state stays."""
    gru = nn.GRU(ours.input.in_features, ours.size, batch_first=True)
    signs = torch.tensor([1.0, -1.0, 1.0]).repeat_interleave(ours.size)
    own = torch.cat([ours.gates.weight, ours.candidate.weight])
    weights = {
        "weight_ih_l0": ours.input.weight * signs[:, None],
        "bias_ih_l0": ours.input.bias * signs,
        "weight_hh_l0": own * signs[:, None],
        "bias_hh_l0": torch.zeros(3 * ours.size),
    }
    gru.load_state_dict({name: weight.detach() for name, weight in weights.items()})
    return gru


def last_states(forward: Callable[[Tensor, Tensor], Tensor], *inputs: Tensor) -> Tensor:
    """What ``forward`` gives of each history alone and without padding, zero of none at all."""
    rows = []
    for row, length in enumerate(LENGTHS):
        history, target = inputs[0][row : row + 1, 5 - length :], inputs[1][row : row + 1]
        rows.append(forward(history, target) if length else torch.zeros(1, SIZE))
    return torch.cat(rows)


def drawn() -> tuple[Tensor, Tensor]:
    """Interests, garbage where there is padding, and targets."""
    torch.manual_seed(0)
    return torch.randn(4, 5, SIZE), torch.randn(4, SIZE)


def test_extractor_is_a_gru_on_the_history_without_padding() -> None:
    history, _ = drawn()
    extractor = SteeredGru(input_size=SIZE, size=SIZE)
    states = torch.stack(extractor(history, MASK), dim=1)
    gru = torch_gru(extractor)
    for row, length in enumerate(LENGTHS[1:], start=1):
        expected, _ = gru(history[row : row + 1, 5 - length :])
        torch.testing.assert_close(states[row, 5 - length :], expected[0])
    assert states[MASK == 0].count_nonzero() == 0


def test_a_step_scaled_by_0_changes_nothing() -> None:
    history, _ = drawn()
    gru = SteeredGru(input_size=SIZE, size=SIZE)
    scale = torch.tensor([0.3, 0, 0, 0.9, 0]).expand(4, 5)
    states = gru(history, scale)
    assert torch.equal(states[0], states[2])
    torch.testing.assert_close(states[4], gru(history[:, [0, 3]], scale[:, [0, 3]])[-1])


def test_augru_is_that_of_torch_rechub() -> None:
    rechub = pytest.importorskip("torch_rechub.models.ranking.dien")
    interests, targets = drawn()
    ours = InterestEvolution(size=SIZE, target_size=SIZE)
    theirs = rechub.AUGRU(SIZE)
    cell, gru = theirs.augru_cell, ours.gru
    with torch.no_grad():
        theirs.Wa.copy_(ours.attention.weight)
        for parts, names in (
            (gru.input.weight.chunk(3), ("Wr", "Wu", "Wh")),
            (gru.gates.weight.chunk(2), ("Ur", "Uu")),
            (gru.candidate.weight.chunk(1), ("Uh",)),
            (gru.input.bias.chunk(3), ("br", "bu", "bh")),
        ):
            for part, name in zip(parts, names, strict=True):
                getattr(cell, name).copy_(part.t() if part.ndim == 2 else part)
    expected = last_states(lambda history, target: theirs(history, target)[1], interests, targets)
    torch.testing.assert_close(ours(interests, targets, MASK), expected)


def test_agru_takes_attention_for_the_update_gate() -> None:
    interests, targets = drawn()
    ours = InterestEvolution(size=SIZE, target_size=SIZE, steering="agru")

    def evolve(history: Tensor, target: Tensor) -> Tensor:
        state = torch.zeros(1, SIZE)
        weights = ours.weights(history, target, torch.ones(1, history.shape[1]))
        for step, weight in zip(history.unbind(1), weights[0], strict=True):
            own_reset, candidate = ours.gru.input(step).chunk(2, dim=1)
            reset = torch.sigmoid(own_reset + ours.gru.gates(state))
            new = torch.tanh(candidate + reset * ours.gru.candidate(state))
            state = (1 - weight) * state + weight * new
        return state

    expected = last_states(evolve, interests, targets)
    torch.testing.assert_close(ours(interests, targets, MASK), expected)


def test_aigru_is_a_gru_on_weighted_interests() -> None:
    interests, targets = drawn()
    ours = InterestEvolution(size=SIZE, target_size=SIZE, steering="aigru")
    gru = torch_gru(ours.gru)

    def evolve(history: Tensor, target: Tensor) -> Tensor:
        weights = ours.weights(history, target, torch.ones(1, history.shape[1]))
        last: Tensor = gru(history * weights.unsqueeze(-1))[1]
        return last[0]

    expected = last_states(evolve, interests, targets)
    torch.testing.assert_close(ours(interests, targets, MASK), expected)


def test_attention_is_bilinear_and_adds_up_to_1() -> None:
    interests, _ = drawn()
    ours = InterestEvolution(size=SIZE, target_size=6)
    targets = torch.randn(4, 6)
    weights = ours.weights(interests, targets, MASK)
    torch.testing.assert_close(weights.sum(1), torch.tensor([0.0, 1, 1, 1]))
    scores = interests[3] @ ours.attention.weight @ targets[3]
    torch.testing.assert_close(weights[3], scores.exp() / scores.exp().sum())


@pytest.mark.parametrize("steering", ["agru", "aigru"])
def test_more_padding_changes_no_logit(steering: Steering) -> None:
    torch.manual_seed(0)
    model = Dien(spec((5, 4)), size=4, steering=steering).eval()
    samples, more = batch(), extras(6, (5, 4))
    padded = replace(
        samples,
        history=nn.functional.pad(samples.history, (3, 0)),
        history_verdict=nn.functional.pad(samples.history_verdict, (3, 0)),
    )
    torch.testing.assert_close(model(padded, more), model(samples, more))


@pytest.mark.parametrize("steering", ["augru", "agru", "aigru"])
def test_the_order_of_behaviours_counts(steering: Steering) -> None:
    torch.manual_seed(0)
    model = Dien(spec(), size=4, steering=steering).double().eval()
    with torch.no_grad():
        model.inputs.item.weight[1:].normal_()
    full = batch().take(torch.tensor([5]))
    turned = replace(
        full, history=full.history.flip(1), history_verdict=full.history_verdict.flip(1)
    )
    assert (model(turned) - model(full)).abs() > 1e-9


def test_auxiliary_loss_is_that_of_torch_rechub() -> None:
    rechub = pytest.importorskip("torch_rechub.models.ranking.dien")
    interests, _ = drawn()
    history = torch.randn(4, 5, 6) * MASK.unsqueeze(-1)
    ours = NextBehaviour(size=SIZE, behaviour_size=6)
    loss = seeded_loss(ours, interests, history, MASK)
    behaviours, there = ours.behaviour(history), MASK.bool()
    torch.manual_seed(1)
    pool = behaviours[there]
    pairs = nn.functional.pad(there[:, :-1] & there[:, 1:], (1, 0))
    negatives = torch.zeros_like(behaviours)
    negatives[pairs] = pool[torch.randint(len(pool), (int(pairs.sum()),))]
    theirs = rechub.DIEN.auxiliary(
        SimpleNamespace(BCELoss=nn.BCELoss()), interests, behaviours, negatives, there
    )
    torch.testing.assert_close(loss, theirs)


def seeded_loss(loss: NextBehaviour, *inputs: Tensor) -> Tensor:
    torch.manual_seed(1)
    made: Tensor = loss(*inputs)
    return made


def test_no_pair_of_behaviours_is_no_auxiliary_loss() -> None:
    interests, _ = drawn()
    mask = torch.tensor([0.0, 0, 0, 0, 1]).expand(4, 5)
    loss = NextBehaviour(size=SIZE, behaviour_size=SIZE)
    assert loss(interests, interests, mask).item() == 0


def test_auxiliary_loss_goes_backwards_with_any_loss_of_the_logits() -> None:
    torch.manual_seed(0)
    model = Dien(spec(), size=4, auxiliary=0.5, activation="relu")
    plain = Dien(spec(), size=4, activation="relu")
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model(batch()), plain(batch()))
    torch.manual_seed(1)
    model(batch()).square().mean().backward()

    assert model.next is not None
    embedded = model.inputs(batch())
    interests = torch.stack(model.extractor(embedded.history, embedded.mask), dim=1)
    auxiliary = seeded_loss(model.next, interests, embedded.history, embedded.mask)
    weight = model.extractor.input.weight
    (own,) = torch.autograd.grad(0.5 * auxiliary, weight)
    plain(batch()).square().mean().backward()
    assert weight.grad is not None
    assert plain.extractor.input.weight.grad is not None
    torch.testing.assert_close(weight.grad, plain.extractor.input.weight.grad + own)


def test_no_auxiliary_loss_outside_training() -> None:
    model = Dien(spec(), size=4, auxiliary=0.5).eval()
    model(batch()).sum().backward()
    assert model.next is not None
    assert model.next.behaviour.weight.grad is None


@pytest.mark.parametrize(("wanted", "made"), [(None, 8), (5, 5)])
def test_size_of_interests(wanted: int | None, made: int) -> None:
    model = Dien(spec(), size=4, interest_size=wanted)
    assert model.evolution.gru.size == made
    assert model(batch()).shape == (6,)
