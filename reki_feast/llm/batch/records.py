"""Batches in the ledger: their requests, their state, and the outcomes of their calls.

A batch is entered, with its calls, before anything is sent, and each step is entered before the
next one is made: ``written`` (its calls are here, nothing has left), ``uploaded`` (the server has
the file), ``submitted`` (the server works on it), ``collected``. The file itself is made from the
ledger whenever it is wanted. As in :mod:`reki_feast.llm.ledger.runs`, functions that take a
connection work within a transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from reki_feast.errors import LLMError
from reki_feast.llm.budget import Spent
from reki_feast.llm.interface import Answer, Request, RequestError
from reki_feast.llm.ledger import leases, runs
from reki_feast.llm.ledger import outcomes as settlements
from reki_feast.llm.ledger.answers import RunQuery
from reki_feast.llm.ledger.records import CallOutcome, Lease, LeaseDenied, RunIdentity
from reki_feast.llm.policy import request_to_send

BatchState = Literal["written", "uploaded", "submitted", "collected"]
#: What became of a call: an answer; an error of its own (:class:`RequestError`) or of all calls.
LineOutcome = Answer | LLMError

_TEXTS = (
    "p.system, p.prompt, p.factors, p.prompt_hash, p.kind, p.channel, p.owner, p.event_timestamp,"
    " p.facts"
)
_CALLS = (
    "SELECT c.key, c.id, c.reserved_tokens, c.reserved_cost, p.mends, p.gate, p.fault, p.draft,"
    f" {_TEXTS} FROM calls c JOIN prompts p USING (key) WHERE c.batch = ? AND c.state = 'sent'"
)


@dataclass(frozen=True)
class BatchRecord:
    """A batch as the ledger records it.

    Attributes:
        id: the ledger's own name for it; the server is told it too.
        state: how far it is.
        calls: calls that it began with.
        created: when it was entered.
        file: the server's id of the uploaded file.
        remote: the server's id of the batch.
        dialect: how the lines of the uploaded file are written.
        status: what the server last said of it.
    """

    id: str
    state: BatchState
    calls: int
    created: datetime
    file: str = ""
    remote: str = ""
    dialect: str = ""
    status: str = ""


@dataclass(frozen=True)
class BatchFill:
    """The batch to fill, and the room in it.

    Attributes:
        identity: the run.
        batch: the batch's id.
        key_of: the ledger's key of a request.
        worst_case_of: the most that a call for a request can cost.
        size_of: bytes of a request's line.
        max_bytes: bytes of a whole file.
        used_bytes: bytes that it has by now.
        now: the time, as ISO text.
    """

    identity: RunIdentity
    batch: str
    key_of: Callable[[Request], str]
    worst_case_of: Callable[[Request], Spent]
    size_of: Callable[[Request], int]
    max_bytes: int
    used_bytes: int
    now: str


@dataclass
class FillResult:
    """The result of filling a batch.

    Attributes:
        calls: calls that are in it now, of those wanted.
        bytes: bytes that they take.
        refused: requests that are not the run's to send.
        settled: requests that no file can take.
        left: requests that found no room, or no money.
        over: the limit that left no money, or "".
    """

    calls: int = 0
    bytes: int = 0
    refused: list[tuple[Request, LeaseDenied]] = field(default_factory=list)
    settled: list[tuple[Request, CallOutcome]] = field(default_factory=list)
    left: list[Request] = field(default_factory=list)
    over: str = ""


def fill(connection: sqlite3.Connection, how: BatchFill, wanted: Sequence[Request]) -> FillResult:
    """Add requests to a batch, in order, until it is full or the budget is used up."""
    done = FillResult()
    for at, request in enumerate(wanted):
        connection.execute("SAVEPOINT one")
        is_in = _take(connection, how, request, done)
        if not is_in:
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        if not is_in:
            done.left = list(wanted[at:])
            break
    if done.calls:
        connection.execute(
            "INSERT INTO batches (id, run, llm, state, calls, created, updated)"
            " VALUES (?, ?, ?, 'written', ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET calls = calls + excluded.calls",
            (how.batch, how.identity.run, how.identity.llm, done.calls, how.now, how.now),
        )
    return done


def _take(
    connection: sqlite3.Connection, how: BatchFill, request: Request, done: FillResult
) -> bool:
    """Whether a request was dealt with; else nothing of it is to stay."""
    wanted = leases.LeaseRequest(how.key_of(request), request, how.worst_case_of, how.batch)
    lease = leases.acquire(connection, how.identity, wanted, how.now)
    if isinstance(lease, LeaseDenied):
        if lease.why == "over":
            done.over = lease.found
            return False
        done.refused.append((request, lease))
        return True
    size = how.size_of(request_to_send(request, lease))
    if size > how.max_bytes:
        failed = CallOutcome(lease=lease, state="failed", error=_too_large(size, how.max_bytes))
        settlements.record_outcome(connection, failed, how.now)
        done.settled.append((request, failed))
        return True
    if how.used_bytes + done.bytes + size > how.max_bytes:
        return False
    done.calls, done.bytes = done.calls + 1, done.bytes + size
    return True


def _too_large(size: int, most: int) -> RequestError:
    return RequestError(
        "a request fits into the file of a batch",
        detail=f"{size:,} bytes of {most:,}",
        hint="shorten histories or descriptions in the scenario",
    )


def adopt_orphans(
    connection: sqlite3.Connection, identity: RunIdentity, now: str
) -> list[BatchRecord]:
    """Adopt the open batches of this model whose runs have ended."""
    found = connection.execute(
        "SELECT id, state, calls, created, file, remote, style, status, run FROM batches b"
        " WHERE state <> 'collected' AND llm = ? AND EXISTS (SELECT 1 FROM calls c"
        " JOIN prompts p USING (key) WHERE c.batch = b.id AND p.parameters = ?) ORDER BY created",
        (identity.llm, identity.parameters),
    ).fetchall()
    taken = []
    for *columns, run in found:
        if run == identity.run or not runs.is_running(connection, run, now):
            taken.append(_batch(columns))
            _adopt(connection, columns[0], identity.run, now)
    return taken


def abandon_batches(connection: sqlite3.Connection, now: str) -> int:
    """Give up open batches whose runs have ended; returns how many calls they had.

    The calls count as the worst that they can have cost, and their prompts are free.
    """
    found = connection.execute("SELECT id, run FROM batches WHERE state <> 'collected'").fetchall()
    calls = 0
    for batch, run in found:
        if run is None or not runs.is_running(connection, run, now):
            calls += settlements.mark_lost(connection, "batch = ?", (batch,), now)
            connection.execute(
                "UPDATE batches SET state = 'collected', status = 'given up', updated = ?"
                " WHERE id = ?",
                (now, batch),
            )
    return calls


def _adopt(connection: sqlite3.Connection, batch: str, run: str, now: str) -> None:
    connection.execute("UPDATE batches SET run = ?, updated = ? WHERE id = ?", (run, now, batch))
    connection.execute(
        "UPDATE prompts SET run = ? WHERE state = 'sent' AND key IN"
        " (SELECT key FROM calls WHERE batch = ? AND state = 'sent')",
        (run, batch),
    )


def _batch(columns: Sequence[Any]) -> BatchRecord:
    name, state, calls, created, file, remote, dialect, status = columns
    when = datetime.fromisoformat(created)
    return BatchRecord(name, state, calls, when, file or "", remote or "", dialect, status)


def save_batch(connection: sqlite3.Connection, batch: BatchRecord, run: str, now: str) -> bool:
    """Record the state of a batch; False: another run has adopted it, and nothing is recorded."""
    done = connection.execute(
        "UPDATE batches SET state = ?, file = ?, remote = ?, style = ?, status = ?, updated = ?"
        " WHERE id = ? AND run = ? AND state <> 'collected'",
        (batch.state, batch.file, batch.remote, batch.dialect, batch.status, now, batch.id, run),
    )
    return done.rowcount == 1


def open_calls_of(
    rows: RunQuery, batch: str, after: int, limit: int
) -> list[tuple[Lease, Request]]:
    """The open calls of a batch, in their order, some at a time."""
    found = rows(f"{_CALLS} AND c.id > ? ORDER BY c.id LIMIT ?", (batch, after, limit))
    return list(map(_call, found))


def record_outcomes(
    connection: sqlite3.Connection,
    batch: str,
    outcomes: Mapping[int, LineOutcome],
    decide: Callable[[Request, Lease, LineOutcome], CallOutcome],
    now: str,
) -> list[tuple[Request, CallOutcome]]:
    """Record the outcomes of calls; closed calls are skipped.

    Each outcome is decided after the one before it is recorded, so that gates can compare answers.
    """
    marks = ",".join("?" * len(outcomes))
    query = f"{_CALLS} AND c.id IN ({marks}) ORDER BY c.id"
    found = connection.execute(query, (batch, *outcomes)).fetchall()
    settled = []
    for lease, request in map(_call, found):
        done = decide(request, lease, outcomes[lease.call])
        settlements.record_outcome(connection, done, now)
        settled.append((request, done))
    return settled


def load_requests(rows: RunQuery, keys: Sequence[str]) -> Iterator[Request]:
    """Prompts in the ledger, as they were last asked, in no order.

    An answer older than the last call is outdated.
    """
    marks = ",".join("?" * len(keys))
    sent = "(SELECT MAX(sent) FROM calls c WHERE c.key = p.key)"
    found = rows(f"SELECT {sent}, {_TEXTS} FROM prompts p WHERE key IN ({marks})", keys)
    for last, *texts in found:
        yield replace(_request(texts), renew_before=datetime.fromisoformat(last))


def count_open_calls(rows: RunQuery, names: Sequence[str]) -> dict[str, int]:
    """How many calls of these batches are open; one that is collected is left out."""
    marks = ",".join("?" * len(names))
    query = (
        "SELECT id, (SELECT COUNT(*) FROM calls WHERE batch = b.id AND state = 'sent')"
        f" FROM batches b WHERE state <> 'collected' AND id IN ({marks})"
    )
    return dict(rows(query, names))


def _call(row: Sequence[Any]) -> tuple[Lease, Request]:
    key, call, tokens, cost, re_prompts, gate, fault, draft, *texts = row
    # as leases.claim read it: nothing changes this while the call is open
    feedback = fault if gate and re_prompts else ""
    return Lease(key, call, re_prompts, feedback, draft, Spent(1, tokens, cost)), _request(texts)


def _request(row: Sequence[Any]) -> Request:
    system, prompt, factors, prompt_hash, kind, channel, owner, as_of, facts = row
    return Request(
        system=system,
        prompt=prompt,
        factors=tuple(json.loads(factors)),
        prompt_hash=prompt_hash,
        kind=kind,
        channel=channel,
        owner=owner,
        event_timestamp=datetime.fromisoformat(as_of),
        facts=tuple((name, value) for name, value in json.loads(facts)),
    )
