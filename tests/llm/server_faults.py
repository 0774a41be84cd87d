"""The faults that the endpoint has on demand, by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.llm import server_bodies as bodies
from tests.llm import server_texts as texts
from tests.llm.server_bodies import Body, Spoil
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
        field: only calls with this field of the body have it; None: any.
        lacks: only calls without this field of the body have it; None: any.
        said: the error's body; None: one in OpenAI's form.
        streams: whether the reply comes as a stream of events.
        is_readable: whether the spoilt reply still holds a good answer.
    """

    name: str
    status: int = 200
    line: Line = ""
    delay_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    spoil: Spoil | None = None
    is_counted: bool = True
    form: str | None = None
    field: str | None = None
    lacks: str | None = None
    said: Body | None = None
    streams: bool = False
    is_readable: bool = False

    @property
    def is_harmless(self) -> bool:
        """Whether a good answer comes whole."""
        return self.status == 200 and not self.line and self.spoil is None

    def meets(self, question: Question) -> bool:
        """Whether a call has it."""
        fits_form = self.form in (None, question.form)
        fits_field = self.field is None or self.field in question.fields
        return fits_form and fits_field and self.lacks not in question.fields

    def error(self) -> Body:
        """The reply's body where there is no answer."""
        if self.said is not None:
            return self.said
        return bodies.error_body(f"{self.name} on demand", _CODES.get(self.status, "server_error"))


_CODES = {400: "invalid_request_error", 429: "rate_limit_exceeded", 503: "overloaded"}


def _refusing_field(field: str, said: str, **more: Any) -> Fault:
    """A server whose model does not take a field, whatever its value."""
    told = bodies.error_body(said, "unsupported_value")
    told["error"] |= more
    return Fault(f"{field} refused", 400, is_counted=False, field=field, said=told)


def _not_taking(field: str) -> Fault:
    said = f"Unsupported parameter: '{field}' is not supported with this model."
    return _refusing_field(field, said)


FILTERED_SAYS = "The response was filtered due to the prompt triggering a content management policy"
_FILTERED = bodies.error_body(FILTERED_SAYS, "content_filter")
#: What the bodies below say.
QUOTED_SAYS = "the number 7 is not to our liking"
_QUOTED = {"code": 400, "message": QUOTED_SAYS, "status": "INVALID_ARGUMENT"}
#: A pause that stands in the body alone, as Google has it.
_EXHAUSTED = [{"error": {"code": 429, "message": "no more", "details": [{"retryDelay": "0.05s"}]}}]
_QUOTED_RAW = json.dumps({"error": _QUOTED})


def _filtering(name: str, said: Body, status: int = 400) -> Fault:
    return Fault(f"filtered: {name}", status, is_counted=False, said=said)


def _quoting(name: str, said: Body) -> Fault:
    return Fault(f"400: {name}", 400, is_counted=False, said=said)


_ALL = (
    Fault("429", 429, is_counted=False),
    Fault("429 retry-after", 429, headers={"retry-after": "1"}, is_counted=False),
    Fault("500", 500, is_counted=False),
    Fault("503", 503, is_counted=False),
    Fault("disconnect before", line="drop", is_counted=False),
    Fault("disconnect half a body", line="half"),
    Fault("stall", line="stall", is_counted=False),
    Fault("slow", delay_s=1.0),
    Fault("truncated json", spoil=bodies.cut),
    Fault("not json", spoil=bodies.saying(lambda q: texts.sentence(q.prompt, "all of this"))),
    Fault("empty", spoil=bodies.saying(lambda q: "")),
    Fault("length", spoil=bodies.ended("length")),
    Fault("ended: error", spoil=bodies.prose_ended("error")),
    Fault("ended: max_tokens", spoil=bodies.prose_ended("max_tokens")),
    Fault("ended: abort", spoil=bodies.ended("abort")),
    Fault("ended: unknown", spoil=bodies.ended_without),
    Fault("white space", spoil=bodies.blank_run),
    Fault("thoughts", spoil=bodies.moved_to("reasoning_content", "Let me think about this.")),
    Fault("thoughts by another name", spoil=bodies.moved_to("reasoning", "The user wants a film.")),
    Fault("stream of half", spoil=bodies.ended("error"), streams=True),
    Fault("content_filter", spoil=bodies.ended("content_filter")),
    Fault("refusal field", spoil=bodies.refusing),
    Fault("refusal text", spoil=bodies.saying(texts.refused)),
    Fault("missing factor", spoil=bodies.saying(texts.without_one)),
    Fault("wrong language", spoil=bodies.saying(texts.german)),
    Fault("echo", spoil=bodies.saying(texts.repeated)),
    Fault("duplicate", spoil=bodies.saying(texts.same_for_all)),
    Fault(
        "html body", headers={"content-type": "text/html"}, spoil=lambda q, b: _BUSY,
        is_counted=False,
    ),
    Fault("no choices", spoil=bodies.headless, is_counted=False),
    Fault("json_schema ignored", spoil=bodies.saying(texts.of_its_own_form), form="json_schema"),
    Fault("json_schema 500", 500, is_counted=False, form="json_schema"),
    Fault("json_schema white space", spoil=bodies.blank_run, form="json_schema"),
    Fault("json_schema thoughts", spoil=bodies.moved_to("thinking", "Hm."), form="json_schema"),
    Fault("json_schema 500 in silence", 500, is_counted=False, form="json_schema", said=""),
    Fault("json_schema 400 in silence", 400, is_counted=False, form="json_schema", said=""),
    Fault("429 retryDelay", 429, is_counted=False, said=_EXHAUSTED),
    Fault("thoughts apart", spoil=bodies.thoughtful, is_readable=True),
    Fault("prompts cut", spoil=bodies.half_read, is_readable=True),
    Fault("stream", streams=True),
    Fault("stream broken", spoil=bodies.stream_broken, is_counted=False),
    Fault("answer among thoughts", spoil=bodies.moved_to("reasoning_content"), is_readable=True),
    Fault(
        "error in place of an answer", spoil=lambda q, b: {"error": {**_QUOTED, "code": 503}},
        is_counted=False,
    ),
    _not_taking("response_format"),
    _not_taking("top_p"),
    _not_taking("stop"),
    _not_taking("logprobs"),
    _not_taking("presence_penalty"),
    _refusing_field(
        "temperature",
        "Unsupported value: 'temperature' does not support 0.0 with this model.",
        param="temperature",
    ),
    _refusing_field("seed", "Invalid JSON payload received. Unknown name \"seed\""),
    _refusing_field("frequency_penalty", "Argument not supported: frequencyPenalty"),
    _refusing_field("max_tokens", "'max_tokens' is not supported; use 'max_completion_tokens'"),
    Fault(
        "only streams", 400, is_counted=False, lacks="stream",
        said=bodies.error_body("This model only support stream mode", "invalid_parameter_error"),
    ),
    _filtering("an object", _FILTERED),
    _filtering("a list", [_FILTERED]),
    _filtering("words only", {"error": {"message": FILTERED_SAYS, "code": None}}),
    _filtering("nested", {"error": {"message": "no", "metadata": {"raw": json.dumps(_FILTERED)}}}),
    _filtering("403", {"error": {"message": "requires moderation: it was flagged"}}, 403),
    Fault("filtered: 200", spoil=lambda q, b: _FILTERED, is_counted=False),
    _quoting("a list", [{"error": _QUOTED}]),
    _quoting("a string", {"error": QUOTED_SAYS}),
    _quoting("plain text", f"Bad request: {QUOTED_SAYS}"),
    _quoting("a page", f"<html><head><style>p {{}}</style></head><h1>{QUOTED_SAYS}</h1></html>"),
    _quoting("nested", {"error": {"message": "upstream", "metadata": {"raw": _QUOTED_RAW}}}),
    _quoting("faults", {"detail": [{"loc": ["body", 0], "msg": QUOTED_SAYS, "type": "value"}]}),
)  # fmt: skip

#: All faults by name.
FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}
