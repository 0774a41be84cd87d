"""The first day of a new domain: MovieLens-1M's genres as domains, each held out in turn.

    python -m tests.bench.domains [SEED …] [--domain NAME …] [--part NAME …] [--project DIR]
                                  [--stored] [--table]

Finished parts are kept in ``build/domains/cells.jsonl``, so that a run goes on where one stopped.
``--stored`` trains nothing. Encoded texts are those of ``make tables`` or ``make compatible``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import rendering
from reki_feast.evaluation import domains, plot, render
from reki_feast.evaluation.command import machine
from reki_feast.evaluation.domain_data import DomainLog
from reki_feast.evaluation.domains import DomainFigures, DomainRun, DomainStore
from reki_feast.evaluation.measures import ResultTable, stat
from reki_feast.project import DeclaredProject
from reki_feast.report import Report
from reki_feast.stages.training_data import settings, training_data
from tests.bench import ml1m
from tests.bench.common import BUILD, Row, data_folder, finish
from tests.bench.tables import OUT

SEEDS = (0, 1, 2)
FORGET = 0.3
#: The first of these that a film has a genre of is its domain.
DOMAINS = {
    "family": ("Children's", "Animation"),
    "horror": ("Horror",),
    "thriller": ("Thriller", "Crime", "Mystery", "Film-Noir"),
    "action": ("Action", "Adventure", "Sci-Fi", "War", "Western"),
    "comedy": ("Comedy", "Musical"),
    "drama": ("Drama", "Romance", "Documentary", "Fantasy"),
}
#: What vectors are to be worth on the first day, and a kept model with 5,000 samples.
UNSEEN_GAIN, FEW_GAIN = 0.06, 0.005


def domain_of(genres: str) -> str | None:
    """The domain of a film with these genres.

    >>> domain_of("Action, Horror"), domain_of("Comedy, Drama"), domain_of("Unknown")
    ('horror', 'comedy', None)
    """
    has = set(genres.split(", "))
    return next((name for name, genres in DOMAINS.items() if has & {*genres}), None)


def log_of(project: DeclaredProject) -> DomainLog:
    """MovieLens-1M by domain."""
    found = training_data(project)
    films = found.given.items
    named = pa.array([domain_of(text) for text in films["genres"].to_pylist()], pa.string())
    place = pc.index_in(found.interactions["item_id"], value_set=films["item_id"])
    return DomainLog(
        interactions=found.interactions,
        items=found.items,
        domain=named.take(place.combine_chunks()),
        user=found.given.user,
        item=found.given.item,
        config=replace(settings(project), forget=FORGET),
    )


def rows(found: Iterable[DomainFigures]) -> Iterator[Row]:
    """What the gate reads; rows that are not measured yet are left out."""
    by_name = {one.domain: one for one in found}
    for name in ("family", "horror"):
        if name in by_name:
            after, before = (by_name[name].aucs(one, "none") for one in ("vectors", "base"))
            yield from _row(f"{name}_unseen_gain", after, before, UNSEEN_GAIN)
    gains = [
        _gains(one.aucs("kept", "5000"), one.aucs("vectors", "5000")) for one in by_name.values()
    ]
    every = [gain for domain in gains for gain in domain]
    if every:
        mean = stat(every).mean
        yield {"name": "few_shot_5k_gain", "ours": mean, "reference": FEW_GAIN, "unit": "AUC"}


def _row(
    name: str, after: dict[int, float], before: dict[int, float], wanted: float
) -> Iterator[Row]:
    if gains := _gains(after, before):
        yield {"name": name, "ours": stat(gains).mean, "reference": wanted, "unit": "AUC"}


def _gains(after: dict[int, float], before: dict[int, float]) -> list[float]:
    return [after[seed] - before[seed] for seed in after if seed in before]


def table(found: tuple[DomainFigures, ...]) -> ResultTable:
    """The table that is kept."""
    slowest = max((s for one in found for s in one.seconds("kept", "5000")), default=0.0)
    return ResultTable(
        "domains",
        "The first day of a new domain: MovieLens-1M's genres, each held out in turn",
        domains.HEADS,
        domains.COLUMNS,
        tuple(domains.measures(found)),
        domains.DRAWN,
        (
            *domains.notes(found),
            f"All models forget {FORGET:.0%} of the item ids of a training batch. The kept model "
            f"learnt 5,000 samples in {slowest:.0f} s at most, on a machine that did other work.",
            ml1m.NOTE,
        ),
    )


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", default=[*SEEDS])
    parser.add_argument("--domain", nargs="+", default=[*DOMAINS], choices=[*DOMAINS])
    parser.add_argument("--part", nargs="+", default=["unseen", "fresh", "together"])
    parser.add_argument("--project", type=Path, default=BUILD / "ml1m", help="encoded texts")
    parser.add_argument("--stored", action="store_true", help="train nothing")
    parser.add_argument("--table", action="store_true", help="keep the table in tests/bench/tables")
    asked = parser.parse_args()
    bars = rendering.ProgressBars()
    log = log_of(ml1m.project(data_folder(), asked.project, bars))
    store = DomainStore(BUILD / "domains" / "cells.jsonl", f"ml1m {FORGET}")
    run = DomainRun(asked.domain, asked.seeds, "din", asked.part, is_trained=not asked.stored)
    found = domains.figures(log, run, store, bars)
    made = table(found)
    if asked.table:
        context = render.TableContext("MovieLens-1M, six domains", machine(), tuple(asked.seeds))
        render.write([made], OUT, context)
        plot.draw(made, OUT)
    rendering.report(Report(made.title, tables=[render.terminal(made)], notes=[*made.notes]))
    finish("domains", "what vectors are worth to a new domain", [*rows(found)])


if __name__ == "__main__":
    main()
