"""The project's Feast repo, looked at before a run pays for what the repo will not take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reki_feast.errors import StoreError
from reki_feast.inputs import Inputs
from reki_feast.pipeline.matching import manifest_section, settings
from reki_feast.project import Project
from reki_feast.schema import TASTE

if TYPE_CHECKING:
    from reki_feast.store.checking import RepoLook


def look_at_repo(project: Project, given: Inputs) -> RepoLook:
    """Whether the repo's files fit what the project will publish; nothing is written.

    Raises:
        StoreError: there is no repo, Feast cannot read it, or its views do not fit.
    """
    repo = project.feature_repo
    if not (repo / "feature_store.yaml").exists():
        raise StoreError(
            "the project has a Feast repo to materialize into",
            found=f"no {repo / 'feature_store.yaml'}",
            mend="`reki init` lays one down; for a repo elsewhere run feast apply and materialize "
            "there",
        )
    from reki_feast.store.checking import check_repo

    return check_repo(repo, project.data, _coming(project, given))


def _coming(project: Project, given: Inputs) -> dict[str, Any]:
    """The manifest that the next run will write, as far as views depend on it."""
    published = project.lake.read_json("manifest") or {}
    scores = {"match": manifest_section(settings(project))} if given.timed else {}
    made = {
        "scenario": project.name,
        "m": 1,
        "factors": list(project.known_factors()),
        **scores,
        **published,
    }
    for kind, key in (("user", given.user), ("item", given.item)):
        blank = {"channels": _channels(project, kind), "q": 1, "default": [0.0]}
        made[kind] = {**blank, **made.get(kind, {}), "key": key.name, "type": str(key.type)}
    return made


def _channels(project: Project, kind: str) -> list[str]:
    if kind == "item":
        return ["knowledge", "description"]
    known = ["liked", "disliked"] if project.declared.collective("user") else ["knowledge"]
    return [*known, "history", *([TASTE] if project.declared.encoder.taste else [])]
