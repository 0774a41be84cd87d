"""What holds for every click model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from reki_feast.models.click import CTR
from reki_feast.models.click.base import ClickModel
from reki_feast.models.data import LIKED, Batch, Samples
from reki_feast.models.inputs import InputSpec
from reki_feast.models.metrics import auc
from reki_feast.models.scoring import predict
from reki_feast.models.training import fit, seeded
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import Kind
from tests.models.click.batches import ITEMS, LENGTH, USERS, batch, extras, spec

every = pytest.mark.parametrize("name", CTR)
TASTE_ITEMS = 20


def made(name: str, extra_sizes: tuple[int, ...] = (), *, seed: int = 0) -> ClickModel:
    with seeded(seed):
        return CTR[name](spec(extra_sizes), size=8).eval()


@every
@pytest.mark.parametrize("sizes", [(), (8,), (8, 8), (5, 16)])
def test_a_logit_a_sample(name: str, sizes: tuple[int, ...]) -> None:
    model = made(name, sizes)
    for n, training in [(0, False), (1, False), (6, False), (1, True), (6, True)]:
        logits = model.train(training)(batch(n), extras(n, sizes))
        assert logits.shape == (n,)
        assert torch.isfinite(logits).all()


@every
def test_every_weight_learns(name: str) -> None:
    model = made(name, (8, 8)).train()
    with seeded(0):
        for parameter in model.parameters():
            nn.init.normal_(parameter)  # no unit is dead, no gate shut
    n = 64
    model(batch(n), extras(n, (8, 8))).square().sum().backward()
    idle = {key for key, parameter in model.named_parameters() if not _moves(parameter)}
    assert not idle


@every
@pytest.mark.parametrize(
    "sizes", [{"user": 8, "item": 16}, {"user": 5, "item": 5}, {"item": 8}, {}]
)
@pytest.mark.parametrize("fields", [True, False])
def test_a_folded_model_gives_the_same_logits(
    name: str, sizes: dict[Kind, int], fields: bool
) -> None:
    look = spec(tuple(sizes.values()))
    with seeded(0):
        model = (
            CTR[name](look if fields else replace(look, user_fields=None), size=8).double().eval()
        )
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)  # no share is lost in the others
        rows = {"user": USERS + 1, "item": ITEMS + 1}
        tables = {kind: torch.randn(rows[kind], size).double() for kind, size in sizes.items()}
    for samples in (batch(), batch(0), batch(64)):
        index = {"user": samples.user, "item": samples.item}
        expected = model(samples, [table[index[kind]] for kind, table in tables.items()])
        torch.testing.assert_close(model.precompute(tables).eval()(samples), expected)


@every
def test_padding_is_not_looked_at(name: str) -> None:
    model, samples = made(name), batch()
    padded = replace(
        samples,
        history=nn.functional.pad(samples.history, (3, 0)),
        history_verdict=nn.functional.pad(samples.history_verdict, (3, 0)),
    )
    torch.testing.assert_close(model(samples), model(padded))


@every
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    model, samples, extra = made(name, (8, 8)), batch(), extras(6, (8, 8))
    whole = model(samples, extra)
    for i in range(6):
        rows = torch.tensor([i])
        alone = model(samples.take(rows), [x[rows] for x in extra])
        torch.testing.assert_close(alone, whole[rows])


@every
@pytest.mark.parametrize("input_", ["item", "history", "history_verdict", "user", "extras"])
def test_every_input_counts(name: str, input_: str) -> None:
    model, samples, extra = made(name, (8, 8)), batch(), extras(6, (8, 8))
    with seeded(0):
        for parameter in model.inputs.parameters():
            nn.init.normal_(parameter)  # as small as they start, products of them are lost
    other = batch(seed=1)
    plain, full = model(samples, extra), slice(LENGTH, None)
    if input_ == "extras":
        changed = model(samples, extras(6, (8, 8), seed=1))
    else:
        changed = model(replace(samples, **{input_: getattr(other, input_)}), extra)
    assert not torch.allclose(plain[full], changed[full], atol=1e-6)


@every
def test_the_same_seed_gives_the_same_weights_and_logits(name: str) -> None:
    one, two, other = (made(name, (8,), seed=seed)(batch(), extras(6, (8,))) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


@every
def test_taste_is_learnt_from_the_history(name: str) -> None:
    # Nothing else tells the user's, and half of the users like an item: 0.5 without it.
    assert learnt(name, tasteful(0), tasteful(1)) > 0.9


@every
def test_extra_vectors_tell_what_the_history_does_not(name: str) -> None:
    assert learnt(name, blind(tasteful(0)), blind(tasteful(1)), told=True) > 0.9


def tasteful(seed: int, n: int = 640) -> Samples:
    """Samples whose label is whether the item's parity is the user's; all behaviours are liked."""
    draw = torch.Generator().manual_seed(seed)
    user = torch.randint(1, 101, (n,), generator=draw)
    item = torch.randint(1, TASTE_ITEMS + 1, (n,), generator=draw)
    of_taste = torch.randint(1, TASTE_ITEMS // 2 + 1, (n, LENGTH), generator=draw) * 2
    return Samples(
        user=user,
        item=item,
        history=(of_taste - user.unsqueeze(1) % 2).int(),
        history_verdict=torch.full((n, LENGTH), LIKED, dtype=torch.int32),
        label=(user % 2 == item % 2).float(),
    )


def blind(samples: Samples) -> Samples:
    """The same with no history."""
    nothing = torch.zeros_like(samples.history)
    return replace(samples, history=nothing, history_verdict=nothing)


class Told(nn.Module):
    """A backbone whose extra vectors hold the tastes, in noise, of user and item."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, samples: Batch) -> Tensor:
        tastes = [nn.functional.one_hot(i % 2, 8).float() for i in (samples.user, samples.item)]
        logits: Tensor = self.backbone(samples, tastes)
        return logits


def learnt(name: str, train: Samples, test: Samples, *, told: bool = False) -> float:
    """AUC on ``test`` after a short training."""
    look = InputSpec(items=TASTE_ITEMS, extra_sizes=(8, 8) if told else ())
    with seeded(0):
        backbone = CTR[name](look, size=8)
    model = Told(backbone) if told else backbone
    # FiGNN starts slowly: products of small embeddings, twice over, are what it learns by
    epochs = 14 if name == "fignn" else 7
    how = TrainingConfig(epochs=epochs, batch_size=64, learning_rate=0.03, patience=epochs)
    fit(model, train, train.take(torch.arange(0)), config=how)
    return auc(test.label.numpy(), predict(model, test))


def _moves(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
