"""HEINs trained jointly with a recommender, any that reads a batch and two vectors."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from reki_feast.condense.crossfit import cross_fit, fold
from reki_feast.condense.settings import Condensed, Pairs, Report, Run, Settings, channel_pairs
from reki_feast.condense.task import Task, key_name, make_joint, make_plain, make_task
from reki_feast.errors import CondenseError
from reki_feast.hein import HeinSet
from reki_feast.recommend.backbone import Factory
from reki_feast.recommend.ctr.din import Din
from reki_feast.recommend.train import Progress, evaluate, fit
from reki_feast.schema import ITEM_CHANNELS, USER_CHANNELS


def condense(
    interactions: pa.Table,
    user_representation: pa.Table,
    item_representation: pa.Table,
    *,
    backbone: Factory = Din,
    pairs: Pairs | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    compare: bool = True,
    user_fields: pa.Table | None = None,
    item_fields: pa.Table | None = None,
    device: str = "cpu",
    start: HeinSet | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> Condensed:
    """Train the HEINs together with a recommender; on CPU a seed gives the same weights each time.

    Args:
        interactions: user key, item key, ``liked`` (bool), ``order`` (int64, time order within a
            user) and ``sample`` (bool; False for rows the knowledge was made from, which only
            stand in behaviour histories); optionally ``rating``, a number, which histories then
            show in place of ``liked``.
        user_representation: of :func:`reki_feast.schema.representation`; its first column names
            the user key. One row a user; or, where interactions have ``event_timestamp`` too, rows
            of several times, of which a sample reads its user's newest.
        item_representation: the same for items.
        backbone: builds the recommender: given an :class:`~reki_feast.recommend.inputs.InputSpec`,
            a :class:`torch.nn.Module` whose ``forward(batch, extras)`` gives a logit a sample. A
            class of :mod:`reki_feast.recommend.ctr`, or your own.
        pairs: channel pairs, one HEIN each; None takes :func:`channel_pairs`.
        settings: sizes and training; None for the defaults.
        seed: of the split, the weights and the order of the samples.
        compare: train the same recommender without vectors too, for the report.
        user_fields: user key and categorical columns, which the recommender sees.
        item_fields: the same for items.
        device: the torch device to train on; what comes of it is on the CPU.
        start: HEINs of the same pairs and sizes that learning goes on from; None starts anew.
        partial: some channels may have no vectors yet; they count as their mean.
        progress: called after every batch.

    Raises:
        CondenseError: torch cannot use the device; the tables cannot be trained on: a column is
            missing, all labels are equal, ids do not meet, an id is there twice, a vector holds
            NaN or infinity; or the folds cannot be.
    """
    how, where = settings or Settings(), usable_device(device)
    users, items = user_representation, item_representation
    _check_key_types(interactions, users, items)
    chosen = tuple(pairs or channel_pairs(_channels(users), _channels(items)))
    task = make_task(
        interactions,
        user=key_name(users),
        item=key_name(items),
        user_fields=user_fields,
        item_fields=item_fields,
        user_representation=users if _several_times(interactions, users) else None,
        settings=how,
        seed=seed,
    )
    parts = fold(task, how) if how.folds else ()
    # first, so that a bad table is found before the comparison is trained
    joint = make_joint(
        task,
        users,
        items,
        backbone,
        pairs=chosen,
        settings=how,
        seed=seed,
        start=start,
        partial=partial,
    )
    plain = None
    if compare:
        alone = make_plain(task.spec, backbone, seed=seed).to(where)
        plain = _run(alone, task, how, seed, progress)
    run = _run(joint.to(where), task, how, seed, progress)
    folds: tuple[HeinSet, ...] = ()
    if parts:
        folds = cross_fit(joint, task, parts, settings=how, seed=seed, progress=progress)
    counts = (len(task.parts.train), len(task.parts.validation), len(task.parts.test))
    report = Report(counts, task.people, run, plain)
    here = tuple(heins.cpu() for heins in folds)
    return Condensed(joint.heins.eval().cpu(), how, seed, report, here)


def _several_times(interactions: pa.Table, users: pa.Table) -> bool:
    timed = "event_timestamp" in interactions.schema.names
    return timed and len(pc.unique(users.column(0))) < users.num_rows


def usable_device(name: str) -> torch.device:
    """The torch device of that name; raises CondenseError where torch cannot use it."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # a build without CUDA asserts that it is with
        raise CondenseError(
            "torch can use the device to train on",
            found=f"{name!r}: {str(error).splitlines()[0]}",
            mend='Training(device="cpu"), or a torch build for that device',
        ) from error
    return device


def _run(
    model: nn.Module, task: Task, settings: Settings, seed: int, progress: Progress | None
) -> Run:
    epochs = fit(
        model,
        task.parts.train,
        task.parts.validation,
        training=settings.training,
        seed=seed,
        progress=progress,
    )
    return Run(evaluate(model, task.parts.test), tuple(epochs))


def _channels(table: pa.Table) -> list[str]:
    return [name for name in table.schema.names[1:] if name in USER_CHANNELS + ITEM_CHANNELS]


def _check_key_types(interactions: pa.Table, *tables: pa.Table) -> None:
    for table in tables:
        key = table.schema.field(0)
        if key.name not in interactions.schema.names:
            continue  # make_samples names all that is missing
        found = interactions.schema.field(key.name).type
        if found != key.type:
            raise CondenseError(
                f"{key.name!r} has one type in all tables",
                found=f"{found} in the interactions, {key.type} in the representations",
            )
