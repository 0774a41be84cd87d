"""Batches in the ledger: what is in each, how far it is, and what became of its calls.

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
from reki_feast.llm.ledger import claims, runs, settlements
from reki_feast.llm.ledger.calls import Asker, Claim, NoClaim, Settlement
from reki_feast.llm.ledger.reading import Rows
from reki_feast.llm.port import Answer, Request, RequestError
from reki_feast.llm.terms import to_send

State = Literal["written", "uploaded", "submitted", "collected"]
#: What became of a call: an answer; an error of its own (:class:`RequestError`) or of all calls.
Outcome = Answer | LLMError

_TEXTS = (
    "p.system, p.prompt, p.factors, p.prompt_hash, p.kind, p.channel, p.owner, p.event_timestamp,"
    " p.facts"
)
_CALLS = (
    "SELECT c.key, c.id, c.reserved_tokens, c.reserved_cost, p.mends, p.gate, p.fault, p.draft,"
    f" {_TEXTS} FROM calls c JOIN prompts p USING (key) WHERE c.batch = ? AND c.state = 'sent'"
)


@dataclass(frozen=True)
class Batch:
    """A batch as the ledger knows it.

    Attributes:
        id: the ledger's own name for it; the server is told it too.
        state: how far it is.
        calls: calls that it began with.
        created: when it was entered.
        file: the server's id of the uploaded file.
        remote: the server's id of the batch.
        style: how the lines of the uploaded file are written.
        status: what the server last said of it.
    """

    id: str
    state: State
    calls: int
    created: datetime
    file: str = ""
    remote: str = ""
    style: str = ""
    status: str = ""


@dataclass(frozen=True)
class Filling:
    """Who fills a batch, with what room in it.

    Attributes:
        asker: the run.
        batch: the batch's id.
        key_of: the ledger's key of a request.
        worst_of: the most that a call for a request can cost.
        size_of: bytes of a request's line.
        most_bytes: bytes of a whole file.
        has_bytes: bytes that it has by now.
        now: the time, as ISO text.
    """

    asker: Asker
    batch: str
    key_of: Callable[[Request], str]
    worst_of: Callable[[Request], Spent]
    size_of: Callable[[Request], int]
    most_bytes: int
    has_bytes: int
    now: str


@dataclass
class Filled:
    """What came of filling a batch.

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
    refused: list[tuple[Request, NoClaim]] = field(default_factory=list)
    settled: list[tuple[Request, Settlement]] = field(default_factory=list)
    left: list[Request] = field(default_factory=list)
    over: str = ""


def fill(connection: sqlite3.Connection, how: Filling, wanted: Sequence[Request]) -> Filled:
    """Take requests into a batch, in their order, until one finds no room in it, or no money."""
    done = Filled()
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
            (how.batch, how.asker.run, how.asker.llm, done.calls, how.now, how.now),
        )
    return done


def _take(connection: sqlite3.Connection, how: Filling, request: Request, done: Filled) -> bool:
    """Whether a request was dealt with; else nothing of it is to stay."""
    claim = claims.claim(
        connection, how.asker, how.key_of(request), request, how.worst_of, how.now, how.batch
    )
    if isinstance(claim, NoClaim):
        if claim.why == "over":
            done.over = claim.found
            return False
        done.refused.append((request, claim))
        return True
    size = how.size_of(to_send(request, claim))
    if size > how.most_bytes:
        failed = Settlement(claim=claim, state="failed", error=_too_large(size, how.most_bytes))
        settlements.settle(connection, failed, how.now)
        done.settled.append((request, failed))
        return True
    if how.has_bytes + done.bytes + size > how.most_bytes:
        return False
    done.calls, done.bytes = done.calls + 1, done.bytes + size
    return True


def _too_large(size: int, most: int) -> RequestError:
    return RequestError(
        "a request fits into the file of a batch",
        found=f"{size:,} bytes of {most:,}",
        mend="shorten histories or descriptions in the scenario",
    )


def take_over(connection: sqlite3.Connection, asker: Asker, now: str) -> list[Batch]:
    """Open batches of this model that no other living run looks after: they are this run's now."""
    found = connection.execute(
        "SELECT id, state, calls, created, file, remote, style, status, run FROM batches b"
        " WHERE state <> 'collected' AND llm = ? AND EXISTS (SELECT 1 FROM calls c"
        " JOIN prompts p USING (key) WHERE c.batch = b.id AND p.parameters = ?) ORDER BY created",
        (asker.llm, asker.parameters),
    ).fetchall()
    taken = []
    for *columns, run in found:
        if run == asker.run or not runs.lives(connection, run, now):
            taken.append(_batch(columns))
            _adopt(connection, columns[0], asker.run, now)
    return taken


def give_up(connection: sqlite3.Connection, now: str) -> int:
    """Wait no longer for open batches that no living run looks after; how many calls that were.

    The calls count as the worst that they can have cost, and their prompts are free.
    """
    found = connection.execute("SELECT id, run FROM batches WHERE state <> 'collected'").fetchall()
    calls = 0
    for batch, run in found:
        if run is None or not runs.lives(connection, run, now):
            calls += settlements.lose(connection, "batch = ?", (batch,), now)
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


def _batch(columns: Sequence[Any]) -> Batch:
    name, state, calls, created, file, remote, style, status = columns
    when = datetime.fromisoformat(created)
    return Batch(name, state, calls, when, file or "", remote or "", style, status)


def enter(connection: sqlite3.Connection, batch: Batch, run: str, now: str) -> bool:
    """Enter how far a batch is; False: it is another run's by now, and nothing is entered."""
    done = connection.execute(
        "UPDATE batches SET state = ?, file = ?, remote = ?, style = ?, status = ?, updated = ?"
        " WHERE id = ? AND run = ? AND state <> 'collected'",
        (batch.state, batch.file, batch.remote, batch.style, batch.status, now, batch.id, run),
    )
    return done.rowcount == 1


def calls_of(rows: Rows, batch: str, after: int, limit: int) -> list[tuple[Claim, Request]]:
    """The open calls of a batch, in their order, some at a time."""
    found = rows(f"{_CALLS} AND c.id > ? ORDER BY c.id LIMIT ?", (batch, after, limit))
    return list(map(_call, found))


def settle(
    connection: sqlite3.Connection,
    batch: str,
    outcomes: Mapping[int, Outcome],
    decide: Callable[[Request, Claim, Outcome], Settlement],
    now: str,
) -> list[tuple[Request, Settlement]]:
    """Enter what became of calls; those that are settled already are left alone.

    Each is decided when those before it are entered, so that gates know them.
    """
    marks = ",".join("?" * len(outcomes))
    query = f"{_CALLS} AND c.id IN ({marks}) ORDER BY c.id"
    found = connection.execute(query, (batch, *outcomes)).fetchall()
    settled = []
    for claim, request in map(_call, found):
        done = decide(request, claim, outcomes[claim.call])
        settlements.settle(connection, done, now)
        settled.append((request, done))
    return settled


def requests_of(rows: Rows, keys: Sequence[str]) -> Iterator[Request]:
    """Prompts that the ledger holds, as they were last asked, in no order.

    An answer older than their last call was too old for it, and still is.
    """
    marks = ",".join("?" * len(keys))
    sent = "(SELECT MAX(sent) FROM calls c WHERE c.key = p.key)"
    found = rows(f"SELECT {sent}, {_TEXTS} FROM prompts p WHERE key IN ({marks})", keys)
    for last, *texts in found:
        yield replace(_request(texts), renew_before=datetime.fromisoformat(last))


def open_calls(rows: Rows, names: Sequence[str]) -> dict[str, int]:
    """How many calls of these batches are open; one that is collected is left out."""
    marks = ",".join("?" * len(names))
    query = (
        "SELECT id, (SELECT COUNT(*) FROM calls WHERE batch = b.id AND state = 'sent')"
        f" FROM batches b WHERE state <> 'collected' AND id IN ({marks})"
    )
    return dict(rows(query, names))


def _call(row: Sequence[Any]) -> tuple[Claim, Request]:
    key, call, tokens, cost, mends, gate, fault, draft, *texts = row
    # as claims.claim read it: nothing changes this while the call is open
    remark = fault if gate and mends else ""
    return Claim(key, call, mends, remark, draft, Spent(1, tokens, cost)), _request(texts)


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
