"""Results of imports and of the list of groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from reki_feast.report import Table, first_line
from reki_feast.results.base import Result, TableField, TableRow, table_of
from reki_feast.results.quality import FailedText, ImportedGateCount


@dataclass(frozen=True)
class ImportedTexts(TableRow):
    """Texts of one kind and channel in the files of an import.

    Attributes:
        kind: ``user`` or ``item``.
        channel: channel of the knowledge.
        texts: texts that passed the gates.
        quarantined: texts that failed a gate.
        members: memberships in groups.
    """

    kind: str
    channel: str
    texts: int
    quarantined: int
    members: int


@dataclass(frozen=True, kw_only=True)
class ImportResult(Result):
    """What `reki import-knowledge` took.

    Attributes:
        texts: texts that are new.
        memberships: memberships in groups that are new.
        imported: all texts of the files, by kind and channel.
        imported_gates: gates that some texts failed, the commonest first.
        imported_examples: some texts that failed a gate.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("imported", "imported", ImportedTexts),
        TableField("imported_gates", "imported gates", ImportedGateCount, optional=True),
        TableField("imported_examples", "imported examples", FailedText, optional=True),
    )

    texts: int
    memberships: int
    imported: list[ImportedTexts] = field(default_factory=list)
    imported_gates: list[ImportedGateCount] = field(default_factory=list)
    imported_examples: list[FailedText] = field(default_factory=list)

    @property
    def quarantined(self) -> int:
        """Texts that failed a gate."""
        return sum(one.quarantined for one in self.imported)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        found = f"{self.project}: {self.texts:,} texts and {self.memberships:,} memberships are new"
        return found + (f", {self.quarantined:,} texts are quarantined" if self.quarantined else "")


@dataclass(frozen=True)
class GroupSummary(TableRow):
    """One group.

    Attributes:
        group: its id.
        of: kind and channel.
        size: number of members.
        name: derived from its knowledge; empty before it has any.
        items: titles of the items it is shown by.
        knowledge: its text.
    """

    group: str
    of: str
    size: int
    name: str
    items: list[str]
    knowledge: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        items, knowledge = " / ".join(self.items[:3]), first_line(self.knowledge)
        return [(self.group, self.of, self.size, self.name, items, knowledge)]


@dataclass(frozen=True)
class PathNode(TableRow):
    """A node of the tree on the way to one entity.

    Attributes:
        step: depth, 0 for the root.
        members: members below it.
        groups: groups they are in.
        mostly: the largest of these groups.
        share: its share of the members, 0 to 1.
        name: its name.
    """

    step: int
    members: int
    groups: int
    mostly: str
    share: float
    name: str


@dataclass(frozen=True)
class GroupPath:
    """The way from the root of a channel's tree to one entity.

    Attributes:
        of: kind and channel of the tree.
        nodes: from the root to the leaf.
    """

    of: str
    nodes: list[PathNode]


@dataclass(frozen=True, kw_only=True)
class GroupsResult(Result):
    """Groups of a project, or those of one entity.

    Attributes:
        total: number of groups, shown or not.
        entity: kind and id of the entity; empty for all groups.
        groups: the groups, the largest first.
        paths: how the entity came into its groups.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (TableField("groups", "groups", GroupSummary),)

    total: int
    entity: str = ""
    groups: list[GroupSummary] = field(default_factory=list)
    paths: list[GroupPath] = field(default_factory=list)

    @property
    def tables(self) -> list[Table]:
        """The figures as a terminal shows them."""
        titles = [f"path of {self.entity} through {path.of}" for path in self.paths]
        paths = zip(titles, self.paths, strict=True)
        return [
            *super().tables,
            *(table_of(title, PathNode, path.nodes) for title, path in paths),
        ]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: {self.entity or f'{self.total:,} groups'}"
