"""The faults that the endpoint has on demand, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.llm import server_texts as texts
from tests.llm.server_texts import Question

#: What is done to the line: nothing; closed without a reply; closed after half a body (the call
#: was made, and its effect stays); silent until the client goes.
Line = Literal["", "drop", "half", "stall"]
_BUSY = "<html><head><title>502</title></head><body>Bad gateway</body></html>"


@dataclass(frozen=True)
class Fault:
    """A fault; ``dataclasses.replace`` makes one of another strength.

    Attributes:
        name: its name.
        status: the reply's status; anything but 200 counts nothing.
        line: what is done to the line.
        delay_s: seconds until the reply, on top of the endpoint's own.
        headers: further headers of the reply.
        spoil: turns a good completion into the body that is sent; None: it stays good.
        is_counted: whether the tokens are counted, as they are wherever an answer was made.
        form: the only form of answer that has the fault; None: any.
    """

    name: str
    status: int = 200
    line: Line = ""
    delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    spoil: Callable[[Question, dict[str, Any]], dict[str, Any] | str] | None = None
    is_counted: bool = True
    form: str | None = None

    @property
    def is_harmless(self) -> bool:
        """Whether a good answer comes whole."""
        return self.status == 200 and not self.line and self.spoil is None

    def error(self) -> dict[str, Any]:
        """The reply's body where there is no answer."""
        return error_body(f"{self.name} on demand", _CODES.get(self.status, "server_error"))


def error_body(message: str, code: str) -> dict[str, Any]:
    """An error, in OpenAI's form."""
    return {"error": {"message": message, "type": code, "param": None, "code": code}}


def completion(question: Question, content: str) -> dict[str, Any]:
    """A whole reply; one that passes the request's ``max_tokens`` is cut there."""
    reason, most = "stop", question.max_tokens
    if most is not None and texts.tokens_of(len(content)) > most:
        content, reason = content[: 4 * most], "length"
    asked, said = texts.tokens_of(question.chars), texts.tokens_of(len(content))
    message = {"role": "assistant", "content": content, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": question.model,
        "choices": [
            {"index": 0, "finish_reason": reason, "message": message, "logprobs": None},
        ],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


_CODES = {400: "invalid_request_error", 429: "rate_limit_exceeded", 503: "overloaded"}


def _saying(say: Callable[[Question], str]) -> Callable[[Question, dict[str, Any]], dict[str, Any]]:
    return lambda question, body: completion(question, say(question))


def _cut(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    content = body["choices"][0]["message"]["content"]
    return completion(question, content[: len(content) // 2])


def _ended(reason: str) -> Callable[[Question, dict[str, Any]], dict[str, Any]]:
    def spoil(question: Question, body: dict[str, Any]) -> dict[str, Any]:
        half = _cut(question, body)
        half["choices"][0]["finish_reason"] = reason
        return half

    return spoil


def _refusing(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    spoilt = completion(question, "")
    spoilt["choices"][0]["message"].update(content=None, refusal="I can't help with that.")
    return spoilt


def _headless(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "choices": [], "usage": None}


_ALL = (
    Fault("429", 429, is_counted=False),
    Fault("429 retry-after", 429, headers={"retry-after": "1"}, is_counted=False),
    Fault("500", 500, is_counted=False),
    Fault("503", 503, is_counted=False),
    Fault("disconnect before", line="drop", is_counted=False),
    Fault("disconnect half a body", line="half"),
    Fault("stall", line="stall", is_counted=False),
    Fault("slow", delay_s=1.0),
    Fault("truncated json", spoil=_cut),
    Fault("not json", spoil=_saying(lambda q: texts.sentence(q.prompt, "all of this"))),
    Fault("empty", spoil=_saying(lambda q: "")),
    Fault("length", spoil=_ended("length")),
    Fault("content_filter", spoil=_ended("content_filter")),
    Fault("refusal field", spoil=_refusing),
    Fault("refusal text", spoil=_saying(texts.refused)),
    Fault("missing factor", spoil=_saying(texts.without_one)),
    Fault("wrong language", spoil=_saying(texts.german)),
    Fault("echo", spoil=_saying(texts.repeated)),
    Fault("duplicate", spoil=_saying(texts.same_for_all)),
    Fault(
        "html body", headers={"content-type": "text/html"}, spoil=lambda q, b: _BUSY,
        is_counted=False,
    ),
    Fault("no choices", spoil=_headless, is_counted=False),
    Fault("json_schema ignored", spoil=_saying(texts.of_its_own_form), form="json_schema"),
    Fault("json_schema 500", 500, is_counted=False, form="json_schema"),
)  # fmt: skip

#: All faults by name.
FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}


def encoded(body: Mapping[str, Any] | str) -> bytes:
    """A body's bytes."""
    return (body if isinstance(body, str) else json.dumps(body)).encode()
