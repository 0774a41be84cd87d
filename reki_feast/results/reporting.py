"""What `reki report` shows of a project, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from reki_feast.report import Report
from reki_feast.results.base import Result
from reki_feast.results.ledger import LedgerResult
from reki_feast.results.pipeline import HeldOutScore, Weights
from reki_feast.results.quality import QualityResult


@dataclass(frozen=True)
class TableStep:
    """A table on the way of the data.

    Attributes:
        table: its name.
        about: what it has, in words.
        rows: of all times.
        entities: distinct users or items; 0 where it tells none.
        megabytes: size of its files; None of the user's own tables.
        times: distinct as-of times.
        span: the first and the last of them; None where it has no times.
        snapshots: rows by as-of time, oldest first; none where there are very many times.
    """

    table: str
    about: str
    rows: int
    entities: int
    megabytes: float | None
    times: int = 0
    span: tuple[datetime, datetime] | None = None
    snapshots: list[tuple[datetime, int]] = field(default_factory=list)


@dataclass(frozen=True)
class FactorCoverage:
    """How much of the knowledge of one channel tells of a factor.

    Attributes:
        kind: ``user`` or ``item``.
        channel: of the knowledge.
        factor: the factor.
        texts: entities, or groups, with a text about it.
        of: entities, or groups, with knowledge.
    """

    kind: str
    channel: str
    factor: str
    texts: int
    of: int

    @property
    def share(self) -> float:
        """Share that tells of it, 0 to 1."""
        return self.texts / self.of if self.of else 0.0


@dataclass(frozen=True)
class DefaultShare:
    """How many entities get a default vector.

    Attributes:
        kind: ``user`` or ``item``.
        named: entities that the user's tables name.
        without: those without an augmented vector of their own.
    """

    kind: str
    named: int
    without: int

    @property
    def share(self) -> float:
        """Share that gets the default, 0 to 1."""
        return self.without / self.named if self.named else 0.0


@dataclass(frozen=True)
class ViewState:
    """A feature view: its space, and how fresh its rows are.

    Attributes:
        view: its name.
        table: that it reads.
        space: that it is in; empty where it has none.
        features: how many.
        ttl_days: after which a row is not served; None: never.
        newest: as-of time of the newest rows of the table; None without any.
        until: up to when rows were materialized; None before the first time.
        compared: rows online that were compared with the table; None where that cannot be read.
        equal: of these, rows that are the newest ones, to the byte.
    """

    view: str
    table: str
    space: str
    features: int
    ttl_days: float | None
    newest: datetime | None
    until: datetime | None
    compared: int | None
    equal: int | None


@dataclass(frozen=True)
class GainBar:
    """The gain of a set of columns on later rows, by one model.

    Attributes:
        columns: name of the set.
        model: ``logistic regression`` or ``trees``.
        gain: in AUC.
        low: lower end of the 95 % interval; None of weights of an earlier version.
        high: upper end of it.
        p: p-value of no gain.
    """

    columns: str
    model: str
    gain: float
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True)
class ModelShare:
    """What the language model's texts gain beyond the catalogue's own, by one model.

    Attributes:
        model: ``logistic regression`` or ``trees``.
        written: gain in AUC of the texts that the language model wrote, alone.
        own: gain of the catalogue's own texts, alone.
    """

    model: str
    written: float
    own: float

    @property
    def share(self) -> float | None:
        """The part of the gain that the catalogue's texts lack, 0 to 1; None without a gain."""
        if self.written <= 0:
            return None
        return min(1.0, max(0.0, (self.written - self.own) / self.written))


@dataclass(frozen=True)
class MeasuredGain:
    """What was measured of the weights when they were trained.

    Attributes:
        weights: the weights.
        held_out: metrics on held-out users, without and with vectors.
        bars: gains on later rows.
        shares: the language model's share of them; none where one kind of text was measured.
        notes: what that means, in sentences.
    """

    weights: Weights
    held_out: list[HeldOutScore] = field(default_factory=list)
    bars: list[GainBar] = field(default_factory=list)
    shares: list[ModelShare] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GroupNode:
    """A group, or several as one box of a tree map.

    Attributes:
        name: of the group, or of the largest of them.
        size: members.
        groups: how many groups.
        group: id of a single group; empty for several.
        items: titles that a single group is shown by.
        knowledge: its text.
        parts: what several consist of.
    """

    name: str
    size: int
    groups: int
    group: str = ""
    items: list[str] = field(default_factory=list)
    knowledge: str = ""
    parts: list[GroupNode] = field(default_factory=list)


@dataclass(frozen=True)
class Colouring:
    """A way to colour points.

    Attributes:
        name: by what.
        labels: of the colours.
        of: by point, the place of its label; -1 for none of them.
    """

    name: str
    labels: list[str]
    of: list[int]


@dataclass(frozen=True)
class PointMap:
    """Vectors of a sample in two dimensions.

    Attributes:
        title: of what.
        kind: ``user`` or ``item``.
        ids: by point; none in an anonymous report.
        x: first principal component, scaled to 0 to 1,000.
        y: second one, on the same scale.
        explained: share of the variance that each keeps.
        of: entities in all.
        colours: ways to colour the points.
    """

    title: str
    kind: str
    ids: list[str]
    x: list[int]
    y: list[int]
    explained: tuple[float, float]
    of: int
    colours: list[Colouring]


@dataclass(frozen=True)
class ProjectReport:
    """All that the page shows.

    Attributes:
        scenario: its name.
        summary: what the scenario says of itself.
        made: when the report was made.
        version: of the package.
        anonymous: whether texts and ids are left out.
        steps: tables, in the order of the stages.
        ledger: calls, tokens and money; None without a ledger.
        quality: gates and quarantine; None without a ledger.
        factors: coverage of the factors.
        defaults: share of default vectors, by kind.
        views: of the Feast repo.
        gain: None before weights are trained.
        groups: by what they are groups of, a tree.
        maps: of representations and vectors.
        entities: what `reki explain` tells of the sample, as data for JSON.
        sampled: users and items of the entity page, and of the maps, in words.
        notes: what the reader should know.
    """

    scenario: str
    summary: str
    made: datetime
    version: str
    anonymous: bool
    steps: list[TableStep]
    ledger: LedgerResult | None
    quality: QualityResult | None
    factors: list[FactorCoverage]
    defaults: list[DefaultShare]
    views: list[ViewState]
    gain: MeasuredGain | None
    groups: Mapping[str, GroupNode]
    maps: list[PointMap]
    entities: list[dict[str, object]]
    sampled: str
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class ReportResult(Result):
    """The page that `reki report` wrote.

    Attributes:
        path: of the file.
        megabytes: its size.
        anonymous: whether texts and ids are left out.
        sampled: who is in it, in words.
    """

    path: Path
    megabytes: float
    anonymous: bool
    sampled: str

    @property
    def title(self) -> str:
        """The outcome in one line."""
        without = ", without texts and ids" if self.anonymous else ""
        return f"{self.project}: {self.path}, {self.megabytes:.1f} MB{without}"

    def report(self) -> Report:
        """The form that the command line shows."""
        made = super().report()
        return Report(made.title, made.tables, [self.sampled, *made.notes], made.next, made.failed)
