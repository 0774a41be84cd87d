"""Fits HEINs jointly with a recommender, any that reads a batch and two vectors."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import nn

from reki_feast.errors import CondenseError
from reki_feast.models.backbone import Factory
from reki_feast.models.click.base import ClickModel
from reki_feast.models.click.din import Din
from reki_feast.models.hein.compatible import (
    check_predecessor,
    compatible_folds,
    compatible_model,
    own_start,
)
from reki_feast.models.hein.config import (
    FitOptions,
    FittedHein,
    HeinConfig,
    HeinData,
    ModelHistory,
    TrainingReport,
    channel_pairs,
)
from reki_feast.models.hein.cross_fitting import cross_fit, make_folds
from reki_feast.models.hein.joint import JointModel
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.task import JointOptions, Task, make_joint, make_plain, make_task
from reki_feast.models.scoring import evaluate
from reki_feast.models.trained_backbone import TrainedBackbone, class_name
from reki_feast.models.training import Progress, fit
from reki_feast.schema import ITEM_CHANNELS, USER_CHANNELS


def fit_hein(
    data: HeinData,
    *,
    backbone: Factory = Din,
    config: HeinConfig | None = None,
    options: FitOptions | None = None,
    warm_start: HeinSet | None = None,
    progress: Progress | None = None,
) -> FittedHein:
    """Fit HEINs together with a recommender; on CPU a seed gives the same weights each time.

    Args:
        data: Interactions, representations and categorical fields.
        backbone: Builds the recommender: given an :class:`~reki_feast.models.inputs.InputSpec`,
            a :class:`torch.nn.Module` whose ``forward(batch, extras)`` gives a logit a sample. A
            class of :mod:`reki_feast.models.click`, or your own.
        config: Sizes and training; None for the defaults.
        options: Channel pairs, seed, comparison and device; None for the defaults.
        warm_start: HEINs of the same pairs and sizes to start from; None initialises new ones.
            A predecessor's weights go first, where they fit.
        progress: Called after every batch.

    Returns:
        The fitted HEINs, and the history of the fit.

    Raises:
        CondenseError: Torch cannot use the device; the tables cannot be trained on: a column is
            missing, all labels are equal, ids do not match, an id is repeated, a vector holds NaN
            or infinity; or the cross-fitting folds are too few or too small.
    """
    config, options = config or HeinConfig(), options or FitOptions()
    device = usable_device(options.device)
    _check_key_types(data.interactions, data.users, data.items)
    pairs = tuple(options.pairs or channel_pairs(_channels(data.users), _channels(data.items)))
    before = options.predecessor
    own = None
    if before is not None:
        check_predecessor(before.hein, pairs, config)
        own = own_start(before, pairs, config)
    task = make_task(data, config=config, seed=options.seed)
    folds = make_folds(task, config) if config.folds else ()
    # first, so that a bad table is found before the comparison is trained
    joint_options = JointOptions(
        pairs, options.seed, warm_start=own or warm_start, allow_missing=options.allow_missing
    )
    joint = make_joint(task, data, backbone, config=config, options=joint_options)
    plain = None
    if options.compare:
        model = make_plain(task.spec, backbone, seed=options.seed).to(device)
        plain = _fit_model(model, task, config, options.seed, progress)
    trained: nn.Module = joint.to(device)
    if before is not None:
        trained = near = compatible_model(joint, before, task, data).to(device)
        folds = compatible_folds(folds, before, task, data, can_start=own is not None)
        if own is None:
            near.begin_near(seed=options.seed)
    history = _fit_model(trained, task, config, options.seed, progress)
    networks: tuple[HeinSet, ...] = ()
    if folds:
        seed = options.seed
        networks = cross_fit(joint, task, folds, config=config, seed=seed, progress=progress)
    counts = (len(task.parts.train), len(task.parts.validation), len(task.parts.test))
    report = TrainingReport(counts, task.people, history, plain)
    on_cpu = tuple(heins.cpu() for heins in networks)
    heins = joint.heins.eval().cpu()
    return FittedHein(heins, config, options.seed, report, on_cpu, _backbone(joint, task))


def usable_device(name: str) -> torch.device:
    """The torch device of that name.

    Args:
        name: Such as ``cpu`` or ``cuda:0``.

    Returns:
        The device.

    Raises:
        CondenseError: Torch cannot use it.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # a build without CUDA asserts that it is with
        raise CondenseError(
            "torch can use the device to train on",
            detail=f"{name!r}: {str(error).splitlines()[0]}",
            hint='Training(device="cpu"), or a torch build for that device',
        ) from error
    return device


def _fit_model(
    model: nn.Module, task: Task, config: HeinConfig, seed: int, progress: Progress | None
) -> ModelHistory:
    epochs = fit(
        model,
        task.parts.train,
        task.parts.validation,
        config=config.training,
        seed=seed,
        progress=progress,
    )
    return ModelHistory(evaluate(model, task.parts.test), tuple(epochs))


def _backbone(joint: JointModel, task: Task) -> TrainedBackbone | None:
    """The trained recommender, if it can be stored: its fields are codes of these tables alone."""
    model, spec = joint.backbone, task.spec
    has_fields = spec.user_fields is not None or spec.item_fields is not None
    if not isinstance(model, ClickModel) or not class_name(model) or has_fields:
        return None
    sizes = (joint.heins.size,) * len(joint.towers)
    return TrainedBackbone(model.eval().cpu(), task.items, task.levels, sizes)


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
                detail=f"{found} in the interactions, {key.type} in the representations",
            )
