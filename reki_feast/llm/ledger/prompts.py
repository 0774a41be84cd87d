"""The prompts about one entity or group: what was sent, what came back, what it cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reki_feast.llm.ledger.answers import RunQuery, reporting_damage

_COLUMNS = (
    "p.prompt_hash, p.channel, p.owner, p.event_timestamp, p.state, p.gate, p.fault, p.coverage, "
    "COALESCE(p.model, p.llm), COALESCE(SUM(c.counted), 0), "
    "COALESCE(SUM(c.prompt_tokens + c.completion_tokens), 0), COALESCE(SUM(c.cost), 0), "
    "p.answered, p.system, p.prompt, COALESCE(p.answer, '')"
)


@dataclass(frozen=True)
class PromptRecord:
    """A prompt of the ledger, with the sums of its calls; times are ISO 8601 in the ledger."""

    prompt_hash: str
    channel: str
    owner: str
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
    system: str
    prompt: str
    answer: str


@reporting_damage()
def prompts_with(
    rows: RunQuery, kind: str, hashes: Collection[str], owner: str = ""
) -> list[PromptRecord]:
    """Prompts by their hashes, the newest first.

    Args:
        rows: of the ledger.
        kind: ``user`` or ``item``.
        hashes: of prompts.
        owner: whose prompts are taken, too, whatever their hash; empty: nobody's.
    """
    marks = ",".join("?" * len(hashes))
    found = rows(
        f"SELECT {_COLUMNS} FROM prompts p LEFT JOIN calls c USING (key)"
        f" WHERE p.kind = ? AND (p.prompt_hash IN ({marks}) OR (? != '' AND p.owner = ?))"
        " GROUP BY p.key ORDER BY p.event_timestamp DESC, p.updated DESC",
        (kind, *hashes, owner, owner),
    )
    return [PromptRecord(*_with_times(row)) for row in found]


def _with_times(row: tuple[Any, ...]) -> list[Any]:
    return [*row[:3], _time(row[3]), *row[4:12], _time(row[12]), *row[13:]]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
