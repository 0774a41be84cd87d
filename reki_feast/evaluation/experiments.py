"""An experiment: one model trained with one seed, and its result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from reki_feast.schema import content_hash

Task: TypeAlias = Literal["ctr", "rerank"]
Sides: TypeAlias = Literal["none", "user", "item", "both"]
Network: TypeAlias = Literal["hein", "moe", "mlp", "pca-moe", "lr-alone", "mlp-alone"]
Knowledge: TypeAlias = Literal["all", "llm", "raw", "none"]
Extraction: TypeAlias = Literal["collective", "individual"]
Scored: TypeAlias = Literal["test", "validation"]


@dataclass(frozen=True)
class Experiment:
    """One model to train with one seed.

    The fields are keys of stored results; older code and files call an experiment a cell.

    Attributes:
        task: Click prediction or reranking.
        backbone: Name of the recommender; empty where the network predicts on its own.
        sides: Towers whose vectors the backbone reads.
        network: How vectors are made from representations; ``lr-alone`` and ``mlp-alone`` predict
            from the representations without a backbone.
        knowledge: Channels that HEIN reads: all, those written by a language model, those made
            without one (history and description), or none but imported ones.
        imported: Whether external embeddings are one more channel.
        encoder: Name of the text encoder; empty for the project's own.
        extraction: How the language model's knowledge was generated.
        seed: Of the weights, the order of the samples and dropout.
        learning_rate: Of the training; None for the project's.
        scored: Part of the samples that metrics are computed on.
    """

    task: Task
    backbone: str
    sides: Sides = "both"
    network: Network = "hein"
    knowledge: Knowledge = "all"
    imported: bool = False
    encoder: str = ""
    extraction: Extraction = "collective"
    seed: int = 0
    learning_rate: float | None = None
    scored: Scored = "test"

    def __str__(self) -> str:
        """A readable name.

        >>> str(Experiment("ctr", "din", encoder="bge", seed=3)), str(base("ctr", "din"))
        ('ctr din both hein all bge collective seed 3', 'ctr din none seed 0')
        """
        parts = [self.task, self.backbone, self.sides]
        if self.sides != "none":
            parts += [self.network, self.knowledge, "imported" if self.imported else ""]
            parts += [self.encoder, self.extraction]
        if self.learning_rate is not None:
            parts.append(f"rate {self.learning_rate:g}")
        parts += [f"seed {self.seed}", "" if self.scored == "test" else self.scored]
        return " ".join(part for part in parts if part)


def base(task: Task, backbone: str, *, seed: int = 0) -> Experiment:
    """The baseline: the backbone without vectors."""
    return Experiment(task, backbone, sides="none", seed=seed)


@dataclass(frozen=True)
class ExperimentResult:
    """The result of an experiment.

    Attributes:
        metrics: By name: ``auc``, ``log_loss`` and, where the test rows are declared, ``gauc``; or
            ``map3``, ``map7``, ``ndcg3`` and ``ndcg7``.
        epochs: Epochs trained.
        seconds_per_batch: Of training, on average.
        samples_per_second: Of training.
        seconds: Training and scoring.
        parameters: Number of trained parameters.
    """

    metrics: Mapping[str, float]
    epochs: int
    seconds_per_batch: float
    samples_per_second: float
    seconds: float
    parameters: int


def key(experiment: Experiment, data_hash: str) -> str:
    """Key of a stored result: a hash of the experiment and of the data."""
    return content_hash(data_hash, json.dumps(asdict(experiment), sort_keys=True))


def dump(experiment: Experiment, result: ExperimentResult, data_hash: str) -> str:
    """A result as one line of strict JSON; undefined metrics are null."""
    found = asdict(result)
    found["metrics"] = {
        name: None if math.isnan(value) else value for name, value in result.metrics.items()
    }
    entry = {"key": key(experiment, data_hash), "cell": asdict(experiment), "outcome": found}
    return json.dumps(entry, allow_nan=False)


def load(line: str) -> tuple[str, ExperimentResult]:
    """The key and the result of a line of :func:`dump`.

    Raises:
        ValueError: The line is something else, or incomplete.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("outcome"), dict):
        raise ValueError(f"an object with key, cell and outcome: {line[:80]!r}")
    fields: dict[str, Any] = entry["outcome"]
    values = dict(fields.get("metrics") or {})
    metrics = {name: math.nan if value is None else value for name, value in values.items()}
    try:
        return str(entry["key"]), ExperimentResult(**{**fields, "metrics": metrics})
    except (KeyError, TypeError) as error:
        raise ValueError(f"a finished cell: {line[:80]!r}") from error
