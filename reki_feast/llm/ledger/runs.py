"""Runs in the ledger: begun, alive, ended; those that were killed are put to rest.

Like its neighbours :mod:`claims <reki_feast.llm.ledger.claims>` and :mod:`settlements
<reki_feast.llm.ledger.settlements>`, this works on a connection within a transaction that its
caller has begun (:meth:`reki_feast.llm.ledger.Ledger.do`).
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from reki_feast.llm.budget import Spent
from reki_feast.llm.ledger.calls import Asker
from reki_feast.llm.ledger.processes import is_alive
from reki_feast.llm.ledger.settlements import lose


def begin_run(connection: sqlite3.Connection, asker: Asker, process: str, now: str) -> None:
    """Enter a run, and put to rest those that were killed: what they held is free again."""
    for (run,) in connection.execute("SELECT id FROM runs WHERE ended IS NULL").fetchall():
        if not lives(connection, run, now):
            end_run(connection, run, "killed", now)
    connection.execute(
        "INSERT INTO runs (id, process, llm, began, seen) VALUES (?, ?, ?, ?, ?)",
        (asker.run, process, asker.llm, now, now),
    )


def expect(connection: sqlite3.Connection, run: str, planned: Spent) -> None:
    """Add to what a run is expected to take."""
    connection.execute(
        "UPDATE runs SET planned_calls = COALESCE(planned_calls, 0) + ?, planned_tokens ="
        " COALESCE(planned_tokens, 0) + ?, planned_cost = COALESCE(planned_cost, 0) + ?"
        " WHERE id = ?",
        (planned.calls, planned.tokens, planned.cost, run),
    )


def see_run(connection: sqlite3.Connection, run: str, now: str) -> None:
    """Say that a run lives, also where it was taken for dead."""
    query = "UPDATE runs SET seen = ?, ended = NULL, outcome = '' WHERE id = ?"
    connection.execute(query, (now, run))


def end_run(connection: sqlite3.Connection, run: str, outcome: str, now: str) -> None:
    """Close a run: calls whose replies nobody waits for are lost, prompts become free."""
    lose(connection, "run = ? AND batch IS NULL", (run,), now)
    connection.execute("UPDATE prompts SET run = NULL WHERE run = ? AND state <> 'sent'", (run,))
    connection.execute(
        "UPDATE runs SET ended = ?, seen = ?, outcome = ? WHERE id = ?", (now, now, outcome, run)
    )


def lives(connection: sqlite3.Connection, run: str, now: str) -> bool:
    """Whether a run goes on."""
    row = connection.execute(
        "SELECT process, seen, ended FROM runs WHERE id = ?", (run,)
    ).fetchone()
    if row is None or row[2] is not None:
        return False
    return is_alive(row[0], datetime.fromisoformat(row[1]), datetime.fromisoformat(now))
