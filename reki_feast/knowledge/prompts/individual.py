"""Individual extraction: a prompt for each user and item, and the texts of their own channels.

The questions are the paper's factorization prompts (section 4.1): preference reasoning over a
user's profile and history, factual knowledge of an item, both by the same factors. What comes
from tables enters prompts as JSON strings inside a marked block, as data.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from reki_feast.errors import SourceError
from reki_feast.knowledge.prompts.building import (
    PromptSubject,
    base_variables,
    descriptions_of,
    history_variables,
    plain_rows,
    profiles_of,
    prompts_table,
    question_variables,
    titles_of,
)
from reki_feast.knowledge.prompts.histories import PromptTables, histories, missing_columns
from reki_feast.knowledge.prompts.templating import Templates
from reki_feast.knowledge.prompts.wording import Wording
from reki_feast.knowledge.text import quoted

#: The text of a channel that no model writes: one row an owner.
TEXTS = pa.schema(
    [
        pa.field("owner", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)


def user_prompts(
    tables: PromptTables,
    *,
    wording: Wording,
    as_of: datetime,
    templates: Templates,
) -> pa.Table:
    """One prompt for each user with a history before ``as_of``.

    Args:
        tables: profiles, catalogue and interactions.
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
    variables = {**question_variables(wording), **history_variables(wording)}
    system = templates.render("system", **base_variables(wording))
    titles = [quoted(title) for title in titles_of(tables.items, wording)]
    profiles = profiles_of(tables.users, wording, templates)
    rows = []
    for owner, item_rows, verdicts in histories(
        tables.items, tables.interactions, wording=wording, as_of=as_of
    ):
        prompt = templates.render(
            "user",
            **variables,
            profile=quoted(profiles[owner]) if owner in profiles else "",
            history=[(titles[i], verdict) for i, verdict in zip(item_rows, verdicts, strict=True)],
        )
        rows.append(PromptSubject("user", "knowledge", owner, prompt))
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
    variables = question_variables(wording)
    system = templates.render("system", **base_variables(wording))
    rows = []
    described = descriptions_of(items, wording, templates)
    for (owner, text), facts in zip(described, _facts_of(items, wording), strict=True):
        prompt = templates.render("item", **variables, description=quoted(text))
        rows.append(PromptSubject("item", "knowledge", owner, prompt, facts))
    return prompts_table(rows, system, wording.factors, as_of)


def history_texts(
    tables: PromptTables,
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
    titles = titles_of(tables.items, wording)
    profiles = profiles_of(tables.users, wording, templates)
    rows = []
    for owner, item_rows, verdicts in histories(
        tables.items, tables.interactions, wording=wording, as_of=as_of
    ):
        pairs = list(zip((titles[i] for i in item_rows), verdicts, strict=True))
        text = templates.render(
            "history",
            **history_variables(wording),
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


def _facts_of(items: pa.Table, wording: Wording) -> list[tuple[tuple[str, str], ...]]:
    """Of each item the known values of the columns that answers are checked by."""
    faults = missing_columns(items, wording.facts, "items, for Gates(facts=…),")
    if faults:
        raise SourceError(faults)
    rows = plain_rows(items.select(list(wording.facts)), items.num_rows)
    return [
        tuple((name, str(value)) for name, value in row.items() if value is not None)
        for row in rows
    ]


def _texts(rows: list[tuple[str, str]]) -> pa.Table:
    columns = {"owner": [owner for owner, _ in rows], "text": [text for _, text in rows]}
    return pa.table(columns, schema=TEXTS)
