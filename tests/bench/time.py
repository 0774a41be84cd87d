"""Do columns out of Feast make training jobs better tomorrow? Five libraries, two logs in time.

    python -m tests.bench.time [SEED …] [--data …] [--models …] [--table]

Each job trains on what came before a time and is tested on what came after it. It has plain columns
that a good job would have anyway: running counts, rates and means of the user, the item and the
user's genres, by how much the user rates above others, and what is known of both. Beside them it
gets what a project publishes, and controls: as many columns of noise, and the same project with
each item's texts being another's. All settings are the same for all sets of columns.

A project on disk is brought up to date as its log grows (time_projects.py); the columns come out of
`get_historical_features`. ``--table`` keeps the table in ``tests/bench/tables/``.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from reki_feast import rendering
from reki_feast.encoding import Floats
from reki_feast.evaluation import plot, render
from reki_feast.evaluation.command import machine
from reki_feast.models.temporal_gain import Schedule, noise, score_auc, share_found
from reki_feast.report import Progress, Report, Silent
from tests.bench.common import BUILD, data_folder, finish
from tests.bench.crm_learners import MODELS, PACKAGES
from tests.bench.tables import OUT
from tests.bench.time_data import BEFORE, DATA, Data, parts_of, permuted
from tests.bench.time_models import PLAIN, Rows, measured, processes
from tests.bench.time_projects import columns_of
from tests.bench.time_report import SCORE, Found, rows, table

SEEDS = (0, 1, 2, 3, 4)
#: Parts of each set beside the plain columns.
SETS: Mapping[str, Sequence[str]] = {
    PLAIN: (),
    "+ noise": ("noise",),
    "+ vectors": ("vectors",),
    SCORE: ("score",),
    "+ score, permuted texts": ("permuted score",),
    "+ all of reki_match": ("match",),
    "+ score, vectors": ("score", "vectors"),
    "+ vectors, permuted texts": ("permuted vectors",),
}
SCHEDULES: Mapping[Schedule, str] = {
    "nightly": "nightly",
    "hourly": "hourly",
    "event": "at each event",
}


def run(
    data: Data,
    folder: Path,
    progress: Progress | None = None,
    *,
    seeds: Sequence[int] = SEEDS,
    models: Sequence[str] = tuple(MODELS),
) -> Found:
    """Make the data set's project and one of permuted texts, train all jobs on all sets.

    Args:
        data: of :data:`~tests.bench.time_data.DATA`.
        folder: of the projects, made anew, and of vectors of texts, kept.
        progress: shows how far it is.
        seeds: of the jobs' models.
        models: names of :data:`~tests.bench.crm_learners.MODELS`.
    """
    bars, began = progress or Silent(), time.perf_counter()
    parts, known = parts_of_sets(data, folder, bars)
    made = time.perf_counter() - began
    sets = column_sets(data.plain(), parts)
    part, liked = parts_of(data.ratings), data.ratings["liked"].to_numpy(np.float32)
    users = data.ratings["user_id"].to_numpy()
    with bars.bar(f"{data.title}: training jobs") as bar, TemporaryDirectory() as columns:
        rows = Rows(liked, part, users)
        results = measured(Path(columns), sets, rows, seeds=seeds, models=models, done=bar)
    scores = parts["score"][:, 0]
    early, late = (
        score_auc(scores, liked, known & side) for side in (part != "test", part == "test")
    )
    notes = (*data.notes, *tested(data, part, known), f"its two projects took {made:.0f} s")
    return Found(data.name, data.title, tuple(results), (early, late), notes)


def parts_of_sets(
    data: Data, folder: Path, bars: Progress
) -> tuple[dict[str, Floats], npt.NDArray[np.bool_]]:
    """What sets are made of, by name; and the rows whose user and item Feast knows a state of."""
    cut = data.ratings["event_timestamp"].quantile(BEFORE)
    texts = folder / "texts" / data.name
    first = data, cut, folder / data.name, texts
    second = permuted(data, seed=0), cut, folder / f"{data.name}_permuted", texts
    if texts.exists():
        with bars.bar(f"{data.title}: two projects"), processes() as pool:
            made = [pool.submit(columns_of, *one) for one in (first, second)]
            (found, known), (moved, _) = (one.result() for one in made)
    else:  # the second has the first one's texts
        (found, known), (moved, _) = (columns_of(*one, bars) for one in (first, second))
    parts = {
        **found,
        **{f"permuted {name}": columns for name, columns in moved.items()},
        "noise": noise(len(known), found["vectors"].shape[1], seed=0),
        "score": found["match"][:, :1],
        "permuted score": moved["match"][:, :1],
    }
    return parts, known


def column_sets(plain: Floats, parts: Mapping[str, Floats]) -> dict[str, Floats]:
    """Columns ``[n, c]`` of each set."""
    return {
        name: np.concatenate([plain, *(parts[part] for part in of_set)], axis=1)
        for name, of_set in SETS.items()
    }


def tested(data: Data, part: npt.NDArray[np.str_], known: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """What is tested, and how much of it finds a state, by how often states are made anew."""
    rows, late = data.ratings, part == "test"
    when = rows["event_timestamp"].to_numpy("datetime64[us]").astype(np.int64)
    cut = int(when[late].min())
    seen = rows["user_id"][late].isin(rows["user_id"][~late]).mean()
    users, items = (rows[name].to_numpy() for name in ("user_id", "item_id"))
    shares = [
        f"{share_found(users, items, when, cut, schedule):.0%} {said}"
        for schedule, said in SCHEDULES.items()
    ]
    return (
        f"tested on {late.sum():,} rows of {rows['user_id'][late].nunique():,} users, from "
        f"{rows['event_timestamp'][late].min():%Y-%m-%d} on, "
        f"{seen:.0%} of them by users seen before",
        f"of these rows {known[late].mean():.0%} find a state of their user and item in Feast; had "
        f"states been made anew only now and then: {', '.join(shares)}",
    )


def main() -> None:
    """Run it alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[*SEEDS])
    parser.add_argument("--data", nargs="+", choices=[*DATA], default=[*DATA])
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    needed = [PACKAGES[name] for name in asked.models if name in PACKAGES]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        parser.error(f"no module {', '.join(missing)}: pip install '.[crm]'")
    folder, how = data_folder(), {"seeds": asked.seeds, "models": asked.models}
    every = [
        run(DATA[name](folder), BUILD / "time", rendering.ProgressBars(), **how)
        for name in asked.data
    ]
    made = table(every)
    if asked.table:
        titles = " and ".join(found.title for found in every)
        render.write([made], OUT, render.TableContext(titles, machine(), tuple(asked.seeds)))
        plot.draw(made, OUT)
    rendering.report(Report(made.title, tables=[render.terminal(made)], notes=[*made.notes]))
    finish("time", "training jobs in time, with columns out of Feast", rows(every))


if __name__ == "__main__":
    main()
