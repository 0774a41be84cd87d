"""The OpenAI-compatible client against a real server with faults: one call at a time."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from reki_feast.errors import LLMError
from reki_feast.llm import (
    Answer,
    Ledger,
    OpenAILLM,
    Price,
    Request,
    RequestError,
    RequestPolicy,
    ask_all,
    transport,
)
from reki_feast.llm.interface import RateLimits
from tests.llm.models import openai_llm
from tests.llm.server_bodies import streamed

if TYPE_CHECKING:
    from tests.llm.conftest import FakeServer, Reply

KEY = "sk-proj-abcdefghijklmnop0123456789"
#: Calls of one request, after which a server's faults end a test.
MOST = 8
REQUEST = Request(
    system="be brief",
    prompt="what?",
    factors=("genre",),
    prompt_hash="00ff",
    kind="item",
    channel="knowledge",
    owner="17",
    event_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
)


def ask(
    server: FakeServer, *, request: Request = REQUEST, times: int = 1, **given: Any
) -> list[Answer | RequestError]:
    """Ask one after another with one client; request errors are given back."""
    settings: dict[str, Any] = {"structured": "off", "timeout_s": 60.0}
    llm = openai_llm(model="tiny", base_url=server.url, **{**settings, **given})

    async def run() -> list[Answer | RequestError]:
        try:
            return [await attempt(llm, request) for _ in range(times)]
        finally:
            await llm.aclose()

    return asyncio.run(run())


async def attempt(llm: OpenAILLM, request: Request = REQUEST) -> Answer | RequestError:
    try:
        return await llm.ask(request)
    except RequestError as error:
        return error


async def pursue(llm: OpenAILLM, request: Request = REQUEST) -> Answer | RequestError:
    """Ask as long as it may help, as a run does."""
    for _ in range(MOST):
        got = await attempt(llm, request)
        if isinstance(got, Answer) or not got.again:
            break
    return got


def answer_of(got: list[Answer | RequestError]) -> Answer:
    [answer] = got
    assert isinstance(answer, Answer), answer
    return answer


def error_of(got: list[Answer | RequestError]) -> RequestError:
    [error] = got
    assert isinstance(error, RequestError), error
    return error


def in_turn(*replies: Reply) -> Callable[[dict[str, Any], int], Reply]:
    """The replies one after another, the last for good."""
    return lambda body, number: replies[min(number, len(replies) - 1)]


def test_answer_and_what_is_sent(server: FakeServer) -> None:
    answer = answer_of(ask(server, max_tokens=99, extra_body={"top_k": 1}))
    assert answer.text == '{"genre": "Comedy."}'
    assert (answer.model, answer.finish_reason, answer.limits) == ("tiny-1", "stop", None)
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 5)
    assert answer.latency_s > 0
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


@pytest.mark.parametrize(
    "field",
    ["model", "messages", "n", "stream", "response_format", "max_tokens", "max_completion_tokens"],
)
def test_extra_fields_override_none_of_ours(field: str) -> None:
    with pytest.raises(LLMError, match=f"extra_body sets no field(.|\n)*detail: {field}\n"):
        openai_llm(model="tiny", extra_body={"top_k": 1, field: 4000})


def test_temperature_can_be_left_to_the_server(server: FakeServer) -> None:
    ask(server, temperature=None)
    assert "temperature" not in server.bodies[0]


@pytest.mark.parametrize(
    ("status", "again", "is_throttled", "is_lost"),
    [
        (500, True, False, False),
        (502, True, False, False),
        (503, True, False, False),
        (529, True, False, False),
        (408, True, False, True),
        (504, True, False, True),
        (522, True, False, True),
        (524, True, False, True),
        (409, True, False, False),
        (425, True, False, False),
        (429, True, True, False),
        (400, False, False, False),
        (403, False, False, False),
        (413, False, False, False),
        (422, False, False, False),
    ],
)
def test_what_a_status_means(
    server: FakeServer, status: int, again: bool, is_throttled: bool, is_lost: bool
) -> None:
    server.answer = in_turn(server.reply(status=status, body={"error": {"message": "later"}}))
    error = error_of(ask(server))
    assert (error.again, error.is_throttled, error.status) == (again, is_throttled, status)
    assert (error.is_lost, error.is_uncounted, error.gate, error.wait_s) == (
        is_lost,
        False,
        "",
        None,
    )
    assert f"says {status}: " in str(error)
    assert len(server.bodies) == 1, "retries are the run's"


@pytest.mark.parametrize("fault", ["disconnect", "stall"])
def test_half_a_body_is_no_answer(server: FakeServer, fault: str) -> None:
    half = server.completion()
    half.fault = fault
    server.answer = in_turn(half)
    error = error_of(ask(server, timeout_s=2.0))
    assert (error.again, error.is_lost, error.status) == (True, True, 0)


@pytest.mark.parametrize(
    "raw", [b"<html>busy</html>", b'{"choices": []}', b"[]", b"", b"{", b"[" * 200_000]
)
def test_a_body_that_is_no_completion(server: FakeServer, raw: bytes) -> None:
    server.answer = in_turn(server.reply(body=raw))
    error = error_of(ask(server))
    assert (error.again, error.is_lost, error.status, error.gate) == (True, True, 200, "")


def test_an_error_that_comes_with_200_is_what_its_code_says(server: FakeServer) -> None:
    def told(code: int) -> Reply:
        return server.reply(body={"error": {"message": "overloaded", "code": code}})

    server.answer = in_turn(told(503), told(429), told(401))
    busy, throttled = ask(server, times=2)
    assert isinstance(busy, RequestError)
    assert isinstance(throttled, RequestError)
    assert "says 503: overloaded" in str(busy)
    assert (busy.status, busy.again, busy.is_lost, busy.is_throttled) == (503, True, False, False)
    assert (throttled.is_lost, throttled.is_throttled) == (False, True)
    with pytest.raises(LLMError, match="accepts the API key"):
        ask(server)


def test_a_reply_may_begin_with_a_byte_order_mark(server: FakeServer) -> None:
    raw = b"\xef\xbb\xbf" + json.dumps(server.completion("said").body).encode()
    server.answer = in_turn(server.reply(body=raw))
    assert answer_of(ask(server)).text == "said"


@pytest.mark.parametrize(
    ("fault", "has_begun"),
    [
        ("ConnectTimeout", False),
        ("PoolTimeout", False),
        ("ReadTimeout", True),
        ("ProxyError", False),
        ("LocalProtocolError", False),
        ("UnsupportedProtocol", False),
        ("RemoteProtocolError", True),
        ("RemoteProtocolError", False),
        ("WriteError", False),
    ],
)
def test_a_call_that_never_left_is_not_lost(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, fault: str, has_begun: bool
) -> None:
    async def fail(self: transport.ConnectionPools, sent: httpx2.Request) -> httpx2.Response:
        assert isinstance(sent.stream, httpx2.AsyncByteStream)
        if has_begun:
            assert [json.loads(part)["model"] async for part in sent.stream] == ["tiny"]
        raise getattr(httpx2, fault)("no")

    monkeypatch.setattr(transport.ConnectionPools, "handle_async_request", fail)
    error = error_of(ask(server))
    assert (error.again, error.is_lost) == (True, has_begun)


@pytest.fixture
def full() -> Iterator[str]:
    """The url of a server whose queue is full: who calls waits to be let in."""
    with ExitStack() as lines:
        listener = lines.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            line = lines.enter_context(socket.socket())
            line.setblocking(False)
            line.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_a_call_that_waits_to_be_sent_is_cut_and_counts_for_nothing(full: str) -> None:
    """Whatever the server does later, it never got the prompt."""
    policy = RequestPolicy(attempts=2, backoff_s=0.0, price=Price(1, 1))
    with Ledger(None) as ledger:
        report = ask_all(
            [REQUEST], openai_llm(model="tiny", base_url=full, timeout_s=0.3), ledger, policy=policy
        )
        totals, calls = ledger.totals(), ledger.rows("SELECT state, error FROM calls")
    assert [state for state, _ in calls] == ["failed", "failed"]
    assert "answers within 0.3 s" in calls[0][1]
    assert (report.failed, totals.calls, totals.cost) == (1, 0, 0.0)


def test_a_call_that_never_ends_is_cut(server: FakeServer) -> None:
    slow = server.completion()
    slow.delay_s = 600
    server.answer = in_turn(slow)
    error = error_of(ask(server, timeout_s=2.0))
    assert "answers within 2 s" in str(error)
    assert (error.again, error.is_lost) == (True, True)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "0.4"}, 0.4),
        ({"Retry-After": "3600"}, 3600.0),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "soon"}, None),
    ],
)
def test_a_pause_that_the_server_asks_for(
    server: FakeServer, status: int, headers: dict[str, str], wait_s: float | None
) -> None:
    server.answer = in_turn(server.reply(status=status, body={}, headers=headers))
    assert error_of(ask(server)).wait_s == wait_s


@pytest.mark.parametrize("status", [200, 429])
def test_what_the_server_says_of_its_limits(server: FakeServer, status: int) -> None:
    reply = server.completion()
    reply.status = status
    reply.headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-remaining-tokens": "900",
    }
    server.answer = in_turn(reply)
    [got] = ask(server)
    assert got.limits == RateLimits(58, 1.0, 900, None)


@pytest.mark.parametrize(
    ("choice", "says", "reason", "gate"),
    [
        ({"finish_reason": "length"}, "cut off at max_tokens", "length", "cut"),
        ({"finish_reason": "content_filter"}, "content filter", "content_filter", "filtered"),
        ({"message": {"refusal": "I cannot."}}, "it refused: I cannot", "stop", "refusal"),
        ({"message": {"content": " \n"}}, "the answer is not empty", "stop", "empty"),
        ({"message": {"content": None}}, "the answer is not empty", "stop", "empty"),
        ({"message": None}, "the answer is not empty", "stop", "empty"),
    ],
)
def test_answers_that_are_none(
    server: FakeServer, choice: dict[str, Any], says: str, reason: str, gate: str
) -> None:
    server.answer = in_turn(server.completion("half an ans", **choice))
    error = error_of(ask(server))
    assert says in str(error)
    assert (error.finish_reason, error.gate, error.again) == (reason, gate, False)
    assert (error.prompt_tokens, error.completion_tokens, error.status) == (7, 5, 200)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos", "eos_token", "end_turn", "COMPLETE"])
def test_reasons_that_mean_whole(server: FakeServer, reason: str) -> None:
    server.answer = in_turn(server.completion("half a senten", finish_reason=reason))
    assert answer_of(ask(server)).finish_reason == reason


@pytest.mark.parametrize(
    ("reason", "says", "mend", "gate"),
    [
        ("max_tokens", "cut off at max_tokens", "raise max_tokens", "cut"),
        ("MAX_TOKENS", "cut off at max_tokens", "raise max_tokens", "cut"),
        ("model_length", "cut off at max_tokens", "raise max_tokens", "cut"),
        ("error", "ended it with finish_reason 'error'", "the server's log", "cut"),
        ("abort", "ended it with finish_reason 'abort'", "the server's log", "cut"),
        ("insufficient_system_resource", "with finish_reason 'insuff", "the server's log", "cut"),
        ("tool_calls", "ended it with finish_reason 'tool_calls'", "the server's log", "cut"),
        ("stopped", "ended it with finish_reason 'stopped'", "the server's log", "cut"),
        (None, "ended it without a finish_reason", "the server's log", "cut"),
        ("SAFETY", "content filter stopped it (SAFETY)", "--retry-quarantined", "filtered"),
        ("sensitive", "content filter stopped it (sensitive)", "--retry-quarant", "filtered"),
        ("refusal", "it refused: half a senten", "", "refusal"),
    ],
)
def test_reasons_that_do_not_mean_whole(
    server: FakeServer, reason: str | None, says: str, mend: str, gate: str
) -> None:
    server.answer = in_turn(server.completion("half a senten", finish_reason=reason))
    error = error_of(ask(server))
    assert says in str(error)
    assert mend in error.problems[0].hint
    assert (error.gate, error.again, error.completion_tokens) == (gate, False, 5)


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ('{"genre": "Comedy."}', True),
        ("It is a comedy.", True),
        ("It is a comedy**", True),
        ("```json\n{}\n```", True),
        ("It is a com", False),
        ("Genre: comedy,", False),
        ('{"genre": "Comedy. A fil', False),
        ('{"genre": "Comedy.', False),
        ("1. Genre:", False),
    ],
)
def test_without_a_reason_the_end_of_an_answer_tells(
    server: FakeServer, text: str, is_whole: bool
) -> None:
    server.answer = in_turn(server.completion(text, finish_reason=None))
    [got] = ask(server)
    assert isinstance(got, Answer) == is_whole
    assert isinstance(got, Answer) or got.gate == "cut"


def test_an_error_beside_half_an_answer_is_quoted(server: FakeServer) -> None:
    error = {"code": 502, "message": "the provider is gone"}
    server.answer = in_turn(server.completion("half", finish_reason="error", error=error))
    assert "finish_reason 'error': the provider is gone" in str(error_of(ask(server)))


WHOLE = '{"genre": "Comedy."}'


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": None, "reasoning_content": WHOLE}, "stop"),
        ({"content": "", "reasoning": WHOLE}, "stop"),
        ({"content": " \n", "thinking": WHOLE}, "stop"),
        ({"content": None, "tool_calls": [{"function": {"arguments": WHOLE}}]}, "tool_calls"),
        ({"content": None, "function_call": {"arguments": WHOLE}}, "function_call"),
    ],
)
def test_a_whole_answer_in_another_place_is_read(
    server: FakeServer, message: dict[str, Any], reason: str
) -> None:
    server.answer = in_turn(server.completion(message=message, finish_reason=reason))
    assert answer_of(ask(server)).text == WHOLE


@pytest.mark.parametrize(
    ("message", "reason", "says", "mend"),
    [
        (
            {"content": None, "reasoning_content": "Let me think."}, "stop",
            "reasoning_content holds 13 characters: 'Let me think.'", "takes the answer for",
        ),
        (
            {"content": "", "reasoning": "Let me think."}, "stop",
            "reasoning holds 13 characters", "reasoning parser",
        ),
        (
            {"content": None, "reasoning_content": "Let me think."}, "length",
            "cut off at max_tokens, in the midst of thoughts: 13 characters of reasoning_content",
            "a reasoning model needs several thousand",
        ),
        ({"content": '{"genre": "' + " " * 99}, "length", "white space", "not at fault: the form"),
        ({"content": '{"genre": "a' + "\\n" * 99}, "length", "white space", "not at fault"),
        ({"content": "\t\n" * 99}, "max_tokens", "white space", "not at fault"),
        ({"content": '{"genre": "a' + " " * 9}, "length", "cut off at max_tokens", "raise max_tok"),
    ],
)  # fmt: skip
def test_what_came_in_place_of_an_answer_is_named(
    server: FakeServer, message: dict[str, Any], reason: str, says: str, mend: str
) -> None:
    server.answer = in_turn(server.completion(message=message, finish_reason=reason))
    error = error_of(ask(server))
    assert says in str(error)
    assert mend in error.problems[0].hint
    assert ("raise max_tokens" in error.problems[0].hint) == ("cut off" in says)


@pytest.mark.parametrize("has_usage", [True, False])
def test_an_answer_that_comes_as_a_stream_is_read_as_one(
    server: FakeServer, has_usage: bool
) -> None:
    whole = server.completion().body
    assert isinstance(whole, dict)
    if not has_usage:
        whole["usage"] = None
    raw = streamed(whole).encode()
    headers = {"Content-Type": "text/event-stream"}
    server.answer = in_turn(server.reply(body=raw, headers=headers))
    answer = answer_of(ask(server))
    assert (answer.text, answer.model, answer.finish_reason) == (WHOLE, "tiny-1", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == ((7, 5) if has_usage else (0, 0))


def test_a_stream_that_breaks_off_is_lost(server: FakeServer) -> None:
    whole = server.completion().body
    assert isinstance(whole, dict)
    raw = streamed(whole).partition("finish_reason")[0].rpartition("data")[0]
    server.answer = in_turn(server.reply(body=raw.encode()))
    error = error_of(ask(server))
    assert (error.again, error.is_lost, error.status, error.gate) == (True, True, 200, "")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0)),
        ({}, (0, 0)),
        ([], (0, 0)),
        ({"prompt_tokens": None, "completion_tokens": 5}, (0, 5)),
        ({"prompt_tokens": "7", "completion_tokens": -5}, (7, 0)),
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 1118}, (20, 1098)),
        ({"prompt_tokens": 7.0, "completion_tokens": 5}, (7, 5)),
    ],
)
def test_tokens_as_servers_tell_them(
    server: FakeServer, usage: Any, tokens: tuple[int, int]
) -> None:
    reply = server.completion()
    assert isinstance(reply.body, dict)
    reply.body["usage"] = usage
    gemini = server.completion()
    assert isinstance(gemini.body, dict)
    gemini.body |= {"usage": None, "usageMetadata": usage}
    for told in (reply, gemini):
        server.answer = in_turn(told)
        answer = answer_of(ask(server))
        assert (answer.prompt_tokens, answer.completion_tokens) == tokens


def test_half_a_pair_of_surrogates_is_a_question_mark(server: FakeServer) -> None:
    reply = server.completion("a \ud83d, whole: \U0001f600")
    assert isinstance(reply.body, dict)
    reply.body["model"] = "x\ud83d"
    server.answer = in_turn(reply, server.completion(finish_reason="st\udc00op"))
    answer, error = ask(server, times=2)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.model) == ("a ?, whole: \U0001f600", "x?")
    assert isinstance(error, RequestError)
    assert error.finish_reason == "st?op"


def test_half_a_pair_of_surrogates_in_an_error(server: FakeServer) -> None:
    body = {"error": {"message": "bad \ud83d"}}
    server.answer = in_turn(server.reply(status=400, body=body))
    assert "bad ?" in str(error_of(ask(server)))


def test_a_completion_in_a_list(server: FakeServer) -> None:
    whole, filtered = (server.completion(finish_reason=why) for why in ("stop", "content_filter"))
    server.answer = in_turn(
        *(server.reply(body=json.dumps([one.body]).encode()) for one in (whole, filtered))
    )
    answer, error = ask(server, times=2)
    assert isinstance(answer, Answer)
    assert isinstance(error, RequestError)
    assert (error.gate, error.completion_tokens) == ("filtered", 5)


def test_content_in_parts(server: FakeServer) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    server.answer = in_turn(server.completion(message={"content": parts}))
    assert answer_of(ask(server)).text == "ab"


SAYS = "the height is not to our liking"
SHAPES: dict[str, Any] = {
    "an object": {"error": {"message": SAYS}},
    "a list": [{"error": {"code": 400, "message": SAYS, "status": "INVALID_ARGUMENT"}}],
    "a string": {"error": SAYS},
    "faults": {"detail": [{"loc": ["body", "height"], "msg": SAYS, "type": "value_error"}]},
    "nested": {"error": {"message": "no", "metadata": {"raw": json.dumps({"message": SAYS})}}},
    "text": SAYS,
    "a page": f"<html><head><title>Oh</title></head><body><h1>{SAYS}</h1></body></html>",
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_is_quoted(server: FakeServer, status: int, shape: str) -> None:
    said = SHAPES[shape]
    raw = (said if isinstance(said, str) else json.dumps(said)).encode()
    server.answer = in_turn(server.reply(status=status, body=raw))
    with pytest.raises(LLMError, match=rf"says {status}: (.|\n)*{SAYS}") as caught:
        raise error_of(ask(server))
    assert "<" not in str(caught.value)


@pytest.mark.parametrize(("status", "phrase"), [(400, "Bad Request"), (503, "Service Unavail")])
@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b" \n"])
def test_an_error_without_a_word(server: FakeServer, status: int, phrase: str, raw: bytes) -> None:
    server.answer = in_turn(server.reply(status=status, body=raw))
    assert f"says {status}: {phrase}" in str(error_of(ask(server)))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "accepts the API key(.|\n)*MY_KEY"),
        (402, "top up the account"),
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


def test_no_key_for_a_server_of_the_world() -> None:
    llm = OpenAILLM(model="tiny")
    with pytest.raises(LLMError, match="environment variable OPENAI_API_KEY(.|\n)*export"):
        asyncio.run(llm.ask(REQUEST))


@pytest.mark.parametrize("key", ["sk-abc\ndef1234567", "\u201csk-abcdefghijkl\u201d", "sk\u00e9"])
def test_a_key_that_no_header_can_hold(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(LLMError, match="printable ASCII(.|\n)*OPENAI_API_KEY") as caught:
        ask(server)
    assert not isinstance(caught.value, RequestError)
    assert "sk" not in str(caught.value)
    assert server.bodies == []


def test_url_of_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # no proxy for this machine's server
    llm = openai_llm(model="tiny", structured="off")

    async def run() -> Answer:
        answer = await llm.ask(REQUEST)
        await llm.aclose()
        return answer

    assert asyncio.run(run()).model == "tiny-1"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://h:nan", "::"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(LLMError, match="base_url is a server's address"):
        OpenAILLM(model="tiny", base_url=url)


def test_nobody_listens() -> None:
    llm = openai_llm(model="tiny", base_url="http://127.0.0.1:1/v1", structured="off")

    async def run() -> Answer | RequestError:
        got = await attempt(llm)
        await llm.aclose()
        return got

    error = asyncio.run(run())
    assert isinstance(error, RequestError)
    assert "127.0.0.1:1 can be reached" in str(error)
    assert (error.again, error.is_lost, error.status) == (True, False, 0)


def test_one_client_serves_one_loop_after_another(server: FakeServer) -> None:
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")

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


def pursued(server: FakeServer, times: int, **given: Any) -> list[Answer | RequestError]:
    """Ask with one client, each as long as it may help."""
    llm = openai_llm(model="tiny", base_url=server.url, timeout_s=60.0, **given)

    async def run() -> list[Answer | RequestError]:
        try:
            return [await pursue(llm) for _ in range(times)]
        finally:
            await llm.aclose()

    return asyncio.run(run())


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
    got = pursued(server, 3)
    assert all(isinstance(answer, Answer) for answer in got)
    assert forms_of(server) == seen


def test_to_find_out_a_form_is_no_try_of_the_request(server: FakeServer) -> None:
    server.answer = without(server, 400, "json_schema")
    error = error_of(ask(server, structured="auto"))
    assert (error.again, error.is_uncounted, error.status) == (True, True, 400)


def test_an_answer_that_is_nested_without_end_has_no_form(server: FakeServer) -> None:
    server.answer = in_turn(server.completion("[" * 100_000))
    assert answer_of(ask(server, structured="auto")).text.startswith("[[[")


def test_many_at_once_probe_once(server: FakeServer) -> None:
    server.answer = without(server, 400, "json_schema")
    llm = OpenAILLM(model="tiny", base_url=server.url)

    async def run() -> None:
        got = await asyncio.gather(*(pursue(llm) for _ in range(5)))
        assert all(isinstance(answer, Answer) for answer in got)
        await llm.aclose()

    asyncio.run(run())
    assert forms_of(server) == ["json_schema", *["json_object"] * 5]


def test_a_bad_prompt_is_not_taken_for_a_missing_form(server: FakeServer) -> None:
    bad = server.reply(status=400, body={"error": {"message": "prompt too long"}})
    server.answer = in_turn(bad, bad, bad, server.completion())
    error, answer = pursued(server, 2)
    assert isinstance(error, RequestError)
    assert isinstance(answer, Answer)
    assert forms_of(server) == ["json_schema", "json_object", "off", "json_schema"]


def test_a_cut_off_answer_settles_the_form(server: FakeServer) -> None:
    server.answer = in_turn(server.completion(finish_reason="length"), server.completion())
    error, answer = ask(server, structured="auto", times=2)
    assert isinstance(error, RequestError)
    assert isinstance(answer, Answer)
    assert forms_of(server) == ["json_schema", "json_schema"]


def test_a_reply_that_cannot_be_read_says_nothing_of_the_form(server: FakeServer) -> None:
    lacks_it = without(server, 400, "json_schema")
    busy = server.reply(body=b"<html>busy</html>")
    server.answer = lambda body, number: busy if number == 0 else lacks_it(body, number)
    got = pursued(server, 2)
    assert forms_of(server) == ["json_schema", "json_schema", "json_object", "json_object"]
    assert all(isinstance(answer, Answer) for answer in got)


def test_a_form_that_is_ignored_is_not_asked_for_again(server: FakeServer) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        is_schema = body.get("response_format", {}).get("type") == "json_schema"
        return server.completion("It depends." if is_schema else '{"genre": "Comedy."}')

    server.answer = answer
    first, second = ask(server, structured="auto", times=2)
    assert isinstance(first, Answer), "it is paid for, and gates look at it"
    assert first.text == "It depends."
    assert isinstance(second, Answer)
    assert second.text == '{"genre": "Comedy."}'
    assert forms_of(server) == ["json_schema", "json_object"]


def test_a_request_without_factors_asks_for_no_form(server: FakeServer) -> None:
    ask(server, request=replace(REQUEST, factors=()), structured="auto")
    assert forms_of(server) == ["off"]


FILTER = {"error": {"message": "The response was filtered", "code": "content_filter"}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, FILTER),
        (400, [FILTER]),
        (422, {"error": {"message": "content filter"}}),
        (200, FILTER),
    ],
)
def test_a_filter_speaks_of_no_form(server: FakeServer, status: int, body: Any) -> None:
    raw = json.dumps(body).encode()
    server.answer = in_turn(server.reply(status=status, body=raw), server.completion())
    error, *answers = pursued(server, 3)
    assert isinstance(error, RequestError)
    assert (error.gate, error.again, error.is_refused) == ("filtered", False, True)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert forms_of(server) == ["json_schema"] * 3


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        (400, ["json_schema", "json_object"] * 2 + ["json_object"]),
        (500, ["json_schema", "json_schema", "json_object"] * 2 + ["json_object"]),
    ],
)
def test_a_silent_refusal_is_held_against_a_form_when_two_prompts_show_it(
    server: FakeServer, status: int, seen: list[str]
) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        if body.get("response_format", {}).get("type") == "json_schema":
            return server.reply(status=status, body=b"")
        return server.completion()

    server.answer = answer
    llm = OpenAILLM(model="tiny", base_url=server.url)

    async def run() -> None:
        for number in range(3):
            asked = replace(REQUEST, prompt_hash=f"{number}")
            assert isinstance(await pursue(llm, asked), Answer)
        await llm.aclose()

    asyncio.run(run())
    assert forms_of(server) == seen
    assert llm.notes == ("answers are asked for as json_object: answers come without it",)


@pytest.mark.parametrize("what", ["white space", "thoughts"])
def test_a_form_that_spoils_answers_gives_way(server: FakeServer, what: str) -> None:
    spoilt = {"content": '{"genre": "' + " " * 99}
    if what == "thoughts":
        spoilt = {"content": "", "reasoning_content": "Let me think."}
    reason = "length" if what == "white space" else "stop"

    def answer(body: dict[str, Any], number: int) -> Reply:
        if body.get("response_format", {}).get("type") == "json_schema":
            return server.completion(message=spoilt, finish_reason=reason)
        return server.completion()

    server.answer = answer
    llm = OpenAILLM(model="tiny", base_url=server.url)

    async def run() -> list[bool]:
        got = [await attempt(llm, replace(REQUEST, prompt_hash=n)) for n in "001123"]
        await llm.aclose()
        return [isinstance(one, Answer) for one in got]

    assert asyncio.run(run()) == [False, True, False, True, True, True]
    assert forms_of(server) == ["json_schema", "json_object", "json_schema", *["json_object"] * 3]
    [note] = llm.notes
    assert note.startswith("answers are asked for as json_object: ")


FIELDS = {"temperature": 0.0, "top_p": 0.9, "seed": 7, "stop": ["~"], "logit_bias": {}}


def not_taking(server: FakeServer, *fields: str) -> Callable[[dict[str, Any], int], Reply]:
    """A server that refuses some fields, one at a time."""

    def answer(body: dict[str, Any], number: int) -> Reply:
        for field in fields:
            if field in body:
                said = f"Unsupported parameter: '{field}' is not supported with this model."
                return server.reply(status=400, body={"error": {"message": said}})
        return server.completion()

    return answer


@pytest.mark.parametrize("refused", [*([name] for name in FIELDS), list(FIELDS)])
def test_what_a_model_does_not_take_is_left_out(server: FakeServer, refused: list[str]) -> None:
    server.answer = not_taking(server, *refused)
    extra = {name: value for name, value in FIELDS.items() if name != "temperature"}
    llm = openai_llm(model="tiny", base_url=server.url, extra_body=extra, structured="off")
    before = llm.parameters

    async def run() -> None:
        assert all([isinstance(await pursue(llm), Answer) for _ in range(3)])
        await llm.aclose()

    asyncio.run(run())
    assert len(server.bodies) == 3 + len(refused), "each is found out once"
    assert set(FIELDS) - set(server.bodies[-1]) == set(refused)
    assert [note.split(" is left out")[0] for note in llm.notes] == refused
    assert all("not supported with this model" in note for note in llm.notes)
    assert llm.parameters == before, "answers are found again in the ledger"


@pytest.mark.parametrize("field", ["temperature", "max_tokens"])
def test_many_at_once_leave_a_field_out(server: FakeServer, field: str) -> None:
    server.answer = not_taking(server, field)
    llm = openai_llm(model="tiny", base_url=server.url, structured="off")

    async def run() -> list[Answer | RequestError]:
        got = await asyncio.gather(*(pursue(llm) for _ in range(8)))
        await llm.aclose()
        return got

    assert all(isinstance(one, Answer) for one in asyncio.run(run()))
    assert field not in server.bodies[-1]


def test_a_model_that_only_streams_is_asked_for_a_stream(server: FakeServer) -> None:
    whole = server.completion().body
    assert isinstance(whole, dict)

    def answer(body: dict[str, Any], number: int) -> Reply:
        if "stream_options" in body:
            said = "Unknown parameter: 'stream_options'"
            return server.reply(status=400, body={"error": {"message": said}})
        if body.get("stream"):
            return server.reply(body=streamed(whole).encode())
        said = "This model only support stream mode, please enable the stream parameter"
        return server.reply(status=400, body={"error": {"message": said}})

    server.answer = answer
    answers = pursued(server, 2, structured="off")
    assert [one.text for one in answers if isinstance(one, Answer)] == [WHOLE] * 2
    assert ["stream" in body for body in server.bodies] == [False, True, True, True]


def test_a_field_that_is_needed_is_not_left_out(server: FakeServer) -> None:
    said = {"error": {"message": "unsupported: model", "param": "model"}}
    server.answer = in_turn(server.reply(status=400, body=said))
    error = error_of(ask(server))
    assert (error.again, error.is_uncounted) == (False, False)


def test_a_limit_of_tokens_is_no_wrong_name(server: FakeServer) -> None:
    said = "'max_tokens' or 'max_completion_tokens' is too large: 2048. The maximum is 512."
    server.answer = in_turn(server.reply(status=400, body={"error": {"message": said}}))
    error = error_of(ask(server))
    assert (error.again, len(server.bodies)) == (False, 1)
    assert "is too large" in str(error)


def test_newer_name_of_max_tokens_is_learnt(server: FakeServer) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        if "max_tokens" in body:
            message = "Unsupported parameter: use 'max_completion_tokens' instead."
            return server.reply(status=400, body={"error": {"message": message}})
        return server.completion()

    server.answer = answer
    answers = pursued(server, 2, structured="off")
    assert all(isinstance(answer, Answer) for answer in answers)
    assert ["max_tokens" in body for body in server.bodies] == [True, False, False]


def test_a_server_that_wants_the_newer_name_again_and_again(server: FakeServer) -> None:
    message = "use 'max_completion_tokens' instead"
    server.answer = in_turn(server.reply(status=400, body={"error": {"message": message}}))
    first, second = ask(server, times=2)
    assert isinstance(first, RequestError)
    assert isinstance(second, RequestError)
    assert (first.again, second.again) == (True, False)


def test_name_and_parameters_are_what_changes_answers() -> None:
    def llm(**given: Any) -> OpenAILLM:
        return openai_llm(model="m", base_url="http://localhost:1/v1", **given)

    assert llm().name == "openai/m"
    assert repr(llm()) == "OpenAILLM(model='m', host='localhost:1')"
    assert llm(max_tokens=9).max_answer_tokens == 9
    assert llm().parameters == llm(max_tokens=9, structured="off", timeout_s=1).parameters
    assert llm().parameters != llm(temperature=0.5).parameters
    assert llm().parameters != llm(extra_body={"seed": 1}).parameters
