"""What HEIN, and every model of an evaluation, is trained on: snapshots and what came after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import inputs as sources
from reki_feast.attributes import attributes
from reki_feast.errors import CondenseError
from reki_feast.inputs import Inputs
from reki_feast.lake import newest
from reki_feast.pipeline.stored import between_times, representation, times, up_to
from reki_feast.project import Project
from reki_feast.schema import TASTE, TIMESTAMP, Kind

if TYPE_CHECKING:
    from reki_feast.condense import Settings


@dataclass(frozen=True)
class Learning:
    """Tables as :func:`reki_feast.condense.condense` takes them.

    Attributes:
        given: the project's tables.
        time: the as-of time of the representations.
        until: labels came before it; None without times.
        interactions: with their samples.
        users: representations of users as of ``time``; :func:`in_time`, of all times.
        items: of items.
        user_fields: user key and the columns that tell users apart; None without any.
        item_fields: the same of items.
    """

    given: Inputs
    time: datetime
    until: datetime | None
    interactions: pa.Table
    users: pa.Table
    items: pa.Table
    user_fields: pa.Table | None
    item_fields: pa.Table | None


def learning(project: Project) -> Learning:
    """Choose the snapshot, the latest that leaves out a quarter of the interactions.

    Raises:
        CondenseError: no snapshot leaves interactions to learn from.
    """
    given = sources.read(project.declared, project.root)
    time = _snapshot(project, given)
    until = _labels_until(project, given, time)
    rows = sources.split(given, time, project.declared.scenario.history)
    users = _at(project, given, "user", time)
    _check_taste(users, time)
    return Learning(
        given,
        time,
        until,
        labelled_until(rows, until),
        users,
        _at(project, given, "item", time),
        _fields(project, given, "user"),
        _fields(project, given, "item"),
    )


def in_time(project: Project, found: Learning) -> Learning:
    """The same of all snapshots up to ``until``, so that a sample meets the state of its time.

    Samples begin with the first snapshot that knows users. Without times nothing changes.
    """
    if found.until is None:
        return found
    users = up_to(representation(project, found.given.user, "user")[1], found.until)
    items = up_to(representation(project, found.given.item, "item")[1], found.until)
    first = pc.min(users["event_timestamp"]).as_py()
    rows = sources.split(found.given, first, project.declared.scenario.history)
    return replace(
        found,
        interactions=labelled_until(rows, found.until),
        users=newest(users, [found.given.user.name, "event_timestamp"]),
        items=newest(items, [found.given.item.name, "event_timestamp"]),
    )


def known_at(found: Learning, cut: datetime | None) -> Learning:
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
    said: str = made.get("trained_until") or ""
    if not said or made.get("exclusive"):
        return said
    return sources.after(datetime.fromisoformat(said)).isoformat()


def when_trained(made: Mapping[str, Any]) -> str:
    """What ``hein.json`` says of the time that weights were trained at, for a report."""
    until = trained_until(made)
    if until:
        return f"trained on labels before {until[:16]}"
    return f"trained as of {str(made.get('trained_as_of', ''))[:16]}"


def settings(project: Project) -> Settings:
    """Sizes and training as the project declares them."""
    from reki_feast.condense import Settings
    from reki_feast.recommend.train import Training

    said = project.declared.training
    return Settings(
        shared_experts=said.shared_experts,
        user_experts=said.dedicated_experts,
        item_experts=said.dedicated_experts,
        output_size=said.output_size,
        components=said.components,
        hein_dropout=said.dropout,
        match_weight=said.match,
        folds=said.folds,
        test=said.test,
        training=Training(
            epochs=said.epochs,
            batch_size=said.batch_size,
            learning_rate=said.learning_rate,
            patience=said.patience,
            together=1 if said.match else None,
        ),
    )


def _snapshot(project: Project, given: Inputs) -> datetime:
    made = sorted({*times(project, "user_representation")} - {*between_times(project)})
    if not made:
        rule = "HEIN is trained on representations"
        raise CondenseError(rule, found="none are stored", mend="reki encode")
    return sources.snapshot_to_learn_from(given, made)


def _labels_until(project: Project, given: Inputs, time: datetime) -> datetime | None:
    """The last snapshot, else a tick after the last interaction; None without times.

    What the last snapshot does not know is left for models downstream to be tested on.
    """
    if not given.timed:
        return None
    later = [made for made in times(project, "user_representation") if made > time]
    last: datetime = pc.max(given.interactions["event_timestamp"]).as_py()
    return max(later, default=sources.after(last))


def labelled_until(rows: pa.Table, until: datetime | None) -> pa.Table:
    """The interactions before a time; all for None."""
    if until is None:
        return rows
    early = pc.less(rows["event_timestamp"], pa.scalar(until, TIMESTAMP))
    return rows.filter(early)


def _at(project: Project, given: Inputs, kind: Kind, time: datetime) -> pa.Table:
    key = given.user if kind == "user" else given.item
    _, table = representation(project, key, kind)
    return newest(up_to(table, time), [key.name])


def _check_taste(users: pa.Table, time: datetime) -> None:
    """A snapshot may be older than the channel."""
    if TASTE in users.column_names and users[TASTE].null_count == users.num_rows:
        raise CondenseError(
            "the snapshot that HEIN is trained on has tastes",
            found=f"none as of {time:%Y-%m-%d %H:%M}",
            mend=f"reki encode --as-of {time.isoformat()}, or leave out Encoder(taste=True)",
        )


def _fields(project: Project, given: Inputs, kind: Kind) -> pa.Table | None:
    table = given.items if kind == "item" else given.users
    key = given.user if kind == "user" else given.item
    columns = attributes(project.declared, given, kind)
    return None if table is None or not columns else table.select([key.name, *columns])
