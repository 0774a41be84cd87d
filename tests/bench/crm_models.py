"""What the benchmarks of training jobs share: sets of columns, models, rows and the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore
from sklearn.ensemble import HistGradientBoostingClassifier

from reki_feast.encode import Floats
from reki_feast.recommend.metrics import auc, log_loss
from reki_feast.report import Report, Table
from tests.bench.common import Row
from tests.bench.crm_joined import join

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
ROUNDS, PATIENCE = 600, 30
WIDE = 50  # columns, from which on each tree sees a part of them


@dataclass(frozen=True)
class Part:
    """Rows of one part of the users: columns ``[n, c]`` and labels ``[n]``."""

    x: Floats
    y: Floats


#: Trains on the first part, stops by the second, gives probabilities of the third's rows.
Model = Callable[[Part, Part, Floats, int], Floats]


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


MODELS: Mapping[str, Model] = {"LightGBM": lightgbm, "XGBoost": xgboost, "scikit-learn": sklearn}


def score(parts: Mapping[str, Part], seed: int, model: str, columns: str) -> Result:
    """Train a model on one part, stop by another, score it on the third."""
    began = time.perf_counter()
    train, validation, test = (parts[name] for name in ("train", "validation", "test"))
    predicted = MODELS[model](train, validation, test.x, seed)
    seconds = time.perf_counter() - began
    scores = auc(test.y, predicted), log_loss(test.y, predicted)
    return Result(seed, model, columns, train.x.shape[1], len(train.y), *scores, seconds)


def model_rows(
    prefix: str, model: str, results: Sequence[Result], joins: Mapping[str, float]
) -> list[Row]:
    """The benchmark's rows of one model: with vectors, and with match scores alone."""
    name = prefix + model.lower().replace("-", "")
    rows: list[Row] = []
    for end, columns in (("auc", "+ vectors"), ("match_auc", "+ match scores")):
        ours, plain = (
            [one.auc for one in results if (one.model, one.columns) == (model, which)]
            for which in (columns, "plain")
        )
        gains = [a - b for a, b in zip(ours, plain, strict=True)]
        row: dict[str, Any] = {
            "name": f"{name}_{end}",
            "ours": fmean(ours),
            "reference": fmean(plain),
            "ratio": fmean(ours) / fmean(plain),
            "unit": "AUC",
            "gain": fmean(gains),
            "least_gain": min(gains),
            "seconds_join": {service: round(seconds, 1) for service, seconds in joins.items()},
        }
        rows.append(row)
    return rows


def report(
    title: str,
    results: Sequence[Result],
    joins: Mapping[str, float],
    count: int,
    notes: Sequence[str] = (),
) -> Report:
    """The table a person reads."""
    plain = {(one.seed, one.model): one.auc for one in results if one.columns == "plain"}
    rows = [
        (
            one.seed,
            one.model,
            one.columns,
            one.width,
            one.rows,
            one.auc,
            f"{one.auc - plain[one.seed, one.model]:+.4f}",
            one.log_loss,
            round(one.seconds),
        )
        for one in results
    ]
    columns = (
        "seed",
        "model",
        "columns",
        "number",
        "trained on",
        "AUC",
        "gain",
        "LogLoss",
        "seconds",
    )
    took = ", ".join(f"{service} {seconds:.1f} s" for service, seconds in joins.items())
    return Report(
        title,
        tables=[Table("crm", columns, rows)],
        notes=[f"get_historical_features of {count:,} rows: {took}", *notes],
    )
