"""The ledger's SQLite schema: created, checked, migrated."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from reki_feast.errors import LLMError
from reki_feast.permissions import OWNER, Rights, make_file

VERSION = 3
#: What to do about a file that is not what was written.
DAMAGED_HINT = "the file is damaged: move it away, or put a backup in its place, and run again"
#: How SQLite tells of that.
_DAMAGES = ("not a database", "malformed", "no such table", "no such column", "decode to UTF-8")
_APPLICATION = 0x52454B49  # "REKI": tells our files from other SQLite files

# A prompt, as asked of one model under certain parameters, and what became of it; renewed: when an
# answer newer than the one kept last failed a gate. Long texts come last, so that a look at the
# other columns need not step over them.
_PROMPTS = """
CREATE TABLE prompts (
    key TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('planned', 'sent', 'answered', 'failed', 'quarantined')),
    prompt_hash TEXT NOT NULL,
    llm TEXT NOT NULL,
    parameters TEXT NOT NULL,
    kind TEXT NOT NULL,
    channel TEXT NOT NULL,
    owner TEXT NOT NULL,
    event_timestamp TEXT,
    run TEXT,
    mends INTEGER NOT NULL DEFAULT 0,
    gate TEXT NOT NULL DEFAULT '',
    fault TEXT NOT NULL DEFAULT '',
    coverage REAL,
    model TEXT,
    finish_reason TEXT NOT NULL DEFAULT '',
    answered TEXT,
    renewed TEXT,
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    factors TEXT NOT NULL DEFAULT '[]',
    facts TEXT NOT NULL DEFAULT '[]',
    system TEXT NOT NULL DEFAULT '',
    prompt TEXT NOT NULL DEFAULT '',
    draft TEXT NOT NULL DEFAULT '',
    answer TEXT,
    CHECK (state <> 'answered' OR answer IS NOT NULL)
);
CREATE INDEX held_prompts ON prompts (run) WHERE run IS NOT NULL
"""
# Everything that went out. What is reserved is the worst that an open call can cost; presumed
# figures stand for replies that never came.
_CALLS = """
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    batch TEXT,
    purpose TEXT NOT NULL CHECK (purpose IN ('ask', 'mend', 'review')),
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed', 'lost')),
    gate TEXT NOT NULL DEFAULT '',
    model TEXT,
    finish_reason TEXT NOT NULL DEFAULT '',
    status INTEGER,
    counted INTEGER NOT NULL DEFAULT 0,
    presumed INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cost REAL NOT NULL DEFAULT 0,
    reserved_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_cost REAL NOT NULL DEFAULT 0,
    latency_s REAL,
    sent TEXT NOT NULL,
    ended TEXT,
    error TEXT,
    text TEXT
);
CREATE INDEX calls_of_prompt ON calls (key);
CREATE INDEX open_calls ON calls (run) WHERE state = 'sent';
CREATE INDEX calls_of_batch ON calls (batch) WHERE batch IS NOT NULL
"""
_RUNS = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY NOT NULL,
    process TEXT NOT NULL,
    llm TEXT NOT NULL,
    began TEXT NOT NULL,
    seen TEXT NOT NULL,
    ended TEXT,
    outcome TEXT NOT NULL DEFAULT '',
    planned_calls INTEGER,
    planned_tokens INTEGER,
    planned_cost REAL,
    calls INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cost REAL NOT NULL DEFAULT 0,
    presumed_cost REAL NOT NULL DEFAULT 0,
    reserved_calls INTEGER NOT NULL DEFAULT 0,
    reserved_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_cost REAL NOT NULL DEFAULT 0
)
"""
_BATCHES = """
CREATE TABLE batches (
    id TEXT PRIMARY KEY NOT NULL,
    run TEXT,
    llm TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('written', 'uploaded', 'submitted', 'collected')),
    file TEXT,
    remote TEXT,
    style TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT '',
    calls INTEGER NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
)
"""
_BANDS = "CREATE TABLE bands (band INTEGER, key TEXT, PRIMARY KEY (band, key)) WITHOUT ROWID"
_TABLES = (_PROMPTS, _CALLS, _RUNS, _BATCHES, _BANDS)

# Version 1 had one table, a row a prompt, without the texts of prompts and without prices.
_FROM_1 = """
ALTER TABLE calls RENAME TO old;
{tables};
INSERT INTO prompts (key, state, prompt_hash, llm, parameters, kind, channel, owner, fault, model,
    finish_reason, answered, created, updated, answer)
SELECT key, state, prompt_hash, llm, parameters, kind, channel, owner, COALESCE(error, ''), model,
    finish_reason, CASE state WHEN 'answered' THEN updated END, created, updated, answer FROM old;
INSERT INTO calls (key, run, purpose, attempt, state, model, finish_reason, counted, prompt_tokens,
    completion_tokens, latency_s, sent, ended, error)
SELECT key, 'version 1', 'ask', attempt, state, model, finish_reason,
    prompt_tokens + completion_tokens > 0, prompt_tokens, completion_tokens, latency_s, created,
    updated, error FROM old;
INSERT INTO runs (id, process, llm, began, seen, ended, outcome, calls, prompt_tokens,
    completion_tokens)
SELECT 'version 1', '', llm, MIN(created), MAX(updated), MAX(updated), 'done',
    SUM(prompt_tokens + completion_tokens > 0), SUM(prompt_tokens), SUM(completion_tokens)
FROM old GROUP BY NULL;
DROP TABLE old
"""
# Version 2 did not know of renewals that failed. A column that is added would come after the texts.
_COLUMNS_2 = (
    "key, state, prompt_hash, llm, parameters, kind, channel, owner, event_timestamp, run, mends,"
    " gate, fault, coverage, model, finish_reason, answered, created, updated, factors, facts,"
    " system, prompt, draft, answer"
)
_FROM_2 = """
DROP INDEX held_prompts;
ALTER TABLE prompts RENAME TO old;
{prompts};
INSERT INTO prompts ({columns}) SELECT {columns} FROM old;
DROP TABLE old
"""


def open_database(path: Path | None, rights: Rights = OWNER) -> sqlite3.Connection:
    """A connection whose transactions begin when told to; None: a ledger in memory."""
    if path is not None:
        make_file(path, rights)  # SQLite gives its mode to the files beside it
    return connect(":memory:" if path is None else str(path))


def connect(
    name: str, *, kind: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """A connection for all threads, to a file or a ``file:`` URI."""
    return sqlite3.connect(
        name,
        timeout=30.0,
        check_same_thread=False,
        isolation_level=None,
        factory=kind,
        uri=name.startswith("file:"),
    )


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Make the tables of an empty file, bring those of an older version up to date.

    Raises:
        LLMError: the file is something else, or a newer version's.
    """
    version = version_of(connection, where)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if version < VERSION:
        _upgrade(connection)


def version_of(connection: sqlite3.Connection, where: str) -> int:
    """The version of a ledger; 0 of an empty file.

    Raises:
        LLMError: the file is something else, or a newer version's.
    """
    # Tables first: where another process makes the ledger just now, its tables and its id come in
    # one step, so that whoever sees the tables sees the id afterwards.
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != _APPLICATION and (application or tables):
        raise LLMError(
            "the ledger is a file that reki-feast made",
            detail=f"{where} is a SQLite file of something else",
            hint="name another file, or move that one away",
        )
    version = _version(connection)
    if version > VERSION:
        raise LLMError(
            f"the ledger's version is at most {VERSION}",
            detail=f"{where} has version {version}",
            hint="upgrade reki-feast: pip install -U reki-feast",
        )
    return version


def _upgrade(connection: sqlite3.Connection) -> None:
    # The lock of the file first: two processes may start on one project at once.
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version < VERSION:
            for statement in _script(version).split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _script(version: int) -> str:
    """Statements that make this version of an older one; 0: of an empty file."""
    made = "; ".join(_TABLES)
    older = {
        0: made,
        1: _FROM_1.format(tables=made),
        2: _FROM_2.format(prompts=_PROMPTS, columns=_COLUMNS_2),
    }
    return older[version]


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def hint_for(error: sqlite3.Error | OSError | UnicodeDecodeError) -> str:
    """What to do about an error of the file."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError) or any(said in text for said in _DAMAGES):
        return DAMAGED_HINT
    if "full" in text:
        return "make room on the disk and run again; what was recorded is kept"
    if "locked" in text:
        return "another process holds the ledger: wait for it to end and run again"
    return (
        "make the folder writable for this user (readable, to look only), or name another project"
    )
