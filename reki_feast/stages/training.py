"""Representations to weights: HEIN trained on what came after the snapshot it reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reki_feast.declare import Encoder
from reki_feast.declare.encoder import WAY_TO_SERVER
from reki_feast.errors import CondenseError
from reki_feast.models.names import LABELS
from reki_feast.project import DeclaredProject
from reki_feast.report import Bar, Progress, Silent
from reki_feast.results import HeldOutScore, SampleCounts, TrainResult
from reki_feast.schema import TIMESTAMP
from reki_feast.stages.compatible import COMPATIBLE_WITH, OldSpace, check_compatible
from reki_feast.stages.context import StageContext
from reki_feast.stages.exclusive import writing
from reki_feast.stages.gain import found_shares, gains, helping_notes, helps
from reki_feast.stages.living_spaces import DECLARATION, begin_first, retrained
from reki_feast.stages.matching import fit, fitted_scores, match_data
from reki_feast.stages.observed import stage
from reki_feast.stages.snapshots import channels, times
from reki_feast.stages.training_data import (
    TrainingData,
    drawn_to_learn,
    in_time,
    known_at,
    settings,
    trained_weights,
    training_data,
)
from reki_feast.stages.up_to_date import StandingResult
from reki_feast.views.spaces import read_spaces

if TYPE_CHECKING:
    from reki_feast.models.hein import FittedHein, Predecessor, VectorBlock


@stage
@writing
def train(
    project: DeclaredProject,
    *,
    retrain: bool = False,
    compatible: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Train HEIN and keep its weights; where there are weights, they stand unless ``retrain``.

    Keeping them keeps every later snapshot's vectors in one space, which models downstream have
    learnt. Of each interaction HEIN learns from the snapshot of its time; without times, from one
    snapshot, the latest that a quarter of the interactions came after.

    Args:
        project: the project.
        retrain: whether to train again where there are weights; vectors move into a new space.
        compatible: whether the new vectors stay near to those of the weights in service, so that
            models which learnt from these can read the new ones.
        progress: shows how far it is.

    Raises:
        CondenseError: no snapshot leaves interactions to learn from, or they cannot be learnt from;
            or weights are to be compatible and are not trained again, there are none before, or
            vectors are of another length, or of other folds, than those.
    """
    context = StageContext.of(project)
    if compatible:
        check_compatible(context, retrain=retrain)
    standing = StandingResult(context, TrainResult, retrain=retrain, compatible=compatible)
    return standing.stored() or standing.keep(
        _trained(context, progress, retrain=retrain, compatible=compatible),
        unchanged=lambda _: _standing(context),
    )


def _trained(
    context: StageContext, progress: Progress | None, *, retrain: bool, compatible: bool
) -> TrainResult:
    stored = None if retrain else context.lake.weights()
    if stored is not None:
        if _lacks_scores(context):
            until = times(context, "item_representation")[-1]
            _fit_scores(context, until, drawn_to_learn(context), progress or Silent())
        return _of_weights(context, stored[1])
    old = OldSpace.of(context) if compatible else None
    if retrain:
        context = retrained(context)
    found = in_time(context, training_data(context, drawn_to_learn(context)))
    bars = progress or Silent()
    blocks = _blocks(context, found, old, bars)
    from reki_feast.models.hein import all_manifest, all_weights, stored_backbones

    made = {**all_manifest(blocks), "trained_as_of": found.time.isoformat()}
    made["backbone"] = context.declared.training.backbone
    made[DECLARATION] = context.declared.training.model_dump()
    if old is not None:
        made[COMPATIBLE_WITH] = old.hash
    if found.until is not None:
        made["trained_until"], made["exclusive"] = found.until.isoformat(), True
        _fit_scores(context, found.until, found.drawn, bars)
        made["helps"] = _helps(context, found.drawn, bars)
    begin_first(context)
    backbones = stored_backbones([one.hein.backbone for one in blocks])
    context.lake.write_weights(all_weights(blocks), made, backbones)
    drawn = _drawn_note(context, found)
    return _result(context, made, *drawn, *_new_space(context), *found.given.notices)


def _drawn_note(context: StageContext, found: TrainingData) -> list[str]:
    """How much of the log was learnt from, where that is not all."""
    if found.drawn is None:
        return []
    seen, every = found.given.interactions.num_rows, context.tables.interactions.num_rows
    return [
        f"learnt from {seen:,} of {every:,} interactions, those of {len(found.drawn):,} users that "
        f"the seed drew: Training(samples={context.declared.training.samples})"
    ]


def _new_space(context: StageContext) -> list[str]:
    """What becomes of new weights beside those in service."""
    space, current = context.lake.space, read_spaces(context.data).in_service
    if space.number == current.number:
        return []
    return [
        f"weights of a new space, {space.version}; {current.version} stays in service until "
        f"`reki promote {space.version}`"
    ]


def _standing(context: StageContext) -> TrainResult | None:
    """The result while the stored weights stand; None where there would be something to do."""
    made = context.lake.read_json("hein")
    return None if made is None or _lacks_scores(context) else _of_weights(context, made)


def _of_weights(context: StageContext, made: dict[str, Any]) -> TrainResult:
    said = "weights are there; --retrain trains again"
    return _result(context, made, said, *_declared_since(context, made))


def _lacks_scores(context: StageContext) -> bool:
    """Whether weights are there and scores are not, as in a project made before them."""
    can_be_fitted = context.tables.timed and bool(times(context, "item_representation"))
    return can_be_fitted and fitted_scores(context) is None


def _fit_scores(
    context: StageContext, until: datetime, drawn: pa.Array | None, progress: Progress
) -> None:
    with progress.bar("training scores") as bar:
        fit(context, until, bar, drawn)


def _helps(context: StageContext, drawn: pa.Array | None, progress: Progress) -> dict[str, Any]:
    """Whether the scores help on this log; nothing where that is not asked for."""
    if not context.declared.training.check:
        return {}
    fitted = fitted_scores(context)
    found = match_data(context, fitted, drawn)
    if fitted is None or found is None:
        return {}
    with progress.bar("measuring in time"):
        return helps(context.declared.training.seed, context.tables, found, fitted)


def _blocks(
    project: DeclaredProject, found: TrainingData, old: OldSpace | None, progress: Progress
) -> list[VectorBlock]:
    """Weights learnt anew at each cut, on all labels before it, from where they were.

    Those that stay near to old ones need none turned upon each other; where the old ones all have
    learnt later labels there is no block, as there was none before.
    """
    from reki_feast.models.hein import VectorBlock, align

    cuts = _cuts(project, found)
    blocks: list[VectorBlock] = []
    with progress.bar("training") as bar:
        for number, cut in enumerate(cuts):
            before = blocks[-1].hein if blocks else None
            part, here = partial(bar_part, bar, number, len(cuts)), known_at(found, cut)
            is_last = number == len(cuts) - 1
            near = (
                old.predecessor(cut, is_last=is_last, encoding=project.lake.space.encoding)
                if old
                else None
            )
            if old is not None and near is None:
                continue
            start = _Start(before, near)
            try:
                made = _condense(project, here, start, is_last=is_last, bar=part)
            except CondenseError:
                if is_last:
                    raise
                continue  # too little came before this cut to learn from
            if before is not None and near is None:
                align(made, before, here.users, here.items)
            blocks.append(VectorBlock(cut, made))
    return blocks


def bar_part(bar: Bar, number: int, of: int, done: int, total: int) -> None:
    """Show the progress of one of several parts of equal length."""
    bar(number * total + done, of * total)


def _cuts(project: DeclaredProject, found: TrainingData) -> list[datetime | None]:
    """Times that cut the samples into blocks, last the end of labels; None without times."""
    if found.until is None:
        return [None]
    from reki_feast.models.text_match import cuts_of

    rows = found.interactions.filter(found.interactions["sample"])
    times = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    until = pa.scalar(found.until, TIMESTAMP)
    cuts = cuts_of(times, until.value, project.declared.training.blocks)
    return pa.array(cuts).cast(TIMESTAMP).to_pylist()  # type: ignore[no-any-return]


def _declared_since(project: DeclaredProject, made: dict[str, Any]) -> list[str]:
    """What is declared otherwise than the stored weights were trained; it waits for --retrain."""
    from reki_feast.models.hein import channel_pairs
    from reki_feast.models.training_config import to_stored

    wanted, had = _flat(to_stored(settings(project))), _flat(made["settings"])
    had.setdefault("forget", 0.0)
    wanted["backbone"], had["backbone"] = project.declared.training.backbone, made.get("backbone")
    pairs = channel_pairs(channels(project, "user"), channels(project, "item"))
    wanted["channels"], had["channels"] = _told(pairs), _told(made["pairs"])
    stored = (project.lake.read_json("encoder") or {}).get(DECLARATION)
    if stored is not None:
        speed = {"batch_size", *WAY_TO_SERVER}
        encoder = project.declared.encoder.model_dump(exclude=speed)
        wanted |= {f"Encoder({name})": value for name, value in encoder.items()}
        made_by = Encoder(**stored).model_dump(exclude=speed)
        had |= {f"Encoder({name})": value for name, value in made_by.items()}
    return [
        f"{name}: {value} is declared, the weights were trained with {had[name]}"
        for name, value in wanted.items()
        if had.get(name, value) != value
    ]


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    return {**{name: x for name, x in nested.items() if name != "training"}, **nested["training"]}


def _told(pairs: Iterable[Sequence[str]]) -> str:
    return ", ".join(f"{user} + {item}" for user, item in pairs)


@dataclass(frozen=True)
class _Start:
    """What weights go on from: those of the block before, and old ones that they stay near to."""

    before: FittedHein | None
    near: Predecessor | None


def _condense(
    project: DeclaredProject,
    found: TrainingData,
    start: _Start,
    *,
    is_last: bool,
    bar: Bar,
) -> FittedHein:
    from reki_feast.models.click import CTR
    from reki_feast.models.hein import FitOptions, HeinData, fit_hein

    # without the columns that an evaluation's models see: on a small log they are learnt by heart
    # before HEIN has learnt anything
    said, how, before = project.declared.training, settings(project), start.before
    if before is not None and not is_last:  # what goes on from trained weights needs less
        how = replace(how, training=replace(how.training, epochs=math.ceil(said.epochs / 2)))
    epochs = how.training.epochs
    return fit_hein(
        HeinData(found.interactions, found.users, found.items),
        backbone=CTR[said.backbone],
        config=how,
        options=FitOptions(
            seed=said.seed,
            compare=is_last,
            device=said.device,
            allow_missing=not is_last,
            predecessor=start.near,
        ),
        warm_start=before.heins if before is not None else None,
        progress=lambda epoch, batch, batches: bar((epoch - 1) * batches + batch, epochs * batches),
    )


def _result(project: DeclaredProject, made: dict[str, Any], *notes: str) -> TrainResult:
    found, helped = made.get("report") or {}, made.get("helps") or {}
    backbone = LABELS[made.get("backbone", "din")]
    compared = {backbone: found.get("plain"), f"{backbone} + vectors": found.get("vectors")}
    samples = SampleCounts(*found["samples"]) if found.get("samples") else None
    folds = made["settings"].get("folds")
    folded = f"user vectors out of {folds} folds of users" if folds else ""
    near = (
        f"models that learnt from the vectors of {old} can read these"
        if (old := made.get(COMPATIBLE_WITH))
        else ""
    )
    return TrainResult(
        project=project.name,
        weights=trained_weights(made),
        pairs=[(user, item) for user, item in made["pairs"]],
        samples=samples,
        held_out=[
            HeldOutScore(name, run["test"]["auc"], run["test"]["log_loss"], len(run["epochs"]))
            for name, run in compared.items()
            if run
        ],
        gains=gains(helped),
        coverage=found_shares(helped.get("found", {})),
        notes=[
            note
            for note in (str(samples or ""), folded, near, *helping_notes(helped), *notes)
            if note
        ],
        next=["reki publish"],
    )
