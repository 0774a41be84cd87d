"""Models of five libraries, as training jobs use them: trees by columns, networks by a vector."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from reki_feast.encoding import Floats
from reki_feast.models.metrics import auc

ROUNDS, PATIENCE = 600, 30
SKLEARN_ROUNDS = 200
THREADS = min(2, int(os.environ.get("OMP_NUM_THREADS", "2")))
WIDE = 50  # columns, from which on each tree sees a part of them
#: Of the networks.
EPOCHS, RATE, HIDDEN, CROSSES = 10, 1e-3, (200, 80), 3


@dataclass(frozen=True)
class Part:
    """Rows of one part of the users: columns ``[n, c]`` and labels ``[n]``."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Sizes:
    """What depends on how many rows there are to learn from.

    Attributes:
        leaves: of a tree, of LightGBM and scikit-learn.
        depth: of a tree, of XGBoost.
        share: of the columns, what a tree of these two sees where there are many.
        stops: whether scikit-learn's trees stop by the validation rows, as the others' do.
        batch: of the networks.
        clip: standard deviations at which their columns are cut.
        decay: of their weights, L2.
    """

    leaves: int
    depth: int
    share: float
    stops: bool
    batch: int
    clip: float
    decay: float


#: For hundreds of thousands of rows.
LARGE = Sizes(leaves=31, depth=6, share=0.3, stops=False, batch=2048, clip=np.inf, decay=0.0)
#: For tens of thousands; nothing changes with the number of columns. Chosen on the validation rows
#: of MovieLens-100K and amazon-office, with plain columns alone.
SMALL = Sizes(leaves=7, depth=3, share=1.0, stops=True, batch=256, clip=3.0, decay=1e-3)


class Model(Protocol):
    """Trains on the first part, stops by the second, gives probabilities of the third's rows."""

    def __call__(
        self, train: Part, validation: Part, x: Floats, seed: int, sizes: Sizes = LARGE
    ) -> Floats: ...


def lightgbm(train: Part, validation: Part, x: Floats, seed: int, sizes: Sizes = LARGE) -> Floats:
    """Gradient boosted trees, as many as validation users have use for."""
    import lightgbm as lgb

    parameters = {
        "objective": "binary",
        "metric": "auc",
        "learning_rate": 0.05,
        "num_leaves": sizes.leaves,
        "min_data_in_leaf": 200,
        "max_bin": 63,
        "feature_fraction": _share(train, sizes),
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "num_threads": THREADS,
        "seed": seed,
        "verbose": -1,
    }
    first = lgb.Dataset(train.x, train.y, params=parameters)
    second = lgb.Dataset(validation.x, validation.y, reference=first, params=parameters)
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    booster = lgb.train(parameters, first, ROUNDS, [second], callbacks=[stop])
    return np.asarray(booster.predict(x))


def xgboost(train: Part, validation: Part, x: Floats, seed: int, sizes: Sizes = LARGE) -> Floats:
    """The same, of XGBoost."""
    import xgboost as xgb

    model = xgb.XGBClassifier(
        n_estimators=ROUNDS,
        learning_rate=0.05,
        subsample=0.7,
        max_depth=sizes.depth,
        min_child_weight=20,
        max_bin=64,
        colsample_bytree=_share(train, sizes),
        eval_metric="auc",
        early_stopping_rounds=PATIENCE,
        n_jobs=THREADS,
        random_state=seed,
    )
    model.fit(train.x, train.y, eval_set=[(validation.x, validation.y)], verbose=False)
    return np.asarray(model.predict_proba(x)[:, 1])


def sklearn(train: Part, validation: Part, x: Floats, seed: int, sizes: Sizes = LARGE) -> Floats:
    """The same, of scikit-learn; it cannot stop by rows handed in, so that is done by hand."""
    model = HistGradientBoostingClassifier(
        max_iter=SKLEARN_ROUNDS,
        max_bins=63,
        max_leaf_nodes=sizes.leaves,
        min_samples_leaf=100,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(train.x, train.y)
    if not sizes.stops:
        return np.asarray(model.predict_proba(x)[:, 1])
    scores = [auc(validation.y, one) for one in model.staged_decision_function(validation.x)]
    staged = model.staged_predict_proba(x)
    return np.asarray(next(islice(staged, int(np.argmax(scores)), None))[:, 1])


def torch_rechub(
    train: Part, validation: Part, x: Floats, seed: int, sizes: Sizes = LARGE
) -> Floats:
    """DCN of torch-rechub over all columns, standardised; validation users choose the epoch."""
    from torch_rechub.basic.features import DenseFeature
    from torch_rechub.models.ranking import DCN
    from torch_rechub.trainers import CTRTrainer

    torch.manual_seed(seed)
    first, second, last = _standard(sizes.clip, train.x, validation.x, x)
    mlp = {"dims": list(HIDDEN), "dropout": 0.1, "activation": "relu"}
    model = DCN([DenseFeature("x", x.shape[1])], CROSSES, mlp)

    def batches(part: Floats, labels: Floats) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        rows = zip(*(torch.from_numpy(a).split(sizes.batch) for a in (part, labels)), strict=True)
        return [({"x": columns}, label) for columns, label in rows]

    order = np.random.default_rng(seed).permutation(len(first))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = CTRTrainer(
            model,
            optimizer_params={"lr": RATE, "weight_decay": sizes.decay},
            n_epoch=EPOCHS,
            earlystop_patience=2,
            model_path=folder,
        )
        trainer.fit(batches(first[order], train.y[order]), batches(second, validation.y))
        return np.asarray(trainer.predict(model, batches(last, np.zeros(len(last), np.float32))))


def fuxictr(train: Part, validation: Part, x: Floats, seed: int, sizes: Sizes = LARGE) -> Floats:
    """DCNv2 of FuxiCTR's layers, the same way."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import CrossNetV2, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class DcnV2(BaseModel):  # type: ignore[misc]
        def __init__(self, fields: FeatureMap, folder: str) -> None:
            named = {"model_id": "crm", "model_root": folder, "metrics": ["AUC"], "verbose": 0}
            super().__init__(fields, net_regularizer=sizes.decay, **named)
            self.cross = CrossNetV2(x.shape[1], num_layers=CROSSES)
            self.mlp = MLP_Block(x.shape[1], hidden_units=list(HIDDEN), dropout_rates=0.1)
            self.output = torch.nn.Linear(x.shape[1] + HIDDEN[-1], 1)
            self.compile("adam", "binary_crossentropy", lr=RATE)
            self.reset_parameters()

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            columns = self.get_inputs(inputs)["x"]
            both = torch.cat([self.cross(columns), self.mlp(columns)], dim=1)
            return {"y_pred": self.output_activation(self.output(both))}

    torch.manual_seed(seed)
    first, second, last = _standard(sizes.clip, train.x, validation.x, x)

    def batches(part: Floats, labels: Floats) -> list[dict[str, torch.Tensor]]:
        rows = zip(*(torch.from_numpy(a).split(sizes.batch) for a in (part, labels)), strict=True)
        return [{"x": columns, "y": label} for columns, label in rows]

    order = np.random.default_rng(seed).permutation(len(first))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        (Path(folder) / "crm").mkdir()
        fields = FeatureMap("crm", folder)
        fields.features["x"] = {"type": "numeric", "source": ""}
        fields.labels = ["y"]
        model = DcnV2(fields, folder)
        chosen = batches(second, validation.y)
        model.fit(batches(first[order], train.y[order]), EPOCHS, chosen)
        return np.asarray(model.predict(batches(last, np.zeros(len(last), np.float32))))


#: The package of each model that is not among the project's own.
PACKAGES = {
    "LightGBM": "lightgbm",
    "XGBoost": "xgboost",
    "torch-rechub": "torch_rechub",
    "FuxiCTR": "fuxictr",
}
MODELS: Mapping[str, Model] = {
    "LightGBM": lightgbm,
    "XGBoost": xgboost,
    "scikit-learn": sklearn,
    "torch-rechub": torch_rechub,
    "FuxiCTR": fuxictr,
}


def _share(train: Part, sizes: Sizes) -> float:
    return sizes.share if train.x.shape[1] > WIDE else 1.0


def _standard(clip: float, train: Floats, *others: Floats) -> tuple[Floats, ...]:
    """Columns of mean 0 and variance 1 in training; what is absent is the mean."""
    mean, spread = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    return tuple(
        np.clip(np.nan_to_num((part - mean) / scale), -clip, clip).astype(np.float32)
        for part in (train, *others)
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither library can be told not to print its progress."""
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield
