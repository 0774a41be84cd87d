"""The ledger: durable, told when its folder or disk is at fault, repeating nothing."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, EchoLLM, Ledger, RequestPolicy, ask_all
from reki_feast.llm.interface import call_key
from reki_feast.llm.ledger import invariants, reports
from reki_feast.llm.ledger.answers import ANSWERS
from tests.llm.entering import (
    AS_OF,
    LLM,
    begin,
    failed,
    good,
    key_of,
    leased,
    prompts,
    record,
    request,
    requests,
    settle,
)

LATER = datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
ANSWER = Answer("text \U0001f600", "m", "stop")
SPARE = 4 << 20


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as opened:
        yield opened


# --- what is recorded stays -----------------------------------------------------------------


def test_an_answer_is_there_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "deep er" / "ledger.sqlite"
    with Ledger(path, clock=lambda: LATER) as ledger:
        settle(ledger, good(leased(ledger, begin(ledger)), ANSWER, coverage=0.5))
    with Ledger(path) as ledger:
        assert ledger.answered(key_of(request())) == ANSWER
        asked = prompts(request(), request(), request(1))
        assert ledger.answers(asked, LLM).to_pylist() == [
            {
                "prompt_hash": request().prompt_hash,
                "text": "text \U0001f600",
                "model": "m",
                "coverage": 0.5,
                "created_timestamp": LATER,
            }
        ]


def test_it_is_on_disk_when_recorded(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        record(ledger, begin(ledger), request(), ANSWER)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT state, owner FROM prompts").fetchall() == [
                ("answered", "0")
            ]


def test_no_answers_is_an_empty_table(ledger: Ledger) -> None:
    table = ledger.answers(prompts(request()), LLM)
    assert table.num_rows == 0
    assert table.schema == ANSWERS


def test_answers_of_many_prompts(ledger: Ledger) -> None:
    identity, asked = begin(ledger), [request(n) for n in range(1203)]
    won = [leased(ledger, identity, one) for one in asked[::2]]
    for one in won:
        settle(ledger, good(one, ANSWER))
    assert ledger.answers(prompts(*asked), LLM).num_rows == 602
    assert len(ledger.known([key_of(one) for one in asked])) == 602
    waiting = ledger.unanswered(prompts(*asked, asked[1]), LLM)
    assert waiting["owner"].to_pylist() == [one.owner for one in asked[1::2]]


def test_another_model_or_parameters_is_another_prompt(ledger: Ledger) -> None:
    record(ledger, begin(ledger), request(), ANSWER)
    assert ledger.answers(prompts(request()), EchoLLM(name="other")).num_rows == 0
    assert ledger.answered(call_key(request().prompt_hash, LLM.name, "other")) is None


def test_a_failure_does_not_count_as_an_answer(ledger: Ledger) -> None:
    settle(ledger, failed(leased(ledger, begin(ledger))))
    assert ledger.answered(key_of(request())) is None
    assert ledger.unanswered(prompts(request()), LLM).num_rows == 1
    assert ledger.known([key_of(request())]) == {key_of(request()): ("failed", None)}


def test_old_answers_are_to_be_asked_for_anew(tmp_path: Path) -> None:
    with Ledger(None, clock=lambda: LATER) as ledger:
        record(ledger, begin(ledger), request(), ANSWER)
        asked = prompts(request())
        assert ledger.unanswered(asked, LLM).num_rows == 0

        def waiting(*old: tuple[str, datetime]) -> int:
            def renew_before(kind: str, as_of: datetime) -> datetime:
                return LATER.replace(microsecond=8) if (kind, as_of) in old else LATER

            return len(ledger.unanswered(asked, LLM, renew_before=renew_before))

        assert waiting() == 0
        assert waiting(("item", AS_OF)) == 1
        assert waiting(("user", AS_OF), ("item", LATER)) == 0
        asked = prompts(request(), request(event_timestamp=LATER))
        assert waiting() == 0
        assert waiting(("item", LATER)) == 1


def test_two_ledgers_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as one, Ledger(path) as two:
        record(one, begin(one, "one"), request(0), ANSWER)
        record(two, begin(two, "two"), request(1), ANSWER)
        assert one.totals().answered == two.totals().answered == 2


def test_all_or_nothing_of_what_is_done_together(ledger: Ledger) -> None:
    identity = begin(ledger)

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE runs SET outcome = 'half'")
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        ledger.do([broken])
    assert ledger.rows("SELECT outcome FROM runs") == [("",)]
    record(ledger, identity, request(), ANSWER)


def test_a_closed_ledger_says_so() -> None:
    ledger = Ledger(None)
    ledger.close()
    ledger.close()
    with pytest.raises(LLMError, match="a closed ledger is not used"):
        ledger.totals()
    with pytest.raises(LLMError, match="a closed ledger is not used"):
        begin(ledger)


# --- folders --------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LLMError, match="make the folder writable"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match="the ledger of answers can be read and written"):
        Ledger(tmp_path)


def test_a_read_only_folder(as_nobody: Path) -> None:
    as_nobody.chmod(0o500)
    with pytest.raises(LLMError, match="Permission denied(.|\n)*make the folder writable"):
        Ledger(as_nobody / "ledger.sqlite")


def test_a_folder_that_became_read_only(as_nobody: Path) -> None:
    path = as_nobody / "ledger.sqlite"
    with Ledger(path) as ledger:
        record(ledger, begin(ledger), request(), ANSWER)
    path.chmod(0o400)
    as_nobody.chmod(0o500)
    with (
        pytest.raises(LLMError, match="make the folder writable"),
        Ledger(path) as again,
    ):
        begin(again, "again")
    as_nobody.chmod(0o700)
    path.chmod(0o600)
    with Ledger(path) as re_prompted:
        assert re_prompted.answered(key_of(request())) == ANSWER


def test_a_ledger_that_became_read_only(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.rows("PRAGMA query_only = 1")
        with pytest.raises(LLMError, match="readonly database(.|\n)*make the folder writable"):
            begin(ledger)


def test_a_ledger_that_another_process_holds_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, closing(sqlite3.connect(path)) as other:
        ledger.rows("PRAGMA busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LLMError, match="another process holds the ledger: wait"):
            begin(ledger)


# --- a full disk ----------------------------------------------------------------------------


def fill(ledger: Ledger) -> int:
    """Answers that found room before the ledger said that there is none."""
    identity, count = begin(ledger), 0

    def fill_up() -> None:
        nonlocal count
        while count < 10_000:
            record(ledger, identity, request(count), replace(ANSWER, text="x" * 20_000))
            count += 1

    with pytest.raises(LLMError, match="disk is full(.|\n)*make room on the disk"):
        fill_up()
    return count


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.rows("PRAGMA max_page_count = 200")
        count = fill(ledger)
        assert count > 10
        assert ledger.totals().answered == count
        assert not path.with_suffix(".spare").exists()
        ledger.rows("PRAGMA max_page_count = 100000")
        record(ledger, begin(ledger, "next"), request(99_999), ANSWER)
    with Ledger(path) as again:
        assert again.totals().answered == count + 1
        assert invariants.violations(again.rows) == []
        assert path.with_suffix(".spare").stat().st_size == SPARE


def test_the_spare_file_makes_room_once(tmp_path: Path) -> None:
    spare = tmp_path / "ledger.spare"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert spare.stat().st_size == SPARE

        def wants_room(connection: sqlite3.Connection) -> str:
            if spare.exists():
                raise sqlite3.OperationalError("database or disk is full")
            return "done"

        assert ledger.do([wants_room]) == ["done"]

        def is_full(connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with pytest.raises(LLMError, match="make room on the disk"):
            ledger.do([is_full])


def test_a_spare_file_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    spare = tmp_path / "ledger.spare"
    spare.write_bytes(b"short")
    Ledger(tmp_path / "ledger.sqlite").close()
    assert spare.stat().st_size == SPARE


def test_no_spare_file_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger(None):
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("this user cannot mount a disk in memory")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    path, filler = small_disk / "ledger.sqlite", small_disk / "filler"
    with Ledger(path) as ledger:
        filler.write_bytes(bytes(3 << 20))
        count = fill(ledger)
        assert not path.with_suffix(".spare").exists()
        assert ledger.totals().answered == count > 40  # beside the spare, room is for some 20
    filler.unlink()
    with Ledger(path) as again:
        assert again.totals().answered == count
        assert again.rows("PRAGMA integrity_check") == [("ok",)]
        assert invariants.violations(again.rows) == []


def test_a_run_on_a_disk_that_is_full_pays_for_nothing_twice(small_disk: Path) -> None:
    path, filler = small_disk / "ledger.sqlite", small_disk / "filler"
    llm = EchoLLM(answer=lambda asked: "x" * 20_000)
    policy = RequestPolicy(concurrency=4)
    with Ledger(path) as ledger:
        filler.write_bytes(bytes(3 << 20))
        with pytest.raises(LLMError, match="disk is full(.|\n)*make room on the disk"):
            ask_all(requests(1_000), llm, ledger, policy=policy)
        kept, sent = ledger.totals().answered, len(llm.asked)
        assert 40 < kept <= sent <= kept + 4  # only what was in flight may be lost
    filler.unlink()
    with Ledger(path) as again:
        report = ask_all(requests(kept + 10), llm, again, policy=policy)
        assert (report.reused, report.asked) == (kept, 10)
        assert len(llm.asked) == sent + 10
        assert invariants.violations(again.rows) == []


# --- what it tells --------------------------------------------------------------------------


def test_every_call_is_exported(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_PAGE", 2)
    identity = begin(ledger)
    settle(ledger, failed(leased(ledger, identity), again=True))
    record(ledger, identity, request(), ANSWER)
    leased(ledger, identity, request(1))
    tables = list(reports.export(ledger.rows))
    assert [table.num_rows for table in tables] == [2, 1]
    assert all(table.schema == reports.CALLS for table in tables)
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
    names = ("attempt", "state", "prompt_state", "status", "answer", "prompt", "presumed")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1, "failed", "answered", 503, None, "prompt 0", False),
        (2, "answered", "answered", 200, ANSWER.text, "prompt 0", False),
        (1, "sent", "sent", None, None, "prompt 1", False),
    ]
    assert rows[2]["ended"] is None


def test_runs_are_told_the_newest_first() -> None:
    times = iter(datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 20))
    with Ledger(None, clock=lambda: next(times)) as ledger:
        one = begin(ledger, "one")
        record(ledger, one, request(), replace(ANSWER, prompt_tokens=30, completion_tokens=4))
        ledger.do([lambda c: c.execute("UPDATE runs SET ended = 'x', outcome = 'done'")])
        begin(ledger, "two")
        told = reports.runs(ledger.rows)
        assert [(run.outcome, run.calls, run.tokens) for run in told] == [
            ("under way or killed", 0, 0),
            ("done", 1, 34),
        ]
        assert reports.runs(ledger.rows, 1) == told[:1]


BREAKS = {
    "a prompt is sent exactly while a call is open": "UPDATE prompts SET state = 'sent'",
    "every call belongs to a prompt": "UPDATE calls SET key = 'x' || key",
    "a call of a forgotten prompt is over, and has no text": (
        "UPDATE calls SET key = '', error = 'x'"
    ),
    "every call belongs to a run": "UPDATE calls SET run = 'x'",
    "attempts are numbered without gaps": "UPDATE calls SET attempt = 3",
    "a closed call reserves nothing": "UPDATE calls SET reserved_cost = 0.5",
    "a run's sums are those of its calls": "UPDATE runs SET reserved_calls = -1",
    "a quarantined prompt says which gate": "UPDATE prompts SET state = 'quarantined'",
    "a finished run holds no prompt outside a batch": (
        "UPDATE prompts SET run = (SELECT id FROM runs); UPDATE runs SET ended = 'x'"
    ),
    "an open call of a batch belongs to an open batch": (
        "UPDATE calls SET state = 'sent', batch = 'b'"
    ),
    "a prompt has one open call at most": (
        "UPDATE calls SET state = 'sent'; INSERT INTO calls (key, run, purpose, attempt, state,"
        " sent) SELECT key, run, purpose, 2, 'sent', sent FROM calls"
    ),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_books_that_do_not_balance_are_told(ledger: Ledger, rule: str) -> None:
    record(ledger, begin(ledger), request(), ANSWER)
    assert invariants.violations(ledger.rows) == []
    for statement in BREAKS[rule].split(";"):
        ledger.do([lambda connection, sql=statement: connection.execute(sql)])  # type: ignore[misc]
    assert any(told.startswith(rule) for told in invariants.violations(ledger.rows))
