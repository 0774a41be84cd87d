"""Lines of batches: as they are written, and as they are read."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import tracemalloc
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, Ledger, OpenAIBatchLLM, Request, RequestError, Run
from reki_feast.llm.batch.collector import Collector
from reki_feast.llm.batch.records import BatchFill, BatchRecord, fill
from reki_feast.llm.batch.remote_batch import RemoteBatch
from reki_feast.llm.dialect import Dialect
from reki_feast.llm.ledger.group_commit import GroupCommitWriter
from reki_feast.llm.ledger.invariants import violations
from tests.llm.batching import AS_OF, batch_llm
from tests.llm.models import openai_batch_llm
from tests.llm.servers import Endpoint

URL = "http://127.0.0.1:1/v1"
STYLE = Dialect("json_schema", "max_tokens")
NAMES = st.sampled_from(["content", "refusal", "text", "message", "code", "error"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def llm(**how: Any) -> OpenAIBatchLLM:
    return openai_batch_llm(model="tiny", base_url=URL, **how)


def request(prompt: str = "A film?") -> Request:
    return Request("Be brief.", prompt, ("mood",), "hash", "item", "knowledge", "1", AS_OF)


def line(**changed: Any) -> bytes:
    reply = {
        "model": "tiny-1",
        "choices": [{"finish_reason": "stop", "message": {"content": "calm"}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    whole = {
        "custom_id": "reki-000000000012",
        "response": {"status_code": 200, "body": reply},
        "error": None,
    }
    return json.dumps({**whole, **changed}).encode()


def refused(status: int, message: str = "no") -> dict[str, Any]:
    return {"status_code": status, "body": {"error": {"message": message, "code": "bad"}}}


def test_a_line_holds_the_whole_call() -> None:
    asked = llm(max_tokens=50, extra_body={"top_k": 3})
    raw = asked.line(12, request(), STYLE)
    assert raw.endswith(b"}\n")
    written = json.loads(raw)
    schema = written["body"].pop("response_format")
    assert schema["json_schema"]["schema"]["required"] == ["mood"]
    assert written == {
        "custom_id": "reki-000000000012",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "A film?"},
            ],
            "max_tokens": 50,
            "temperature": 0.0,
            "top_k": 3,
        },
    }


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_line_is_one_line_and_its_size_is_known(prompt: str) -> None:
    asked = llm()
    raw = asked.line(10**12 - 1, request(prompt), STYLE)
    assert len(raw.decode().splitlines()) == 1
    assert json.loads(raw)["body"]["messages"][-1]["content"] == prompt
    newest = asked.line(3, request(prompt), Dialect("json_schema", "max_completion_tokens"))
    assert len(raw) < len(newest) == asked.size(request(prompt))


def test_an_answer_is_read() -> None:
    assert llm().read(line(), STYLE) == (12, Answer("calm", "tiny-1", "stop", 7, 2))


@pytest.mark.parametrize(
    ("changed", "rule", "again"),
    [
        ({"response": refused(400)}, "the server answers the call", False),
        ({"response": refused(429)}, "the server answers the call", True),
        ({"response": refused(503)}, "the server answers the call", True),
        ({"response": {"status_code": 200, "body": "<html>"}}, "replies in JSON", True),
        ({"response": {"status_code": 200}}, "replies in JSON", True),
        ({"response": None}, "answers each line of a batch", True),
        ({"response": None, "error": {"code": "batch_expired"}}, "answers each line", True),
        ({"response": None, "error": "gone"}, "answers each line of a batch", True),
        ({"response": {"status_code": 200}, "error": {"message": "x"}}, "answers the call", False),
        ({"response": {"status_code": "?", "body": None}}, "the server answers the call", False),
    ],
)
def test_errors_are_read(changed: dict[str, Any], rule: str, again: bool) -> None:
    found = llm().read(line(**changed), STYLE)
    assert found is not None
    call, error = found
    assert call == 12
    assert isinstance(error, RequestError)
    assert rule in str(error)
    assert error.again is again


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_all_calls_would_meet_is_read_as_such(status: int) -> None:
    found = llm().read(line(response=refused(status)), STYLE)
    assert found is not None
    assert isinstance(found[1], LLMError)
    assert not isinstance(found[1], RequestError)


def test_no_key_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-key")
    found = llm().read(line(response=refused(400, "bad key very-secret-key")), STYLE)
    assert found is not None
    assert "very-secret-key" not in str(found[1])
    assert "***" in str(found[1])


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"{", b"[]", b"null", b"\xff\xfe", b"{}", line(custom_id="another's")]
)
def test_what_tells_of_no_call(raw: bytes) -> None:
    assert llm().read(raw, STYLE) is None


@given(st.fixed_dictionaries({}, optional={"response": JSON, "error": JSON}))
def test_any_line_can_be_read(changed: dict[str, Any]) -> None:
    assert llm().read(line(**changed), STYLE) is not None


@given(JSON, JSON)
def test_any_reply_can_be_read(body: object, status: object) -> None:
    assert llm().read(line(response={"status_code": status, "body": body}), STYLE) is not None


@given(JSON, JSON, JSON)
def test_any_choice_can_be_read(message: object, reason: object, count: object) -> None:
    choice = {"message": message, "finish_reason": reason}
    body = {"choices": [choice], "usage": {"prompt_tokens": count}, "model": reason}
    assert llm().read(line(response={"status_code": 200, "body": body}), STYLE) is not None


@pytest.mark.parametrize(
    ("faults", "helps", "dialect"),
    [
        ("line 1: unknown field 'response_format'", True, Dialect("json_object", "max_tokens")),
        ("use 'max_completion_tokens'", True, Dialect("json_schema", "max_completion_tokens")),
        ("the file is empty", False, STYLE),
    ],
)
def test_a_refused_batch_may_tell_of_its_style(faults: str, helps: bool, dialect: Dialect) -> None:
    asked = llm()
    assert asked.observe_failure(STYLE, RemoteBatch("1", "failed", error_text=faults)) is helps
    assert asked.dialect == dialect


def test_forms_are_given_up_one_by_one_until_one_is_proven() -> None:
    asked = llm()
    for form in ("json_schema", "json_object", "off", "off"):
        assert asked.dialect.form == form
        asked.observe(asked.dialect, has_answers=False, has_format_errors=True)
    asked.observe(Dialect("json_object", "max_tokens"), has_answers=True, has_format_errors=True)
    assert asked.dialect.form == "json_object"
    asked.observe(asked.dialect, has_answers=False, has_format_errors=True)
    assert asked.dialect.form == "json_object"


def test_a_form_that_the_user_chose_stays() -> None:
    asked = llm(structured="json_schema")
    asked.observe(asked.dialect, has_answers=False, has_format_errors=True)
    assert asked.dialect.form == "json_schema"


def test_a_batch_is_found_among_many() -> None:
    async def found() -> list[str | None]:
        file = await llm.upload(io.BytesIO(line()), "a")
        for number in range(230):
            await llm.submit(f"batch-{number}", file if number == 3 else other)
        by_name = await llm.find("batch-7", "no file")
        by_file = await llm.find("no name", file)
        nothing = await llm.find("no name", "no file")
        await llm.aclose()
        return [one.id if one else None for one in (by_name, by_file, nothing)]

    with Endpoint() as endpoint:
        llm = batch_llm(endpoint)
        other = endpoint.batches._stored("other", "batch", line())["id"]
        assert asyncio.run(found()) == ["batch_000008", "batch_000004", None]


@given(st.lists(st.integers(1, 12), max_size=30), st.integers(6, 30), st.integers(1, 7))
def test_files_are_filled_to_the_byte(sizes: list[int], most: int, chunk: int) -> None:
    """Each takes what it can, in order, and not one byte too many."""
    files: list[list[int]] = []
    with Ledger(None) as ledger, Run(ledger, llm()) as run:
        left = [replace(request(), prompt_hash=str(n)) for n in range(len(sizes))]
        while left:
            files.append([])
            while left:
                how = BatchFill(
                    identity=run.identity,
                    batch=f"batch {len(files)}",
                    key_of=run.key,
                    worst_case_of=run.worst_case,
                    size_of=lambda one: sizes[int(one.prompt_hash)],
                    max_bytes=most,
                    used_bytes=sum(files[-1]),
                    now=ledger.now(),
                )
                [filled] = ledger.do([partial(fill, how=how, wanted=left[:chunk])])
                done = len(left[:chunk]) - len(filled.left)
                taken = [sizes[int(one.prompt_hash)] for one in left[:done]]
                files[-1] += [size for size in taken if size <= most]
                left = left[done:]
                if filled.left:
                    break
        assert violations(ledger.rows) == []
        query = "SELECT calls FROM batches ORDER BY id"
        assert sorted(n for (n,) in ledger.rows(query)) == sorted(len(f) for f in files if f)
    assert [size for file in files for size in file] == [size for size in sizes if size <= most]
    assert all(sum(file) <= most for file in files)
    assert all(sum(one) + other[0] > most for one, other in pairwise(files) if other)


def test_files_of_any_length_are_entered_in_little_memory() -> None:
    async def enter() -> int:
        async with GroupCommitWriter(ledger, run.identity.run) as writer:
            collector = Collector(run, llm, writer, asyncio.Event())
            batch = BatchRecord("none", "submitted", 0, AS_OF)
            with tempfile.TemporaryFile() as file:
                for call in range(4_000):
                    name = f"reki-{call:012}"
                    file.write(line(custom_id=name, further="x" * 3_000) + b"\n")  # 12 MB in all
                tracemalloc.start()
                found = await collector.scan(batch, file)
                assert (len(found.lines), found.unreadable) == (4_000, 0)
                await collector.enter(batch, file, found, RequestError("it comes back"))
                _, most = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            return most

    llm = OpenAIBatchLLM(model="tiny", base_url=URL)
    with Ledger(None) as ledger, Run(ledger, llm) as run:
        assert asyncio.run(enter()) < 2_000_000
