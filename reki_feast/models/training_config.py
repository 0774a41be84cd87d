"""How a model is trained, and the names of its fields in stored JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Fields of :class:`TrainingConfig` that stored files name differently.
_STORED_NAMES = {"deferred_batches": "together"}


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        epochs: Maximum number of epochs; the cosine schedule ends with the last.
        batch_size: Samples per step; None takes about a hundredth of them, from 32 to 2048.
        learning_rate: Initial rate of Adam; None derives it from the batch size, see
            :func:`~reki_feast.models.batching.automatic_rate`.
        weight_decay: L2 penalty of Adam.
        patience: Stop after so many epochs without a lower validation loss.
        deferred_batches: Maximum number of batches that share one HEIN forward and backward pass,
            see :class:`~reki_feast.models.training.DeferredGradients`; None takes as many as hold
            16,384 samples. On MovieLens-1M with batches of 2048 DIN reaches the same AUC with 8, 4
            and 1; HEINs that also learn from a two-tower head need 1.
    """

    epochs: int = 4
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    patience: int = 2
    deferred_batches: int | None = None


def to_stored(config: DataclassInstance) -> dict[str, Any]:
    """A config with a field ``training`` as a dictionary, under the names of stored files.

    >>> from reki_feast.models.hein import HeinConfig
    >>> to_stored(HeinConfig())["training"]["together"] is None
    True
    """
    stored = asdict(config)
    training = stored["training"]
    stored["training"] = {_STORED_NAMES.get(name, name): training[name] for name in training}
    return stored


def training_from_stored(stored: Mapping[str, Any]) -> TrainingConfig:
    """The training config of the entry ``training`` of :func:`to_stored`.

    Raises:
        TypeError: A field is unknown.
    """
    names = {old: new for new, old in _STORED_NAMES.items()}
    return TrainingConfig(**{names.get(name, name): value for name, value in stored.items()})
