"""Errors of OpenAI-compatible servers, translated to ours.

Answers are parsed in :mod:`reki_feast.llm.responses`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reki_feast.errors import LLMError
from reki_feast.llm._openai import transport_error
from reki_feast.llm.budget import QUOTA_HINT, QuotaError
from reki_feast.llm.error_bodies import ErrorBody, parse_error_body
from reki_feast.llm.headers import rate_limits_of
from reki_feast.llm.interface import FailedReply, RequestError
from reki_feast.llm.key_masking import EXCERPT_MAX, excerpt, mask_keys
from reki_feast.llm.retry_after import is_long_term_limit, requested_wait

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError

OK = 200
SERVER_ERROR = 500
_FORBIDDEN, _MISSING = 403, 404
_RATE_LIMITED = 429
#: Statuses that a server may give because it does not know something that was sent along.
_MAY_BE_STYLE = (400, 415, 422)
#: Statuses of servers that break down, maybe over the form of answer asked for.
_BROKEN = (500, 501, 502)
#: Statuses after which the same call may succeed.
_MOVED = range(300, 400)
_AGAIN = (408, 409, 425, _RATE_LIMITED)
#: Statuses of gateways that waited for an answer in vain: the model may be at it, and be paid.
_GAVE_UP = (408, 504, 522, 524)
#: What the HTTP library calls faults that come before anything is sent.
_UNSENT = (
    "ConnectError", "ConnectTimeout", "LocalProtocolError", "PoolTimeout", "ProxyError",
    "UnsupportedProtocol",
)  # fmt: skip

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
#: Statuses that say nothing of the prompt, whatever words come with them.
_OF_NO_PROMPT = (401, 402, 404, *_AGAIN)
_FILTER_CODES = frozenset({
    "content_filter", "content_filtered", "content_policy_violation", "moderation_blocked",
    "responsibleaipolicyviolation", "data_inspection_failed", "datainspectionfailed",
    "guardrail_intervened", "prohibited_content",
})  # fmt: skip
_FILTER_WORDS = re.compile(
    r"content[ _-]?(?:management|filter|moderation|safety|polic)|responsible ?ai|usage polic"
    r"|content exists risk|inappropriate content|prohibited[ _]content|data[ _]?inspection"
    r"|(?:input|prompt|content|request|message)s? (?:was|were|is|has been|have been) "
    r"(?:flagged|blocked|filtered)|guardrail|safety (?:system|filter|setting|polic)"
    r"|requires moderation|敏感|违规"
)
FILTERED_HINT = (
    "`reki generate --retry-quarantined` asks again, after a change of the template or the model"
)


@dataclass(frozen=True)
class Endpoint:
    """The server and the model that errors are about.

    Attributes:
        host: the server, with its port; empty where a reply is a line of a batch's file.
        key_env: the environment variable of the API key.
        model: the model's name.
    """

    host: str
    key_env: str
    model: str


class NotFoundError(LLMError):
    """The server does not know what was asked for by its id."""


class ForbiddenError(LLMError):
    """A 403: to one prompt where a proxy moderates, to all where access is missing."""

    def of_prompt(self) -> RequestError:
        """The same, of one prompt."""
        fault = self.problems[0]
        reply = FailedReply(_FORBIDDEN)
        return RequestError(fault.problem, detail=fault.detail, hint=fault.hint, reply=reply)


class CallError(RequestError):
    """A call that brought no answer.

    Attributes:
        error_body: the parsed error reply.
        refused: the request field that the server rejects, if known.
        spoils_format: the answer went wrong in a way that forms of answers bring about.
    """

    error_body = ErrorBody()
    refused = ""
    spoils_format = False

    @property
    def may_be_dialect(self) -> bool:
        """Whether something sent along with the prompt may be refused."""
        return self.status in _MAY_BE_STYLE and not self.gate

    @property
    def may_be_format(self) -> bool:
        """Whether asking for another form of answer may help."""
        if self.spoils_format or self.refused:
            return self.spoils_format or self.refused == "response_format"
        return not self.gate and (self.may_be_dialect or self.status in _BROKEN)

    @property
    def was_answered(self) -> bool:
        """Whether the model answered, if in vain, in the form that it was asked for."""
        return bool(self.gate) and self.status == OK and not self.spoils_format


@contextmanager
def translated_errors(
    endpoint: Endpoint, timeout_s: float, gone: tuple[str, str] | None = None
) -> Iterator[None]:
    """Turn the SDK's errors into ours; none of them carries the key.

    Args:
        endpoint: the server and the model.
        timeout_s: seconds that the call may take, for the message.
        gone: rule and mend of a 404, where it means one thing rather than a wrong url.

    Raises:
        TroubleError: this call failed.
        GoneError: a 404, with ``gone``.
        LLMError: every call would fail.
    """
    import openai

    host, key_env = endpoint.host, endpoint.key_env
    # "from None": the SDK's errors hold the request with its Authorization header.
    try:
        yield
    except (TimeoutError, openai.APITimeoutError) as error:
        raise _timeout(host, timeout_s, error.__cause__) from None
    except openai.APIConnectionError as error:
        raise _unreachable(host, error, key_env) from None
    except openai.APIStatusError as error:
        refused = _refused(endpoint, error)
        if gone is not None and error.status_code == _MISSING:
            raise NotFoundError(gone[0], detail=refused.problems[0].detail, hint=gone[1]) from None
        raise refused from None
    except openai.OpenAIError as error:
        raise CallError("the SDK makes the call", detail=excerpt(str(error), key_env)) from None
    except transport_error() as error:
        raise _broken(host, error, key_env) from None


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
            detail=repr(url.rsplit("@", 1)[-1][:EXCERPT_MAX]),
            hint="write it as http://localhost:8000/v1 or https://host/v1",
        )
    if parts.username is not None or parts.password is not None:
        raise LLMError(
            "base_url holds no user name and no password",
            detail=f"both would stand in logs, before @{parts.hostname}",
            hint="leave them out; the key is read from the environment (api_key_env)",
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return name + port


def _timeout(host: str, timeout_s: float, cause: BaseException | None) -> CallError:
    trouble = CallError(
        f"{host} answers within {timeout_s:g} s",
        detail="no whole answer by then",
        hint="raise timeout_s, or lower concurrency if the server is overloaded",
    )
    trouble.again, trouble.is_lost = True, type(cause).__name__ not in _UNSENT
    return trouble


def _unreachable(host: str, error: APIConnectionError, key_env: str) -> CallError:
    return _broken(host, error.__cause__ or error, key_env)


def _broken(host: str, cause: BaseException, key_env: str) -> CallError:
    trouble = CallError(
        f"{host} can be reached",
        detail=excerpt(f"{type(cause).__name__}: {cause}", key_env),
        hint="check base_url and that the server runs",
    )
    trouble.again = True
    trouble.is_lost = type(cause).__name__ not in _UNSENT
    return trouble


def _refused(endpoint: Endpoint, error: APIStatusError) -> LLMError:
    response = error.response
    # without a body the SDK could not read it, as of a download that was broken off
    error_body = parse_error_body(
        "" if error.body is None else mask_keys(response.text, endpoint.key_env)
    )
    return error_of_status(endpoint, error.status_code, error_body, response.headers)


def error_of_status(
    endpoint: Endpoint, status: int, error_body: ErrorBody, headers: Mapping[str, str]
) -> LLMError:
    """What a status other than 200 means, with what the server says.

    Returns:
        A :class:`CallError` where another call may succeed, else a plain LLMError.
    """
    message = excerpt(error_body.message, endpoint.key_env) or _phrase(status)
    found = f"{endpoint.host} says {status}: {message}"
    if is_content_filter(error_body, status):
        return _filtered(found, status, error_body, headers)
    if status in _FATAL:
        rule, hint = _FATAL[status]
        kind = ForbiddenError if status == _FORBIDDEN else LLMError
        return kind(
            rule, detail=found, hint=hint.format(env=endpoint.key_env, model=endpoint.model)
        )
    if status == _RATE_LIMITED and "insufficient_quota" in error_body.codes:
        rule, hint = _FATAL[402]
        return LLMError(rule, detail=found, hint=hint.format(env=endpoint.key_env))
    if status == _RATE_LIMITED and is_long_term_limit(headers, error_body.body):
        return QuotaError("the server's quota lasts for the run", detail=found, hint=QUOTA_HINT)
    moved = "base_url leads elsewhere: name the final address" if status in _MOVED else ""
    trouble = CallError("the server answers the call", detail=found, hint=moved)
    trouble.error_body, trouble.status = error_body, status
    trouble.is_throttled = status == _RATE_LIMITED
    trouble.limits = rate_limits_of(headers)
    trouble.again = status in _AGAIN or status >= SERVER_ERROR
    trouble.is_lost = status in _GAVE_UP
    if trouble.again:
        trouble.wait_s = requested_wait(headers, error_body.body, datetime.now(UTC))
    return trouble


def is_content_filter(error_body: ErrorBody, status: int) -> bool:
    """Whether a refusal is of one prompt's content.

    >>> is_content_filter(parse_error_body('{"error": {"code": "content_filter"}}'), 400)
    True
    """
    if status in _OF_NO_PROMPT:
        return False
    by_words = status < SERVER_ERROR and _FILTER_WORDS.search(error_body.words) is not None
    return by_words or bool(_FILTER_CODES & error_body.codes)


def _filtered(
    found: str, status: int, error_body: ErrorBody, headers: Mapping[str, str]
) -> CallError:
    rule = "the server's content filter lets the prompt pass"
    reply = FailedReply(status, "filtered")
    trouble = CallError(rule, detail=found, hint=FILTERED_HINT, reply=reply)
    trouble.error_body, trouble.limits = error_body, rate_limits_of(headers)
    return trouble


def _phrase(status: int) -> str:
    known = {one.value: one.phrase for one in HTTPStatus}
    return f"{known.get(status, 'nothing')}, and no more"
