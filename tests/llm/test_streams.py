"""Streams of events as servers send them, read as one completion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.llm.streams import is_stream, join_events
from tests.llm.server_bodies import completion, streamed
from tests.llm.server_texts import Question

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = "data: [DONE]"


def event(body: Any) -> str:
    return f"data: {json.dumps(body)}"


def piece(**delta: Any) -> str:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def message(*lines: str, end: str = "\n\n") -> dict[str, Any]:
    body = join_events(end.join(lines))
    assert body is not None
    made: dict[str, Any] = body["choices"][0]["message"]
    return made


@pytest.mark.parametrize("end", ["\n\n", "\n", "\r\n\r\n", "\r\r"])
def test_pieces_are_joined(end: str) -> None:
    lines = (": hello", piece(role="assistant"), piece(content="No"), piece(content="ir\u2028."))
    assert message(*lines, event(STOP), DONE, end=end) == {"content": "Noir\u2028."}


@pytest.mark.parametrize(
    ("lines", "made"),
    [
        ([piece(content=[{"type": "text", "text": "a"}]), piece(content="b")], {"content": "ab"}),
        ([piece(reasoning_content="hm"), piece(content="a")],
         {"reasoning_content": "hm", "content": "a"}),
        ([piece(refusal="I "), piece(refusal="won't.")], {"refusal": "I won't."}),
        ([event({"choices": [{"message": {"content": "whole"}}]})], {"content": "whole"}),
        ([piece(content="a"), event({"choices": [{"index": 1, "delta": {"content": "x"}}]})],
         {"content": "a"}),
        (["event: message", "id: 1", piece(content="a"), event({"choices": None})],
         {"content": "a"}),
        (["data:" + piece(content="a")[6:]], {"content": "a"}),
        ([], {}),
    ],
)  # fmt: skip
def test_pieces_of_all_kinds(lines: list[str], made: dict[str, str]) -> None:
    assert message(*lines, event(STOP)) == made


def test_usage_and_model() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 5}
    lines = (event({**STOP, "usage": {"prompt_tokens": 7}}), event({"usage": usage, "model": "m"}))
    body = join_events("\n\n".join([*lines, event({"usage": None}), DONE]))
    assert body is not None
    assert (body["usage"], body["model"]) == (usage, "m")
    assert body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "lines", [[piece(content="No")], [piece(content="No"), "data: {half"], [": hello"], [""]]
)
def test_a_stream_without_its_end(lines: list[str]) -> None:
    assert join_events("\n\n".join(lines)) is None


def test_an_end_that_gives_no_reason() -> None:
    body = join_events("\n\n".join([piece(content="No"), DONE]))
    assert body is not None
    assert body["choices"][0]["finish_reason"] is None


def test_a_bill_that_comes_in_parts() -> None:
    parts = [{"input_tokens": 20, "output_tokens": 1}, {"output_tokens": 198}]
    events = [event({"choices": [], "usage": part}) for part in parts]
    body = join_events("\n\n".join([piece(content="No"), *events, DONE]))
    assert body is not None
    assert body["usage"] == {"input_tokens": 20, "output_tokens": 198}


@pytest.mark.parametrize("before", [[], [piece(content="No")]])
def test_an_error_within_a_stream(before: list[str]) -> None:
    body = join_events("\n\n".join([*before, event({"error": {"message": "gone", "code": 502}})]))
    assert body is not None
    assert body["error"]["message"] == "gone"
    reasons = [choice["finish_reason"] for choice in body.get("choices", ())]
    assert reasons == ["error"] * len(before)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [(DONE, True), (": hi", True), ("event: x", True), ('{"a": ":"}', False), ("<p>", False)],
)
def test_what_is_a_stream(text: str, is_one: bool) -> None:
    assert is_stream(text) is is_one


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_any_answer_comes_through(content: str) -> None:
    asked = Question("", "", (), "", 0, None, "m")
    body = join_events(streamed({**completion(asked, content), "model": "m"}))
    assert body is not None
    assert body["choices"][0]["message"] == {"content": content}
