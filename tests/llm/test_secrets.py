"""The key goes to the server that was named, and is written nowhere: whatever comes back."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Ledger, OpenAILLM, RequestPolicy, RunReport, ask_all, policy
from tests.llm.entering import request, requests
from tests.llm.models import openai_llm

if TYPE_CHECKING:
    from tests.llm.conftest import FakeServer, Reply

#: One that looks like a key, and one that only we know for one.
KEYS = ["sk-proj-abcdefghijklmnop0123456789", "correct/horse+battery=staple"]
#: As servers like to quote it.
STARRED = "sk-proj-abcd****6789"
LOGGERS = ("", "openai", "openai._base_client", "httpx2", "httpx", "httpcore2", "httpcore")


def quoting(key: str) -> str:
    return f"Incorrect API key provided: {key} ({STARRED}), sent as Bearer {key}."


def refusing(status: int, **more: Any) -> Callable[[FakeServer, str], Reply]:
    def reply(server: FakeServer, key: str) -> Reply:
        body = {"error": {"message": quoting(key), **more}}
        return server.reply(status=status, body=body)

    return reply


def plain(server: FakeServer, key: str) -> Reply:
    return server.reply(status=500, body=quoting(key).encode())


def no_choices(server: FakeServer, key: str) -> Reply:
    return server.reply(body={"choices": [], "detail": quoting(key)})


def no_json(server: FakeServer, key: str) -> Reply:
    return server.reply(body=f"{key} {STARRED} is not known".encode())


def refusal(server: FakeServer, key: str) -> Reply:
    return server.completion(message={"content": None, "refusal": quoting(key)})


def cut(server: FakeServer, key: str) -> Reply:
    reply = server.completion(quoting(key) * 20)
    reply.fault = "disconnect"
    return reply


def stalled(server: FakeServer, key: str) -> Reply:
    reply = server.completion(quoting(key) * 20)
    reply.fault = "stall"
    return reply


def answer(server: FakeServer, key: str) -> Reply:
    return server.completion(f'{{"genre": "the key is {key}"}}')


def moved(server: FakeServer, key: str) -> Reply:
    headers = {"Location": "http://127.0.0.1:1/v1"}
    return server.reply(status=307, body={"error": {"message": quoting(key)}}, headers=headers)


WAYS: dict[str, Callable[[FakeServer, str], Reply]] = {
    "400": refusing(400),
    "401": refusing(401),
    "403": refusing(403),
    "404": refusing(404),
    "429": refusing(429),
    "no money": refusing(429, code="insufficient_quota"),
    "500": refusing(500),
    "500 in plain text": plain,
    "no choices": no_choices,
    "no JSON": no_json,
    "refusal": refusal,
    "cut": cut,
    "stalled": stalled,
    "answer": answer,
    "moved": moved,
}


@dataclass
class Seen:
    """All that could be seen of a run."""

    report: RunReport | None = None
    error: BaseException | None = None
    texts: dict[str, str] = field(default_factory=dict)

    def of_error(self, error: BaseException) -> None:
        self.error = error
        lines = traceback.format_exception(error)
        self.texts["traceback"] = "".join(lines)
        self.texts["error"] = f"{error} {error!r} {getattr(error, 'faults', '')!r}"
        self.texts["pickle"] = repr(pickle.dumps(str(error)))


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_ATTEMPTS_THROTTLED", 3)


@pytest.fixture(params=KEYS, ids=["keylike", "not keylike"])
def key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", f" {request.param}\n")
    return str(request.param)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that is logged, however little it matters."""
    for name in LOGGERS:
        caplog.set_level(logging.DEBUG, name)

    def text() -> str:
        assert any(one.name.startswith("openai") for one in caplog.records), "nothing was logged"
        details = [f"{one.msg} {one.args!r} {one.exc_text}" for one in caplog.records]
        return "\n".join([caplog.text, *details])

    return text


def run(url: str, path: Path, **given: Any) -> Seen:
    settings: dict[str, Any] = {"structured": "off", "timeout_s": 0.3, **given}
    llm = openai_llm(model="tiny", base_url=url, **settings)
    how = RequestPolicy(concurrency=2, attempts=2, backoff_s=0.0, re_prompts=1)
    seen, told = Seen(), list[str]()
    with Ledger(path) as ledger:
        try:
            seen.report = ask_all(
                requests(2), llm, ledger, policy=how, progress=lambda r: told.append(repr(r))
            )
        except LLMError as error:
            seen.of_error(error)
        seen.texts["rows"] = "\n".join(
            repr(row)
            for table in ("prompts", "calls", "runs")
            for row in ledger.rows(f"SELECT * FROM {table}")
        )
    seen.texts["report"] = f"{seen.report!r} {told}"
    seen.texts["llm"] = f"{llm!r} {llm} {llm.name} {llm.parameters}"
    files = (file for file in path.parent.iterdir() if file.is_file())
    seen.texts["files"] = b"".join(file.read_bytes() for file in files).decode("latin-1")
    return seen


def assert_hidden(seen: Seen, *secrets: str) -> None:
    for secret in secrets:
        assert [name for name, text in seen.texts.items() if secret in text] == []


@pytest.mark.parametrize("weak", ["anything", "12345678", "password"])
def test_a_weak_key_is_cut_out_of_errors_and_not_out_of_answers(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weak: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", weak)
    said = f'{{"genre": "A comedy of {weak}."}}'
    reply = server.completion(said)
    assert isinstance(reply.body, dict)
    reply.body["created"] = 1712345678
    server.answer = lambda body, number: reply
    path = tmp_path / "ledger.sqlite"
    run(server.url, path)
    with closing(sqlite3.connect(path)) as ledger:
        assert ledger.execute("SELECT DISTINCT answer FROM prompts").fetchall() == [(said,)]
    for number, way in enumerate(("400", "no choices", "no JSON", "refusal")):
        server.answer = lambda body, number, way=way: WAYS[way](server, weak)  # type: ignore[misc]
        assert_hidden(run(server.url, tmp_path / f"{number}" / "ledger.sqlite"), weak)


@pytest.mark.parametrize("way", WAYS)
def test_the_key_is_written_nowhere(
    server: FakeServer, key: str, logged: Callable[[], str], tmp_path: Path, way: str
) -> None:
    server.answer = lambda body, number: WAYS[way](server, key)
    seen = run(server.url, tmp_path / "ledger.sqlite")
    assert set(server.authorizations) == {f"Bearer {key}"}, "it does go to the server"
    assert_hidden(seen, key)
    if way != "answer":
        assert_hidden(seen, "sk-proj-abcd", f"Bearer {key[:8]}")
        assert seen.error or (seen.report and (seen.report.failed or seen.report.quarantined))
    if seen.error is not None:
        logging.getLogger("caller").error("it failed", exc_info=seen.error)
    assert [line for line in logged().splitlines() if key in line] == []


def test_a_server_that_is_not_there(key: str, logged: Callable[[], str], tmp_path: Path) -> None:
    seen = run("http://127.0.0.1:1/v1", tmp_path / "ledger.sqlite")
    assert seen.report is not None
    assert "can be reached" in seen.report.failures[0].error
    assert_hidden(seen, key)
    assert key not in logged()


def test_user_name_and_password_in_a_url_are_refused_and_not_quoted() -> None:
    with pytest.raises(LLMError, match="no user name and no password") as caught:
        OpenAILLM(model="tiny", base_url="http://someone:pa55word@127.0.0.1:1/v1")
    assert "pa55word" not in "".join(traceback.format_exception(caught.value)[-1:])


def test_the_answer_stays_but_for_the_key(server: FakeServer, key: str, tmp_path: Path) -> None:
    server.answer = lambda body, number: WAYS["answer"](server, key)
    path = tmp_path / "ledger.sqlite"
    run(server.url, path)
    with closing(sqlite3.connect(path)) as ledger:
        rows = ledger.execute("SELECT DISTINCT answer FROM prompts").fetchall()
    assert rows == [('{"genre": "the key is ***"}',)]


def test_a_placeholder_is_no_secret(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server.answer = lambda body, number: server.completion('{"genre": "none of these"}')
    path = tmp_path / "ledger.sqlite"
    run(server.url, path)
    with closing(sqlite3.connect(path)) as ledger:
        rows = ledger.execute("SELECT DISTINCT answer FROM prompts").fetchall()
    assert rows == [('{"genre": "none of these"}',)]


def test_the_key_is_read_when_a_client_is_made(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")

    async def work() -> None:
        await llm.ask(request())
        await llm.aclose()

    for now in ("the-first-key", "the-second-key"):
        monkeypatch.setenv("OPENAI_API_KEY", now)
        asyncio.run(work())
    assert server.authorizations == ["Bearer the-first-key", "Bearer the-second-key"]
    assert "-key" not in repr(vars(llm))


def test_a_key_is_not_carried_to_where_the_server_points(
    server: FakeServer, key: str, tmp_path: Path
) -> None:
    server.answer = lambda body, number: server.reply(
        status=307, body={}, headers={"Location": f"{server.url}/elsewhere"}
    )
    seen = run(server.url, tmp_path / "ledger.sqlite", timeout_s=60.0)
    assert len(server.bodies) == 2, "each of two calls went out once"
    assert seen.report is not None
    assert seen.report.failed == 2
