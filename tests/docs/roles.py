"""Docstrings name others by Sphinx' roles, and end with :: before code; the site has neither."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":[a-z]+:`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Writes ``:class:`~a.b.C``` as ``C``, and without the tilde as ``a.b.C``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = _ROLE.sub(_code, obj.docstring.value)
            obj.docstring.value = re.sub(r":: *$", ":", text, flags=re.MULTILINE)


def _code(match: re.Match[str]) -> str:
    short, name = match.groups()
    return f"`{name.rpartition('.')[2] if short else name}`"
