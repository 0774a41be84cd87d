"""The stored state of groups: a channel's tree, its points' ids, groups and first vectors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import files
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject
from reki_feast.schema import Kind

if TYPE_CHECKING:
    from reki_feast.clustering import StreaKHC

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

#: Calls cost more than time: with 4 in place of 1, groups of 100 from 200,000 points of 1,000
#: Gaussians are to 81 % of one Gaussian in place of 58 %, for about three times the time.
_BEAM = 4
#: The channels whose text is a group's, by kind.
CHANNELS: dict[Kind, tuple[str, ...]] = {"item": ("knowledge",), "user": ("liked", "disliked")}


def name_of(kind: str, channel: str) -> str:
    """What a channel's groups are groups of.

    >>> name_of("user", "liked"), name_of("item", "knowledge")
    ('users, liked', 'items')
    """
    return f"{kind}s" if channel == "knowledge" else f"{kind}s, {channel}"


def group_id(label: int, kind: Kind, channel: str) -> str:
    """A group's id in every table.

    >>> group_id(12, "item", "knowledge"), group_id(3, "user", "liked")
    ('item-12', 'liked-3')
    """
    return f"{kind if channel == 'knowledge' else channel}-{label}"


@dataclass
class ClusterState:
    """The stored state of a channel's groups.

    Attributes:
        tree: the clustering.
        ids: ``[n]``, ids as text, in the order of the tree's points; null: it was forgotten.
        labels: ``[n]``, the group of each.
        placed: ``[n, d]``, the vectors they were placed by; 0 of the forgotten.
        cold: ``[n]``, placed before there was anything to learn a vector from.
        live: ``[n]``, not placed anew since; the last point of an id is.
        as_of: the last time it was brought up to; None when new.
    """

    tree: StreaKHC
    ids: pa.Array
    labels: npt.NDArray[np.int64]
    placed: Floats
    cold: Flags
    live: Flags
    as_of: datetime | None

    def point(self, entity: str) -> int | None:
        """The live point of an entity, None for one that is not placed."""
        found = np.flatnonzero(pc.fill_null(pc.equal(self.ids, entity), False))
        return int(found[-1]) if len(found) and self.live[found[-1]] else None

    def names(self, points: npt.NDArray[np.integer]) -> pa.Array:
        """The ids of some points, null where it was forgotten."""
        return self.ids.take(pa.array(points))


def folder(project: DeclaredProject) -> Path:
    """Where the state of all channels is, and the embedder."""
    return project.data / "clusters"


def _path(project: DeclaredProject, kind: Kind, channel: str) -> Path:
    return folder(project) / f"{kind}_{channel}.safetensors"


def fresh(project: DeclaredProject, width: int) -> ClusterState:
    """No points yet, for vectors of ``width`` floats."""
    from reki_feast.clustering import StreaKHC

    tree = StreaKHC(random_state=project.declared.training.seed, beam_width=_BEAM)
    empty = np.empty((0, width), np.float32)
    flags = np.empty(0, np.bool_)
    ids = pa.array([], pa.string())
    return ClusterState(tree.fit(empty), ids, np.empty(0, np.int64), empty, flags, flags, None)


def save(project: DeclaredProject, clusters: ClusterState, kind: Kind, channel: str) -> None:
    """Replace the stored state in one step.

    Raises:
        LakeError: the folder cannot be written.
    """
    tensors, about = clusters.tree.to_arrays()
    said = {"as_of": clusters.as_of.isoformat() if clusters.as_of else None, "tree": about}
    tensors |= {"labels": clusters.labels, "placed": clusters.placed, **_packed(clusters.ids)}
    tensors |= {"cold": clusters.cold.astype(np.uint8), "live": clusters.live.astype(np.uint8)}
    project.lake.write_tensors(_path(project, kind, channel), tensors, said)


def load(project: DeclaredProject, kind: Kind, channel: str) -> ClusterState | None:
    """The stored groups of a channel; None before they are formed.

    Raises:
        LakeError: the file is damaged, or of another version.
    """
    from reki_feast.clustering import StreaKHC

    path = _path(project, kind, channel)
    if not path.exists():
        return None
    tensors, said = files.read_tensors(path)
    try:
        return ClusterState(
            labels=tensors.pop("labels"),
            placed=tensors.pop("placed"),
            ids=_unpacked(tensors),
            cold=tensors.pop("cold").astype(np.bool_),
            live=tensors.pop("live").astype(np.bool_),
            as_of=datetime.fromisoformat(said["as_of"]),
            tree=StreaKHC.from_arrays(tensors, said["tree"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LakeError(
            "the state of groups was stored by this version",
            detail=f"{path}: {type(error).__name__}: {error}",
            hint=f"move {folder(project)} away to form groups anew",
        ) from error


def formed_until(project: DeclaredProject, kind: Kind) -> datetime | None:
    """The last time that groups of users, or of items, were brought up to; None before the first.

    Raises:
        LakeError: a file is damaged.
    """
    paths = [_path(project, kind, channel) for channel in CHANNELS[kind]]
    said = [files.read_about(path)["as_of"] for path in paths if path.exists()]
    return max((datetime.fromisoformat(time) for time in said if time), default=None)


def placed_ids(project: DeclaredProject, kind: Kind) -> set[str]:
    """Ids of all that have a point in some channel's tree."""
    clusters = (load(project, kind, channel) for channel in CHANNELS[kind])
    found = [one.ids.drop_null() for one in clusters if one is not None]
    return set(pa.chunked_array(found, pa.string()).to_pylist())


def forget(project: DeclaredProject, kind: Kind, ids: Collection[str]) -> list[str]:
    """Take entities out of their groups; the ids of those that had a point.

    A point stays in its tree without a name, so that others keep their ways: it is of no group, and
    says nothing but that there was one.
    """
    found: set[str] = set()
    for channel in CHANNELS[kind]:
        clusters = load(project, kind, channel)
        if clusters is None:
            continue
        going = pc.is_in(clusters.ids, value_set=pa.array([*ids], pa.string()))
        points = np.flatnonzero(going)
        if not len(points):
            continue
        found.update(clusters.names(points).to_pylist())
        clusters.ids = pc.if_else(going, None, clusters.ids)
        clusters.live[points] = False
        clusters.placed = clusters.placed.copy()
        clusters.placed[points] = 0
        save(project, clusters, kind, channel)
    return sorted(found)


_NAMELESS = -1


def _packed(ids: pa.Array) -> dict[str, npt.NDArray[Any]]:
    """Texts as arrays: JSON beside the arrays may not grow to millions of ids."""
    lengths = pc.fill_null(pc.binary_length(ids), _NAMELESS).to_numpy().astype(np.int64)
    raw = pa.concat_arrays([ids.drop_null().cast(pa.binary())]).buffers()[2]
    size = int(np.maximum(lengths, 0).sum())
    return {
        "id_bytes": np.frombuffer(raw, np.uint8, size) if size else np.empty(0, np.uint8),
        "id_lengths": lengths,
    }


def _unpacked(tensors: dict[str, npt.NDArray[Any]]) -> pa.Array:
    raw, lengths = tensors.pop("id_bytes"), tensors.pop("id_lengths")
    ends = np.cumsum(np.maximum(lengths, 0), dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(raw))]
    texts = pa.Array.from_buffers(pa.large_string(), len(lengths), buffers).cast(pa.string())
    return pc.if_else(pa.array(lengths >= 0), texts, None)
