"""What the commands on spaces of vectors return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from reki_feast.results.base import Result, TableField, TableRow
from reki_feast.results.pipeline import MaterializedView


@dataclass(frozen=True)
class SpaceSummary(TableRow):
    """One living space of vectors.

    Attributes:
        space: its version, as Feast names it in ``reki@v1``.
        id: tells it from every other space of that number.
        state: ``in service``, ``staged``, ``published`` before and no longer in service, or
            ``not trained`` yet.
        since: when it was put in service, or made; ISO 8601, empty where nobody noted it.
        encoder: name of the encoder.
        auc: on held-out users, with its vectors; None where it was not measured.
        compatible: the space whose models can read its vectors; empty for none.
        offline: rows of its augmented vectors in the tables.
        online: rows of them online; None where they cannot be counted.
        readers: feature services of the project's Feast repo that read it.
    """

    heads: ClassVar[Mapping[str, str]] = {
        "auc": "AUC",
        "compatible": "compatible with",
        "offline": "rows offline",
        "online": "rows online",
        "readers": "read by",
    }

    space: str
    id: str
    state: str
    since: str
    encoder: str
    auc: float | None
    compatible: str
    offline: int
    online: int | None
    readers: tuple[str, ...]

    def cells(self) -> list[tuple[object, ...]]:
        """The values as they are shown."""
        return [
            (
                self.space,
                self.id,
                self.state,
                self.since[:10],
                self.encoder,
                "" if self.auc is None else f"{self.auc:.4f}",
                self.compatible,
                self.offline,
                "" if self.online is None else self.online,
                ", ".join(self.readers),
            )
        ]


@dataclass(frozen=True, kw_only=True)
class SpacesResult(Result):
    """The living spaces of vectors.

    Attributes:
        spaces: by number.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (TableField("spaces", "spaces", SpaceSummary),)

    spaces: list[SpaceSummary] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        current = [one.space for one in self.spaces if one.state == "in service"]
        return f"{self.project}: {', '.join(current) or 'no space'} in service"


@dataclass(frozen=True, kw_only=True)
class PromoteResult(Result):
    """Which space of vectors is in service now.

    Attributes:
        space: its version.
        before: the version of the space that was in service before; the same where it stayed.
        compatible: whether models that learnt from the space before can read it.
        online: the online store's views, where the project has a Feast repo.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("online", "online store", MaterializedView, optional=True),
    )

    space: str
    before: str
    compatible: bool
    online: list[MaterializedView] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        if self.space == self.before:
            return f"{self.project}: {self.space} stays in service"
        return f"{self.project}: {self.space} is in service, in place of {self.before}"


@dataclass(frozen=True, kw_only=True)
class RetireResult(Result):
    """What was removed of a space of vectors.

    Attributes:
        space: its version.
        offline: rows of augmented vectors that were removed from the tables.
        online: rows that were removed from the online store.
    """

    space: str
    offline: int
    online: int

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return (
            f"{self.project}: {self.space} is retired: {self.offline:,} rows of vectors removed "
            f"offline, {self.online:,} rows online"
        )
