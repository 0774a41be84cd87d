"""What `reki explain` returns: the whole path of one entity's vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Literal

from reki_feast.report import Report, Table, shortened
from reki_feast.results.base import Result, TableField, TableRow, table_of
from reki_feast.results.groups import GroupPath, GroupSummary, PathNode

#: What a request gets now, and if that is the default, why: the first of these that holds.
Outcome = Literal[
    "row",
    "absent",
    "no history",
    "no group",
    "not asked",
    "not answered",
    "call failed",
    "gate failed",
    "not taken over",
    "not encoded",
    "not trained",
    "not published",
    "no online store",
    "another space",
    "too old",
    "not materialized",
]
#: Characters of a prompt, and of an answer, that a terminal shows; JSON has all.
_SHOWN = 400
#: Interactions that a terminal shows, the latest ones.
_LATEST = 8


@dataclass(frozen=True)
class ShownInteraction(TableRow):
    """An interaction that the model was shown, or that the text of the history tells of.

    Attributes:
        place: 1 for the oldest.
        item: its id.
        title: its title.
        said: the rating, or whether it was liked.
    """

    place: int
    item: str
    title: str
    said: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.place, self.item, shortened(self.title), self.said)]


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt, what was paid for it, and what came back.

    Attributes:
        about: the id, or the group, that it asks about.
        channel: of the knowledge that its answer becomes.
        as_of: what happened then or later was not shown; None where an earlier version asked.
        state: of the prompt: ``answered``, ``quarantined``, ``failed``, ``sent`` or ``planned``.
        gate: the gate that the last answer failed; empty where it passed all.
        fault: what was wrong with it.
        coverage: share of the factors that the answer covers; None without.
        model: that answered, or was asked.
        calls: that counted.
        tokens: of all calls.
        cost: of all calls.
        answered: when the answer came; None without one.
        is_knowledge: whether its answer is what is known now.
        system: the system message.
        prompt: the text as it was sent.
        answer: the text that came back; empty without one.
    """

    about: str
    channel: str
    as_of: datetime | None
    state: str
    gate: str
    fault: str
    coverage: float | None
    model: str
    calls: int
    tokens: int
    cost: float
    answered: datetime | None
    is_knowledge: bool
    system: str
    prompt: str
    answer: str

    def rows(self) -> Iterator[tuple[str, Any]]:
        """What a terminal shows, a line a figure."""
        yield "as of", self.as_of
        yield "prompt as sent", _clipped("\n\n".join(x for x in (self.system, self.prompt) if x))
        yield "answer", _clipped(self.answer)
        gate = f"failed {self.gate}: {self.fault}" if self.gate else "passed"
        yield "state", self.state + ("" if self.is_knowledge else ", not what is known now")
        if self.gate or self.answer:
            yield "gates", gate
        elif self.fault:
            yield "fault", self.fault
        yield "model", self.model
        yield "answered", self.answered
        yield "price", f"{self.cost:.6g}, {self.calls} calls, {self.tokens:,} tokens"


@dataclass(frozen=True)
class FactorText(TableRow):
    """What is known about one factor.

    Attributes:
        channel: of the knowledge.
        factor: the factor; empty for a text that is not in parts.
        text: what is known.
        of: the id, or the group, that the text is about.
        as_of: of what time the knowledge is.
        model: that wrote it; empty for an import.
    """

    heads: ClassVar[Mapping[str, str]] = {"as_of": "as of"}

    channel: str
    factor: str
    text: str
    of: str
    as_of: datetime
    model: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        text = shortened(self.text)
        return [(self.channel, self.factor, text, self.of, self.as_of, self.model)]


@dataclass(frozen=True)
class EncodedChannel(TableRow):
    """A column of the newest representation.

    Attributes:
        channel: its name.
        floats: length of its vector; 0 where the entity has no such text.
    """

    channel: str
    floats: int


@dataclass(frozen=True)
class VectorSummary(TableRow):
    """The newest augmented vector.

    Attributes:
        space: that it is in.
        as_of: of what time it is.
        made: when it was computed.
        floats: its length.
        norm: its Euclidean norm.
        encoder: of the space.
        weights: hash of the weights that are in service.
    """

    heads: ClassVar[Mapping[str, str]] = {"as_of": "as of"}

    space: str
    as_of: datetime
    made: datetime
    floats: int
    norm: float
    encoder: str
    weights: str


@dataclass(frozen=True)
class ServedView(TableRow):
    """A row of one feature view: in its table, online, and as a request gets it.

    Attributes:
        view: its name.
        table: that it reads.
        space: of the view, by its tag; empty where it has none.
        offline: time of the newest row of the table; None without one.
        online: time of the row online; None without one.
        equal: whether time and values of both are the same; None where one of them is missing.
        serves: ``row`` or ``default``.
        why: why they differ, or why the default is served; empty where neither.
    """

    view: str
    table: str
    space: str
    offline: datetime | None
    online: datetime | None
    equal: bool | None
    serves: str
    why: str


@dataclass(frozen=True)
class MatchedItem(TableRow):
    """An item by its match score.

    Attributes:
        place: 1 for the best.
        item: its id.
        title: its title; empty where the catalogue cannot be read.
        score: ``reki_match:score``.
    """

    place: int
    item: str
    title: str
    score: float

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.place, self.item, shortened(self.title), f"{self.score:.4f}")]


class _WholeReport(Report):
    """A report whose JSON has the whole texts, where a terminal shows their beginnings."""

    whole: Mapping[str, Any] = {}  # set once, when it is made

    def plain(self) -> dict[str, Any]:
        return {"title": self.title, **self.whole}


@dataclass(frozen=True, kw_only=True)
class ExplainResult(Result):
    """The path of one vector, from the interactions to what a feature service returns.

    Attributes:
        kind: ``user`` or ``item``.
        id: as text.
        outcome: what a request gets: ``row``, or why it gets the default.
        answer: the same as a sentence.
        history: the latest interactions that a prompt or a history text may show, of a user.
        description: the text of an item; empty for a user.
        prompts: about the entity or its groups, newest first in each channel.
        groups: that the entity is in.
        paths: the way from the root of each tree into its group.
        factors: what is known, by channel and factor.
        channels: of the newest representation.
        vector: the newest augmented vector; None without one.
        views: the rows of the Feast repo's views; none where its online store is not running.
        nearest: items with the highest match scores, of a user.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("groups", "groups", GroupSummary, optional=True),
        TableField("factors", "knowledge", FactorText, optional=True),
        TableField("channels", "representation", EncodedChannel, optional=True),
        TableField("vector", "augmented vector", VectorSummary),
        TableField("views", "offline and online", ServedView, optional=True),
        TableField("nearest", "items of the highest match scores", MatchedItem, optional=True),
    )

    kind: str
    id: str
    outcome: Outcome
    answer: str
    history: list[ShownInteraction] = field(default_factory=list)
    description: str = ""
    prompts: list[AskedPrompt] = field(default_factory=list)
    groups: list[GroupSummary] = field(default_factory=list)
    paths: list[GroupPath] = field(default_factory=list)
    factors: list[FactorText] = field(default_factory=list)
    channels: list[EncodedChannel] = field(default_factory=list)
    vector: VectorSummary | None = None
    views: list[ServedView] = field(default_factory=list)
    nearest: list[MatchedItem] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: {self.kind} {self.id}: {self.answer}"

    @property
    def tables(self) -> list[Table]:
        """The figures as a terminal shows them."""
        shown, count = [], len(self.history)
        if self.history:
            title = f"history: the last {min(count, _LATEST)} of {count} that are shown"
            shown.append(table_of(title, ShownInteraction, self.history[-_LATEST:]))
        if self.description:
            shown.append(Table("description", ("text",), [(_clipped(self.description),)]))
        for one in self.prompts:
            title = f"prompt about {one.about}, {one.channel}"
            shown.append(Table(title, ("what", "found"), list(one.rows())))
        ways = [table_of(f"way into {one.of}", PathNode, one.nodes) for one in self.paths]
        return [*shown, *ways, *super().tables]

    def report(self) -> Report:
        """The form that the command line shows; ``--json`` prints all fields, texts whole."""
        made = super().report()
        found = _WholeReport(*(getattr(made, one.name) for one in fields(made)))
        object.__setattr__(found, "whole", self.to_dict())
        return found


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN].rstrip()} … (--json has all)"
