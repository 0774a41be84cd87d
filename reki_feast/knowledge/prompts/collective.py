"""Collective extraction: one prompt for each group of similar items or users.

The paper's section 4.2: a group is shown to the model by few items, and what the model answers
holds for all members. A group of items is shown by its most representative ones; a group of users
by the items that most of its users interacted with (equation 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TypeAlias

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

Codes: TypeAlias = NDArray[np.int32]
#: Interactions whose items are counted at a time, about: groups are not cut.
_ROWS = 1 << 22
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
    items, of_item = _codes(clicked[item])
    users, of_user = _codes(clicked[user])
    of_group = _groups_of(users, members, groups)[of_user]
    found = [
        _first(of_group[rows], of_user[rows], of_item[rows], d)
        for rows in _in_parts(of_group, len(groups))
    ]
    group, shown = (np.concatenate(column) for column in zip(*found, strict=True))
    return _shown(groups, group, items.take(pa.array(shown)).cast(pa.string()))


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


def _codes(keys: pa.ChunkedArray) -> tuple[pa.Array, Codes]:
    """Distinct keys, sorted, and each row's place among them."""
    distinct = keys.unique()
    distinct = distinct.take(pc.sort_indices(distinct))
    return distinct, pc.index_in(keys, value_set=distinct).to_numpy()


def _groups_of(users: pa.Array, members: pa.Table, groups: pa.Array) -> Codes:
    """Each user's place among the groups; -1 for none."""
    owners = members["owner"].cast(pa.string()).combine_chunks()
    rows = pc.index_in(users.cast(pa.string()), value_set=owners)
    names = members["group"].cast(pa.string()).take(rows)
    found: Codes = pc.fill_null(pc.index_in(names, value_set=groups), -1).to_numpy()
    return found


def _in_parts(of_group: Codes, groups: int) -> Iterator[NDArray[np.int64]]:
    """The rows of some groups each, about as many as are counted at a time."""
    ends = np.cumsum(np.bincount(of_group[of_group >= 0], minlength=groups))
    rows = np.arange(0, int(ends[-1]) if groups else 1, _ROWS)
    bounds = np.unique(np.append(0, np.searchsorted(ends, rows, side="right")))
    for start, end in itertools.pairwise([*bounds.tolist(), groups]):
        yield np.flatnonzero((of_group >= start) & (of_group < end))


def _first(
    groups: Codes, users: Codes, items: Codes, d: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group and item of the d items of each group that most users met, one row each."""
    width = int(items.max(initial=0)) + 1
    met = np.unique(users.astype(np.int64) * width + items, return_index=True)[1]
    pairs, counts = np.unique(groups[met].astype(np.int64) * width + items[met], return_counts=True)
    group, item = np.divmod(pairs, width)
    order = np.lexsort((item, -counts, group))
    group, item = group[order], item[order]
    kept = np.arange(len(group)) - np.searchsorted(group, group) < d
    return group[kept], item[kept]


def _shown(groups: pa.Array, rows: NDArray[np.int64], items: pa.Array) -> pa.Table:
    """Rows of a sorted group each, as lists of items by group."""
    found, starts = np.unique(rows, return_index=True)
    offsets = pa.array(np.append(starts, len(rows)), pa.int32())
    shown = pa.ListArray.from_arrays(offsets, items)
    return pa.table([groups.take(pa.array(found)), shown], schema=EXEMPLARS)
