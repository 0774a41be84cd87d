"""Texts as a terminal or a page may get them: what steers it is shown, not done.

Ids, titles and answers are others' texts. A control character in one can set a window's title,
plant a link or overwrite a line; one that turns the direction of writing makes it read as another.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Line breaks and tabs stay: messages are made with them.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""The text with control characters as escapes, as in JSON.

    >>> visible("\x1b]0;title\x07, \x9b2J and \u202eabc; caf\u00e9\tand\nmore")
    '\\u001b]0;title\\u0007, \\u009b2J and \\u202eabc; café\tand\nmore'
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_text(value: Any, *, indent: int | None = None) -> str:
    r"""JSON that holds the same, and no control character.

    >>> json_text({"id": "\x1b\x9bé"})
    '{"id": "\\u001b\\u009bé"}'
    """
    return visible(json.dumps(value, indent=indent, ensure_ascii=False))
