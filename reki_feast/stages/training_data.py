"""What HEIN, and every model of an evaluation, is trained on: snapshots and what came after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import CondenseError
from reki_feast.project import DeclaredProject
from reki_feast.results import Weights
from reki_feast.schema import TASTE, TIMESTAMP, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import between_times, representation, times, up_to
from reki_feast.tables.asof import after
from reki_feast.tables.attributes import attributes
from reki_feast.tables.drawn import drawn_users
from reki_feast.tables.inputs import Inputs, of_users
from reki_feast.tables.parts import newest
from reki_feast.tables.snapshot_times import snapshot_to_learn_from, split
from reki_feast.views.spaces import read_spaces

if TYPE_CHECKING:
    from reki_feast.models.hein import HeinConfig


@dataclass(frozen=True)
class TrainingData:
    """Tables as :func:`reki_feast.models.hein.fit_hein` takes them.

    Attributes:
        given: the project's tables, of the drawn users alone.
        time: the as-of time of the representations.
        until: labels came before it; None without times.
        interactions: with their samples.
        users: representations of users as of ``time``; :func:`in_time`, of all times.
        items: of items.
        user_fields: user key and the columns that tell users apart; None without any.
        item_fields: the same of items.
        drawn: ids of the users whose interactions these are; None: all users'.
    """

    given: Inputs
    time: datetime
    until: datetime | None
    interactions: pa.Table
    users: pa.Table
    items: pa.Table
    user_fields: pa.Table | None
    item_fields: pa.Table | None
    drawn: pa.Array | None = None


def drawn_to_learn(context: StageContext) -> pa.Array | None:
    """Ids of the users that ``Training(samples=…)`` leaves to learn from; None: all."""
    said, tables = context.declared.training, context.tables
    return drawn_users(tables.interactions, tables.user, said.samples, said.seed)


def training_data(project: DeclaredProject, drawn: pa.Array | None = None) -> TrainingData:
    """Choose the snapshot, the latest that leaves out a quarter of the interactions.

    Args:
        project: the project.
        drawn: ids of the users whose interactions are taken; None: all users'.

    Raises:
        CondenseError: no snapshot leaves interactions to learn from.
    """
    context = StageContext.of(project)
    time = _snapshot(context)
    until = _labels_until(context, time)
    given = context.tables if drawn is None else of_users(context.tables, drawn)
    rows = split(given, time, context.declared.scenario.history)
    users = _at(context, "user", time, drawn)
    _check_taste(users, time)
    return TrainingData(
        given,
        time,
        until,
        labelled_until(rows, until),
        users,
        _at(context, "item", time),
        _fields(context, given, "user"),
        _fields(context, given, "item"),
        drawn,
    )


def in_time(project: DeclaredProject, found: TrainingData) -> TrainingData:
    """The same of all snapshots up to ``until``, so that a sample meets the state of its time.

    Samples begin with the first snapshot that knows users. Without times nothing changes.
    """
    if found.until is None:
        return found
    users = up_to(representation(project, found.given.user, "user", found.drawn), found.until)
    items = up_to(representation(project, found.given.item, "item"), found.until)
    first = pc.min(users["event_timestamp"]).as_py()
    rows = split(found.given, first, project.declared.scenario.history)
    return replace(
        found,
        interactions=labelled_until(rows, found.until),
        users=newest(users, [found.given.user.name, "event_timestamp"]),
        items=newest(items, [found.given.item.name, "event_timestamp"]),
    )


def known_at(found: TrainingData, cut: datetime | None) -> TrainingData:
    """What was known before a time: labels, and representations; all for None."""
    if cut is None:
        return found
    return replace(
        found,
        interactions=labelled_until(found.interactions, cut),
        users=up_to(found.users, cut),
        items=newest(up_to(found.items, cut), [found.given.item.name]),
    )


def trained_until(made: Mapping[str, Any]) -> str:
    """Before when the labels came that stored weights have learnt; empty without times.

    Args:
        made: what ``hein.json`` says. Earlier versions wrote the last label's own time there.
    """
    until: str = made.get("trained_until") or ""
    if not until or made.get("exclusive"):
        return until
    return after(datetime.fromisoformat(until)).isoformat()


def trained_weights(made: Mapping[str, Any]) -> Weights:
    """What ``hein.json`` says of the stored weights."""
    as_of = str(made.get("trained_as_of", ""))
    return Weights(made["q"], str(made.get("hash", "")), trained_until(made), as_of)


def settings(project: DeclaredProject) -> HeinConfig:
    """Sizes and training as the project declares them."""
    from reki_feast.models.hein import HeinConfig
    from reki_feast.models.training_config import TrainingConfig

    declared = project.declared.training
    return HeinConfig(
        shared_experts=declared.shared_experts,
        user_experts=declared.dedicated_experts,
        item_experts=declared.dedicated_experts,
        output_size=declared.output_size,
        components=declared.components,
        hein_dropout=declared.dropout,
        match_weight=declared.match,
        folds=declared.folds,
        forget=declared.forget,
        test=declared.test,
        training=TrainingConfig(
            epochs=declared.epochs,
            batch_size=declared.batch_size,
            learning_rate=declared.learning_rate,
            patience=declared.patience,
            deferred_batches=1 if declared.match else None,
        ),
    )


def _snapshot(context: StageContext) -> datetime:
    made = sorted({*times(context, "user_representation")} - {*between_times(context)})
    if not made:
        rule = "HEIN is trained on representations"
        retrain = " --retrain" if read_spaces(context.data).in_service != context.lake.space else ""
        raise CondenseError(rule, detail="none are stored", hint=f"reki encode{retrain}")
    return snapshot_to_learn_from(context.tables, made)


def _labels_until(context: StageContext, time: datetime) -> datetime | None:
    """The last snapshot, else a tick after the last interaction; None without times.

    What the last snapshot does not know is left for models downstream to be tested on.
    """
    if not context.tables.timed:
        return None
    later = [made for made in times(context, "user_representation") if made > time]
    last: datetime = pc.max(context.tables.interactions["event_timestamp"]).as_py()
    return max(later, default=after(last))


def labelled_until(rows: pa.Table, until: datetime | None) -> pa.Table:
    """The interactions before a time; all for None."""
    if until is None:
        return rows
    early = pc.less(rows["event_timestamp"], pa.scalar(until, TIMESTAMP))
    return rows.filter(early)


def _at(context: StageContext, kind: Kind, time: datetime, ids: pa.Array | None = None) -> pa.Table:
    key = context.key(kind)
    return newest(up_to(representation(context, key, kind, ids), time), [key.name])


def _check_taste(users: pa.Table, time: datetime) -> None:
    """A snapshot may be older than the channel."""
    if TASTE in users.column_names and users[TASTE].null_count == users.num_rows:
        raise CondenseError(
            "the snapshot that HEIN is trained on has tastes",
            detail=f"none as of {time:%Y-%m-%d %H:%M}",
            hint=f"reki encode --as-of {time.isoformat()}, or leave out Encoder(taste=True)",
        )


def _fields(context: StageContext, given: Inputs, kind: Kind) -> pa.Table | None:
    table = given.items if kind == "item" else given.users
    key = context.key(kind)
    columns = attributes(context.declared, context.tables, kind)
    return None if table is None or not columns else table.select([key.name, *columns])
