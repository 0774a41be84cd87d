"""How a table is declared: which cells it needs, and its measures from what came of them.

A gain is the mean over seeds of the difference that the vectors make, seed by seed. What is not
there yet is left out, so that a table can be made of an evaluation that was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from reki_feast.evaluation import paper
from reki_feast.evaluation.experiments import Experiment, ExperimentResult, Extraction, Sides, base
from reki_feast.evaluation.measures import Measure, ResultColumn, ResultTable, gain, stat
from reki_feast.evaluation.paper import Reference

if TYPE_CHECKING:
    from reki_feast.evaluation.domains import DomainFigures
    from reki_feast.evaluation.recall_table import RecallFigures

#: How a batch is scored: without vectors, with HEIN, with stored vectors; and the first and the
#: last by a model that is not folded.
Way: TypeAlias = Literal["base", "hein", "stored", "plain", "fed"]
Found: TypeAlias = Mapping[Experiment, ExperimentResult]
#: What was measured in repeats, by backbone and way.
Timings: TypeAlias = Mapping[str, Mapping[Way, Sequence[float]]]

#: Samples of a batch that is timed, as in the paper's Table 7; and of one that is trained fast.
BATCH, LARGE = 256, 2048
BACKBONES = tuple(paper.AUC_GAIN)
RERANKERS = tuple(paper.MAP7_GAIN)

#: Of declared test rows alone: AUC within users.
GAUC = ("gauc", "GAUC")
AUC, LOG_LOSS = ("auc", "AUC"), ("log_loss", "LogLoss")


@dataclass(frozen=True)
class Scope:
    """What the material allows, and what was asked for.

    Attributes:
        seeds: every cell is trained with each.
        extractions: those the material has knowledge of; the first is that of all tables but
            Table 2, 3 and 6.
        backbones: of Table 2.
        rerankers: of Tables 3 and 4.
        chosen: the backbone of the other tables.
        encoders: of Table 6, beside the project's own.
        encoder: name of the project's own.
        imported: whether there are vectors from elsewhere.
        calls: of the language model, by extraction.
        timings: seconds to score a batch of 256, by backbone and way, in repeats; the same repeat
            of all ways was measured side by side.
        trainings: samples a second in training, by size of the batches; else the same.
        recall: what each way recalls, of all users and of some.
        domains: what models make of each domain, held out in turn.
    """

    seeds: tuple[int, ...]
    extractions: tuple[Extraction, ...] = ("collective",)
    backbones: tuple[str, ...] = BACKBONES
    rerankers: tuple[str, ...] = RERANKERS
    chosen: str = "din"
    encoders: tuple[str, ...] = ()
    encoder: str = "the project's"
    imported: bool = False
    calls: Mapping[Extraction, int] = field(default_factory=dict)
    timings: Timings = field(default_factory=dict)
    trainings: Mapping[int, Timings] = field(default_factory=dict)
    recall: tuple[RecallFigures, ...] = ()
    domains: tuple[DomainFigures, ...] = ()

    def experiment(self, sides: Sides = "both") -> Experiment:
        """The chosen backbone's, with the vectors that all other tables vary."""
        return Experiment("ctr", self.chosen, sides, extraction=self.extractions[0])

    def base(self) -> Experiment:
        """The chosen backbone's without vectors."""
        return base("ctr", self.chosen)


@dataclass(frozen=True)
class Variant:
    """One thing that a table shows: a cell of any seed, and what its gain is over.

    Attributes:
        row: its row.
        cell: what is trained.
        over: what its gain is over; None for no gain.
        series: which of several of its row it is.
        references: the paper's gains, by the key of the metric.
    """

    row: tuple[str, ...]
    experiment: Experiment
    baseline: Experiment | None = None
    series: str = ""
    references: Mapping[str, Reference] = field(default_factory=dict)


@dataclass(frozen=True)
class TableSpec:
    """How a table is made.

    Attributes:
        name: of its files and on the command line.
        title: one line.
        heads: over the texts of a row.
        columns: the others.
        variants: what it trains.
        metrics: key and name of the metrics it has.
        gains: keys of those whose gain it has.
        drawn: metrics that its picture shows.
        by_metric: whether a metric is a row instead of a column.
        more: measures that are not metrics of a model.
        notes: sentences under it.
        test: what its p are of; None: of seeds.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[ResultColumn, ...]
    variants: Callable[[Scope], Iterable[Variant]] = lambda scope: ()
    metrics: tuple[tuple[str, str], ...] = (AUC, GAUC, LOG_LOSS)
    gains: tuple[str, ...] = ("auc", "gauc")
    drawn: tuple[str, ...] = ("AUC gain", "GAUC gain")
    by_metric: bool = False
    more: Callable[[Scope, Found], Iterable[Measure]] = lambda scope, found: ()
    notes: Callable[[Scope, Found], Iterable[str]] = lambda scope, found: ()
    test: str | None = None

    def experiments(self, scope: Scope) -> list[Experiment]:
        """What is trained for it, seed by seed, none twice."""
        experiments = [
            replace(experiment, seed=seed)
            for seed in scope.seeds
            for variant in self.variants(scope)
            for experiment in (variant.baseline, variant.experiment)
            if experiment is not None
        ]
        return list(dict.fromkeys(experiments))

    def table(self, scope: Scope, found: Found) -> ResultTable:
        """The table of what came of its cells."""
        measures = [m for variant in self.variants(scope) for m in self._of(variant, scope, found)]
        return ResultTable(
            self.name,
            self.title,
            self.heads,
            self.columns,
            (*measures, *self.more(scope, found)),
            self.drawn,
            tuple(self.notes(scope, found)),
            *(() if self.test is None else (self.test,)),
        )

    def _of(self, variant: Variant, scope: Scope, found: Found) -> Iterator[Measure]:
        for key, name in self.metrics:
            row = (*variant.row, name) if self.by_metric else variant.row
            after = by_seed(found, variant.experiment, scope.seeds, key)
            if after:
                head = "score" if self.by_metric else name
                yield Measure(row, head, stat(after.values()), "score", name, variant.series)
            if key in self.gains and variant.baseline is not None:
                head = "gain" if self.by_metric else f"{name} gain"
                before = by_seed(found, variant.baseline, scope.seeds, key)
                if before.keys() & after.keys():
                    made, p = gain(before, after)
                    paper_s = variant.references.get(key)
                    yield Measure(row, head, made, "gain", name, variant.series, paper_s, p)


def experiments(specs: Iterable[TableSpec], scope: Scope) -> list[Experiment]:
    """What is trained for several tables: none twice, and a seed is finished before the next."""
    wanted = dict.fromkeys(experiment for spec in specs for experiment in spec.experiments(scope))
    return sorted(wanted, key=lambda experiment: scope.seeds.index(experiment.seed))


def by_seed(
    found: Found, experiment: Experiment, seeds: tuple[int, ...], metric: str
) -> dict[int, float]:
    """A metric of a cell, by seed, where it has it; ``seconds_per_batch`` is one too."""
    results = {
        seed: found[replace(experiment, seed=seed)]
        for seed in seeds
        if replace(experiment, seed=seed) in found
    }
    if metric == "seconds_per_batch":
        return {seed: result.seconds_per_batch for seed, result in results.items()}
    return {
        seed: result.metrics[metric] for seed, result in results.items() if metric in result.metrics
    }
