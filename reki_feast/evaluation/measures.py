"""Measures over seeds, and a table of them: what every format is made from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reki_feast.evaluation.paper import Reference

#: How a number is written: ``0.7960``, ``+0.0088``, ``9,923``, ``1.23`` and ``1.02``.
Form: TypeAlias = Literal["score", "gain", "count", "ms", "times"]


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation over n seeds or repeats; no deviation of one."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Measure:
    """One figure of ours, and the paper's.

    Attributes:
        row: the row it is in, one text a head of the table.
        metric: its name.
        ours: what was measured.
        form: how it is written.
        unit: what it counts.
        series: which of several of a row it is, as ``base`` and ``REKI-C``.
        reference: the paper's.
        p: of a gain, that the mean is zero; None where there are too few seeds.
    """

    row: tuple[str, ...]
    metric: str
    ours: Stat
    form: Form
    unit: str
    series: str = ""
    reference: Reference | None = None
    p: float | None = None


@dataclass(frozen=True)
class ResultColumn:
    """What a column shows of the measures with its metric and series."""

    head: str
    metric: str
    series: str = ""
    show: Literal["ours", "p", "reference", "n"] = "ours"


@dataclass(frozen=True)
class ResultTable:
    """A table of the evaluation.

    Attributes:
        name: of its files, as ``table2``.
        title: one line.
        heads: over the texts of a row.
        columns: the others, from left to right.
        measures: in the order of the rows.
        drawn: metrics that its picture shows, a panel each.
        notes: sentences under it.
        test: what its p are of.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[ResultColumn, ...]
    measures: tuple[Measure, ...]
    drawn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    test: str = "two-sided paired t-test over seeds"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows there are, in order."""
        return list(dict.fromkeys(measure.row for measure in self.measures))

    def shown(self) -> tuple[ResultColumn, ...]:
        """The columns that have something to show."""
        return tuple(
            column
            for column in self.columns
            if any(
                column.show != "reference" or measure.reference is not None
                for measure in self.measures
                if (measure.metric, measure.series) == (column.metric, column.series)
            )
        )

    def at(self, row: tuple[str, ...], column: ResultColumn) -> Measure | None:
        """The measure that a column shows in a row."""
        wanted = (row, column.metric, column.series)
        return next((m for m in self.measures if (m.row, m.metric, m.series) == wanted), None)


def stat(values: Iterable[float]) -> Stat:
    """Mean and deviation of at least one value.

    >>> stat([1.0, 3.0]).mean, stat([2.0])
    (2.0, Stat(mean=2.0, std=None, n=1))
    """
    found = list(values)
    spread = statistics.stdev(found) if len(found) > 1 else None
    return Stat(statistics.fmean(found), spread, len(found))


def gain(before: Mapping[int, float], after: Mapping[int, float]) -> tuple[Stat, float | None]:
    """Differences of the seeds that both have, and their p.

    p is that of a two-sided paired t-test over seeds; None of fewer than two, or where all differ
    by the same.

    Raises:
        ValueError: no seed is in both.
    """
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        raise ValueError(f"a seed in both: {sorted(before)} and {sorted(after)}")
    differences = [after[seed] - before[seed] for seed in seeds]
    found = stat(differences)
    if not found.std:
        return found, None
    from scipy import stats  # takes a second, and who asks for a table's name needs none

    test = stats.ttest_rel([after[s] for s in seeds], [before[s] for s in seeds])
    return found, float(test.pvalue)


def chance(p: float) -> str:
    """A p as it is written.

    >>> chance(0.04), chance(1e-6)
    ('0.040', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"
