"""Models of a held-out domain: of its first day, of its first samples, and learnt with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import nn

from reki_feast.evaluation.domain_data import DomainLog, HeldOutDomain
from reki_feast.models.click import CTR
from reki_feast.models.data import Samples
from reki_feast.models.hein import JointOptions, make_joint, make_plain
from reki_feast.models.hein.domain_experts import DomainModel
from reki_feast.models.hein.joint import JointModel
from reki_feast.models.metrics import auc
from reki_feast.models.new_domain import few, fit_few, on_stored_vectors, rate_scores
from reki_feast.models.scoring import predict_logits
from reki_feast.models.splitting import Split
from reki_feast.models.training import fit, seeded
from reki_feast.schema import KINDS

Part: TypeAlias = Literal["unseen", "fresh", "together"]
Model: TypeAlias = Literal["base", "vectors", "kept", "like-rate", "experts"]
PARTS: tuple[Part, ...] = ("unseen", "fresh", "together")
#: How many samples of the domain a model has learnt.
NONE, ALL = "none", "all"
COUNTS = (500, 5_000, 50_000)


@dataclass
class DomainScores:
    """What came of a part of a domain's models.

    Attributes:
        auc: on the domain's samples of test users, by model and by what it has learnt.
        seconds: that it took to learn that, in the same way.
    """

    auc: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, model: Model, learnt: str, scored: float, seconds: float) -> None:
        """Note a model."""
        self.auc.setdefault(model, {})[learnt] = scored
        self.seconds.setdefault(model, {})[learnt] = seconds


def trained_part(log: DomainLog, name: str, part: Part, seed: int, backbone: str) -> DomainScores:
    """Train one part of a domain's models.

    Args:
        log: all domains.
        name: the domain.
        part: ``unseen``: on all other domains, and what was learnt there then goes on with the
            domain's first samples; ``fresh``: on these samples alone; ``together``: on all domains.
        seed: of users, weights and samples.
        backbone: a name of :data:`~reki_feast.models.click.CTR`.
    """
    models = _Models(log.held_out(name, seed), log, seed, backbone)
    by_part: Mapping[Part, Callable[[], DomainScores]] = {
        "unseen": models.unseen,
        "fresh": models.fresh,
        "together": models.together,
    }
    return by_part[part]()


@dataclass(frozen=True)
class _Models:
    held: HeldOutDomain
    log: DomainLog
    seed: int
    backbone: str

    def unseen(self) -> DomainScores:
        """Without a sample of the domain, and gone on with from there."""
        found, parts = DomainScores(), self.held.others
        self._add(
            found, "base", NONE, lambda: self._fit(self._plain(), parts.train, parts.validation)
        )
        joint = self._joint()
        self._add(found, "vectors", NONE, lambda: self._fit(joint, parts.train, parts.validation))
        own, test = self.held.own.train, self.held.own.test
        rates = rate_scores((own.item, own.label), test.item)
        found.add("like-rate", ALL, auc(test.label.numpy(), rates.numpy()), 0.0)
        kept = on_stored_vectors(joint.backbone, {kind: joint.vector_table(kind) for kind in KINDS})
        self._add_few(found, "kept", kept)
        return found

    def fresh(self) -> DomainScores:
        """On the domain's first samples alone."""
        found = DomainScores()
        self._add_few(found, "base", self._plain())
        self._add_few(found, "vectors", self._joint())
        return found

    def together(self) -> DomainScores:
        """On all domains."""
        found, (train, validation) = DomainScores(), self.held.together()
        self._add(found, "base", ALL, lambda: self._fit(self._plain(), train, validation))
        self._add(found, "vectors", ALL, lambda: self._fit(self._joint(), train, validation))
        if self.log.experts:
            self._add(found, "experts", ALL, lambda: self._fit(self._experts(), train, validation))
        return found

    def _add_few(self, found: DomainScores, model: Model, start: nn.Module) -> None:
        own = self.held.own.train
        for count in (one for one in COUNTS if one <= len(own)):
            parts = few(own, count, seed=self.seed)
            self._add(found, model, str(count), partial(self._few, start, parts))

    def _few(self, start: nn.Module, parts: Split[Samples]) -> nn.Module:
        return fit_few(start, parts, seed=self.seed).model

    def _add(
        self, found: DomainScores, model: Model, learnt: str, make: Callable[[], nn.Module]
    ) -> None:
        started = time.perf_counter()
        made = make()
        seconds = time.perf_counter() - started
        test = self.held.own.test
        logits = predict_logits(made, test).numpy()
        found.add(model, learnt, auc(test.label.numpy(), logits), seconds)

    def _fit(self, model: nn.Module, train: Samples, validation: Samples) -> nn.Module:
        fit(model, train, validation, config=self.log.config.training, seed=self.seed)
        return model

    def _plain(self) -> nn.Module:
        return make_plain(self.held.task.spec, CTR[self.backbone], seed=self.seed)

    def _experts(self) -> DomainModel:
        domain = torch.from_numpy(self.log.of_items(self.held.task.items))
        with seeded(self.seed):
            return DomainModel(self._joint(), domain)

    def _joint(self) -> JointModel:
        options = JointOptions(self.log.pairs, self.seed, allow_missing=True)
        return make_joint(
            self.held.task,
            self.held.data,
            CTR[self.backbone],
            config=self.log.config,
            options=options,
        )
