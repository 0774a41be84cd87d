"""``feast apply`` of a whole repo, in a process of its own and at once."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.repo_config import RepoConfig, load_repo_config
from feast.repo_operations import apply_total, parse_repo

from ._feast import pending_feature_refs
from .exceptions import map_repo_errors
from .registry import atomic_registry
from .repo_process import call_in_repo


def apply_whole(repo: str | Path) -> None:
    """``feast apply`` of a whole repo; who reads meanwhile finds the views as they were.

    Args:
        repo: the folder of feature_store.yaml.

    Raises:
        StoreError: Feast does not accept the repo; or somebody else changed the registry meanwhile.
    """
    repo = Path(repo).resolve()
    config = config_of(repo)
    with atomic_registry(config):
        apply_to(config, repo)


def apply_to(config: RepoConfig, repo: Path) -> None:
    """``feast apply`` to the registry that a config names.

    Raises:
        StoreError: Feast does not accept the repo.
    """
    call_in_repo(repo, f"{__name__}:apply_repo", repo, config.registry.path)


def config_of(repo: Path) -> RepoConfig:
    """The config of a repo, as Feast reads it.

    Raises:
        StoreError: it cannot be read.
    """
    with _applying(repo):
        return load_repo_config(repo, repo / "feature_store.yaml")


def apply_repo(repo: Path, registry: str) -> None:
    """``feast apply``, where the working folder is the repo.

    Args:
        repo: the folder of feature_store.yaml.
        registry: the registry's path, in place of the one that is configured.

    Raises:
        StoreError: Feast does not accept the repo.
    """
    with _applying(repo), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an exp", RuntimeWarning)
        config = load_repo_config(repo, repo / "feature_store.yaml")
        config.registry.path = registry
        _apply_versions(config, repo)
        apply_total(config, repo, skip_source_validation=False)


def _apply_versions(config: RepoConfig, repo: Path) -> None:
    """Register the views first where a service names a version: Feast looks these up beforehand."""
    found = parse_repo(repo)
    refs = [ref for service in found.feature_services for ref in pending_feature_refs(service)]
    if any("@" in ref for ref in refs):
        views = [*found.feature_views, *found.stream_feature_views]
        objects: list[Any] = [
            *found.entities,
            *found.data_sources,
            *views,
            *found.on_demand_feature_views,
        ]
        FeatureStore(config=config).apply(objects, partial=True)


def _applying(repo: Path) -> AbstractContextManager[None]:
    return map_repo_errors(f"Feast accepts the repo {repo}", f"cd {repo} && feast apply")
