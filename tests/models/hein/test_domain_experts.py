"""Experts and gates of domains against plain loops, and against MMoE of another library."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples
from reki_feast.models.hein import (
    HeinConfig,
    HeinData,
    JointOptions,
    channel_pairs,
    fingerprint,
    make_joint,
    make_task,
)
from reki_feast.models.hein.domain_experts import DomainModel, DomainTower, by_domain, masked
from reki_feast.models.hein.network import Hein
from reki_feast.models.training import fit
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import KINDS, Kind
from tests.models.hein.test_fit import films, viewers, watched
from tests.models.hein.test_network import expert, small

HOW = HeinConfig(hidden_size=6, output_size=4, components=4, training=TrainingConfig(epochs=1))
DATA = HeinData(watched(12), viewers(12), films())


def joint_of_three(experts: int = 2) -> tuple[DomainModel, Samples]:
    """Items of domains 1, 2 and 3 in turn, every fourth of none."""
    task = make_task(DATA, config=HOW, seed=0)
    pairs = channel_pairs(["knowledge", "history"], ["knowledge"])
    joint = make_joint(task, DATA, Din, config=HOW, options=JointOptions(pairs))
    domain = torch.arange(len(task.items) + 1) % 4
    return DomainModel(joint, domain, experts=experts), task.parts.train


def own_expert(tower: DomainTower, number: int, r: list[float]) -> list[float]:
    return expert(tower, number, r)  # type: ignore[arg-type]


def by_loops(hein: Hein, tower: DomainTower, r: list[float]) -> list[float]:
    """The domain's gate over the tower's experts, then the domain's own."""
    which = hein.user_experts if tower.kind == "user" else hein.item_experts
    count = len(hein.first_bias)
    outputs = [expert(hein, number, r) for number in range(*which.indices(count))]
    outputs += [own_expert(tower, number, r) for number in range(len(tower.first_bias))]
    weights, biases = tower.gate.weight.tolist(), tower.gate.bias.tolist()
    logits = [
        sum(w * x for w, x in zip(row, r, strict=True)) + b
        for row, b in zip(weights, biases, strict=True)
    ]
    total = sum(math.exp(one) for one in logits)
    return [
        sum(math.exp(g) / total * out[o] for g, out in zip(logits, outputs, strict=True))
        for o in range(len(outputs[0]))
    ]


@pytest.mark.parametrize("own", [0, 1, 3])
@pytest.mark.parametrize("kind", ["user", "item"])
def test_a_domains_gate_weighs_the_towers_experts_and_its_own(own: int, kind: str) -> None:
    hein = small()
    tower = DomainTower(hein, kind, own)  # type: ignore[arg-type]
    r = torch.randn(5, 5)
    wanted = [by_loops(hein, tower, row) for row in r.tolist()]
    torch.testing.assert_close(tower(hein, r), torch.tensor(wanted))


def test_each_row_goes_by_its_domain() -> None:
    rows, domain = torch.arange(12.0).view(6, 2), torch.tensor([2, 0, 3, 2, 0, 2])
    called: list[int] = []

    def apply(name: int, part: Tensor) -> Tensor:
        called.append(name)
        return part * float(10**name)

    found = by_domain(rows, domain, apply)
    wanted = [
        [x * 10**d for x in row] for row, d in zip(rows.tolist(), domain.tolist(), strict=True)
    ]
    assert found.tolist() == wanted
    assert called == [0, 2, 3]


def test_the_masked_loss_is_the_mean_of_general_and_own_losses() -> None:
    model, samples = joint_of_three()
    batch = samples.take(torch.arange(40))
    domain = model.item_domain[batch.item]
    model.eval()
    torch.manual_seed(5)
    drawn = masked(domain, 0.5)
    assert 0 < int((drawn == 0).sum()) - int((domain == 0).sum()) < len(domain)
    assert torch.equal(drawn[drawn > 0], domain[drawn > 0])
    loss = model.loss(model.scored(batch, drawn), batch.label).item()
    losses = []
    for place, name in enumerate(drawn.tolist()):
        one = batch.take(torch.tensor([place]))
        vectors: dict[Kind, Tensor] = {
            kind: model.vectors(kind, getattr(one, kind), torch.tensor([name]))
            if name
            else model.joint.tower(kind, getattr(one, kind))
            for kind in KINDS
        }
        logit = model.joint.backbone(one, model.joint.extras(one, vectors)).item()
        likely = 1 / (1 + math.exp(-logit))
        losses.append(-math.log(likely if one.label.item() else 1 - likely))
    assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    torch.manual_seed(5)
    model.train()
    model.joint.backbone.eval()
    torch.testing.assert_close(model(batch), model.scored(batch, drawn))


def test_a_batch_of_one_domain_gives_the_experts_of_others_no_gradient() -> None:
    model, samples = joint_of_three()
    batch = samples.take((model.item_domain[samples.item] == 2).nonzero().flatten())
    domain = torch.full((len(batch),), 2)
    model.loss(model.scored(batch, domain), batch.label).backward()
    norms = [
        sum(0.0 if p.grad is None else p.grad.abs().sum().item() for p in one.parameters())
        for one in model.domains
    ]
    assert norms[1] > 0
    assert (norms[0], norms[2]) == (0.0, 0.0)
    gates = [gate for hein in model.joint.heins.heins for gate in (hein.user_gate, hein.item_gate)]
    assert all(gate.weight.grad is None for gate in gates)  # type: ignore[union-attr]
    before = [p.clone() for one in (0, 2) for p in model.domains[one].parameters()]
    fit(model, batch, batch.take(torch.arange(8)), config=TrainingConfig(epochs=1))
    after = [p for one in (0, 2) for p in model.domains[one].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_unknown_domains_read_the_general_vector_and_removing_one_changes_no_other() -> None:
    model, samples = joint_of_three()
    batch, none = samples.take(torch.arange(20)), torch.zeros(20, dtype=torch.int64)
    for kind in ("user", "item"):
        general = model.joint.tower(kind, getattr(batch, kind))
        torch.testing.assert_close(model.vectors(kind, getattr(batch, kind), none), general)
    domain = model.item_domain[batch.item]
    before = model.vectors("item", batch.item, domain)
    model.domains[2] = nn.ModuleDict()  # domain 3 is gone: its samples go by the general gates
    after = model.vectors("item", batch.item, torch.where(domain == 3, 0, domain))
    assert torch.equal(before[domain != 3], after[domain != 3])
    assert not torch.equal(before[domain == 3], after[domain == 3])


def test_mmoe_of_torch_rechub_says_the_same() -> None:
    pytest.importorskip("torch_rechub")
    from torch_rechub.basic.features import DenseFeature
    from torch_rechub.models.multi_task import MMOE

    tasks, experts, hidden, size = 3, 4, 5, 6
    torch.manual_seed(0)
    features = [DenseFeature(f"x{n}") for n in range(size)]
    theirs = MMOE(
        features,
        ["regression"] * tasks,
        experts,
        {"dims": [hidden], "activation": "relu", "dropout": 0.0},
        [{"dims": [2], "activation": "relu"}] * tasks,
    ).eval()
    hein = Hein(
        input_size=size,
        shared_experts=experts,
        user_experts=0,
        item_experts=0,
        hidden_size=hidden,
        output_size=hidden,
    )
    towers = [DomainTower(hein, "user", 0) for _ in range(tasks)]
    with torch.no_grad():
        for number, one in enumerate(theirs.experts):
            linear, norm = one.mlp[0], one.mlp[1]
            norm.weight.fill_(math.sqrt(1 + norm.eps))  # no normalisation
            hein.first_weight[number], hein.first_bias[number] = linear.weight, linear.bias
            hein.second_weight[number], hein.second_bias[number] = torch.eye(hidden), 0.0
        for tower, gate in zip(towers, theirs.gates, strict=True):
            gate.mlp[1].weight.fill_(math.sqrt(1 + gate.mlp[1].eps))
            tower.gate.load_state_dict(gate.mlp[0].state_dict())
    x = torch.randn(7, size)
    wanted = theirs({f"x{n}": x[:, n] for n in range(size)})
    mixed = [tower(hein, x) for tower in towers]
    found = [
        predict(head(one))
        for one, head, predict in zip(mixed, theirs.towers, theirs.predict_layers, strict=True)
    ]
    torch.testing.assert_close(torch.cat(found, dim=1), wanted, atol=1e-5, rtol=1e-5)


def test_experts_leave_a_hein_without_domains_as_it_is() -> None:
    from reki_feast.models.hein import FittedHein

    model, _ = joint_of_three()
    plain, _ = joint_of_three(experts=0)
    one, other = (FittedHein(m.joint.heins, replace(HOW), 0) for m in (model, plain))
    assert fingerprint(one) == fingerprint(other)
