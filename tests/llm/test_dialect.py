"""Which field a refusal is about, and how calls are written then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reki_feast.llm.dialect import Dialect, refused_field
from reki_feast.llm.error_bodies import parse_error_body

SENT = ["model", "messages", "temperature", "top_p", "seed", "stop", "presence_penalty",
        "stream_options", "response_format", "max_tokens"]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "field"),
    [
        # of a value and of a name, quoted, bare and in other spellings
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature"),
        ("invalid temperature: only 1 is allowed for this model", "temperature"),
        ("Input validation error: `temperature` must be strictly positive", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model", "temperature"),
        ("temperature is deprecated for this model", "temperature"),
        ("Argument not supported on this model: presencePenalty", "presence_penalty"),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed"),
        ("Unsupported parameter: seed", "seed"),
        ("stop is not supported by this model", "stop"),
        ("Extra parameters ['seed'] are not allowed", "seed"),
        ("Unknown parameter: 'stream_options'", "stream_options"),
        # words that are the names of fields
        ("the request must not stop here: it is invalid", ""),
        ("Invalid request: a seed of doubt", ""),
        ("temperature readings were logged", ""),
        # forms of answers
        ("Unsupported parameter: response_format", "response_format"),
        ("json_schema is not available here", "response_format"),
        ("unknown format", "response_format"),
        ("Schema is too complex for serving", "response_format"),
        ("This model does not support structured outputs", "response_format"),
        ("'messages' must contain the word 'json' to use 'response_format'", "response_format"),
        # the most tokens
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("use 'max_completion_tokens' instead", "max_tokens"),
        ("'max_tokens' or 'max_completion_tokens' is too large: 4096", ""),
        ("max_tokens must be less than 2048", ""),
        ("This model's maximum context length is 4096 tokens", ""),
        # streams
        ("This model only support stream mode, please enable the stream parameter", "stream"),
        ("parameter.enable_thinking must be set to false for non-streaming calls", "stream"),
        ("this model requires streaming: set stream=true", "stream"),
        # nothing of the kind
        ("prompt too long", ""),
        ("the model 'x' does not exist", ""),
        ("Invalid value for 'messages[0].content'", ""),
        ("", ""),
    ],
)
def test_which_field_is_refused(said: str, field: str) -> None:
    assert refused_field(parse_error_body(said), SENT) == field
    assert refused_field(parse_error_body(json.dumps({"error": {"message": said}})), SENT) == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"error": {"message": "no", "param": "top_p"}}, "top_p"),
        ({"error": {"message": "no", "param": "response_format.type"}}, "response_format"),
        ({"error": {"message": "no", "param": "max_tokens", "code": "unsupported_parameter"}},
         "max_tokens"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        ({"error": {"message": "no", "param": "messages"}}, ""),
        ({"error": {"message": "no", "param": "frequency_penalty"}}, ""),
    ],
)  # fmt: skip
def test_a_field_that_is_pointed_at(body: Any, field: str) -> None:
    assert refused_field(parse_error_body(json.dumps(body)), SENT) == field


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("'temperature' is not supported", ["model", "messages", "max_tokens"]),
        ("unknown format", ["model", "messages", "max_tokens"]),
        ("use 'max_completion_tokens'", ["model", "messages", "max_completion_tokens"]),
        ("only supports stream mode", ["model", "messages", "stream"]),
    ],
)
def test_what_was_not_sent_is_not_left_out(said: str, sent: list[str]) -> None:
    assert refused_field(parse_error_body(said), sent) == ""


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (Dialect("json_schema", "max_tokens"), "json_schema max_tokens"),
        (Dialect("off", "max_completion_tokens"), "off max_completion_tokens"),
        (Dialect("off", "max_tokens", frozenset({"top_p", "seed"})), "off max_tokens seed top_p"),
    ],
)
def test_a_style_as_the_ledger_keeps_it(dialect: Dialect, text: str) -> None:
    assert str(dialect) == text
    assert Dialect.of(text) == dialect


@pytest.mark.parametrize("text", ["", "json_schema", "yaml max_tokens", " max_tokens"])
def test_texts_that_are_no_style(text: str) -> None:
    assert Dialect.of(text) is None


def test_bodies() -> None:
    body = {"model": "m", "temperature": 0.0, "seed": 7}
    assert Dialect("off").written(body, 9) == {**body, "max_tokens": 9}
    bare = Dialect("off", "max_completion_tokens", frozenset({"seed", "temperature"}))
    assert bare.written(body, 9) == {"model": "m", "max_completion_tokens": 9}
    streamed = Dialect("off", streams=True).written({"model": "m"}, 9)
    assert streamed["stream"] is True
    assert streamed["stream_options"] == {"include_usage": True}
    without = Dialect("off", omitted_fields=frozenset({"stream_options"}), streams=True)
    assert without.written({}, 9) == {"max_tokens": 9, "stream": True}
