"""Groups explained: what each is about, and the way from the root of the tree to one entity."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import ClusterError
from reki_feast.knowledge.group_titles import group_titles
from reki_feast.project import DeclaredProject
from reki_feast.results import GroupPath, GroupsResult, GroupSummary, PathNode
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_state import CHANNELS, ClusterState, group_id, load, name_of
from reki_feast.stages.snapshots import groups_of, state

#: A group: kind, channel, id.
_Slot = tuple[str, str, str]


@dataclass(frozen=True)
class About:
    """What is known of one group.

    Attributes:
        kind: of its members.
        channel: of its knowledge.
        group: its id.
        size: number of members.
        name: derived from its knowledge; empty before it has any.
        shown: titles of the items it is shown by.
        knowledge: the text.
    """

    kind: Kind
    channel: str
    group: str
    size: int
    name: str
    shown: list[str]
    knowledge: str


def groups(
    project: DeclaredProject,
    *,
    of: str | None = None,
    kind: Kind | None = None,
    limit: int | None = None,
) -> GroupsResult:
    """List groups, the largest first; or tell how one entity came into its own.

    Args:
        project: whose groups.
        of: id of a user (of an item with ``kind="item"``): its groups and its way down the tree.
        kind: only groups of this kind.
        limit: at most so many groups.

    Raises:
        ClusterError: no groups are formed, or the entity is in none.
    """
    found = described_groups(project)
    if not found:
        rule = "groups are formed before they are explained"
        hint = "declare Collective(kind=…), then `reki plan`; or import knowledge of groups"
        raise ClusterError(rule, detail="no groups are stored", hint=hint)
    if of is not None:
        return _explained(project, found, of, kind or "user")
    chosen = [one for one in found if kind in (None, one.kind)]
    rows = [_summary(one) for one in chosen[:limit]]
    left = len(chosen) - len(rows)
    return GroupsResult(
        project=project.name,
        total=len(chosen),
        groups=rows,
        notes=[f"{left:,} more; --limit {len(chosen)} shows all"] if left else [],
        next=["reki groups --of USER"],
    )


def described_groups(project: DeclaredProject) -> list[About]:
    """All groups that have members, by kind and channel, the largest first."""
    snapshot = state(project)
    sizes = snapshot.members.group_by(["kind", "channel", "group"], use_threads=False)
    counts = sizes.aggregate([("owner", "count")]).to_pylist()
    texts = _texts(snapshot.knowledge)
    shown, titles = _shown(project)
    names = _names(project, texts)
    found = [
        About(
            kind=row["kind"],
            channel=row["channel"],
            group=row["group"],
            size=row["owner_count"],
            name=names.get(slot, ""),
            shown=[titles.get(item, item) for item in shown.get(slot, [])],
            knowledge=texts.get(slot, ""),
        )
        for row in counts
        for slot in [(row["kind"], row["channel"], row["group"])]
    ]
    return sorted(found, key=lambda one: (one.kind, one.channel, -one.size, one.group))


def _texts(knowledge: pa.Table) -> dict[_Slot, str]:
    rows = knowledge.filter(pc.field("grouped")).select(["kind", "channel", "owner", "text"])
    return {(r["kind"], r["channel"], r["owner"]): r["text"] for r in rows.to_pylist()}


def _shown(project: DeclaredProject) -> tuple[dict[_Slot, list[str]], dict[str, str]]:
    """Ids of items by group, and the titles of those items."""
    rows = groups_of(project).select(["kind", "channel", "group", "shown"]).to_pylist()
    shown = {(r["kind"], r["channel"], r["group"]): r["shown"] for r in rows}
    given, scenario = StageContext.of(project).tables, project.declared.scenario
    ids = given.items[scenario.item_key].cast(pa.string())
    wanted = pa.array({item for items in shown.values() for item in items}, pa.string())
    some = given.items.filter(pc.is_in(ids, value_set=wanted))
    keys = some[scenario.item_key].cast(pa.string()).to_pylist()
    return shown, dict(zip(keys, map(str, some[scenario.title].to_pylist()), strict=True))


def _names(project: DeclaredProject, texts: dict[_Slot, str]) -> dict[_Slot, str]:
    """Names made unique within a channel."""
    scenario = project.declared.scenario
    ignore = [scenario.item, scenario.user, scenario.action, *project.known_factors()]
    names: dict[_Slot, str] = {}
    for kind in KINDS:
        for channel in sorted({slot[1] for slot in texts if slot[0] == kind}):
            slots = [slot for slot in texts if slot[:2] == (kind, channel)]
            made = group_titles([texts[slot] for slot in slots], ignore=ignore)
            names |= dict(zip(slots, made, strict=True))
    return names


def _summary(about: About) -> GroupSummary:
    return GroupSummary(
        group=about.group,
        of=name_of(about.kind, about.channel),
        size=about.size,
        name=about.name,
        items=about.shown,
        knowledge=about.knowledge,
    )


def _explained(project: DeclaredProject, found: list[About], of: str, kind: Kind) -> GroupsResult:
    members = state(project).members
    mine = members.filter((pc.field("kind") == kind) & (pc.field("owner") == of))
    if mine.num_rows == 0:
        hint = "--kind item looks among items" if kind == "user" else "see `reki groups`"
        raise ClusterError(f"the {kind} is in a group", detail=f"{of} is in none", hint=hint)
    by_slot: dict[_Slot, About] = {(one.kind, one.channel, one.group): one for one in found}
    own_groups = [by_slot[row["kind"], row["channel"], row["group"]] for row in mine.to_pylist()]
    paths = [
        _path(clusters, of, kind, channel, by_slot)
        for channel in CHANNELS[kind]
        if (clusters := load(project, kind, channel)) is not None and clusters.point(of) is not None
    ]
    notes = [] if paths else ["its groups were imported: there is no tree to show a path in"]
    return GroupsResult(
        project=project.name,
        total=len(found),
        entity=f"{kind} {of}",
        groups=[_summary(one) for one in own_groups],
        paths=paths,
        notes=notes,
    )


def _path(
    clusters: ClusterState, of: str, kind: Kind, channel: str, by_slot: dict[_Slot, About]
) -> GroupPath:
    """From the root to the leaf: how many are under each node, of which groups, mostly of which."""
    from reki_feast.clustering import leaf_order, path

    tree = clusters.tree.tree_
    points, start = leaf_order(tree)
    point = clusters.point(of)
    assert point is not None
    rows = []
    for step, node in enumerate(path(tree, point)):
        below = points[start[node] : start[node] + tree.nodes["size"][node]]
        labels = clusters.labels[below[clusters.live[below]]]
        (most, count), *others = Counter(labels.tolist()).most_common()
        group = group_id(most, kind, channel)
        about = by_slot.get((kind, channel, group))
        share = round(count / len(labels), 2)
        name = about.name if about else ""
        rows.append(PathNode(step, len(labels), 1 + len(others), group, share, name))
    return GroupPath(name_of(kind, channel), rows)
