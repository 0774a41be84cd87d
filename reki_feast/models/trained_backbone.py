"""A trained click model apart from the samples it learnt from: stored, rebuilt, given others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.models.click import CTR
from reki_feast.models.click.base import ClickModel
from reki_feast.models.data import LIKED
from reki_feast.models.inputs import InputSpec

#: Of the names and shapes of the weights; raised when they change.
_FORMAT = 1


@dataclass(frozen=True)
class TrainedBackbone:
    """A click model, and what the indices of its samples mean.

    Attributes:
        model: In evaluation mode, on the CPU.
        items: Ids; the item of index i is ``items[i - 1]``.
        levels: As in :class:`~reki_feast.models.data.SampleSet`.
        extra_sizes: Floats of the vectors that it reads, the user's and the item's.
    """

    model: ClickModel
    items: pa.Array
    levels: tuple[float, ...]
    extra_sizes: tuple[int, ...]


def stored(trained: TrainedBackbone) -> tuple[dict[str, Floats], dict[str, Any]]:
    """All weights by name, float32 or int64, and what belongs to them, as JSON."""
    about = {
        "format": _FORMAT,
        "backbone": class_name(trained.model),
        "items": trained.items.to_pylist(),
        "item_type": str(trained.items.type),
        "levels": list(trained.levels),
        "extra_sizes": list(trained.extra_sizes),
    }
    state = trained.model.state_dict().items()
    return {name: tensor.detach().numpy().copy() for name, tensor in state}, about


def restore_backbone(arrays: Mapping[str, Floats], about: Mapping[str, Any]) -> TrainedBackbone:
    """The model of :func:`stored`.

    Raises:
        CondenseError: They are of another format, or are not such arrays.
    """
    found = about.get("format")
    if found != _FORMAT:
        raise _unusable(f"format {found!r} instead of {_FORMAT}")
    try:
        items = pa.array(about["items"], pa.type_for_alias(about["item_type"]))
        levels, sizes = tuple(about["levels"]), tuple(about["extra_sizes"])
        model = _built(CTR[about["backbone"]], len(items), levels, sizes)
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _unusable(f"{type(error).__name__}: {error}") from error
    return TrainedBackbone(model.eval(), items, levels, sizes)


def class_name(model: nn.Module) -> str:
    """Name of a model's class in :data:`~reki_feast.models.click.CTR`; empty for none of these."""
    return next((name for name, one in CTR.items() if type(model) is one), "")


def _built(
    backbone: type[ClickModel], items: int, levels: Sequence[float], sizes: tuple[int, ...]
) -> ClickModel:
    return backbone(InputSpec(items=items, verdicts=_verdicts(levels), extra_sizes=sizes))


def _verdicts(levels: Sequence[float]) -> int:
    """Number of verdicts with padding; see :func:`~reki_feast.models.data.make_samples`."""
    return len(levels) + 2 if levels else LIKED + 1


def _unusable(detail: str) -> CondenseError:
    return CondenseError(
        "a stored recommender is one of this version",
        detail=detail,
        hint="reki train --retrain",
    )
