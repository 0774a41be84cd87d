"""Deletes prompts and their answers from the ledger; what their calls cost stays recorded.

A call keeps its figures, time and run, without a prompt (its key is :data:`NO_PROMPT`) and without
a text. Works within a transaction, like :mod:`reki_feast.llm.ledger.runs`.

Texts that are encoded at an endpoint stand in the ledger until their vectors are stored elsewhere,
as prompts of the kind :data:`TEXTS`: their hashes are its facts, packed vectors its answer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from reki_feast.errors import LLMError
from reki_feast.llm.ledger import runs
from reki_feast.llm.ledger.answers import RunQuery
from reki_feast.llm.ledger.outcomes import mark_lost
from reki_feast.llm.ledger.reports import NO_PROMPT
from reki_feast.schema import Kind

#: The kind of prompts that are texts to encode.
TEXTS = "texts"


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

    Texts that wait for their vectors to be stored go, too.

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
    texts = connection.execute("SELECT key FROM prompts WHERE kind = ?", (TEXTS,)).fetchall()
    done = _deleted(connection, keys, now)
    _deleted(connection, [key for (key,) in texts], now)
    connection.execute(
        "UPDATE batches SET state = 'collected', status = 'forgotten', updated = ?"
        " WHERE state <> 'collected' AND NOT EXISTS"
        " (SELECT 1 FROM calls WHERE batch = batches.id AND state = 'sent')",
        (now,),
    )
    return done


@dataclass(frozen=True)
class KeptTexts:
    """Texts whose vectors a killed run left in the ledger.

    Attributes:
        key: of their prompt.
        hashes: of the texts.
        answer: their vectors, packed.
    """

    key: str
    hashes: tuple[str, ...]
    answer: str


def kept_texts(connection: sqlite3.Connection, channel: str) -> list[KeptTexts]:
    """The texts of an encoder whose vectors stand in the ledger."""
    rows = connection.execute(
        "SELECT key, facts, answer FROM prompts WHERE kind = ? AND channel = ?"
        " AND state = 'answered' ORDER BY created, key",
        (TEXTS, channel),
    )
    return [KeptTexts(k, tuple(h for h, _ in json.loads(facts)), a) for k, facts, a in rows]


def release_texts(connection: sqlite3.Connection, keys: Iterable[str], now: str) -> None:
    """Delete prompts of the kind :data:`TEXTS` that no call is open for."""
    _deleted(connection, [key for key in keys if not _is_open(connection, key)], now)


def release_failed_texts(connection: sqlite3.Connection, channel: str, now: str) -> None:
    """Delete those of an encoder that have no vectors, and that no run is at."""
    rows = connection.execute(
        "SELECT key FROM prompts WHERE kind = ? AND channel = ? AND run IS NULL"
        " AND state NOT IN ('answered', 'sent')",
        (TEXTS, channel),
    ).fetchall()
    _deleted(connection, [key for (key,) in rows], now)


def _is_open(connection: sqlite3.Connection, key: str) -> bool:
    query = "SELECT 1 FROM calls WHERE key = ? AND state = 'sent'"
    return connection.execute(query, (key,)).fetchone() is not None


def _deleted(connection: sqlite3.Connection, keys: Collection[str], now: str) -> DeletedPrompts:
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
