"""Predictions of a model and their metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reki_feast.models.data import Labelled
from reki_feast.models.metrics import auc, log_loss

_ROWS = 8192  # samples scored at a time


@dataclass(frozen=True)
class Score:
    """Metrics of a model on some samples; NaN where a metric is not defined.

    Attributes:
        auc: Area under the ROC curve.
        log_loss: Mean log loss, in nats.
        samples: Number of samples.
    """

    auc: float
    log_loss: float
    samples: int


#: A loss of logits and labels of one shape.
Loss = Callable[[Tensor, Tensor], Tensor]


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
    """Predicted probabilities, shaped as the logits, in evaluation mode."""
    return torch.sigmoid(predict_logits(model, samples, batch_size=batch_size)).numpy()


def evaluate(model: nn.Module, samples: Labelled) -> Score:
    """Metrics of a model on samples; each target of a list counts as a sample."""
    return score_of(predict_logits(model, samples), samples.label.cpu())


def loss_of(model: nn.Module, logits: Tensor, label: Tensor) -> Tensor:
    """``model.loss(logits, label)`` if the model defines it, else the mean log loss."""
    loss: Loss = getattr(model, "loss", nn.functional.binary_cross_entropy_with_logits)
    return loss(logits, label)


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's weights."""
    return next(model.parameters()).device


def score_of(logits: Tensor, label: Tensor) -> Score:
    """Metrics of logits, each label of a list counted as a sample."""
    labels, probabilities = label.numpy(), torch.sigmoid(logits).numpy()
    return Score(auc(labels, probabilities), log_loss(labels, probabilities), len(label))
