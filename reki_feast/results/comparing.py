"""What `reki diff` returns: two snapshots of vectors beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from reki_feast.results.base import Result, TableField, TableRow


@dataclass(frozen=True)
class ComparedRows(TableRow):
    """Augmented vectors of one kind as of two times.

    Attributes:
        kind: ``user`` or ``item``.
        before: rows as of the first time.
        after: rows as of the second.
        new: rows that the first time lacks.
        changed: rows that are others than as of the first time.
        moved: changed rows whose entity is in another group.
        drift: mean of 1 minus the cosine over all rows of both times; None without any.
        farthest: the largest of these; None where nothing changed.
    """

    heads: ClassVar[Mapping[str, str]] = {
        "moved": "moved group",
        "drift": "mean drift",
        "farthest": "largest drift",
    }

    kind: str
    before: int
    after: int
    new: int
    changed: int
    moved: int
    drift: float | None
    farthest: float | None


@dataclass(frozen=True)
class ChangedBy(TableRow):
    """How many rows one reason changed; a row may have several.

    Attributes:
        kind: ``user`` or ``item``.
        by: ``group``, ``factors``, ``prompt`` (template, words, profile; of a group the items it is
            shown by), ``history``, ``model``, ``answer`` (another to the same prompt), or
            ``weights`` (of another block of time).
        rows: how many.
    """

    kind: str
    by: str
    rows: int


@dataclass(frozen=True)
class ChangedRow(TableRow):
    """A row that changed.

    Attributes:
        kind: ``user`` or ``item``.
        id: as text.
        drift: 1 minus the cosine of the two vectors.
        by: what changed it, as :class:`ChangedBy` names it.
        group: its groups as of the first time; empty without.
        then: its groups as of the second.
    """

    heads: ClassVar[Mapping[str, str]] = {"by": "changed by", "then": "group then"}

    kind: str
    id: str
    drift: float
    by: tuple[str, ...]
    group: str
    then: str

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        by = ", ".join(self.by)
        return [(self.kind, self.id, f"{self.drift:.4f}", by, self.group, self.then)]


@dataclass(frozen=True, kw_only=True)
class DiffResult(Result):
    """Two snapshots of the vectors of the space in service.

    Attributes:
        before: the first time.
        after: the second.
        space: of the vectors; those of two spaces cannot be compared.
        rows: counts by kind.
        reasons: by kind, what changed how many rows.
        changed: rows that changed, those of the largest drift first.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("rows", "vectors", ComparedRows),
        TableField("reasons", "changed by", ChangedBy, optional=True),
        TableField("changed", "changed rows", ChangedRow, optional=True),
    )

    before: datetime
    after: datetime
    space: str
    rows: list[ComparedRows] = field(default_factory=list)
    reasons: list[ChangedBy] = field(default_factory=list)
    changed: list[ChangedRow] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        new, changed = sum(x.new for x in self.rows), sum(x.changed for x in self.rows)
        span = f"{self.before:%Y-%m-%d %H:%M} to {self.after:%Y-%m-%d %H:%M}"
        return f"{self.project}, space {self.space}, {span}: {new:,} new, {changed:,} changed"
