"""The task a recommender is trained for: samples, their split, and models that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from torch import nn

from reki_feast.condense.settings import Pairs, Settings
from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.recommend.backbone import Factory
from reki_feast.recommend.data import (
    Fields,
    Samples,
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
    check_channels,
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
    """

    parts: Split[Samples]
    spec: InputSpec
    users: pa.Array
    items: pa.Array
    people: int


def make_task(
    interactions: pa.Table,
    *,
    user: str,
    item: str,
    user_fields: pa.Table | None = None,
    item_fields: pa.Table | None = None,
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
        settings: history's length, and the split.
        seed: of the split.

    Raises:
        CondenseError: a column is missing or holds nulls, no row is a sample, or all are alike.
    """
    data = make_samples(interactions, user=user, item=item, history_length=settings.history_length)
    _check_labels(data.samples)
    parts = split_samples(
        data.samples,
        holdout=settings.holdout,
        test=settings.test,
        validation=settings.validation,
        seed=seed,
    )
    spec = InputSpec(
        items=len(data.items),
        verdicts=data.verdicts,
        user_fields=_fields(user_fields, user, data.users),
        item_fields=_fields(item_fields, item, data.items),
    )
    people = len(data.samples.user.unique())
    return Task(parts, spec, data.users, data.items, people)


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

    Raises:
        CondenseError: a channel is missing, ids do not meet, an id is there twice, or a vector
            holds NaN or infinity.
    """
    check_channels(users, "user", [pair[0] for pair in pairs])
    check_channels(items, "item", [pair[1] for pair in pairs])
    with seeded(seed):
        heins = make_heins(pairs, vector_size(users, "user", pairs[0][0]), settings)
        spec = replace(task.spec, extra_sizes=(heins.size,) * len(sides))
        model = backbone(spec)

    def banks(table: pa.Table, ids: pa.Array, kind: Kind) -> dict[str, Bank]:
        fix_standards(heins, table, kind, norm=settings.input_norm)
        return bank_by_index(make_banks(heins, table, kind), table, ids, kind, key_name(table))

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
