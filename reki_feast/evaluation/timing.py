"""How long a batch takes: the base model, with HEIN in it, and with vectors stored beforehand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from reki_feast.evaluation.dataset import EvaluationData
from reki_feast.evaluation.experiments import Experiment
from reki_feast.evaluation.spec import BATCH, Way
from reki_feast.evaluation.training import models
from reki_feast.models.batching import group_size, shuffled
from reki_feast.models.click.base import ClickModel
from reki_feast.models.data import Samples
from reki_feast.models.hein.joint import StoredVectorModel
from reki_feast.models.training import Stepper, few_threads, stepper
from reki_feast.models.training_config import TrainingConfig
from reki_feast.report import Progress, Silent

_BATCHES = 40  # a repeat times so many of each way, in turn
_SAMPLES = 20_000


def inference(
    data: EvaluationData,
    backbones: Sequence[str],
    *,
    repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[Way, list[float]]]:
    """Seconds to score a batch of 256, by backbone and way.

    The ways take turns batch by batch, so that whatever else the machine does falls on all alike;
    a repeat is the median over 40 batches. Weights are untrained: time does not depend on them.
    Click models of ours are folded, without vectors and with them; ``plain`` and ``fed`` are the
    same as they were trained.

    Args:
        material: what models read.
        backbones: names of click models.
        repeats: how often all is measured.
        seed: of the split and the weights.
        progress: shows how far it is; None shows nothing.
    """
    experiments = [Experiment("ctr", name, seed=seed) for name in backbones]
    found: dict[str, dict[Way, list[float]]] = {}
    with (progress or Silent()).bar("timing scores") as bar, few_threads(BATCH):
        for plain, joint, samples, _ in models(data, experiments):
            tables = {kind: joint.vector_table(kind) for kind in joint.towers}
            ways: dict[Way, nn.Module] = {
                "base": (plain.precompute({}) if isinstance(plain, ClickModel) else plain).eval(),
                "hein": joint.eval(),
                "stored": joint.with_stored_vectors(),
                "plain": plain.eval(),
                "fed": StoredVectorModel(joint.backbone, tables, joint.towers).eval(),
            }
            # drawn with repeats, so that a few test samples make whole batches too
            rows = torch.randint(len(samples), (_BATCHES, BATCH))
            batches = [samples.take(row) for row in rows]
            _repeat(ways, batches[:5])  # the first calls set things up
            times = [_repeat(ways, batches) for _ in range(repeats)]
            found[backbones[len(found)]] = {way: [one[way] for one in times] for way in ways}
            bar(len(found), len(experiments))
    return found


def training(
    data: EvaluationData,
    backbones: Sequence[str],
    *,
    size: int = BATCH,
    repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[Way, list[float]]]:
    """Samples a second in training, without vectors and with HEIN, by backbone and way.

    The ways take turns, some 20,000 samples each; both have the same batches.

    Args:
        material: what models read.
        backbones: names of click models.
        size: samples of a batch.
        repeats: how often all is measured.
        seed: of the split, the weights and the batches.
        progress: shows how far it is; None shows nothing.
    """
    how = replace(data.config.training, batch_size=size)
    experiments = [Experiment("ctr", name, seed=seed) for name in backbones]
    found: dict[str, dict[Way, list[float]]] = {}
    with (progress or Silent()).bar("timing training") as bar, few_threads(size):
        for plain, joint, _, samples in models(data, experiments):
            ways: dict[Way, nn.Module] = {"base": plain, "hein": joint}
            steps = {way: stepper(model, how) for way, model in ways.items()}
            found[backbones[len(found)]] = _steps(steps, samples, size, repeats, how)
            bar(len(found), len(experiments))
    return found


def _steps(
    steps: Mapping[Way, Stepper], samples: Samples, size: int, repeats: int, how: TrainingConfig
) -> dict[Way, list[float]]:
    """Samples a second of each way."""
    found: dict[Way, list[float]] = {way: [] for way in steps}
    batches = shuffled(samples.user, size)
    together = group_size(how, size, len(batches))
    count = max(1, _SAMPLES // size // together) * together
    for number in range(repeats + 1):
        part = [samples.take(batches[(number * count + n) % len(batches)]) for n in range(count)]
        for way, step in steps.items():
            began = time.perf_counter()
            for start in range(0, count, together):
                for _ in step(part[start : start + together]):
                    pass
            if number:  # the first turn sets things up
                found[way].append(count * size / (time.perf_counter() - began))
    return found


def _repeat(ways: Mapping[Way, nn.Module], batches: Sequence[Samples]) -> dict[Way, float]:
    """The median seconds of each way.

    Their order is drawn for each batch: what comes after HEIN finds less in the caches.
    """
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    names = list(ways)
    with torch.no_grad():
        for batch in batches:
            for place in torch.randperm(len(names)).tolist():
                began = time.perf_counter()
                ways[names[place]](batch)
                taken[names[place]].append(time.perf_counter() - began)
    return {way: sorted(times)[len(times) // 2] for way, times in taken.items()}
