"""Representations to weights: HEIN trained on what came after the snapshot it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reki_feast.evaluate.tables import LABELS
from reki_feast.pipeline.learning import Learning, learning, settings
from reki_feast.pipeline.stored import channels
from reki_feast.project import Project
from reki_feast.report import Progress, Report, Silent, Table

if TYPE_CHECKING:
    from reki_feast.condense import Condensed


def train(project: Project, *, retrain: bool = False, progress: Progress | None = None) -> Report:
    """Train HEIN and keep its weights; where there are weights, they stand unless ``retrain``.

    Keeping them keeps every later snapshot's vectors in one space, which models downstream have
    learnt. The snapshot to train on is the latest that a quarter of the interactions came after.

    Raises:
        CondenseError: no snapshot leaves interactions to learn from, or they cannot be learnt from.
    """
    stored = None if retrain else project.lake.weights()
    if stored is not None:
        notes = ["weights are there; --retrain trains again", *_declared_since(project, stored[1])]
        return _report(project, stored[1], *notes)
    found = learning(project)
    condensed = _condense(project, found, progress or Silent())
    from reki_feast.condense import manifest, weights

    made = {**manifest(condensed), "trained_as_of": found.time.isoformat()}
    made["backbone"] = project.declared.training.backbone
    if found.until is not None:
        made["trained_until"] = found.until.isoformat()
    project.lake.write_weights(weights(condensed), made)
    return _report(project, made, "", *found.given.notices)


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


def _condense(project: Project, found: Learning, progress: Progress) -> Condensed:
    from reki_feast.condense import condense
    from reki_feast.recommend.ctr import CTR

    # without the columns that an evaluation's models see: on a small log they are learnt by heart
    # before HEIN has learnt anything
    said = project.declared.training
    with progress.bar("training") as bar:
        return condense(
            found.interactions,
            found.users,
            found.items,
            backbone=CTR[said.backbone],
            settings=settings(project),
            seed=said.seed,
            device=said.device,
            progress=lambda epoch, batch, batches: bar(
                (epoch - 1) * batches + batch, said.epochs * batches
            ),
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
        f"{project.name}: HEIN over {_told(made['pairs'])}: q = {made['q']}, trained as of "
        f"{made.get('trained_as_of', '')[:16]}",
        tables=[Table("held-out users", ("model", "AUC", "LogLoss", "epochs"), rows)],
        notes=[
            "samples: {:,} training, {:,} validation, {:,} test".format(*samples),
            *(note for note in (dealt, *notes) if note),
        ],
        next=["reki publish"],
    )
