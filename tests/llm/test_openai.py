"""The OpenAI-compatible client against a real server with faults."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import Answer, OpenAILLM, Request, RequestError

if TYPE_CHECKING:
    from tests.llm.conftest import FakeServer, Reply

KEY = "sk-proj-abcdefghijklmnop0123456789"
REQUEST = Request(
    system="be brief",
    prompt="what?",
    factors=("genre",),
    prompt_hash="00ff",
    kind="item",
    channel="knowledge",
    owner="17",
    event_timestamp=datetime(2026, 1, 1, tzinfo=timezone.utc),
)


def ask(
    server: FakeServer, *, request: Request = REQUEST, times: int = 1, **given: Any
) -> list[Answer | RequestError]:
    """Ask one after another with one client; request errors are given back."""
    settings: dict[str, Any] = {"backoff_s": 0.01, "structured": "off", "timeout_s": 5.0}
    llm = OpenAILLM(model="tiny", base_url=server.url, **{**settings, **given})

    async def run() -> list[Answer | RequestError]:
        answers: list[Answer | RequestError] = []
        try:
            for _ in range(times):
                answers.append(await attempt())
        finally:
            await llm.aclose()
        return answers

    async def attempt() -> Answer | RequestError:
        try:
            return await llm.ask(request)
        except RequestError as error:
            return error

    return asyncio.run(run())


def in_turn(*replies: Reply) -> Callable[[dict[str, Any], int], Reply]:
    """The replies one after another, the last for good."""
    return lambda body, number: replies[min(number, len(replies) - 1)]


def test_answer_and_what_is_sent(server: FakeServer) -> None:
    [answer] = ask(server, max_tokens=99, extra_body={"top_k": 1})
    assert isinstance(answer, Answer)
    assert answer.text == '{"genre": "Comedy."}'
    assert (answer.model, answer.finish_reason, answer.attempts) == ("tiny-1", "stop", 1)
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 5)
    assert 0 < answer.latency_s < 5
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "what?"},
            ],
            "max_tokens": 99,
            "temperature": 0.0,
            "top_k": 1,
        }
    ]


def test_no_owner_is_sent(server: FakeServer) -> None:
    ask(server, structured="json_schema")
    assert "17" not in str(server.bodies)


def test_temperature_can_be_left_to_the_server(server: FakeServer) -> None:
    ask(server, temperature=None)
    assert "temperature" not in server.bodies[0]


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_faults_that_pass_are_outlived(server: FakeServer, status: int) -> None:
    bad = server.reply(status=status, body={"error": {"message": "later"}})
    server.answer = in_turn(bad, bad, server.completion())
    [answer] = ask(server)
    assert isinstance(answer, Answer)
    assert answer.attempts == 3


@pytest.mark.parametrize("fault", ["disconnect", "stall"])
def test_half_a_body_is_no_answer(server: FakeServer, fault: str) -> None:
    half = server.completion()
    half.fault = fault
    server.answer = in_turn(half, server.completion())
    [answer] = ask(server, timeout_s=0.3)
    assert isinstance(answer, Answer)
    assert answer.attempts == 2


@pytest.mark.parametrize("raw", [b"<html>busy</html>", b'{"choices": []}', b"[]", b""])
def test_a_body_that_is_no_completion_is_asked_again(server: FakeServer, raw: bytes) -> None:
    server.answer = in_turn(server.reply(body=raw), server.completion())
    [answer] = ask(server)
    assert isinstance(answer, Answer)


def test_server_faults_end_after_the_attempts(server: FakeServer) -> None:
    server.answer = in_turn(server.reply(status=500, body={"error": {"message": "broken"}}))
    [error] = ask(server, attempts=3)
    assert isinstance(error, RequestError)
    assert error.attempts == len(server.bodies) == 3
    assert "says 500" in str(error)


def test_a_call_that_never_ends_is_cut(server: FakeServer) -> None:
    slow = server.completion()
    slow.delay_s = 10
    server.answer = in_turn(slow)
    begun = time.monotonic()
    [error] = ask(server, timeout_s=0.2)
    assert isinstance(error, RequestError)
    assert "answers within 0.2 s" in str(error)
    assert time.monotonic() - begun < 3
    assert len(server.bodies) == 3


def test_retry_after_is_waited_for(server: FakeServer) -> None:
    busy = server.reply(status=429, body={}, headers={"Retry-After": "0.4"})
    server.answer = in_turn(busy, server.completion())
    [answer] = ask(server)
    assert isinstance(answer, Answer)
    assert server.times[1] - server.times[0] >= 0.4


def test_retry_after_of_an_hour_is_waited_for_too(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    busy = server.reply(status=429, body={}, headers={"Retry-After": "3600"})
    server.answer = in_turn(busy, server.completion())
    with caplog.at_level(logging.WARNING):
        [answer] = ask(server, sleep=sleep)
    assert isinstance(answer, Answer)
    assert len(slept) == 1
    assert 3599 < slept[0] < 3602
    assert "asks for a pause of 3600 s" in caplog.text


def test_a_pause_holds_for_all_calls(server: FakeServer) -> None:
    busy = server.reply(status=429, body={}, headers={"Retry-After": "0.5"})
    server.answer = in_turn(busy, server.completion())
    llm = OpenAILLM(model="tiny", base_url=server.url, backoff_s=0.01, structured="off")

    async def run() -> None:
        first = asyncio.create_task(llm.ask(REQUEST))
        await asyncio.sleep(0.2)
        await asyncio.gather(first, llm.ask(REQUEST))
        await llm.aclose()

    asyncio.run(run())
    assert min(server.times[1:]) - server.times[0] >= 0.5


@pytest.mark.parametrize(
    ("choice", "says", "reason"),
    [
        ({"finish_reason": "length"}, "cut off at max_tokens", "length"),
        ({"finish_reason": "content_filter"}, "content filter", "content_filter"),
        ({"message": {"content": "", "refusal": "I cannot."}}, "it refused: I cannot", "stop"),
        ({"message": {"content": " \n"}}, "the answer is not empty", "stop"),
        ({"message": {"content": None}}, "the answer is not empty", "stop"),
        ({"message": None}, "the answer is not empty", "stop"),
    ],
)
def test_answers_that_are_none(
    server: FakeServer, choice: dict[str, Any], says: str, reason: str
) -> None:
    server.answer = in_turn(server.completion("half an ans", **choice))
    [error] = ask(server)
    assert isinstance(error, RequestError)
    assert says in str(error)
    assert (error.finish_reason, error.attempts, error.completion_tokens) == (reason, 1, 5)
    assert len(server.bodies) == 1


def test_content_in_parts(server: FakeServer) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    server.answer = in_turn(server.completion(message={"content": parts}))
    [answer] = ask(server)
    assert isinstance(answer, Answer)
    assert answer.text == "ab"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "accepts the API key(.|\n)*MY_KEY"),
        (402, "top up the account"),
        (403, "gives access to the model(.|\n)*tiny"),
        (404, "knows the url and the model(.|\n)*check base_url"),
    ],
)
def test_what_no_call_can_outlive_stops_at_once(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, status: int, says: str
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.answer = in_turn(server.reply(status=status, body={"error": {"message": "no"}}))
    with pytest.raises(LLMError, match=says) as caught:
        ask(server, api_key_env="MY_KEY")
    assert not isinstance(caught.value, RequestError)
    assert len(server.bodies) == 1


def test_no_money_left_is_not_waited_for(server: FakeServer) -> None:
    body = {"error": {"message": "exceeded your quota", "code": "insufficient_quota"}}
    server.answer = in_turn(server.reply(status=429, body=body))
    with pytest.raises(LLMError, match="top up the account"):
        ask(server)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 200])
def test_the_key_is_in_no_text(
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    key = "verysecret-0123456789"  # does not look like a key: only our own knowledge can blot it
    monkeypatch.setenv("OPENAI_API_KEY", key)
    message = f"Incorrect API key {key}, also seen as sk-abcd****wxyz, Bearer {key}"
    server.answer = in_turn(server.reply(status=status, body={"error": {"message": message}}))
    llm = OpenAILLM(model="tiny", base_url=server.url, structured="off", attempts=1)

    async def run() -> None:
        try:
            await llm.ask(REQUEST)
        finally:
            await llm.aclose()

    with caplog.at_level(logging.DEBUG), pytest.raises(LLMError, match=r"\*\*\*") as caught:
        asyncio.run(run())
    assert server.authorizations == [f"Bearer {key}"]
    shown = "".join(traceback.format_exception(caught.value))
    for text in (shown, repr(caught.value), repr(llm), llm.name, llm.parameters, caplog.text):
        assert key not in text
        assert "sk-abcd" not in text


def test_no_key_for_a_server_of_the_world() -> None:
    llm = OpenAILLM(model="tiny")
    with pytest.raises(LLMError, match="environment variable OPENAI_API_KEY(.|\n)*export"):
        asyncio.run(llm.ask(REQUEST))


def test_url_of_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # no proxy for this machine's server
    llm = OpenAILLM(model="tiny", structured="off")

    async def run() -> Answer:
        answer = await llm.ask(REQUEST)
        await llm.aclose()
        return answer

    assert asyncio.run(run()).model == "tiny-1"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://h:nan", "::"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(LLMError, match="base_url is a server's address"):
        OpenAILLM(model="tiny", base_url=url)


def test_nobody_listens_is_told_soon() -> None:
    llm = OpenAILLM(model="tiny", base_url="http://127.0.0.1:1/v1", backoff_s=0.01)

    async def run() -> None:
        try:
            await llm.ask(REQUEST)
        finally:
            await llm.aclose()

    with pytest.raises(RequestError, match=r"127.0.0.1:1 can be reached") as caught:
        asyncio.run(run())
    assert caught.value.attempts == 3


def test_one_client_serves_one_loop_after_another(server: FakeServer) -> None:
    llm = OpenAILLM(model="tiny", base_url=server.url, structured="off")

    async def run() -> str:
        answer = await llm.ask(REQUEST)
        await llm.aclose()
        return answer.text

    assert [asyncio.run(run()) for _ in range(3)] == ['{"genre": "Comedy."}'] * 3


# --- the form of the answer -----------------------------------------------------------------


def forms_of(server: FakeServer) -> list[str]:
    return [body.get("response_format", {}).get("type", "off") for body in server.bodies]


def without(server: FakeServer, status: int, *forms: str) -> Callable[[dict[str, Any], int], Reply]:
    """A server that rejects some forms of answer."""

    def answer(body: dict[str, Any], number: int) -> Reply:
        if body.get("response_format", {}).get("type", "off") in forms:
            return server.reply(status=status, body={"error": {"message": "unknown format"}})
        return server.completion()

    return answer


def test_schema_has_a_key_per_factor(server: FakeServer) -> None:
    ask(server, structured="json_schema")
    assert server.bodies[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "knowledge",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"genre": {"type": "string"}},
                "required": ["genre"],
                "additionalProperties": False,
            },
        },
    }


@pytest.mark.parametrize(
    ("status", "rejected", "seen"),
    [
        (400, [], ["json_schema"] * 3),
        (400, ["json_schema"], ["json_schema", *["json_object"] * 3]),
        (422, ["json_schema", "json_object"], ["json_schema", "json_object", *["off"] * 3]),
        (500, ["json_schema"], ["json_schema"] * 2 + ["json_object"] * 3),
    ],
)
def test_the_form_is_found_out_once(
    server: FakeServer, status: int, rejected: list[str], seen: list[str]
) -> None:
    server.answer = without(server, status, *rejected)
    answers = ask(server, structured="auto", times=3)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert forms_of(server) == seen


def test_many_at_once_probe_once(server: FakeServer) -> None:
    server.answer = without(server, 400, "json_schema")
    llm = OpenAILLM(model="tiny", base_url=server.url)

    async def run() -> None:
        await asyncio.gather(*(llm.ask(REQUEST) for _ in range(5)))
        await llm.aclose()

    asyncio.run(run())
    assert forms_of(server) == ["json_schema", *["json_object"] * 5]


def test_a_bad_prompt_is_not_taken_for_a_missing_form(server: FakeServer) -> None:
    bad = server.reply(status=400, body={"error": {"message": "prompt too long"}})
    server.answer = in_turn(bad, bad, bad, server.completion())
    error, answer = ask(server, structured="auto", times=2)
    assert isinstance(error, RequestError)
    assert isinstance(answer, Answer)
    assert forms_of(server) == ["json_schema", "json_object", "off", "json_schema"]


def test_a_cut_off_answer_settles_the_form(server: FakeServer) -> None:
    server.answer = in_turn(server.completion(finish_reason="length"), server.completion())
    error, answer = ask(server, structured="auto", times=2)
    assert isinstance(error, RequestError)
    assert isinstance(answer, Answer)
    assert forms_of(server) == ["json_schema", "json_schema"]


def test_newer_name_of_max_tokens_is_learnt(server: FakeServer) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        if "max_tokens" in body:
            message = "Unsupported parameter: use 'max_completion_tokens' instead."
            return server.reply(status=400, body={"error": {"message": message}})
        return server.completion()

    server.answer = answer
    answers = ask(server, times=2)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert ["max_tokens" in body for body in server.bodies] == [True, False, False]


def test_name_and_parameters_are_what_changes_answers() -> None:
    def llm(**given: Any) -> OpenAILLM:
        return OpenAILLM(model="m", base_url="http://user:pass@localhost:1/v1", **given)

    assert llm().name == "openai/m"
    assert repr(llm()) == "OpenAILLM(model='m', host='localhost:1')"
    assert llm().parameters == llm(max_tokens=9, structured="off", timeout_s=1).parameters
    assert llm().parameters != llm(temperature=0.5).parameters
    assert llm().parameters != llm(extra_body={"seed": 1}).parameters
