"""One explained user or item as data of the page, with or without texts and ids."""

from __future__ import annotations

from typing import Any

from reki_feast.results import ExplainResult

#: Fields of an explanation that the page shows.
_SHOWN = (
    *("kind", "id", "outcome", "answer", "history", "description", "prompts", "groups", "paths"),
    *("factors", "channels", "vector", "views", "nearest", "notes"),
)
#: Of lists, the fields that hold neither a text nor an id of the project's users and items.
_ANONYMOUS = {
    "prompts": (
        *("channel", "as_of", "state", "gate", "coverage", "model", "calls", "tokens", "cost"),
        *("answered", "is_knowledge"),
    ),
    "groups": ("of", "size"),
    "channels": ("channel", "floats"),
    "views": ("view", "space", "offline", "online", "equal", "serves"),
}
#: Characters that a long text has on the page.
_LONG = 6_000


def page_entity(found: ExplainResult, place: int, *, anonymous: bool = False) -> dict[str, Any]:
    """What the page has of one entity, as data for JSON.

    Args:
        found: what `reki explain` tells.
        place: its place in the sample; an anonymous report has it in place of the id.
        anonymous: leave out texts and ids.
    """
    whole = found.to_dict()
    if not anonymous:
        return {name: _cut(whole[name]) for name in _SHOWN}
    told: dict[str, Any] = {"kind": whole["kind"], "id": str(place + 1), "outcome": found.outcome}
    told["vector"] = whole["vector"]
    for name, kept in _ANONYMOUS.items():
        told[name] = [{key: row[key] for key in kept} for row in whole[name]]
    return told


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONG else value[:_LONG].rstrip() + " …"
    if isinstance(value, list):
        return [_cut(one) for one in value]
    if isinstance(value, dict):
        return {key: _cut(one) for key, one in value.items()}
    return value
