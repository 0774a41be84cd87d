"""The ledger: every answer is on disk before it counts, so that nothing is paid for twice.

SQLite in WAL mode with full synchronisation: a process killed at any time leaves a ledger that
has every answer recorded so far. A call is known by who was asked what (:func:`port.call_key`).
The API key is never written: requests are stored by their hash only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from reki_feast.errors import LLMError
from reki_feast.llm.port import LLM, Answer, Request, RequestError, call_key

#: What :meth:`Ledger.answers` gives back, one row a distinct prompt.
ANSWERS = pa.schema(
    [
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("created_timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

VERSION = 1
#: A row as SQLite gives it.
_Row = tuple[Any, ...]
#: Keys a query; SQLite bounds the variables of one.
_CHUNK = 500
_APPLICATION = 0x52454B49  # "REKI": tells our files from other SQLite files
_CREATE = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY NOT NULL,
    prompt_hash TEXT NOT NULL,
    llm TEXT NOT NULL,
    parameters TEXT NOT NULL,
    kind TEXT NOT NULL,
    channel TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('answered', 'failed')),
    answer TEXT,
    finish_reason TEXT NOT NULL DEFAULT '',
    model TEXT,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    latency_s REAL,
    attempt INTEGER NOT NULL,
    error TEXT,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
)
"""
# Tokens and attempts add up over the runs: they were paid for. An answer is never overwritten.
_RECORD = """
INSERT INTO calls (key, prompt_hash, llm, parameters, kind, channel, owner, state, answer,
    finish_reason, model, prompt_tokens, completion_tokens, latency_s, attempt, error,
    created, updated)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    state = excluded.state, answer = excluded.answer, finish_reason = excluded.finish_reason,
    model = excluded.model, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    latency_s = excluded.latency_s, attempt = attempt + excluded.attempt,
    error = excluded.error, updated = excluded.updated
WHERE calls.state <> 'answered'
"""
_TOTALS = """
SELECT COALESCE(SUM(state = 'answered'), 0), COALESCE(SUM(state = 'failed'), 0),
    COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0) FROM calls
"""


@dataclass(frozen=True)
class Totals:
    """What the ledger holds: calls by state, and the tokens paid for them."""

    answered: int
    failed: int
    prompt_tokens: int
    completion_tokens: int


def utc_now() -> datetime:
    """The wall clock, with its time zone."""
    return datetime.now(timezone.utc)


class Ledger:
    """The calls of a project, in one SQLite file; a context manager that closes it.

    Args:
        path: the file, made when absent (its folder too); None keeps the ledger in memory.
        clock: gives the time that rows bear.

    Raises:
        LLMError: the file cannot be made or written, is not a ledger, or is a newer version's.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._clock = clock
        # One run may use the ledger from a thread of its own (see run.ask_all).
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._mapped():
            self._connection = _connected(path)
            try:
                _prepare(self._connection, self._where)
            except BaseException:
                self.close()
                raise

    def __repr__(self) -> str:
        return f"Ledger({self._where})"

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def answered(self, key: str) -> Answer | None:
        """The answer to a call, or None if there is none yet."""
        columns = "answer, model, finish_reason, prompt_tokens, completion_tokens, latency_s"
        query = f"SELECT {columns}, attempt FROM calls WHERE key = ? AND state = 'answered'"
        rows = self._rows(query, (key,))
        return Answer(*rows[0]) if rows else None

    def record_answer(self, request: Request, llm: LLM, answer: Answer) -> None:
        """Put an answer on disk; when this returns, it survives a kill and a power cut."""
        row = (
            "answered",
            answer.text,
            answer.finish_reason,
            answer.model,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.latency_s,
            answer.attempts,
            None,
        )
        self._record(request, llm, row)

    def record_failure(self, request: Request, llm: LLM, error: RequestError) -> None:
        """Put a failure on disk; a later run asks again."""
        row = (
            "failed",
            None,
            error.finish_reason,
            None,
            error.prompt_tokens,
            error.completion_tokens,
            None,
            error.attempts,
            str(error),
        )
        self._record(request, llm, row)

    def answers(self, prompts: pa.Table, llm: LLM) -> pa.Table:
        """What this model, with these parameters, answered to these prompts.

        Args:
            prompts: a ``schema.PROMPTS`` table; only ``prompt_hash`` is read.
            llm: the model that was asked; nothing is sent to it.

        Returns:
            A table of schema :data:`ANSWERS`, one row a distinct prompt that has an answer.
        """
        columns = (
            "prompt_hash, answer, model, finish_reason, prompt_tokens, completion_tokens, updated"
        )
        rows = list(self._answered_rows(columns, prompts, llm))
        parts = list(zip(*rows, strict=True)) or [() for _ in ANSWERS]
        times = [datetime.fromisoformat(str(at)) for at in parts[-1]]
        return pa.table([*map(list, parts[:-1]), times], schema=ANSWERS)

    def unanswered(self, prompts: pa.Table, llm: LLM) -> pa.Table:
        """The rows, one a distinct prompt, that a run would send now."""
        seen = {row[0] for row in self._answered_rows("prompt_hash", prompts, llm)}
        keep = []
        for row, prompt_hash in enumerate(prompts["prompt_hash"].to_pylist()):
            if prompt_hash not in seen:
                seen.add(prompt_hash)
                keep.append(row)
        return prompts.take(pa.array(keep, pa.int64()))

    def totals(self) -> Totals:
        """Counts by state and tokens paid, over all models."""
        return Totals(*self._rows(_TOTALS, ())[0])

    def failures(self, limit: int = 10) -> list[tuple[str, str, str]]:
        """The latest failures as (kind, owner, error)."""
        query = "SELECT kind, owner, error FROM calls WHERE state = 'failed'"
        rows = self._rows(f"{query} ORDER BY updated DESC, key LIMIT ?", (limit,))
        return [(kind, owner, error) for kind, owner, error in rows]

    @property
    def _where(self) -> str:
        return "memory" if self._path is None else str(self._path)

    def _record(self, request: Request, llm: LLM, row: tuple[object, ...]) -> None:
        key = call_key(request.prompt_hash, llm.name, llm.parameters)
        now = self._clock().isoformat()
        who = (key, request.prompt_hash, llm.name, llm.parameters)
        what = (request.kind, request.channel, request.owner)
        with self._mapped(), self._lock, self._open() as connection:
            connection.execute(_RECORD, (*who, *what, *row, now, now))

    def _answered_rows(self, columns: str, prompts: pa.Table, llm: LLM) -> Iterator[_Row]:
        hashes = dict.fromkeys(prompts["prompt_hash"].to_pylist())
        keys = [call_key(prompt_hash, llm.name, llm.parameters) for prompt_hash in hashes]
        for start in range(0, len(keys), _CHUNK):
            some = tuple(keys[start : start + _CHUNK])
            where = f"state = 'answered' AND key IN ({','.join('?' * len(some))})"
            yield from self._rows(f"SELECT {columns} FROM calls WHERE {where}", some)

    def _rows(self, query: str, values: tuple[object, ...]) -> list[_Row]:
        with self._mapped(), self._lock:
            return self._open().execute(query, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LLMError("a closed ledger is not used", found=self._where, mend="open it again")
        return self._connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LLMError(
                "the ledger of answers can be read and written",
                found=f"{self._where}: {error}",
                mend=_mend(error),
            ) from error


def _connected(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    name = ":memory:" if path is None else str(path)
    return sqlite3.connect(name, timeout=30.0, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, where: str) -> None:
    # Tables first: where another process makes the ledger just now, its tables and its id come in
    # one step, so that whoever sees the tables sees the id afterwards.
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION and (application or tables):
        raise LLMError(
            "the ledger is a file that reki-feast made",
            found=f"{where} is a SQLite file of something else",
            mend="name another file, or move that one away",
        )
    if version > VERSION:
        raise LLMError(
            f"the ledger's version is at most {VERSION}",
            found=f"{where} has version {version}",
            mend="upgrade reki-feast: pip install -U reki-feast",
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if not version:
        # IF NOT EXISTS and the lock of the file: two processes may start on one project at once.
        connection.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION};"
            f" PRAGMA user_version = {VERSION}; {_CREATE}; COMMIT;"
        )


def _mend(error: sqlite3.Error | OSError) -> str:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return "the file is damaged: move it away, or put a backup in its place, and run again"
    if "full" in text:
        return "make room on the disk and run again; what was recorded is kept"
    if "locked" in text:
        return "another process holds the ledger: wait for it to end and run again"
    return "make the folder writable for this user, or name another project folder"
