"""The task a recommender is trained for: samples, their split, and models that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from reki_feast.condense.settings import Pairs, Settings
from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.instants import Indices, place_at
from reki_feast.recommend.backbone import Factory
from reki_feast.recommend.data import (
    Fields,
    Samples,
    SampleSet,
    Split,
    make_fields,
    make_samples,
    split_samples,
)
from reki_feast.recommend.inputs import InputSpec
from reki_feast.recommend.joint import (
    Bank,
    Joint,
    bank_by_index,
    bank_by_row,
    check_channels,
    check_filled,
    fix_standards,
    make_banks,
    vector_size,
)
from reki_feast.recommend.train import seeded
from reki_feast.schema import KINDS, Kind


@dataclass(frozen=True)
class Task:
    """Samples, split, and whose they are.

    Attributes:
        parts: samples to learn from, to choose by and to report on.
        spec: what they look like to a recommender without vectors.
        users: ids; the user of index i is ``users[i - 1]``.
        items: ids; the item of index i is ``items[i - 1]``.
        people: number of users that have samples.
        user_rows: the row of each user index in the representations, -1 for none; None where a
            user has one row. Users with rows of several times have an index a row, after the
            indices of users before their first row.
    """

    parts: Split[Samples]
    spec: InputSpec
    users: pa.Array
    items: pa.Array
    people: int
    user_rows: Indices | None = None


def make_task(
    interactions: pa.Table,
    *,
    user: str,
    item: str,
    user_fields: pa.Table | None = None,
    item_fields: pa.Table | None = None,
    user_representation: pa.Table | None = None,
    settings: Settings,
    seed: int,
) -> Task:
    """Samples of interactions, split by a seed.

    Args:
        interactions: as :func:`reki_feast.condense.condense` takes them.
        user: name of the user's key column.
        item: name of the item's key column.
        user_fields: user key and categorical columns, or None.
        item_fields: the same for items.
        user_representation: rows of several times, so that a sample reads its user's newest at the
            interaction's ``event_timestamp``; None for one row a user.
        settings: history's length, and the split.
        seed: of the split.

    Raises:
        CondenseError: a column is missing or holds nulls, no row is a sample, or all are alike.
    """
    data = make_samples(interactions, user=user, item=item, history_length=settings.history_length)
    _check_labels(data.samples)
    people = len(data.samples.user.unique())
    samples, users, rows = data.samples, data.users, None
    if user_representation is not None:
        samples, users, rows = _in_time(data, interactions, user_representation)
    parts = split_samples(
        samples,
        holdout=settings.holdout,
        test=settings.test,
        validation=settings.validation,
        seed=seed,
        owner=data.samples.user,
    )
    spec = InputSpec(
        items=len(data.items),
        verdicts=data.verdicts,
        user_fields=_fields(user_fields, user, users),
        item_fields=_fields(item_fields, item, data.items),
    )
    return Task(parts, spec, users, data.items, people, rows)


def _in_time(
    data: SampleSet, interactions: pa.Table, table: pa.Table
) -> tuple[Samples, pa.Array, Indices]:
    """Samples whose user index is that of the newest row at their time; ids and rows by index."""
    owner = pc.index_in(table[key_name(table)], value_set=data.users).fill_null(-1).to_numpy()
    time = table["event_timestamp"].cast(pa.int64()).to_numpy()
    order = np.lexsort((time, owner))
    order = order[owner[order] >= 0]
    owner, time = owner[order], time[order]
    whose = data.samples.user.numpy() - 1
    when = interactions["event_timestamp"].cast(pa.int64()).to_numpy()[data.rows]
    place = place_at(owner, time, whose, when)
    index = np.where(place >= 0, len(data.users) + 1 + place, whose + 1)
    users = pa.concat_arrays([data.users, data.users.take(pa.array(owner))])
    rows = np.concatenate([np.full(len(data.users), -1), order])
    return replace(data.samples, user=torch.from_numpy(index)), users, rows


def make_plain(spec: InputSpec, backbone: Factory, *, seed: int) -> nn.Module:
    """An untrained recommender without vectors."""
    with seeded(seed):
        return backbone(spec)


def make_joint(
    task: Task,
    users: pa.Table,
    items: pa.Table,
    backbone: Factory,
    *,
    pairs: Pairs,
    settings: Settings,
    seed: int,
    sides: Sequence[Kind] = KINDS,
    start: HeinSet | None = None,
    partial: bool = False,
) -> Joint:
    """An untrained recommender with HEINs; draws the HEINs' weights first, then its own.

    Args:
        task: samples whose entities the tables are about.
        users: of :func:`reki_feast.schema.representation`, one row a user; its first column names
            the user key.
        items: the same for items.
        backbone: builds the recommender.
        pairs: channel pairs, one HEIN each.
        settings: sizes of the HEINs.
        seed: of the weights.
        sides: whose vectors the recommender sees.
        start: trained HEINs of the same pairs and sizes, whose weights these go on from.
        partial: some channels may have no vectors yet; they count as their mean.

    Raises:
        CondenseError: a channel is missing or has no vectors, ids do not meet, an id is there
            twice, or a vector holds NaN or infinity.
    """
    for side, (kind, table) in enumerate(zip(KINDS, (users, items), strict=True)):
        channels = [pair[side] for pair in pairs]
        check_channels(table, kind, channels)
        if not partial or not vector_size(table, channels):
            check_filled(table, kind, channels)
    with seeded(seed):
        heins = make_heins(pairs, vector_size(users, [pair[0] for pair in pairs]), settings)
        spec = replace(task.spec, extra_sizes=(heins.size,) * len(sides))
        model = backbone(spec)
    if start is not None:
        heins.load_state_dict({**heins.state_dict(), **dict(start.named_parameters())})

    def banks(table: pa.Table, ids: pa.Array, kind: Kind) -> dict[str, Bank]:
        fix_standards(heins, table, kind, norm=settings.input_norm, like=start)
        made = make_banks(heins, table, kind)
        if kind == "user" and task.user_rows is not None:
            return bank_by_row(made, task.user_rows)
        return bank_by_index(made, table, ids, kind, key_name(table))

    return Joint(
        backbone=model,
        heins=heins,
        users=banks(users, task.users, "user"),
        items=banks(items, task.items, "item"),
        sides=sides,
        match_weight=settings.match_weight,
    )


def make_heins(pairs: Pairs, input_size: int, settings: Settings) -> HeinSet:
    """Untrained HEINs for representations of ``input_size`` floats."""
    return HeinSet(
        pairs=pairs,
        input_size=input_size,
        components=settings.components,
        shared_experts=settings.shared_experts,
        user_experts=settings.user_experts,
        item_experts=settings.item_experts,
        hidden_size=settings.hidden_size,
        output_size=settings.output_size,
        dropout=settings.hein_dropout,
    )


def key_name(table: pa.Table) -> str:
    """Name of a representation table's key column, its first."""
    return str(table.schema.names[0])


def _fields(table: pa.Table | None, key: str, ids: pa.Array) -> Fields | None:
    if table is None:
        return None
    columns = [name for name in table.schema.names if name != key]
    return make_fields(table, key, ids, columns)


def _check_labels(samples: Samples) -> None:
    liked = int(samples.label.sum())
    if liked in (0, len(samples)):
        raise CondenseError(
            "samples hold both liked and disliked interactions",
            found=f"{liked} liked of {len(samples)}",
            mend="check the rule that makes 'liked', or take more interactions",
        )
