"""What the jobs share: which rows, which of them are for testing, and how a model reads them.

Nothing here knows of REKI: a job gets whatever features its feature service names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureService, FeatureStore
from sklearn.metrics import log_loss, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train_ctr import KEYS, labels, last_training_time
from train_ctr import REPO as REPO

Arrays = dict[str, npt.NDArray[Any]]


@contextmanager
def needed(*packages: str) -> Iterator[None]:
    """Around a job's own imports: a missing package is one line and exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.stderr.write(f"no module {error.name}: pip install {' '.join(packages)}\n")
        sys.exit(2)


def asked(default: str) -> str:
    """The feature service that the command names, or the job's own."""
    return sys.argv[1] if len(sys.argv) > 1 else default


def entity_rows() -> pd.DataFrame:
    """Every interaction of the sample: who, what, when, and whether it was liked."""
    return labels(REPO.parent / "data")


def only(found: pd.DataFrame, service: FeatureService) -> pd.DataFrame:
    """Keys, label and the service's own features, in an order that does not depend on the join.

    Feast's own stores leave what an on-demand view was computed from among the columns.
    """
    names = [field.name for view in service.feature_view_projections for field in view.features]
    return found[[*KEYS, "liked", *names]].sort_values(KEYS, ignore_index=True)


def is_late(store: FeatureStore, found: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """``[n]``, rows to test on: none whose label REKI's own training has seen."""
    late: npt.NDArray[np.bool_] = found["event_timestamp"] >= last_training_time(store, found)
    return np.asarray(late)


def columns(found: pd.DataFrame) -> pd.DataFrame:
    """One number or category a column, as trees read it: a vector of q floats is q columns."""
    parts = []
    for name, column in features(found).items():
        if is_vector(column):
            parts.append(pd.DataFrame(np.stack(column.to_list())).add_prefix(f"{name}_"))
        else:
            parts.append(column.astype("category") if is_text(column) else column)
    return pd.concat(parts, axis=1)


class Inputs(NamedTuple):
    """What networks read: arrays by name.

    Attributes:
        categories: ``[n]`` int64 codes; 0 is a value that training did not see.
        sizes: number of codes of each.
        numbers: ``[n]`` float32, of mean 0 and variance 1 in training.
        vectors: ``[n, q]`` float32.
    """

    categories: Arrays
    sizes: dict[str, int]
    numbers: Arrays
    vectors: Arrays

    def take(self, rows: npt.NDArray[np.bool_]) -> Arrays:
        """All arrays, of some rows."""
        every = {**self.categories, **self.numbers, **self.vectors}
        return {name: array[rows] for name, array in every.items()}


def inputs(found: pd.DataFrame, train: npt.NDArray[np.bool_]) -> Inputs:
    """The features as arrays, coded and scaled by the rows to train on."""
    made = Inputs({}, {}, {}, {})
    for name, column in features(found).items():
        seen = column[train]
        if is_vector(column):
            made.vectors[name] = np.stack(column.to_list()).astype(np.float32)
        elif is_text(column):
            values = pd.Index(seen.dropna().unique()).sort_values()
            made.categories[name] = values.get_indexer(column).astype(np.int64) + 1
            made.sizes[name] = len(values) + 1
        else:
            scaled = (column - seen.mean()) / (seen.std() or 1.0)
            made.numbers[name] = scaled.fillna(0).to_numpy(np.float32)
    return made


def tell(model: str, service: str, liked: pd.Series, probabilities: npt.ArrayLike) -> None:
    """Print AUC and LogLoss of probabilities of liking."""
    auc, loss = roc_auc_score(liked, probabilities), log_loss(liked, probabilities)
    print(f"{model:12}  {service:14}  AUC {auc:.4f}  LogLoss {loss:.4f}  {len(liked):,} rows")


def features(found: pd.DataFrame) -> dict[str, pd.Series]:
    """The joined features by name."""
    return {str(name): found[name] for name in found if name not in (*KEYS, "liked")}


def is_vector(column: pd.Series) -> bool:
    """Whether a cell holds many numbers."""
    return isinstance(column.iloc[0], np.ndarray | list)


def is_text(column: pd.Series) -> bool:
    """Whether a cell holds a word."""
    return not is_vector(column) and not pd.api.types.is_numeric_dtype(column)
