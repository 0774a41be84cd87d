"""Training loop of all models: Adam, a cosine schedule, the best epoch on validation samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from reki_feast.models.batching import (
    MAX_BATCH_SIZE,
    USER_RUN,
    automatic_batch,
    automatic_rate,
    group_size,
    shuffled,
)
from reki_feast.models.data import Labelled
from reki_feast.models.inputs import InputLayer
from reki_feast.models.scoring import Score, device_of, loss_of, predict_logits, score_of
from reki_feast.models.training_config import TrainingConfig


@runtime_checkable
class DeferredGradients(Protocol):
    """A model part of which runs forward and backward once for a group of batches.

    The steps of the single batches give that part no gradient; :meth:`backward_deferred` sends it
    the gradients of all of them at once.
    """

    def precompute(self, batches: Sequence[Labelled]) -> None: ...  # noqa: D102
    def backward_deferred(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Epoch:
    """History of one epoch.

    Attributes:
        number: From 1.
        loss: Mean training loss.
        validation: Metrics on the validation samples.
        validation_loss: Validation loss, by which the best epoch is chosen; NaN without samples.
        seconds: Duration of training and validation.
    """

    number: int
    loss: float
    validation: Score
    validation_loss: float
    seconds: float


#: Takes an optimizer step for each batch, and yields the losses.
Stepper = Callable[[Sequence[Labelled]], Iterator[Tensor]]
#: Called after every batch with the epoch, the batches done in it and its number of batches.
Progress = Callable[[int, int, int], None]

_USER_RUN_BATCHES = 100  # of an epoch, from which on batches of few users do not bias the steps
_ROWS_PER_THREAD = 512


def fit(
    model: nn.Module,
    train: Labelled,
    validation: Labelled,
    *,
    config: TrainingConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Epoch]:
    """Train a model in place, on its device, and leave it with the weights of its best epoch.

    The loss is ``model.objective(batch)`` if the model defines it, else ``model.loss(logits,
    label)``, else the log loss of its logits.

    Args:
        model: Gives logits of a batch, ``[n]`` of :class:`~reki_feast.models.data.Samples`,
            ``[n, c]`` of :class:`~reki_feast.models.lists.Lists`.
        train: Samples to learn from, at least one.
        validation: Samples that choose the epoch; without any, the last epoch is kept.
        config: How to train; None for the defaults.
        seed: Of the order of the samples and of dropout. On CPU the same seed and number of
            threads give the same weights, bit for bit.
        progress: Called after every batch.

    Returns:
        The history, an entry an epoch.
    """
    config = config or TrainingConfig()
    size = config.batch_size or automatic_batch(len(train))
    config = replace(config, batch_size=size)
    train, validation = train.to(device_of(model)), validation.to(device_of(model))
    for module in model.modules():
        if isinstance(module, InputLayer):
            module.begin(train)
    step = stepper(model, config, steps=config.epochs * math.ceil(len(train) / size))
    epochs: list[Epoch] = []
    best, best_loss, stale = _weights(model), math.inf, 0
    with seeded(seed), few_threads(size):
        for number in range(1, config.epochs + 1):
            started = time.perf_counter()
            loss = _train_epoch(step, train, config, number, progress)
            score, validation_loss = _validate(model, validation)
            seconds = time.perf_counter() - started
            epochs.append(Epoch(number, loss, score, validation_loss, seconds))
            if math.isnan(validation_loss) or validation_loss < best_loss:
                best, best_loss, stale = _weights(model), validation_loss, 0
            else:
                stale += 1
            if stale >= config.patience:
                break
    model.load_state_dict(best)
    return epochs


@contextmanager
def few_threads(batch_size: int) -> Iterator[None]:
    """Limit torch's threads for small batches, where a second thread costs more than it saves.

    With batches of 256, DIN on two CPU cores takes half the time with one thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, max(1, batch_size // _ROWS_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator inside the block, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def stepper(model: nn.Module, config: TrainingConfig, *, steps: int | None = None) -> Stepper:
    """A function that trains a model on batches, and yields each batch's loss ``[]``.

    Args:
        model: Trained in place.
        config: Learning rate and weight decay of Adam; a rate of None follows its batch size.
        steps: Of the cosine schedule; None for a constant rate.
    """
    rate = config.learning_rate
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=automatic_rate(config.batch_size or MAX_BATCH_SIZE) if rate is None else rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = steps and torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    model.train()  # always once: a model may override train()

    def step(batch: Labelled) -> Tensor:
        if not model.training:
            model.train()
        loss = _loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
        return loss.detach()

    def train_on(batches: Sequence[Labelled]) -> Iterator[Tensor]:
        if not isinstance(model, DeferredGradients):
            yield from map(step, batches)
            return
        model.train()
        model.precompute(batches)
        yield from map(step, batches)
        optimizer.zero_grad(set_to_none=True)
        model.backward_deferred()
        optimizer.step()  # of the deferred part alone: nothing else has a gradient now

    return train_on


def _train_epoch(
    step: Stepper,
    train: Labelled,
    config: TrainingConfig,
    number: int,
    progress: Progress | None,
) -> float:
    size = config.batch_size or automatic_batch(len(train))
    user_run = USER_RUN if len(train) >= _USER_RUN_BATCHES * size else 1
    batches = shuffled(train.user, size, user_run=user_run)
    total, done = torch.zeros((), device=train.label.device), 0
    width = group_size(config, size, len(batches))
    for start in range(0, len(batches), width):
        group = batches[start : start + width]
        losses = step([train.take(rows) for rows in group])
        for rows, loss in zip(group, losses, strict=True):
            total += loss * len(rows)
            done += 1
            if progress:
                progress(number, done, len(batches))
    return total.item() / len(train)


def _loss(model: nn.Module, batch: Labelled) -> Tensor:
    objective: Callable[[Labelled], Tensor] | None = getattr(model, "objective", None)
    return objective(batch) if objective else loss_of(model, model(batch), batch.label)


def _validate(model: nn.Module, samples: Labelled) -> tuple[Score, float]:
    logits, label = predict_logits(model, samples), samples.label.cpu()
    loss = loss_of(model, logits, label).item() if len(label) else math.nan
    return score_of(logits, label), loss


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
