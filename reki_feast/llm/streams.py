"""Server-sent events joined into one completion: some models only stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_BEGINNING = re.compile(r"(?:data|event|id|retry)?:")
_DONE = "[DONE]"
#: Texts of a message that come in pieces.
_PIECES = ("content", "reasoning_content", "reasoning", "refusal")


def is_stream(text: str) -> bool:
    """Whether a reply's body is a stream of events."""
    return _BEGINNING.match(text) is not None


def join_events(text: str) -> dict[str, Any] | None:
    """The completion whose pieces the events of a stream are; None: its end is missing.

    >>> body = join_events('data: {"choices": [{"delta": {"content": "No"}}]}\\n\\n'
    ...               'data: {"choices": [{"delta": {"content": "ir"}, "finish_reason": "stop"}]}')
    >>> body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]
    ('Noir', 'stop')
    """
    body: dict[str, Any] = {}
    message, reason, is_done = dict[str, str](), None, False
    for event in _events(text):
        if event == _DONE:
            is_done = True
            break
        try:
            data = json.loads(event)
        except ValueError:
            return None
        if not isinstance(data, dict):
            continue
        body |= {name: data[name] for name in ("model", "error") if data.get(name)}
        if isinstance(usage := data.get("usage"), dict):  # some tell it part by part
            body["usage"] = body.get("usage", {}) | usage
        for choice in data.get("choices") or ():
            if isinstance(choice, dict) and not choice.get("index"):
                _add(message, choice.get("delta") or choice.get("message") or {})
                reason = choice.get("finish_reason") or reason
    if "error" in body:
        reason = "error"
    elif reason is None and not is_done:
        return None
    if message or reason != "error":
        body["choices"] = [{"message": message, "finish_reason": reason}]
    return body


def _events(text: str) -> Iterator[str]:
    """The data of each event; comments and names are left out."""
    for line in text.replace("\r", "\n").split("\n"):
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


def _add(message: dict[str, str], piece: dict[str, Any]) -> None:
    for name in _PIECES:
        if text := text_of(piece.get(name)):
            message[name] = message.get(name, "") + text


def text_of(content: Any) -> str:
    """The text of a message's content; some servers send it in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
