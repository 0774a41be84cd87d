"""The five libraries on all sets of columns, a process a core, and what each set gains them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reki_feast.encoding import Floats
from reki_feast.models.bootstrap import resampled_auc, two_sided
from reki_feast.models.metrics import auc
from reki_feast.report import Bar
from tests.bench.crm_learners import MODELS, SMALL, Part
from tests.bench.crm_models import parted

PLAIN = "plain"
ROUNDS = 500
#: Whose settings leave nothing to a seed: trained once.
WITHOUT_SEED = ("scikit-learn",)
_PROCESSES = 2


@dataclass(frozen=True)
class Measured:
    """A model on a set of columns.

    Attributes:
        model: of which library.
        columns: name of the set.
        width: number of its columns.
        auc: on the tested rows, by seed.
        p: that it gains nothing over plain columns, by a bootstrap over users of the mean gain over
            seeds.
    """

    model: str
    columns: str
    width: int
    auc: Mapping[int, float]
    p: float

    @property
    def mean(self) -> float:
        """AUC, the mean over seeds."""
        return float(np.mean(list(self.auc.values())))


@dataclass(frozen=True)
class Rows:
    """Interactions.

    Attributes:
        labels: ``[n]``.
        part: ``[n]``, ``train``, ``validation`` or ``test``.
        users: ``[n]``.
    """

    labels: Floats
    part: npt.NDArray[np.str_]
    users: npt.NDArray[np.int64]


def measured(
    folder: Path,
    sets: Mapping[str, Floats],
    rows: Rows,
    *,
    seeds: Sequence[int],
    models: Sequence[str],
    done: Bar,
) -> list[Measured]:
    """Train all and test all.

    Args:
        folder: where processes find the sets.
        sets: columns ``[n, c]`` by name, ``plain`` among them.
        rows: what they are columns of.
        seeds: of the models.
        models: names of :data:`~tests.bench.crm_learners.MODELS`.
        done: is told how many trainings are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "rows.npz", **vars(rows))
    names = list(sets)
    for at, columns in enumerate(sets.values()):
        np.save(folder / f"{at}.npy", columns.astype(np.float32))
    jobs = [
        (at, model, seed)
        for at in range(len(names))
        for model in models
        for seed in (seeds[:1] if model in WITHOUT_SEED else seeds)
    ]
    found: dict[tuple[int, str, int], Floats] = {}
    with processes() as pool:
        running = {pool.submit(_predicted, folder, *job): job for job in jobs}
        for one in as_completed(running):
            found[running[one]] = one.result()
            done(len(found), len(jobs))
        compared = [pool.submit(_compared, folder, names, _of(found, model)) for model in models]
        by_model = [one.result() for one in compared]
    widths = {name: columns.shape[1] for name, columns in sets.items()}
    return [
        Measured(model, name, widths[name], *result)
        for model, results in zip(models, by_model, strict=True)
        for name, result in zip(names, results, strict=True)
    ]


def _of(found: Mapping[tuple[int, str, int], Floats], model: str) -> list[dict[int, Floats]]:
    """Predictions of one model, by seed, for each set."""
    sets: dict[int, dict[int, Floats]] = {}
    for (at, which, seed), predicted in sorted(found.items(), key=lambda pair: pair[0]):
        if which == model:
            sets.setdefault(at, {})[seed] = predicted
    return list(sets.values())


def _compared(
    folder: Path, names: Sequence[str], predicted: Sequence[Mapping[int, Floats]]
) -> list[tuple[dict[int, float], float]]:
    """AUC by seed, and p, of each set."""
    rows = np.load(folder / "rows.npz")
    late = rows["part"] == "test"
    labels, users = rows["labels"][late], rows["users"][late]
    spread = [
        resampled_auc(list(part.values()), labels, users, rounds=ROUNDS).mean(axis=0)
        for part in predicted
    ]
    plain = spread[names.index(PLAIN)]
    return [
        ({seed: auc(labels, score) for seed, score in part.items()}, two_sided(own - plain))
        for part, own in zip(predicted, spread, strict=True)
    ]


def _predicted(folder: Path, at: int, model: str, seed: int) -> Floats:
    """The tested rows' probabilities."""
    import torch

    torch.set_num_threads(1)
    given = _parts(folder, at)
    train, validation, test = (given[name] for name in ("train", "validation", "test"))
    return np.asarray(MODELS[model](train, validation, test.x, seed, SMALL), np.float32).ravel()


@lru_cache(maxsize=1)
def _parts(folder: Path, at: int) -> Mapping[str, Part]:
    rows = np.load(folder / "rows.npz")
    return parted(np.load(folder / f"{at}.npy"), rows["labels"], rows["part"])


@contextmanager
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two, of one thread each: small models gain little by a second one."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(_PROCESSES, mp_context=spawned) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
