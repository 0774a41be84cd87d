"""The ledger's file: foreign ones are left alone, older ones brought up to date, nothing lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, EchoLLM, Ledger, ask_all
from reki_feast.llm.ledger import invariants, reports
from reki_feast.llm.ledger.database import VERSION, hint_for, migrate, open_database
from reki_feast.llm.ledger.reports import Totals
from tests.llm.entering import LLM, begin, good, key_of, leased, prompts, record, request, settle

OURS = 0x52454B49
#: As version 1 made it.
CREATE_1 = """
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
COLUMNS_1 = (
    "key, prompt_hash, llm, parameters, kind, channel, owner, state, answer, finish_reason, model,"
    " prompt_tokens, completion_tokens, latency_s, attempt, error, created, updated"
)
BEGAN, ENDED = "2026-01-01T00:00:00.000001+00:00", "2026-01-02T03:04:05.000006+00:00"

#: What became of a prompt in version 1: answer, finish_reason, model, tokens of question and
#: answer, latency_s, attempt, error.
Told = tuple[str | None, str, str | None, int, int, float | None, int, str | None]
ANSWERED: Told = ("text \U0001f600; a ' quote", "stop", "m-1", 30, 4, 0.5, 3, None)
UNCOUNTED: Told = ("text", "stop", "m-1", 0, 0, 0.25, 1, None)
CUT: Told = (None, "length", None, 9, 7, None, 1, "the answer is whole\n  detail: it was cut")
REFUSED: Told = (None, "", None, 0, 0, None, 8, "the server answers the call")


def rows_1(*told: Told) -> list[tuple[Any, ...]]:
    """Rows of version 1, one a prompt."""
    rows = []
    for n, (answer, *more) in enumerate(told):
        asked = request(n)
        who = (key_of(asked), asked.prompt_hash, LLM.name, LLM.parameters)
        state = "failed" if answer is None else "answered"
        what = (asked.kind, asked.channel, asked.owner, state, answer)
        rows.append((*who, *what, *more, BEGAN, ENDED))
    return rows


def version_1(path: Path, *told: Told) -> list[tuple[Any, ...]]:
    """A ledger as version 1 left it."""
    rows = rows_1(*told)
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(
            f"BEGIN; PRAGMA application_id = {OURS}; PRAGMA user_version = 1; {CREATE_1}; COMMIT;"
        )
        marks = ", ".join("?" * 18)
        old.executemany(f"INSERT INTO calls ({COLUMNS_1}) VALUES ({marks})", rows)
        old.commit()
    return rows


def poll(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as other:
        return other.execute(query).fetchall()


def shape(path: Path) -> set[tuple[str, str]]:
    return set(poll(path, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


# --- a new file -----------------------------------------------------------------------------


def test_a_new_file_is_marked_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "deep er" / "ledger.sqlite"
    Ledger(path).close()
    assert poll(path, "PRAGMA user_version") == [(VERSION,)]
    assert poll(path, "PRAGMA application_id") == [(OURS,)]
    assert poll(path, "PRAGMA journal_mode") == [("wal",)]
    names = [name for name, _ in poll(path, "SELECT name, 1 FROM sqlite_master WHERE sql <> ''")]
    assert {"prompts", "calls", "runs", "batches", "bands"} < set(names)


def test_every_commit_is_synchronised(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.rows("PRAGMA synchronous") == [(2,)]


class Raced(sqlite3.Connection):
    """Another process does the same just before this one says ``at``."""

    at = ""
    other: Callable[[], object] = staticmethod(lambda: None)
    was_raced = False

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        if sql.startswith(type(self).at) and not self.was_raced:
            self.was_raced = True
            type(self).other()
        return super().execute(sql, *more)


@pytest.mark.parametrize("at", ["PRAGMA application_id", "PRAGMA user_version", "BEGIN IMMEDIATE"])
@pytest.mark.parametrize("told", [(), (ANSWERED, CUT)], ids=["made", "brought up"])
def test_another_process_does_the_same_at_the_same_moment(
    tmp_path: Path, at: str, told: tuple[Told, ...]
) -> None:
    path, here = tmp_path / "ledger.sqlite", at
    if told:
        version_1(path, *told)

    class Here(Raced):
        at = here
        other = staticmethod(lambda: Ledger(path).close())

    with closing(sqlite3.connect(path, factory=Here, isolation_level=None)) as connection:
        migrate(connection, str(path))
        assert connection.was_raced
    assert poll(path, "PRAGMA user_version") == [(VERSION,)]
    assert poll(path, "SELECT COUNT(*) FROM prompts") == [(len(told),)]


# --- version 1 ------------------------------------------------------------------------------


def test_nothing_of_version_1_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    rows = version_1(path, ANSWERED, UNCOUNTED, CUT, REFUSED)
    with Ledger(path) as ledger:
        assert invariants.violations(ledger.rows) == []
    together = (
        "SELECT p.key, prompt_hash, llm, parameters, kind, channel, owner, p.state, answer,"
        " c.finish_reason, c.model, prompt_tokens, completion_tokens, latency_s, attempt, error,"
        " created, ended FROM prompts p JOIN calls c USING (key) ORDER BY p.owner"
    )
    assert poll(path, together) == rows
    assert poll(path, "SELECT DISTINCT created, updated FROM prompts") == [(BEGAN, ENDED)]
    assert poll(path, "SELECT began, seen, ended FROM runs") == [(BEGAN, ENDED, ENDED)]
    assert poll(path, "PRAGMA user_version") == [(VERSION,)]


def test_totals_of_version_1_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(path, ANSWERED, UNCOUNTED, CUT, REFUSED)
    expected = Totals(answered=2, failed=2, calls=2, prompt_tokens=39, completion_tokens=11)
    with Ledger(path) as ledger:
        assert ledger.totals() == expected
        assert reports.failures(ledger.rows) == [
            ("failed", "item", owner, told[-1])
            for key, owner, told in sorted(
                (key_of(request(n)), str(n), told) for n, told in ((2, CUT), (3, REFUSED))
            )
        ]
    with Ledger(path) as again:
        assert again.totals() == expected


def test_answers_of_version_1_are_used_and_failures_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(path, ANSWERED, UNCOUNTED, CUT, REFUSED)
    llm = EchoLLM()
    with Ledger(path) as ledger:
        assert ledger.answered(key_of(request())) == Answer(str(ANSWERED[0]), "m-1", "stop")
        report = ask_all([request(n) for n in range(5)], llm, ledger)
        assert (report.reused, report.asked) == (2, 3)
        assert invariants.violations(ledger.rows) == []
        assert ledger.answers(prompts(*(request(n) for n in range(5))), LLM).num_rows == 5
        assert ledger.totals().prompt_tokens > 39
    assert sorted(asked.owner for asked in llm.asked) == ["2", "3", "4"]


def test_answers_of_version_1_grow_old_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(path, ANSWERED)
    with Ledger(path) as ledger:
        identity, asked = begin(ledger), request(renew_before=ledger._clock())
        settle(ledger, good(leased(ledger, identity, asked), Answer("new", "m-2")))
        assert ledger.answered(key_of(asked)) == Answer("new", "m-2")
        assert invariants.violations(ledger.rows) == []


def test_an_empty_ledger_of_version_1(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(path)
    with Ledger(path) as ledger:
        assert ledger.totals() == Totals()
        assert ledger.rows("SELECT COUNT(*) FROM runs") == [(0,)]
        record(ledger, begin(ledger), request(), Answer("text", "m"))


def test_a_ledger_brought_up_to_date_is_like_a_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    version_1(old, ANSWERED)
    Ledger(old).close()
    Ledger(new).close()
    assert shape(old) == shape(new)


@pytest.mark.parametrize("at", ["ALTER", "CREATE TABLE runs", "INSERT INTO runs", "DROP", "COMMIT"])
def test_a_change_of_version_is_made_whole_or_not_at_all(tmp_path: Path, at: str) -> None:
    path, here = tmp_path / "ledger.sqlite", at
    rows, before = version_1(path, ANSWERED, CUT), shape(path)

    class Stopped(sqlite3.Connection):
        def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
            if sql.strip().startswith(here):
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *more)

    connection = sqlite3.connect(path, factory=Stopped, isolation_level=None)
    with closing(connection), pytest.raises(sqlite3.OperationalError, match="full"):
        migrate(connection, str(path))
    assert poll(path, "PRAGMA user_version") == [(1,)]
    assert shape(path) == before
    assert poll(path, f"SELECT {COLUMNS_1} FROM calls ORDER BY owner") == rows
    with Ledger(path) as ledger:
        assert ledger.totals().answered == 1


# --- version 2 ------------------------------------------------------------------------------


def test_nothing_of_version_2_is_lost(tmp_path: Path) -> None:
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    for path in (old, new):
        with Ledger(path) as ledger:
            identity = begin(ledger)
            record(ledger, identity, request(0), Answer("a text; 'quoted'", "m"))
            leased(ledger, identity, request(1))
    columns = ", ".join(
        name
        for (name,) in poll(old, "SELECT name FROM pragma_table_info('prompts')")
        if name != "renewed"
    )
    rows = poll(old, f"SELECT {columns} FROM prompts ORDER BY key")
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript("ALTER TABLE prompts DROP COLUMN renewed; PRAGMA user_version = 2")
    Ledger(old).close()
    assert poll(old, "PRAGMA user_version") == [(VERSION,)]
    assert poll(old, f"SELECT {columns} FROM prompts ORDER BY key") == rows
    assert shape(old) == shape(new)


TOKENS = st.integers(0, 5_000)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
TOLD = st.tuples(
    st.none() | TEXTS,
    st.sampled_from(["", "stop", "length"]),
    st.none() | st.just("m-1"),
    TOKENS,
    TOKENS,
    st.none() | st.floats(0, 100),
    st.integers(1, 9),
    st.none() | TEXTS,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(TOLD, max_size=6))
def test_any_ledger_of_version_1(told: list[Told]) -> None:
    with closing(open_database(None)) as connection:
        connection.executescript(
            f"PRAGMA application_id = {OURS}; PRAGMA user_version = 1; {CREATE_1}"
        )
        marks = ", ".join("?" * 18)
        connection.executemany(f"INSERT INTO calls VALUES ({marks})", rows_1(*told))
        migrate(connection, "memory")

        def rows(query: str, values: Any) -> list[tuple[Any, ...]]:
            return connection.execute(query, values).fetchall()

        assert invariants.violations(rows) == []
        assert reports.totals(rows) == Totals(
            answered=sum(one[0] is not None for one in told),
            failed=sum(one[0] is None for one in told),
            calls=sum(one[3] + one[4] > 0 for one in told),
            prompt_tokens=sum(one[3] for one in told),
            completion_tokens=sum(one[4] for one in told),
        )
        answers = rows("SELECT answer FROM prompts ORDER BY owner", ())
        assert [row[0] for row in answers] == [one[0] for one in told]


# --- other files ----------------------------------------------------------------------------


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database, but long enough to be one" * 99)
    before = path.read_bytes()
    with pytest.raises(LLMError, match="not a database(.|\n)*move it away"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        identity = begin(ledger)
        for n in range(50):
            record(ledger, identity, request(n), Answer("x" * 500, "m"))
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(LLMError, match="the file is damaged: move it away"), Ledger(path) as bad:
        bad.totals()


@pytest.mark.parametrize("application", [0, 7], ids=["unmarked", "marked"])
def test_a_database_of_something_else_is_left_alone(tmp_path: Path, application: int) -> None:
    path = tmp_path / "theirs.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.executescript(f"PRAGMA application_id = {application}; CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(LLMError, match="a SQLite file of something else"):
        Ledger(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.sqlite"]


def test_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(LLMError, match=f"at most {VERSION}(.|\n)*upgrade reki-feast"):
        Ledger(path)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("file is not a database", "the file is damaged"),
        ("database disk image is malformed", "the file is damaged"),
        ("database or disk is full", "make room on the disk"),
        ("database is locked", "another process holds the ledger"),
        ("attempt to write a readonly database", "make the folder writable"),
        ("unable to open database file", "make the folder writable"),
    ],
)
def test_mends(text: str, mend: str) -> None:
    assert hint_for(sqlite3.OperationalError(text)).startswith(mend)
