"""Bodies of errors, in the shapes of servers in use, and what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.llm.error_bodies import ErrorBody, parse_error_body
from reki_feast.llm.wire import is_content_filter

OPENAI = {
    "error": {
        "message": "Unsupported value: 'temperature' does not support 0.0 with this model.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "unsupported_value",
    }
}
GOOGLE = [{"error": {"code": 400, "message": "No such size.", "status": "INVALID_ARGUMENT"}}]
FASTAPI = {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs", "input": "a secret prompt"}]}
MISTRAL = {"object": "error", "message": FASTAPI, "type": "invalid_request_error", "code": None}
PAGE = """<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>h1 {color: red}</style>
</head><body><script>run();</script><center>nginx</center></body></html>"""


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (OPENAI, OPENAI["error"]["message"]),
        (GOOGLE, "No such size."),
        (FASTAPI, "body.seed: Extra inputs"),
        (MISTRAL, "body.seed: Extra inputs"),
        ({"detail": "Not today"}, "Not today"),
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"Message": "User is not authorized"}, "User is not authorized"),
        ({"errors": [{"code": 7003, "message": "No route"}], "success": False}, "No route"),
        ({"error": {"message": "upstream", "metadata": {"raw": json.dumps(OPENAI)}}},
         f"upstream; {OPENAI['error']['message']}"),
        ({"error": {"cause": json.dumps(GOOGLE), "message": "it failed"}},
         "No such size.; it failed"),
        ({"error": {"message": "busy", "details": [{"message": "so busy"}]}}, "so busy"),
        ({"error": {"code": "quota_exceeded"}}, "quota_exceeded"),
        ({"strange": "shape"}, '{"strange": "shape"}'),
        (["one", "two"], "one; two"),
        ("plain\n  words", "plain words"),
        (PAGE, "502 Bad Gateway nginx"),
        ("<?xml version='1.0'?><Error><Message>No key</Message></Error>", "No key"),
        ("\ufeff" + json.dumps(GOOGLE), "No such size."),
        ("{half", "{half"),
        ("[" * 100_000, "[" * 100_000),
        ({}, ""),
        ("", ""),
    ],
)  # fmt: skip
def test_sentences(body: Any, sentence: str) -> None:
    assert parse_error_body(body if isinstance(body, str) else json.dumps(body)).message == sentence


def test_codes_and_fields() -> None:
    said = parse_error_body(json.dumps(OPENAI))
    assert said.codes == {"invalid_request_error", "unsupported_value"}
    assert said.fields == {"temperature"}
    assert "'temperature' does not support" in said.words
    assert parse_error_body(json.dumps(GOOGLE)).codes == {"400", "invalid_argument"}
    assert parse_error_body(json.dumps(MISTRAL)).fields == {"body", "seed"}
    assert parse_error_body('{"param": "response_format.json_schema"}').fields == {
        "response_format",
        "json_schema",
    }


def test_what_was_sent_is_not_quoted_back() -> None:
    said = parse_error_body(json.dumps(FASTAPI))
    assert "secret" not in said.message + said.words


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "message", "loc", "msg", "code"])
    | st.text(), inner, max_size=3), max_leaves=12))  # fmt: skip
def test_any_body_can_be_read(body: Any) -> None:
    said = parse_error_body(json.dumps(body))
    assert isinstance(said, ErrorBody)
    assert "\n" not in said.message


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert "\n" not in parse_error_body(text).message


AZURE = {
    "error": {
        "code": "content_filter",
        "param": "prompt",
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": True}},
        },
    }
}


@pytest.mark.parametrize(
    ("status", "body", "is_one"),
    [
        (400, AZURE, True),
        (400, [AZURE], True),
        (200, AZURE, True),
        (500, AZURE, True),
        (400, {"error": {"message": "Content Exists Risk"}}, True),
        (400, {"error": {"code": "data_inspection_failed", "message": "it was refused"}}, True),
        (400, {"error": {"message": "Invalid prompt: your prompt was flagged as potentially "
                                    "violating our usage policy."}}, True),
        (400, {"error": {"message": "litellm.ContentPolicyViolationError", "code": "400",
                         "provider_specific_fields": AZURE}}, True),
        (403, {"error": {"message": "requires moderation, and your input was flagged"}}, True),
        (400, {"error": {"code": "1301", "message": "可能包含不安全或敏感内容"}}, True),
        (403, {"error": {"message": "You have no access to the model."}}, False),
        (401, {"error": {"message": "content_filter"}}, False),
        (429, {"error": {"message": "usage policy: too many requests"}}, False),
        (500, {"error": {"message": "the content filter broke down"}}, False),
        (400, OPENAI, False),
        (400, GOOGLE, False),
    ],
)  # fmt: skip
def test_refusals_by_a_filter(status: int, body: Any, is_one: bool) -> None:
    assert is_content_filter(parse_error_body(json.dumps(body)), status) is is_one
