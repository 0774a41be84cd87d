"""The ledger: durable, refusing foreign files, repeating nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, EchoLLM, Ledger, Request, RequestError
from reki_feast.llm.ledger import ANSWERS, VERSION, Totals, _prepare
from reki_feast.llm.port import call_key
from reki_feast.schema import PROMPTS

AS_OF = datetime(2026, 1, 1, tzinfo=timezone.utc)
LATER = datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
REQUEST = Request("s", "p", ("genre",), "00", "item", "knowledge", "1", AS_OF)
ANSWER = Answer("text \U0001f600", "m", "stop", 3, 4, 0.5, 2)
LLM = EchoLLM()


def prompts(*hashes: str) -> pa.Table:
    rows = [
        {
            "kind": "item",
            "channel": "knowledge",
            "owner": str(n),
            "grouped": False,
            "system": "s",
            "prompt": "p",
            "factors": ["genre"],
            "prompt_hash": prompt_hash,
            "event_timestamp": AS_OF,
        }
        for n, prompt_hash in enumerate(hashes)
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def key_of(request: Request) -> str:
    return call_key(request.prompt_hash, LLM.name, LLM.parameters)


def test_an_answer_is_there_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "deep er" / "ledger.sqlite"
    with Ledger(path, clock=lambda: LATER) as ledger:
        ledger.record_answer(REQUEST, LLM, ANSWER)
    with Ledger(path) as ledger:
        assert ledger.answered(key_of(REQUEST)) == ANSWER
        assert ledger.answers(prompts("00", "00", "01"), LLM).to_pylist() == [
            {
                "prompt_hash": "00",
                "text": "text \U0001f600",
                "model": "m",
                "finish_reason": "stop",
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "created_timestamp": LATER,
            }
        ]


def test_it_is_on_disk_when_recorded(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.record_answer(REQUEST, LLM, ANSWER)
        other = sqlite3.connect(path)
        assert other.execute("SELECT state, owner, attempt FROM calls").fetchall() == [
            ("answered", "1", 2)
        ]
        assert other.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()


def test_no_answers_is_an_empty_table() -> None:
    with Ledger(None) as ledger:
        table = ledger.answers(prompts("00"), LLM)
    assert table.num_rows == 0
    assert table.schema == ANSWERS


def test_answers_of_many_prompts() -> None:
    hashes = [f"{n:04x}" for n in range(1203)]
    with Ledger(None) as ledger:
        for n in range(0, 1203, 2):
            ledger.record_answer(replace(REQUEST, prompt_hash=hashes[n]), LLM, ANSWER)
        assert ledger.answers(prompts(*hashes), LLM).num_rows == 602
        waiting = ledger.unanswered(prompts(*hashes, hashes[1]), LLM)
    assert waiting["prompt_hash"].to_pylist() == hashes[1::2]


def test_another_model_or_parameters_is_another_call() -> None:
    with Ledger(None) as ledger:
        ledger.record_answer(REQUEST, LLM, ANSWER)
        assert ledger.answers(prompts("00"), EchoLLM(name="other")).num_rows == 0
        assert ledger.answered(call_key("00", LLM.name, "other")) is None


def test_a_failure_is_kept_and_does_not_count_as_an_answer() -> None:
    error = RequestError(
        "the answer is whole", found="cut", attempts=3, finish_reason="length", prompt_tokens=9
    )
    with Ledger(None) as ledger:
        ledger.record_failure(REQUEST, LLM, error)
        assert ledger.answered(key_of(REQUEST)) is None
        assert ledger.failures() == [("item", "1", "the answer is whole\n  found: cut")]
        assert ledger.totals() == Totals(0, 1, 9, 0)


def test_tokens_paid_in_vain_stay_on_the_bill() -> None:
    with Ledger(None) as ledger:
        ledger.record_failure(REQUEST, LLM, RequestError("no", prompt_tokens=9))
        ledger.record_answer(REQUEST, LLM, ANSWER)
        assert ledger.totals() == Totals(1, 0, 12, 4)
        assert ledger.failures() == []


def test_an_answer_is_never_overwritten() -> None:
    with Ledger(None) as ledger:
        ledger.record_answer(REQUEST, LLM, ANSWER)
        ledger.record_failure(REQUEST, LLM, RequestError("no"))
        ledger.record_answer(REQUEST, LLM, replace(ANSWER, text="other"))
        assert ledger.answered(key_of(REQUEST)) == ANSWER


def test_two_ledgers_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as one, Ledger(path) as two:
        one.record_answer(REQUEST, LLM, ANSWER)
        two.record_answer(replace(REQUEST, prompt_hash="01"), LLM, ANSWER)
        assert one.totals().answered == two.totals().answered == 2


def test_a_closed_ledger_says_so() -> None:
    ledger = Ledger(None)
    ledger.close()
    ledger.close()
    with pytest.raises(LLMError, match="a closed ledger is not used"):
        ledger.totals()


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
        for n in range(200):
            request = replace(REQUEST, prompt_hash=f"{n:04x}")
            ledger.record_answer(request, LLM, replace(ANSWER, text="x" * 500))
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(LLMError, match="the file is damaged: move it away"), Ledger(path) as bad:
        bad.totals()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(LLMError, match="a SQLite file of something else"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    with pytest.raises(LLMError, match="upgrade reki-feast"):
        Ledger(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LLMError, match="make the folder writable"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match="the ledger of answers can be read and written"):
        Ledger(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "read only"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(LLMError, match="make the folder writable"):
        Ledger(folder / "ledger.sqlite")


def test_a_ledger_that_became_read_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        blocker = sqlite3.connect(path)
        blocker.execute("PRAGMA query_only = 1")
        ledger._open().execute("PRAGMA query_only = 1")
        with pytest.raises(LLMError, match="readonly database(.|\n)*make the folder writable"):
            ledger.record_answer(REQUEST, LLM, ANSWER)
        blocker.close()


def test_a_ledger_that_another_process_makes_at_the_same_moment_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"

    class Raced(sqlite3.Connection):
        """Another process makes the ledger between this one's first look and its second."""

        looks = 0

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            self.looks += 1
            if self.looks == 2:
                Ledger(path).close()
            return super().execute(*arguments)

    with closing(sqlite3.connect(path, factory=Raced)) as connection:
        _prepare(connection, str(path))
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
