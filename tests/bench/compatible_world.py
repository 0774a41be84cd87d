"""MovieLens-1M, its users drawn, and the models that compatible.py trains on them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from reki_feast import rendering
from reki_feast.evaluation.encoders import by_encoders
from reki_feast.models.click.dcn import DcnV2
from reki_feast.models.click.din import Din
from reki_feast.models.data import Samples, SampleSet, make_samples
from reki_feast.models.hein import (
    FitOptions,
    FittedHein,
    HeinConfig,
    HeinData,
    Predecessor,
    default_vector,
    fit_hein,
    make_plain,
    vectors_of,
)
from reki_feast.models.hein.joint import StoredVectorModel
from reki_feast.models.inputs import InputSpec
from reki_feast.models.scoring import predict_logits
from reki_feast.models.training import fit
from reki_feast.models.training_config import TrainingConfig
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.training_data import training_data
from tests.bench import ml1m
from tests.bench.common import data_folder
from tests.bench.tables import static_encoders

MODELS = ("DCNv2", "LightGBM")
CONFIG = HeinConfig(test=0.0, training=TrainingConfig(epochs=2))
_NEW_SHARE = 1 / 11
_TREES, _TREE_ROWS = 100, 300_000

Vectors = dict[Kind, Tensor]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tables:
    """MovieLens-1M, with representations of two encoders."""

    interactions: pa.Table
    representations: tuple[pa.Table, pa.Table]
    others: tuple[pa.Table, pa.Table]

    @classmethod
    def of(cls, folder: Path) -> Tables:
        """Of a project's folder, encoded as far as needed."""
        bars = rendering.ProgressBars()
        project = ml1m.project(data_folder(), folder, bars)
        found = training_data(project)
        encoders = static_encoders(folder / "wordllama-256")
        if not encoders:
            sys.exit("the other encoder is WordLlama: pip install '.[bench]'")
        (others,) = by_encoders(project, found, encoders, bars).values()
        return cls(found.interactions, (found.users, found.items), others)


@dataclass(frozen=True)
class World:
    """Users by what they are for, and the samples of all.

    Attributes:
        tables: all.
        seed: of the draw, and of the models.
        old: users that the old HEIN learns from.
        new: users that came since.
        tested: users whom no model learns from.
    """

    tables: Tables
    seed: int
    old: Sequence[int]
    new: Sequence[int]
    tested: Sequence[int]

    @classmethod
    def drawn(cls, tables: Tables, seed: int, *, users: int | None, tested: int | None) -> World:
        """A tenth of the users is tested, or so many; the others, or so many of them, train."""
        ids = np.unique(tables.interactions["user_id"].to_numpy())
        drawn = np.random.default_rng(seed).permutation(ids).tolist()
        count = tested or len(drawn) // 10
        train = drawn[count:][:users]
        new = round(len(train) * _NEW_SHARE)
        return cls(tables, seed, train[new:], train[:new], drawn[:count])

    def data(self, users: Sequence[int], *, others: bool = False) -> HeinData:
        """What HEIN is trained on."""
        of_users, items = self.tables.others if others else self.tables.representations
        return HeinData(
            _of_users(self.tables.interactions, users), _of_users(of_users, users), items
        )

    def hein(self, data: HeinData, before: Predecessor | None = None) -> FittedHein:
        """HEIN trained with DIN, as `reki train` does."""
        options = FitOptions(seed=self.seed, compare=False, predecessor=before)
        return fit_hein(data, backbone=Din, config=CONFIG, options=options)

    def vectors(self, hein: FittedHein, *, others: bool = False) -> Vectors:
        """Vectors ``[entities + 1, q]`` of all users and items by index."""
        tables = self.tables.others if others else self.tables.representations
        ids = (self.made.users, self.made.items)
        return {
            kind: _by_index(hein, table, of_kind, kind)
            for kind, table, of_kind in zip(KINDS, tables, ids, strict=True)
        }

    @cached_property
    def before(self) -> FittedHein:
        """HEIN of the old users."""
        return self.hein(self.data(self.old))

    @cached_property
    def old_vectors(self) -> Vectors:
        """What it makes of all users and items."""
        return self.vectors(self.before)

    @cached_property
    def made(self) -> SampleSet:
        """The samples of all users."""
        rows = _of_users(self.tables.interactions, [*self.old, *self.new, *self.tested])
        return make_samples(rows, user="user_id", item="item_id")

    def samples(self, users: Sequence[int]) -> Samples:
        """Those of some users."""
        index = pc.index_in(pa.array(users, self.made.users.type), value_set=self.made.users)
        chosen = torch.isin(self.made.samples.user, torch.from_numpy(index.to_numpy() + 1))
        return self.made.samples.take(chosen.nonzero().squeeze(1))

    def model(self, name: str, users: Sequence[int], vectors: Vectors) -> Job:
        """A model downstream, trained on stored vectors of some users."""
        held = len(users) // 10
        parts = self.samples(users[held:]), self.samples(users[:held])
        seed = self.seed + 100
        if name == "LightGBM":
            return TreeJob.trained(parts[0], vectors, seed)
        sizes = tuple(table.shape[1] for table in vectors.values())
        spec = InputSpec(len(self.made.items), self.made.verdicts, extra_sizes=sizes)
        job = DcnJob(StoredVectorModel(make_plain(spec, DcnV2, seed=seed), vectors, KINDS))
        fit(job.model, *parts, config=CONFIG.training, seed=seed)
        return job


class Job(Protocol):
    """A trained model downstream."""

    def scores(self, samples: Samples, vectors: Vectors) -> Scores: ...


@dataclass(frozen=True)
class DcnJob:
    """A click model that reads ids, histories and vectors."""

    model: StoredVectorModel

    def scores(self, samples: Samples, vectors: Vectors) -> Scores:
        """Logits of samples, with any vectors."""
        model = StoredVectorModel(self.model.backbone, vectors, KINDS)
        return np.asarray(predict_logits(model, samples).numpy())


@dataclass(frozen=True)
class TreeJob:
    """Boosted trees that read vectors, and the dot products of their pairs."""

    model: lightgbm.Booster

    @classmethod
    def trained(cls, samples: Samples, vectors: Vectors, seed: int) -> TreeJob:
        draw = np.random.default_rng(seed).permutation(len(samples))[:_TREE_ROWS]
        some = samples.take(torch.from_numpy(np.sort(draw)))
        data = lightgbm.Dataset(cls.columns(some, vectors), some.label.numpy())
        settings = {
            "objective": "binary",
            "min_data_in_leaf": 200,
            "feature_fraction": 0.5,
            "max_bin": 63,
            "num_threads": 1,
            "seed": seed,
            "verbosity": -1,
        }
        return cls(lightgbm.train(settings, data, _TREES))

    def scores(self, samples: Samples, vectors: Vectors) -> Scores:
        """Scores of samples, with any vectors."""
        return np.asarray(self.model.predict(self.columns(samples, vectors)), np.float32)

    @staticmethod
    def columns(samples: Samples, vectors: Vectors) -> npt.NDArray[np.float32]:
        """User's and item's floats, their dot products by pair, and of all."""
        user, item = vectors["user"][samples.user], vectors["item"][samples.item]
        dots = (user * item).unflatten(1, (-1, CONFIG.output_size)).sum(-1)
        return torch.cat([user, item, dots, dots.sum(1, keepdim=True)], 1).numpy()


def _of_users(table: pa.Table, users: Sequence[int]) -> pa.Table:
    chosen = pc.is_in(table["user_id"], value_set=pa.array(users, table["user_id"].type))
    return table.filter(chosen).combine_chunks()


def _by_index(hein: FittedHein, table: pa.Table, ids: pa.Array, kind: Kind) -> Tensor:
    rows = pc.index_in(ids, value_set=table.column(0)).fill_null(-1).to_numpy()
    made = np.concatenate([vectors_of(hein, table, kind), default_vector(hein, kind)[None]])
    return torch.from_numpy(made[np.append(-1, rows)])
