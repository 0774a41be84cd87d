"""Texts of servers as they may be shown: without the key, and short."""

from __future__ import annotations

import os
import re

EXCERPT_MAX = 300
#: A key of fewer characters is a placeholder, and no secret …
_SHORTEST_KEY = 8
#: … and one of fewer than these may be a word that answers hold.
SURE_KEY = 20
# Keys that servers quote back, whole or with stars in the middle.
_KEYLIKE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{4,}|Bearer\s+\S+")


def excerpt(text: str, key_env: str) -> str:
    """The beginning of a text that a server sent, without keys.

    Args:
        text: the text.
        key_env: the environment variable of the key.
    """
    return encode_utf8(mask_keys(text, key_env)[:EXCERPT_MAX]).decode()


def mask_keys(text: str, key_env: str) -> str:
    """A text without the key, and without what looks like one."""
    return _KEYLIKE.sub("***", mask_key(text, key_env))


def mask_key(text: str, key_env: str, shortest: int = _SHORTEST_KEY) -> str:
    """A text without the key, if that has so many characters."""
    key = os.environ.get(key_env, "").strip()
    return text.replace(key, "***") if len(key) >= shortest else text


def encode_utf8(text: str) -> bytes:
    """A text's bytes; what no file can hold becomes ``?``."""
    return text.encode("utf-8", "replace")
