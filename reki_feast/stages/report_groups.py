"""Groups as a tree that a page can open box by box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from reki_feast.results import GroupNode
from reki_feast.schema import KINDS, KNOWLEDGE_CHANNELS, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_state import CHANNELS, ClusterState, group_id, load, name_of
from reki_feast.stages.groups import About, described_groups

#: Groups of a channel that have a box, and those that have a name.
_MOST, _NAMED = 10_000, 2_000
#: Boxes that a page shows at a time.
_BOXES = 16
#: Groups, the largest ones, whose texts the page has, and characters of each.
_TOLD, _TEXT = 200, 800
_TITLES = 6
#: Before the name of the largest of several groups.
_MOSTLY = "mostly "

Ints = npt.NDArray[np.int64]


def group_trees(
    context: StageContext, *, anonymous: bool
) -> tuple[Mapping[str, GroupNode], Mapping[str, About]]:
    """The groups of each kind and channel: as a tree, and each by its id.

    Args:
        context: the command's.
        anonymous: whether names, texts and ids are left out.

    Raises:
        LakeError: what is stored of groups is damaged.
        SourceError: the catalogue, which has the titles, cannot be read.
    """
    if not context.lake.parts("members"):
        return {}, {}
    found = described_groups(context)
    trees = {}
    for kind in KINDS:
        there = {one.channel for one in found if one.kind == kind}
        for channel in (one for one in KNOWLEDGE_CHANNELS if one in there):
            some = [one for one in found if (one.kind, one.channel) == (kind, channel)]
            leaves = list(_leaves(some, anonymous=anonymous))
            trees[name_of(kind, channel)] = _tree(context, kind, channel, some, leaves)
    return trees, {one.group: one for one in found}


def _leaves(groups: Sequence[About], *, anonymous: bool) -> Iterator[GroupNode]:
    """A box for each group; the texts of the largest ones."""
    for place, one in enumerate(groups):
        bare = GroupNode(name=f"group {place + 1}", size=one.size, groups=1)
        if anonymous or place >= _NAMED:
            yield bare
            continue
        named = replace(bare, name=one.name or one.group, group=one.group)
        if place < _TOLD:
            named = replace(named, items=one.shown[:_TITLES], knowledge=one.knowledge[:_TEXT])
        yield named


def _tree(
    context: StageContext,
    kind: Kind,
    channel: str,
    groups: Sequence[About],
    leaves: Sequence[GroupNode],
) -> GroupNode:
    """The boxes of one channel: by its cluster tree, or by size where groups were imported."""
    has_tree = channel in CHANNELS[kind] and len(leaves) <= _MOST
    clusters = load(context, kind, channel) if has_tree else None
    if clusters is not None:
        by_id = {one.group: leaf for one, leaf in zip(groups, leaves, strict=True)}
        labels, places = _places(clusters)
        ids = [group_id(int(label), kind, channel) for label in labels]
        there = [n for n, id in enumerate(ids) if id in by_id]
        if len(there) == len(leaves):
            nodes = [by_id[ids[n]] for n in there]
            return _nested(nodes, _Splits(clusters, places[there]), clusters.tree.tree_.root)
    return _by_size(list(leaves))


def _places(clusters: ClusterState) -> tuple[Ints, Ints]:
    """Labels of groups, and where the middle of each lies in the order of the tree's leaves."""
    from reki_feast.clustering import leaf_order

    points, _ = leaf_order(clusters.tree.tree_)
    live = clusters.live[points]
    labels, at = clusters.labels[points][live], np.flatnonzero(live)
    order = np.lexsort((at, labels))
    found, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    middle = at[order][first + count // 2]
    by_place = np.argsort(middle, kind="stable")
    return found[by_place], middle[by_place]


class _Splits:
    """The cluster tree as ranges of groups that lie side by side.

    Args:
        clusters: with the tree.
        places: of the groups, ascending.
    """

    def __init__(self, clusters: ClusterState, places: Ints) -> None:
        from reki_feast.clustering import leaf_order

        self._nodes = clusters.tree.tree_.nodes
        self._places = places
        self._start = leaf_order(clusters.tree.tree_)[1]

    def range(self, node: int) -> tuple[int, int]:
        """The first of the groups below a node, and the one after the last."""
        begin = int(self._start[node])
        ends = [begin, begin + int(self._nodes["size"][node])]
        first, last = np.searchsorted(self._places, ends)
        return int(first), int(last)

    def children(self, node: int) -> list[int]:
        """The nodes below it that have groups."""
        if node % 2 == 0:  # a leaf
            return []
        below = [int(self._nodes[side][node]) for side in ("left", "right")]
        return [one for one in below if len(range(*self.range(one)))]


def _nested(leaves: list[GroupNode], splits: _Splits, root: int) -> GroupNode:
    """A node's groups as few boxes, each split again when it is opened."""
    frontier, done = [root], list[int]()
    while frontier and len(frontier) + len(done) < _BOXES:
        widest = max(frontier, key=lambda node: splits.range(node)[1] - splits.range(node)[0])
        frontier.remove(widest)
        below = splits.children(widest)
        first, last = splits.range(widest)
        if last - first <= 1 or not below:
            done.append(widest)
        else:
            frontier += below
    parts = []
    for node in sorted([*frontier, *done], key=lambda node: splits.range(node)[0]):
        first, last = splits.range(node)
        inner = leaves[first:last]
        if len(inner) == 1:
            parts += inner
        else:
            parts.append(_nested(leaves, splits, node))
    return _joined(parts)


def _by_size(leaves: list[GroupNode]) -> GroupNode:
    """Groups in the order of their sizes, as parts of equal number."""
    if len(leaves) > _MOST:
        rest = replace(_joined(leaves[_MOST:]), name="the smallest groups", parts=[])
        leaves = [*leaves[:_MOST], rest]
    if len(leaves) <= _BOXES:
        return _joined(leaves)
    step = -(-len(leaves) // _BOXES)
    return _joined([_of_size(leaves[n : n + step]) for n in range(0, len(leaves), step)])


def _of_size(leaves: list[GroupNode]) -> GroupNode:
    if len(leaves) == 1:
        return leaves[0]
    found, most, least = _by_size(leaves), leaves[0].size, leaves[-1].size
    span = f"{most:,}" if most == least else f"{least:,} to {most:,}"
    return replace(found, name=f"groups of {span} members")


def _joined(parts: Sequence[GroupNode]) -> GroupNode:
    if len(parts) == 1:
        return parts[0]
    largest = max(parts, key=lambda one: one.size).name
    return GroupNode(
        name=largest if largest.startswith(_MOSTLY) else _MOSTLY + largest,
        size=sum(one.size for one in parts),
        groups=sum(one.groups for one in parts),
        parts=[*parts],
    )
