"""What goes over the wire to an OpenAI-compatible server, and what its replies mean."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from reki_feast.errors import LLMError
from reki_feast.llm.port import Answer, RequestError

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError

Form = Literal["json_schema", "json_object", "off"]

OPENAI_URL = "https://api.openai.com/v1"
OK = 200
SERVER_FAULT = 500
_RATE_LIMITED = 429
#: Statuses that a server may give because it does not know the form of answer asked for.
_MAY_BE_FORM = (400, 415, 422)
#: Statuses after which the same call may succeed.
_AGAIN = (408, 409, 425, _RATE_LIMITED)
_QUOTED = 300
_SHORTEST_KEY = 8
# Keys that servers quote back, whole or with stars in the middle.
_KEYLIKE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{4,}|Bearer\s+\S+")

_KEY_MEND = "put a valid key of this server into the environment variable {env}"
_FATAL: Mapping[int, tuple[str, str]] = {
    401: ("the server accepts the API key", _KEY_MEND),
    402: ("the account can pay for the calls", "top up the account of the key in {env}"),
    403: ("the API key gives access to the model", "ask for access to {model}, or name another"),
    404: (
        "the server knows the url and the model",
        "check base_url (it usually ends in /v1) and the model's name {model!r}",
    ),
}


class TroubleError(RequestError):
    """A call that brought no answer.

    Attributes:
        status: of the reply; 0 when none came.
        again: whether the same call may succeed later.
        wait_s: the pause that the server asks for.
        is_timeout: the call ran out of time.
        wants_other_tokens_field: the server wants ``max_completion_tokens`` by that name.
    """

    status = OK
    again = False
    wait_s: float | None = None
    is_timeout = False
    wants_other_tokens_field = False

    @property
    def may_be_form(self) -> bool:
        """Whether asking for another form of answer may help."""
        return self.status in _MAY_BE_FORM or self.status >= SERVER_FAULT


def response_format(factors: tuple[str, ...], form: Form) -> dict[str, Any]:
    """The request's ``response_format``: one object with a text per factor."""
    if form == "json_object":
        return {"type": "json_object"}
    schema = {
        "type": "object",
        "properties": {factor: {"type": "string"} for factor in factors},
        "required": list(factors),
        "additionalProperties": False,
    }
    inner = {"name": "knowledge", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": inner}


def answer_of(text: str, *, model: str, key_env: str, latency_s: float, attempts: int) -> Answer:
    """The answer in a reply's body; a key that the server quotes back is blotted out.

    Raises:
        TroubleError: it holds none, or none that can be used.
    """
    body = _body_of(_without_key(text, key_env))
    choice = _choice_of(body)
    message = choice.get("message") or {}
    reason = str(choice.get("finish_reason") or "")
    usage = body.get("usage") or {}
    tokens = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    said = _content_of(message)
    fault = _fault(message, reason, said)
    if fault is not None:
        rule, found, mend = fault
        raise TroubleError(
            rule,
            found=found,
            mend=mend,
            finish_reason=reason,
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
        )
    name = str(body.get("model") or model)
    return Answer(said, name, reason or "stop", *tokens, latency_s, attempts)


@contextmanager
def mapped(host: str, key_env: str, model: str, timeout_s: float) -> Iterator[None]:
    """Turn the SDK's errors into ours; none of them carries the key.

    Raises:
        TroubleError: this call failed.
        LLMError: every call would fail.
    """
    import openai

    # "from None": the SDK's errors hold the request with its Authorization header.
    try:
        yield
    except (openai.APITimeoutError, asyncio.TimeoutError):
        raise _timeout(host, timeout_s) from None
    except openai.APIConnectionError as error:
        raise _unreachable(host, error, key_env) from None
    except openai.APIStatusError as error:
        raise _refused(host, error, key_env, model) from None
    except openai.OpenAIError as error:
        raise TroubleError("the SDK makes the call", found=_safe(str(error), key_env)) from None


def host_of(url: str) -> str:
    """The url's host, with its port; user names and passwords in it stay out of messages.

    Raises:
        LLMError: the url is none.

    >>> host_of("http://localhost:8000/v1")
    'localhost:8000'
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LLMError(
            "base_url is a server's address",
            found=repr(url.rsplit("@", 1)[-1][:_QUOTED]),
            mend="write it as http://localhost:8000/v1 or https://host/v1",
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return name + port


def is_loopback(host: str) -> bool:
    """Whether a host, with or without port, is this machine.

    >>> [is_loopback(host) for host in ("localhost:1", "127.0.0.2", "[::1]:80", "example.org")]
    [True, True, True, False]
    """
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def wait_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a reply asks to wait: ``Retry-After`` as a number or a date.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    >>> wait_of({"retry-after": "300"}, noon), wait_of({"retry-after-ms": "50"}, noon)
    (300.0, 0.05)
    >>> wait_of({"retry-after": "Thu, 01 Jan 2026 12:01:00 GMT"}, noon)
    60.0
    >>> wait_of({"retry-after": "soon"}, noon) is None
    True
    """
    after_ms, after = headers.get("retry-after-ms"), headers.get("retry-after")
    seconds = _number(after_ms, 0.001)
    if seconds is None:
        seconds = _number(after, 1.0)
    if seconds is None and after:
        try:
            moment = parsedate_to_datetime(after)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = (moment - now).total_seconds()
    return None if seconds is None else max(0.0, seconds)


def _number(text: str | None, unit: float) -> float | None:
    try:
        value = float(text or "") * unit
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _body_of(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    trouble = TroubleError("the server replies in JSON", found=repr(text[:80]))
    trouble.again = True
    raise trouble


def _choice_of(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    found = _KEYLIKE.sub("***", json.dumps(body)[:_QUOTED])
    trouble = TroubleError("the reply has an answer in its choices", found=found)
    trouble.again = True
    raise trouble


def _content_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # some servers send parts
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _fault(message: Mapping[str, Any], reason: str, said: str) -> tuple[str, str, str] | None:
    if message.get("refusal"):
        return ("the model answers", f"it refused: {str(message['refusal'])[:_QUOTED]}", "")
    if reason == "length":
        mend = "raise max_tokens in the scenario's llm; a reasoning model needs several thousand"
        return ("the answer is whole", "it was cut off at max_tokens", mend)
    if reason == "content_filter":
        return ("the answer is whole", "the server's content filter stopped it", "")
    if not said.strip():
        return ("the answer is not empty", f"finish_reason {reason!r}", "")
    return None


def _timeout(host: str, timeout_s: float) -> TroubleError:
    trouble = TroubleError(
        f"{host} answers within {timeout_s:g} s",
        found="no whole answer by then",
        mend="raise timeout_s, or lower concurrency if the server is overloaded",
    )
    trouble.status, trouble.again, trouble.is_timeout = 0, True, True
    return trouble


def _unreachable(host: str, error: APIConnectionError, key_env: str) -> TroubleError:
    cause = error.__cause__ or error
    trouble = TroubleError(
        f"{host} can be reached",
        found=_safe(f"{type(cause).__name__}: {cause}", key_env),
        mend="check base_url and that the server runs",
    )
    trouble.status, trouble.again = 0, True
    return trouble


def _refused(host: str, error: APIStatusError, key_env: str, model: str) -> LLMError:
    status = error.status_code
    found = f"{host} says {status}: {_safe(error.message, key_env)}"
    if status in _FATAL:
        rule, mend = _FATAL[status]
        return LLMError(rule, found=found, mend=mend.format(env=key_env, model=model))
    if status == _RATE_LIMITED and error.code == "insufficient_quota":
        rule, mend = _FATAL[402]
        return LLMError(rule, found=found, mend=mend.format(env=key_env))
    trouble = TroubleError("the server answers the call", found=found)
    trouble.status = status
    trouble.again = status in _AGAIN or status >= SERVER_FAULT
    trouble.wait_s = wait_of(error.response.headers, datetime.now(timezone.utc))
    trouble.wants_other_tokens_field = status in _MAY_BE_FORM and (
        "max_completion_tokens" in error.message
    )
    return trouble


def _safe(text: str, key_env: str) -> str:
    return _KEYLIKE.sub("***", _without_key(text, key_env))[:_QUOTED]


def _without_key(text: str, key_env: str) -> str:
    key = os.environ.get(key_env, "").strip()
    # A placeholder such as "none" or "x" is no secret, and a word of many answers.
    return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text
