"""`reki evaluate`: the paper's tables on the project's own interactions and knowledge."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
from typing_extensions import Unpack

from reki_feast.errors import EvaluateError
from reki_feast.evaluation.encoders import by_encoders
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Progress, Table
from reki_feast.results import Result
from reki_feast.stages.external_channel import with_vectors
from reki_feast.stages.liked_means import LikedMeans
from reki_feast.stages.snapshots import state
from reki_feast.stages.training_data import TrainingData, settings, training_data
from reki_feast.tables.domains import declared_domains

if TYPE_CHECKING:
    from reki_feast.evaluation.dataset import EvaluationData
    from reki_feast.evaluation.domains import DomainFigures
    from reki_feast.evaluation.experiments import Extraction
    from reki_feast.evaluation.measures import ResultTable
    from reki_feast.evaluation.recall_table import RecallFigures
    from reki_feast.evaluation.render import TableContext
    from reki_feast.evaluation.runner import Train
    from reki_feast.evaluation.spec import Scope

#: The table that nothing is trained for, and the one whose models are not experiments.
_RECALL, _DOMAINS = "recall", "domains"


class EvaluateOptions(TypedDict, total=False):
    """Options of `reki evaluate`.

    Attributes:
        tables: names of :data:`reki_feast.evaluation.tables.TABLES`; all by default.
        backbones: of Table 2 and of the rerankers' table; all by default.
        encoders: models that Table 6 compares with the project's own, by any name that
            ``Encoder(model=…)`` takes; their vectors are stored, and no feature view reads them.
        seeds: every model is trained with seeds 0 to ``seeds`` - 1; 5 by default.
        rates: learning rates, above 0, of which every model, without vectors as with them, takes
            the one it does best with on validation users of the first seed; the project's own by
            default.
        workers: processes of one thread each; None: one a core.
        out: folder of the tables; None: ``data/NAME/evaluation``.
        cells: file of finished models; None: ``cells.jsonl`` in ``out``.
        notes: sentences under every table.
    """

    tables: Sequence[str]
    backbones: Sequence[str]
    encoders: Sequence[str]
    seeds: int
    rates: Sequence[float]
    workers: int | None
    out: Path | None
    cells: Path | None
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(Result):
    """The paper's tables on the project's own interactions.

    Attributes:
        folder: where they are written.
        results: the tables, with their measures.
        files: what was written.
    """

    folder: Path
    results: list[ResultTable]
    files: list[Path]

    @property
    def tables(self) -> list[Table]:
        """The figures as a terminal shows them."""
        from reki_feast.evaluation import render

        return [render.terminal(table) for table in self.results]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: evaluation"


def evaluate(
    project: DeclaredProject,
    *,
    progress: Progress | None = None,
    **options: Unpack[EvaluateOptions],
) -> EvaluateResult:
    """Train the models of tables that are not trained yet, and write the tables.

    Args:
        project: has representations.
        progress: shows how many models are done.
        options: as :class:`EvaluateOptions` says.

    Raises:
        EvaluateError: there is no such table or backbone, a rate is not above 0, encoders are
            named and no table compares them, or a model could not be trained.
        CondenseError: there is nothing to train on.
        EncodeError: an encoder cannot be loaded.
        MissingExtraError: matplotlib is not installed.
    """
    from reki_feast.evaluation import plot, recall_table, render, tuning
    from reki_feast.evaluation.runner import ResultStore, run
    from reki_feast.evaluation.spec import Scope
    from reki_feast.evaluation.spec import experiments as experiments_of
    from reki_feast.evaluation.tables import TABLES
    from reki_feast.models.names import LABELS

    names, rates = options.get("tables") or list(TABLES), options.get("rates", ())
    _check(names, TABLES, "table")
    _check_rates(rates)
    plot.check()
    if _DOMAINS in names and project.declared.domains is None:
        if set(names) == {_DOMAINS}:
            declared_domains(project.declared)
        names = [name for name in names if name != _DOMAINS]
    recall = recall_table.figures(project) if _RECALL in names else ()
    if set(names) == {_RECALL}:
        return _recall_alone(project, recall, options)
    domains = _domain_figures(project, options, progress) if _DOMAINS in names else ()
    if not {*names} - {_RECALL, _DOMAINS}:
        bare = Scope(_seeds(options), recall=recall, domains=domains)
        shown = [TABLES[name].table(bare, {}) for name in names]
        return _written(project, shown, *_place(project, options, _seeds(options)))
    found = training_data(project)
    compared = _others(project, options.get("encoders", ()), names)
    data = evaluation_data(project, found, compared, progress)
    scope = replace(_scope(project, found, data, options), recall=recall, domains=domains)
    specs = [TABLES[name] for name in names]
    folder = options.get("out") or project.data / "evaluation"
    train = partial(
        run,
        loader=partial(_trainer, project.root, project.name, compared),
        store=ResultStore(options.get("cells") or folder / "cells.jsonl", data.hash()),
        progress=progress,
        workers=options.get("workers") or os.cpu_count() or 1,
    )
    wanted = experiments_of(specs, scope)
    chosen = tuning.choose(train(tuning.trials(wanted, rates), label="tune")) if rates else {}
    own = data.config.training.learning_rate
    others = {model: rate for model, rate in chosen.items() if rate != own}
    tuned = {cell: tuning.tuned(cell, others) for cell in wanted}
    trained = train(tuned.values())
    outcomes = {cell: trained[tuned[cell]] for cell in wanted}
    if "table7" in names:
        scope = _timed(scope, data, progress)
    shown = []
    for spec in specs:
        table = spec.table(scope, outcomes)
        note = tuning.note(spec.experiments(scope), chosen, rates, LABELS)
        if table.measures:
            shown.append(replace(table, notes=(*table.notes, note)) if note else table)
    notes = (*options.get("notes", ()), *_same_test(project, found))
    context = render.TableContext(_data(project, found), machine(), scope.seeds, notes)
    return _written(project, shown, folder, context)


def _recall_alone(
    project: DeclaredProject, recall: tuple[RecallFigures, ...], options: EvaluateOptions
) -> EvaluateResult:
    """The one table that nothing is trained for; a log of clicks alone will do."""
    from reki_feast.evaluation.spec import Scope
    from reki_feast.evaluation.tables import TABLES

    if not recall:
        raise EvaluateError(
            "recall is tested on what users liked after a snapshot of their representations",
            detail="no snapshot has interactions before it, and a tenth of them after it",
            hint="reki encode --as-of TIME, at an earlier time; without times: Scenario.held_out",
        )
    table = TABLES[_RECALL].table(Scope((), recall=recall), {})
    return _written(project, [table], *_place(project, options, ()))


def _place(
    project: DeclaredProject, options: EvaluateOptions, seeds: tuple[int, ...]
) -> tuple[Path, TableContext]:
    """The folder of tables that are of no experiments, and what stands under them."""
    from reki_feast.evaluation import render

    notes = tuple(options.get("notes", ()))
    context = render.TableContext(project.name, machine(), seeds, notes)
    return options.get("out") or project.data / "evaluation", context


def _seeds(options: EvaluateOptions) -> tuple[int, ...]:
    return tuple(range(options.get("seeds", 5)))


def _domain_figures(
    project: DeclaredProject, options: EvaluateOptions, progress: Progress | None
) -> tuple[DomainFigures, ...]:
    """Each domain held out in turn."""
    from reki_feast.evaluation.domains import DomainRun, DomainStore, domain_log, figures

    log = domain_log(project)
    said, folder = declared_domains(project.declared), options.get("out")
    names = log.names(said.least)
    if not names:
        raise EvaluateError(
            f"a domain has at least {said.least:,} interactions to learn from",
            detail=f"none has, of column {said.column}",
            hint="a lower Domains(least=…)",
        )
    path = (folder or project.data / "evaluation") / "domains.jsonl"
    run = DomainRun(names, _seeds(options), project.declared.training.backbone)
    return figures(log, run, DomainStore(path, log.hash()), progress)


def _written(
    project: DeclaredProject, shown: list[ResultTable], folder: Path, context: TableContext
) -> EvaluateResult:
    from reki_feast.evaluation import plot, render

    files = render.write(shown, folder, context)
    for table in shown:
        files += plot.draw(table, folder)
    return EvaluateResult(
        project=project.name,
        folder=folder,
        results=shown,
        files=files,
        notes=[
            *(note for table in shown for note in table.notes),
            f"{len(files)} files in {folder}",
        ],
    )


def _timed(scope: Scope, data: EvaluationData, progress: Progress | None) -> Scope:
    """Measure how long scoring and training take."""
    from reki_feast.evaluation.spec import BATCH, LARGE
    from reki_feast.evaluation.timing import inference, training

    timings = inference(data, scope.backbones, progress=progress)
    trainings = {
        size: training(data, scope.backbones, size=size, progress=progress)
        for size in (BATCH, LARGE)
    }
    return replace(scope, timings=timings, trainings=trainings)


def evaluation_data(
    project: DeclaredProject,
    found: TrainingData,
    encoders: Sequence[str] = (),
    progress: Progress | None = None,
) -> EvaluationData:
    """What models are trained on; raises EncodeError where one of ``encoders`` fails."""
    from reki_feast.evaluation.dataset import RAW_TASTE, EvaluationData

    users, items = with_vectors(project, found) or (found.users, found.items)
    if project.declared.encoder.taste:
        users = users.append_column(RAW_TASTE, _raw_taste(project, found))
    return EvaluationData(
        _with_held_out(found),
        users,
        items,
        settings(project),
        user_fields=found.user_fields,
        item_fields=found.item_fields,
        encoders=by_encoders(project, found, encoders, progress),
    )


def _with_held_out(found: TrainingData) -> pa.Table:
    """The interactions, and those of the test where the project declares some."""
    rows, tested = found.interactions, found.given.held_out
    if tested is None:
        return rows
    parts = [
        table.append_column("held_out", pa.repeat(is_test, table.num_rows))
        for table, is_test in ((rows, False), (_as_samples(tested), True))
    ]
    return pa.concat_tables([parts[0], parts[1].select(parts[0].column_names)])


def _as_samples(rows: pa.Table) -> pa.Table:
    flags = {"prompt": False, "sample": True}
    for name, value in flags.items():
        rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
    return rows


def _raw_taste(project: DeclaredProject, found: TrainingData) -> pa.ChunkedArray:
    """Users' tastes by what the catalogue itself says of items."""
    items = found.items.drop_columns([n for n in found.items.column_names if n == "knowledge"])
    recent = project.declared.scenario.history
    means = LikedMeans.of(found.given, items, found.time, recent)
    return means.column(found.users.column(0).combine_chunks())


def machine() -> str:
    """What this runs on, in words."""
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"


def _trainer(root: Path, name: str, encoders: Sequence[str]) -> Train:
    """In a worker's own process."""
    from reki_feast.evaluation.training import trainer

    project = open_project(root, name)
    return trainer(evaluation_data(project, training_data(project), encoders))


def _scope(
    project: DeclaredProject, found: TrainingData, data: EvaluationData, options: EvaluateOptions
) -> Scope:
    from reki_feast.evaluation.spec import BACKBONES, RERANKERS, Scope

    backbones = options.get("backbones", ())
    _check(backbones, (*BACKBONES, *RERANKERS), "backbone")
    knowledge = state(project, found.time).knowledge
    grouped = knowledge["grouped"].to_pylist() if knowledge.num_rows else []
    kind: Extraction = "collective" if any(grouped) else "individual"
    return Scope(
        seeds=_seeds(options),
        extractions=(kind,),
        backbones=tuple(name for name in BACKBONES if name in (backbones or BACKBONES)),
        rerankers=tuple(name for name in RERANKERS if name in (backbones or RERANKERS)),
        encoders=tuple(data.encoders),
        encoder=project.declared.encoder.model,
        imported=data.has_imported,
        calls={kind: knowledge.num_rows} if knowledge.num_rows else {},
    )


def _others(
    project: DeclaredProject, encoders: Sequence[str], tables: Sequence[str]
) -> tuple[str, ...]:
    """The encoders beside the project's own, each once."""
    if encoders and "table6" not in tables:
        raise EvaluateError(
            "encoders are compared in table6",
            detail=f"{', '.join(encoders)} for {', '.join(tables)}",
            hint="name table6 too, or leave the encoders out",
        )
    own = project.declared.encoder.model
    return tuple(model for model in dict.fromkeys(encoders) if model != own)


def _check(names: Sequence[str], known: Iterable[str], what: str) -> None:
    has = list(known)
    strange = [name for name in names if name not in has]
    if strange:
        rule = f"a {what} is one of {', '.join(has)}"
        raise EvaluateError(rule, detail=", ".join(strange), hint="mend its name")


def _check_rates(rates: Sequence[float]) -> None:
    strange = [f"{rate:g}" for rate in rates if not 0 < rate < math.inf]
    if strange:
        rule = "a learning rate is a number above 0"
        raise EvaluateError(rule, detail=", ".join(strange), hint="name rates such as 0.003")


def _data(project: DeclaredProject, found: TrainingData) -> str:
    rows, users = found.interactions.num_rows, found.users.num_rows
    tested = "" if found.given.held_out is None else f", {found.given.held_out.num_rows:,} to test"
    return f"{project.name}: {rows:,} interactions{tested}, {users:,} users"


def _same_test(project: DeclaredProject, found: TrainingData) -> tuple[str, ...]:
    """What a p value does not tell where all seeds are scored on the same rows."""
    if found.given.held_out is None:
        return ()
    rule = project.declared.scenario.held_out
    return (
        f"Scored are the rows of «{rule}», the same for all seeds: p tells how sure a gain is on "
        "these rows, not on others.",
    )
