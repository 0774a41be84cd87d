"""Claims: a prompt is given to one run, and its call is on disk before it goes out.

So two runs on one project send a prompt once, and a killed run's calls are known and count
against the budget. Works within a transaction, as :mod:`reki_feast.llm.ledger.runs` does.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from reki_feast.llm.budget import Spent
from reki_feast.llm.ledger.calls import Asker, Claim, NoClaim
from reki_feast.llm.ledger.reading import tried
from reki_feast.llm.ledger.runs import lives
from reki_feast.llm.ledger.settlements import lose
from reki_feast.llm.port import Request


def claim(
    connection: sqlite3.Connection,
    asker: Asker,
    key: str,
    request: Request,
    worst_of: Callable[[Request], Spent],
    now: str,
    batch: str | None = None,
) -> Claim | NoClaim:
    """Take a prompt to send it, and enter the call; or say why not.

    Args:
        connection: within a transaction.
        asker: who wants it.
        key: the prompt's key.
        request: the prompt.
        worst_of: the most that a call for a request, as it goes out, can cost.
        now: the time, as ISO text.
        batch: the batch that the call goes out in.
    """
    row = connection.execute(
        f"SELECT state, run, {tried(asker.retry_quarantined)}, mends, fault, gate, draft"
        " FROM prompts WHERE key = ?",
        (key,),
    ).fetchone()
    mends, remark, draft = 0, "", ""
    if row is not None:
        state, run, answered, mends, fault, gate, draft = row
        refused = _not_free(connection, asker, key, request, (state, run, answered), now)
        if refused is not None:
            return refused
        if state in ("answered", "quarantined"):  # asked anew, from the beginning
            mends = 0
        remark = fault if gate and mends else ""
    worst = worst_of(replace(request, remark=remark, draft=draft))
    over = _over(connection, asker, worst)
    if over:
        return NoClaim("over", over)
    _hold(connection, asker, key, request, mends, now)
    purpose = "review" if draft else "mend" if remark else "ask"
    call = _enter_call(connection, asker.run, key, batch, purpose, worst, now)
    return Claim(key, call, mends, remark, draft, worst)


def _not_free(
    connection: sqlite3.Connection,
    asker: Asker,
    key: str,
    request: Request,
    held: tuple[str, str | None, str | None],
    now: str,
) -> NoClaim | None:
    state, run, answered = held
    if answered is not None and not _is_old(answered, request.renew_before):
        return NoClaim("answered")
    if state == "quarantined" and not asker.retry_quarantined:
        return NoClaim("quarantined")
    open_call = connection.execute(
        "SELECT batch FROM calls WHERE key = ? AND state = 'sent'", (key,)
    ).fetchone()
    if open_call and open_call[0] is not None:
        return NoClaim("in batch", open_call[0])
    if run is None:
        return None
    if run == asker.run:
        return NoClaim("held") if open_call else None
    if lives(connection, run, now):
        return NoClaim("held")
    lose(connection, "key = ?", (key,), now)
    return None


def _is_old(answered: str | None, renew_before: datetime | None) -> bool:
    if renew_before is None or answered is None:
        return False
    return datetime.fromisoformat(answered) < renew_before


def _over(connection: sqlite3.Connection, asker: Asker, worst: Spent) -> str:
    of_run, of_project = asker.limits
    columns = (
        "SELECT COALESCE(SUM(calls + reserved_calls), 0),"
        " COALESCE(SUM(prompt_tokens + completion_tokens + reserved_tokens), 0),"
        " COALESCE(SUM(cost + reserved_cost), 0) FROM runs"
    )
    mine = connection.execute(f"{columns} WHERE id = ?", (asker.run,)).fetchone()
    all_runs = connection.execute(columns).fetchone()
    return of_run.passed_by(Spent(*mine) + worst) or of_project.passed_by(Spent(*all_runs) + worst)


def _hold(
    connection: sqlite3.Connection, asker: Asker, key: str, request: Request, mends: int, now: str
) -> None:
    connection.execute(
        "INSERT INTO prompts (key, state, prompt_hash, llm, parameters, kind, channel, owner,"
        " event_timestamp, run, created, updated, factors, facts, system, prompt)"
        " VALUES (?, 'sent', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET state = 'sent', run = excluded.run,"
        " updated = excluded.updated, facts = excluded.facts, mends = ?,"
        " event_timestamp = excluded.event_timestamp, prompt = excluded.prompt,"
        " system = excluded.system, factors = excluded.factors",
        (
            key,
            request.prompt_hash,
            asker.llm,
            asker.parameters,
            request.kind,
            request.channel,
            request.owner,
            request.event_timestamp.isoformat(),
            asker.run,
            now,
            now,
            json.dumps(request.factors, ensure_ascii=False),
            json.dumps(request.facts, ensure_ascii=False),
            request.system,
            request.prompt,
            mends,
        ),
    )


def _enter_call(
    connection: sqlite3.Connection,
    run: str,
    key: str,
    batch: str | None,
    purpose: str,
    worst: Spent,
    now: str,
) -> int:
    entered = connection.execute(
        "INSERT INTO calls (key, run, batch, purpose, attempt, state, reserved_tokens,"
        " reserved_cost, sent) VALUES (?, ?, ?, ?,"
        " (SELECT COALESCE(MAX(attempt), 0) + 1 FROM calls WHERE key = ?), 'sent', ?, ?, ?)",
        (key, run, batch, purpose, key, worst.tokens, worst.cost, now),
    )
    connection.execute(
        "UPDATE runs SET reserved_calls = reserved_calls + 1, reserved_tokens ="
        " reserved_tokens + ?, reserved_cost = reserved_cost + ? WHERE id = ?",
        (worst.tokens, worst.cost, run),
    )
    return int(entered.lastrowid or 0)
