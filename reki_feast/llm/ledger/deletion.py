"""Deletes prompts and their answers from the ledger; what their calls cost stays recorded.

A call keeps its figures, time and run, without a prompt (its key is :data:`NO_PROMPT`) and without
a text. Works within a transaction, like :mod:`reki_feast.llm.ledger.runs`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reki_feast.errors import LLMError
from reki_feast.llm.ledger import runs
from reki_feast.llm.ledger.answers import RunQuery
from reki_feast.llm.ledger.outcomes import mark_lost
from reki_feast.llm.ledger.reports import NO_PROMPT
from reki_feast.schema import Kind


@dataclass(frozen=True)
class PromptRef:
    """A prompt, and the entity or group that it is about."""

    key: str
    kind: Kind
    channel: str
    owner: str
    prompt_hash: str

    @property
    def slot(self) -> tuple[Kind, str, str]:
        """The kind, channel and entity that it is about."""
        return self.kind, self.channel, self.owner


@dataclass(frozen=True)
class DeletedPrompts:
    """How many prompts were deleted, and what their calls had cost."""

    prompts: int = 0
    calls: int = 0
    cost: float = 0.0


def prompts_of(rows: RunQuery, kind: Kind) -> list[PromptRef]:
    """All prompts about entities of a kind, or groups of them."""
    query = "SELECT key, kind, channel, owner, prompt_hash FROM prompts WHERE kind = ?"
    return [PromptRef(*row) for row in rows(query, (kind,))]


def delete_prompts(
    connection: sqlite3.Connection, keys: Collection[str], heirs: Mapping[str, str], now: str
) -> DeletedPrompts:
    """Delete prompts. Their open calls are marked lost and count as their worst case.

    Args:
        connection: within a transaction.
        keys: the prompts.
        heirs: the new owner of further prompts, by key: another entity has the same prompt.
        now: the time, as ISO text.

    Raises:
        LLMError: a run is asking; nothing is changed.
    """
    _check_quiet(connection, now)
    connection.executemany(
        "UPDATE prompts SET owner = ? WHERE key = ?", [(own, key) for key, own in heirs.items()]
    )
    calls, cost = 0, 0.0
    for key in keys:
        mark_lost(connection, "key = ?", (key,), now)
        found = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(cost), 0) FROM calls WHERE key = ?", (key,)
        ).fetchone()
        calls, cost = calls + found[0], cost + found[1]
        connection.execute(
            "UPDATE calls SET key = ?, text = NULL, error = NULL WHERE key = ?", (NO_PROMPT, key)
        )
        connection.execute("DELETE FROM bands WHERE key = ?", (key,))
        connection.execute("DELETE FROM prompts WHERE key = ?", (key,))
    connection.execute(
        "UPDATE batches SET state = 'collected', status = 'forgotten', updated = ?"
        " WHERE state <> 'collected' AND NOT EXISTS"
        " (SELECT 1 FROM calls WHERE batch = batches.id AND state = 'sent')",
        (now,),
    )
    return DeletedPrompts(len(keys), calls, cost)


def _check_quiet(connection: sqlite3.Connection, now: str) -> None:
    """An active run has prompts in memory, and would record their answers."""
    open_runs = connection.execute("SELECT id, began FROM runs WHERE ended IS NULL").fetchall()
    for run, began in open_runs:
        if runs.is_running(connection, run, now):
            raise LLMError(
                "prompts are forgotten while nobody asks",
                detail=f"a run that began at {began[:19]} goes on",
                hint="wait for it, or stop it with Ctrl-C: it goes on where it was",
            )
