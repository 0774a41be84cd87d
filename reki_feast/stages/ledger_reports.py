"""Figures of the ledger: its calls and runs, and the quality of the answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import DeclarationError
from reki_feast.llm import Ledger
from reki_feast.llm.batch.records import abandon_batches
from reki_feast.llm.ledger import reports
from reki_feast.llm.ledger.invariants import violations
from reki_feast.permissions import OWNER
from reki_feast.project import DeclaredProject
from reki_feast.results import (
    AnswerQuality,
    AskingRun,
    CheckLedgerResult,
    ExportLedgerResult,
    FailedAnswer,
    GateCount,
    GiveUpBatchesResult,
    ImportedQuality,
    LedgerResult,
    PromptStates,
    QualityResult,
    TotalUsage,
    UnansweredPrompt,
)
from reki_feast.stages.importing import imported, quarantined_texts
from reki_feast.tables.parquet import write_tables


def latest_runs(ledger: Ledger, limit: int = 5) -> list[AskingRun]:
    """The latest runs: what they were expected to take, and what they took."""
    return [
        AskingRun(
            began=run.began,
            model=run.llm,
            planned_calls=run.planned_calls,
            planned_tokens=run.planned_tokens,
            planned_money=_rounded(run.planned_cost),
            calls=run.calls,
            tokens=run.tokens,
            money=_rounded(run.cost),
            outcome=run.outcome,
        )
        for run in reports.runs(ledger.rows, limit)
    ]


def prompt_states(ledger: Ledger) -> PromptStates:
    """Prompts by state."""
    totals = ledger.totals()
    counts = (totals.planned, totals.sent, totals.answered, totals.failed, totals.quarantined)
    return PromptStates(*counts)


def total_usage(ledger: Ledger) -> TotalUsage:
    """What all runs took, and how much of that is presumed."""
    totals = ledger.totals()
    tokens = totals.prompt_tokens + totals.completion_tokens
    return TotalUsage(totals.calls, tokens, totals.cost, totals.presumed_cost)


def ledger(project: DeclaredProject) -> LedgerResult:
    """The ledger's prompts by state, its runs, its latest failures.

    Args:
        project: the project.

    Raises:
        LLMError: the ledger is damaged or cannot be read.
    """
    with project.ledger(reading=True) as opened:
        usage = total_usage(opened)
        return LedgerResult(
            project=project.name,
            path=project.data / "ledger.sqlite",
            usage=usage,
            prompts=prompt_states(opened),
            runs=latest_runs(opened, limit=10),
            unanswered=[UnansweredPrompt(*row) for row in reports.failures(opened.rows)],
            notes=usage.notes(),
            next=["reki quality", "reki ledger export calls.parquet"],
        )


def export_ledger(project: DeclaredProject, path: Path) -> ExportLedgerResult:
    """Write every call, with its prompt and answer, to a Parquet file that only its owner can read.

    Args:
        project: the project.
        path: the file; it ends with ``.parquet``.

    Raises:
        DeclarationError: the file's name does not end so.
        LakeError: the file cannot be written.
    """
    if path.suffix != ".parquet":
        rule = "the ledger is exported to a Parquet file"
        raise DeclarationError(rule, detail=str(path), hint="reki ledger export calls.parquet")
    with project.ledger(reading=True) as opened:
        # prompts and answers are private wherever they are written
        count = write_tables(path, reports.CALLS, reports.export(opened.rows), mode=OWNER.file)
    return ExportLedgerResult(project=project.name, path=path, calls=count)


def check_ledger(project: DeclaredProject) -> CheckLedgerResult:
    """Check whether the ledger's figures are consistent.

    Args:
        project: the project.

    Raises:
        LLMError: the ledger is damaged or cannot be read.
    """
    with project.ledger(reading=True) as opened:
        broken = violations(opened.rows)
    return CheckLedgerResult(
        project=project.name, violations=broken, notes=broken, failed=len(broken)
    )


def give_up_batches(project: DeclaredProject) -> GiveUpBatchesResult:
    """Stop waiting for open batches that the server has lost; their prompts are asked again.

    Args:
        project: the project.

    Raises:
        LLMError: the ledger is damaged or cannot be written.
    """
    with project.ledger() as opened:
        [calls] = opened.do([partial(abandon_batches, now=opened.now())])
    return GiveUpBatchesResult(
        project=project.name,
        calls=calls,
        notes=["they count as the worst they can have cost"] if calls else [],
        next=["reki plan"] if calls else [],
    )


def quality(project: DeclaredProject, *, examples: int = 3) -> QualityResult:
    """How much answers and imported texts cover, and which gates some failed.

    Args:
        project: the project.
        examples: maximum number of examples of each gate.

    Raises:
        LLMError: the ledger is damaged or cannot be read.
    """
    with project.ledger(reading=True) as opened:
        answers = [
            AnswerQuality(kind, channel, answered, _rounded(mean), *counts)
            for kind, channel, answered, mean, *counts in reports.coverage(opened.rows)
        ]
        gates = [GateCount(*row) for row in reports.gates(opened.rows)]
        failed = [
            FailedAnswer(one.gate, *row)
            for one in gates
            for row in reports.examples(opened.rows, one.gate, examples)
        ]
    looked_at = imported(project)
    imported_gates, imported_examples = quarantined_texts(looked_at, examples)
    return QualityResult(
        project=project.name,
        answers=answers,
        gates=gates,
        examples=failed,
        imported=_imported_quality(looked_at),
        imported_gates=imported_gates,
        imported_examples=imported_examples,
        next=["reki generate --retry-quarantined"]
        if any(one.quarantined for one in answers)
        else [],
    )


def _imported_quality(looked_at: pa.Table) -> list[ImportedQuality]:
    """Imported texts by kind and channel."""
    slots = sorted(set(zip(*(looked_at[n].to_pylist() for n in ("kind", "channel")), strict=True)))
    rows = []
    for kind, channel in slots:
        of = looked_at.filter((pc.field("kind") == kind) & (pc.field("channel") == channel))
        passed = of.filter(pc.field("gate") == "")
        mean = _rounded(pc.mean(passed["coverage"]).as_py())
        partly = passed.filter(pc.field("coverage") < 1).num_rows
        failed = of.num_rows - passed.num_rows
        rows.append(ImportedQuality(kind, channel, passed.num_rows, mean, partly, failed))
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
