"""All stages, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import Unpack

from reki_feast.errors import DeclarationError
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress, attach_report
from reki_feast.results import Result, RunResult
from reki_feast.stages.compatible import check_compatible
from reki_feast.stages.context import StageContext
from reki_feast.stages.encoding import encode
from reki_feast.stages.feast_repo import check_takes_rows
from reki_feast.stages.generating import GenerateOptions, generate
from reki_feast.stages.publishing import publish
from reki_feast.stages.snapshots import times, wanted_times
from reki_feast.stages.training import train
from reki_feast.stages.up_to_date import NextRun


def run(
    project: DeclaredProject,
    *,
    retrain: bool = False,
    compatible: bool = False,
    materialize: bool = False,
    progress: Progress | None = None,
    **options: Unpack[GenerateOptions],
) -> RunResult:
    """Bring everything up to date: generate, encode, train (once), publish.

    Whatever is known to stop a later stage stops the run before it asks anything.

    Args:
        project: the project.
        retrain: whether to train again where there are weights; vectors move into a new space.
        compatible: whether models that learnt from the vectors in service can read the new ones.
        materialize: whether to apply and materialize the project's Feast repo.
        progress: shows how far it is.
        options: of :func:`generate`.

    Raises:
        RekiError: a stage cannot go on; the results of earlier stages are kept, and are in the
            error's ``done``.
    """
    context = StageContext.of(project)
    if compatible:
        check_compatible(context, retrain=retrain)
    as_of = options.get("as_of")
    stages: dict[str, Callable[[], Result]] = {
        "encode": partial(encode, context, as_of=as_of, retrain=retrain, progress=progress),
        "train": partial(train, context, retrain=retrain, compatible=compatible, progress=progress),
        "publish": partial(publish, context, materialize=materialize, progress=progress),
    }
    done: dict[str, Any] = {}
    said = attach_report(
        lambda: replace(_result(context, done), next=[]).report() if done else None
    )
    with NextRun.after(context) as next_run, said:
        _look_ahead(context, materialize=materialize)
        if context.declared.generators:  # several runs share the asking
            done["generate"] = generate(context, progress=progress, **options)
        with context.write_lock("reki run"):
            for name, stage in stages.items():
                done[name] = stage()
            next_run.store(wanted_times(context, as_of))
    return _result(context, done)


def _result(project: DeclaredProject, done: dict[str, Any]) -> RunResult:
    results = list(done.values())
    return RunResult(
        project=project.name,
        **done,
        notes=list(dict.fromkeys(note for one in results for note in one.notes)),
        next=results[-1].next,
        failed=sum(one.failed for one in results),
    )


def _look_ahead(context: StageContext, *, materialize: bool) -> None:
    """See to what a later stage would stop at, before an earlier one is paid for."""
    if not context.declared.generators and not times(context, "knowledge"):
        raise DeclarationError(
            "knowledge is generated or imported",
            detail="no generator is declared and nothing was imported",
            hint='declare Individual(kind="user") and Individual(kind="item"), '
            "or run reki import-knowledge",
        )
    if materialize:
        check_takes_rows(context)
