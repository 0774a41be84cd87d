"""Results of the gates: what answers and imported texts cover, and which failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from reki_feast.report import shortened
from reki_feast.results.base import Result, TableField, TableRow


@dataclass(frozen=True)
class AnswerQuality(TableRow):
    """Answers of one kind and channel.

    Attributes:
        kind: ``user`` or ``item``.
        channel: channel of the knowledge.
        answered: prompts with an answer.
        coverage: mean share of the factors that answers cover, 0 to 1.
        partial: answers that cover some factors only.
        mended: answers that passed the gates at a second try.
        quarantined: prompts whose answers failed a gate.
    """

    kind: str
    channel: str
    answered: int
    coverage: float | None
    partial: int
    mended: int
    quarantined: int


@dataclass(frozen=True)
class GateCount(TableRow):
    """How many answers failed a gate, and how many prompts it quarantined.

    Attributes:
        gate: name of the gate.
        failed: answers that failed it.
        quarantined: prompts it quarantined.
    """

    gate: str
    failed: int
    quarantined: int


@dataclass(frozen=True)
class FailedAnswer(TableRow):
    """An answer that failed a gate.

    Attributes:
        gate: name of the gate.
        kind: ``user`` or ``item``.
        owner: id of the entity, or of the group.
        fault: why it failed.
        answer: the text.
    """

    gate: str
    kind: str
    owner: str
    fault: str
    answer: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.gate, self.kind, self.owner, shortened(self.fault), shortened(self.answer))]


@dataclass(frozen=True)
class ImportedQuality(TableRow):
    """Imported texts of one kind and channel; as :class:`AnswerQuality`.

    Attributes:
        kind: ``user`` or ``item``.
        channel: channel of the knowledge.
        texts: texts that passed the gates.
        coverage: mean share of the factors that they cover, 0 to 1.
        partial: texts that cover some factors only.
        quarantined: texts that failed a gate.
    """

    kind: str
    channel: str
    texts: int
    coverage: float | None
    partial: int
    quarantined: int


@dataclass(frozen=True)
class ImportedGateCount(TableRow):
    """How many imported texts a gate quarantined.

    Attributes:
        gate: name of the gate.
        quarantined: texts that failed it.
    """

    gate: str
    quarantined: int


@dataclass(frozen=True)
class FailedText(TableRow):
    """An imported text that failed a gate.

    Attributes:
        gate: name of the gate.
        kind: ``user`` or ``item``.
        owner: id of the entity, or of the group.
        fault: why it failed.
        text: the text.
    """

    gate: str
    kind: str
    owner: str
    fault: str
    text: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.gate, self.kind, self.owner, self.fault, shortened(self.text))]


@dataclass(frozen=True, kw_only=True)
class QualityResult(Result):
    """How much answers and imported texts cover, and which gates some failed.

    Attributes:
        answers: answers by kind and channel.
        gates: gates that some answers failed, the commonest first.
        examples: some answers that failed a gate.
        imported: imported texts by kind and channel.
        imported_gates: gates that some imported texts failed, the commonest first.
        imported_examples: some imported texts that failed a gate.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("answers", "answers", AnswerQuality),
        TableField("gates", "gates", GateCount, optional=True),
        TableField("examples", "examples", FailedAnswer, optional=True),
        TableField("imported", "imported", ImportedQuality, optional=True),
        TableField("imported_gates", "imported gates", ImportedGateCount, optional=True),
        TableField("imported_examples", "imported examples", FailedText, optional=True),
    )

    answers: list[AnswerQuality] = field(default_factory=list)
    gates: list[GateCount] = field(default_factory=list)
    examples: list[FailedAnswer] = field(default_factory=list)
    imported: list[ImportedQuality] = field(default_factory=list)
    imported_gates: list[ImportedGateCount] = field(default_factory=list)
    imported_examples: list[FailedText] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Prompts with an answer."""
        return sum(one.answered for one in self.answers)

    @property
    def quarantined(self) -> int:
        """Prompts whose answers failed a gate."""
        return sum(one.quarantined for one in self.answers)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        found = f"{self.project}: {self.answered:,} answers, {self.quarantined:,} quarantined"
        if not self.imported:
            return found
        passed = sum(one.texts for one in self.imported)
        failed = sum(one.quarantined for one in self.imported)
        return f"{found}; {passed:,} imported texts, {failed:,} quarantined"
