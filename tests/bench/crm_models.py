"""What the benchmarks of training jobs share: sets of columns, and models scored on them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore

from reki_feast.encoding import Floats
from reki_feast.models.metrics import auc, log_loss
from tests.bench.crm_joined import join
from tests.bench.crm_learners import MODELS, Part

#: Columns of each set: ``kindness`` is the last plain feature, the others are feature services.
SETS: Mapping[str, Sequence[str]] = {
    "plain": (),
    "+ raw, PCA 32": ("raw",),
    "+ vectors": ("vectors",),
    "+ match scores": ("match",),
    "+ vectors, scores": ("vectors", "match"),
    "+ kindness": ("kindness",),
    "+ kindness, vectors, scores": ("kindness", "vectors", "match"),
}
#: What `make evaluate` has time for.
FEW = ("plain", "+ vectors", "+ match scores")


@dataclass(frozen=True)
class Result:
    """One model on one set of columns."""

    seed: int
    model: str
    columns: str
    width: int
    rows: int
    auc: float
    log_loss: float
    seconds: float


@dataclass(frozen=True)
class Found:
    """What came of one data set.

    Attributes:
        data: its name and how it is split.
        results: by seed, set of columns and model.
        joins: seconds that Feast took, by feature service.
        count: rows joined.
        notes: what a reader has to know.
    """

    data: str
    results: tuple[Result, ...]
    joins: Mapping[str, float]
    count: int
    notes: tuple[str, ...] = ()


def column_sets(
    store: FeatureStore,
    rows: pd.DataFrame,
    plain: Floats,
    joins: dict[str, float],
    names: Sequence[str],
) -> Iterator[tuple[str, Floats]]:
    """Name and columns ``[n, c]`` of each set; notes in ``joins`` how long Feast took.

    Args:
        store: with the feature services that the sets name.
        rows: ``user_id``, ``item_id``, ``event_timestamp``.
        plain: plain features, ``user_kindness`` last.
        joins: seconds by service.
        names: of the sets.
    """
    asked = rows[["user_id", "item_id", "event_timestamp"]]
    for name in names:
        parts = [plain if "kindness" in SETS[name] else plain[:, :-1]]
        for service in SETS[name]:
            if service != "kindness":
                found = join(store, service, asked)
                joins[service] = found.seconds
                parts.append(found.columns)
        yield name, np.concatenate(parts, axis=1)


def parted(x: Floats, y: Floats, part: npt.NDArray[np.str_]) -> dict[str, Part]:
    """Rows to train on, to stop by and to test on."""
    masks = {which: part == which for which in ("train", "validation", "test")}
    return {which: Part(x[mask], y[mask]) for which, mask in masks.items()}


def score(parts: Mapping[str, Part], seed: int, model: str, columns: str) -> Result:
    """Train a model on one part, stop by another, score it on the third."""
    began = time.perf_counter()
    train, validation, test = (parts[name] for name in ("train", "validation", "test"))
    predicted = MODELS[model](train, validation, test.x, seed)
    seconds = time.perf_counter() - began
    scores = auc(test.y, predicted), log_loss(test.y, predicted)
    return Result(seed, model, columns, train.x.shape[1], len(train.y), *scores, seconds)
