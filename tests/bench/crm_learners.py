"""Models of five libraries, as training jobs use them: trees by columns, networks by a vector."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from reki_feast.encode import Floats

ROUNDS, PATIENCE = 600, 30
WIDE = 50  # columns, from which on each tree sees a part of them
#: Of the networks.
EPOCHS, BATCH, RATE, HIDDEN, CROSSES = 10, 2048, 1e-3, (200, 80), 3


@dataclass(frozen=True)
class Part:
    """Rows of one part of the users: columns ``[n, c]`` and labels ``[n]``."""

    x: Floats
    y: Floats


#: Trains on the first part, stops by the second, gives probabilities of the third's rows.
Model = Callable[[Part, Part, Floats, int], Floats]


def lightgbm(train: Part, validation: Part, x: Floats, seed: int) -> Floats:
    """Gradient boosted trees, as many as validation users have use for."""
    import lightgbm as lgb

    parameters = {
        "objective": "binary",
        "metric": "auc",
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_data_in_leaf": 200,
        "max_bin": 63,
        "feature_fraction": 0.3 if train.x.shape[1] > WIDE else 1.0,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "num_threads": 2,
        "seed": seed,
        "verbose": -1,
    }
    first = lgb.Dataset(train.x, train.y, params=parameters)
    second = lgb.Dataset(validation.x, validation.y, reference=first, params=parameters)
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    booster = lgb.train(parameters, first, ROUNDS, [second], callbacks=[stop])
    return np.asarray(booster.predict(x))


def xgboost(train: Part, validation: Part, x: Floats, seed: int) -> Floats:
    """The same, of XGBoost."""
    import xgboost as xgb

    model = xgb.XGBClassifier(
        n_estimators=ROUNDS,
        learning_rate=0.05,
        subsample=0.7,
        max_depth=6,
        min_child_weight=20,
        max_bin=64,
        colsample_bytree=0.3 if train.x.shape[1] > WIDE else 1.0,
        eval_metric="auc",
        early_stopping_rounds=PATIENCE,
        n_jobs=2,
        random_state=seed,
    )
    model.fit(train.x, train.y, eval_set=[(validation.x, validation.y)], verbose=False)
    return np.asarray(model.predict_proba(x)[:, 1])


def sklearn(train: Part, validation: Part, x: Floats, seed: int) -> Floats:
    """The same, of scikit-learn; it does not look at the validation users."""
    model = HistGradientBoostingClassifier(
        max_iter=200, max_bins=63, min_samples_leaf=100, early_stopping=False, random_state=seed
    )
    model.fit(train.x, train.y)
    return np.asarray(model.predict_proba(x)[:, 1])


def torch_rechub(train: Part, validation: Part, x: Floats, seed: int) -> Floats:
    """DCN of torch-rechub over all columns, standardised; validation users choose the epoch."""
    from torch_rechub.basic.features import DenseFeature
    from torch_rechub.models.ranking import DCN
    from torch_rechub.trainers import CTRTrainer

    torch.manual_seed(seed)
    first, second, last = _standard(train.x, validation.x, x)
    mlp = {"dims": list(HIDDEN), "dropout": 0.1, "activation": "relu"}
    model = DCN([DenseFeature("x", x.shape[1])], CROSSES, mlp)

    def batches(part: Floats, labels: Floats) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        rows = zip(*(torch.from_numpy(a).split(BATCH) for a in (part, labels)), strict=True)
        return [({"x": columns}, label) for columns, label in rows]

    order = np.random.default_rng(seed).permutation(len(first))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = CTRTrainer(
            model,
            optimizer_params={"lr": RATE, "weight_decay": 0.0},
            n_epoch=EPOCHS,
            earlystop_patience=2,
            model_path=folder,
        )
        trainer.fit(batches(first[order], train.y[order]), batches(second, validation.y))
        return np.asarray(trainer.predict(model, batches(last, np.zeros(len(last), np.float32))))


def fuxictr(train: Part, validation: Part, x: Floats, seed: int) -> Floats:
    """DCNv2 of FuxiCTR's layers, the same way."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import CrossNetV2, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class DcnV2(BaseModel):  # type: ignore[misc]
        def __init__(self, fields: FeatureMap, folder: str) -> None:
            super().__init__(fields, model_id="crm", model_root=folder, metrics=["AUC"], verbose=0)
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
    first, second, last = _standard(train.x, validation.x, x)

    def batches(part: Floats, labels: Floats) -> list[dict[str, torch.Tensor]]:
        rows = zip(*(torch.from_numpy(a).split(BATCH) for a in (part, labels)), strict=True)
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


def _standard(train: Floats, *others: Floats) -> tuple[Floats, ...]:
    """Columns of mean 0 and variance 1 in training; what is absent is the mean."""
    mean, spread = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    return tuple(
        np.nan_to_num((part - mean) / scale).astype(np.float32) for part in (train, *others)
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
