"""What goes over the wire to an OpenAI-compatible server, and what its errors mean.

Its answers are read in :mod:`reki_feast.llm.replies`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reki_feast.errors import LLMError
from reki_feast.llm.budget import QUOTA_MEND, QuotaError
from reki_feast.llm.headers import limits_of
from reki_feast.llm.hiding import QUOTED, hidden, safe
from reki_feast.llm.port import RequestError
from reki_feast.llm.said import Said, said_of
from reki_feast.llm.waits import asked_wait, is_lasting

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError

OPENAI_URL = "https://api.openai.com/v1"
OK = 200
SERVER_FAULT = 500
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
FILTERED_MEND = (
    "`reki generate --retry-quarantined` asks again, after a change of the template or the model"
)


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
        said: what the server says of it.
        refused: the field of the request's body that it refuses, where one is found out.
        spoils_form: the answer went wrong in a way that forms of answers bring about.
    """

    said = Said()
    refused = ""
    spoils_form = False

    @property
    def may_be_style(self) -> bool:
        """Whether something sent along with the prompt may be refused."""
        return self.status in _MAY_BE_STYLE and not self.gate

    @property
    def may_be_form(self) -> bool:
        """Whether asking for another form of answer may help."""
        if self.spoils_form or self.refused:
            return self.spoils_form or self.refused == "response_format"
        return not self.gate and (self.may_be_style or self.status in _BROKEN)

    @property
    def was_answered(self) -> bool:
        """Whether the model answered, if in vain, in the form that it was asked for."""
        return bool(self.gate) and self.status == OK and not self.spoils_form


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
        refused = _refused(host, error, key_env, model)
        if gone is not None and error.status_code == _MISSING:
            raise GoneError(gone[0], found=refused.faults[0].found, mend=gone[1]) from None
        raise refused from None
    except openai.OpenAIError as error:
        raise TroubleError("the SDK makes the call", found=safe(str(error), key_env)) from None
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
            found=repr(url.rsplit("@", 1)[-1][:QUOTED]),
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
        found=safe(f"{type(cause).__name__}: {cause}", key_env),
        mend="check base_url and that the server runs",
    )
    trouble.again = True
    trouble.is_lost = type(cause).__name__ not in _UNSENT
    return trouble


def _refused(host: str, error: APIStatusError, key_env: str, model: str) -> LLMError:
    response = error.response
    # without a body the SDK could not read it, as of a download that was broken off
    said = said_of("" if error.body is None else hidden(response.text, key_env))
    return refusal(host, error.status_code, said, response.headers, key_env=key_env, model=model)


def refusal(
    host: str,
    status: int,
    said: Said,
    headers: Mapping[str, str],
    *,
    key_env: str,
    model: str,
) -> LLMError:
    """What a status other than 200 means, with what the server says.

    Returns:
        A :class:`TroubleError` where another call may succeed, else a plain LLMError.
    """
    found = f"{host} says {status}: {safe(said.sentence, key_env) or _phrase(status)}"
    if is_filter(said, status):
        return _filtered(found, status, said, headers)
    if status in _FATAL:
        rule, mend = _FATAL[status]
        kind = ForbiddenError if status == _FORBIDDEN else LLMError
        return kind(rule, found=found, mend=mend.format(env=key_env, model=model))
    if status == _RATE_LIMITED and "insufficient_quota" in said.codes:
        rule, mend = _FATAL[402]
        return LLMError(rule, found=found, mend=mend.format(env=key_env))
    if status == _RATE_LIMITED and is_lasting(headers, said.body):
        return QuotaError("the server's quota lasts for the run", found=found, mend=QUOTA_MEND)
    moved = "base_url leads elsewhere: name the final address" if status in _MOVED else ""
    trouble = TroubleError("the server answers the call", found=found, mend=moved)
    trouble.said, trouble.status = said, status
    trouble.is_throttled = status == _RATE_LIMITED
    trouble.limits = limits_of(headers)
    trouble.again = status in _AGAIN or status >= SERVER_FAULT
    trouble.is_lost = status in _GAVE_UP
    if trouble.again:
        trouble.wait_s = asked_wait(headers, said.body, datetime.now(timezone.utc))
    return trouble


def is_filter(said: Said, status: int) -> bool:
    """Whether a refusal is of one prompt's content.

    >>> is_filter(said_of('{"error": {"code": "content_filter"}}'), 400)
    True
    """
    if status in _OF_NO_PROMPT:
        return False
    by_words = status < SERVER_FAULT and _FILTER_WORDS.search(said.words) is not None
    return by_words or bool(_FILTER_CODES & said.codes)


def _filtered(found: str, status: int, said: Said, headers: Mapping[str, str]) -> TroubleError:
    rule = "the server's content filter lets the prompt pass"
    trouble = TroubleError(rule, found=found, mend=FILTERED_MEND, status=status, gate="filtered")
    trouble.said, trouble.limits = said, limits_of(headers)
    return trouble


def _phrase(status: int) -> str:
    known = {one.value: one.phrase for one in HTTPStatus}
    return f"{known.get(status, 'nothing')}, and no more"
