"""Runs in the ledger: started, alive, ended; killed runs are closed.

Like :mod:`reki_feast.llm.ledger.leases` and :mod:`reki_feast.llm.ledger.outcomes`, this works on a
connection within a transaction of the caller (:meth:`reki_feast.llm.ledger.Ledger.do`).
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from reki_feast.llm.budget import Spent
from reki_feast.llm.ledger.outcomes import mark_lost
from reki_feast.llm.ledger.processes import is_alive
from reki_feast.llm.ledger.records import RunIdentity


def start_run(
    connection: sqlite3.Connection, identity: RunIdentity, process: str, now: str
) -> None:
    """Record a run, and close those that were killed: their leases are free again."""
    for (run,) in connection.execute("SELECT id FROM runs WHERE ended IS NULL").fetchall():
        if not is_running(connection, run, now):
            end_run(connection, run, "killed", now)
    connection.execute(
        "INSERT INTO runs (id, process, llm, began, seen) VALUES (?, ?, ?, ?, ?)",
        (identity.run, process, identity.llm, now, now),
    )


def add_plan(connection: sqlite3.Connection, run: str, planned: Spent) -> None:
    """Add to what a run is expected to take."""
    connection.execute(
        "UPDATE runs SET planned_calls = COALESCE(planned_calls, 0) + ?, planned_tokens ="
        " COALESCE(planned_tokens, 0) + ?, planned_cost = COALESCE(planned_cost, 0) + ?"
        " WHERE id = ?",
        (planned.calls, planned.tokens, planned.cost, run),
    )


def heartbeat(connection: sqlite3.Connection, run: str, now: str) -> None:
    """Record that a run is alive, also if it was closed as killed."""
    query = "UPDATE runs SET seen = ?, ended = NULL, outcome = '' WHERE id = ?"
    connection.execute(query, (now, run))


def end_run(connection: sqlite3.Connection, run: str, outcome: str, now: str) -> None:
    """Close a run: calls whose replies nobody waits for are lost, prompts become free."""
    mark_lost(connection, "run = ? AND batch IS NULL", (run,), now)
    connection.execute("UPDATE prompts SET run = NULL WHERE run = ? AND state <> 'sent'", (run,))
    connection.execute(
        "UPDATE runs SET ended = ?, seen = ?, outcome = ? WHERE id = ?", (now, now, outcome, run)
    )


def is_running(connection: sqlite3.Connection, run: str, now: str) -> bool:
    """Whether a run goes on."""
    row = connection.execute(
        "SELECT process, seen, ended FROM runs WHERE id = ?", (run,)
    ).fetchone()
    if row is None or row[2] is not None:
        return False
    return is_alive(row[0], datetime.fromisoformat(row[1]), datetime.fromisoformat(now))
