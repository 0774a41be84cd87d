"""Trains a cell: the same samples, split, schedule and seed for every model of a seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from torch import Tensor, nn

from reki_feast.condense import Settings, Task, make_joint, make_plain, make_task
from reki_feast.evaluate.cells import Cell, Outcome
from reki_feast.evaluate.material import Material, pairs_of
from reki_feast.recommend.alone import Alone
from reki_feast.recommend.backbone import Factory
from reki_feast.recommend.ctr import CTR
from reki_feast.recommend.ctr.din import Din
from reki_feast.recommend.data import Labelled, Samples, Split, split_samples
from reki_feast.recommend.joint import Banks, Joint, Stored
from reki_feast.recommend.lists import make_lists
from reki_feast.recommend.ranking import rank_score
from reki_feast.recommend.rerank import RERANK
from reki_feast.recommend.train import (
    Epoch,
    automatic_batch,
    evaluate,
    fit,
    predict_logits,
    seeded,
)
from reki_feast.schema import KINDS, Kind

#: What stands in HEIN's place: as many experts a side, none shared; one; after a narrow PCA.
NETWORKS: dict[str, dict[str, int]] = {
    "hein": {},
    "moe": {"shared_experts": 0, "user_experts": 6, "item_experts": 6},
    "mlp": {"shared_experts": 0, "user_experts": 1, "item_experts": 1},
    "pca-moe": {"components": 32, "shared_experts": 0, "user_experts": 6, "item_experts": 6},
}
#: How rerankers are trained: a list is ten samples, and they need four times the epochs.
LISTS, LIST_EPOCHS = 256, 4
#: HEIN learns by the two-tower head beside a reranker, which has no other sight of its user.
LIST_HEIN, LIST_TOGETHER = {"match_weight": 1.0}, 4
#: These are the better for a HEIN that reads more and learns batch by batch: on validation users
#: SetRank's MAP@7 is .7710 for .7663, DLCM's (reading all floats) .7614 for .7587, PRM's .772 for
#: .772.
LIST_WIDE = ("dlcm", "setrank")
WIDE_HEIN = {"components": 128, "hein_dropout": 0.3, "match_weight": 4.0}
#: The rerankers that HEIN learns with: on validation users they gain more so. Others read stored
#: vectors, as from a feature store, of a HEIN that a DIN learnt with.
LIST_JOINT = ("dlcm", "prm", "setrank")


def trainer(material: Material) -> Callable[[Cell], Outcome]:
    """What trains the cells of a material; cells of one seed share their samples."""
    return _Trainer(material).train


def models(
    material: Material, cells: Iterable[Cell]
) -> Iterator[tuple[nn.Module, Joint, Samples, Samples]]:
    """Of each cell the untrained model without vectors, the joint one, test and other samples."""
    made = _Trainer(material)
    for cell in cells:
        task, parts = made.samples(cell)
        joint = made.model(cell, task)
        assert isinstance(joint, Joint)
        yield made.model(replace(cell, sides="none"), task), joint, parts.test, parts.train


class _Trainer:
    def __init__(self, material: Material) -> None:
        self.material = material
        self.made: tuple[tuple[str, int], Task, Split[Any]] | None = None
        self.tables: tuple[Cell, dict[Kind, Tensor]] | None = None

    def train(self, cell: Cell) -> Outcome:
        """Train a model, score it once, and let it go."""
        began = time.perf_counter()
        task, parts = self.samples(cell)
        model = self.model(cell, task)
        training = _training(cell, self.material.settings)
        epochs = fit(
            model, parts.train, parts.validation, training=training.training, seed=cell.seed
        )
        held_out = parts.test if cell.scored == "test" else parts.validation
        metrics = (_ranked if cell.task == "rerank" else _scored)(model, held_out)
        return _outcome(model, metrics, epochs, len(parts.train), training, began)

    def samples(self, cell: Cell) -> tuple[Task, Split[Any]]:
        """The task of a cell and its samples or lists, kept for the next cell of the seed."""
        at = cell.task, cell.seed
        if self.made is None or self.made[0] != at:
            self.made = None  # let the last ones go before the next are made
            task = self._task(cell.seed)
            parts = self._lists(cell.seed) if cell.task == "rerank" else task.parts
            self.made = at, task, parts
        return self.made[1], self.made[2]

    def _task(self, seed: int) -> Task:
        given = self.material
        return make_task(
            given.interactions,
            user=given.users.schema.names[0],
            item=given.items.schema.names[0],
            user_fields=given.user_fields,
            item_fields=given.item_fields,
            settings=given.settings,
            seed=seed,
        )

    def _lists(self, seed: int) -> Split[Any]:
        given = self.material
        made = make_lists(
            given.interactions,
            user=given.users.schema.names[0],
            item=given.items.schema.names[0],
            history_length=given.settings.history_length,
            seed=seed,
        )
        how = given.settings
        return split_samples(
            made.lists, holdout="users", test=how.test, validation=how.validation, seed=seed
        )

    def model(self, cell: Cell, task: Task) -> nn.Module:
        """A cell's untrained model."""
        if cell.task == "rerank" and cell.sides != "none" and cell.backbone not in LIST_JOINT:
            tables = self._stored(cell, task)
            spec = replace(task.spec, extra_sizes=tuple(len(t[0]) for t in tables.values()))
            return Stored(make_plain(spec, _factory(cell), seed=cell.seed), tables, tuple(tables))
        users, items = self._representations(cell)
        pairs = pairs_of(users, items, cell.knowledge, imported=cell.imported)
        build = partial(make_joint, task, users, items, pairs=pairs, seed=cell.seed)
        if cell.network in ("lr-alone", "mlp-alone"):
            settings = replace(self.material.settings, components=None)
            whole = build(Din, settings=settings)
            return _alone(cell, whole)
        factory = _factory(cell)
        if cell.sides == "none":
            return make_plain(task.spec, factory, seed=cell.seed)
        sides: tuple[Kind, ...] = KINDS if cell.sides == "both" else (cell.sides,)
        settings = replace(self.material.settings, **NETWORKS[cell.network])  # type: ignore[arg-type]
        if cell.task == "rerank":
            wide = cell.backbone in LIST_WIDE
            settings = replace(settings, **(WIDE_HEIN if wide else LIST_HEIN))  # type: ignore[arg-type]
        return build(factory, settings=settings, sides=sides)

    def _stored(self, cell: Cell, task: Task) -> dict[Kind, Tensor]:
        """Augmented vectors by a HEIN that a DIN learnt with, from the same training users."""
        click = replace(cell, task="ctr", backbone="din", learning_rate=None, scored="test")
        if self.tables is None or self.tables[0] != click:
            how = self.material.settings
            training = replace(how.training, together=1)
            settings = replace(how, training=training, **LIST_HEIN)  # type: ignore[arg-type]
            joint = _Trainer(replace(self.material, settings=settings)).model(click, task)
            assert isinstance(joint, Joint)
            fit(joint, task.parts.train, task.parts.validation, training=training, seed=cell.seed)
            self.tables = click, {kind: joint.table(kind) for kind in joint.sides}
        return self.tables[1]

    def _representations(self, cell: Cell) -> tuple[pa.Table, pa.Table]:
        if cell.encoder:
            return self.material.encoders[cell.encoder]
        return self.material.users, self.material.items


def _factory(cell: Cell) -> Factory:
    return (RERANK if cell.task == "rerank" else CTR)[cell.backbone]


def _alone(cell: Cell, whole: Joint) -> Alone:
    """Reads the banks of a joint model whose network and backbone are left out."""
    banks: dict[Kind, Banks] = {kind: whole.banks(kind) for kind in KINDS}
    hidden = () if cell.network == "lr-alone" else (200, 80)
    with seeded(cell.seed):
        return Alone(users=banks["user"], items=banks["item"], hidden_sizes=hidden)


def _training(cell: Cell, settings: Settings) -> Settings:
    """The settings of a cell's task: the same for its models without vectors and with them."""
    how = settings.training
    if cell.learning_rate is not None:
        how = replace(how, learning_rate=cell.learning_rate)
    if cell.task == "ctr":
        return replace(settings, training=how)
    together = 1 if cell.backbone in LIST_WIDE else LIST_TOGETHER
    lists = replace(how, epochs=LIST_EPOCHS * how.epochs, batch_size=LISTS, together=together)
    return replace(settings, training=lists)


def _scored(model: nn.Module, held_out: Labelled) -> dict[str, float]:
    score = evaluate(model, held_out)
    return {"auc": score.auc, "log_loss": score.log_loss}


def _ranked(model: nn.Module, held_out: Labelled) -> dict[str, float]:
    score = rank_score(held_out.label.numpy(), predict_logits(model, held_out).numpy())
    return {name: getattr(score, name) for name in ("map3", "map7", "ndcg3", "ndcg7")}


def _outcome(
    model: nn.Module,
    metrics: dict[str, float],
    epochs: list[Epoch],
    samples: int,
    settings: Settings,
    began: float,
) -> Outcome:
    seconds = sum(epoch.seconds for epoch in epochs)
    size = settings.training.batch_size or automatic_batch(samples)
    seen = samples * len(epochs)
    return Outcome(
        metrics=metrics,
        epochs=len(epochs),
        seconds_per_batch=seconds / (seen / size),
        samples_per_second=seen / seconds,
        seconds=time.perf_counter() - began,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )
