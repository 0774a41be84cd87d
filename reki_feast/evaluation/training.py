"""Runs experiments: the same samples, split, schedule and seed for every model of a seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from reki_feast.evaluation.dataset import EvaluationData, pairs_of
from reki_feast.evaluation.experiments import Experiment, ExperimentResult, Sides
from reki_feast.models.backbone import Factory
from reki_feast.models.batching import automatic_batch
from reki_feast.models.click import CTR
from reki_feast.models.click.din import Din
from reki_feast.models.data import Labelled, Samples
from reki_feast.models.hein import (
    HeinConfig,
    JointOptions,
    Task,
    make_joint,
    make_plain,
    make_task,
)
from reki_feast.models.hein.embedding_tables import EmbeddingTables
from reki_feast.models.hein.joint import JointModel, StoredVectorModel
from reki_feast.models.knowledge_only import KnowledgeOnly
from reki_feast.models.lists import ListOptions, make_lists
from reki_feast.models.metrics import grouped_auc
from reki_feast.models.ranking import rank_score
from reki_feast.models.rerank import RERANK
from reki_feast.models.scoring import predict_logits, score_of
from reki_feast.models.splitting import Split, split_held_out, split_samples
from reki_feast.models.training import fit, seeded
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import KINDS, Kind

#: Ablations of HEIN: as many experts a tower, none shared; a single one; after a narrow PCA.
NETWORKS: dict[str, dict[str, int]] = {
    "hein": {},
    "moe": {"shared_experts": 0, "user_experts": 6, "item_experts": 6},
    "mlp": {"shared_experts": 0, "user_experts": 1, "item_experts": 1},
    "pca-moe": {"components": 32, "shared_experts": 0, "user_experts": 6, "item_experts": 6},
}
#: Whose vectors the backbone of an experiment sees.
_TOWERS: dict[Sides, tuple[Kind, ...]] = {
    "none": (),
    "user": ("user",),
    "item": ("item",),
    "both": KINDS,
}
#: Training of rerankers: a list is ten samples, and they need four times the epochs.
LIST_BATCH_SIZE, LIST_EPOCHS = 256, 4
#: With a reranker HEIN also learns by the two-tower loss: a list says nothing else of its user.
LIST_HEIN, LIST_DEFERRED_BATCHES = {"match_weight": 1.0}, 4
#: These gain by a HEIN that reads more components and learns batch by batch: on validation users
#: SetRank's MAP@7 is .7710 instead of .7663, DLCM's (reading all floats) .7614 instead of .7587,
#: PRM's .772 with either.
LIST_WIDE = ("dlcm", "setrank")
WIDE_HEIN = {"components": 128, "hein_dropout": 0.3, "match_weight": 4.0}
#: The rerankers that HEIN is fitted with, which gain more that way on validation users. Others
#: read stored vectors, as from a feature store, of a HEIN fitted with a DIN.
LIST_JOINT = ("dlcm", "prm", "setrank")


def trainer(data: EvaluationData) -> Callable[[Experiment], ExperimentResult]:
    """A function that runs experiments on a data set; those of one seed share their samples."""
    return _Trainer(data).train


def models(
    data: EvaluationData, experiments: Iterable[Experiment]
) -> Iterator[tuple[nn.Module, JointModel, Samples, Samples]]:
    """For each experiment the untrained models without and with HEIN, test and training samples."""
    trainer = _Trainer(data)
    for experiment in experiments:
        task, parts = trainer.samples(experiment)
        joint = trainer.model(experiment, task)
        assert isinstance(joint, JointModel)
        plain = trainer.model(replace(experiment, sides="none"), task)
        yield plain, joint, parts.test, parts.train


class _Trainer:
    def __init__(self, data: EvaluationData) -> None:
        self.data = data
        self.cached: tuple[tuple[str, int], Task, Split[Any]] | None = None
        self.tables: tuple[Experiment, dict[Kind, Tensor]] | None = None

    def train(self, experiment: Experiment) -> ExperimentResult:
        """Train and score a model."""
        started = time.perf_counter()
        task, parts = self.samples(experiment)
        model = self.model(experiment, task)
        config = _training(experiment, self.data.config.training)
        epochs = fit(model, parts.train, parts.validation, config=config, seed=experiment.seed)
        scored = parts.test if experiment.scored == "test" else parts.validation
        if experiment.task == "rerank":
            metrics = _list_metrics(model, scored)
        else:
            metrics = _metrics(model, scored, by_user=self._tested and task.user_rows is None)
        size = config.batch_size or automatic_batch(len(parts.train))
        seconds, seen = sum(epoch.seconds for epoch in epochs), len(parts.train) * len(epochs)
        return ExperimentResult(
            metrics=metrics,
            epochs=len(epochs),
            seconds_per_batch=seconds / (seen / size),
            samples_per_second=seen / seconds,
            seconds=time.perf_counter() - started,
            parameters=sum(weight.numel() for weight in model.parameters()),
        )

    @property
    def _tested(self) -> bool:
        """Whether the rows of the test are declared, of users that are learnt from."""
        return "held_out" in self.data.interactions.schema.names

    def samples(self, experiment: Experiment) -> tuple[Task, Split[Any]]:
        """The task and its samples or lists, cached for the next experiment of the seed."""
        key = experiment.task, experiment.seed
        if self.cached is None or self.cached[0] != key:
            self.cached = None  # free the last ones before the next are made
            task = make_task(self.data.hein_data(), config=self.data.config, seed=experiment.seed)
            is_list = experiment.task == "rerank"
            parts = self._lists(experiment.seed) if is_list else task.parts
            self.cached = key, task, parts
        return self.cached[1], self.cached[2]

    def _lists(self, seed: int) -> Split[Any]:
        data, config = self.data, self.data.config
        made = make_lists(
            data.interactions,
            user=data.users.schema.names[0],
            item=data.items.schema.names[0],
            options=ListOptions(history_length=config.history_length, seed=seed),
        )
        if made.held_out is not None:
            return split_held_out(
                made.lists, made.held_out, validation=config.validation, seed=seed
            )
        return split_samples(
            made.lists, holdout="users", test=config.test, validation=config.validation, seed=seed
        )

    def model(self, experiment: Experiment, task: Task) -> nn.Module:
        """The untrained model of an experiment."""
        seed, reads_vectors = experiment.seed, experiment.sides != "none"
        if experiment.task == "rerank" and reads_vectors and experiment.backbone not in LIST_JOINT:
            tables = self._stored_vectors(experiment, task)
            spec = replace(task.spec, extra_sizes=tuple(len(t[0]) for t in tables.values()))
            return StoredVectorModel(
                make_plain(spec, _factory(experiment), seed=seed), tables, tuple(tables)
            )
        if not reads_vectors:
            return make_plain(task.spec, _factory(experiment), seed=seed)
        data = self.data.hein_data(experiment.encoder)
        pairs = pairs_of(data.users, data.items, experiment.knowledge, imported=experiment.imported)
        if experiment.network in ("lr-alone", "mlp-alone"):
            config, options = replace(self.data.config, components=None), JointOptions(pairs, seed)
            return _alone(experiment, make_joint(task, data, Din, config=config, options=options))
        towers: tuple[Kind, ...] = _TOWERS[experiment.sides]
        options = JointOptions(pairs, seed, towers)
        config = _hein_config(experiment, self.data.config)
        return make_joint(task, data, _factory(experiment), config=config, options=options)

    def _stored_vectors(self, experiment: Experiment, task: Task) -> dict[Kind, Tensor]:
        """Augmented vectors of a HEIN that was fitted with a DIN on the same training users."""
        click = replace(experiment, task="ctr", backbone="din", learning_rate=None, scored="test")
        if self.tables is None or self.tables[0] != click:
            training = replace(self.data.config.training, deferred_batches=1)
            config = replace(self.data.config, training=training, **LIST_HEIN)  # type: ignore[arg-type]
            joint = _Trainer(replace(self.data, config=config)).model(click, task)
            assert isinstance(joint, JointModel)
            fit(joint, task.parts.train, task.parts.validation, config=training, seed=click.seed)
            self.tables = click, {kind: joint.vector_table(kind) for kind in joint.towers}
        return self.tables[1]


def _factory(experiment: Experiment) -> Factory:
    return (RERANK if experiment.task == "rerank" else CTR)[experiment.backbone]


def _hein_config(experiment: Experiment, config: HeinConfig) -> HeinConfig:
    """The HEIN of an experiment: an ablation, or the one that suits its reranker."""
    config = replace(config, **NETWORKS[experiment.network])  # type: ignore[arg-type]
    if experiment.task != "rerank":
        return config
    changes = WIDE_HEIN if experiment.backbone in LIST_WIDE else LIST_HEIN
    return replace(config, **changes)  # type: ignore[arg-type]


def _alone(experiment: Experiment, joint: JointModel) -> KnowledgeOnly:
    """A model of the representations of a joint model, without its HEINs and its backbone."""
    tables: dict[Kind, EmbeddingTables] = {kind: joint.embedding_tables(kind) for kind in KINDS}
    hidden = () if experiment.network == "lr-alone" else (200, 80)
    with seeded(experiment.seed):
        return KnowledgeOnly(users=tables["user"], items=tables["item"], hidden_sizes=hidden)


def _training(experiment: Experiment, config: TrainingConfig) -> TrainingConfig:
    """The training of an experiment's task: the same for its models without and with vectors."""
    if experiment.learning_rate is not None:
        config = replace(config, learning_rate=experiment.learning_rate)
    if experiment.task == "ctr":
        return config
    return replace(
        config,
        epochs=LIST_EPOCHS * config.epochs,
        batch_size=LIST_BATCH_SIZE,
        deferred_batches=1 if experiment.backbone in LIST_WIDE else LIST_DEFERRED_BATCHES,
    )


def _metrics(model: nn.Module, samples: Labelled, *, by_user: bool) -> dict[str, float]:
    """AUC and log loss; with ``by_user`` also AUC within users."""
    logits, label = predict_logits(model, samples), samples.label.cpu()
    score = score_of(logits, label)
    found = {"auc": score.auc, "log_loss": score.log_loss}
    if by_user:
        found["gauc"] = grouped_auc(samples.user.numpy(), label.numpy(), logits.numpy())
    return found


def _list_metrics(model: nn.Module, lists: Labelled) -> dict[str, float]:
    score = rank_score(lists.label.numpy(), predict_logits(model, lists).numpy())
    return {name: getattr(score, name) for name in ("map3", "map7", "ndcg3", "ndcg7")}
