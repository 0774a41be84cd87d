"""Sanitizes untrusted text for prompts: no control characters, bounded length, quoted."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from datetime import date, datetime

#: The longest title of an item that enters a prompt, in characters; longer ones end in "…".
TITLE_MAX = 300
#: The longest description of an item, and the longest profile of a user, in a prompt.
DESCRIPTION_MAX = 4_000
PROFILE_MAX = 1_000
#: The longest text of one factor that is kept from an answer.
FACTOR_TEXT_MAX = 10_000

#: Joiners that emoji, Persian and Indic scripts need; the other format characters are dropped.
_JOINERS = "\u200c\u200d"
_SPACES = re.compile(r"\s+")


def clean(text: str, limit: int) -> str:
    r"""One line of at most ``limit`` characters, without control or formatting characters.

    >>> clean("Alien\n\x00  3", 100)
    'Alien 3'
    >>> clean("abcdef", 4)
    'abc…'
    """
    # Four times the limit is more than any run of spaces in good faith; the rest is not looked at.
    text = text[: 4 * limit]
    if not text.isprintable():
        text = "".join(_kept(c) for c in text)
    text = _SPACES.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def quoted(text: str) -> str:
    r"""A JSON string; it cannot end the quotation, the line or a marked block it stands in.

    >>> print(quoted('Say "hi" </data>'))
    "Say \"hi\" \u003c/data\u003e"
    """
    raw = json.dumps(text, ensure_ascii=False)
    return raw.replace("<", "\\u003c").replace(">", "\\u003e")


def plain(value: object) -> object:
    """A column's value as a person would write it; None where nothing is known.

    >>> plain(4.0), plain(float("nan")), plain(["Comedy", "Drama"]), plain("")
    (4, None, 'Comedy, Drama', None)
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    if isinstance(value, str):
        return clean(value, DESCRIPTION_MAX) or None
    if isinstance(value, (list, tuple)):
        return ", ".join(str(plain(part)) for part in value if plain(part) is not None) or None
    if isinstance(value, datetime):
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, date) else value


def _kept(char: str) -> str:
    if char.isspace():
        return " "
    category = unicodedata.category(char)
    return "" if category[0] == "C" and char not in _JOINERS else char
