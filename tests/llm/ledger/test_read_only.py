"""A ledger that is looked at: a backup, a folder of another's, what a kill left in the log."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, Ledger
from reki_feast.llm.ledger import answers as ledger_answers
from reki_feast.llm.ledger import invariants, reports
from reki_feast.llm.ledger.database import VERSION
from tests.llm.entering import begin, key_of, record, request

ANSWER = Answer("text", "m", "stop")


@pytest.fixture
def there(as_nobody: Path) -> Path:
    """An empty folder in one that stays writable."""
    folder = as_nobody / "there"
    folder.mkdir()
    return folder


def filled(folder: Path) -> Path:
    """A ledger of five answers, closed."""
    path = folder / "ledger.sqlite"
    with Ledger(path) as ledger:
        identity = begin(ledger)
        for n in range(5):
            record(ledger, identity, request(n), ANSWER)
    return path


def killed(folder: Path, *beside: str) -> Path:
    """The same, as a kill leaves it: its fifth answer is in the log alone."""
    live = folder.parent / "live"
    live.mkdir()
    with Ledger(live / "ledger.sqlite") as ledger:
        identity = begin(ledger)
        for n in range(4):
            record(ledger, identity, request(n), ANSWER)
        ledger.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        record(ledger, identity, request(4), ANSWER)
        for ending in ("", "-wal", *beside):
            shutil.copyfile(f"{live}/ledger.sqlite{ending}", f"{folder}/ledger.sqlite{ending}")
    return folder / "ledger.sqlite"


def with_index(folder: Path) -> Path:
    return killed(folder, "-shm")


def copied_by_sqlite(folder: Path) -> Path:
    """A backup as `VACUUM INTO` makes it: no log is kept beside it."""
    live = folder.parent / "live"
    live.mkdir()
    with closing(sqlite3.connect(filled(live))) as other:
        other.execute(f"VACUUM INTO '{folder / 'ledger.sqlite'}'")
    return folder / "ledger.sqlite"


def of_version_2(folder: Path) -> Path:
    path = filled(folder)
    with closing(sqlite3.connect(path)) as old:
        old.executescript("ALTER TABLE prompts DROP COLUMN renewed; PRAGMA user_version = 2")
    return path


MAKERS = [filled, killed, with_index, copied_by_sqlite, of_version_2]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Files but for the index of a log, which SQLite may bring up to date."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("-shm")}


@pytest.mark.parametrize("make", MAKERS)
def test_a_read_only_folder_is_read_whole_and_left_alone(
    there: Path, make: Callable[[Path], Path]
) -> None:
    path = make(there)
    before = bytes_of(there)
    for file in there.iterdir():
        file.chmod(0o400)
    there.chmod(0o500)
    with Ledger(path, reading=True) as ledger:
        assert ledger.totals().answered == 5
        assert ledger.answered(key_of(request(4))) == ANSWER
        assert invariants.violations(ledger.rows) == []
        assert sum(table.num_rows for table in reports.export(ledger.rows)) == 5
    there.chmod(0o700)
    assert bytes_of(there) == before


@pytest.mark.parametrize("make", [filled, killed])
def test_what_cannot_be_written_is_not(there: Path, make: Callable[[Path], Path]) -> None:
    path = make(there)
    path.chmod(0o400)
    there.chmod(0o500)
    with Ledger(path, reading=True) as ledger:
        if make is filled:
            with pytest.raises(LLMError, match="readonly database(.|\n)*make the folder writable"):
                begin(ledger, "again")
    there.chmod(0o700)


def test_a_copy_goes_when_it_is_closed(
    there: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = there.parent / "copies"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    path = killed(there)
    there.chmod(0o500)
    with Ledger(path, reading=True) as ledger:
        assert ledger.totals().answered == 5
        assert [oct(folder.stat().st_mode & 0o777) for folder in copies.iterdir()] == ["0o700"]
    assert list(copies.iterdir()) == []
    there.chmod(0o700)


def test_a_folder_that_can_be_written_is_brought_up_to_date(tmp_path: Path) -> None:
    path = of_version_2(tmp_path)
    Ledger(path, reading=True).close()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_an_absent_ledger_is_empty_and_not_made(tmp_path: Path) -> None:
    with Ledger(tmp_path / "none" / "ledger.sqlite", reading=True) as ledger:
        assert ledger.totals() == reports.Totals()
        assert reports.runs(ledger.rows) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_be_read(there: Path) -> None:
    path = filled(there)
    path.chmod(0)
    there.chmod(0o500)
    with pytest.raises(LLMError, match="unable to open(.|\n)*readable, to look only"):
        Ledger(path, reading=True)
    there.chmod(0)
    with pytest.raises(LLMError, match="Permission denied(.|\n)*readable, to look only"):
        Ledger(path, reading=True)


# --- damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("poll", [True, False], ids=["looking", "writing"])
def test_a_ledger_that_lost_all_is_not_begun_anew(tmp_path: Path, poll: bool) -> None:
    path = filled(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(LLMError, match="ledger.sqlite is empty(.|\n)*put a backup in its place"):
        Ledger(path, reading=poll)
    assert path.stat().st_size == 0


@pytest.mark.parametrize("poll", [True, False], ids=["looking", "writing"])
def test_a_folder_in_its_place(tmp_path: Path, poll: bool) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(LLMError, match="ledger.sqlite is a folder(.|\n)*move it away"):
        Ledger(tmp_path / "ledger.sqlite", reading=poll)


def test_a_ledger_whose_making_was_killed_is_made(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    with Ledger(path) as ledger:
        record(ledger, begin(ledger), request(), ANSWER)


@pytest.mark.parametrize("poll", [True, False], ids=["looking", "writing"])
@pytest.mark.parametrize("size", [100, 4096, 20_000])
def test_a_ledger_that_was_cut(tmp_path: Path, size: int, poll: bool) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with (
        pytest.raises(LLMError, match="the file is damaged: move it away"),
        Ledger(path, reading=poll) as ledger,
    ):
        list(reports.export(ledger.rows))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("UPDATE prompts SET state = 'anzwered'", reports.totals),
        ("UPDATE runs SET began = '2026-13-01'", reports.runs),
        ("UPDATE calls SET sent = 'x'", lambda rows: list(reports.export(rows))),
        ("UPDATE calls SET attempt = 'x'", lambda rows: list(reports.export(rows))),
        ("UPDATE prompts SET kind = CAST(x'ff' AS TEXT)", reports.failures),
    ],
)
def test_values_that_the_ledger_never_wrote(
    tmp_path: Path, value: str, read: Callable[[ledger_answers.RunQuery], object]
) -> None:
    path = filled(tmp_path)
    with closing(sqlite3.connect(path)) as other:
        other.executescript(f"PRAGMA ignore_check_constraints = 1; {value}")
        other.execute("UPDATE prompts SET state = 'failed' WHERE kind = CAST(x'ff' AS TEXT)")
        other.commit()
    with Ledger(path) as ledger, pytest.raises(LLMError, match="the file is damaged: move it away"):
        read(ledger.rows)


def test_a_time_that_the_ledger_never_wrote() -> None:
    from datetime import UTC, datetime

    with pytest.raises(LLMError, match="(?s)as they were written.*damaged"):
        ledger_answers.is_settled("answered", "2026-13-01", datetime.now(UTC))


def test_checking_the_books_looks_at_the_pages(tmp_path: Path) -> None:
    path = filled(tmp_path)
    with closing(sqlite3.connect(path)) as other:
        [(root,)] = other.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'calls_of_prompt'"
        )
        [(size,)] = other.execute("PRAGMA page_size")
    raw = bytearray(path.read_bytes())
    begins = (root - 1) * size
    raw[begins + 3 : begins + 5] = (4).to_bytes(2, "big")  # so many entries are in the index
    path.write_bytes(raw)
    with Ledger(path) as ledger:
        broken = invariants.violations(ledger.rows)
    assert broken[0].startswith("the pages of the file are whole: ")
