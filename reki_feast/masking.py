"""Texts of databases and of users' code as they may be shown: without passwords."""

from __future__ import annotations

import re

_MASK = "***"
_NAMED = re.compile(
    r"((?:password|passwd|pwd|passphrase|secret|token|api_?key)\w*[\"']?(?:\s*[=:]\s*|\s+(?=')))"
    r"('(?:[^']|'')*'|\"[^\"]*\"|[^\s,;()'\"]+)",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*'|\$\$.*?\$\$", re.DOTALL)


def masked(text: str) -> str:
    """A text without what follows words such as password, and without logins in addresses.

    >>> masked("no host=db password=hunter2; postgres://me:hunter2@db/shop")
    'no host=db password=***; postgres://***@db/shop'
    >>> masked("password authentication failed for user 'me'")
    "password authentication failed for user 'me'"
    """
    return _LOGIN.sub(rf"\g<1>{_MASK}@", _NAMED.sub(rf"\g<1>{_MASK}", text))


def without_literals(statement: str, text: str = "") -> str:
    """A text without the literals of an SQL statement; by default the statement itself.

    >>> without_literals("attach 'dbname=shop password=x' as shop (type postgres)")
    "attach '…' as shop (type postgres)"
    """
    if not text:
        return " ".join(_LITERAL.sub("'…'", statement).split())
    for literal in _LITERAL.findall(statement):
        if len(inner := literal.strip("'$")) > 1:
            text = text.replace(inner, "…")
    return text
