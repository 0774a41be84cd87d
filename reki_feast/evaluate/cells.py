"""A cell: one model trained with one seed, and what came of it."""

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
class Cell:
    """What is trained.

    Attributes:
        task: click prediction or reranking.
        backbone: its name; empty where the network predicts alone.
        sides: whose vectors the backbone gets.
        network: what makes vectors of representations; ``lr-alone`` and ``mlp-alone`` predict
            from the representations without a backbone.
        knowledge: channels that are condensed: all, those that a language model wrote, those made
            without one (history and description), or none but imported ones.
        imported: whether vectors from elsewhere are one more channel.
        encoder: name of the text encoder; empty for the project's own.
        extraction: where the language model's knowledge is from.
        seed: of the weights, the order of the samples and dropout.
        learning_rate: of its training; None for the project's.
        scored: whose samples it is scored on.
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
        """The cell as a person reads it.

        >>> str(Cell("ctr", "din", encoder="bge", seed=3)), str(base("ctr", "din"))
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


def base(task: Task, backbone: str, *, seed: int = 0) -> Cell:
    """The backbone without vectors: one cell, whatever it is compared with."""
    return Cell(task, backbone, sides="none", seed=seed)


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        metrics: of the samples it is scored on, by name: ``auc`` and ``log_loss``, or ``map3``,
            ``map7``, ``ndcg3`` and ``ndcg7``.
        epochs: epochs trained.
        seconds_per_batch: of training, on average.
        samples_per_second: of training.
        seconds: training and scoring.
        parameters: numbers that were trained.
    """

    metrics: Mapping[str, float]
    epochs: int
    seconds_per_batch: float
    samples_per_second: float
    seconds: float
    parameters: int


def key(cell: Cell, material: str) -> str:
    """What a finished cell is found by again: the cell and the hash of all it is made from."""
    return content_hash(material, json.dumps(asdict(cell), sort_keys=True))


def dump(cell: Cell, outcome: Outcome, material: str) -> str:
    """A finished cell as one line of strict JSON; a metric that is not defined is null."""
    found = asdict(outcome)
    found["metrics"] = {
        name: None if math.isnan(value) else value for name, value in outcome.metrics.items()
    }
    entry = {"key": key(cell, material), "cell": asdict(cell), "outcome": found}
    return json.dumps(entry, allow_nan=False)


def load(line: str) -> tuple[str, Outcome]:
    """The key and the outcome of a line of :func:`dump`.

    Raises:
        ValueError: the line is not one, or is torn.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("outcome"), dict):
        raise ValueError(f"an object with key, cell and outcome: {line[:80]!r}")
    fields: dict[str, Any] = entry["outcome"]
    values = dict(fields.get("metrics") or {})
    metrics = {name: math.nan if value is None else value for name, value in values.items()}
    try:
        return str(entry["key"]), Outcome(**{**fields, "metrics": metrics})
    except (KeyError, TypeError) as error:
        raise ValueError(f"a finished cell: {line[:80]!r}") from error
