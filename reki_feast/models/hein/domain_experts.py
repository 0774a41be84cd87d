"""Experts and a gate of each domain beside those of HEIN, as Uni-CTR's networks beside its general.

In a tower of domain d a softmax gate of its own weighs the experts of the tower and those of the
domain alone; samples of no domain, and in training half of all others, go by HEIN's own gate, so
that the general vectors serve domains that were never seen. (Uni-CTR, arXiv 2312.10743; gates as in
MMoE, Ma et al., KDD 2018.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from reki_feast.models.data import Batch
from reki_feast.models.hein.joint import JointModel
from reki_feast.models.hein.network import Experts, Hein, mixture, uniform
from reki_feast.schema import KINDS, Kind

#: A sample of no domain.
GENERAL = 0


class DomainTower(nn.Module):
    """What one domain adds to one tower of a HEIN: experts, and a gate over these and the tower's.

    Args:
        hein: The HEIN, which is no part of this module.
        kind: Which tower.
        experts: Number of experts of the domain alone; 0 leaves a gate of its own.
    """

    def __init__(self, hein: Hein, kind: Kind, experts: int) -> None:
        super().__init__()
        _, hidden, size = hein.first_weight.shape
        self.kind = kind
        self.first_weight = uniform(experts, hidden, size, fan_in=size)
        self.first_bias = uniform(experts, hidden, fan_in=size)
        self.second_weight = uniform(experts, hidden, hein.second_bias.shape[1], fan_in=hidden)
        self.second_bias = uniform(experts, hein.second_bias.shape[1], fan_in=hidden)
        self.gate = nn.Linear(size, _gate(hein, kind).out_features + experts)

    def forward(self, hein: Hein, r: Tensor) -> Tensor:
        """Condense standardised rows ``[n, m]`` of the domain to ``[n, output_size]``."""
        theirs = hein.experts(hein.user_experts if self.kind == "user" else hein.item_experts)
        own = Experts(self.first_weight, self.first_bias, self.second_weight, self.second_bias)
        every = Experts(*(torch.cat(pair) for pair in zip(theirs, own, strict=True)))
        return mixture(r, every, self.gate(r), hein.dropout)


def _gate(hein: Hein, kind: Kind) -> nn.Linear:
    return hein.user_gate if kind == "user" else hein.item_gate


class DomainModel(nn.Module):
    """A joint model whose vectors are those of each sample's domain.

    Args:
        joint: HEINs and a recommender; trained with the rest.
        item_domain: ``[items + 1]`` int64, the domain of each item by index, from 1; 0 for none.
        experts: Number of experts of each domain, a tower.
        general: Share of the training samples of domains that go by the general gates.
    """

    item_domain: Tensor

    def __init__(
        self, joint: JointModel, item_domain: Tensor, *, experts: int = 1, general: float = 0.5
    ) -> None:
        super().__init__()
        self.joint, self.general = joint, general
        self.register_buffer("item_domain", item_domain, persistent=False)
        self.domains = nn.ModuleList(
            nn.ModuleDict(
                {
                    kind: nn.ModuleList(
                        DomainTower(cast(Hein, hein), kind, experts) for hein in joint.heins.heins
                    )
                    for kind in KINDS
                }
            )
            for _ in range(int(item_domain.max()))
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[n]``; in training some samples are scored by general vectors."""
        domain = self.item_domain[batch.item]
        if self.training:
            domain = masked(domain, self.general)
        return self.scored(batch, domain)

    def scored(self, batch: Batch, domain: Tensor) -> Tensor:
        """Logits ``[n]`` with each sample's vectors by its domain ``[n]``."""
        vectors = {kind: self.vectors(kind, getattr(batch, kind), domain) for kind in KINDS}
        logits: Tensor = self.joint.backbone(batch, self.joint.extras(batch, vectors))
        return logits

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The recommender's loss."""
        return self.joint.loss(logits, label)

    def vectors(self, kind: Kind, index: Tensor, domain: Tensor) -> Tensor:
        """Vectors ``[n, q]`` of users or items at ``index`` ``[n]``, each of a domain ``[n]``."""
        heins, tables = self.joint.heins, self.joint.embedding_tables(kind)
        parts = []
        for pair, channel in enumerate(heins.pair_channels(kind)):
            r = tables[channel].vectors[tables[channel].codes[index]]
            parts.append(by_domain(r, domain, partial(self._tower, kind, pair)))
        return torch.cat(parts, dim=-1)

    def _tower(self, kind: Kind, pair: int, domain: int, r: Tensor) -> Tensor:
        if domain == GENERAL:
            return self.joint.heins.condense(kind, pair, r)
        towers = cast(nn.ModuleDict, self.domains[domain - 1])[kind]
        hein = self.joint.heins.heins[pair]
        made: Tensor = cast(nn.ModuleList, towers)[pair](hein, r)
        return made


def masked(domain: Tensor, general: float) -> Tensor:
    """Domains ``[n]``, of which a share is drawn to go by the general gates."""
    keep = torch.rand(len(domain), device=domain.device) >= general
    return torch.where(keep, domain, GENERAL)


def by_domain(rows: Tensor, domain: Tensor, apply: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Apply a function of each domain to its rows ``[n, m]``, in their order ``[n, output]``.

    Domains without a row are not run, and get no gradient.
    """
    order = torch.argsort(domain, stable=True)
    names, counts = torch.unique_consecutive(domain[order], return_counts=True)
    parts = rows[order].split(counts.tolist())
    made = [apply(name, part) for name, part in zip(names.tolist(), parts, strict=True)]
    return torch.cat(made)[torch.argsort(order)]
