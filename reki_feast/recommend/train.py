"""Training and scoring of click models: Adam, a cosine schedule, the best epoch on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reki_feast.recommend.data import Samples
from reki_feast.recommend.metrics import auc, log_loss


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        epochs: at most this many; the cosine schedule ends with the last.
        batch_size: samples a step; None takes about a hundredth of them, from 32 to 2048.
        learning_rate: Adam's, at the start.
        weight_decay: Adam's L2 penalty.
        patience: stop after so many epochs without a lower validation loss.
    """

    epochs: int = 4
    batch_size: int | None = None
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.0
    patience: int = 2


@dataclass(frozen=True)
class Score:
    """How a model did on some samples; NaN where a metric is not defined.

    Attributes:
        auc: area under the ROC curve.
        log_loss: in nats.
        samples: number of samples.
    """

    auc: float
    log_loss: float
    samples: int


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean training loss in nats, score on validation samples, seconds."""

    number: int
    loss: float
    validation: Score
    seconds: float


#: Called after every batch with the epoch, the batches done in it and the batches it has.
Progress = Callable[[int, int, int], None]


def fit(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    *,
    training: Training | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Epoch]:
    """Train a model in place and leave it with the weights of its best epoch.

    Args:
        model: gives logits ``[n]`` for a batch of :class:`~reki_feast.recommend.data.Samples`.
        train: samples to learn from, at least one.
        validation: samples to choose the epoch by; without any, the last epoch is kept.
        training: how to train; None for the defaults.
        seed: of the order of the samples and of dropout. On CPU the same seed and number of
            threads give the same weights, bit for bit.
        progress: called after every batch.

    Returns:
        What happened, an entry an epoch.
    """
    how = training or Training()
    size = how.batch_size or automatic_batch(len(train))
    optimizer = torch.optim.Adam(
        model.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay, fused=True
    )
    steps = how.epochs * math.ceil(len(train) / size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    epochs: list[Epoch] = []
    best, best_loss, waited = _weights(model), math.inf, 0
    with seeded(seed):
        for number in range(1, how.epochs + 1):
            began = time.perf_counter()
            loss = _epoch(model, train, size, optimizer, schedule, number, progress)
            score = evaluate(model, validation)
            epochs.append(Epoch(number, loss, score, time.perf_counter() - began))
            if math.isnan(score.log_loss) or score.log_loss < best_loss:
                best, best_loss, waited = _weights(model), score.log_loss, 0
            else:
                waited += 1
            if waited >= how.patience:
                break
    model.load_state_dict(best)
    return epochs


def predict(
    model: nn.Module, samples: Samples, *, batch_size: int = 8192
) -> npt.NDArray[np.float32]:
    """Probabilities ``[n]`` of liking, in evaluation mode."""
    model.eval()
    if not len(samples):
        return np.empty(0, np.float32)
    with torch.no_grad():
        rows = torch.arange(len(samples)).split(batch_size)
        return torch.cat([torch.sigmoid(model(samples.take(part))) for part in rows]).numpy()


def evaluate(model: nn.Module, samples: Samples) -> Score:
    """Score a model on samples."""
    probabilities = predict(model, samples)
    labels = samples.label.numpy()
    return Score(auc(labels, probabilities), log_loss(labels, probabilities), len(samples))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator starts from ``seed`` inside, and is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def automatic_batch(samples: int) -> int:
    """About a hundredth of the samples, a power of two from 32 to 2048.

    >>> automatic_batch(100), automatic_batch(10_000), automatic_batch(10**6)
    (32, 64, 2048)
    """
    power = math.floor(math.log2(max(samples / 100, 1)))
    return min(max(1 << power, 32), 2048)


def _epoch(
    model: nn.Module,
    train: Samples,
    size: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    number: int,
    progress: Progress | None,
) -> float:
    model.train()
    batches = torch.randperm(len(train)).split(size)
    total = 0.0
    for done, rows in enumerate(batches, start=1):
        batch = train.take(rows)
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(rows)
        if progress:
            progress(number, done, len(batches))
    return total / len(train)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
