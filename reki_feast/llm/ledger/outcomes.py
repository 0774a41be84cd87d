"""Outcomes: the result of each call, and the state of its prompt.

Works within a transaction, as :mod:`reki_feast.llm.ledger.runs` does.
"""

from __future__ import annotations

import sqlite3

from reki_feast.llm.budget import Spent
from reki_feast.llm.ledger.records import CallOutcome, Lease


def record_outcome(connection: sqlite3.Connection, done: CallOutcome, now: str) -> None:
    """Record the outcome of a call; a failure never overwrites an accepted answer.

    A call that was marked lost and has a reply after all is corrected; a closed one is skipped.
    """
    lease, verdict = done.lease, done.verdict
    was = connection.execute("SELECT state FROM calls WHERE id = ?", (lease.call,)).fetchone()[0]
    if was not in ("sent", "lost"):
        return
    if was == "lost":
        _recover(connection, lease)
    state = done.state
    is_renewal = state not in ("answered", "planned") and _has_answer(connection, lease.key)
    if is_renewal:
        state = "answered"  # a renewal that failed: what was known stays
    _close_call(connection, done, now, lease.reserved if was == "sent" else None)
    gate = verdict.gate or (done.error.gate if done.error else "")
    fault = verdict.fault or (str(done.error) if done.error else "")
    if done.keep is not None:
        gate = fault = ""
        _store_answer(connection, done, now)
    if was == "lost" and _is_sent(connection, lease.key):
        return  # another run has the prompt by now; what it gets is what counts
    is_finished = state != "planned"
    # a server's fault on the way to a better answer leaves what was wrong with the last one
    stands = not is_finished and done.error is not None and not gate
    connection.execute(
        "UPDATE prompts SET state = ?, gate = CASE WHEN ? THEN gate ELSE ? END,"
        " fault = CASE WHEN ? THEN fault ELSE ? END, draft = ?, updated = ?,"
        " mends = mends + ?,"
        " coverage = CASE WHEN ? OR answer IS NULL THEN COALESCE(?, coverage) ELSE coverage END,"
        " renewed = CASE WHEN ? THEN ? ELSE renewed END,"
        " run = CASE WHEN ? THEN NULL ELSE run END WHERE key = ?",
        (
            state,
            stands,
            gate,
            stands,
            fault,
            "" if is_finished else done.draft,
            now,
            int(bool(gate)),
            done.keep is not None,
            verdict.coverage,
            is_renewal and done.state == "quarantined",  # as often as not, it would fail again
            now,
            is_finished,
            lease.key,
        ),
    )


def mark_lost(
    connection: sqlite3.Connection, where: str, values: tuple[object, ...], now: str
) -> int:
    """Close open calls without a reply: they count as their worst case.

    Returns:
        How many there were.
    """
    rows = connection.execute(
        "SELECT id, key, run, reserved_tokens, reserved_cost FROM calls"
        f" WHERE state = 'sent' AND {where}",
        values,
    ).fetchall()
    for call, key, run, tokens, cost in rows:
        connection.execute(
            "UPDATE calls SET state = 'lost', counted = 1, presumed = 1, prompt_tokens = ?,"
            " cost = ?, reserved_tokens = 0, reserved_cost = 0, ended = ? WHERE id = ?",
            (tokens, cost, now, call),
        )
        _release_reservation(connection, call, Spent(1, tokens, cost))
        connection.execute(
            "UPDATE runs SET calls = calls + 1, prompt_tokens = prompt_tokens + ?,"
            " cost = cost + ?, presumed_cost = presumed_cost + ? WHERE id = ?",
            (tokens, cost, cost, run),
        )
        state = "answered" if _has_answer(connection, key) else "planned"
        connection.execute(
            "UPDATE prompts SET state = ?, run = NULL WHERE key = ? AND state = 'sent'",
            (state, key),
        )
    return len(rows)


def _store_answer(connection: sqlite3.Connection, done: CallOutcome, now: str) -> None:
    key, answer = done.lease.key, done.answer
    connection.execute(
        "UPDATE prompts SET answer = ?, answered = ?, renewed = NULL,"
        " model = COALESCE(?, model), finish_reason = ? WHERE key = ?",
        (done.keep, now, answer and answer.model, answer.finish_reason if answer else "stop", key),
    )
    connection.execute("DELETE FROM bands WHERE key = ?", (key,))
    connection.executemany(
        "INSERT OR IGNORE INTO bands (band, key) VALUES (?, ?)",
        [(band, key) for band in done.verdict.bands],
    )


def _close_call(
    connection: sqlite3.Connection, done: CallOutcome, now: str, reserved: Spent | None
) -> None:
    answer, error, spent = done.answer, done.error, done.spent
    failed = done.verdict if done.verdict.gate else done.review
    # what became the prompt's answer is not written twice
    words = answer.text if answer is not None and done.keep != answer.text else None
    connection.execute(
        "UPDATE calls SET state = ?, gate = ?, model = ?, finish_reason = ?, status = ?,"
        " counted = ?, presumed = ?, prompt_tokens = ?, completion_tokens = ?, cost = ?,"
        " reserved_tokens = 0, reserved_cost = 0, latency_s = ?, ended = ?, error = ?, text = ?"
        " WHERE id = ?",
        (
            "answered" if answer is not None else "failed",
            failed.gate or (error.gate if error else ""),
            answer and answer.model,
            answer.finish_reason if answer else error.finish_reason if error else "",
            200 if answer else error.status if error else None,
            spent.calls,
            int(done.is_presumed),
            done.prompt_tokens,
            spent.tokens - done.prompt_tokens,
            spent.cost,
            answer and answer.latency_s,
            now,
            failed.fault or (str(error) if error else None),
            words,
            done.lease.call,
        ),
    )
    if reserved is not None:
        _release_reservation(connection, done.lease.call, reserved)
    connection.execute(
        "UPDATE runs SET calls = calls + ?, prompt_tokens = prompt_tokens + ?,"
        " completion_tokens = completion_tokens + ?, cost = cost + ?,"
        " presumed_cost = presumed_cost + ? WHERE id = (SELECT run FROM calls WHERE id = ?)",
        (
            spent.calls,
            done.prompt_tokens,
            spent.tokens - done.prompt_tokens,
            spent.cost,
            spent.cost if done.is_presumed else 0.0,
            done.lease.call,
        ),
    )


def _release_reservation(connection: sqlite3.Connection, call: int, reserved: Spent) -> None:
    connection.execute(
        "UPDATE runs SET reserved_calls = reserved_calls - 1, reserved_tokens ="
        " reserved_tokens - ?, reserved_cost = MAX(0, reserved_cost - ?)"
        " WHERE id = (SELECT run FROM calls WHERE id = ?)",
        (reserved.tokens, reserved.cost, call),
    )


def _recover(connection: sqlite3.Connection, found: Lease) -> None:
    """Revert the presumed cost of a lost call that has a reply after all."""
    connection.execute(
        "UPDATE runs SET calls = calls - 1, prompt_tokens = prompt_tokens - ?, cost = cost - ?,"
        " presumed_cost = presumed_cost - ? WHERE id = (SELECT run FROM calls WHERE id = ?)",
        (found.reserved.tokens, found.reserved.cost, found.reserved.cost, found.call),
    )


def _is_sent(connection: sqlite3.Connection, key: str) -> bool:
    query = "SELECT 1 FROM calls WHERE key = ? AND state = 'sent'"
    return connection.execute(query, (key,)).fetchone() is not None


def _has_answer(connection: sqlite3.Connection, key: str) -> bool:
    row = connection.execute(
        "SELECT answer IS NOT NULL FROM prompts WHERE key = ?", (key,)
    ).fetchone()
    return bool(row and row[0])
