"""Parts of all prompts: words, titles, descriptions, profiles, and the table of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from reki_feast.errors import FactorsError, SourceError
from reki_feast.knowledge.prompts.histories import missing_columns
from reki_feast.knowledge.prompts.redaction import Redactor
from reki_feast.knowledge.prompts.templating import ColumnTemplate, Templates
from reki_feast.knowledge.prompts.wording import Wording
from reki_feast.knowledge.text import DESCRIPTION_MAX, PROFILE_MAX, TITLE_MAX, clean, plain, quoted
from reki_feast.schema import PROMPTS, content_hash

_UNKNOWN = "unknown"


class PromptSubject(NamedTuple):
    """Whom a question is about, its text, and what is known to check the answer by."""

    kind: str
    channel: str
    owner: str
    prompt: str
    facts: tuple[tuple[str, str], ...] = ()


def base_variables(wording: Wording) -> dict[str, Any]:
    """What every template is given: the scenario's words."""
    names = ("item", "user", "action", "language")
    return {name: getattr(wording, name) for name in names}


def question_variables(wording: Wording) -> dict[str, Any]:
    """What a template that asks is given: words, factors, and the keys of the answer.

    Raises:
        FactorsError: the wording has no factors.
    """
    if not wording.factors:
        raise FactorsError(
            "a prompt asks about at least one factor",
            detail="the scenario has none",
            hint="run `reki factors` and confirm them, or list factors in the scenario",
        )
    keys = ", ".join(quoted(factor) for factor in wording.factors)
    return {**base_variables(wording), "factors": wording.factors, "keys": keys}


def history_variables(wording: Wording) -> dict[str, Any]:
    """What a template that tells a history is given: words, and how ratings are to be read."""
    scale = {"rated": wording.rating is not None, "rating_scale": wording.rating_scale}
    return base_variables(wording) | scale


def titles_of(items: pa.Table, wording: Wording) -> list[str]:
    """Each item's title, cleaned, at most ``TITLE_MAX`` characters.

    Raises:
        SourceError: a column is missing.
    """
    faults = missing_columns(items, (wording.item_key, wording.title), "items")
    if faults:
        raise SourceError(faults)
    values = (plain(value) for value in items[wording.title].to_pylist())
    return [_UNKNOWN if value is None else clean(str(value), TITLE_MAX) for value in values]


def descriptions_of(
    items: pa.Table, wording: Wording, templates: Templates, limit: int = DESCRIPTION_MAX
) -> list[tuple[str, str]]:
    """Each item's id as text and its description, cleaned, at most ``limit`` characters.

    Raises:
        SourceError: a column is missing.
        DeclarationError: the description is no template, or cannot be filled in.
    """
    what = f"description of {wording.item}s"
    template = templates.over_columns(wording.description, items.column_names, what)
    texts = _filled(template, items, wording.item_key, "items", limit)
    return [(owner, text or _UNKNOWN) for owner, text in texts]


def redacted(prompts: pa.Table, redact: Redactor) -> pa.Table:
    """A table of prompts with what may not leave struck out, and hashes to match."""
    texts, hashes, has_changed = [], [], False
    columns = (prompts[name].to_pylist() for name in ("system", "prompt", "factors", "prompt_hash"))
    for system, prompt, factors, prompt_hash in zip(*columns, strict=True):
        kept = redact(prompt)
        has_changed = has_changed or kept != prompt
        texts.append(kept)
        hashes.append(prompt_hash if kept == prompt else content_hash(system, kept, *factors))
    if not has_changed:
        return prompts
    for name, values in (("prompt", texts), ("prompt_hash", hashes)):
        at = prompts.schema.get_field_index(name)
        prompts = prompts.set_column(at, prompts.schema.field(at), [values])
    return prompts


def profiles_of(
    users: pa.Table | None, wording: Wording, templates: Templates
) -> Mapping[str, str]:
    """Each user's profile, by id as text; nobody's where the scenario sends none."""
    if users is None or wording.profile is None:
        return {}
    what = f"profile of {wording.user}s"
    template = templates.over_columns(wording.profile, users.column_names, what)
    texts = _filled(template, users, wording.user_key, "users", PROFILE_MAX)
    return {owner: text for owner, text in texts if text}


def _filled(
    template: ColumnTemplate, table: pa.Table, key: str, what: str, limit: int
) -> list[tuple[str, str]]:
    faults = missing_columns(table, (key,), what)
    if faults:
        raise SourceError(faults)
    owners = table[key].to_pylist()
    rows = plain_rows(table.select(template.columns), len(owners))
    texts = (clean(template.render(row), limit) for row in rows)
    return [(str(owner), text) for owner, text in zip(owners, texts, strict=True)]


def plain_rows(table: pa.Table, count: int) -> Iterable[dict[str, object]]:
    """The rows of a table with plain values; so many empty ones of a table without columns."""
    if not table.num_columns:  # a text without any variable
        return [{} for _ in range(count)]
    return ({name: plain(value) for name, value in row.items()} for row in table.to_pylist())


def prompts_table(
    rows: Sequence[PromptSubject],
    system: str,
    factors: tuple[str, ...],
    as_of: datetime,
    *,
    grouped: bool = False,
) -> pa.Table:
    """Questions as a table of ``schema.PROMPTS``, each with its hash."""
    count = len(rows)
    columns = {
        "kind": [row.kind for row in rows],
        "channel": [row.channel for row in rows],
        "owner": [row.owner for row in rows],
        "grouped": [grouped] * count,
        "system": [system] * count,
        "prompt": [row.prompt for row in rows],
        "factors": [list(factors)] * count,
        "facts": [list(row.facts) for row in rows],
        "prompt_hash": [content_hash(system, row.prompt, *factors) for row in rows],
        "event_timestamp": [as_of] * count,
    }
    return pa.table(columns, schema=PROMPTS)
