"""Learning rates, each model's own: chosen on validation users, without vectors as with them.

A gain over a base model that learns too slowly, or too fast, is in part the rate's. So every rate
is tried with every model and the first seed, and the one whose best epoch does best on the
validation users is taken for all seeds. Test users have no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from reki_feast.evaluation.experiments import Experiment, ExperimentResult, Network

#: The metric of a task that a rate is chosen by; of declared test rows it is ``gauc``.
METRIC = {"ctr": "auc", "rerank": "map7"}
_WAYS: dict[Network, str] = {
    "hein": "with HEIN",
    "moe": "with MoE",
    "mlp": "with MLP",
    "pca-moe": "with PCA, then MoE",
    "lr-alone": "LR alone",
    "mlp-alone": "MLP alone",
}
#: The rate of each :func:`model_of`.
Rates: TypeAlias = Mapping[Experiment, float]


def model_of(experiment: Experiment) -> Experiment:
    """What has a rate of its own: a backbone without vectors, or with what makes its vectors.

    Whose vectors they are, of which texts and by which encoder, makes no difference.
    """
    sides = experiment.sides if experiment.sides == "none" else "both"
    return Experiment(experiment.task, experiment.backbone, sides, experiment.network)


def trials(experiments: Iterable[Experiment], rates: Sequence[float]) -> list[Experiment]:
    """What is trained to choose the rates of all models of ``experiments``, none twice."""
    first: dict[Experiment, Experiment] = {}
    for experiment in experiments:
        first.setdefault(model_of(experiment), experiment)
    seed = next((experiment.seed for experiment in first.values()), 0)
    models = [
        replace(model, extraction=experiment.extraction, seed=seed, scored="validation")
        for model, experiment in first.items()
    ]
    return [replace(experiment, learning_rate=rate) for experiment in models for rate in rates]


def choose(results: Mapping[Experiment, ExperimentResult]) -> dict[Experiment, float]:
    """The rate of each model that :func:`trials` did best with; of equals the first."""
    best: dict[Experiment, tuple[float, float]] = {}
    for experiment, result in results.items():
        by = "gauc" if "gauc" in result.metrics else METRIC[experiment.task]
        score = result.metrics[by]
        assert experiment.learning_rate is not None
        found = (-math.inf if math.isnan(score) else score), experiment.learning_rate
        model = model_of(experiment)
        if model not in best or found[0] > best[model][0]:
            best[model] = found
    return {model: rate for model, (_, rate) in best.items()}


def tuned(experiment: Experiment, rates: Rates) -> Experiment:
    """The cell with its model's rate, if one was chosen."""
    return replace(experiment, learning_rate=rates.get(model_of(experiment)))


def note(
    experiments: Iterable[Experiment],
    rates: Rates,
    results: Sequence[float],
    labels: Mapping[str, str],
) -> str:
    """Which rates the models of a table were given; empty where none was chosen.

    Args:
        cells: of the table.
        rates: what was chosen.
        tried: what it was chosen among.
        labels: names of backbones as people write them.
    """
    chosen: dict[str, list[str]] = {}
    for model in dict.fromkeys(map(model_of, experiments)):
        if model in rates:
            name = labels.get(model.backbone, model.backbone)
            way = "without vectors" if model.sides == "none" else _WAYS[model.network]
            text = f"{rates[model]:g} {way}" if name else f"{way} {rates[model]:g}"
            chosen.setdefault(name, []).append(text)
    if not chosen:
        return ""
    shown = "; ".join(f"{name} {', '.join(texts)}".strip() for name, texts in chosen.items())
    among = ", ".join(f"{rate:g}" for rate in results)
    return f"Learning rates, chosen among {among} on validation users of the first seed: {shown}."
