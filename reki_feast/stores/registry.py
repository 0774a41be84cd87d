"""Feast's registry in a file that is replaced whole, and whose views are served while written.

In ``feature_store.yaml``::

    registry:
      path: data/registry.db
      registry_store_type: reki_feast.stores.registry.WholeFileRegistryStore

Feast's own store empties the file before it writes it: who opens the repo in that moment finds no
view. And it stores that a view is being materialized, so that readers are refused meanwhile, or for
good where that was killed.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from feast.feature_view import FeatureViewState
from feast.infra.registry.file import FileRegistryStore
from feast.infra.registry.registry import (
    get_registry_store_class_from_scheme,
    get_registry_store_class_from_type,
)
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RepoConfig
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from typing_extensions import override

from reki_feast import files
from reki_feast.errors import StoreError

from ._feast import file_of_registry
from .version_records import register_versions

#: As ``feature_store.yaml`` names the store.
STORE = "reki_feast.stores.registry.WholeFileRegistryStore"
_AVAILABLE = FeatureViewState.AVAILABLE_ONLINE.to_proto()
#: What a view is while it gets rows, and after that failed.
_BUSY = (FeatureViewState.MATERIALIZING.to_proto(), FeatureViewState.GENERATED.to_proto())
_DAMAGED = "damaged"
#: Nanoseconds; who has read the file looks whether its time of change has grown.
_LATER = 1_000_000


class WholeFileRegistryStore(FileRegistryStore):
    """Feast's file, replaced in one step; a view that has rows online stays available.

    A process that read the file before another wrote it is refused, where Feast's own store would
    undo what the other registered. Its version history has the spaces that views declare by their
    tags, so that Feast finds them: ``view@v1``.
    """

    @override
    def _write_registry(self, registry_proto: Registry) -> None:
        """Replace the file.

        Raises:
            StoreError: somebody else wrote it since it was read; that would be lost.
        """
        path = file_of_registry(self)
        if _state(path) not in ("", _DAMAGED, registry_proto.version_id):
            raise _changed_meanwhile(path)
        for view in (*registry_proto.feature_views, *registry_proto.stream_feature_views):
            if view.meta.state in _BUSY and view.meta.materialization_intervals:
                view.meta.state = _AVAILABLE
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.GetCurrentTime()
        register_versions(registry_proto)
        raw = registry_proto.SerializeToString()
        _replace(path, lambda tmp: tmp.write_bytes(raw))


def registry_file(config: RepoConfig) -> tuple[Path, type] | None:
    """A repo's registry, where it is a local file, and the class that Feast keeps it with."""
    registry: Any = config.registry
    if registry.registry_type != "file":
        return None
    if registry.registry_store_type is None:
        kind = get_registry_store_class_from_scheme(registry.path)
    else:
        kind = get_registry_store_class_from_type(registry.registry_store_type)
    if not issubclass(kind, FileRegistryStore):
        return None
    return Path(config.repo_path or "", registry.path).resolve(), kind


@contextmanager
def atomic_registry(config: RepoConfig) -> Iterator[None]:
    """Have readers see all that is registered meanwhile at once, at the end, or nothing of it.

    So it is where the registry is a local file; elsewhere each change is seen when it is made.

    Args:
        config: of the repo; until the end it names a draft of the registry.

    Raises:
        StoreError: the registry was changed meanwhile by somebody else.
        LakeError: the registry's folder cannot be written.
    """
    found = registry_file(config)
    if found is None:
        yield
        return
    (path, _), registry = found, config.registry
    with files.folder_beside(path) as folder:
        draft, named, before = folder / path.name, registry.path, _state(path)
        if path.exists():
            shutil.copyfile(path, draft)
        registry.path = str(draft)
        try:
            yield
        finally:
            registry.path = named
        if _state(path) != before:
            raise _changed_meanwhile(path)
        if draft.exists():
            _replace(path, lambda tmp: shutil.copyfile(draft, tmp))


def _changed_meanwhile(path: Path) -> StoreError:
    return StoreError(
        "a Feast repo is applied and materialized by one at a time",
        detail=f"{path} was changed meanwhile",
        hint="see that nobody else runs feast apply or feast materialize, and run it again; a "
        "process that goes on calls store.refresh_registry() first",
    )


def _state(path: Path) -> str:
    """Tells states of a registry apart; one without a project, as readers make it, is as none."""
    with suppress(FileNotFoundError):
        registry = Registry()
        try:
            registry.ParseFromString(path.read_bytes())
        except DecodeError:
            return _DAMAGED
        return registry.version_id if registry.projects else ""
    return ""


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Replace the file, its rights kept; its time of change grows, also where a clock went back."""
    path = path.resolve()
    before = path.stat() if path.exists() else None

    def written(tmp: Path) -> None:
        write(tmp)
        if before is not None:
            least = before.st_mtime_ns + _LATER
            os.utime(tmp, ns=(least, max(least, tmp.stat().st_mtime_ns)))

    files.atomically(path, written, mode=stat.S_IMODE(before.st_mode) if before else None)
