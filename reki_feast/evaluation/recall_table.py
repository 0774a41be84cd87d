"""The table of recall: each way to find what users liked later, over all items and cold ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reki_feast.evaluation.measures import Measure, ResultColumn, Stat
from reki_feast.evaluation.recall import (
    MEAN,
    METRICS,
    NEAREST,
    NEIGHBOURS,
    POPULARITY,
    Doubles,
    RecallData,
    UserMetrics,
    gain_of,
    scored,
)

if TYPE_CHECKING:
    from reki_feast.project import DeclaredProject

TEST = "two-sided bootstrap over users"
HEADS = ("found by", "users")
#: Candidates: all items, or those that nobody met before.
SERIES = {False: "all", True: "cold"}
LABELS = {"recall10": "Recall@10", "recall50": "Recall@50", "ndcg10": "NDCG@10"}
#: What has no gain: what the gain is over, and what reads no text.
_BASELINES = (POPULARITY, NEIGHBOURS, MEAN, NEAREST)
_GAIN, _SURE = "gain", 0.05
DRAWN = (LABELS["recall50"],)

COLUMNS = tuple(
    column
    for series in SERIES.values()
    for column in (
        *(ResultColumn(f"{label}, {series}", label, series) for label in LABELS.values()),
        ResultColumn(f"gain, {series}", _GAIN, series),
        ResultColumn(f"p, {series}", _GAIN, series, "p"),
        ResultColumn(f"users, {series}", LABELS["recall50"], series, "n"),
    )
)


@dataclass(frozen=True)
class RecallFigures:
    """The metrics of some users by each way.

    Attributes:
        users: who they are, in words.
        by_way: by candidates (cold ones alone: True) and way.
        cold: how many items are cold.
        items: how many there are.
    """

    users: str
    by_way: Mapping[bool, Mapping[str, UserMetrics]]
    cold: int
    items: int

    @classmethod
    def of(cls, data: RecallData) -> RecallFigures:
        """Score each way."""
        return cls(data.users, scored(data), int(data.cold.sum()), len(data.items))

    def values(self, is_cold: bool, way: str, metric: str) -> Doubles:
        """A metric of the users who are tested."""
        values = self.by_way[is_cold][way][metric]
        return values[np.isfinite(values)]

    def mean(self, is_cold: bool, way: str, metric: str = "recall50") -> float:
        """Its mean."""
        return float(self.values(is_cold, way, metric).mean())

    def best(self, is_cold: bool, ways: Iterable[str]) -> str:
        """The way of several with the largest Recall@50."""
        return max(ways, key=lambda way: self.mean(is_cold, way))

    def measures(self) -> Iterator[Measure]:
        """All figures; gains are in Recall@50, over the better of the two that read titles."""
        for is_cold, series in SERIES.items():
            if not len(self.values(is_cold, POPULARITY, METRICS[0])):
                continue
            over = self.best(is_cold, (MEAN, NEAREST))
            for way in self.by_way[is_cold]:
                yield from self._way(is_cold, series, way, over)

    def _way(self, is_cold: bool, series: str, way: str, over: str) -> Iterator[Measure]:
        row = (way, self.users)
        for metric, label in LABELS.items():
            values = self.values(is_cold, way, metric)
            mean = Stat(float(values.mean()), None, len(values))
            yield Measure(row, label, mean, "score", label, series)
        if way not in _BASELINES:
            after, before = (self.values(is_cold, one, "recall50") for one in (way, over))
            difference, p = gain_of(after, before)
            gain = Stat(difference, None, len(after))
            yield Measure(row, _GAIN, gain, "gain", LABELS["recall50"], series, p=p)


def notes(found: Collection[RecallFigures]) -> Iterator[str]:
    """What the figures are of, and whether knowledge brings anything."""
    if not found:
        return
    yield (
        "Candidates of a user: the items that the user had not met; cold: of these, the ones that "
        "nobody had met, ranked among themselves. Ways that read no text give these one score, and "
        "are at chance there. Nothing is fitted or chosen, and the test is scored once."
    )
    yield f"gain: in Recall@50, over the better of {MEAN} and {NEAREST} for these users and items."
    for one in found:
        yield from _verdicts(one)


def _verdicts(one: RecallFigures) -> Iterator[str]:
    yield f"{one.users}: {one.cold:,} of {one.items:,} items are cold."
    for series in SERIES.values():
        gains = [m for m in one.measures() if (m.metric, m.series) == (_GAIN, series)]
        sure = [m for m in gains if m.p is not None and m.p < _SURE]
        said = {
            word: ", ".join(m.row[0] for m in sure if (m.ours.mean > 0) is is_more)
            for word, is_more in (("more", True), ("less", False))
        }
        found = "; ".join(f"{ways} finds {word} than titles" for word, ways in said.items() if ways)
        if gains:
            nothing = "what a language model knows finds neither more nor less than titles"
            yield f"{one.users}, {series} items: {found or nothing} (p below {_SURE})."


def measures(found: Iterable[RecallFigures]) -> Iterator[Measure]:
    """Those of all."""
    for one in found:
        yield from one.measures()


def figures(project: DeclaredProject) -> tuple[RecallFigures, ...]:
    """The figures of a project; none where no snapshot has interactions before and after it."""
    from reki_feast.evaluation.recall_data import recall_data

    return tuple(RecallFigures.of(data) for data in recall_data(project))
