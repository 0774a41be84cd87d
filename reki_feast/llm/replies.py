"""The answer in a server's reply, or what is wrong with it.

An answer is taken only when it is known to be whole, and wherever in the reply it stands.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import Any, NamedTuple

from reki_feast.llm.headers import limits_of
from reki_feast.llm.hiding import SURE_KEY, hidden, safe, utf8, without_key
from reki_feast.llm.port import Answer
from reki_feast.llm.said import Said, said_of
from reki_feast.llm.streams import is_stream, joined, text_of
from reki_feast.llm.usage import tokens_of
from reki_feast.llm.wire import FILTERED_MEND, OK, TroubleError, is_filter, refusal

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


class _Fault(NamedTuple):
    """What is wrong with a reply."""

    gate: str
    rule: str
    found: str
    mend: str = ""
    spoils_form: bool = False


def has_form(text: str, factors: tuple[str, ...]) -> bool:
    """Whether a text is one JSON object with these keys, as a call asks for.

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
        text: the reply's body, an object or a stream of events.
        headers: its headers.
        model: the model's name, where the reply tells none.
        key_env: the environment variable of the key.
        latency_s: seconds that the call took.
        host: the server, where the reply is its own; empty for a line of a batch.

    Raises:
        TroubleError: it holds none, or none that can be used.
        LLMError: it holds an error that every call would meet.
    """
    try:
        body = body_of(text, key_env)
        _check_error(body, headers, host=host, model=model, key_env=key_env)
        choice = _choice_of(body, key_env)
    except TroubleError as trouble:
        if trouble.status == OK:  # whatever the server counted for this, it does not say
            trouble.again, trouble.is_lost = True, True
            trouble.limits = limits_of(headers)
        raise
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    reason = without_key(str(choice.get("finish_reason") or ""), key_env, SURE_KEY)
    tokens = tokens_of(body.get("usage") or body.get("usageMetadata"))
    said, is_elsewhere = _answer_in(message)
    said = without_key(said, key_env, SURE_KEY)
    fault = _fault(message, reason, said, key_env, is_elsewhere=is_elsewhere)
    if fault is not None:
        if error := body.get("error") or choice.get("error"):
            fault = fault._replace(found=f"{fault.found}: {_told(error, key_env).sentence}")
        unusable = _unusable(fault, reason, tokens)
        unusable.limits = limits_of(headers)
        raise unusable
    name = without_key(str(body.get("model") or model), key_env, SURE_KEY)
    return Answer(said, name, reason or "stop", *tokens, latency_s, limits_of(headers))


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
    text = text.removeprefix(_MARK).lstrip()
    try:
        body = joined(text) if is_stream(text) else json.loads(text)
        if _SURROGATE.search(text):
            body = json.loads(utf8(json.dumps(body, ensure_ascii=False)))
    except (ValueError, RecursionError):  # no JSON, or nested deeper than can be read
        body = None
    if isinstance(body, list) and len(body) == 1:
        [body] = body
    if isinstance(body, dict):
        return body
    raise TroubleError(
        "the server replies in JSON", found=repr(safe(text, key_env)[:80]), status=OK
    )


def _check_error(
    body: dict[str, Any], headers: Mapping[str, str], *, host: str, model: str, key_env: str
) -> None:
    """Raise what an error means that came with 200 in place of an answer, as gateways send it."""
    error = body.get("error") or body.get("errors")
    if body.get("choices") or not error:
        return
    said = _told(error, key_env)
    codes = [int(code) for code in sorted(said.codes) if code.isdecimal()]
    told = next((code for code in codes if code in _ERRORS), OK)
    if is_filter(said, told):
        told = _ERRORS.start if told == OK else told
    elif told == OK or not host:
        found = safe(said.sentence, key_env)
        raise TroubleError("the reply has an answer in its choices", found=found, status=OK)
    raise refusal(host or "the server", told, said, headers, key_env=key_env, model=model)


def _told(error: object, key_env: str) -> Said:
    return said_of(hidden(json.dumps(error), key_env))


def _choice_of(body: dict[str, Any], key_env: str) -> dict[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    found = safe(json.dumps(body), key_env)
    raise TroubleError("the reply has an answer in its choices", found=found, status=OK)


def _answer_in(message: Mapping[str, Any]) -> tuple[str, bool]:
    """The answer's text, and whether it stands where a JSON object is put by mistake."""
    content = text_of(message.get("content"))
    if content.strip():
        return content, False
    calls = [call.get("function") for call in _objects(message.get("tool_calls"))]
    places = [call.get("arguments") for call in _objects([*calls, message.get("function_call")])]
    places += [message.get(name) for name in _THOUGHTS]
    objects = (text for text in map(text_of, places) if has_form(text, ()))
    found = next(objects, "")
    return found or content, bool(found)


def _objects(some: Any) -> list[dict[str, Any]]:
    return [one for one in some if isinstance(one, dict)] if isinstance(some, list) else []


def _fault(
    message: Mapping[str, Any], reason: str, said: str, key_env: str, *, is_elsewhere: bool
) -> _Fault | None:
    """What is wrong with a reply; None: nothing."""
    why = reason.lower()
    if message.get("refusal") or why == "refusal":
        refused = safe(text_of(message.get("refusal")) or said, key_env)
        return _Fault("refusal", "the model answers", f"it refused: {refused}")
    if why in _FILTERED:
        found = f"the server's content filter stopped it ({reason})"
        return _Fault("filtered", "the answer is whole", found, FILTERED_MEND)
    if why in _CUT:
        return _cut(said, message)
    if not said.strip() and (why in _WHOLE or not why):
        return _empty(message, reason, key_env)
    if not _is_whole(why, said, is_elsewhere=is_elsewhere):
        how = f"with finish_reason {reason!r}" if reason else "without a finish_reason"
        found = f"the server ended it {how}"
        return _Fault("cut", "the answer is whole", found, _MEND_STOPPED)
    return None


def _is_whole(why: str, said: str, *, is_elsewhere: bool) -> bool:
    """Whether an answer is known to be whole; without a reason its end must look like one."""
    if not why:
        return _OPEN.search(said) is None and (said[:1] != "{" or has_form(said, ()))
    return why in _WHOLE or (is_elsewhere and why in _CALLED)


def _cut(said: str, message: Mapping[str, Any]) -> _Fault:
    """An answer that was stopped at the most tokens."""
    rule = "the answer is whole"
    if len(said) >= _RUN and not said[-_RUN:].strip(_BLANKS):
        found = "it ran into white space until max_tokens"
        return _Fault("cut", rule, found, _MEND_BLANK, spoils_form=True)
    found = "it was cut off at max_tokens"
    thoughts, name = _thoughts(message)
    if thoughts and not said.strip():
        found += f", in the midst of thoughts: {len(thoughts):,} characters of {name}"
    return _Fault("cut", rule, found, _MEND_CUT)


def _empty(message: Mapping[str, Any], reason: str, key_env: str) -> _Fault:
    rule, (thoughts, name) = "the answer is not empty", _thoughts(message)
    if not thoughts:
        return _Fault("empty", rule, f"finish_reason {reason!r}")
    found = f"the content is, and {name} holds {len(thoughts):,} characters: {thoughts[:80]!r}"
    return _Fault("empty", rule, safe(found, key_env), _MEND_THOUGHTS, spoils_form=True)


def _thoughts(message: Mapping[str, Any]) -> tuple[str, str]:
    """What the server took for thoughts, and the field that it stands in."""
    found = ((text_of(message.get(name)).strip(), name) for name in _THOUGHTS)
    return next((pair for pair in found if pair[0]), ("", ""))


def _unusable(fault: _Fault, reason: str, tokens: tuple[int, int]) -> TroubleError:
    trouble = TroubleError(
        fault.rule,
        found=fault.found,
        mend=fault.mend,
        status=OK,
        gate=fault.gate,
        finish_reason=reason,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )
    trouble.spoils_form = fault.spoils_form
    return trouble
