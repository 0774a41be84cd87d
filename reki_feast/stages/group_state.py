"""The stored state of groups: a channel's tree, its points' ids, groups and first vectors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

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
        ids: ``[n]``, ids as text, in the order of the tree's points; None: it was forgotten.
        labels: ``[n]``, the group of each.
        placed: ``[n, d]``, the vectors they were placed by; 0 of the forgotten.
        cold: ``[n]``, placed before there was anything to learn a vector from.
        live: ``[n]``, not placed anew since; the last point of an id is.
        as_of: the last time it was brought up to; None when new.
    """

    tree: StreaKHC
    ids: list[str | None]
    labels: npt.NDArray[np.int64]
    placed: Floats
    cold: Flags
    live: Flags
    as_of: datetime | None

    def point(self, entity: str) -> int | None:
        """The live point of an entity, None for one that is not placed."""
        last = next((at for at in range(len(self.ids) - 1, -1, -1) if self.ids[at] == entity), None)
        return last if last is not None and self.live[last] else None

    def named(self, points: Iterable[int]) -> list[tuple[int, str]]:
        """Some points, with the ids of those that have one."""
        return [(at, name) for at in points if (name := self.ids[at]) is not None]


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
    return ClusterState(tree.fit(empty), [], np.empty(0, np.int64), empty, flags, flags, None)


def save(project: DeclaredProject, held: ClusterState, kind: Kind, channel: str) -> None:
    """Replace the stored state in one step.

    Raises:
        LakeError: the folder cannot be written.
    """
    tensors, about = held.tree.to_arrays()
    said = {"as_of": held.as_of.isoformat() if held.as_of else None, "tree": about}
    tensors |= {"labels": held.labels, "placed": held.placed, **_packed(held.ids)}
    tensors |= {"cold": held.cold.astype(np.uint8), "live": held.live.astype(np.uint8)}
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


def known(project: DeclaredProject, kind: Kind) -> set[str]:
    """Ids of all that have a point in some channel's tree."""
    held = (load(project, kind, channel) for channel in CHANNELS[kind])
    return {name for one in held if one is not None for name in one.ids if name is not None}


def forget(project: DeclaredProject, kind: Kind, ids: Collection[str]) -> list[str]:
    """Take entities out of their groups; the ids of those that had a point.

    A point stays in its tree without a name, so that others keep their ways: it is of no group, and
    says nothing but that there was one.
    """
    found: set[str] = set()
    for channel in CHANNELS[kind]:
        held = load(project, kind, channel)
        points = [] if held is None else held.named(range(len(held.ids)))
        going = {at: name for at, name in points if name in ids}
        if held is None or not going:
            continue
        held.ids = [None if at in going else name for at, name in enumerate(held.ids)]
        held.live[[*going]] = False
        held.placed = held.placed.copy()
        held.placed[[*going]] = 0
        save(project, held, kind, channel)
        found |= {*going.values()}
    return sorted(found)


_NAMELESS = -1


def _packed(ids: list[str | None]) -> dict[str, npt.NDArray[Any]]:
    """Texts as arrays: JSON beside the arrays may not grow to millions of ids."""
    raw = [None if text is None else text.encode("utf-8", "surrogatepass") for text in ids]
    lengths = [_NAMELESS if text is None else len(text) for text in raw]
    return {
        "id_bytes": np.frombuffer(b"".join(filter(None, raw)), np.uint8),
        "id_lengths": np.array(lengths, np.int64),
    }


def _unpacked(tensors: dict[str, npt.NDArray[Any]]) -> list[str | None]:
    raw, lengths = tensors.pop("id_bytes").tobytes(), tensors.pop("id_lengths")
    ends = np.cumsum(np.maximum(lengths, 0)).tolist()
    return [
        None if size == _NAMELESS else raw[end - size : end].decode("utf-8", "surrogatepass")
        for end, size in zip(ends, lengths.tolist(), strict=True)
    ]
