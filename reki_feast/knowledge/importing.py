"""Imports knowledge made elsewhere: groups with their members, or one text an entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from reki_feast.knowledge.answers.knowledge_rows import free_text, join_factors
from reki_feast.knowledge.answers.parsing import parse_answer
from reki_feast.knowledge.import_checks import (
    ProblemList,
    check_unique,
    first_few,
    ids_of,
    texts_of,
)
from reki_feast.knowledge.text import FACTOR_TEXT_MAX, clean
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.schema import (
    ITEM_CHANNELS,
    KINDS,
    KNOWLEDGE,
    KNOWLEDGE_CHANNELS,
    MEMBERS,
    Kind,
    content_hash,
    factor_column,
)

#: Which side and channel a map or a group is for.
Slot = tuple[str, str]

_SLOTS: tuple[Slot, ...] = tuple(
    (kind, channel)
    for kind in KINDS
    for channel in KNOWLEDGE_CHANNELS
    if kind == "user" or channel in ITEM_CHANNELS
)


def import_groups(
    knowledge: pa.Table,
    maps: Mapping[Slot, pa.Table],
    *,
    times: Timestamps,
    factors: Sequence[str] = (),
    keys: Mapping[str, str] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Take in knowledge of groups, and which group each entity belongs to.

    Args:
        knowledge: columns ``kind`` (``item``, ``user``, ``user_liked``, ``user_disliked``),
            ``group_id``, ``text``; optionally ``prompt`` and ``model``. One row a group.
        maps: for each (kind, channel), such as ``("user", "liked")``, the entity's key and the
            group's id, in ``<channel>_group_id`` or ``group_id``. One row an entity.
        times: from when the knowledge holds, and when it is imported.
        factors: names to look for in the texts; none keeps only the whole text.
        keys: names of the key columns by kind; ``item_id`` and ``user_id`` by default.

    Returns:
        Tables of ``schema.KNOWLEDGE`` (``grouped``) and ``schema.MEMBERS``.

    Raises:
        KnowledgeError: a table has the wrong shape, a group has no knowledge; all faults at once.
    """
    faults = ProblemList()
    groups = _groups(knowledge, factors, times, faults)
    has = {(row["kind"], row["channel"], row["owner"]) for row in groups}
    members: list[dict[str, Any]] = []
    if not maps:
        faults.add("at least one map says which group an entity is in", "none", "give a map")
    for slot, table in maps.items():
        pairs = _members(slot, table, dict(keys or {}), faults)
        _check_known(slot, pairs, has, faults)
        members += [_member(slot, owner, group, times) for owner, group in pairs]
    faults.raise_if_any()
    return (
        pa.Table.from_pylist(groups, schema=KNOWLEDGE),
        pa.Table.from_pylist(members, schema=MEMBERS),
    )


def import_entities(
    table: pa.Table,
    kind: Kind,
    key: str,
    *,
    times: Timestamps,
    channel: str = "knowledge",
    factors: Sequence[str] = (),
) -> pa.Table:
    """Take in knowledge of single entities.

    Args:
        table: the key, and a ``text`` and/or one column a factor (by the factor's name or as
            ``factor_…``); optionally ``prompt`` and ``model``. One row an entity.
        kind: ``user`` or ``item``.
        key: the key's column.
        times: from when the knowledge holds, and when it is imported.
        channel: the channel that the texts become.
        factors: the scenario's factors. Without columns for them they are looked for in the text.

    Returns:
        A table of ``schema.KNOWLEDGE``.

    Raises:
        KnowledgeError: the table has the wrong shape; all faults at once.
    """
    faults = ProblemList()
    what = f"the {kind} knowledge"
    if (kind, channel) not in _SLOTS:
        faults.add("knowledge is for a known kind and channel", f"({kind}, {channel})", _slots())
    columns = _factor_columns(table, factors)
    if "text" not in table.column_names and not columns:
        hint = "name a column `text`"
        if factors:
            hint += ", or columns after the factors: " + ", ".join(factors)
        faults.add(f"{what} has a text", f"columns {', '.join(table.column_names)}", hint)
    owners = ids_of(table, key, what, faults)
    check_unique(owners, f"{what}: {key}", faults)
    rows = [] if faults.found else _entity_rows(table, owners, columns, factors)
    empty = [row["owner"] for row in rows if not row["text"]]
    if empty:
        faults.add(f"{what} has a text in every row", first_few(empty), "drop the rows without")
    faults.raise_if_any()
    about = {"kind": kind, "channel": channel, "grouped": False}
    return pa.Table.from_pylist(
        [{**about, **row, **times.columns()} for row in rows], schema=KNOWLEDGE
    )


def _groups(
    table: pa.Table, factors: Sequence[str], times: Timestamps, faults: ProblemList
) -> list[dict[str, Any]]:
    what = "group knowledge"
    lacking = [name for name in ("kind", "group_id", "text") if name not in table.column_names]
    if lacking:
        found = f"no {', '.join(lacking)} among {', '.join(table.column_names)}"
        faults.add(f"{what} has kind, group_id and text", found, "rename or add the columns")
        return []
    ids = ids_of(table, "group_id", what, faults)
    kinds = [str(kind) for kind in table["kind"].to_pylist()]
    slots = {kind: _slot(kind) for kind in dict.fromkeys(kinds)}
    unknown = [kind for kind, slot in slots.items() if slot is None]
    if unknown:
        hint = "use item, user, user_liked, user_disliked"
        faults.add(f"{what} is of a known kind", first_few(unknown), hint)
    check_unique([f"{k} {g}" for k, g in zip(kinds, ids, strict=True)], what, faults)
    texts, prompts, models = (texts_of(table, name) for name in ("text", "prompt", "model"))
    rows = []
    empty = []
    for kind, group, text, prompt, model in zip(kinds, ids, texts, prompts, models, strict=True):
        slot = slots[kind]
        if slot is None or group is None:
            continue
        about = {"kind": slot[0], "channel": slot[1], "owner": group, "grouped": True}
        row = {**about, **_row(text or "", factors, prompt, model), **times.columns()}
        rows.append(row)
        if not row["text"]:
            empty.append(f"{kind} {group}")
    if empty:
        faults.add(f"{what} has a text for every group", first_few(empty), "drop the rows without")
    return rows


def _row(
    text: str, factors: Sequence[str], prompt: str | None, model: str | None
) -> dict[str, Any]:
    parts = parse_answer(text, factors) if factors else {}
    prompt_hash = None if prompt is None else content_hash("", prompt)
    return {
        "text": free_text(text),
        "factors": list(parts.items()) if parts else None,
        "model": model,
        "prompt_hash": prompt_hash,
        "hash": content_hash(prompt_hash or "", model or "", text, *factors),
    }


def _member(slot: Slot, owner: str, group: str, times: Timestamps) -> dict[str, Any]:
    return {"kind": slot[0], "channel": slot[1], "owner": owner, "group": group, **times.columns()}


def _members(
    slot: Slot, table: pa.Table, keys: Mapping[str, str], faults: ProblemList
) -> list[tuple[str, str]]:
    kind, channel = slot
    what = f"the map of {kind} {channel}"
    if slot not in _SLOTS:
        faults.add("a map is for a known kind and channel", f"({kind}, {channel})", _slots())
        return []
    names = (f"{channel}_group_id", "group_id")
    column = next((name for name in names if name in table.column_names), None)
    key = keys.get(kind, f"{kind}_id")
    if column is None:
        found = f"columns {', '.join(table.column_names)}"
        faults.add(f"{what} has the column {names[0]} or group_id", found, "rename the column")
        return []
    owners = ids_of(table, key, what, faults)
    groups = ids_of(table, column, what, faults, "drop the row: without a group the mean stands in")
    check_unique(owners, f"{what}: {key}", faults)
    pairs = zip(owners, groups, strict=False)
    return [(owner, group) for owner, group in pairs if owner is not None and group is not None]


def _check_known(
    slot: Slot, pairs: list[tuple[str, str]], has: set[tuple[str, str, str]], faults: ProblemList
) -> None:
    named = dict.fromkeys(group for _, group in pairs)
    lost = [group for group in named if (*slot, group) not in has]
    if lost:
        kind = "_".join(part for part in slot if part != "knowledge")
        faults.add(
            f"every group in the map of {' '.join(slot)} has knowledge",
            f"{len(lost)} of {len(named)} have none: {first_few(lost)}",
            f"add their rows of kind {kind!r} to the knowledge, or take their members out",
        )


def _slot(kind: str) -> Slot | None:
    """``item`` and ``user`` mean their knowledge channel; ``user_liked`` says the channel."""
    side, _, channel = kind.partition("_")
    slot = (side, channel or "knowledge")
    return slot if slot in _SLOTS else None


def _slots() -> str:
    return "use one of " + ", ".join(f"({kind}, {channel})" for kind, channel in _SLOTS)


def _factor_columns(table: pa.Table, factors: Sequence[str]) -> dict[str, str]:
    columns = {}
    for factor in factors:
        for name in (factor, factor_column(factor)):
            if name in table.column_names:
                columns[factor] = name
    return columns


def _entity_rows(
    table: pa.Table,
    owners: list[str | None],
    columns: Mapping[str, str],
    factors: Sequence[str],
) -> list[dict[str, Any]]:
    texts, prompts, models = (texts_of(table, name) for name in ("text", "prompt", "model"))
    by_factor = {factor: texts_of(table, name) for factor, name in columns.items()}
    rows = []
    for n, owner in enumerate(owners):
        said = {f: clean(column[n] or "", FACTOR_TEXT_MAX) for f, column in by_factor.items()}
        parts = {factor: text for factor, text in said.items() if text}
        text = texts[n] or join_factors(parts)
        row = _row(text, () if columns else factors, prompts[n], models[n])
        if columns:
            row["factors"] = list(parts.items()) or None
            row["hash"] = content_hash(row["hash"], *said.values())
        rows.append({"owner": owner, **row})
    return rows
