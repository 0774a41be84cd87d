"""A trained click model goes on in a domain that it has not seen, over vectors that stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from reki_feast.models.batching import automatic_batch, automatic_rate
from reki_feast.models.click.base import ClickModel
from reki_feast.models.data import L, Samples
from reki_feast.models.domain_head import DomainHead, fit_head
from reki_feast.models.hein.joint import StoredVectorModel
from reki_feast.models.scoring import Score, predict_logits, score_of
from reki_feast.models.splitting import Split
from reki_feast.models.trained_backbone import TrainedBackbone
from reki_feast.models.training import fit
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import KINDS, Kind

#: Share of a new domain's samples that chooses the epoch and the rate.
VALIDATION = 0.2
#: How a model of few samples is trained, whatever it starts from.
FEW = TrainingConfig(epochs=10, patience=2)
#: Learning rates that are tried, as parts of the automatic one.
RATES = (1.0, 0.3)


@dataclass(frozen=True)
class Tuned:
    """The best of several trainings.

    Attributes:
        model: with its best epoch's weights.
        loss: on validation samples.
        rate: learning rate that it was trained with.
    """

    model: nn.Module
    loss: float
    rate: float


def fit_few(
    model: nn.Module, parts: Split[L], *, seed: int, config: TrainingConfig | None = None
) -> Tuned:
    """Train copies of a model with several learning rates; the one with the least validation loss.

    Args:
        model: Where all start; not changed.
        parts: Samples to learn from, and those that choose.
        seed: Of the order of the samples.
        config: How to train; None for :data:`FEW`.
    """
    config = config or FEW
    rate = automatic_rate(automatic_batch(len(parts.train)))
    found = [_fitted(model, parts, config, rate * part, seed) for part in RATES]
    return min(found, key=lambda one: one.loss)


def _fitted(
    model: nn.Module, parts: Split[L], config: TrainingConfig, rate: float, seed: int
) -> Tuned:
    copy = deepcopy(model)
    how = replace(config, learning_rate=rate, batch_size=None)
    epochs = fit(copy, parts.train, parts.validation, config=how, seed=seed)
    losses = [one.validation_loss for one in epochs if not math.isnan(one.validation_loss)]
    return Tuned(copy, min(losses, default=math.inf), rate)


@dataclass(frozen=True)
class LearntDomain:
    """What is kept of a domain.

    Attributes:
        backbone: its click model.
        head: its score of vectors alone.
        scores: on test samples: of the model that it went on from (``general``), of its own
            (``domain``), and of the head (``reki_match``).
        samples: number of training, validation and test samples.
        rate: the learning rate that was chosen.
    """

    backbone: TrainedBackbone
    head: DomainHead
    scores: Mapping[str, Score]
    samples: tuple[int, int, int]
    rate: float


def learn_domain(
    kept: TrainedBackbone,
    items: pa.Array,
    parts: Split[Samples],
    tables: Mapping[Kind, npt.NDArray[np.float32]],
    *,
    seed: int,
) -> LearntDomain:
    """Go on with a click model on a domain's samples, and fit a head to what it thinks of them.

    Args:
        kept: Where it starts; not changed.
        items: Ids of the items of the samples, by index.
        parts: The domain's samples.
        tables: ``[entities + 1, q]``, vectors of users and items by index; not changed.
        seed: Of the order of the samples.
    """
    backbone = for_items(kept, items)
    vectors: dict[Kind, Tensor] = {kind: torch.from_numpy(one) for kind, one in tables.items()}
    start = on_stored_vectors(backbone.model, vectors).eval()
    tuned = fit_few(start, parts, seed=seed)
    model = cast(StoredVectorModel, tuned.model).eval()
    train, test = parts.train, parts.test
    likely = torch.sigmoid(predict_logits(model, train))
    head = fit_head(
        vectors["user"][train.user], vectors["item"][train.item], (likely + train.label) / 2
    )
    found = {
        "general": predict_logits(start, test),
        "domain": predict_logits(model, test),
        "reki_match": head.scores(vectors["user"][test.user], vectors["item"][test.item]),
    }
    return LearntDomain(
        replace(backbone, model=cast(ClickModel, model.backbone)),
        head,
        {name: score_of(logits, test.label) for name, logits in found.items()},
        (len(train), len(parts.validation), len(test)),
        tuned.rate,
    )


def few(samples: L, count: int | None, *, seed: int) -> Split[L]:
    """Some samples, drawn by a seed, in two parts; none to test.

    Args:
        samples: By user.
        count: How many; None for all.
        seed: Of the draw.
    """
    drawn = np.random.default_rng(seed).permutation(len(samples))[:count]
    cut = round(len(drawn) * VALIDATION)
    parts = [torch.from_numpy(np.sort(part)) for part in (drawn[cut:], drawn[:cut], drawn[:0])]
    return Split(*(samples.take(rows) for rows in parts))


def on_stored_vectors(model: nn.Module, tables: Mapping[Kind, Tensor]) -> StoredVectorModel:
    """A copy of a trained click model, which remembers all ids, over vectors that are not learnt.

    Args:
        model: Takes a batch and a user's and an item's vector.
        tables: ``[entities + 1, q]``, the vectors of users and items by index.
    """
    kept = deepcopy(model)
    if isinstance(kept, ClickModel):
        kept.inputs.forget = 0.0
    return StoredVectorModel(kept, tables, KINDS)


def for_items(trained: TrainedBackbone, items: pa.Array) -> TrainedBackbone:
    """The same model of other items: those that it has not learnt have a zero embedding.

    Args:
        trained: Not changed.
        items: Ids; the item of index i is ``items[i - 1]``.
    """
    place = pc.index_in(items, value_set=trained.items.cast(items.type)).fill_null(-1).to_numpy()
    model = deepcopy(trained.model)
    before = model.inputs.item.weight.detach()
    rows = torch.from_numpy(np.append(0, place + 1))  # row 0 is zero, and stands for none
    table = nn.Embedding.from_pretrained(before[rows].clone(), freeze=False, padding_idx=0)
    model.inputs.item = table
    return replace(trained, model=model, items=items)


def rate_scores(train: Sequence[Tensor], test: Tensor, *, shrink: float = 10.0) -> Tensor:
    """Like-rates ``[n]`` of items, which lean to the mean where there are few samples.

    Args:
        train: Items and labels of samples, ``[m]`` each.
        test: Items ``[n]`` to score.
        shrink: Samples with which an item is half-way to its own rate.
    """
    item, label = train
    size = int(max(item.max(), test.max())) + 1
    likes = torch.zeros(size).index_add_(0, item, label)
    count = torch.bincount(item, minlength=size)
    return ((likes + shrink * label.mean()) / (count + shrink))[test]
