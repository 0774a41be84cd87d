"""`reki evaluate`: the paper's tables on the project's own interactions and knowledge."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from reki_feast.errors import EvaluateError
from reki_feast.pipeline.elsewhere import with_vectors
from reki_feast.pipeline.encoders import by_encoders
from reki_feast.pipeline.learning import Learning, learning, settings
from reki_feast.pipeline.stored import state
from reki_feast.pipeline.tastes import with_taste
from reki_feast.project import Project, open_project
from reki_feast.report import Progress, Report
from reki_feast.schema import TASTE

if TYPE_CHECKING:
    from reki_feast.evaluate.cells import Extraction
    from reki_feast.evaluate.material import Material
    from reki_feast.evaluate.runner import Train
    from reki_feast.evaluate.spec import Scope


def evaluate(
    project: Project,
    *,
    tables: Sequence[str] = (),
    backbones: Sequence[str] = (),
    encoders: Sequence[str] = (),
    seeds: int = 5,
    rates: Sequence[float] = (),
    workers: int | None = None,
    out: Path | None = None,
    cells: Path | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Train the models of tables that are not trained yet, and write the tables.

    Args:
        project: has representations.
        tables: names of :data:`reki_feast.evaluate.tables.TABLES`; none for all.
        backbones: of Table 2 and of the rerankers' table; none for all.
        encoders: models that Table 6 compares with the project's own, by any name that
            ``Encoder(model=…)`` takes; their vectors are kept, and no feature view reads them.
        seeds: every model is trained with seeds 0 to ``seeds`` - 1.
        rates: learning rates, above 0, of which every model, without vectors as with them, takes
            the one it does best with on validation users of the first seed; none for the project's
            own.
        workers: processes of one thread each; None for one a core.
        out: folder of the tables; ``data/NAME/evaluation`` by default.
        cells: file of finished models; ``cells.jsonl`` in ``out`` by default.
        notes: sentences under every table.
        progress: shows how many models are done.

    Raises:
        EvaluateError: there is no such table or backbone, a rate is not above 0, encoders are
            named and no table compares them, or a model could not be trained.
        CondenseError: there is nothing to train on.
        EncodeError: an encoder cannot be loaded.
        MissingExtraError: matplotlib is not installed.
    """
    from reki_feast.evaluate import plot, render, tuning
    from reki_feast.evaluate.runner import run
    from reki_feast.evaluate.spec import cells as cells_of
    from reki_feast.evaluate.tables import LABELS, TABLES

    _check(tables, TABLES, "table")
    _check_rates(rates)
    plot.check()
    found = learning(project)
    compared = _others(project, encoders, tables or list(TABLES))
    made = material(project, found, compared, progress)
    scope = _scope(project, found, made, backbones, seeds)
    specs = [TABLES[name] for name in tables or TABLES]
    folder = out or project.data / "evaluation"
    train = partial(
        run,
        loader=partial(_trainer, project.root, project.name, compared),
        store=cells or folder / "cells.jsonl",
        material=made.hash(),
        progress=progress,
        workers=workers or os.cpu_count() or 1,
    )
    wanted = cells_of(specs, scope)
    chosen = tuning.choose(train(tuning.trials(wanted, rates), label="tune")) if rates else {}
    own = made.settings.training.learning_rate
    others = {model: rate for model, rate in chosen.items() if rate != own}
    tuned = {cell: tuning.tuned(cell, others) for cell in wanted}
    trained = train(tuned.values())
    outcomes = {cell: trained[tuned[cell]] for cell in wanted}
    if "table7" in (tables or TABLES):
        from reki_feast.evaluate.spec import BATCH, LARGE
        from reki_feast.evaluate.timing import inference, training

        timings = inference(made, scope.backbones, progress=progress)
        trainings = {
            size: training(made, scope.backbones, size=size, progress=progress)
            for size in (BATCH, LARGE)
        }
        scope = replace(scope, timings=timings, trainings=trainings)
    shown = []
    for spec in specs:
        table = spec.table(scope, outcomes)
        note = tuning.note(spec.cells(scope), chosen, rates, LABELS)
        if table.measures:
            shown.append(replace(table, notes=(*table.notes, note)) if note else table)
    context = render.Context(_data(project, found), machine(), scope.seeds, tuple(notes))
    files = render.write(shown, folder, context)
    for table in shown:
        files += plot.draw(table, folder)
    return Report(
        f"{project.name}: evaluation",
        tables=[render.terminal(table) for table in shown],
        notes=[note for table in shown for note in table.notes]
        + [f"{len(files)} files in {folder}"],
    )


def material(
    project: Project,
    found: Learning,
    encoders: Sequence[str] = (),
    progress: Progress | None = None,
) -> Material:
    """What models are trained on; raises EncodeError where one of ``encoders`` fails."""
    from reki_feast.evaluate.material import RAW_TASTE, Material

    users, items = with_vectors(project, found) or (found.users, found.items)
    if project.declared.encoder.taste:
        users = users.append_column(RAW_TASTE, _raw_taste(project, found))
    return Material(
        found.interactions,
        users,
        items,
        settings(project),
        user_fields=found.user_fields,
        item_fields=found.item_fields,
        encoders=by_encoders(project, found, encoders, progress),
    )


def _raw_taste(project: Project, found: Learning) -> pa.ChunkedArray:
    """Users' tastes by what the catalogue itself says of items."""
    items = found.items.drop_columns([n for n in found.items.column_names if n == "knowledge"])
    recent = project.declared.scenario.history
    return with_taste(found.given, found.users, items, time=found.time, recent=recent)[TASTE]


def machine() -> str:
    """What this runs on, in words."""
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"


def _trainer(root: Path, name: str, encoders: Sequence[str]) -> Train:
    """In a worker's own process."""
    from reki_feast.evaluate.training import trainer

    project = open_project(root, name)
    return trainer(material(project, learning(project), encoders))


def _scope(
    project: Project, found: Learning, made: Material, backbones: Sequence[str], seeds: int
) -> Scope:
    from reki_feast.evaluate.spec import BACKBONES, RERANKERS, Scope

    _check(backbones, (*BACKBONES, *RERANKERS), "backbone")
    knowledge = state(project, found.time).knowledge
    grouped = knowledge["grouped"].to_pylist() if knowledge.num_rows else []
    kind: Extraction = "collective" if any(grouped) else "individual"
    return Scope(
        seeds=tuple(range(seeds)),
        extractions=(kind,),
        backbones=tuple(name for name in BACKBONES if name in (backbones or BACKBONES)),
        rerankers=tuple(name for name in RERANKERS if name in (backbones or RERANKERS)),
        encoders=tuple(made.encoders),
        encoder=project.declared.encoder.model,
        imported=made.has_imported,
        calls={kind: knowledge.num_rows} if knowledge.num_rows else {},
    )


def _others(project: Project, encoders: Sequence[str], tables: Sequence[str]) -> tuple[str, ...]:
    """The encoders beside the project's own, each once."""
    if encoders and "table6" not in tables:
        raise EvaluateError(
            "encoders are compared in table6",
            found=f"{', '.join(encoders)} for {', '.join(tables)}",
            mend="name table6 too, or leave the encoders out",
        )
    own = project.declared.encoder.model
    return tuple(model for model in dict.fromkeys(encoders) if model != own)


def _check(names: Sequence[str], known: Iterable[str], what: str) -> None:
    has = list(known)
    strange = [name for name in names if name not in has]
    if strange:
        rule = f"a {what} is one of {', '.join(has)}"
        raise EvaluateError(rule, found=", ".join(strange), mend="mend its name")


def _check_rates(rates: Sequence[float]) -> None:
    strange = [f"{rate:g}" for rate in rates if not 0 < rate < math.inf]
    if strange:
        rule = "a learning rate is a number above 0"
        raise EvaluateError(rule, found=", ".join(strange), mend="name rates such as 0.003")


def _data(project: Project, found: Learning) -> str:
    rows, users = found.interactions.num_rows, found.users.num_rows
    return f"{project.name}: {rows:,} interactions, {users:,} users"
