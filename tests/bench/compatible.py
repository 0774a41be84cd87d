"""Does a model in service survive a retrain? MovieLens-1M, compatible training beside a plain one.

    python -m tests.bench.compatible [SEED …] [--users N] [--tested N] [--project DIR] [--table]

HEIN is trained with DIN on N users, 10/11 of them: the old vectors. Models that learn from these
are the ones in service: DCNv2, of another seed and class than HEIN's recommender, and LightGBM.
Then HEIN is trained again, plain and compatible: on all N users (a tenth more), and on the old ones
by another encoder. Held-out users' vectors are given to the models in service, and to new ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reki_feast import rendering
from reki_feast.evaluation import plot, render
from reki_feast.evaluation.command import machine
from reki_feast.models.bootstrap import resampled_auc
from reki_feast.models.hein import Predecessor
from reki_feast.models.metrics import auc
from reki_feast.report import Report
from tests.bench.common import BUILD, finish
from tests.bench.compatible_report import CASES, report, rows
from tests.bench.compatible_world import MODELS, Job, Tables, Vectors, World
from tests.bench.tables import OUT

SEEDS = (0, 1, 2)
_ROUNDS = 200
_CELLS = BUILD / "compatible"


def cells(world: World, case: str) -> list[dict[str, Any]]:
    """AUC of all models in a case of a seed, a cell a model downstream."""
    others, users = case == "encoder", [*world.old, *(world.new if case == "users" else ())]
    data, found = world.data(users, others=others), []
    near = Predecessor(world.before, *world.tables.representations, is_same_encoder=not others)
    plain, compatible = (
        world.vectors(world.hein(data, one), others=others) for one in (None, near)
    )
    for name in MODELS:
        in_service = world.model(name, world.old, world.old_vectors)
        new = [world.model(name, users, vectors) for vectors in (plain, compatible)]
        jobs: dict[str, tuple[Job, Vectors]] = {
            "old, own": (in_service, world.old_vectors),
            "old, plain": (in_service, plain),
            "old, compatible": (in_service, compatible),
            "new, plain": (new[0], plain),
            "new, compatible": (new[1], compatible),
        }
        found.append({"case": case, "model": name} | _measured(world, jobs))
    return found


def _measured(world: World, jobs: Mapping[str, tuple[Job, Vectors]]) -> dict[str, Any]:
    """AUC of each, and of the same resamples of the tested users."""
    tested = world.samples(world.tested)
    scores = [job.scores(tested, vectors) for job, vectors in jobs.values()]
    labels = tested.label.numpy()
    resampled = resampled_auc(scores, labels, tested.user.numpy(), rounds=_ROUNDS, seed=world.seed)
    return {
        "auc": {name: auc(labels, one) for name, one in zip(jobs, scores, strict=True)},
        "resampled": {
            name: np.round(one, 6).tolist() for name, one in zip(jobs, resampled, strict=True)
        },
    }


def main() -> None:
    """Train what is not trained yet; finished cells are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[*SEEDS])
    parser.add_argument("--users", type=int, help="that models learn from; default: nine tenths")
    parser.add_argument("--tested", type=int, help="users; default: a tenth")
    parser.add_argument("--project", type=Path, default=BUILD / "ml1m", help="encoded texts")
    parser.add_argument("--table", action="store_true", help="keep the table in tests/bench/tables")
    asked = parser.parse_args()
    tables, found = Tables.of(asked.project), []
    for seed in asked.seeds:
        world = World.drawn(tables, seed, users=asked.users, tested=asked.tested)
        for case in CASES:
            path = _CELLS / f"{asked.users or 'all'}-{asked.tested or 'tenth'}-{seed}-{case}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(cells(world, case)), "utf-8")
            found += json.loads(path.read_text("utf-8"))
    made = report(found)
    if asked.table:
        used = f"{asked.users or 5436:,} users train, {asked.tested or 604:,} are tested"
        context = render.TableContext(f"MovieLens-1M: {used}", machine(), tuple(asked.seeds))
        render.write([made], OUT, context)
        plot.draw(made, OUT)
    rendering.report(Report(made.title, tables=[render.terminal(made)], notes=[*made.notes]))
    finish("compatible", "what a retrain costs a model in service", rows(found))


if __name__ == "__main__":
    main()
