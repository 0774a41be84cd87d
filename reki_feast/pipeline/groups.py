"""Groups explained: what each is about, and the way from the root of the tree to one entity."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract
from reki_feast import inputs as sources
from reki_feast.errors import ClusterError
from reki_feast.pipeline.group_state import CHANNELS, Held, group_id, load, name_of
from reki_feast.pipeline.stored import groups_of, state
from reki_feast.project import Project
from reki_feast.report import Report, Table
from reki_feast.schema import KINDS, Kind

#: A group: kind, channel, id.
_Slot = tuple[str, str, str]

#: Titles shown of a group, and characters of its knowledge.
_TITLES, _LINE = 3, 160


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
    project: Project, *, of: str | None = None, kind: Kind | None = None, limit: int | None = None
) -> Report:
    """List groups, the largest first; or tell how one entity came into its own.

    Args:
        project: whose groups.
        of: id of a user (of an item with ``kind="item"``): its groups and its way down the tree.
        kind: only groups of this kind.
        limit: at most so many groups.

    Raises:
        ClusterError: no groups are formed, or the entity is in none.
    """
    found = _about(project)
    if not found:
        rule = "groups are formed before they are explained"
        mend = "declare Collective(kind=…), then `reki plan`; or import knowledge of groups"
        raise ClusterError(rule, found="no groups are stored", mend=mend)
    if of is not None:
        return _explained(project, found, of, kind or "user")
    chosen = [one for one in found if kind in (None, one.kind)]
    rows = [
        (
            one.group,
            name_of(one.kind, one.channel),
            one.size,
            one.name,
            " / ".join(one.shown[:_TITLES]),
            _line(one.knowledge),
        )
        for one in chosen[:limit]
    ]
    left = len(chosen) - len(rows)
    columns = ("group", "of", "size", "name", "items", "knowledge")
    return Report(
        f"{project.name}: {len(chosen):,} groups",
        tables=[Table("groups", columns, rows)],
        notes=[f"{left:,} more; --limit {len(chosen)} shows all"] if left else [],
        next=["reki groups --of USER"],
    )


def _about(project: Project) -> list[About]:
    """All groups that have members, by kind and channel, the largest first."""
    held = state(project)
    sizes = held.members.group_by(["kind", "channel", "group"], use_threads=False)
    counts = sizes.aggregate([("owner", "count")]).to_pylist()
    texts = _texts(held.knowledge)
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


def _shown(project: Project) -> tuple[dict[_Slot, list[str]], dict[str, str]]:
    """Ids of items by group, and the titles of those items."""
    rows = groups_of(project).select(["kind", "channel", "group", "shown"]).to_pylist()
    shown = {(r["kind"], r["channel"], r["group"]): r["shown"] for r in rows}
    given, said = sources.read(project.declared, project.root), project.declared.scenario
    ids = given.items[said.item_key].cast(pa.string())
    wanted = pa.array({item for items in shown.values() for item in items}, pa.string())
    some = given.items.filter(pc.is_in(ids, value_set=wanted))
    keys = some[said.item_key].cast(pa.string()).to_pylist()
    return shown, dict(zip(keys, map(str, some[said.title].to_pylist()), strict=True))


def _names(project: Project, texts: dict[_Slot, str]) -> dict[_Slot, str]:
    """Names told apart within a channel."""
    said = project.declared.scenario
    ignore = [said.item, said.user, said.action, *project.known_factors()]
    names: dict[_Slot, str] = {}
    for kind in KINDS:
        for channel in sorted({slot[1] for slot in texts if slot[0] == kind}):
            slots = [slot for slot in texts if slot[:2] == (kind, channel)]
            made = extract.group_titles([texts[slot] for slot in slots], ignore=ignore)
            names |= dict(zip(slots, made, strict=True))
    return names


def _line(text: str) -> str:
    """The first line that says something: free answers begin with a heading."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    one = next((line for line in lines if not line.endswith(":")), "".join(lines[:1]))
    return one if len(one) <= _LINE else one[: _LINE - 1].rstrip() + "…"


def _explained(project: Project, found: list[About], of: str, kind: Kind) -> Report:
    members = state(project).members
    mine = members.filter((pc.field("kind") == kind) & (pc.field("owner") == of))
    if mine.num_rows == 0:
        mend = "--kind item looks among items" if kind == "user" else "see `reki groups`"
        raise ClusterError(f"the {kind} is in a group", found=f"{of} is in none", mend=mend)
    by_slot: dict[_Slot, About] = {(one.kind, one.channel, one.group): one for one in found}
    places = [by_slot[row["kind"], row["channel"], row["group"]] for row in mine.to_pylist()]
    rows = [
        (
            name_of(one.kind, one.channel),
            one.group,
            one.size,
            one.name,
            " / ".join(one.shown[:_TITLES]),
            _line(one.knowledge),
        )
        for one in places
    ]
    columns = ("of", "group", "size", "name", "items", "knowledge")
    paths = [
        _path_table(held, of, kind, channel, by_slot)
        for channel in CHANNELS[kind]
        if (held := load(project, kind, channel)) is not None and held.point(of) is not None
    ]
    notes = [] if paths else ["its groups were imported: there is no tree to show a path in"]
    return Report(
        f"{project.name}: {kind} {of}", tables=[Table("groups", columns, rows), *paths], notes=notes
    )


def _path_table(
    held: Held, of: str, kind: Kind, channel: str, by_slot: dict[_Slot, About]
) -> Table:
    """From the root to the leaf: how many are under each node, of which groups, mostly of which."""
    from reki_feast.cluster import leaf_order, path

    tree = held.tree.tree_
    points, start = leaf_order(tree)
    point = held.point(of)
    assert point is not None
    rows = []
    for step, node in enumerate(path(tree, point)):
        below = points[start[node] : start[node] + tree.nodes["size"][node]]
        labels = held.labels[below[held.live[below]]]
        (most, count), *others = Counter(labels.tolist()).most_common()
        group = group_id(most, kind, channel)
        about = by_slot.get((kind, channel, group))
        share = round(count / len(labels), 2)
        rows.append((step, len(labels), 1 + len(others), group, share, about.name if about else ""))
    columns = ("step", "members", "groups", "mostly", "share", "name")
    return Table(f"path of {kind} {of} through {name_of(kind, channel)}", columns, rows)
