"""Individual extraction: a prompt for every user and every item, and their plain texts.

The questions are the paper's factorization prompts (section 4.1): preference reasoning over a
user's profile and history, factual knowledge of an item, both by the same factors. What comes
from tables enters prompts as JSON strings inside a marked block, as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from reki_feast.errors import FactorsError, SourceError
from reki_feast.extract.histories import histories, missing
from reki_feast.extract.redact import Redact
from reki_feast.extract.templating import ColumnTemplate, Templates
from reki_feast.extract.text import (
    DESCRIPTION_MAX,
    PROFILE_MAX,
    TITLE_MAX,
    clean,
    plain,
    quoted,
)
from reki_feast.extract.wording import Wording
from reki_feast.schema import PROMPTS, content_hash

#: The text of a channel that no model writes: one row an owner.
TEXTS = pa.schema(
    [
        pa.field("owner", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
_UNKNOWN = "unknown"


class Asked(NamedTuple):
    """Whom a question is about, its text, and what is known to check the answer by."""

    kind: str
    channel: str
    owner: str
    prompt: str
    facts: tuple[tuple[str, str], ...] = ()


def user_prompts(
    users: pa.Table | None,
    items: pa.Table,
    interactions: pa.Table,
    *,
    wording: Wording,
    as_of: datetime,
    templates: Templates,
) -> pa.Table:
    """One prompt for each user with a history before ``as_of``.

    Args:
        users: profiles; None, or a wording without ``profile``, sends none.
        items: the catalogue, for titles.
        interactions: see :func:`histories.histories`.
        wording: words, columns and factors of the scenario.
        as_of: what happened later is not seen; has a time zone.
        templates: ``system`` and ``user`` are used.

    Returns:
        A table of ``schema.PROMPTS``, channel ``knowledge``, owners in the order of their keys.

    Raises:
        FactorsError: the wording has no factors.
        SourceError: a column is missing, or a time has no zone.
        DeclarationError: a template cannot be filled in.
    """
    known = {**asked_words(wording), **told_words(wording)}
    system = templates.render("system", **words_of(wording))
    titles = [quoted(title) for title in titles_of(items, wording)]
    profiles = profiles_of(users, wording, templates)
    rows = []
    for owner, places, verdicts in histories(items, interactions, wording=wording, as_of=as_of):
        prompt = templates.render(
            "user",
            **known,
            profile=quoted(profiles[owner]) if owner in profiles else "",
            history=[(titles[i], verdict) for i, verdict in zip(places, verdicts, strict=True)],
        )
        rows.append(Asked("user", "knowledge", owner, prompt))
    return prompts_table(rows, system, wording.factors, as_of)


def item_prompts(
    items: pa.Table, *, wording: Wording, as_of: datetime, templates: Templates
) -> pa.Table:
    """One prompt for each item: its description and the same factors.

    Returns:
        A table of ``schema.PROMPTS``, channel ``knowledge``, in the order of ``items``.

    Raises:
        FactorsError, SourceError, DeclarationError: as in :func:`user_prompts`.
    """
    known = asked_words(wording)
    system = templates.render("system", **words_of(wording))
    rows = []
    described = descriptions_of(items, wording, templates)
    for (owner, text), facts in zip(described, _facts_of(items, wording), strict=True):
        prompt = templates.render("item", **known, description=quoted(text))
        rows.append(Asked("item", "knowledge", owner, prompt, facts))
    return prompts_table(rows, system, wording.factors, as_of)


def history_texts(
    users: pa.Table | None,
    items: pa.Table,
    interactions: pa.Table,
    *,
    wording: Wording,
    as_of: datetime,
    templates: Templates,
) -> pa.Table:
    """The ``history`` channel: profile and history as one plain text a user, for the encoder.

    The latest interactions come first, because encoders cut long texts at the end.

    Returns:
        A table of :data:`TEXTS`, owners in the order of their keys.

    Raises:
        SourceError, DeclarationError: as in :func:`user_prompts`.
    """
    titles = titles_of(items, wording)
    profiles = profiles_of(users, wording, templates)
    rows = []
    for owner, places, verdicts in histories(items, interactions, wording=wording, as_of=as_of):
        pairs = list(zip((titles[i] for i in places), verdicts, strict=True))
        text = templates.render(
            "history",
            **told_words(wording),
            profile=profiles.get(owner, ""),
            history=pairs[::-1],
        )
        rows.append((owner, text.strip()))
    return _texts(rows)


def description_texts(items: pa.Table, *, wording: Wording, templates: Templates) -> pa.Table:
    """The ``description`` channel: each item's description, for the encoder.

    Returns:
        A table of :data:`TEXTS`, in the order of ``items``.

    Raises:
        SourceError, DeclarationError: as in :func:`user_prompts`.
    """
    return _texts(descriptions_of(items, wording, templates))


def words_of(wording: Wording) -> dict[str, Any]:
    """What every template is given: the scenario's words."""
    names = ("item", "user", "action", "language")
    return {name: getattr(wording, name) for name in names}


def asked_words(wording: Wording) -> dict[str, Any]:
    """What a template that asks is given: words, factors, and the keys of the answer.

    Raises:
        FactorsError: the wording has no factors.
    """
    if not wording.factors:
        raise FactorsError(
            "a prompt asks about at least one factor",
            found="the scenario has none",
            mend="run `reki factors` and confirm them, or list factors in the scenario",
        )
    keys = ", ".join(quoted(factor) for factor in wording.factors)
    return {**words_of(wording), "factors": wording.factors, "keys": keys}


def told_words(wording: Wording) -> dict[str, Any]:
    """What a template that tells a history is given: words, and how ratings are to be read."""
    scale = {"rated": wording.rating is not None, "rating_scale": wording.rating_scale}
    return words_of(wording) | scale


def titles_of(items: pa.Table, wording: Wording) -> list[str]:
    """Each item's title, cleaned, at most ``TITLE_MAX`` characters.

    Raises:
        SourceError: a column is missing.
    """
    faults = missing(items, (wording.item_key, wording.title), "items")
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


def _facts_of(items: pa.Table, wording: Wording) -> list[tuple[tuple[str, str], ...]]:
    """Of each item the known values of the columns that answers are checked by."""
    faults = missing(items, wording.facts, "items, for Gates(facts=…),")
    if faults:
        raise SourceError(faults)
    rows = _plain_rows(items.select(list(wording.facts)), items.num_rows)
    return [
        tuple((name, str(value)) for name, value in row.items() if value is not None)
        for row in rows
    ]


def redacted(prompts: pa.Table, redact: Redact) -> pa.Table:
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
    faults = missing(table, (key,), what)
    if faults:
        raise SourceError(faults)
    owners = table[key].to_pylist()
    rows = _plain_rows(table.select(template.columns), len(owners))
    texts = (clean(template.render(row), limit) for row in rows)
    return [(str(owner), text) for owner, text in zip(owners, texts, strict=True)]


def _plain_rows(table: pa.Table, count: int) -> Iterable[dict[str, object]]:
    if not table.num_columns:  # a text without any variable
        return [{} for _ in range(count)]
    return ({name: plain(value) for name, value in row.items()} for row in table.to_pylist())


def prompts_table(
    rows: Sequence[Asked],
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


def _texts(rows: list[tuple[str, str]]) -> pa.Table:
    columns = {"owner": [owner for owner, _ in rows], "text": [text for _, text in rows]}
    return pa.table(columns, schema=TEXTS)
