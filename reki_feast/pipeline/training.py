"""Representations to weights: HEIN trained on what came after the snapshot it reads."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import inputs as sources
from reki_feast.errors import CondenseError
from reki_feast.inputs import Inputs
from reki_feast.lake import newest
from reki_feast.pipeline.stored import representation, times, up_to
from reki_feast.project import Project
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.schema import TIMESTAMP, Kind

if TYPE_CHECKING:
    from reki_feast.condense import Condensed, Settings

#: Share of the interactions that must come after a snapshot for HEIN to be trained on it.
SAMPLES_AFTER = 0.25


def train(project: Project, *, retrain: bool = False, progress: Progress | None = None) -> Report:
    """Train HEIN and keep its weights; where there are weights, they stand unless ``retrain``.

    Keeping them keeps every later snapshot's vectors in one space, which models downstream have
    learnt. The snapshot to train on is the latest that a quarter of the interactions came after.

    Raises:
        CondenseError: no snapshot leaves interactions to learn from, or they cannot be learnt from.
    """
    stored = project.lake.weights()
    if stored is not None and not retrain:
        return _report(project, stored[1], "weights are there; --retrain trains again")
    given = sources.read(project.declared, project.root)
    time = _training_time(project, given)
    until = _labels_until(project, given, time)
    rows = _labelled_until(sources.split(given, time, project.declared.scenario.history), until)
    condensed = _condense(project, given, time, rows, progress or Silent())
    from reki_feast.condense import manifest, weights

    made = {**manifest(condensed), "trained_as_of": time.isoformat()}
    if until is not None:
        made["trained_until"] = until.isoformat()
    project.lake.write_weights(weights(condensed), made)
    return _report(project, made, "", *given.notices)


def _training_time(project: Project, given: Inputs) -> datetime:
    made = times(project, "user_representation")
    if not made:
        rule = "HEIN is trained on representations"
        raise CondenseError(rule, found="none are stored", mend="reki encode")
    if not given.timed:
        return made[-1]
    column = given.interactions["event_timestamp"]
    needed = SAMPLES_AFTER * len(column)
    for time in reversed(made):
        after = pc.sum(pc.greater(column, pa.scalar(time, TIMESTAMP))).as_py() or 0
        if after >= needed:
            return time
    middle = column.combine_chunks().sort()[(len(column) - 1) // 2].as_py()
    raise CondenseError(
        "HEIN learns from interactions that came after a snapshot",
        found=f"fewer than {SAMPLES_AFTER:.0%} of them came after {made[0]:%Y-%m-%d %H:%M}",
        mend=f"make an earlier snapshot too: reki run --as-of {middle:%Y-%m-%d}",
    )


def _labels_until(project: Project, given: Inputs, time: datetime) -> datetime | None:
    """The last snapshot, else the last interaction; None without times.

    What came after the last snapshot is left for models downstream to be tested on.
    """
    if not given.timed:
        return None
    later = [made for made in times(project, "user_representation") if made > time]
    last: datetime = pc.max(given.interactions["event_timestamp"]).as_py()
    return max(later, default=last)


def _labelled_until(rows: pa.Table, until: datetime | None) -> pa.Table:
    if until is None:
        return rows
    early = pc.less_equal(rows["event_timestamp"], pa.scalar(until, TIMESTAMP))
    return rows.filter(early)


def _condense(
    project: Project, given: Inputs, time: datetime, rows: pa.Table, progress: Progress
) -> Condensed:
    from reki_feast.condense import condense

    epochs = project.declared.training.epochs
    with progress.bar("training") as bar:
        return condense(
            rows,
            _at(project, given, "user", time),
            _at(project, given, "item", time),
            settings=_settings(project),
            seed=project.declared.training.seed,
            progress=lambda epoch, batch, batches: bar(
                (epoch - 1) * batches + batch, epochs * batches
            ),
        )


def _at(project: Project, given: Inputs, kind: Kind, time: datetime) -> pa.Table:
    key = given.user if kind == "user" else given.item
    _, table = representation(project, key, kind)
    return newest(up_to(table, time), [key.name])


def _settings(project: Project) -> Settings:
    from reki_feast.condense import Settings
    from reki_feast.recommend.train import Training

    said = project.declared.training
    return Settings(
        shared_experts=said.shared_experts,
        user_experts=said.dedicated_experts,
        item_experts=said.dedicated_experts,
        output_size=said.output_size,
        hein_dropout=said.dropout,
        test=said.test,
        training=Training(
            epochs=said.epochs,
            batch_size=said.batch_size,
            learning_rate=said.learning_rate,
            patience=said.patience,
        ),
    )


def _report(project: Project, made: dict[str, Any], *notes: str) -> Report:
    found = made.get("report") or {}
    rows = [
        (name, run["test"]["auc"], run["test"]["log_loss"], len(run["epochs"]))
        for name, run in (("DIN", found.get("plain")), ("DIN + vectors", found.get("vectors")))
        if run
    ]
    pairs = ", ".join(f"{user} + {item}" for user, item in made["pairs"])
    samples = found.get("samples") or ["?"] * 3
    return Report(
        f"{project.name}: HEIN over {pairs}: q = {made['q']}, trained as of "
        f"{made.get('trained_as_of', '')[:16]}",
        tables=[Table("held-out users", ("model", "AUC", "LogLoss", "epochs"), rows)],
        notes=[
            "samples: {:,} training, {:,} validation, {:,} test".format(*samples),
            *(note for note in notes if note),
        ],
        next=["reki publish"],
    )
