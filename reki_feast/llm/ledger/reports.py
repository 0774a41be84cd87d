"""Reports of the ledger: totals, runs, failures, coverage, gates, and the export of calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from reki_feast.llm.ledger.answers import TIME, RunQuery, answer_time, reporting_damage

#: What :func:`export` gives back, one row a call that began, also where no server got it; a prompt
#: that was never sent has none. Of a call whose prompt was forgotten there are the numbers alone,
#: and the prompt's state is so named.
CALLS = pa.schema(
    [
        pa.field("call", pa.int64(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("batch", pa.string()),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("llm", pa.string(), nullable=False),
        pa.field("parameters", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("attempt", pa.int64(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("prompt_state", pa.string(), nullable=False),
        pa.field("gate", pa.string(), nullable=False),
        pa.field("coverage", pa.float64()),
        pa.field("status", pa.int64()),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("cost", pa.float64(), nullable=False),
        pa.field("presumed", pa.bool_(), nullable=False),
        pa.field("latency_s", pa.float64()),
        pa.field("sent", TIME, nullable=False),
        pa.field("ended", TIME),
        pa.field("error", pa.string()),
        pa.field("system", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
    ]
)
#: The key of calls whose prompts were forgotten (:mod:`reki_feast.llm.ledger.deletion`).
NO_PROMPT = ""
_EXPORT = f"""
SELECT c.id, c.run, c.batch, COALESCE(p.prompt_hash, ''), COALESCE(p.llm, r.llm, ''),
    COALESCE(p.parameters, ''), COALESCE(p.kind, ''), COALESCE(p.channel, ''),
    COALESCE(p.owner, ''), c.purpose, c.attempt, c.state,
    CASE WHEN c.key = '{NO_PROMPT}' THEN 'forgotten' ELSE p.state END, c.gate, p.coverage, c.status,
    c.finish_reason, c.model, c.prompt_tokens, c.completion_tokens, c.cost, c.presumed,
    c.latency_s, c.sent, c.ended, c.error, COALESCE(p.system, ''), COALESCE(p.prompt, ''),
    CASE WHEN c.text IS NOT NULL THEN c.text
         WHEN c.state = 'answered' AND c.gate = '' THEN p.answer END
FROM calls c LEFT JOIN prompts p USING (key) LEFT JOIN runs r ON r.id = c.run
WHERE c.id > ? ORDER BY c.id LIMIT ?
"""
_PAGE = 2_000


@dataclass(frozen=True)
class Totals:
    """What the ledger holds: prompts by state, and what was paid for them.

    Attributes:
        planned: prompts that a run has taken up and not sent, or whose call was lost.
        sent: prompts under way.
        answered: prompts with an answer that became knowledge.
        failed: prompts that the server was at fault with; a run asks them again.
        quarantined: prompts whose answers failed a gate.
        calls: calls that counted.
        prompt_tokens: tokens of questions.
        completion_tokens: tokens of answers.
        cost: money, where prices were known.
        presumed_cost: the part of it that stands for replies that never came.
    """

    planned: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    quarantined: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    presumed_cost: float = 0.0


@dataclass(frozen=True)
class RunSummary:
    """A run: what it was expected to take, and what it took."""

    began: datetime
    llm: str
    outcome: str
    planned_calls: int | None
    planned_tokens: int | None
    planned_cost: float | None
    calls: int
    tokens: int
    cost: float
    presumed_cost: float


def outdated(rows: RunQuery, before: datetime) -> list[str]:
    """Hashes of prompts whose newest answer, or renewal, of any model came before a time."""
    times = f"max({answer_time(False)})"
    found = rows(
        "SELECT prompt_hash FROM prompts WHERE answer IS NOT NULL AND state <> 'quarantined'"
        f" GROUP BY prompt_hash HAVING {times} < ?",
        (before.isoformat(),),
    )
    return [prompt_hash for (prompt_hash,) in found]


@reporting_damage()
def totals(rows: RunQuery) -> Totals:
    """Counts by state, and sums over all runs."""
    states: dict[str, int] = dict(rows("SELECT state, COUNT(*) FROM prompts GROUP BY state", ()))
    columns = ("calls", "prompt_tokens", "completion_tokens", "cost", "presumed_cost")
    sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in columns)
    paid = dict(zip(columns, rows(f"SELECT {sums} FROM runs", ())[0], strict=True))
    return Totals(**states, **paid)


@reporting_damage()
def runs(rows: RunQuery, limit: int = 10) -> list[RunSummary]:
    """The latest runs, the newest first."""
    found = rows(
        "SELECT began, llm, CASE WHEN ended IS NULL THEN 'under way or killed' ELSE outcome END,"
        " planned_calls, planned_tokens, planned_cost, calls, prompt_tokens + completion_tokens,"
        " cost, presumed_cost FROM runs ORDER BY began DESC LIMIT ?",
        (limit,),
    )
    return [RunSummary(datetime.fromisoformat(row[0]), *row[1:]) for row in found]


def failures(rows: RunQuery, limit: int = 10) -> list[tuple[str, str, str, str]]:
    """The latest prompts without an answer as (state, kind, owner, fault)."""
    found = rows(
        "SELECT state, kind, owner, fault FROM prompts WHERE state IN ('failed', 'quarantined')"
        " ORDER BY updated DESC, key LIMIT ?",
        (limit,),
    )
    return [tuple(row) for row in found]


def coverage(rows: RunQuery) -> list[tuple[str, str, int, float | None, int, int, int]]:
    """By kind and channel: answered, mean coverage, partial, mended, quarantined."""
    return rows(
        "SELECT kind, channel, SUM(answer IS NOT NULL),"
        " AVG(CASE WHEN answer IS NOT NULL THEN coverage END),"
        " SUM(answer IS NOT NULL AND coverage < 1), SUM(answer IS NOT NULL AND mends > 0),"
        " SUM(state = 'quarantined') FROM prompts GROUP BY kind, channel ORDER BY kind, channel",
        (),
    )


def gates(rows: RunQuery) -> list[tuple[str, int, int]]:
    """By gate: answers that failed it, prompts quarantined by it."""
    return rows(
        "SELECT gate, COUNT(*), (SELECT COUNT(*) FROM prompts p WHERE p.gate = c.gate"
        " AND p.state = 'quarantined') FROM calls c WHERE gate <> '' GROUP BY gate"
        " ORDER BY COUNT(*) DESC, gate",
        (),
    )


def examples(rows: RunQuery, gate: str, limit: int = 3) -> list[tuple[str, str, str, str]]:
    """The latest answers that failed a gate as (kind, owner, fault, text)."""
    found = rows(
        "SELECT p.kind, p.owner, COALESCE(c.error, ''), COALESCE(c.text, '') FROM calls c"
        " JOIN prompts p USING (key) WHERE c.gate = ? ORDER BY c.id DESC LIMIT ?",
        (gate, limit),
    )
    return [tuple(row) for row in found]


def export(rows: RunQuery) -> Iterator[pa.Table]:
    """All calls as tables of schema :data:`CALLS`, some at a time."""
    last = 0
    while found := rows(_EXPORT, (last, _PAGE)):
        last = found[-1][0]
        yield _calls(found)


@reporting_damage()
def _calls(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    for at in (CALLS.get_field_index("sent"), CALLS.get_field_index("ended")):
        columns[at] = [text and datetime.fromisoformat(text) for text in columns[at]]
    at = CALLS.get_field_index("presumed")
    columns[at] = [bool(value) for value in columns[at]]
    return pa.table(columns, schema=CALLS)
