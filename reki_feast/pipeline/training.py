"""Representations to weights: HEIN trained on what came after the snapshot it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reki_feast.evaluate.tables import LABELS
from reki_feast.pipeline.learning import Learning, learning, settings
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
        return _report(project, stored[1], "weights are there; --retrain trains again")
    found = learning(project)
    condensed = _condense(project, found, progress or Silent())
    from reki_feast.condense import manifest, weights

    made = {**manifest(condensed), "trained_as_of": found.time.isoformat()}
    made["backbone"] = project.declared.training.backbone
    if found.until is not None:
        made["trained_until"] = found.until.isoformat()
    project.lake.write_weights(weights(condensed), made)
    return _report(project, made, "", *found.given.notices)


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
    pairs = ", ".join(f"{user} + {item}" for user, item in made["pairs"])
    samples = found.get("samples") or ["?"] * 3
    folds = made["settings"].get("folds")
    dealt = f"user vectors out of {folds} folds of users" if folds else ""
    return Report(
        f"{project.name}: HEIN over {pairs}: q = {made['q']}, trained as of "
        f"{made.get('trained_as_of', '')[:16]}",
        tables=[Table("held-out users", ("model", "AUC", "LogLoss", "epochs"), rows)],
        notes=[
            "samples: {:,} training, {:,} validation, {:,} test".format(*samples),
            *(note for note in (dealt, *notes) if note),
        ],
        next=["reki publish"],
    )
