"""Collective extraction: one prompt for each group of similar items or users.

The paper's section 4.2: a group is shown to the model by few items, and what the model answers
holds for all members. A group of items is shown by its most representative ones; a group of users
by the items that most of its users interacted with (equation 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reki_feast.errors import SourceError
from reki_feast.knowledge.prompts.building import (
    PromptSubject,
    base_variables,
    descriptions_of,
    prompts_table,
    question_variables,
    titles_of,
)
from reki_feast.knowledge.prompts.histories import missing_columns
from reki_feast.knowledge.prompts.templating import Templates
from reki_feast.knowledge.prompts.wording import Wording
from reki_feast.knowledge.text import TITLE_MAX, quoted
from reki_feast.schema import KINDS, Kind

#: The exemplars of groups of users: one row a group.
EXEMPLARS = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("shown", pa.list_(pa.string()), nullable=False),
    ]
)


def most_clicked(
    interactions: pa.Table, members: pa.Table, *, user: str, item: str, d: int = 15
) -> pa.Table:
    """The items that most users of each group interacted with: equation 1 of the paper.

    A user who interacted with an item several times counts once.

    Args:
        interactions: those of the channel, before the as-of time, in columns ``user`` and ``item``;
            rows with a null, or of a user who is no member, are left out.
        members: ``owner``, a user's id as text, and ``group``; each owner once.
        user: the users' key column.
        item: the items' key column.
        d: how many items show a group, at most.

    Returns:
        A table of :data:`EXEMPLARS`: ids as text, the item of most users first, ties by the
        smaller id in the key's own order. Groups stand in the order in which ``members`` first
        names them; one without interactions is left out.

    Raises:
        SourceError: ``interactions`` lacks a column.
    """
    faults = missing_columns(interactions, (user, item), "interactions")
    if faults:
        raise SourceError(faults)
    groups = members["group"].cast(pa.string()).unique()
    clicked = interactions.select([user, item]).drop_null()
    items, item_codes = _codes(clicked[item])
    users, user_codes = _codes(clicked[user])
    width = max(len(items), 1)
    pairs = _numpy(pc.unique(pa.array(user_codes * width + item_codes)))
    by_user, of_item = np.divmod(pairs, width)
    of_group = _groups_of(users, members, groups)[by_user]
    in_a_group = of_group >= 0
    of_group, of_item = _first(of_group[in_a_group], of_item[in_a_group], d)
    return _shown(groups, of_group, items.take(pa.array(of_item)).cast(pa.string()))


def group_prompts(
    groups: pa.Table,
    items: pa.Table,
    *,
    wording: Wording,
    as_of: datetime,
    templates: Templates,
) -> pa.Table:
    """One prompt for each group: what its items, or its users' preferences, have in common.

    Args:
        groups: ``schema.GROUPS``. The ``channel`` of a group of users is ``liked`` or ``disliked``.
        items: the catalogue. Groups of items show descriptions, each of at most ``TITLE_MAX``
            characters; groups of users show titles. Ids that it lacks are passed over, and a
            group that has no other gets no prompt.
        wording: words, columns and factors of the scenario.
        as_of: the time that the groups hold from; has a time zone.
        templates: ``system``, ``item_group`` and ``user_group`` are used.

    Returns:
        A table of ``schema.PROMPTS``, ``grouped``, in the order of ``groups``.

    Raises:
        FactorsError: the wording has no factors.
        SourceError: a column is missing.
        DeclarationError: a template cannot be filled in.
    """
    variables = question_variables(wording)
    system = templates.render("system", **base_variables(wording))
    texts = {kind: _texts(kind, groups, items, wording, templates) for kind in KINDS}
    rows = []
    for row in groups.select(["kind", "channel", "group", "shown"]).to_pylist():
        kind, channel = row["kind"], row["channel"]
        variables_of_group = {
            "shown": [texts[kind][key] for key in row["shown"] if key in texts[kind]]
        }
        if kind == "user":
            variables_of_group["channel"] = channel
        if variables_of_group["shown"]:
            prompt = templates.render(f"{kind}_group", **variables, **variables_of_group)
            rows.append(PromptSubject(kind, channel, row["group"], prompt))
    return prompts_table(rows, system, wording.factors, as_of, grouped=True)


def _texts(
    kind: Kind, groups: pa.Table, items: pa.Table, wording: Wording, templates: Templates
) -> Mapping[str, str]:
    """The text of each exemplar of groups of a kind, by id."""
    faults = missing_columns(items, (wording.item_key,), "items")
    if faults:
        raise SourceError(faults)
    shown = groups.filter(pc.equal(groups["kind"], kind))["shown"].combine_chunks().flatten()
    keys = items[wording.item_key].cast(pa.string())
    # most of a large catalogue is never shown
    few = items.filter(pc.is_in(keys, value_set=shown.unique()))
    if kind == "item":
        pairs = descriptions_of(few, wording, templates, TITLE_MAX)
    else:
        titles = titles_of(few, wording)
        pairs = list(zip(map(str, few[wording.item_key].to_pylist()), titles, strict=True))
    return {owner: quoted(text) for owner, text in pairs}


def _codes(keys: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Distinct keys, sorted, and each row's place among them."""
    distinct = keys.unique()
    distinct = distinct.take(pc.sort_indices(distinct))
    return distinct, _numpy(pc.index_in(keys, value_set=distinct))


def _groups_of(users: pa.Array, members: pa.Table, groups: pa.Array) -> NDArray[np.int64]:
    """Each user's place among the groups; -1 for none."""
    owners = members["owner"].cast(pa.string()).combine_chunks()
    rows = pc.index_in(users.cast(pa.string()), value_set=owners)
    names = members["group"].cast(pa.string()).take(rows)
    return _numpy(pc.fill_null(pc.index_in(names, value_set=groups), -1))


def _first(
    groups: NDArray[np.int64], items: NDArray[np.int64], d: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group and item of the d most frequent items of each group, one row each."""
    width = items.max(initial=0) + 1
    pairs, users = np.unique(groups * width + items, return_counts=True)
    groups, items = np.divmod(pairs, width)
    order = np.lexsort((items, -users, groups))
    groups, items = groups[order], items[order]
    kept = np.arange(len(groups)) - np.searchsorted(groups, groups) < d
    return groups[kept], items[kept]


def _shown(groups: pa.Array, rows: NDArray[np.int64], items: pa.Array) -> pa.Table:
    """Rows of a sorted group each, as lists of items by group."""
    found, starts = np.unique(rows, return_index=True)
    offsets = pa.array(np.append(starts, len(rows)), pa.int32())
    shown = pa.ListArray.from_arrays(offsets, items)
    return pa.table([groups.take(pa.array(found)), shown], schema=EXEMPLARS)


def _numpy(array: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    values: NDArray[np.int64] = array.to_numpy()
    return values.astype(np.int64, copy=False)
