"""Where a scenario's published tables are, seen from a Feast repo."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from reki_feast.stores.defaults import FROM_REPO_TAG

_FILE = "feature_store.yaml"
#: How the types of this package's stores begin; the second in repos of version 0.1.
_OURS = ("reki_feast.stores.", "reki_feast.store.")


@dataclass(frozen=True)
class TableLocation:
    """The folder of a scenario's tables.

    Attributes:
        folder: its absolute path.
        path: as sources name it: absolute, or relative to the Feast repo.
        tags: of the sources; they say which of the two.
    """

    folder: Path
    path: Path
    tags: Mapping[str, str]


def locate(data: str | Path, repo: str | Path | None = None) -> TableLocation:
    """Find a scenario's tables.

    Args:
        data: their folder; a relative one starts at the Feast repo.
        repo: the Feast repo, or a folder or file in it; by default that of :func:`default_repo`.
    """
    data = Path(data).expanduser()
    home = default_repo(data) if repo is None else _repo_of(Path(repo).expanduser().absolute())
    folder = ((home or Path()) / data).resolve()
    if data.is_absolute():
        return TableLocation(folder, folder, {FROM_REPO_TAG: "false"})
    if home is None:
        return TableLocation(folder, folder, {})
    if _starts_in_repo(home):
        return TableLocation(folder, Path(os.path.normpath(data)), {FROM_REPO_TAG: "true"})
    return TableLocation(folder, folder, {})


def default_repo(data: Path) -> Path | None:
    """The Feast repo in which a relative folder starts.

    That of the working folder, where `feast apply` runs. Elsewhere, a repo from which the folder
    can be reached: on the Python path, as where a script imports the repo's files, or where `reki
    init` lays one down in the working folder. None where there is none.
    """
    here = Path.cwd()
    if (repo := _repo_of(here)) is not None:
        return repo
    others = [*(Path(folder) for folder in sys.path if folder), here / "feature_repo"]
    return next((one for one in others if (one / _FILE).is_file() and (one / data).is_dir()), None)


def _repo_of(place: Path) -> Path | None:
    """The nearest folder with a feature_store.yaml, at a place or above."""
    return next((one for one in (place, *place.parents) if (one / _FILE).is_file()), None)


def _starts_in_repo(repo: Path) -> bool:
    """Whether its offline store has relative paths start in the repo; not all of Feast's do.

    With such paths in the registry a project can be moved, and applied elsewhere than it is used.
    """
    try:
        text = os.path.expandvars((repo / _FILE).read_text(encoding="utf-8"))
        options = (yaml.safe_load(text) or {}).get("offline_store") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return False  # Feast says what is wrong with it
    kind = options.get("type", "dask") if isinstance(options, dict) else options
    return kind in ("dask", "file") or str(kind).startswith(_OURS)
