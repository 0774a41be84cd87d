"""Parses the bodies of error replies, whatever their shape.

OpenAI nests one object, Google sends a list, FastAPI a list of faults, gateways the JSON of the
provider behind them as a string, proxies a page of HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

#: Keys that hold a sentence, and those that do where there is none; "": a bare text.
_SENTENCES = frozenset({
    "", "message", "msg", "detail", "error", "errors", "raw", "cause", "errormessage",
    "error_message", "error_msg", "error_description",
})  # fmt: skip
_SPARE = frozenset(("title", "description", "reason", "code", "type", "status", "__type"))
_CODES = frozenset(
    ("code", "type", "status", "reason", "__type", "error_type", "error_code", "errorcode")
)
_FIELDS = frozenset(("param", "loc", "field", "parameter"))
#: How deep a body is read, and how many texts of it.
_DEEPEST, _MOST = 8, 200
_PAGE = re.compile(r"<\s*(?:!doctype|\?xml|html|head|body|title|h1)\b", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class ErrorBody:
    """A parsed error reply.

    Attributes:
        message: its message on one line; empty for an empty body.
        codes: its codes and types, in lower case.
        fields: the request's fields that it points at.
        words: all its texts, in lower case.
        body: the whole of it, as it came.
    """

    message: str = ""
    codes: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    words: str = ""
    body: str = ""


def parse_error_body(text: str) -> ErrorBody:
    """Read the body of an error.

    >>> parse_error_body('[{"error": {"code": 400, "message": "No such size."}}]').message
    'No such size.'
    >>> parse_error_body('{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}').message
    'body.seed: Extra inputs'
    >>> parse_error_body("<html><title>502 Bad Gateway</title></html>").message
    '502 Bad Gateway'
    """
    leaves = list(islice(_leaves(text.removeprefix("\ufeff"), "", 0), _MOST))
    sentences = _of(leaves, _SENTENCES) or _of(leaves, _SPARE)
    if leaves and not sentences:
        sentences = [" ".join(text.split())]
    fields = (value for key, value in leaves if key in _FIELDS)
    return ErrorBody(
        message="; ".join(sentences),
        codes=frozenset(value.lower() for key, value in leaves if key in _CODES),
        fields=frozenset(part for field in fields for part in re.split(r"[.\[\]/]+", field)),
        words="\n".join(value for _, value in leaves).lower(),
        body=text,
    )


def _leaves(value: Any, key: str, depth: int) -> Iterator[tuple[str, str]]:
    """The texts and numbers of a body with their keys, those in JSON within a text too."""
    if depth > _DEEPEST or value is None or isinstance(value, bool):
        return
    if isinstance(value, dict):
        yield from _of_object(value, depth)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one, key, depth + 1)
    else:
        nested = _nested(value) if isinstance(value, str) else None
        if nested is not None:
            yield from _leaves(nested, key, depth + 1)
        elif text := _plain(str(value)):
            yield key, text


def _of_object(value: dict[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    place, fault = value.get("loc"), value.get("msg")
    if isinstance(place, list) and isinstance(fault, str):  # the input beside it may be the prompt
        yield from (("loc", str(part)) for part in place)
        yield "message", f"{'.'.join(map(str, place))}: {fault}"
        yield "type", str(value.get("type", ""))
        return
    for name, one in value.items():
        yield from _leaves(one, name.lower(), depth + 1)


def _nested(text: str) -> Any:
    """The JSON object or list that a text is; None: it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    """A text on one line, without the tags of a page."""
    if _PAGE.search(text):
        text = _TAG.sub(" ", _UNSEEN.sub(" ", text))
    return " ".join(text.split())


def _of(leaves: list[tuple[str, str]], keys: frozenset[str]) -> list[str]:
    """The sentences under these keys, none that another one holds."""
    found = list(dict.fromkeys(value for key, value in leaves if key in keys))
    return [one for one in found if not any(one in other for other in found if other != one)]
