"""What goes over the wire to an OpenAI-compatible server, and what its replies mean."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from reki_feast.errors import LLMError
from reki_feast.llm.headers import limits_of, wait_of
from reki_feast.llm.port import Answer, RequestError

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError

Form = Literal["json_schema", "json_object", "off"]

OPENAI_URL = "https://api.openai.com/v1"
OK = 200
SERVER_FAULT = 500
_FORBIDDEN, _MISSING = 403, 404
_RATE_LIMITED = 429
#: Statuses that a server may give because it does not know the form of answer asked for.
_MAY_BE_FORM = (400, 415, 422)
#: Statuses after which the same call may succeed.
_MOVED = range(300, 400)
_FAULTS = range(400, 600)
_AGAIN = (408, 409, 425, _RATE_LIMITED)
#: Statuses of gateways that waited for an answer in vain: the model may be at it, and be paid.
_GAVE_UP = (408, 504, 522, 524)
#: What the HTTP library calls faults that come before anything is sent.
_UNSENT = (
    "ConnectError", "ConnectTimeout", "LocalProtocolError", "PoolTimeout", "ProxyError",
    "UnsupportedProtocol",
)  # fmt: skip
_QUOTED = 300
#: More than any call can take: a count above it is none.
_TOKENS_MAX = 10**9
#: A key of fewer characters is a placeholder, and no secret …
_SHORTEST_KEY = 8
#: … and one of fewer than these may be a word that answers hold.
_SURE_KEY = 20
# The byte order mark that some servers begin with.
_MARK = "\ufeff"
# Half of a pair of surrogates, as JSON escapes it: a whole one takes two.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
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


class GoneError(LLMError):
    """The server does not know what was asked for by its id."""


class ForbiddenError(LLMError):
    """A 403: to one prompt where a proxy moderates, to all where access is missing."""

    def of_prompt(self) -> RequestError:
        """The same, of one prompt."""
        fault = self.faults[0]
        return RequestError(fault.rule, found=fault.found, mend=fault.mend, status=_FORBIDDEN)


class TroubleError(RequestError):
    """A call that brought no answer.

    Attributes:
        wants_other_tokens_field: the server wants ``max_completion_tokens`` by that name.
    """

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


def has_form(text: str, factors: tuple[str, ...]) -> bool:
    """Whether a text is one JSON object with these keys, as :func:`response_format` asks for.

    >>> has_form('{"genre": "Noir."}', ("genre",)), has_form("Genre: noir.", ("genre",))
    (True, False)
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and set(factors) <= set(body)


def answer_of(
    text: str,
    headers: Mapping[str, str],
    *,
    model: str,
    key_env: str,
    latency_s: float,
    host: str = "",
) -> Answer:
    """The answer in a reply; a key that the server quotes back is blotted out.

    In answers a short key stays, for it may be a word of theirs.

    Args:
        text: the reply's body.
        headers: its headers.
        model: the model's name, where the reply tells none.
        key_env: the environment variable of the key.
        latency_s: seconds that the call took.
        host: the server, where the reply is its own; empty for a line of a batch.

    Raises:
        TroubleError: it holds none, or none that can be used.
        LLMError: it holds an error that every call would meet.
    """
    limits = limits_of(headers)
    try:
        body = body_of(text, key_env)
        told = _error_in(body) if host else None
        choice = {} if told else _choice_of(body, key_env)
    except TroubleError as trouble:
        # whatever the server counted for this, it does not say
        trouble.again, trouble.is_lost, trouble.limits = True, True, limits
        raise
    if told is not None:
        raise refusal(host, *told, headers, key_env=key_env, model=model)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    reason = _without_key(str(choice.get("finish_reason") or ""), key_env, _SURE_KEY)
    tokens = _tokens_of(body.get("usage"))
    said = _without_key(_content_of(message), key_env, _SURE_KEY)
    fault = _fault(message, reason, said, key_env)
    if fault is not None:
        unusable = _unusable(fault, reason, tokens)
        unusable.limits = limits
        raise unusable
    name = _without_key(str(body.get("model") or model), key_env, _SURE_KEY)
    return Answer(said, name, reason or "stop", *tokens, latency_s, limits)


def _tokens_of(usage: Any) -> tuple[int, int]:
    if not isinstance(usage, dict):
        return 0, 0
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    asked, answered = (
        int(n) if isinstance(n, int | float) and 0 < n < _TOKENS_MAX else 0 for n in counts
    )
    return asked, answered


def _unusable(
    fault: tuple[str, str, str, str], reason: str, tokens: tuple[int, int]
) -> TroubleError:
    gate, rule, found, mend = fault
    return TroubleError(
        rule,
        found=found,
        mend=mend,
        status=OK,
        gate=gate,
        finish_reason=reason,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )


@contextmanager
def mapped(
    host: str,
    key_env: str,
    model: str,
    timeout_s: float,
    gone: tuple[str, str] | None = None,
) -> Iterator[None]:
    """Turn the SDK's errors into ours; none of them carries the key.

    Args:
        host: the server.
        key_env: the environment variable of the key.
        model: the model's name.
        timeout_s: seconds that the call may take, for the message.
        gone: rule and mend of a 404, where it means one thing rather than a wrong url.

    Raises:
        TroubleError: this call failed.
        GoneError: a 404, with ``gone``.
        LLMError: every call would fail.
    """
    import openai

    # "from None": the SDK's errors hold the request with its Authorization header.
    try:
        yield
    except (openai.APITimeoutError, asyncio.TimeoutError) as error:
        raise _timeout(host, timeout_s, error.__cause__) from None
    except openai.APIConnectionError as error:
        raise _unreachable(host, error, key_env) from None
    except openai.APIStatusError as error:
        if gone is not None and error.status_code == _MISSING:
            found = f"{host} says {_MISSING}: {_safe(error.message, key_env)}"
            raise GoneError(gone[0], found=found, mend=gone[1]) from None
        raise _refused(host, error, key_env, model) from None
    except openai.OpenAIError as error:
        raise TroubleError("the SDK makes the call", found=_safe(str(error), key_env)) from None
    except _transport_error() as error:
        raise _broken(host, error, key_env) from None


def _transport_error() -> type[Exception]:
    """What the SDK's HTTP library raises while a file comes in: the SDK does not map that."""
    from openai import DefaultAsyncHttpxClient

    library = DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]
    error: type[Exception] = import_module(library).TransportError
    return error


def host_of(url: str) -> str:
    """The url's host, with its port.

    Raises:
        LLMError: the url is none, or holds a user name or a password.

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
    if parts.username is not None or parts.password is not None:
        raise LLMError(
            "base_url holds no user name and no password",
            found=f"both would stand in logs, before @{parts.hostname}",
            mend="leave them out; the key is read from the environment (api_key_env)",
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


def body_of(text: str, key_env: str = "") -> dict[str, Any]:
    """The JSON object of a reply; what no file can hold in its texts becomes ``?``.

    Args:
        text: the reply.
        key_env: the environment variable of the key, which an error does not quote.

    Raises:
        TroubleError: it is none.

    >>> body_of('{"content": "half a pair: ' + chr(92) + 'ud83d"}')
    {'content': 'half a pair: ?'}
    """
    try:
        body = json.loads(text.removeprefix(_MARK))
        if _SURROGATE.search(text):
            body = json.loads(_utf8(json.dumps(body, ensure_ascii=False)))
    except (ValueError, RecursionError):  # no JSON, or nested deeper than can be read
        body = None
    if isinstance(body, dict):
        return body
    raise TroubleError(
        "the server replies in JSON", found=repr(_safe(text, key_env)[:80]), status=OK
    )


def _choice_of(body: dict[str, Any], key_env: str) -> dict[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    found = _safe(json.dumps(body), key_env)
    raise TroubleError("the reply has an answer in its choices", found=found, status=OK)


def _error_in(body: dict[str, Any]) -> tuple[int, tuple[str, str]] | None:
    """Status, message and code of an error in place of an answer: gateways send them with 200."""
    error = body.get("error")
    if body.get("choices") or not isinstance(error, dict):
        return None
    status = error.get("code")
    if not isinstance(status, int) or status not in _FAULTS:
        return None
    return status, (str(error.get("message") or ""), str(error.get("type") or ""))


def _content_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # some servers send parts
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _fault(
    message: Mapping[str, Any], reason: str, said: str, key_env: str
) -> tuple[str, str, str, str] | None:
    """What is wrong with a reply: gate, rule, found, mend."""
    if message.get("refusal"):
        found = f"it refused: {_safe(str(message['refusal']), key_env)}"
        return ("refusal", "the model answers", found, "")
    if reason == "length":
        mend = "raise max_tokens in the scenario's llm; a reasoning model needs several thousand"
        return ("cut", "the answer is whole", "it was cut off at max_tokens", mend)
    if reason == "content_filter":
        return ("filtered", "the answer is whole", "the server's content filter stopped it", "")
    if not said.strip():
        return ("empty", "the answer is not empty", f"finish_reason {reason!r}", "")
    return None


def _timeout(host: str, timeout_s: float, cause: BaseException | None) -> TroubleError:
    trouble = TroubleError(
        f"{host} answers within {timeout_s:g} s",
        found="no whole answer by then",
        mend="raise timeout_s, or lower concurrency if the server is overloaded",
    )
    trouble.again, trouble.is_lost = True, type(cause).__name__ not in _UNSENT
    return trouble


def _unreachable(host: str, error: APIConnectionError, key_env: str) -> TroubleError:
    return _broken(host, error.__cause__ or error, key_env)


def _broken(host: str, cause: BaseException, key_env: str) -> TroubleError:
    trouble = TroubleError(
        f"{host} can be reached",
        found=_safe(f"{type(cause).__name__}: {cause}", key_env),
        mend="check base_url and that the server runs",
    )
    trouble.again = True
    trouble.is_lost = type(cause).__name__ not in _UNSENT
    return trouble


def _refused(host: str, error: APIStatusError, key_env: str, model: str) -> LLMError:
    said, headers = (error.message, error.code or ""), error.response.headers
    return refusal(host, error.status_code, said, headers, key_env=key_env, model=model)


def refusal(
    host: str,
    status: int,
    said: tuple[str, str],
    headers: Mapping[str, str],
    *,
    key_env: str,
    model: str,
) -> LLMError:
    """What a status other than 200 means, with the message and code that came with it.

    Returns:
        A :class:`TroubleError` where another call may succeed, else a plain LLMError.
    """
    message, code = said
    found = f"{host} says {status}: {_safe(message, key_env)}"
    if status in _FATAL:
        rule, mend = _FATAL[status]
        kind = ForbiddenError if status == _FORBIDDEN else LLMError
        return kind(rule, found=found, mend=mend.format(env=key_env, model=model))
    if status == _RATE_LIMITED and code == "insufficient_quota":
        rule, mend = _FATAL[402]
        return LLMError(rule, found=found, mend=mend.format(env=key_env))
    moved = "base_url leads elsewhere: name the final address" if status in _MOVED else ""
    trouble = TroubleError("the server answers the call", found=found, mend=moved)
    trouble.status = status
    trouble.is_throttled = status == _RATE_LIMITED
    trouble.limits = limits_of(headers)
    trouble.again = status in _AGAIN or status >= SERVER_FAULT
    trouble.is_lost = status in _GAVE_UP
    trouble.wait_s = wait_of(headers, datetime.now(timezone.utc))
    trouble.wants_other_tokens_field = status in _MAY_BE_FORM and (
        "max_completion_tokens" in message
    )
    return trouble


def _safe(text: str, key_env: str) -> str:
    return _utf8(_KEYLIKE.sub("***", _without_key(text, key_env))[:_QUOTED]).decode()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _without_key(text: str, key_env: str, shortest: int = _SHORTEST_KEY) -> str:
    key = os.environ.get(key_env, "").strip()
    return text.replace(key, "***") if len(key) >= shortest else text
