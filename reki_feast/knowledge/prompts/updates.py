"""Incremental extraction: a user's last knowledge and new interactions, not the whole history.

After LIBER (arXiv 2411.14713), which summarises a growing history part by part: a prompt holds
the summary so far and the next part, so that what it costs does not grow with the history, and
what lies further back than a prompt reaches is not forgotten.

The old knowledge came from a model that had read strangers' text, so it is data like any other:
it enters prompts cleaned, bounded, and as JSON strings inside a marked block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import SourceError
from reki_feast.knowledge.prompts.building import (
    PromptSubject,
    base_variables,
    history_variables,
    profiles_of,
    prompts_table,
    question_variables,
    titles_of,
)
from reki_feast.knowledge.prompts.histories import PromptTables, histories, missing_columns
from reki_feast.knowledge.prompts.templating import Templates
from reki_feast.knowledge.prompts.wording import Wording
from reki_feast.knowledge.text import clean, quoted

#: The longest old text of one factor in a prompt, in characters; longer ones end in "…".
KNOWN_MAX = 1_000


def user_updates(
    tables: PromptTables,
    knowledge: pa.Table,
    *,
    wording: Wording,
    as_of: datetime,
    templates: Templates,
) -> pa.Table:
    """One prompt for each user with knowledge and new interactions before ``as_of``.

    Args:
        tables: profiles, catalogue, and the interactions that the knowledge does not cover, of
            which the latest ``wording.n`` of a user are shown.
        knowledge: ``owner``, ``text`` and ``factors`` as in ``schema.KNOWLEDGE``, each owner once;
            without ``factors``, as imported knowledge may be, the text is shown. Users who are
            not in it get no prompt.
        wording: words, columns and factors of the scenario.
        as_of: what happened then or later is not seen; has a time zone.
        templates: ``system`` and ``user_update`` are used.

    Returns:
        A table of ``schema.PROMPTS``, channel ``knowledge``, owners in the order of their keys.

    Raises:
        FactorsError: the wording has no factors.
        SourceError: a column is missing, or a time has no zone.
        DeclarationError: a template cannot be filled in.
    """
    faults = missing_columns(knowledge, ("owner", "text", "factors"), "knowledge")
    if faults:
        raise SourceError(faults)
    variables = {**question_variables(wording), **history_variables(wording)}
    system = templates.render("system", **base_variables(wording))
    titles = [quoted(title) for title in titles_of(tables.items, wording)]
    profiles = profiles_of(tables.users, wording, templates)
    row_of = {owner: row for row, owner in enumerate(knowledge["owner"].to_pylist())}
    previous = knowledge.select(["text", "factors"]).combine_chunks()
    rows = []
    for owner, item_rows, verdicts in histories(
        tables.items, tables.interactions, wording=wording, as_of=as_of
    ):
        if owner not in row_of:
            continue
        prompt = templates.render(
            "user_update",
            **variables,
            profile=quoted(profiles[owner]) if owner in profiles else "",
            known=_previous_texts(previous.slice(row_of[owner], 1).to_pylist()[0], wording.factors),
            history=[(titles[i], verdict) for i, verdict in zip(item_rows, verdicts, strict=True)],
        )
        rows.append(PromptSubject("user", "knowledge", owner, prompt))
    return prompts_table(rows, system, wording.factors, as_of)


def updatable(knowledge: pa.Table, factors: Iterable[str]) -> pa.ChunkedArray:
    """Which rows of knowledge can be brought up to date by what is new alone.

    Not those that leave a factor out: a new factor, or one that the last answer passed over, is
    judged by the whole history. Knowledge that was never divided by factors passes, for what its
    text leaves out is not known.

    Args:
        knowledge: ``text`` and ``factors`` as in ``schema.KNOWLEDGE``.
        factors: those that are asked about.

    Returns:
        bool, one a row.
    """
    maps = knowledge["factors"]
    covers = pc.invert(pc.is_null(maps))
    for factor in factors:
        found = pc.map_lookup(maps, query_key=pa.scalar(factor), occurrence="first")
        covers = pc.and_(covers, pc.fill_null(pc.not_equal(found, ""), False))
    has_text = pc.not_equal(pc.utf8_trim_whitespace(knowledge["text"]), "")
    return pc.or_(covers, pc.and_(pc.is_null(maps), has_text))


def _previous_texts(row: dict[str, Any], factors: Sequence[str]) -> list[tuple[str, str]]:
    """The old knowledge as JSON strings: factor and text, or "" and the whole text."""
    parts = dict(row["factors"] or ())
    if not parts:
        return [("", quoted(clean(row["text"], KNOWN_MAX * len(factors))))]
    return [
        (quoted(factor), quoted(clean(parts[factor], KNOWN_MAX)))
        for factor in factors
        if factor in parts
    ]
