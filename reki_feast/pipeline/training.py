"""Representations to weights: HEIN trained on what came after the snapshot it reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reki_feast import inputs as sources
from reki_feast.errors import CondenseError
from reki_feast.evaluate.tables import LABELS
from reki_feast.inputs import Inputs
from reki_feast.pipeline.helping import helping_notes, helping_tables, helps
from reki_feast.pipeline.learning import (
    Learning,
    in_time,
    known_at,
    learning,
    settings,
    when_trained,
)
from reki_feast.pipeline.matching import fit, fitted_scores, material
from reki_feast.pipeline.stored import channels, times
from reki_feast.pipeline.writing import writing
from reki_feast.project import Project
from reki_feast.report import Bar, Progress, Report, Silent, Table
from reki_feast.schema import TIMESTAMP

if TYPE_CHECKING:
    from reki_feast.condense import Condensed, VectorBlock


@writing
def train(project: Project, *, retrain: bool = False, progress: Progress | None = None) -> Report:
    """Train HEIN and keep its weights; where there are weights, they stand unless ``retrain``.

    Keeping them keeps every later snapshot's vectors in one space, which models downstream have
    learnt. Of each interaction HEIN learns from the snapshot of its time; without times, from one
    snapshot, the latest that a quarter of the interactions came after.

    Raises:
        CondenseError: no snapshot leaves interactions to learn from, or they cannot be learnt from.
    """
    stored = None if retrain else project.lake.weights()
    if stored is not None:
        _bring_up_scores(project, progress or Silent())
        notes = ["weights are there; --retrain trains again", *_declared_since(project, stored[1])]
        return _report(project, stored[1], *notes)
    found = in_time(project, learning(project))
    bars = progress or Silent()
    blocks = _blocks(project, found, bars)
    from reki_feast.condense import all_manifest, all_weights

    made = {**all_manifest(blocks), "trained_as_of": found.time.isoformat()}
    made["backbone"] = project.declared.training.backbone
    if found.until is not None:
        made["trained_until"], made["exclusive"] = found.until.isoformat(), True
        _fit_scores(project, found.given, found.until, bars)
        made["helps"] = _helps(project, found.given, bars)
    project.lake.write_weights(all_weights(blocks), made)
    return _report(project, made, "", *found.given.notices)


def _bring_up_scores(project: Project, progress: Progress) -> None:
    """Fit scores where weights are there and scores are not, as in a project made before them."""
    made = times(project, "item_representation")
    if not made or fitted_scores(project) is not None:
        return
    given = sources.read(project.declared, project.root)
    if given.timed:
        _fit_scores(project, given, made[-1], progress)


def _fit_scores(project: Project, given: Inputs, until: datetime, progress: Progress) -> None:
    with progress.bar("training scores") as bar:
        fit(project, given, until, bar)


def _helps(project: Project, given: Inputs, progress: Progress) -> dict[str, Any]:
    """Whether the scores help on this log; nothing where that is not asked for."""
    fitted = fitted_scores(project)
    found = material(project, given, fitted)
    if fitted is None or found is None or not project.declared.training.check:
        return {}
    with progress.bar("measuring in time"):
        return helps(project.declared.training.seed, given, found, fitted)


def _blocks(project: Project, found: Learning, progress: Progress) -> list[VectorBlock]:
    """Weights learnt anew at each cut, on all labels before it, from where they were."""
    from reki_feast.condense import VectorBlock, align

    cuts = _cuts(project, found)
    blocks: list[VectorBlock] = []
    with progress.bar("training") as bar:
        for number, cut in enumerate(cuts):
            before = blocks[-1].condensed if blocks else None
            part, here = partial(bar_part, bar, number, len(cuts)), known_at(found, cut)
            is_last = number == len(cuts) - 1
            try:
                made = _condense(project, here, before, is_last=is_last, bar=part)
            except CondenseError:
                if is_last:
                    raise
                continue  # too little came before this cut to learn from
            if before is not None:
                align(made, before, here.users, here.items)
            blocks.append(VectorBlock(cut, made))
    return blocks


def bar_part(bar: Bar, number: int, of: int, done: int, total: int) -> None:
    """Show the progress of one of several parts of equal length."""
    bar(number * total + done, of * total)


def _cuts(project: Project, found: Learning) -> list[datetime | None]:
    """Times that cut the samples into blocks, last the end of labels; None without times."""
    if found.until is None:
        return [None]
    from reki_feast.match import cuts_of

    rows = found.interactions.filter(found.interactions["sample"])
    times = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    until = pa.scalar(found.until, TIMESTAMP)
    cuts = cuts_of(times, until.value, project.declared.training.blocks)
    return pa.array(cuts).cast(TIMESTAMP).to_pylist()  # type: ignore[no-any-return]


def _declared_since(project: Project, made: dict[str, Any]) -> list[str]:
    """What is declared otherwise than the stored weights were trained; it waits for --retrain."""
    from reki_feast.condense import channel_pairs

    wanted, had = _flat(asdict(settings(project))), _flat(made["settings"])
    wanted["backbone"], had["backbone"] = project.declared.training.backbone, made.get("backbone")
    pairs = channel_pairs(channels(project, "user"), channels(project, "item"))
    wanted["channels"], had["channels"] = _told(pairs), _told(made["pairs"])
    return [
        f"{name}: {value} is declared, the weights were trained with {had[name]}"
        for name, value in wanted.items()
        if had.get(name, value) != value
    ]


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    return {**{name: x for name, x in nested.items() if name != "training"}, **nested["training"]}


def _told(pairs: Iterable[Sequence[str]]) -> str:
    return ", ".join(f"{user} + {item}" for user, item in pairs)


def _condense(
    project: Project,
    found: Learning,
    before: Condensed | None,
    *,
    is_last: bool,
    bar: Bar,
) -> Condensed:
    from reki_feast.condense import condense
    from reki_feast.recommend.ctr import CTR

    # without the columns that an evaluation's models see: on a small log they are learnt by heart
    # before HEIN has learnt anything
    said, how = project.declared.training, settings(project)
    if before is not None and not is_last:  # what goes on from trained weights needs less
        how = replace(how, training=replace(how.training, epochs=math.ceil(said.epochs / 2)))
    epochs = how.training.epochs
    return condense(
        found.interactions,
        found.users,
        found.items,
        backbone=CTR[said.backbone],
        settings=how,
        seed=said.seed,
        compare=is_last,
        device=said.device,
        start=before.heins if before is not None else None,
        partial=not is_last,
        progress=lambda epoch, batch, batches: bar((epoch - 1) * batches + batch, epochs * batches),
    )


def _report(project: Project, made: dict[str, Any], *notes: str) -> Report:
    found = made.get("report") or {}
    backbone = LABELS[made.get("backbone", "din")]
    compared = {backbone: found.get("plain"), f"{backbone} + vectors": found.get("vectors")}
    rows = [
        (name, run["test"]["auc"], run["test"]["log_loss"], len(run["epochs"]))
        for name, run in compared.items()
        if run
    ]
    samples = found.get("samples") or ["?"] * 3
    folds = made["settings"].get("folds")
    dealt = f"user vectors out of {folds} folds of users" if folds else ""
    return Report(
        f"{project.name}: HEIN over {_told(made['pairs'])}: q = {made['q']}, {when_trained(made)}",
        tables=[
            Table("held-out users", ("model", "AUC", "LogLoss", "epochs"), rows),
            *helping_tables(made.get("helps") or {}),
        ],
        notes=[
            "samples: {:,} training, {:,} validation, {:,} test".format(*samples),
            *(note for note in (dealt, *helping_notes(made.get("helps") or {}), *notes) if note),
        ],
        next=["reki publish"],
    )
