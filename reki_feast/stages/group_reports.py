"""What happened to groups, as it is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from reki_feast.project import DeclaredProject
from reki_feast.results import GroupUpdate
from reki_feast.schema import Kind
from reki_feast.stages.group_state import (
    folder,
    name_of,
)

#: From here on the report says that groups no longer fit: drift of the kernel, and of vectors.
_DRIFTED = 0.5


@dataclass(frozen=True)
class Formed:
    """What happened to the groups of one channel at one time.

    Attributes:
        kind: whose groups.
        channel: which channel.
        time: as of when.
        entities: members of all groups.
        groups: number of groups.
        new: entities that came.
        met: items placed anew, because somebody met them for the first time.
        split: groups that passed their cap.
        moved: known entities that are in another group now.
        asked: groups whose shown items are new or changed enough to ask again.
        drift: mean cosine distance between the vectors known entities have now and those they were
            placed by.
        kernel_drift: :attr:`StreaKHC.drift_`.
        next_drift: the drift with those that came among the known ones.
    """

    kind: Kind
    channel: str
    time: datetime
    entities: int
    groups: int
    new: int
    met: int
    split: int
    moved: int
    asked: int
    drift: float
    kernel_drift: float
    next_drift: float


def group_updates(formed: list[Formed]) -> list[GroupUpdate]:
    """What happened, as rows of a result."""
    return [
        GroupUpdate(
            as_of=one.time,
            of=name_of(one.kind, one.channel),
            members=one.entities,
            groups=one.groups,
            new=one.new,
            anew=one.met,
            splits=one.split,
            moved=one.moved,
            changed=one.asked,
            drift=round(one.drift, 3),
        )
        for one in formed
    ]


def unchanged_groups(formed: list[Formed]) -> list[Formed]:
    """What happens to groups when they are brought up to the same times again: they stay."""
    last = [one for one in formed if one.time == formed[-1].time]
    return [
        replace(one, new=0, met=0, split=0, moved=0, asked=0, drift=one.next_drift) for one in last
    ]


def drift_notes(project: DeclaredProject, formed: list[Formed]) -> list[str]:
    """A sentence for each channel whose groups no longer fit what they were formed from."""
    last = {(one.kind, one.channel): one for one in formed}.values()
    where = folder(project)
    return [
        f"groups of {name_of(one.kind, one.channel)}: vectors moved by {one.drift:.2f} (cosine), "
        f"new ones by {one.kernel_drift:.2f} (kernel) since the groups were formed; they are kept. "
        f"Move {where} away to form them anew"
        for one in last
        if max(one.drift, one.kernel_drift) > _DRIFTED
    ]
