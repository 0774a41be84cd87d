"""Results of the commands that read the ledger of calls, as it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from reki_feast.report import shortened
from reki_feast.results.base import Result, TableField, TableRow


@dataclass(frozen=True)
class PromptStates(TableRow):
    """How many prompts of the ledger are in which state.

    Attributes:
        planned: taken up by a run and not sent, or lost on the way.
        sent: under way.
        answered: with an answer that became knowledge.
        failed: without an answer; a run asks them again.
        quarantined: whose answers failed a gate.
    """

    planned: int
    sent: int
    answered: int
    failed: int
    quarantined: int


@dataclass(frozen=True)
class AskingRun(TableRow):
    """A run: what it was expected to take, and what it took.

    Attributes:
        began: when.
        model: name of the language model.
        planned_calls: expected calls; None where nothing was planned.
        planned_tokens: expected tokens of prompts and answers.
        planned_money: expected cost.
        calls: calls that were made.
        tokens: tokens of prompts and answers.
        money: cost.
        outcome: how it ended.
    """

    began: datetime
    model: str
    planned_calls: int | None
    planned_tokens: int | None
    planned_money: float | None
    calls: int
    tokens: int
    money: float | None
    outcome: str

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns as they are shown."""
        return ("began", "model", "of", "calls", "tokens", "money", "outcome")

    def cells(self) -> list[tuple[Any, ...]]:
        """The plan and the bill, a line each."""
        planned = (self.planned_calls, self.planned_tokens, self.planned_money)
        paid = (self.calls, self.tokens, self.money)
        return [
            (self.began, self.model, "plan", *planned, ""),
            (self.began, self.model, "bill", *paid, self.outcome),
        ]


@dataclass(frozen=True)
class TotalUsage:
    """What all runs of a project took.

    Attributes:
        calls: calls that were made.
        tokens: tokens of prompts and answers.
        money: cost, where prices were known.
        presumed_money: the part of it that is the worst case of calls whose replies were lost.
    """

    calls: int
    tokens: int
    money: float
    presumed_money: float

    def notes(self) -> list[str]:
        """The figures as a sentence; none without calls."""
        if not self.calls:
            return []
        sums = f"all runs: {self.calls:,} calls, {self.tokens:,} tokens, money {self.money:.4f}"
        if self.presumed_money:
            sums += (
                f", of which {self.presumed_money:.4f} is presumed: replies to these calls were "
                "lost, and count as the worst they can have cost"
            )
        return [sums]


@dataclass(frozen=True)
class UnansweredPrompt(TableRow):
    """A prompt without an answer, and why.

    Attributes:
        state: ``failed`` or ``quarantined``.
        kind: ``user`` or ``item``.
        owner: id of the entity, or of the group.
        fault: what went wrong.
    """

    state: str
    kind: str
    owner: str
    fault: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.state, self.kind, self.owner, shortened(self.fault))]


@dataclass(frozen=True, kw_only=True)
class LedgerResult(Result):
    """The ledger's prompts by state, its runs and its latest failures.

    Attributes:
        path: file of the ledger.
        usage: what all runs took.
        prompts: prompts by state.
        runs: the latest runs, the newest first.
        unanswered: the latest prompts without an answer.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("prompts", "prompts", PromptStates),
        TableField("runs", "runs", AskingRun),
        TableField("unanswered", "latest without an answer", UnansweredPrompt, optional=True),
    )

    path: Path
    usage: TotalUsage
    prompts: PromptStates
    runs: list[AskingRun] = field(default_factory=list)
    unanswered: list[UnansweredPrompt] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: {self.path}"


@dataclass(frozen=True, kw_only=True)
class ExportLedgerResult(Result):
    """Calls that were written to a file.

    Attributes:
        path: the Parquet file.
        calls: number of calls.
    """

    path: Path
    calls: int

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.calls:,} calls in {self.path}"


@dataclass(frozen=True, kw_only=True)
class CheckLedgerResult(Result):
    """Whether the ledger's figures are consistent; ``failed`` counts rules that do not hold.

    Attributes:
        violations: a sentence for each rule that does not hold.
    """

    violations: list[str]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        if not self.violations:
            return "the ledger is consistent"
        return f"{len(self.violations)} rules of the ledger are violated"


@dataclass(frozen=True, kw_only=True)
class GiveUpBatchesResult(Result):
    """Open batches that are no longer waited for.

    Attributes:
        calls: calls in these batches.
    """

    calls: int

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.calls:,} calls in open batches are given up; their prompts are asked again"
