"""All stages, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

from reki_feast.errors import DeclarationError
from reki_feast.pipeline.encoding import encode
from reki_feast.pipeline.generating import generate
from reki_feast.pipeline.publishing import publish
from reki_feast.pipeline.stored import Times, times
from reki_feast.pipeline.training import train
from reki_feast.project import Project
from reki_feast.report import Progress, Report, merged


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

    Raises:
        RekiError: a stage cannot go on; what earlier stages did is kept.
    """
    reports = []
    if project.declared.generators:
        reports.append(
            generate(
                project,
                as_of=as_of,
                limit=limit,
                limits=limits,
                retry_quarantined=retry_quarantined,
                allow_unconfirmed=allow_unconfirmed,
                progress=progress,
            )
        )
    elif not times(project, "knowledge"):
        raise DeclarationError(
            "knowledge is generated or imported",
            found="no generator is declared and nothing was imported",
            mend='declare Individual(kind="user") and Individual(kind="item"), '
            "or run reki import-knowledge",
        )
    reports.append(encode(project, as_of=as_of, progress=progress))
    reports.append(train(project, retrain=retrain, progress=progress))
    reports.append(publish(project, materialize=materialize))
    return merged(f"{project.name}: interactions in, vectors out", reports)
