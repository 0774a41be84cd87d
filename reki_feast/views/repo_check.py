"""Whether a Feast repo accepts a scenario's views, checked before anything is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reki_feast.stores.repo_process import call_in_repo


@dataclass(frozen=True)
class RepoSummary:
    """What a Feast repo is made of.

    Attributes:
        stores: the types of its stores and its engine, as one line.
        views: names of its views of the scenario.
        remarks: limits of Feast's own stores and engines that it uses, as sentences.
    """

    stores: str
    views: tuple[str, ...]
    remarks: tuple[str, ...]


def check_repo(repo: Path, folder: Path, manifest: Mapping[str, Any]) -> RepoSummary:
    """Read a repo's files as ``feast apply`` does; nothing is written and no store is opened.

    Args:
        repo: the folder of feature_store.yaml.
        folder: the scenario's folder of published tables; it may be empty yet.
        manifest: what its manifest.json will hold.

    Raises:
        StoreError: Feast cannot read the repo, keys, types or paths of its views do not fit the
            scenario, or two views share a name.
    """
    where = repo.resolve(), folder.resolve()
    look: RepoSummary = call_in_repo(
        where[0], f"{__package__}.repo_contents:summarize", *where, manifest
    )
    return look
