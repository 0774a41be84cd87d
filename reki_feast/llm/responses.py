"""Parses replies: the answer, or what is wrong with the reply.

An answer is accepted only when it is known to be complete, wherever in the reply it is.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from reki_feast.llm.error_bodies import ErrorBody, parse_error_body
from reki_feast.llm.headers import rate_limits_of
from reki_feast.llm.interface import Answer, FailedReply
from reki_feast.llm.key_masking import SURE_KEY, encode_utf8, excerpt, mask_key, mask_keys
from reki_feast.llm.streams import is_stream, join_events, text_of
from reki_feast.llm.usage import token_counts
from reki_feast.llm.wire import (
    FILTERED_HINT,
    OK,
    CallError,
    Endpoint,
    error_of_status,
    is_content_filter,
)

_ERRORS = range(400, 600)
#: Why a model stopped, as servers name it: of itself; at the longest answer; by a filter.
_WHOLE = frozenset(
    ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed")
)
_CUT = frozenset(("length", "max_tokens", "model_length", "max_output_tokens", "max_length"))
_FILTERED = frozenset({
    "content_filter", "content_filtered", "safety", "sensitive", "recitation", "blocklist",
    "prohibited_content", "spii", "guardrail_intervened", "error_toxic",
})  # fmt: skip
_CALLED = frozenset(("tool_calls", "function_call", "tool_use"))
#: What no text ends with that is whole.
_OPEN = re.compile(r"[\w,;:({\[-]\s*\Z")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
#: An answer that ends in so many blanks, escaped ones too, would not have come to an end.
_BLANKS, _RUN = string.whitespace + "\\nrt", 64
# The byte order mark that some servers begin with.
_MARK = "\ufeff"
# Half of a pair of surrogates, as JSON escapes it: a whole one takes two.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_MEND_CUT = "raise max_tokens in the scenario's llm; a reasoning model needs several thousand"
_MEND_BLANK = (
    "max_tokens is not at fault: the form of answer is; structured='auto' goes on to the next "
    "form, 'json_object' or 'off' names one"
)
_MEND_THOUGHTS = (
    "the server takes the answer for thoughts: switch off its reasoning parser, or the model's "
    "thinking (extra_body), or set structured='off'"
)
_MEND_STOPPED = "the server's log says why; `reki generate --retry-quarantined` asks once more"


class _ReplyProblem(NamedTuple):
    """What is wrong with a reply."""

    gate: str
    rule: str
    found: str
    mend: str = ""
    spoils_format: bool = False


def is_object_with(text: str, factors: tuple[str, ...]) -> bool:
    """Whether a text is one JSON object with these keys, as a call asks for.

    >>> is_object_with('{"genre": "Noir."}', ("genre",)), is_object_with("Genre: noir.", ("genre",))
    (True, False)
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and set(factors) <= set(body)


def parse_completion(
    text: str,
    headers: Mapping[str, str],
    endpoint: Endpoint,
    *,
    latency_s: float,
) -> Answer:
    """The answer in a reply; a key that the server quotes back is masked.

    In answers a short key stays, for it may be a word of theirs.

    Args:
        text: the reply's body, an object or a stream of events.
        headers: its headers.
        endpoint: the server and the model; without a host for a line of a batch.
        latency_s: seconds that the call took.

    Raises:
        TroubleError: it holds none, or none that can be used.
        LLMError: it holds an error that every call would meet.
    """
    key_env = endpoint.key_env
    try:
        body = parse_body(text, key_env)
        check_error(body, headers, endpoint)
        choice = _choice_of(body, key_env)
    except CallError as trouble:
        if trouble.status == OK:  # whatever the server counted for this, it does not say
            trouble.again, trouble.is_lost = True, True
            trouble.limits = rate_limits_of(headers)
        raise
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    reason = mask_key(str(choice.get("finish_reason") or ""), key_env, SURE_KEY)
    tokens = token_counts(body.get("usage") or body.get("usageMetadata"))
    answer_text, is_elsewhere = _answer_in(message)
    answer_text = mask_key(answer_text, key_env, SURE_KEY)
    fault = _fault(message, reason, answer_text, key_env, is_elsewhere=is_elsewhere)
    if fault is not None:
        if error := body.get("error") or choice.get("error"):
            fault = fault._replace(found=f"{fault.found}: {_error_body_of(error, key_env).message}")
        unusable = _unusable(fault, reason, tokens)
        unusable.limits = rate_limits_of(headers)
        raise unusable
    name = mask_key(str(body.get("model") or endpoint.model), key_env, SURE_KEY)
    return Answer(answer_text, name, reason or "stop", *tokens, latency_s, rate_limits_of(headers))


def parse_body(text: str, key_env: str = "") -> dict[str, Any]:
    """The JSON object of a reply; what no file can hold in its texts becomes ``?``.

    Args:
        text: the reply.
        key_env: the environment variable of the key, which an error does not quote.

    Raises:
        TroubleError: it is none.

    >>> parse_body('{"content": "half a pair: ' + chr(92) + 'ud83d"}')
    {'content': 'half a pair: ?'}
    """
    text = text.removeprefix(_MARK).lstrip()
    try:
        body = join_events(text) if is_stream(text) else json.loads(text)
        if _SURROGATE.search(text):
            body = json.loads(encode_utf8(json.dumps(body, ensure_ascii=False)))
    except (ValueError, RecursionError):  # no JSON, or nested deeper than can be read
        body = None
    if isinstance(body, list) and len(body) == 1:
        [body] = body
    if isinstance(body, dict):
        return body
    raise CallError(
        "the server replies in JSON",
        detail=repr(excerpt(text, key_env)[:80]),
        reply=FailedReply(OK),
    )


def check_error(
    body: Mapping[str, Any], headers: Mapping[str, str], endpoint: Endpoint, part: str = "choices"
) -> None:
    """Raise what an error means that came with 200 in place of an answer, as gateways send it.

    Args:
        body: the reply.
        headers: its headers.
        endpoint: the server and the model.
        part: field that an answer stands in.

    Raises:
        CallError: the reply holds one of this call.
        LLMError: it holds one that every call would meet.
    """
    error = body.get("error") or body.get("errors")
    if body.get(part) or not error:
        return
    error_body = _error_body_of(error, endpoint.key_env)
    codes = [int(code) for code in sorted(error_body.codes) if code.isdecimal()]
    status = next((code for code in codes if code in _ERRORS), OK)
    if is_content_filter(error_body, status):
        status = _ERRORS.start if status == OK else status
    elif status == OK or not endpoint.host:
        found = excerpt(error_body.message, endpoint.key_env)
        raise CallError(
            f"the reply has an answer in its {part}", detail=found, reply=FailedReply(OK)
        )
    named = endpoint if endpoint.host else replace(endpoint, host="the server")
    raise error_of_status(named, status, error_body, headers)


def _error_body_of(error: object, key_env: str) -> ErrorBody:
    return parse_error_body(mask_keys(json.dumps(error), key_env))


def _choice_of(body: dict[str, Any], key_env: str) -> dict[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    found = excerpt(json.dumps(body), key_env)
    raise CallError("the reply has an answer in its choices", detail=found, reply=FailedReply(OK))


def _answer_in(message: Mapping[str, Any]) -> tuple[str, bool]:
    """The answer's text, and whether it stands where a JSON object is put by mistake."""
    content = text_of(message.get("content"))
    if content.strip():
        return content, False
    calls = [call.get("function") for call in _objects(message.get("tool_calls"))]
    places = [call.get("arguments") for call in _objects([*calls, message.get("function_call")])]
    places += [message.get(name) for name in _THOUGHTS]
    objects = (text for text in map(text_of, places) if is_object_with(text, ()))
    found = next(objects, "")
    return found or content, bool(found)


def _objects(chunk: Any) -> list[dict[str, Any]]:
    return [one for one in chunk if isinstance(one, dict)] if isinstance(chunk, list) else []


def _fault(
    message: Mapping[str, Any], reason: str, answer_text: str, key_env: str, *, is_elsewhere: bool
) -> _ReplyProblem | None:
    """What is wrong with a reply; None: nothing."""
    why = reason.lower()
    if message.get("refusal") or why == "refusal":
        refused = excerpt(text_of(message.get("refusal")) or answer_text, key_env)
        return _ReplyProblem("refusal", "the model answers", f"it refused: {refused}")
    if why in _FILTERED:
        found = f"the server's content filter stopped it ({reason})"
        return _ReplyProblem("filtered", "the answer is whole", found, FILTERED_HINT)
    if why in _CUT:
        return _cut(answer_text, message)
    if not answer_text.strip() and (why in _WHOLE or not why):
        return _empty(message, reason, key_env)
    if not _is_whole(why, answer_text, is_elsewhere=is_elsewhere):
        how = f"with finish_reason {reason!r}" if reason else "without a finish_reason"
        found = f"the server ended it {how}"
        return _ReplyProblem("cut", "the answer is whole", found, _MEND_STOPPED)
    return None


def _is_whole(why: str, answer_text: str, *, is_elsewhere: bool) -> bool:
    """Whether an answer is known to be whole; without a reason its end must look like one."""
    if not why:
        return _OPEN.search(answer_text) is None and (
            answer_text[:1] != "{" or is_object_with(answer_text, ())
        )
    return why in _WHOLE or (is_elsewhere and why in _CALLED)


def _cut(answer_text: str, message: Mapping[str, Any]) -> _ReplyProblem:
    """An answer that was stopped at the most tokens."""
    rule = "the answer is whole"
    if len(answer_text) >= _RUN and not answer_text[-_RUN:].strip(_BLANKS):
        found = "it ran into white space until max_tokens"
        return _ReplyProblem("cut", rule, found, _MEND_BLANK, spoils_format=True)
    found = "it was cut off at max_tokens"
    thoughts, name = _thoughts(message)
    if thoughts and not answer_text.strip():
        found += f", in the midst of thoughts: {len(thoughts):,} characters of {name}"
    return _ReplyProblem("cut", rule, found, _MEND_CUT)


def _empty(message: Mapping[str, Any], reason: str, key_env: str) -> _ReplyProblem:
    rule, (thoughts, name) = "the answer is not empty", _thoughts(message)
    if not thoughts:
        return _ReplyProblem("empty", rule, f"finish_reason {reason!r}")
    found = f"the content is, and {name} holds {len(thoughts):,} characters: {thoughts[:80]!r}"
    return _ReplyProblem("empty", rule, excerpt(found, key_env), _MEND_THOUGHTS, spoils_format=True)


def _thoughts(message: Mapping[str, Any]) -> tuple[str, str]:
    """What the server took for thoughts, and the field that it stands in."""
    found = ((text_of(message.get(name)).strip(), name) for name in _THOUGHTS)
    return next((pair for pair in found if pair[0]), ("", ""))


def _unusable(fault: _ReplyProblem, reason: str, tokens: tuple[int, int]) -> CallError:
    trouble = CallError(
        fault.rule,
        detail=fault.found,
        hint=fault.mend,
        reply=FailedReply(OK, fault.gate, reason, *tokens),
    )
    trouble.spoils_format = fault.spoils_format
    return trouble
