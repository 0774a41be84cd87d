"""Spaces of vectors under random orders of all that makes, serves and removes them.

    python -m tests.bench.spaces [--sequences N] [--seed N] [--workers N]

Each sequence starts from a shop that ran, and draws steps: retraining, publishing, applying,
materializing, promoting, rolling back, retiring, new rows; two at once, or killed at a drawn file.
A reader reads beside each step and after it. By their bytes, all vectors of a read are to be of one
space; ``build/bench/spaces.json`` says how many reads were mixed. Ends with an error if any was, or
if a reader met an error, or rows that are not the newest where they should be.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reki_feast import rendering, stages
from tests.bench.common import BUILD, finish
from tests.bench.spaces_life import STEPS, Planned, Told, lived
from tests.redis_server import plain_server
from tests.stages.conftest import reseed
from tests.stages.space_shop import DATABASES, SpaceShop, ran

_SEQUENCES = 500
#: What is done one after the other, so that each step has something to do.
_CHAINS = (
    ("retrain", "publish", "promote"),
    ("retrain", "publish --materialize", "rollback"),
    ("retrain", "publish", "apply", "materialize -v reki"),
    ("promote", "retire"),
    ("run", "publish --materialize"),
    ("promote", "apply", "materialize-incremental"),
    ("rollback", "retire"),
)
#: Of steps, those that are killed, and those that are begun beside another one.
_KILLED, _BESIDE = 0.25, 0.15
#: Events of a step are about so many.
_EVENTS = 250
#: Of another benchmark.
_COMPATIBLE = ("old_model_compatible_loss", "new_model_compatible_loss")


def planned(draw: random.Random) -> list[Planned]:
    """A sequence: a chain or two, and a step of any kind before, between or after them."""
    chains = draw.choices(_CHAINS, k=draw.randint(1, 2))
    names = [name for chain in chains for name in chain]
    names.insert(draw.randint(0, len(names)), draw.choice(list(STEPS)))
    return [_step(name, draw) for name in names]


def _step(name: str, draw: random.Random) -> Planned:
    kind, number = draw.random(), draw.randrange(1_000)
    if kind < _KILLED:
        return Planned((name,), number, kill=draw.randint(1, _EVENTS))
    if kind < _KILLED + _BESIDE:
        return Planned((name, draw.choice(list(STEPS))), number)
    return Planned((name,), number)


def measured(folder: Path, port: int, sequences: int, seed: int, workers: int) -> Told:
    """So many sequences, some at a time."""
    bases, told, began = _bases(folder, port), Told(), time.monotonic()

    def one(number: int) -> Told:
        root = folder / "lives" / str(number)
        database = len(bases) + number % (4 * workers)
        shop = bases[number % len(bases)].copied(root / "my shop", database)
        try:
            return lived(shop, planned(random.Random(f"{seed} {number}")))
        finally:
            shop.flush()
            shutil.rmtree(root)

    with ThreadPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(one, range(sequences)), 1):
            told.add(found)
            if done % 10 == 0:
                _tell(done, told, began)
    return told


def _bases(folder: Path, port: int) -> list[SpaceShop]:
    """A shop with one space and one with two, each with views of scores and without."""
    bases: list[SpaceShop] = []
    for scores in (False, True):
        place = folder / "bases" / str(len(bases)) / "my shop"
        shop = ran(SpaceShop(place, port, len(bases)).laid(scores=scores))
        number = len(bases) + 1
        two = shop.copied(folder / "bases" / str(number) / "my shop", number)
        bases += [shop, two]
        stages.train(reseed(two.root, 1), retrain=True)
        stages.publish(two.project)
        stages.promote(two.project)
    return bases


def _tell(done: int, told: Told, began: float) -> None:
    seconds = time.monotonic() - began
    rendering.aside(f"{done} sequences, {len(told.mixed)} mixed, {seconds:.0f} s")


def rows(sequences: int, told: Told) -> Iterator[dict[str, Any]]:
    """What is stored: counts, and the losses that `make bench-compatible` measured."""
    counts = {
        "sequences": sequences,
        "steps": told.steps.total(),
        "steps killed": sum(n for name, n in told.steps.items() if name.endswith("killed")),
        "reads": told.reads.total(),
        "mixed_pairs": len(told.mixed),
        "errors": len(told.wrong),
    }
    for name, count in counts.items():
        yield {"name": name, "ours": count, "reference": None, "ratio": None, "unit": "count"}
    path = BUILD / "bench" / "compatible.json"
    found = json.loads(path.read_text()) if path.exists() else []
    yield from (row for row in found if row["name"] in _COMPATIBLE)


def main(arguments: Sequence[str]) -> int:
    """Live, and tell."""
    parser = argparse.ArgumentParser(prog="spaces", description="Draw orders of steps on spaces.")
    parser.add_argument("--sequences", type=int, default=_SEQUENCES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="reki spaces ") as name:
        folder = Path(name)
        with plain_server(folder / "redis", *DATABASES) as port:
            told = measured(folder, port, given.sequences, given.seed, given.workers)
    notes = [f"{step}: {count}" for step, count in sorted(told.steps.items())]
    harm = [*told.mixed, *told.wrong]
    finish("spaces", f"spaces, seed {given.seed}", list(rows(given.sequences, told)), notes)
    for one in harm[:20]:
        rendering.aside(one)
    return 1 if harm else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
