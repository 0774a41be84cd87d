"""Whether a Feast repo will take a scenario's views, told before anything is published."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feast.repo_config import RepoConfig, load_repo_config
from feast.repo_operations import parse_repo

from reki_feast.errors import Fault, StoreError

from .defaults import SCENARIO_TAG
from .manifest import expecting
from .materialize import inside_repo, read_by_feast
from .registry import STORE, WholeFileRegistryStore, file_of


@dataclass(frozen=True)
class RepoLook:
    """What a Feast repo is made of.

    Attributes:
        stores: the types of its stores and its engine, as one line.
        views: names of its views of the scenario.
        remarks: what is to be known of stock stores and engines, as sentences.
    """

    stores: str
    views: tuple[str, ...]
    remarks: tuple[str, ...]


def check_repo(repo: Path, folder: Path, manifest: Mapping[str, Any]) -> RepoLook:
    """Read a repo's files as ``feast apply`` does; nothing is written and no store is opened.

    Args:
        repo: the folder of feature_store.yaml.
        folder: the scenario's folder of published tables; it may be empty yet.
        manifest: what its manifest.json will say.

    Raises:
        StoreError: Feast cannot read the repo, keys, types or paths of its views do not fit the
            scenario, or two views share a name.
    """
    repo = repo.resolve()
    mend = f"cd {repo} && feast apply shows the whole error"
    with (
        read_by_feast(f"Feast can read the repo {repo}", mend),
        inside_repo(repo),
        expecting(folder, manifest),
        redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        config = load_repo_config(repo, repo / "feature_store.yaml")
        found = parse_repo(repo)
    views = [*found.feature_views, *found.on_demand_feature_views, *found.stream_feature_views]
    faults = list(_name_faults([view.name for view in views]))
    if faults:
        raise StoreError(faults)
    ours = [view for view in views if view.tags.get(SCENARIO_TAG) == manifest["scenario"]]
    remarks = [] if ours else [f"{repo} has no view of this scenario: see reki_match, reki_views"]
    return RepoLook(
        _stores(config), tuple(view.name for view in ours), (*remarks, *_remarks(config))
    )


def _name_faults(names: Sequence[str]) -> Iterator[Fault]:
    """Feast takes views for the same whose names differ by case alone."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            yield Fault(
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
            "reki_feast.store.duckdb_offline.RekiDuckDBOfflineStore reads them"
        )
    if online == "redis" and not _said(config.online_config, "skip_dedup"):
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
    found = file_of(config)
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


def _type(part: Any) -> str:
    return str(part if isinstance(part, str) else _said(part, "type"))


def _said(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
