"""Attacks on a small project: kills, copies, two writers, readers, damaged files, leaks.

    python -m tests.bench.attack [--seed N] [--tries N] [NAME …]

What is attacked is the product: its commands as processes, a model's server that answers over HTTP,
the embedded Redis, DuckDB. A table tells of each attack how often it was tried, and what it found;
the exit code is 1 if it found anything. A seed draws the same kills, files and pairs again; when
exactly a kill meets a command is also the machine's affair.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

from reki_feast import rendering
from reki_feast.report import Report, Table, shortened
from tests.bench.attacks.damage import damage
from tests.bench.attacks.kills import kills
from tests.bench.attacks.leaks import leaks
from tests.bench.attacks.neighbours import copies, readers, writers
from tests.bench.attacks.room import Room, opened
from tests.bench.attacks.tally import KINDS, Tally
from tests.bench.common import store

_TRIES = 65
#: An attack; of how many tries it takes, and how many each of these is.
Attack = Callable[[Room, int, random.Random], Iterator[Tally]]
_ATTACKS: dict[str, tuple[Attack, float]] = {
    "kills": (kills, 1),
    "copies": (copies, 1 / 20),
    "writers": (writers, 1 / 5),
    "readers": (readers, 15),
    "damage": (damage, 1),
    "leaks": (leaks, 1),
}
#: What is told of each kind of harm, at most.
_TOLD = 5


def attacked(room: Room, names: Sequence[str], tries: int, seed: int) -> list[Tally]:
    """Make the attacks, and tell of each as it ends."""
    found = []
    for name in names:
        attack, share = _ATTACKS[name]
        began = time.perf_counter()
        for tally in attack(room, max(1, round(tries * share)), random.Random(f"{seed} {name}")):
            rendering.aside(f"{tally.attack}: {tally.tries} tries, {tally.harm} found")
            found.append(tally)
        rendering.aside(f"{name}: {time.perf_counter() - began:.0f} s")
    return found


def report(found: Sequence[Tally], seed: int) -> Report:
    """The table, and what was found."""
    total = Tally("all", sum(tally.tries for tally in found))
    for tally in found:
        for kind in KINDS:
            total.add(kind, tally.found[kind])
    rows = [tally.row() for tally in [*found, total]]
    notes = [
        f"{tally.attack}, {kind}: {shortened(said)}"
        for tally in found
        for kind in KINDS
        for said in tally.found[kind][:_TOLD]
    ]
    table = Table("attacks", ("attack", "tries", *KINDS), rows)
    return Report(f"attacks, seed {seed}", [table], notes, failed=total.harm)


def stored(table: Table) -> None:
    """Keep the table as the other benchmarks do: a row a number."""
    rows = [
        {"name": f"{row[0]}: {name}", "ours": n, "reference": None, "ratio": None, "unit": "count"}
        for row in table.rows
        for name, n in zip(table.columns[1:], row[1:], strict=True)
    ]
    rendering.aside(f"written to {store('attack', rows)}")


def main(arguments: Sequence[str]) -> int:
    """Attack, and tell."""
    parser = argparse.ArgumentParser(prog="attack", description="Attack a small project.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_ATTACKS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=_TRIES, help=f"kills ({_TRIES})")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(_ATTACKS):
        parser.error(f"no attack {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    with opened() as room:
        found = attacked(room, given.names or list(_ATTACKS), given.tries, given.seed)
    told = report(found, given.seed)
    rendering.report(told)
    stored(told.tables[0])
    rendering.aside(f"{time.perf_counter() - began:.0f} s")
    return 1 if told.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
