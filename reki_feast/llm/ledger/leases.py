"""Leases: one run at a time may send a prompt, and its call is on disk before it goes out.

So two runs of one project send a prompt once, and the calls of a killed run are known and count
against the budget. Works within a transaction, like :mod:`reki_feast.llm.ledger.runs`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from reki_feast.llm.budget import Spent
from reki_feast.llm.interface import Request
from reki_feast.llm.ledger.answers import answer_time
from reki_feast.llm.ledger.outcomes import mark_lost
from reki_feast.llm.ledger.records import Lease, LeaseDenied, RunIdentity
from reki_feast.llm.ledger.runs import is_running


@dataclass(frozen=True)
class LeaseRequest:
    """A prompt that a run wants to send.

    Attributes:
        key: the prompt's key.
        request: the prompt.
        worst_case_of: the most that a call for a request, as it goes out, can cost.
        batch: the batch that the call goes out in; None: a call of its own.
    """

    key: str
    request: Request
    worst_case_of: Callable[[Request], Spent]
    batch: str | None = None


def acquire(
    connection: sqlite3.Connection,
    identity: RunIdentity,
    wanted: LeaseRequest,
    now: str,
    *,
    is_repeated: bool = False,
) -> Lease | LeaseDenied:
    """Lease a prompt to a run and record the call, or say why it is denied.

    Args:
        connection: within a transaction.
        identity: the run.
        wanted: the prompt.
        now: the time, as ISO text.
        is_repeated: the same was tried before, and nobody knows whether it was done: a call of this
            run that is open is the one.
    """
    key, request = wanted.key, wanted.request
    row = connection.execute(
        f"SELECT state, run, {answer_time(identity.retry_quarantined)}, mends, fault, gate, draft"
        " FROM prompts WHERE key = ?",
        (key,),
    ).fetchone()
    re_prompts, feedback, draft = 0, "", ""
    if row is not None:
        state, run, answered, re_prompts, fault, gate, draft = row
        feedback = fault if gate and re_prompts else ""
        if is_repeated and (known := _open_call(connection, identity.run, key)) is not None:
            call, reserved = known
            return Lease(key, call, re_prompts, feedback, draft, reserved)
        refused = _denial(connection, identity, wanted, (state, run, answered), now)
        if refused is not None:
            return refused
        if state in ("answered", "quarantined"):  # asked anew, from the beginning
            re_prompts, feedback = 0, ""
    worst_case = wanted.worst_case_of(replace(request, feedback=feedback, draft=draft))
    over = _exceeded_limit(connection, identity, worst_case)
    if over:
        return LeaseDenied("over", over)
    _mark_sent(connection, identity, wanted, re_prompts, now)
    purpose = "review" if draft else "mend" if feedback else "ask"
    call = _enter_call(connection, identity.run, wanted, purpose, worst_case, now)
    return Lease(key, call, re_prompts, feedback, draft, worst_case)


def _open_call(connection: sqlite3.Connection, run: str, key: str) -> tuple[int, Spent] | None:
    """The call of a run that is open for a prompt, and what is reserved for it."""
    row = connection.execute(
        "SELECT id, reserved_tokens, reserved_cost FROM calls"
        " WHERE key = ? AND run = ? AND state = 'sent' AND batch IS NULL",
        (key, run),
    ).fetchone()
    return None if row is None else (row[0], Spent(1, row[1], row[2]))


def _denial(
    connection: sqlite3.Connection,
    identity: RunIdentity,
    wanted: LeaseRequest,
    held: tuple[str, str | None, str | None],
    now: str,
) -> LeaseDenied | None:
    key, (state, run, answered) = wanted.key, held
    if answered is not None and not _is_old(answered, wanted.request.renew_before):
        return LeaseDenied("answered")
    if state == "quarantined" and not identity.retry_quarantined:
        return LeaseDenied("quarantined")
    open_call = connection.execute(
        "SELECT batch FROM calls WHERE key = ? AND state = 'sent'", (key,)
    ).fetchone()
    if open_call and open_call[0] is not None:
        return LeaseDenied("in batch", open_call[0])
    if run is None:
        return None
    if run == identity.run:
        return LeaseDenied("held") if open_call else None
    if is_running(connection, run, now):
        return LeaseDenied("held")
    mark_lost(connection, "key = ?", (key,), now)
    return None


def _is_old(answered: str | None, renew_before: datetime | None) -> bool:
    if renew_before is None or answered is None:
        return False
    return datetime.fromisoformat(answered) < renew_before


def _exceeded_limit(
    connection: sqlite3.Connection, identity: RunIdentity, worst_case: Spent
) -> str:
    run_limits, project_limits = identity.limits
    columns = (
        "SELECT COALESCE(SUM(calls + reserved_calls), 0),"
        " COALESCE(SUM(prompt_tokens + completion_tokens + reserved_tokens), 0),"
        " COALESCE(SUM(cost + reserved_cost), 0) FROM runs"
    )
    mine = connection.execute(f"{columns} WHERE id = ?", (identity.run,)).fetchone()
    all_runs = connection.execute(columns).fetchone()
    return run_limits.passed_by(Spent(*mine) + worst_case) or project_limits.passed_by(
        Spent(*all_runs) + worst_case
    )


def _mark_sent(
    connection: sqlite3.Connection,
    identity: RunIdentity,
    wanted: LeaseRequest,
    re_prompts: int,
    now: str,
) -> None:
    request = wanted.request
    connection.execute(
        "INSERT INTO prompts (key, state, prompt_hash, llm, parameters, kind, channel, owner,"
        " event_timestamp, run, created, updated, factors, facts, system, prompt)"
        " VALUES (?, 'sent', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET state = 'sent', run = excluded.run,"
        " updated = excluded.updated, facts = excluded.facts, mends = ?,"
        " event_timestamp = excluded.event_timestamp, prompt = excluded.prompt,"
        " system = excluded.system, factors = excluded.factors",
        (
            wanted.key,
            request.prompt_hash,
            identity.llm,
            identity.parameters,
            request.kind,
            request.channel,
            request.owner,
            request.event_timestamp.isoformat(),
            identity.run,
            now,
            now,
            json.dumps(request.factors, ensure_ascii=False),
            json.dumps(request.facts, ensure_ascii=False),
            request.system,
            request.prompt,
            re_prompts,
        ),
    )


def _enter_call(
    connection: sqlite3.Connection,
    run: str,
    wanted: LeaseRequest,
    purpose: str,
    worst_case: Spent,
    now: str,
) -> int:
    entered = connection.execute(
        "INSERT INTO calls (key, run, batch, purpose, attempt, state, reserved_tokens,"
        " reserved_cost, sent) VALUES (?, ?, ?, ?,"
        " (SELECT COALESCE(MAX(attempt), 0) + 1 FROM calls WHERE key = ?), 'sent', ?, ?, ?)",
        (
            wanted.key,
            run,
            wanted.batch,
            purpose,
            wanted.key,
            worst_case.tokens,
            worst_case.cost,
            now,
        ),
    )
    connection.execute(
        "UPDATE runs SET reserved_calls = reserved_calls + 1, reserved_tokens ="
        " reserved_tokens + ?, reserved_cost = reserved_cost + ? WHERE id = ?",
        (worst_case.tokens, worst_case.cost, run),
    )
    return int(entered.lastrowid or 0)
