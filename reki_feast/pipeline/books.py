"""What the ledger says: its calls and runs, and how good the answers are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import DeclarationError
from reki_feast.llm import Ledger
from reki_feast.llm.batch import entries as batches
from reki_feast.llm.ledger import reading
from reki_feast.parquet import write_tables
from reki_feast.pipeline.importing import imported, quarantine_tables
from reki_feast.project import Project
from reki_feast.report import Report, Table, shortened
from reki_feast.rights import OWNER

_RUN_COLUMNS = ("began", "model", "of", "calls", "tokens", "money", "outcome")


def runs_table(ledger: Ledger, limit: int = 5) -> Table:
    """The latest runs: what they took beside what they were expected to take."""
    rows: list[tuple[Any, ...]] = []
    for run in reading.runs(ledger.rows, limit):
        planned = (run.planned_calls, run.planned_tokens, _rounded(run.planned_cost))
        paid = (run.calls, run.tokens, _rounded(run.cost))
        rows.append((run.began, run.llm, "plan", *planned, ""))
        rows.append((run.began, run.llm, "bill", *paid, run.outcome))
    return Table("runs", _RUN_COLUMNS, rows)


def states_table(ledger: Ledger) -> Table:
    """Prompts by state."""
    totals = ledger.totals()
    states = ("planned", "sent", "answered", "failed", "quarantined")
    return Table("prompts", states, [tuple(getattr(totals, state) for state in states)])


def paid_note(ledger: Ledger) -> list[str]:
    """What all runs paid, and how much of that is presumed."""
    totals = ledger.totals()
    tokens = totals.prompt_tokens + totals.completion_tokens
    if not totals.calls:
        return []
    said = f"all runs: {totals.calls:,} calls, {tokens:,} tokens, money {totals.cost:.4f}"
    if totals.presumed_cost:
        said += (
            f", of which {totals.presumed_cost:.4f} is presumed: replies to these calls were lost,"
            " and count as the worst they can have cost"
        )
    return [said]


def ledger(project: Project) -> Report:
    """The ledger's prompts by state, its runs, its latest failures."""
    with project.ledger(reading=True) as opened:
        failures = reading.failures(opened.rows)
        rows = [(state, kind, owner, shortened(fault)) for state, kind, owner, fault in failures]
        lacking = Table("latest without an answer", ("state", "kind", "owner", "fault"), rows)
        return Report(
            f"{project.name}: {project.data / 'ledger.sqlite'}",
            tables=[
                states_table(opened),
                runs_table(opened, limit=10),
                *([lacking] if rows else []),
            ],
            notes=paid_note(opened),
            next=["reki quality", "reki ledger export calls.parquet"],
        )


def export_ledger(project: Project, path: Path) -> Report:
    """Write every call, with its prompt and answer, to a Parquet file that is its owner's alone.

    Raises:
        DeclarationError: the file's name is no Parquet file's.
        LakeError: the file cannot be written.
    """
    if path.suffix != ".parquet":
        rule = "the ledger is exported to a Parquet file"
        raise DeclarationError(rule, found=str(path), mend="reki ledger export calls.parquet")
    with project.ledger(reading=True) as opened:
        # prompts and answers, wherever they are put
        count = write_tables(path, reading.CALLS, reading.export(opened.rows), mode=OWNER.file)
    return Report(f"{count:,} calls in {path}")


def check_ledger(project: Project) -> Report:
    """Look whether the ledger's books balance."""
    with project.ledger(reading=True) as opened:
        broken = reading.broken_rules(opened.rows)
    title = "the books balance" if not broken else f"{len(broken)} rules of bookkeeping are broken"
    return Report(title, notes=broken, failed=len(broken))


def give_up_batches(project: Project) -> Report:
    """Wait no longer for open batches, which the server has forgotten or nobody can reach."""
    with project.ledger() as opened:
        [calls] = opened.do([partial(batches.give_up, now=opened.now())])
    notes = ["they count as the worst they can have cost"] if calls else []
    title = f"{calls:,} calls in open batches are given up; their prompts will be asked again"
    return Report(title, notes=notes, next=["reki plan"] if calls else [])


def quality(project: Project, *, examples: int = 3) -> Report:
    """How many answers, and texts made elsewhere, cover how much; which gates others failed.

    Args:
        project: the project.
        examples: of each gate, at most.
    """
    with project.ledger(reading=True) as opened:
        kinds = [
            (kind, channel, answered, _rounded(mean), partial, mended, quarantined)
            for kind, channel, answered, mean, partial, mended, quarantined in reading.coverage(
                opened.rows
            )
        ]
        gates = reading.gates(opened.rows)
        shown = [
            (gate, kind, owner, shortened(fault), shortened(text))
            for gate, _, _ in gates
            for kind, owner, fault, text in reading.examples(opened.rows, gate, examples)
        ]
    columns = ("kind", "channel", "answered", "coverage", "partial", "mended", "quarantined")
    tables = [Table("answers", columns, kinds)]
    if gates:
        rows = [tuple(row) for row in gates]
        tables.append(Table("gates", ("gate", "failed", "quarantined"), rows))
        tables.append(Table("examples", ("gate", "kind", "owner", "fault", "answer"), shown))
    quarantined = sum(row[-1] for row in kinds)
    answers = f"{sum(row[2] for row in kinds):,} answers, {quarantined:,} quarantined"
    looked_at = imported(project)
    return Report(
        f"{project.name}: {answers}{_texts(looked_at)}",
        tables=[*tables, *_imported_tables(looked_at, examples)],
        next=["reki generate --retry-quarantined"] if quarantined else [],
    )


def _texts(looked_at: pa.Table) -> str:
    failed = looked_at.filter(pc.field("gate") != "").num_rows
    passed = looked_at.num_rows - failed
    return f"; {passed:,} imported texts, {failed:,} quarantined" if looked_at.num_rows else ""


def _imported_tables(looked_at: pa.Table, examples: int) -> list[Table]:
    """Texts made elsewhere by kind and channel, and the gates that some failed."""
    slots = sorted(set(zip(*(looked_at[n].to_pylist() for n in ("kind", "channel")), strict=True)))
    rows = []
    for kind, channel in slots:
        of = looked_at.filter((pc.field("kind") == kind) & (pc.field("channel") == channel))
        passed = of.filter(pc.field("gate") == "")
        mean = _rounded(pc.mean(passed["coverage"]).as_py())
        partial = passed.filter(pc.field("coverage") < 1).num_rows
        rows.append((kind, channel, passed.num_rows, mean, partial, of.num_rows - passed.num_rows))
    columns = ("kind", "channel", "texts", "coverage", "partial", "quarantined")
    found = [Table("imported", columns, rows)] if rows else []
    return [*found, *quarantine_tables(looked_at, examples)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
