"""Training jobs that read vectors as features, of five libraries, on MovieLens-1M's held-out users.

    python -m tests.bench.crm [SEED …] [--models …] [--sets …] [--table]

Each model is trained on several sets of columns: plain features; these and the raw representations,
32 principal components a channel; and the augmented vectors; and the match scores alone; and both.
The columns that are not plain come out of `get_historical_features`. ``--table`` keeps the table in
``tests/bench/tables/``. The libraries: `pip install ".[crm]"`.

The protocol is `shared/data/README.md`'s, as in ml1m.py: users split 90/10, a tenth of the
others decide when to stop, and the test users are looked at once, at the end.

HEIN and every model learn from the same training users. To these HEIN fits its vectors better than
to new users, and trees trained on them would trust its vectors too much: so a user's vector is made
out of fold, as any target encoding is.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reki_feast import rendering
from reki_feast.encoding import Floats
from reki_feast.evaluation import plot, render
from reki_feast.evaluation.command import machine
from reki_feast.models.hein import (
    FitOptions,
    HeinConfig,
    HeinData,
    default_vector,
    fit_hein,
    transform,
)
from reki_feast.models.training_config import TrainingConfig
from reki_feast.report import Progress, Silent
from reki_feast.schema import Kind
from reki_feast.stages.training_data import training_data
from tests.bench import crm_report, ml1m
from tests.bench.common import BUILD, data_folder, finish
from tests.bench.crm_features import plain_features
from tests.bench.crm_joined import Vectors, publish
from tests.bench.crm_learners import MODELS, PACKAGES
from tests.bench.crm_models import FEW, SETS, Found, Result, column_sets, parted, score
from tests.bench.tables import OUT

Tables = Mapping[Kind, pa.Table]
HELD_OUT = 0.1  # share of the users to test on, and of the others to stop by
#: Chosen on validation users, seed 0.
SETTINGS = HeinConfig(
    components=None,
    hein_dropout=0.3,
    match_weight=4.0,
    folds=4,
    test=0.0,
    training=TrainingConfig(epochs=3, batch_size=2048, learning_rate=3e-3, deferred_batches=1),
)
#: Makes vectors of ratings, representations and a seed.
Make = Callable[[pa.Table, Tables, int], Vectors]


def run(
    data: Path,
    folder: Path,
    progress: Progress | None = None,
    *,
    seeds: Sequence[int] = (0,),
    models: Sequence[str] = ("LightGBM",),
    sets: Sequence[str] = tuple(SETS),
    make: Make | None = None,
) -> Found:
    """Train all models on all sets of columns.

    Args:
        data: folder with ``ml-1m/`` and ``ml-1m-knowledge/``.
        folder: of the project, where encoded texts are kept.
        progress: shows how far it is; None shows nothing.
        seeds: each draws its own split and weights.
        models: names of :data:`~tests.bench.crm_learners.MODELS`.
        sets: names of :data:`~tests.bench.crm_models.SETS`, those of ``FEW`` at least.
        make: makes the vectors of the ratings HEIN may see; None trains it with a DIN.
    """
    bars = progress or Silent()
    found = training_data(ml1m.project(data, folder, bars))
    ratings = found.interactions
    tables: Tables = {"user": found.users, "item": found.items}
    results: list[Result] = []
    joins: dict[str, float] = {}
    for seed in seeds:
        part = parts_of(ratings["user_id"].to_numpy(), seed)
        with bars.bar(f"training HEIN, seed {seed}"):
            vectors = (make or condensed)(ratings.filter(pa.array(part == "train")), tables, seed)
        store = publish(BUILD / "crm", vectors, tables)
        plain = plain_of(data, ratings, part == "train")
        sample = ratings["sample"].to_numpy()
        rows, part = entity_rows(ratings), part[sample]
        liked = rows.pop("liked").to_numpy(np.float32)
        for name, x in column_sets(store, rows, plain[sample], joins, sets):
            given = parted(x, liked, part)
            results += [score(given, seed, model, name) for model in models]
    return Found("MovieLens-1M, held-out users", tuple(results), joins, len(rows), (ml1m.NOTE,))


def parts_of(user: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.str_]:
    """The part of each row's user: ``train``, ``validation`` or ``test``.

    The test users are those of `reki evaluate` with the same seed.
    """
    users, code = np.unique(user, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(users))
    rest, test = np.split(shuffled, [len(users) - round(len(users) * HELD_OUT)])
    validation = rest[len(rest) - round(len(rest) * HELD_OUT) :]
    part = np.full(len(users), "train", "<U10")
    part[validation], part[test] = "validation", "test"
    return part[code]


def condensed(ratings: pa.Table, tables: Tables, seed: int) -> Vectors:
    """HEIN trained with a DIN on these ratings, then run over everybody."""
    made = fit_hein(
        HeinData(ratings, tables["user"], tables["item"]),
        config=SETTINGS,
        options=FitOptions(seed=seed, compare=False),
    )
    return Vectors(
        {kind: transform(made, table, kind, ml1m.AS_OF) for kind, table in tables.items()},
        {kind: default_vector(made, kind) for kind in tables},
        made.pairs,
    )


def entity_rows(ratings: pa.Table) -> pd.DataFrame:
    """All samples: keys, a time after the vectors', and the label."""
    rows = ratings.filter(ratings["sample"]).select(["user_id", "item_id", "liked"]).to_pandas()
    return rows.assign(event_timestamp=ml1m.AS_OF + timedelta(days=1))


def plain_of(data: Path, ratings: pa.Table, train: npt.NDArray[np.bool_]) -> Floats:
    """Plain features of all ratings."""
    users = pq.read_table(data / "ml-1m" / "users.parquet").to_pandas()
    users = users.drop(columns="zip_code").assign(gender=users["gender"] == "F")
    items = pq.read_table(data / "ml-1m" / "movies.parquet").to_pandas()
    return np.asarray(plain_features(ratings.to_pandas(), users, items, train))


def main() -> None:
    """Run it alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=["LightGBM"])
    parser.add_argument("--sets", nargs="+", choices=[*SETS], default=[*SETS])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    needed = [PACKAGES[name] for name in asked.models if name in PACKAGES]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        parser.error(f"no module {', '.join(missing)}: pip install '.[crm]'")
    if absent := [name for name in FEW if name not in asked.sets]:
        parser.error(f"gains need these sets too: {', '.join(absent)}")
    data, progress = data_folder(), rendering.ProgressBars()
    how = {"seeds": asked.seeds, "models": asked.models, "sets": asked.sets}
    found = run(data, BUILD / "ml1m", progress, **how)
    rendering.report(crm_report.report(found))
    if asked.table:
        table = crm_report.table([found])
        render.write([table], OUT, render.TableContext("MovieLens", machine(), tuple(asked.seeds)))
        plot.draw(table, OUT)
    finish("crm", "training jobs with vectors out of Feast", crm_report.rows(found))


if __name__ == "__main__":
    main()
