"""What is written into the ledger: runs, claims on prompts, and what became of each call.

Every function works on a connection within a transaction that its caller has begun
(:meth:`reki_feast.llm.ledger.Ledger.do`). A claim gives a prompt to one run, so that two runs on
one project send it once; a call is on disk before it goes out, so that a killed run's calls are
known and count against the budget.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from reki_feast.llm.budget import Limits, Spent
from reki_feast.llm.port import Answer, Request, RequestError, Verdict
from reki_feast.llm.processes import is_alive

Purpose = Literal["ask", "mend", "review"]
#: Why a prompt is not the run's to send.
Refused = Literal["answered", "quarantined", "held", "in batch", "over"]


@dataclass(frozen=True)
class Asker:
    """A run, as the ledger needs to know it.

    Attributes:
        run: the run's id.
        llm: name of the model.
        parameters: its parameters.
        limits: what may be spent, by the run and by the project.
        retry_quarantined: ask again what failed a gate.
    """

    run: str
    llm: str
    parameters: str
    limits: tuple[Limits, Limits] = (Limits("the run"), Limits("the project"))
    retry_quarantined: bool = False


@dataclass(frozen=True)
class Claim:
    """The right to send one call.

    Attributes:
        key: the prompt's key.
        call: number of the call.
        mends: answers to this prompt that failed a gate so far.
        remark: what was wrong with the last one.
        draft: an answer to be reviewed.
        reserved: the worst that the call can cost.
    """

    key: str
    call: int
    mends: int = 0
    remark: str = ""
    draft: str = ""
    reserved: Spent = field(default_factory=Spent)

    @property
    def purpose(self) -> Purpose:
        """What the call is for."""
        return "review" if self.draft else "mend" if self.remark else "ask"


@dataclass(frozen=True)
class NoClaim:
    """Why a prompt is not sent; ``found`` says more where there is more to say."""

    why: Refused
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What became of a call, and of its prompt.

    Attributes:
        claim: the call.
        state: the prompt's state now; ``planned``: the run sends it again.
        answer: what the model said, if it did.
        error: what went wrong, if anything did.
        verdict: what the gates say of the answer.
        keep: the text that becomes the prompt's answer; None: nothing does.
        draft: the text that is to be reviewed.
        spent: tokens and money of the call; ``calls`` is 0 for one that was turned away.
        prompt_tokens: the part of the tokens that the question took.
        is_presumed: what was spent is the worst case: no bill came.
    """

    claim: Claim
    state: Literal["planned", "answered", "failed", "quarantined"]
    answer: Answer | None = None
    error: RequestError | None = None
    verdict: Verdict = field(default_factory=Verdict)
    keep: str | None = None
    draft: str = ""
    spent: Spent = field(default_factory=Spent)
    prompt_tokens: int = 0
    is_presumed: bool = False


def begin_run(connection: sqlite3.Connection, asker: Asker, process: str, now: str) -> None:
    """Enter a run."""
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
    """Say that a run lives."""
    connection.execute("UPDATE runs SET seen = ? WHERE id = ?", (now, run))


def end_run(connection: sqlite3.Connection, run: str, outcome: str, now: str) -> None:
    """Close a run: calls whose replies nobody waits for are lost, prompts become free."""
    _lose(connection, "run = ? AND batch IS NULL", (run,), now)
    connection.execute("UPDATE prompts SET run = NULL WHERE run = ? AND state <> 'sent'", (run,))
    connection.execute(
        "UPDATE runs SET ended = ?, seen = ?, outcome = ? WHERE id = ?", (now, now, outcome, run)
    )


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
        "SELECT state, run, answered, mends, fault, gate, draft FROM prompts WHERE key = ?", (key,)
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


def settle(connection: sqlite3.Connection, done: Settlement, now: str) -> None:
    """Enter what became of a call; an answer that counts is never overwritten by a failure.

    A call that was taken for lost and has a reply after all is put right; one that is settled
    already is left alone.
    """
    claim, verdict = done.claim, done.verdict
    was = connection.execute("SELECT state FROM calls WHERE id = ?", (claim.call,)).fetchone()[0]
    if was not in ("sent", "lost"):
        return
    if was == "lost":
        _find(connection, claim)
    state = done.state
    if state != "answered" and _has_answer(connection, claim.key) and state != "planned":
        state = "answered"  # a renewal that failed: what was known stays
    _close_call(connection, done, now, claim.reserved if was == "sent" else None)
    gate = verdict.gate or (done.error.gate if done.error else "")
    fault = verdict.fault or (str(done.error) if done.error else "")
    if done.keep is not None:
        gate = fault = ""
        _keep(connection, done, now)
    if was == "lost" and _is_sent(connection, claim.key):
        return  # another run has the prompt by now; what it gets is what counts
    is_over = state != "planned"
    # a server's fault on the way to a better answer leaves what was wrong with the last one
    stands = not is_over and done.error is not None and not gate
    connection.execute(
        "UPDATE prompts SET state = ?, gate = CASE WHEN ? THEN gate ELSE ? END,"
        " fault = CASE WHEN ? THEN fault ELSE ? END, draft = ?, updated = ?,"
        " mends = mends + ?,"
        " coverage = CASE WHEN ? OR answer IS NULL THEN COALESCE(?, coverage) ELSE coverage END,"
        " run = CASE WHEN ? THEN NULL ELSE run END WHERE key = ?",
        (
            state,
            stands,
            gate,
            stands,
            fault,
            "" if is_over else done.draft,
            now,
            int(bool(gate)),
            done.keep is not None,
            verdict.coverage,
            is_over,
            claim.key,
        ),
    )


def _keep(connection: sqlite3.Connection, done: Settlement, now: str) -> None:
    key, answer = done.claim.key, done.answer
    connection.execute(
        "UPDATE prompts SET answer = ?, answered = ?,"
        " model = COALESCE(?, model), finish_reason = ? WHERE key = ?",
        (done.keep, now, answer and answer.model, answer.finish_reason if answer else "stop", key),
    )
    connection.execute("DELETE FROM bands WHERE key = ?", (key,))
    connection.executemany(
        "INSERT OR IGNORE INTO bands (band, key) VALUES (?, ?)",
        [(band, key) for band in done.verdict.bands],
    )


def release(connection: sqlite3.Connection, lost: Claim, now: str) -> None:
    """Close a call whose reply nobody waits for any more; its prompt is free again."""
    _lose(connection, "id = ?", (lost.call,), now)


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
    _lose(connection, "key = ?", (key,), now)
    return None


def _is_old(answered: str | None, renew_before: datetime | None) -> bool:
    if renew_before is None or answered is None:
        return False
    return datetime.fromisoformat(answered) < renew_before


def lives(connection: sqlite3.Connection, run: str, now: str) -> bool:
    """Whether a run goes on."""
    row = connection.execute(
        "SELECT process, seen, ended FROM runs WHERE id = ?", (run,)
    ).fetchone()
    if row is None or row[2] is not None:
        return False
    return is_alive(row[0], datetime.fromisoformat(row[1]), datetime.fromisoformat(now))


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


def _close_call(
    connection: sqlite3.Connection, done: Settlement, now: str, reserved: Spent | None
) -> None:
    answer, error, spent = done.answer, done.error, done.spent
    words = answer.text if answer is not None and done.keep is None else None
    connection.execute(
        "UPDATE calls SET state = ?, gate = ?, model = ?, finish_reason = ?, status = ?,"
        " counted = ?, presumed = ?, prompt_tokens = ?, completion_tokens = ?, cost = ?,"
        " reserved_tokens = 0, reserved_cost = 0, latency_s = ?, ended = ?, error = ?, text = ?"
        " WHERE id = ?",
        (
            "answered" if answer is not None else "failed",
            done.verdict.gate or (error.gate if error else ""),
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
            done.verdict.fault or (str(error) if error else None),
            words,
            done.claim.call,
        ),
    )
    if reserved is not None:
        _free(connection, done.claim.call, reserved)
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
            done.claim.call,
        ),
    )


def _free(connection: sqlite3.Connection, call: int, reserved: Spent) -> None:
    connection.execute(
        "UPDATE runs SET reserved_calls = reserved_calls - 1, reserved_tokens ="
        " reserved_tokens - ?, reserved_cost = MAX(0, reserved_cost - ?)"
        " WHERE id = (SELECT run FROM calls WHERE id = ?)",
        (reserved.tokens, reserved.cost, call),
    )


def _lose(connection: sqlite3.Connection, where: str, values: tuple[object, ...], now: str) -> None:
    """Close open calls without a reply: they count as the worst that they can have cost."""
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
        _free(connection, call, Spent(1, tokens, cost))
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


def _find(connection: sqlite3.Connection, found: Claim) -> None:
    """Take back what a call counted as that was lost, and has a reply after all."""
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
