"""Training and scoring of click models: Adam, a cosine schedule, the best epoch on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reki_feast.recommend.data import Labelled
from reki_feast.recommend.metrics import auc, log_loss


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        epochs: at most this many; the cosine schedule ends with the last.
        batch_size: samples a step; None takes about a hundredth of them, from 32 to 2048.
        learning_rate: Adam's, at the start; None for :func:`automatic_rate` of the batch size.
        weight_decay: Adam's L2 penalty.
        patience: stop after so many epochs without a lower validation loss.
        together: batches whose vectors are made together, at most: see :class:`Holding`; None
            for those of 16,384 samples. On MovieLens-1M with batches of 2048 DIN reaches the same
            AUC with 8, 4 and 1; HEINs that learn from a two-tower head too want 1.
    """

    epochs: int = 4
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    patience: int = 2
    together: int | None = None


@runtime_checkable
class Holding(Protocol):
    """A model that makes something once for several batches, and learns it once for them all.

    Its part that is held gets no gradient from a batch's step; :meth:`release` brings those of all
    the batches together.
    """

    def hold(self, batches: Sequence[Labelled]) -> None: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


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
    """One epoch.

    Attributes:
        number: from 1.
        loss: mean training loss.
        validation: score on the validation samples.
        validation_loss: the model's own loss on them, which the epoch is chosen by; NaN without.
        seconds: for both.
    """

    number: int
    loss: float
    validation: Score
    validation_loss: float
    seconds: float


#: A loss of logits and labels of one shape.
Loss = Callable[[Tensor, Tensor], Tensor]
#: Samples of one user that stand in one batch, at most: HEIN condenses a user once a batch.
RUN = 16
_HELD = 16_384  # samples of a group, where nothing else is said
_GROUPS = 40  # an epoch; with fewer, what is held learns too slowly
_MANY = 100  # batches of an epoch, from which on few users a batch do no harm
#: Takes the steps of some batches, and gives their losses one by one.
Stepper = Callable[[Sequence[Labelled]], Iterator[Tensor]]
_MOST = 2048  # samples of a batch
_ROWS = 8192  # that are scored at a time
_ROWS_A_THREAD = 512

#: Called after every batch with the epoch, the batches done in it and the batches it has.
Progress = Callable[[int, int, int], None]


def fit(
    model: nn.Module,
    train: Labelled,
    validation: Labelled,
    *,
    training: Training | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Epoch]:
    """Train a model in place, where it is, and leave it with the weights of its best epoch.

    The loss is ``model.objective(batch)`` where the model has one, else ``model.loss(logits,
    label)``, else the log loss of its logits.

    Args:
        model: gives logits of a batch, ``[n]`` of :class:`~reki_feast.recommend.data.Samples`,
            ``[n, c]`` of :class:`~reki_feast.recommend.lists.Lists`.
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
    how = replace(how, batch_size=size)
    train, validation = train.to(device_of(model)), validation.to(device_of(model))
    steps = stepper(model, how, steps=how.epochs * math.ceil(len(train) / size))
    epochs: list[Epoch] = []
    best, best_loss, waited = _weights(model), math.inf, 0
    with seeded(seed), few_threads(size):
        for number in range(1, how.epochs + 1):
            began = time.perf_counter()
            loss = _epoch(steps, train, size, how, number, progress)
            score, found = _validate(model, validation)
            epochs.append(Epoch(number, loss, score, found, time.perf_counter() - began))
            if math.isnan(found) or found < best_loss:
                best, best_loss, waited = _weights(model), found, 0
            else:
                waited += 1
            if waited >= how.patience:
                break
    model.load_state_dict(best)
    return epochs


def predict_logits(model: nn.Module, samples: Labelled, *, batch_size: int = _ROWS) -> Tensor:
    """Logits ``[n]`` (or ``[n, c]``) of all samples, in evaluation mode, on the CPU."""
    model.eval()
    samples = samples.to(device_of(model))
    rows = torch.arange(len(samples), device=samples.label.device).split(batch_size)
    with torch.no_grad():
        parts = [model(samples.take(part)) for part in rows]
    return torch.cat(parts).cpu() if parts else samples.label.cpu()


def predict(
    model: nn.Module, samples: Labelled, *, batch_size: int = _ROWS
) -> npt.NDArray[np.float32]:
    """Probabilities of liking, shaped as the logits, in evaluation mode."""
    return torch.sigmoid(predict_logits(model, samples, batch_size=batch_size)).numpy()


def evaluate(model: nn.Module, samples: Labelled) -> Score:
    """Score a model on samples, each target of a list as a sample."""
    return _score(predict_logits(model, samples), samples.label.cpu())


def loss_of(model: nn.Module, logits: Tensor, label: Tensor) -> Tensor:
    """A model's own ``loss(logits, label)``, where it has one, else the mean log loss."""
    loss: Loss = getattr(model, "loss", nn.functional.binary_cross_entropy_with_logits)
    return loss(logits, label)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """One thread for small batches: what two do there is less than waking the second costs.

    With batches of 256, DIN on two CPU cores takes half the time with one thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, max(1, size // _ROWS_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    return min(max(1 << power, 32), _MOST)


def automatic_rate(batch_size: int) -> float:
    """1e-2 for batches of 2,048 samples, and with the square root of the batch size.

    On 120 to 6,040 users of MovieLens-1M, with batches of :func:`automatic_batch`, a rate for all
    of them is too slow for the large batches or too fast for the small ones.

    >>> automatic_rate(2048), automatic_rate(128)
    (0.01, 0.0025)
    """
    return 1e-2 * math.sqrt(batch_size / _MOST)


def group_size(training: Training, size: int, batches: int) -> int:
    """Batches of ``size`` samples whose vectors are made together, of so many an epoch.

    >>> group_size(Training(), 2048, 400), group_size(Training(together=4), 2048, 400)
    (8, 4)
    >>> group_size(Training(), 256, 3000), group_size(Training(), 256, 400)
    (64, 10)
    """
    most = training.together or max(1, _HELD // size)
    return min(most, max(1, batches // _GROUPS))


def shuffled(user: Tensor, size: int, *, run: int = RUN) -> tuple[Tensor, ...]:
    """Batches of rows in random order, each user's rows in runs.

    A run is up to ``run`` rows of one user, drawn anew every time. So a batch meets few users, and
    what is made for a user is made a few times an epoch, not once a sample.

    Args:
        user: ``[n]``, whose each row is.
        size: rows of a batch.
        run: rows of a user that stay together; 1 shuffles rows alone.
    """
    order = torch.randperm(len(user), device=user.device)
    if run > 1:
        order = order[torch.argsort(user[order], stable=True)]  # by user, at random within
        _, counts = torch.unique_consecutive(user[order], return_counts=True)
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        number = ((torch.arange(len(user), device=user.device) - first) % run == 0).cumsum(0) - 1
        drawn = torch.randperm(int(number[-1]) + 1, device=user.device)
        order = order[torch.argsort(drawn[number], stable=True)]
    batches: tuple[Tensor, ...] = order.split(size)
    return batches


def stepper(model: nn.Module, training: Training, *, steps: int | None = None) -> Stepper:
    """What takes a model a step a batch, and gives each batch's loss ``[]``.

    Args:
        model: is trained in place.
        training: learning rate and weight decay of Adam; a rate of None wants its batch size.
        steps: of the cosine schedule; None for a rate that stays.
    """
    rate = training.learning_rate
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=automatic_rate(training.batch_size or _MOST) if rate is None else rate,
        weight_decay=training.weight_decay,
        fused=True,
    )
    schedule = steps and torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    model.train()  # which a model may take in its own way, so that asking it is not enough

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

    def steps_of(batches: Sequence[Labelled]) -> Iterator[Tensor]:
        if not isinstance(model, Holding):
            yield from map(step, batches)
            return
        model.train()
        model.hold(batches)
        yield from map(step, batches)
        optimizer.zero_grad(set_to_none=True)
        model.release()
        optimizer.step()  # of what was held back alone: nothing else has a gradient now

    return steps_of


def _epoch(
    steps: Stepper,
    train: Labelled,
    size: int,
    how: Training,
    number: int,
    progress: Progress | None,
) -> float:
    batches = shuffled(train.user, size, run=RUN if len(train) >= _MANY * size else 1)
    total, done = torch.zeros((), device=train.label.device), 0
    together = group_size(how, size, len(batches))
    for start in range(0, len(batches), together):
        group = batches[start : start + together]
        losses = steps([train.take(rows) for rows in group])
        for rows, loss in zip(group, losses, strict=True):
            total += loss * len(rows)
            done += 1
            if progress:
                progress(number, done, len(batches))
    return total.item() / len(train)


def _loss(model: nn.Module, batch: Labelled) -> Tensor:
    whole: Callable[[Labelled], Tensor] | None = getattr(model, "objective", None)
    return whole(batch) if whole else loss_of(model, model(batch), batch.label)


def _validate(model: nn.Module, samples: Labelled) -> tuple[Score, float]:
    logits, label = predict_logits(model, samples), samples.label.cpu()
    loss = loss_of(model, logits, label).item() if len(label) else math.nan
    return _score(logits, label), loss


def _score(logits: Tensor, label: Tensor) -> Score:
    labels, probabilities = label.numpy(), torch.sigmoid(logits).numpy()
    return Score(auc(labels, probabilities), log_loss(labels, probabilities), len(label))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
