"""The tests' own server keeps its word: answers, faults, limits, the bill, the Batch API."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch

from tests.bench.llm_server import serving
from tests.llm.server_batches import End
from tests.llm.server_limits import Limits, duration
from tests.llm.server_texts import sentence
from tests.llm.servers import FAULTS, Endpoint, Fault

KEYS = ["genre", 'mood "and" tone', "Tempo, Länge"]
TAIL = "Answer with one JSON object that has exactly these keys: {}. Each value is a text."
PROMPT = "A film about bees.\n\n" + TAIL.format(", ".join(json.dumps(key) for key in KEYS))
SCHEMA = {"type": "object", "properties": {"genre": {"type": "string"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "k", "schema": SCHEMA}}


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=endpoint.url, max_retries=0, timeout=60) as made:
        yield made


def patient(client: openai.OpenAI, name: str) -> openai.OpenAI:
    """The client, with little patience where a fault has it wait for nothing."""
    return client.with_options(timeout=2.0) if name == "stall" else client


def ask(client: openai.OpenAI, prompt: str = PROMPT, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="tiny", messages=messages, **more)


def content(client: openai.OpenAI, prompt: str = PROMPT, **more: Any) -> str:
    return str(ask(client, prompt, **more).choices[0].message.content)


def always(name: str) -> Callable[[str, int, int], Fault]:
    return lambda prompt, nth, number: FAULTS[name]


def outcomes(endpoint: Endpoint) -> list[str]:
    return [call.outcome for call in endpoint.bill]


def test_answer_has_a_sentence_for_each_key(endpoint: Endpoint, client: openai.OpenAI) -> None:
    reply = ask(client)
    said = json.loads(reply.choices[0].message.content)
    assert list(said) == KEYS
    assert len(set(said.values())) == 3
    assert said == json.loads(content(client))
    assert said != json.loads(content(client, PROMPT.replace("bees", "wasps")))
    assert (reply.choices[0].finish_reason, reply.model) == ("stop", "tiny")
    assert reply.usage.prompt_tokens == -(-len(PROMPT) // 4)
    assert endpoint.bodies[0]["messages"] == [{"role": "user", "content": PROMPT}]
    assert endpoint.authorizations[0] == "Bearer k"


@pytest.mark.parametrize(
    ("prompt", "more", "keys"),
    [
        ("what?", {"response_format": FORM}, ["genre"]),
        ('one object with the key "factors": a list of names', {}, ["factors"]),
    ],
)
def test_keys_are_found(
    client: openai.OpenAI, prompt: str, more: dict[str, Any], keys: list[str]
) -> None:
    assert list(json.loads(content(client, prompt, **more))) == keys


def test_free_answer_is_a_sentence(client: openai.OpenAI) -> None:
    assert len(content(client, "what?").split()) >= 12


def test_max_tokens_cuts(endpoint: Endpoint, client: openai.OpenAI) -> None:
    reply = ask(client, max_tokens=16)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 16
    assert outcomes(endpoint) == ["spoilt"]


@given(st.text(), st.text(min_size=1))
def test_sentences_are_sentences(prompt: str, key: str) -> None:
    said = sentence(prompt, key)
    assert said == sentence(prompt, key)
    assert said.endswith(".")
    assert len(said.split()) >= 12


def test_sentences_differ() -> None:
    assert len({sentence(f"prompt {n}", "genre") for n in range(5_000)}) == 5_000


@pytest.mark.parametrize(
    ("name", "status", "header"),
    [
        ("429", 429, None),
        ("429 retry-after", 429, "1"),
        ("500", 500, None),
        ("503", 503, None),
    ],
)
def test_statuses(
    endpoint: Endpoint, client: openai.OpenAI, name: str, status: int, header: str | None
) -> None:
    endpoint.rule = always(name)
    with pytest.raises(openai.APIStatusError, match=f"{name} on demand") as caught:
        ask(client)
    assert caught.value.status_code == status
    assert caught.value.response.headers.get("retry-after") == header
    assert outcomes(endpoint) == ["refused"]
    assert endpoint.tokens() == (0, 0)


@pytest.mark.parametrize(
    ("name", "error", "outcome"),
    [
        ("disconnect before", openai.APIConnectionError, "refused"),
        ("disconnect half a body", openai.APIConnectionError, "lost"),
        ("stall", openai.APITimeoutError, "refused"),
    ],
)
def test_broken_lines(
    endpoint: Endpoint,
    client: openai.OpenAI,
    name: str,
    error: type[openai.APIConnectionError],
    outcome: str,
) -> None:
    endpoint.rule = lambda prompt, nth, number: FAULTS[name] if nth == 1 else None
    with pytest.raises(error, match=r"Connection error|timed out"):
        ask(patient(client, name))
    assert content(client)
    assert outcomes(endpoint) == [outcome, "well"]
    assert endpoint.counted()[PROMPT] == 2 - (outcome == "refused")
    assert endpoint.paid_twice() == []


def test_slow_is_slow_and_good(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.rule = lambda prompt, nth, number: replace(FAULTS["slow"], delay_s=0.2)
    started = time.monotonic()
    assert content(client)
    assert time.monotonic() - started >= 0.2
    assert outcomes(endpoint) == ["well"]


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


SPOILT: dict[str, Callable[[str], bool]] = {
    "truncated json": lambda text: text.startswith("{") and not _is_json(text),
    "not json": lambda text: len(text) > 20 and not _is_json(text),
    "empty": lambda text: text == "",
    "refusal text": lambda text: all("can't help" in v for v in json.loads(text).values()),
    "missing factor": lambda text: list(json.loads(text)) == KEYS[:2],
    "wrong language": lambda text: all(" und " in v for v in json.loads(text).values()),
    "echo": lambda text: set(json.loads(text).values()) == {PROMPT},
    "duplicate": lambda text: json.loads(text)["genre"] == sentence("", "genre"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_answers(endpoint: Endpoint, client: openai.OpenAI, name: str) -> None:
    endpoint.rule = always(name)
    reply = ask(client)
    assert SPOILT[name](reply.choices[0].message.content)
    assert reply.choices[0].finish_reason == "stop"
    assert outcomes(endpoint) == ["spoilt"]
    assert endpoint.tokens() == (reply.usage.prompt_tokens, reply.usage.completion_tokens)


ENDS = {
    "length": "length",
    "content_filter": "content_filter",
    "ended: error": "error",
    "ended: max_tokens": "max_tokens",
    "ended: abort": "abort",
    "ended: unknown": None,
    "white space": "length",
}


@pytest.mark.parametrize("name", ENDS)
def test_early_ends(endpoint: Endpoint, client: openai.OpenAI, name: str) -> None:
    endpoint.rule = always(name)
    choice = ask(client).choices[0]
    assert choice.finish_reason == ENDS[name]
    assert choice.message.content.endswith(" \n" * 200) == (name == "white space")
    assert choice.message.content[-1] not in ".}"
    assert outcomes(endpoint) == ["spoilt"]


MOVED = {
    "thoughts": ("reasoning_content", "spoilt"),
    "thoughts by another name": ("reasoning", "spoilt"),
    "answer among thoughts": ("reasoning_content", "well"),
}


@pytest.mark.parametrize("name", MOVED)
def test_texts_in_other_fields(endpoint: Endpoint, client: openai.OpenAI, name: str) -> None:
    endpoint.rule = always(name)
    message, (field, outcome) = ask(client).choices[0].message, MOVED[name]
    assert message.content is None
    assert _is_json(getattr(message, field)) == (outcome == "well")
    assert outcomes(endpoint) == [outcome]


@pytest.mark.parametrize(
    ("name", "reason"), [(None, "stop"), ("stream", "stop"), ("stream of half", "error")]
)
def test_answers_are_streamed_where_they_are_asked_for(
    endpoint: Endpoint, client: openai.OpenAI, name: str | None, reason: str
) -> None:
    endpoint.rule = always(name) if name else None
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == [reason]
    assert _is_json(said) == (reason == "stop")
    usage = chunks[-1].usage
    assert endpoint.tokens() == (usage.prompt_tokens, usage.completion_tokens)


def raw(client: openai.OpenAI, **more: Any) -> str:
    messages: Any = [{"role": "user", "content": PROMPT}]
    create = client.chat.completions.with_raw_response.create
    return create(model="tiny", messages=messages, **more).text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stream", "data: [DONE]"),
        ("stream broken", ": keep-alive"),
        ("error in place of an answer", '"code": 503'),
        ("filtered: 200", '"code": "content_filter"'),
    ],
)
def test_bodies_of_another_kind(
    endpoint: Endpoint, client: openai.OpenAI, name: str, says: str
) -> None:
    endpoint.rule = always(name)
    assert says in raw(client)
    assert ("data: [DONE]" in raw(client)) == (name == "stream")


FIELDS: dict[str, Any] = {
    "temperature": 0.0,
    "top_p": 0.5,
    "seed": 7,
    "stop": ["~"],
    "logprobs": True,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "response_format": FORM,
    "max_tokens": 500,
}


@pytest.mark.parametrize("field", FIELDS)
def test_fields_that_are_refused(endpoint: Endpoint, client: openai.OpenAI, field: str) -> None:
    endpoint.rule = always(f"{field} refused")
    with pytest.raises(openai.BadRequestError, match=r"(?i)not support|unknown name"):
        ask(client, **{field: FIELDS[field]})
    assert content(client)
    assert outcomes(endpoint) == ["refused", "well"]


def test_a_pause_in_the_body_alone(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.rule = always("429 retryDelay")
    with pytest.raises(openai.RateLimitError, match="429") as caught:
        ask(client)
    assert caught.value.response.json()[0]["error"]["details"] == [{"retryDelay": "0.05s"}]
    assert "retry-after" not in caught.value.response.headers
    assert outcomes(endpoint) == ["refused"]


@pytest.mark.parametrize("name", ["thoughts apart", "prompts cut"])
def test_bills_of_another_kind(endpoint: Endpoint, client: openai.OpenAI, name: str) -> None:
    usual = ask(client).usage
    endpoint.rule = always(name)
    reply = ask(client)
    assert _is_json(reply.choices[0].message.content)
    assert outcomes(endpoint) == ["well", "well"]
    extra = reply.usage.total_tokens - reply.usage.prompt_tokens - reply.usage.completion_tokens
    assert (extra > 0) == (name == "thoughts apart")
    assert (reply.usage.prompt_tokens < usual.prompt_tokens) == (name == "prompts cut")


def test_a_model_that_only_streams(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.rule = always("only streams")
    with pytest.raises(openai.BadRequestError, match="only support stream mode"):
        ask(client)
    assert list(ask(client, stream=True))


SHAPES = {
    **{f"400: {shape}": 400 for shape in ("a list", "a string", "plain text", "a page")},
    **{f"400: {shape}": 400 for shape in ("nested", "faults")},
    **{f"filtered: {shape}": 400 for shape in ("an object", "a list", "words only", "nested")},
    "filtered: 403": 403,
    "json_schema 400 in silence": 400,
}


@pytest.mark.parametrize("name", SHAPES)
def test_refusals_of_all_shapes(endpoint: Endpoint, client: openai.OpenAI, name: str) -> None:
    endpoint.rule = always(name)
    with pytest.raises(openai.APIStatusError, match=r".") as caught:
        ask(client, response_format=FORM)
    assert caught.value.status_code == SHAPES[name]
    said = caught.value.response.text.lower()
    assert said == "" if "silence" in name else "filter" in said or "7" in said or "flag" in said
    assert outcomes(endpoint) == ["refused"]


def test_refusal_field(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.rule = always("refusal field")
    message = ask(client).choices[0].message
    assert (message.content, message.refusal) == (None, "I can't help with that.")


def test_bodies_that_are_no_completions(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.rule = always("no choices")
    assert ask(client).choices == []
    endpoint.rule = always("html body")
    raw = client.chat.completions.with_raw_response
    reply = raw.create(model="tiny", messages=[{"role": "user", "content": "what?"}])
    assert reply.text.startswith("<html>")
    assert reply.headers["content-type"] == "text/html"
    assert outcomes(endpoint) == ["refused", "refused"]


def test_faults_of_a_form_spare_other_forms(endpoint: Endpoint, client: openai.OpenAI) -> None:
    for name in ("json_schema 500", "json_schema 500 in silence"):
        endpoint.rule = always(name)
        with pytest.raises(openai.InternalServerError, match=r"json_schema 500|Error code: 500"):
            ask(client, response_format=FORM)
    assert list(json.loads(content(client, response_format={"type": "json_object"}))) == KEYS
    endpoint.rule = always("json_schema ignored")
    assert not set(KEYS) & set(json.loads(content(client, response_format=FORM)))
    assert list(json.loads(content(client))) == KEYS
    assert outcomes(endpoint) == ["refused", "refused", "well", "spoilt", "well"]
    for name in ("json_schema white space", "json_schema thoughts"):
        endpoint.rule = always(name)
        assert not _is_json(str(ask(client, response_format=FORM).choices[0].message.content))
        assert list(json.loads(content(client))) == KEYS


def test_all_faults_are_tried_here() -> None:
    named = {"429", "429 retry-after", "500", "503", "slow", *ENDS, *MOVED, *SHAPES}
    named |= {f"{field} refused" for field in FIELDS} | {"stream", "stream of half"}
    named |= {"stream broken", "error in place of an answer", "filtered: 200", "only streams"}
    named |= {"429 retryDelay", "thoughts apart", "prompts cut"}
    named |= {"json_schema 500 in silence", "json_schema white space", "json_schema thoughts"}
    named |= {"disconnect before", "disconnect half a body", "stall", "refusal field"}
    named |= {"no choices", "html body", "json_schema 500", "json_schema ignored", *SPOILT}
    assert named == set(FAULTS)


def test_rule_knows_a_prompt_again(endpoint: Endpoint, client: openai.OpenAI) -> None:
    seen = []
    endpoint.rule = lambda *given: seen.append(given)
    for prompt in (PROMPT, "what?", f"{PROMPT}\n\nThat could not be used.", "what?"):
        ask(client, prompt)
    assert seen == [(PROMPT, 1, 1), ("what?", 1, 2), (PROMPT, 2, 3), ("what?", 2, 4)]
    assert endpoint.counted() == {PROMPT: 2, "what?": 2}
    assert sorted(endpoint.paid_twice()) == sorted([PROMPT, "what?"])
    assert endpoint.prompts[2] == f"{PROMPT}\n\nThat could not be used."


def together(endpoint: Endpoint, count: int) -> list[openai.APIStatusError | None]:
    """Ask that many prompts at once; the errors."""

    async def run() -> list[openai.APIStatusError | None]:
        async with openai.AsyncOpenAI(api_key="k", base_url=endpoint.url, max_retries=0) as client:
            return await asyncio.gather(*(one(client, n) for n in range(count)))

    async def one(client: openai.AsyncOpenAI, n: int) -> openai.APIStatusError | None:
        try:
            messages: Any = [{"role": "user", "content": f"prompt {n}"}]
            await client.chat.completions.create(model="tiny", messages=messages)
        except openai.APIStatusError as error:
            return error
        return None

    return asyncio.run(run())


def test_allowed_at_once() -> None:
    with Endpoint(delay_s=0.5, allowed_at_once=4) as endpoint:
        errors = together(endpoint, 12)
    assert sum(error is None for error in errors) == 4
    assert {error.status_code for error in errors if error is not None} == {429}
    assert endpoint.records() == {
        "calls": 12,
        "outcomes": {"well": 4},
        "refused_by_limits": 8,
        "paid_twice": 0,
        "most_at_once": endpoint.max_in_flight,
        "seconds": endpoint.times[-1] - endpoint.times[0],
    }
    assert 5 <= endpoint.max_in_flight <= 12


def test_requests_per_minute_are_told() -> None:
    with Endpoint(requests_per_minute=60, burst=0.05) as endpoint:
        errors = together(endpoint, 4)
    [refused] = [error for error in errors if error is not None]
    headers = refused.response.headers
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 0 < int(headers["retry-after-ms"]) <= 1000
    assert headers["retry-after"] == "1"


def test_limits_take_what_is_there() -> None:
    limits = Limits(tokens_per_minute=6_000, retry_after=False)
    allowed, headers = limits.take(1, 5_900)
    assert allowed
    assert headers["x-ratelimit-remaining-tokens"] == "100"
    assert headers["x-ratelimit-reset-tokens"] == "59s"
    assert limits.take(1, 500) == (False, limits.take(1, 500)[1])
    assert "retry-after" not in limits.take(1, 500)[1]


@given(st.integers(0, 90_000_000))
def test_durations_can_be_read_back(ms: int) -> None:
    text, seconds = duration(ms / 1000), 0.0
    for unit, factor in (("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        number, found, rest = text.partition(unit)
        if found:
            seconds, text = seconds + float(number) * factor, rest
    assert text == ""
    assert seconds == pytest.approx(ms / 1000, abs=1e-6)


def test_what_cannot_be_read_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be read"):
        client.chat.completions.create(model="tiny", messages=5)  # type: ignore[call-overload]
    with pytest.raises(openai.NotFoundError, match="no GET /v1/nothing here"):
        client.get("/nothing", cast_to=object)


def test_closing_breaks_calls_under_way() -> None:
    endpoint = Endpoint(delay_s=60)

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=endpoint.url, max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "what?"}]
            call = asyncio.create_task(
                client.chat.completions.create(model="tiny", messages=messages)
            )
            while not endpoint.bodies:
                await asyncio.sleep(0.01)
            endpoint.close()
            with pytest.raises(openai.APIConnectionError, match="Connection error"):
                await call

    asyncio.run(run())


def test_answer_to_a_client_that_has_gone_is_lost() -> None:
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "what?"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
    with Endpoint(delay_s=1.0) as endpoint:
        host, port = endpoint.url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as line:
            line.sendall(f"{head}{body}".encode())
            wait_until(lambda: len(endpoint.bodies) == 1)
        wait_until(lambda: len(endpoint.bill) == 1)
    assert outcomes(endpoint) == ["lost"]
    assert endpoint.counted() == {"what?": 1}
    assert endpoint.answered_well() == {}


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_in_a_process_of_its_own() -> None:
    with serving("--allowed", "3") as url, openai.OpenAI(api_key="k", base_url=url) as client:
        assert content(client)
        records: Any = client.get(url.replace("/v1", "/records"), cast_to=object)
    assert records["outcomes"] == {"well": 1}


# --- the Batch API


def lines(count: int, **more: Any) -> bytes:
    rows = []
    for n in range(count):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"prompt {n}"}]}
        row = {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        rows.append(json.dumps({**row, **more}))
    return "\n".join(rows).encode()


def start(client: openai.OpenAI, content: bytes, **metadata: str) -> Batch:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata=metadata,
    )


def watch(client: openai.OpenAI, batch: Batch) -> tuple[Batch, list[str]]:
    """Look until it ends; the states seen."""
    states = [batch.status]
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        batch = client.batches.retrieve(batch.id)
        states.append(batch.status)
    return batch, list(dict.fromkeys(states))


def rows(client: openai.OpenAI, name: str | None) -> list[dict[str, Any]]:
    text = client.files.content(name).text if name else ""
    return [json.loads(line) for line in text.splitlines()]


def test_a_batch_there_and_back(endpoint: Endpoint, client: openai.OpenAI) -> None:
    batch, states = watch(client, start(client, lines(20), run="r1"))
    assert states == ["validating", "in_progress", "finalizing", "completed"]
    assert batch.metadata == {"run": "r1"}
    assert batch.error_file_id is None
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"completed": 20, "failed": 0, "total": 20}
    output = rows(client, batch.output_file_id)
    names = [row["custom_id"] for row in output]
    assert names != [f"c{n}" for n in range(20)]
    assert sorted(names) == sorted(f"c{n}" for n in range(20))
    [first] = [row for row in output if row["custom_id"] == "c0"]
    said = first["response"]["body"]["choices"][0]["message"]["content"]
    assert said == content(client, "prompt 0")
    assert {call.via for call in endpoint.bill} == {batch.id, "online"}
    assert endpoint.paid_twice() == ["prompt 0"]


def test_file_is_kept_as_it_came(client: openai.OpenAI) -> None:
    raw = lines(2) + b"\r\n"
    file = client.files.create(file=("in.jsonl", raw), purpose="batch")
    assert client.files.content(file.id).read() == raw
    assert client.files.retrieve(file.id).bytes == len(raw)
    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError, match=file.id):
        client.files.content(file.id)


def test_lines_meet_the_faults_of_calls(endpoint: Endpoint, client: openai.OpenAI) -> None:
    faults = ["500", "disconnect before", "disconnect half a body", "stall", "length"]
    table = {f"prompt {n}": FAULTS[name] for n, name in enumerate(faults)}
    endpoint.rule = lambda prompt, nth, number: table.get(prompt)
    batch, _ = watch(client, start(client, lines(7)))
    good = {row["custom_id"]: row["response"]["body"] for row in rows(client, batch.output_file_id)}
    bad = {row["custom_id"]: row for row in rows(client, batch.error_file_id)}
    assert sorted(good) == ["c4", "c5", "c6"]
    assert good["c4"]["choices"][0]["finish_reason"] == "length"
    assert bad["c0"]["response"]["status_code"] == 500
    assert bad["c0"]["response"]["body"]["error"]["message"] == "500 on demand"
    assert bad["c1"]["error"]["code"] == "batch_internal_error"
    assert bad["c3"]["error"]["code"] == "batch_expired"
    assert sorted(bad) == ["c0", "c1", "c3"]
    assert sorted(endpoint.counted()) == ["prompt 2", "prompt 4", "prompt 5", "prompt 6"]


@pytest.mark.parametrize(
    ("end", "good", "late_count"),
    [
        (End(), 10, 0),
        (End("expired", share=0.3), 3, 7),
        (End(missing=2), 8, 0),
        (End("cancelled", share=0.0), 0, 10),
        (End("failed"), 0, 0),
    ],
)
def test_ends(
    endpoint: Endpoint, client: openai.OpenAI, end: End, good: int, late_count: int
) -> None:
    endpoint.batches.ends = lambda number: end
    batch, _ = watch(client, start(client, lines(10)))
    assert batch.status == end.status
    assert len(rows(client, batch.output_file_id)) == good
    assert len(rows(client, batch.error_file_id)) == late_count
    assert sum(endpoint.counted().values()) == good + end.missing
    codes = [error.code for error in (batch.errors.data or [])] if batch.errors else []
    assert codes == (["token_limit_exceeded"] if end.status == "failed" else [])


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_length"),
        (lines(4), "invalid_length"),
        (b"{", "invalid_json_line"),
        (b'{"custom_id": "1"}', "missing_required_parameter"),
        (lines(2, custom_id="1"), "duplicate_custom_id"),
        (lines(1, url="/v1/embeddings"), "invalid_url"),
        (lines(1) + b"\n" + lines(1, custom_id="2", body={"model": "b"}), "mismatched_model"),
    ],
)
def test_bad_input_fails_the_batch(
    endpoint: Endpoint, client: openai.OpenAI, content: bytes, code: str
) -> None:
    endpoint.batches.lines_max = 3
    batch, states = watch(client, start(client, content))
    assert states == ["validating", "failed"]
    assert batch.errors is not None
    assert code in [error.code for error in batch.errors.data or []]
    assert endpoint.bill == []


def test_enqueued_tokens_are_limited(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.batches.enqueued_max = 30  # a line has two tokens
    first, second = start(client, lines(10)), start(client, lines(10))
    assert watch(client, second)[0].status == "failed"
    assert watch(client, first)[0].status == "completed"
    assert watch(client, start(client, lines(10)))[0].status == "completed"


def test_a_batch_takes_its_time(endpoint: Endpoint, client: openai.OpenAI) -> None:
    endpoint.batches.delay_s, endpoint.batches.polls = 0.2, 3
    started = time.monotonic()
    batch = start(client, lines(1))
    polls = 0
    while batch.status != "completed":
        batch, polls = client.batches.retrieve(batch.id), polls + 1
    assert time.monotonic() - started >= 0.2
    assert polls >= 12


@pytest.mark.parametrize(("polls", "good"), [(0, 0), (2, 5)])
def test_cancelling(endpoint: Endpoint, client: openai.OpenAI, polls: int, good: int) -> None:
    batch = start(client, lines(10))
    for _ in range(polls):
        client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    ended, _ = watch(client, client.batches.retrieve(batch.id))
    assert ended.status == "cancelled"
    assert len(rows(client, ended.output_file_id)) == good
    with pytest.raises(openai.ConflictError, match="the batch is cancelled"):
        client.batches.cancel(batch.id)


def test_batches_are_listed_newest_first(client: openai.OpenAI) -> None:
    made = [start(client, lines(1), n=str(n)).id for n in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    page = client.batches.list(limit=2, after=made[3])
    assert [(batch.metadata or {})["n"] for batch in page.data] == ["2", "1"]
    assert page.has_more


@pytest.mark.parametrize(
    ("method", "path", "made"),
    [
        ("POST", "/v1/files", 0),
        ("POST", "/v1/batches", 0),
        ("GET", "/v1/batches/batch_000001", 1),
        ("GET", "/v1/files/file-000002/content", 1),
    ],
)
@pytest.mark.parametrize("name", ["429 retry-after", "500", "disconnect before", "stall"])
def test_requests_meet_faults(
    endpoint: Endpoint, client: openai.OpenAI, method: str, path: str, made: int, name: str
) -> None:
    def there_and_back(by: openai.OpenAI) -> int:
        batch, _ = watch(by, start(by, lines(1)))
        return len(rows(by, batch.output_file_id))

    endpoint.path_rule = lambda *given: FAULTS[name] if given == (method, path, 1) else None
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError), match=r".") as caught:
        there_and_back(patient(client, name))
    status = getattr(caught.value, "status_code", None)
    assert status == (int(name[:3]) if name[0] in "45" else None)
    assert len(endpoint.batches.all) == made
    assert there_and_back(client) == 1


def test_a_broken_reply_leaves_the_batch_made(endpoint: Endpoint, client: openai.OpenAI) -> None:
    def rule(method: str, path: str, nth: int) -> Fault | None:
        is_first = (method, path, nth) == ("POST", "/v1/batches", 1)
        return FAULTS["disconnect half a body"] if is_first else None

    endpoint.path_rule = rule
    with pytest.raises(openai.APIConnectionError, match="Connection error"):
        start(client, lines(3), run="lost")
    [found] = client.batches.list()
    assert found.metadata == {"run": "lost"}
    assert watch(client, found)[0].status == "completed"
