"""The training task: samples, their split, and untrained models for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from reki_feast.errors import CondenseError
from reki_feast.models.backbone import Factory
from reki_feast.models.data import Samples, SampleSet, make_samples
from reki_feast.models.fields import Fields, make_fields
from reki_feast.models.hein.config import HeinConfig, HeinData, Pairs
from reki_feast.models.hein.embedding_tables import (
    EmbeddingTable,
    check_channels,
    check_filled,
    make_tables,
    reindex_by_id,
    reindex_by_row,
    vector_size,
)
from reki_feast.models.hein.joint import JointModel
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.standardisation import fit_standardisation
from reki_feast.models.inputs import InputSpec
from reki_feast.models.splitting import Split, split_held_out, split_samples
from reki_feast.models.training import seeded
from reki_feast.schema import KINDS, Kind
from reki_feast.tables.asof import Indices, place_at


@dataclass(frozen=True)
class Task:
    """Samples, their split, and the ids behind their indices.

    Attributes:
        parts: Training, validation and test samples.
        spec: Shape of the samples for a recommender without vectors.
        users: Ids; the user of index i is ``users[i - 1]``.
        items: Ids; the item of index i is ``items[i - 1]``.
        people: Number of users that have samples.
        user_rows: Row of each user index in the representations, -1 for none; None where a user
            has one row. Users with rows of several times have an index a row, after the indices of
            users before their first row.
        levels: Ratings that verdicts of histories tell apart; none where they are of ``liked``.
    """

    parts: Split[Samples]
    spec: InputSpec
    users: pa.Array
    items: pa.Array
    people: int
    user_rows: Indices | None = None
    levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class JointOptions:
    """Options of :func:`make_joint`.

    Attributes:
        pairs: Channel pairs, one HEIN each.
        seed: Of the weights.
        towers: Whose vectors the recommender sees.
        warm_start: Trained HEINs of the same pairs and sizes, whose weights these start from.
        allow_missing: Some channels may have no vectors yet; they count as their mean.
    """

    pairs: Pairs
    seed: int = 0
    towers: Sequence[Kind] = KINDS
    warm_start: HeinSet | None = None
    allow_missing: bool = False


def make_task(
    data: HeinData, *, config: HeinConfig, seed: int, levels: Sequence[float] | None = None
) -> Task:
    """Samples of interactions, split by a seed.

    Where interactions have ``event_timestamp`` and users have representations of several times, a
    sample reads its user's newest at the time of the interaction.

    Args:
        data: Interactions, representations and fields.
        config: Length of the histories, and the split.
        seed: Of the split.
        levels: Ratings that histories tell apart, of a model that goes on; None finds them.

    Returns:
        The samples, in three parts, and what the models need to know of them.

    Raises:
        CondenseError: A column is missing or holds nulls, no row is a sample, or all labels are
            equal.
    """
    user, item = key_name(data.users), key_name(data.items)
    made = make_samples(
        data.interactions,
        user=user,
        item=item,
        history_length=config.history_length,
        levels=levels,
    )
    _check_labels(made.samples)
    people = len(made.samples.user.unique())
    samples, users, rows = made.samples, made.users, None
    if _has_several_times(data):
        samples, users, rows = _point_in_time(made, data)
    parts = _split(samples, made, config=config, seed=seed)
    spec = InputSpec(
        items=len(made.items),
        verdicts=made.verdicts,
        user_fields=_fields(data.user_fields, user, users),
        item_fields=_fields(data.item_fields, item, made.items),
        forget=config.forget,
    )
    return Task(parts, spec, users, made.items, people, rows, made.levels)


def _split(samples: Samples, made: SampleSet, *, config: HeinConfig, seed: int) -> Split[Samples]:
    """By the column ``held_out`` where there is one, else by the config."""
    owner = made.samples.user
    if made.held_out is not None:
        return split_held_out(
            samples, made.held_out, validation=config.validation, seed=seed, owner=owner
        )
    return split_samples(
        samples,
        holdout=config.holdout,
        test=config.test,
        validation=config.validation,
        seed=seed,
        owner=owner,
    )


def _has_several_times(data: HeinData) -> bool:
    timed = "event_timestamp" in data.interactions.schema.names
    return timed and len(pc.unique(data.users.column(0))) < data.users.num_rows


def _point_in_time(made: SampleSet, data: HeinData) -> tuple[Samples, pa.Array, Indices]:
    """Samples whose user index is that of the newest row at their time; ids and rows by index."""
    table = data.users
    entity = pc.index_in(table.column(0), value_set=made.users).fill_null(-1).to_numpy()
    time = table["event_timestamp"].cast(pa.int64()).to_numpy()
    order = np.lexsort((time, entity))
    order = order[entity[order] >= 0]
    entity, time = entity[order], time[order]
    sample_user = made.samples.user.numpy() - 1
    event_time = data.interactions["event_timestamp"].cast(pa.int64()).to_numpy()[made.rows]
    row = place_at(entity, time, sample_user, event_time)
    index = np.where(row >= 0, len(made.users) + 1 + row, sample_user + 1)
    users = pa.concat_arrays([made.users, made.users.take(pa.array(entity))])
    rows = np.concatenate([np.full(len(made.users), -1), order])
    return replace(made.samples, user=torch.from_numpy(index)), users, rows


def make_plain(spec: InputSpec, backbone: Factory, *, seed: int) -> nn.Module:
    """An untrained recommender without vectors.

    Args:
        spec: Sizes of the inputs.
        backbone: Builds the recommender.
        seed: Of the initial weights.

    Returns:
        The recommender.
    """
    with seeded(seed):
        return backbone(spec)


def make_joint(
    task: Task, data: HeinData, backbone: Factory, *, config: HeinConfig, options: JointOptions
) -> JointModel:
    """An untrained recommender with HEINs.

    Args:
        task: Samples and ids.
        data: Representations of users and items.
        backbone: Builds the recommender.
        config: Sizes of the HEINs.
        options: Channel pairs, towers, seed and warm start.

    Returns:
        The recommender together with its HEINs.

    Raises:
        CondenseError: A channel is missing or has no vectors, the ids do not match, an id is
            repeated, or a vector holds NaN or infinity.
    """
    users, items, warm_start = data.users, data.items, options.warm_start
    for tower, (kind, table) in enumerate(zip(KINDS, (users, items), strict=True)):
        channels = [pair[tower] for pair in options.pairs]
        check_channels(table, kind, channels)
        if not options.allow_missing or not vector_size(table, channels):
            check_filled(table, kind, channels)
    with seeded(options.seed):
        size = vector_size(users, [pair[0] for pair in options.pairs])
        heins = make_heins(options.pairs, size, config)
        spec = replace(task.spec, extra_sizes=(heins.size,) * len(options.towers))
        model = backbone(spec)
    if warm_start is not None:
        heins.load_state_dict({**heins.state_dict(), **dict(warm_start.named_parameters())})

    def tables(table: pa.Table, ids: pa.Array, kind: Kind) -> dict[str, EmbeddingTable]:
        fit_standardisation(heins, table, kind, norm=config.input_norm, warm_start=warm_start)
        made = make_tables(heins, table, kind)
        if kind == "user" and task.user_rows is not None:
            return reindex_by_row(made, task.user_rows)
        return reindex_by_id(made, table, ids, kind, key_name(table))

    return JointModel(
        backbone=model,
        heins=heins,
        users=tables(users, task.users, "user"),
        items=tables(items, task.items, "item"),
        towers=options.towers,
        match_weight=config.match_weight,
    )


def make_heins(pairs: Pairs, input_size: int, config: HeinConfig) -> HeinSet:
    """Untrained HEINs for representations of ``input_size`` floats."""
    return HeinSet(
        pairs=pairs,
        input_size=input_size,
        components=config.components,
        shared_experts=config.shared_experts,
        user_experts=config.user_experts,
        item_experts=config.item_experts,
        hidden_size=config.hidden_size,
        output_size=config.output_size,
        dropout=config.hein_dropout,
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
            detail=f"{liked} liked of {len(samples)}",
            hint="check the rule that makes 'liked', or take more interactions",
        )
