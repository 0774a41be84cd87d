"""Which models a server says it has, in any of the forms that servers say it."""

from __future__ import annotations

import json


def parse_model_names(text: str) -> list[str]:
    """The names in a list of models, in any of the forms that servers give it.

    >>> parse_model_names('{"data": [{"id": "a"}, {"id": "b"}]}'), parse_model_names("<html>")
    (['a', 'b'], [])
    """
    try:
        found = json.loads(text)
    except ValueError:
        return []
    rows = found.get("data") or found.get("models") if isinstance(found, dict) else found
    named = (row.get("id") or row.get("name") for row in rows or () if isinstance(row, dict))
    return [str(name) for name in named if name]
