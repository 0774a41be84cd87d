"""What the ledger tells: answers, states, money by run, gates, and whether its books balance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from reki_feast.errors import LLMError
from reki_feast.llm.ledger.database import DAMAGED

#: Runs a query with values.
Rows = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]

_TIME = pa.timestamp("us", tz="UTC")
#: What :meth:`Ledger.answers` gives back, one row a distinct prompt.
ANSWERS = pa.schema(
    [
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("coverage", pa.float64()),
        pa.field("created_timestamp", _TIME, nullable=False),
    ]
)
#: What :func:`export` gives back, one row a call; a prompt that was never sent has none. Of a call
#: whose prompt was forgotten there are the numbers alone, and the prompt's state is so named.
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
        pa.field("sent", _TIME, nullable=False),
        pa.field("ended", _TIME),
        pa.field("error", pa.string()),
        pa.field("system", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
    ]
)
#: The key of calls whose prompts were forgotten (:mod:`reki_feast.llm.ledger.forgetting`).
NOBODY = ""
_EXPORT = f"""
SELECT c.id, c.run, c.batch, COALESCE(p.prompt_hash, ''), COALESCE(p.llm, r.llm, ''),
    COALESCE(p.parameters, ''), COALESCE(p.kind, ''), COALESCE(p.channel, ''),
    COALESCE(p.owner, ''), c.purpose, c.attempt, c.state,
    CASE WHEN c.key = '{NOBODY}' THEN 'forgotten' ELSE p.state END, c.gate, p.coverage, c.status,
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
class Run:
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


@contextmanager
def _as_written() -> Iterator[None]:
    """Have it told as damage when values are not what the ledger writes.

    Raises:
        LLMError: they are not.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise _damaged(error) from error


def _damaged(error: TypeError | ValueError) -> LLMError:
    rule = "the ledger's rows are as they were written"
    return LLMError(rule, found=" ".join(str(error).split()), mend=DAMAGED)


@_as_written()
def totals(rows: Rows) -> Totals:
    """Counts by state, and sums over all runs."""
    states: dict[str, int] = dict(rows("SELECT state, COUNT(*) FROM prompts GROUP BY state", ()))
    columns = ("calls", "prompt_tokens", "completion_tokens", "cost", "presumed_cost")
    sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in columns)
    paid = dict(zip(columns, rows(f"SELECT {sums} FROM runs", ())[0], strict=True))
    return Totals(**states, **paid)


@_as_written()
def runs(rows: Rows, limit: int = 10) -> list[Run]:
    """The latest runs, the newest first."""
    found = rows(
        "SELECT began, llm, CASE WHEN ended IS NULL THEN 'under way or killed' ELSE outcome END,"
        " planned_calls, planned_tokens, planned_cost, calls, prompt_tokens + completion_tokens,"
        " cost, presumed_cost FROM runs ORDER BY began DESC LIMIT ?",
        (limit,),
    )
    return [Run(datetime.fromisoformat(row[0]), *row[1:]) for row in found]


def failures(rows: Rows, limit: int = 10) -> list[tuple[str, str, str, str]]:
    """The latest prompts without an answer as (state, kind, owner, fault)."""
    found = rows(
        "SELECT state, kind, owner, fault FROM prompts WHERE state IN ('failed', 'quarantined')"
        " ORDER BY updated DESC, key LIMIT ?",
        (limit,),
    )
    return [tuple(row) for row in found]


def coverage(rows: Rows) -> list[tuple[str, str, int, float | None, int, int, int]]:
    """By kind and channel: answered, mean coverage, partial, mended, quarantined."""
    return rows(
        "SELECT kind, channel, SUM(answer IS NOT NULL),"
        " AVG(CASE WHEN answer IS NOT NULL THEN coverage END),"
        " SUM(answer IS NOT NULL AND coverage < 1), SUM(answer IS NOT NULL AND mends > 0),"
        " SUM(state = 'quarantined') FROM prompts GROUP BY kind, channel ORDER BY kind, channel",
        (),
    )


def gates(rows: Rows) -> list[tuple[str, int, int]]:
    """By gate: answers that failed it, prompts quarantined by it."""
    return rows(
        "SELECT gate, COUNT(*), (SELECT COUNT(*) FROM prompts p WHERE p.gate = c.gate"
        " AND p.state = 'quarantined') FROM calls c WHERE gate <> '' GROUP BY gate"
        " ORDER BY COUNT(*) DESC, gate",
        (),
    )


def examples(rows: Rows, gate: str, limit: int = 3) -> list[tuple[str, str, str, str]]:
    """The latest answers that failed a gate as (kind, owner, fault, text)."""
    found = rows(
        "SELECT p.kind, p.owner, COALESCE(c.error, ''), COALESCE(c.text, '') FROM calls c"
        " JOIN prompts p USING (key) WHERE c.gate = ? ORDER BY c.id DESC LIMIT ?",
        (gate, limit),
    )
    return [tuple(row) for row in found]


def export(rows: Rows) -> Iterator[pa.Table]:
    """All calls as tables of schema :data:`CALLS`, some at a time."""
    last = 0
    while found := rows(_EXPORT, (last, _PAGE)):
        last = found[-1][0]
        yield _calls(found)


@_as_written()
def _calls(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    for at in (CALLS.get_field_index("sent"), CALLS.get_field_index("ended")):
        columns[at] = [text and datetime.fromisoformat(text) for text in columns[at]]
    at = CALLS.get_field_index("presumed")
    columns[at] = [bool(value) for value in columns[at]]
    return pa.table(columns, schema=CALLS)


@_as_written()
def answers_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of (hash, answer, model, coverage, time) as a table of :data:`ANSWERS`."""
    parts = [list(part) for part in zip(*rows, strict=True)] or [[] for _ in ANSWERS]
    parts[-1] = [datetime.fromisoformat(text) for text in parts[-1]]
    return pa.table(parts, schema=ANSWERS)


def tried(retry_quarantined: bool) -> str:
    """The column of the time by which an answer is too old, or not.

    A renewal that failed a gate is not made anew before its time, as a first answer is not.
    """
    return "answered" if retry_quarantined else "COALESCE(renewed, answered)"


def is_settled(state: str, answered: str | None, renew_before: datetime | None) -> bool:
    """Whether a run leaves a prompt alone; ``answered`` is of the column :func:`tried`."""
    if state == "quarantined":
        return True
    if answered is None:
        return False
    # whatever became of a renewal: who wants none takes the answer that there is
    try:
        return renew_before is None or datetime.fromisoformat(answered) >= renew_before
    except ValueError as error:
        raise _damaged(error) from error


#: Rules that the books keep at any time, each as a query that finds what breaks it.
_RULES = {
    "the pages of the file are whole": (
        "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"
    ),
    "an answered prompt has an answer": (
        "SELECT key FROM prompts WHERE state = 'answered' AND answer IS NULL"
    ),
    "a prompt has one open call at most": (
        "SELECT key FROM calls WHERE state = 'sent' GROUP BY key HAVING COUNT(*) > 1"
    ),
    "a prompt is sent exactly while a call is open": (
        "SELECT key FROM prompts p WHERE (state = 'sent') <>"
        " EXISTS (SELECT 1 FROM calls c WHERE c.key = p.key AND c.state = 'sent')"
    ),
    "every call belongs to a prompt": (
        f"SELECT id FROM calls c WHERE key <> '{NOBODY}'"
        " AND NOT EXISTS (SELECT 1 FROM prompts p WHERE p.key = c.key)"
    ),
    "a call of a forgotten prompt is over, and has no text": (
        f"SELECT id FROM calls WHERE key = '{NOBODY}'"
        " AND (state = 'sent' OR text IS NOT NULL OR error IS NOT NULL)"
    ),
    "every call belongs to a run": (
        "SELECT id FROM calls c WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = c.run)"
    ),
    "attempts are numbered without gaps": (
        f"SELECT key FROM calls WHERE key <> '{NOBODY}' GROUP BY key"
        " HAVING COUNT(*) <> MAX(attempt) AND MAX(run) <> 'version 1'"
    ),
    "a closed call reserves nothing": (
        "SELECT id FROM calls WHERE state <> 'sent' AND (reserved_tokens OR reserved_cost)"
    ),
    "a run's sums are those of its calls": (
        "SELECT r.id FROM runs r LEFT JOIN (SELECT run, SUM(counted) n, SUM(prompt_tokens) p,"
        " SUM(completion_tokens) a, SUM(cost) m, SUM(state = 'sent') o, SUM(reserved_tokens) t"
        " FROM calls GROUP BY run) c ON c.run = r.id WHERE r.calls <> COALESCE(n, 0)"
        " OR r.prompt_tokens <> COALESCE(p, 0) OR r.completion_tokens <> COALESCE(a, 0)"
        " OR ABS(r.cost - COALESCE(m, 0)) > 1e-6 OR r.reserved_calls <> COALESCE(o, 0)"
        " OR r.reserved_tokens <> COALESCE(t, 0)"
    ),
    "an open call of a batch belongs to an open batch": (
        "SELECT id FROM calls c WHERE state = 'sent' AND batch IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM batches b WHERE b.id = c.batch AND b.state <> 'collected')"
    ),
    "a quarantined prompt says which gate": (
        "SELECT key FROM prompts WHERE state = 'quarantined' AND gate = ''"
    ),
    "a finished run holds no prompt outside a batch": (
        "SELECT p.key FROM prompts p JOIN runs r ON r.id = p.run WHERE r.ended IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.key = p.key AND c.state = 'sent'"
        " AND c.batch IS NOT NULL)"
    ),
}


def broken_rules(rows: Rows) -> list[str]:
    """Rules of bookkeeping that the ledger breaks; none, unless there is a defect."""
    return [
        f"{rule}: {len(found)} do not, such as {found[0][0]}"
        for rule, query in _RULES.items()
        if (found := rows(query, ()))
    ]
