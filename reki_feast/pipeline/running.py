"""All stages, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from reki_feast import inputs as sources
from reki_feast.errors import DeclarationError
from reki_feast.pipeline.encoding import encode
from reki_feast.pipeline.feast_repo import look_at_repo
from reki_feast.pipeline.generating import generate
from reki_feast.pipeline.publishing import publish
from reki_feast.pipeline.stored import Times, check_channels, times
from reki_feast.pipeline.training import train
from reki_feast.project import Project
from reki_feast.report import Progress, Report, merged, told_on_failure


def run(
    project: Project,
    *,
    as_of: Times = None,
    limit: int | None = None,
    limits: Mapping[str, float | None] | None = None,
    retry_quarantined: bool = False,
    allow_unconfirmed: bool = False,
    retrain: bool = False,
    materialize: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Bring everything up to date: generate, encode, train (once), publish.

    What can be seen beforehand to stop a later stage stops the run before it asks anything.

    Raises:
        RekiError: a stage cannot go on; what earlier stages did is kept, and told in ``done``.
    """
    _look_ahead(project, retrain=retrain, materialize=materialize)
    stages: list[Callable[[], Report]] = [
        partial(encode, project, as_of=as_of, retrain=retrain, progress=progress),
        partial(train, project, retrain=retrain, progress=progress),
        partial(publish, project, materialize=materialize),
    ]
    reports: list[Report] = []
    stopped = f"{project.name}: what was done before the run stopped"
    with told_on_failure(lambda: replace(merged(stopped, reports), next=[]) if reports else None):
        if project.declared.generators:  # several runs share the asking
            asked = generate(
                project,
                as_of=as_of,
                limit=limit,
                limits=limits,
                retry_quarantined=retry_quarantined,
                allow_unconfirmed=allow_unconfirmed,
                progress=progress,
            )
            reports.append(asked)
        with project.alone("reki run"):
            for stage in stages:
                reports.append(stage())
    return merged(f"{project.name}: interactions in, vectors out", reports)


def _look_ahead(project: Project, *, retrain: bool, materialize: bool) -> None:
    """See to what a later stage would stop at, before an earlier one is paid for."""
    if not project.declared.generators and not times(project, "knowledge"):
        raise DeclarationError(
            "knowledge is generated or imported",
            found="no generator is declared and nothing was imported",
            mend='declare Individual(kind="user") and Individual(kind="item"), '
            "or run reki import-knowledge",
        )
    if not retrain:
        check_channels(project)
    if materialize:
        look_at_repo(project, sources.read(project.declared, project.root))
