"""Results of the commands that ask the language model, or plan to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from reki_feast.results.base import Result, TableField, TableRow


@dataclass(frozen=True)
class FactorCount(TableRow):
    """A factor, and how many of the model's answers named it; None for one that an expert added.

    Attributes:
        factor: the factor.
        named_by: number of answers.
    """

    factor: str
    named_by: int | None


@dataclass(frozen=True, kw_only=True)
class FactorsResult(Result):
    """Factors that the model proposed, or that an expert confirmed.

    Attributes:
        path: the file they are in.
        confirmed: whether an expert has confirmed them.
        factors: the factors.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("factors", "factors", FactorCount),
    )

    path: Path
    confirmed: bool
    factors: list[FactorCount] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        state = "confirmed" if self.confirmed else "not confirmed yet"
        return f"{self.project}: factors in {self.path}, {state}"


@dataclass(frozen=True)
class GroupUpdate(TableRow):
    """What happened to the groups of one channel at one time.

    Attributes:
        as_of: the snapshot.
        of: kind and channel of the groups.
        members: members of all groups.
        groups: number of groups.
        new: members that are new.
        anew: items that were placed again, because a user met them for the first time.
        splits: groups that grew too large and were split.
        moved: known members that changed their group.
        changed: groups to ask about again.
        drift: mean cosine distance of vectors since their members were placed.
    """

    as_of: datetime
    of: str
    members: int
    groups: int
    new: int
    anew: int
    splits: int
    moved: int
    changed: int
    drift: float


@dataclass(frozen=True)
class PlannedPrompts(TableRow):
    """The prompts of one kind: how many, and what asking them takes.

    Attributes:
        kind: ``user``, ``item`` or ``all``.
        prompts: number of prompts.
        repeated: prompts whose text another one has.
        answered: prompts that have an answer.
        quarantined: prompts whose answers failed a gate.
        to_ask: prompts to send.
        prompt_tokens: expected tokens of prompts.
        answer_tokens: expected tokens of answers.
        money: expected cost; None without a price.
    """

    kind: str
    prompts: int
    repeated: int
    answered: int
    quarantined: int
    to_ask: int
    prompt_tokens: int
    answer_tokens: int
    money: float | None


@dataclass(frozen=True)
class DuePrompts(TableRow):
    """How many prompts of a kind are due for which reason.

    Attributes:
        kind: ``user`` or ``item``.
        new: never asked before.
        news: with enough new interactions (``Freshness.min_new``).
        changed_text: whose template or profile has changed.
        age: whose answer is too old (``Freshness.max_age_days``).
        factors: whose factors have changed.
        other_model: that another model answered.
    """

    heads: ClassVar[Mapping[str, str]] = {
        "changed_text": "changed text",
        "other_model": "other model",
    }

    kind: str
    new: int
    news: int
    changed_text: int
    age: int
    factors: int
    other_model: int


@dataclass(frozen=True)
class Coverage(TableRow):
    """The share of later interactions that find their user and item, 0 to 1.

    Attributes:
        runs: how often `reki run` is run.
        share: the share.
    """

    runs: str
    share: float

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.runs, f"{self.share:.0%}")]


@dataclass(frozen=True)
class CostComparison(TableRow):
    """What one way of asking takes: a prompt for each entity, or for each group.

    Attributes:
        prompt_for: what has a prompt each.
        calls: prompts to ask.
        prompt_tokens: expected tokens of prompts.
        answer_tokens: expected tokens of answers.
        money: expected cost; None without a price.
    """

    heads: ClassVar[Mapping[str, str]] = {"prompt_for": "a prompt for"}

    prompt_for: str
    calls: int
    prompt_tokens: int
    answer_tokens: int
    money: float | None


@dataclass(frozen=True)
class EncodingEstimate(TableRow):
    """What encoding takes after a generation, on this machine.

    Attributes:
        texts: texts to encode, about.
        texts_per_second: how fast a sample of them was encoded.
        hours: expected duration.
    """

    heads: ClassVar[Mapping[str, str]] = {"texts_per_second": "texts a second"}

    texts: int
    texts_per_second: float
    hours: float

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.texts, self.texts_per_second, f"{self.hours:.2g}")]


@dataclass(frozen=True)
class EmbeddingEstimate(TableRow):
    """What encoding at a server takes after a generation.

    Attributes:
        texts: texts to encode, about.
        calls: calls with several texts each, about.
        tokens: tokens of the texts, as estimated.
        money: cost; None without a price.
    """

    texts: int
    calls: int
    tokens: int
    money: float | None


@dataclass(frozen=True, kw_only=True)
class PlanResult(Result):
    """What `reki generate` would take.

    Attributes:
        model: name of the language model.
        calls: calls to the model; more than prompts where answers are reviewed.
        groups: what happened to groups, where some are declared.
        prompts: prompts by kind, and of all kinds in the last row.
        due: why prompts are due.
        coverage: how many later interactions find their user and item.
        comparison: individual and collective prompts compared.
        encoding: what encoding takes, by a timed sample; None where the encoder is not installed,
            or at a server.
        embeddings: what encoding takes at a server; None on this machine.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("groups", "groups", GroupUpdate, optional=True),
        TableField("prompts", "plan", PlannedPrompts),
        TableField("due", "due", DuePrompts, optional=True),
        TableField("encoding", "encoding", EncodingEstimate, optional=True),
        TableField("embeddings", "encoding at the server", EmbeddingEstimate, optional=True),
        TableField("coverage", "later rows whose user and item are known", Coverage, optional=True),
        TableField("comparison", "collective instead of individual", CostComparison, optional=True),
    )

    model: str
    calls: int
    groups: list[GroupUpdate] = field(default_factory=list)
    prompts: list[PlannedPrompts] = field(default_factory=list)
    due: list[DuePrompts] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    comparison: list[CostComparison] = field(default_factory=list)
    encoding: EncodingEstimate | None = None
    embeddings: EmbeddingEstimate | None = None

    @property
    def total(self) -> PlannedPrompts:
        """The prompts of all kinds together."""
        return self.prompts[-1]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: {self.calls:,} calls to {self.model}"


@dataclass(frozen=True)
class CallUsage(TableRow):
    """What a run asked, and what it took.

    Attributes:
        asked: prompts that were answered in this run.
        reused: prompts that had an answer already.
        quarantined: prompts whose answers failed a gate.
        failed: prompts without an answer.
        calls: calls to the model.
        prompt_tokens: tokens of prompts.
        answer_tokens: tokens of answers.
        money: cost; None without a price.
        seconds: duration.
        added: rows of knowledge that were added.
    """

    asked: int
    reused: int
    quarantined: int
    failed: int
    calls: int
    prompt_tokens: int
    answer_tokens: int
    money: float | None
    seconds: float
    added: int


@dataclass(frozen=True, kw_only=True)
class GenerateResult(Result):
    """What `reki generate` asked.

    Attributes:
        model: name of the language model.
        prompts: number of prompts of all snapshots, answered before or not.
        groups: what happened to groups, where some are declared.
        usage: what was asked and what it took.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("groups", "groups", GroupUpdate, optional=True),
        TableField("usage", "calls", CallUsage),
    )

    model: str
    prompts: int
    groups: list[GroupUpdate] = field(default_factory=list)
    usage: CallUsage

    @property
    def calls(self) -> int:
        """Calls to the model."""
        return self.usage.calls

    @property
    def money(self) -> float | None:
        """Cost; None without a price."""
        return self.usage.money

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: knowledge of {self.prompts:,} prompts by {self.model}"


@dataclass(frozen=True, kw_only=True)
class FormGroupsResult(Result):
    """Groups that were brought up to date.

    Attributes:
        groups: what happened to them.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("groups", "groups", GroupUpdate, optional=True),
    )

    groups: list[GroupUpdate] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: groups"
