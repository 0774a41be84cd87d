"""The project's Feast repo, looked at before a run pays for what the repo will not take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reki_feast.errors import StoreError
from reki_feast.project import DeclaredProject
from reki_feast.schema import TASTE
from reki_feast.stages.context import StageContext
from reki_feast.stages.matching import manifest_section, settings
from reki_feast.stages.snapshots import preference_columns

if TYPE_CHECKING:
    from reki_feast.views.repo_check import RepoSummary

#: What `feast materialize-incremental` brings late rows online with.
_OURS = {
    "offline_store": ".RekiDuckDBOfflineStore",
    "online_store": ".RekiRedisOnlineStore",
    "batch_engine": ".RekiComputeEngine",
}


def look_at_repo(context: StageContext) -> RepoSummary:
    """Whether the repo's files fit what the project will publish; nothing is written.

    Raises:
        StoreError: there is no repo, Feast cannot read it, or its views do not fit.
    """
    repo = context.feature_repo
    if not (repo / "feature_store.yaml").exists():
        raise StoreError(
            "the project has a Feast repo to materialize into",
            detail=f"no {repo / 'feature_store.yaml'}",
            hint="`reki init` lays one down; for a repo elsewhere run feast apply and materialize "
            "there",
        )
    from reki_feast.views.repo_check import check_repo

    return check_repo(repo, context.data, _coming(context))


def check_takes_rows(context: StageContext) -> None:
    """Whether the repo fits, as :func:`look_at_repo` finds, and its online store takes rows.

    Raises:
        StoreError: it does not fit, or the store does not answer, or refuses.
        MissingExtraError: an embedded Redis is meant, and none is installed.
    """
    look_at_repo(context)
    from reki_feast.stores.readiness import check_writable

    check_writable(context.feature_repo)


def takes_late_rows(repo: Path) -> bool:
    """Whether `feast materialize-incremental` brings rows online there that came late.

    Args:
        repo: the folder of feature_store.yaml.
    """
    try:
        config = yaml.safe_load((repo / "feature_store.yaml").read_text(encoding="utf-8"))
        types = {name: str(config[name]["type"]) for name in _OURS}
    except (yaml.YAMLError, ValueError, KeyError, TypeError):  # Feast says what is wrong with it
        return False
    return all(types[name].endswith(ours) for name, ours in _OURS.items())


def _coming(context: StageContext) -> dict[str, Any]:
    """The manifest that the next run will write, as far as views depend on it."""
    published = context.lake.read_json("manifest") or {}
    scores = {"match": manifest_section(settings(context))} if context.tables.timed else {}
    made = {
        "scenario": context.name,
        "m": 1,
        "factors": list(context.known_factors()),
        **scores,
        **published,
    }
    for kind, key in (("user", context.tables.user), ("item", context.tables.item)):
        blank = {"channels": _channels(context, kind), "q": 1, "default": [0.0]}
        made[kind] = {**blank, **made.get(kind, {}), "key": key.name, "type": str(key.type)}
    return made


def _channels(project: DeclaredProject, kind: str) -> list[str]:
    if kind == "item":
        return ["knowledge", "description"]
    made = ["liked", "disliked"] if project.declared.collective("user") else ["knowledge"]
    encoder = project.declared.encoder
    own = {"history": encoder.history, TASTE: encoder.taste}
    return [
        *made,
        *(name for name, is_declared in own.items() if is_declared),
        *preference_columns(project, "user"),
    ]
