"""Prompts taken out of the ledger, with all that was said to them; the money stays booked.

A call stays as what it took, when, of which run: without a prompt (its key is :data:`NOBODY`) and
without a text. Works within a transaction, as :mod:`reki_feast.llm.ledger.runs` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reki_feast.errors import LLMError
from reki_feast.llm.ledger import runs
from reki_feast.llm.ledger.reading import NOBODY, Rows
from reki_feast.llm.ledger.settlements import lose
from reki_feast.schema import Kind


@dataclass(frozen=True)
class Prompt:
    """A prompt and whom it asks about, an entity or a group."""

    key: str
    kind: Kind
    channel: str
    owner: str
    prompt_hash: str

    @property
    def slot(self) -> tuple[Kind, str, str]:
        """Whom it asks about, and of what."""
        return self.kind, self.channel, self.owner


@dataclass(frozen=True)
class Forgotten:
    """How many prompts are gone, and what their calls had taken."""

    prompts: int = 0
    calls: int = 0
    cost: float = 0.0


def prompts_of(rows: Rows, kind: Kind) -> list[Prompt]:
    """All prompts about entities of a kind, or groups of them."""
    query = "SELECT key, kind, channel, owner, prompt_hash FROM prompts WHERE kind = ?"
    return [Prompt(*row) for row in rows(query, (kind,))]


def forget(
    connection: sqlite3.Connection, keys: Collection[str], heirs: Mapping[str, str], now: str
) -> Forgotten:
    """Take prompts out. Calls of theirs that are open are lost: they count as their worst case.

    Args:
        connection: within a transaction.
        keys: the prompts.
        heirs: by key of further prompts, the owner that they go over to: it was asked the same.
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
        lose(connection, "key = ?", (key,), now)
        found = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(cost), 0) FROM calls WHERE key = ?", (key,)
        ).fetchone()
        calls, cost = calls + found[0], cost + found[1]
        connection.execute(
            "UPDATE calls SET key = ?, text = NULL, error = NULL WHERE key = ?", (NOBODY, key)
        )
        connection.execute("DELETE FROM bands WHERE key = ?", (key,))
        connection.execute("DELETE FROM prompts WHERE key = ?", (key,))
    connection.execute(
        "UPDATE batches SET state = 'collected', status = 'forgotten', updated = ?"
        " WHERE state <> 'collected' AND NOT EXISTS"
        " (SELECT 1 FROM calls WHERE batch = batches.id AND state = 'sent')",
        (now,),
    )
    return Forgotten(len(keys), calls, cost)


def _check_quiet(connection: sqlite3.Connection, now: str) -> None:
    """A run that goes on has prompts in memory, and would enter what is said to them."""
    open_runs = connection.execute("SELECT id, began FROM runs WHERE ended IS NULL").fetchall()
    for run, began in open_runs:
        if runs.lives(connection, run, now):
            raise LLMError(
                "prompts are forgotten while nobody asks",
                found=f"a run that began at {began[:19]} goes on",
                mend="wait for it, or stop it with Ctrl-C: it goes on where it was",
            )
