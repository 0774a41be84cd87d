"""What a Feast repo's files declare; run by :func:`~reki_feast.views.repo_check.check_repo`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from feast.repo_config import RepoConfig, load_repo_config
from feast.repo_operations import parse_repo

from reki_feast.errors import Problem, StoreError
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.exceptions import reading_repo
from reki_feast.stores.registry import STORE, WholeFileRegistryStore, registry_file

from .manifest import expecting
from .repo_check import RepoSummary


def summarize(repo: Path, folder: Path, manifest: Mapping[str, Any]) -> RepoSummary:
    """As :func:`~reki_feast.views.repo_check.check_repo`, where `repo` is the working folder.

    Raises:
        StoreError: the repo cannot be read, or its views do not fit.
    """
    with reading_repo(repo), expecting(folder, manifest), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = load_repo_config(repo, repo / "feature_store.yaml")
        contents = parse_repo(repo)
    views = [
        *contents.feature_views,
        *contents.on_demand_feature_views,
        *contents.stream_feature_views,
    ]
    if problems := list(_name_problems([view.name for view in views])):
        raise StoreError(problems)
    ours = [view for view in views if view.tags.get(SCENARIO_TAG) == manifest["scenario"]]
    remarks = [] if ours else [f"{repo} has no view of this scenario: see reki_match, reki_views"]
    return RepoSummary(
        _stores(config), tuple(view.name for view in ours), (*remarks, *_remarks(config))
    )


def _name_problems(names: Sequence[str]) -> Iterator[Problem]:
    """Feast takes views for the same whose names differ by case alone."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            yield Problem(
                "views of a Feast repo have names of their own, whatever their case",
                f"{other} and {name}",
                'name one otherwise; prefix="…" names all of reki_views or reki_match',
            )


def _stores(config: RepoConfig) -> str:
    parts = {
        "offline": config.offline_config,
        "online": config.online_config,
        "engine": config.batch_engine_config,
    }
    return ", ".join(f"{name} {_type(part).rsplit('.', 1)[-1]}" for name, part in parts.items())


def _remarks(config: RepoConfig) -> Iterator[str]:
    offline, online, engine = (
        _type(part)
        for part in (config.offline_config, config.online_config, config.batch_engine_config)
    )
    if offline in ("file", "dask"):
        yield (
            f"offline store {offline}: training joins fail on tables of several parts; "
            "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore reads them"
        )
    if online == "redis" and not _option(config.online_config, "skip_dedup"):
        yield "online store redis: without skip_dedup: true retrained vectors are not written"
    if not online.startswith("reki_feast."):
        yield f"online store {online}: unknown ids are null; ours gives them the default vector"
    written = config.materialization_config.online_write_batch_size
    if engine == "local" and written is None:
        yield (
            "engine local: writes the first Arrow batch of a table alone unless "
            "materialization: {online_write_batch_size: 10000} is set"
        )
    yield from _registry_remarks(config)


def _registry_remarks(config: RepoConfig) -> Iterator[str]:
    """What has readers refused while somebody writes."""
    registry: Any = config.registry
    found = registry_file(config)
    if found is not None and not issubclass(found[1], WholeFileRegistryStore):
        yield (
            "registry: readers beside feast apply or feast materialize get errors, and after one "
            "that was killed, unless feature_store.yaml says "
            f"registry: {{path: {registry.path}, registry_store_type: {STORE}}}"
        )
    elif found is None and not registry.serve_features_while_materializing:
        yield (
            "registry: readers beside feast materialize get errors, and after one that was killed, "
            "unless feature_store.yaml sets serve_features_while_materializing: true under registry"
        )
    if not registry.enable_online_feature_view_versioning:
        yield (
            "registry: models cannot name a space of vectors, as reki@v0, unless "
            "feature_store.yaml sets enable_online_feature_view_versioning: true under registry"
        )


def _type(part: Any) -> str:
    return str(part if isinstance(part, str) else _option(part, "type"))


def _option(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
