"""What the parts of one command share: the project, its tables, and what is stored, read once."""

from __future__ import annotations

from functools import cached_property
from typing import Self, TypedDict

from reki_feast.knowledge import Templates, Wording
from reki_feast.project import DeclaredProject
from reki_feast.schema import Key, Kind
from reki_feast.tables import inputs
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.lake import Lake


class PromptStyle(TypedDict):
    """How texts are written, as arguments of the functions that write them."""

    wording: Wording
    templates: Templates


class StageContext(DeclaredProject):
    """A project while one command works on it.

    Each source is queried once, when its table is first used; each stored column is read once, but
    for vectors, which are read where they are due. A long-lived service opens a new one for what it
    does next.
    """

    @classmethod
    def of(cls, project: DeclaredProject) -> Self:
        """The context of a command: a new one, or that of the command which runs this one."""
        return project if isinstance(project, cls) else cls(project.root, project.declared)

    @cached_property
    def lake(self) -> Lake:
        """The scenario's stored tables."""
        return super().lake.cached()

    @cached_property
    def tables(self) -> Inputs:
        """The user's tables, checked.

        Raises:
            SourceError: with the faults of all tables together.
        """
        return inputs.read(self.declared, self.root)

    def key(self, kind: Kind) -> Key:
        """The join key of users, or of items."""
        return self.tables.user if kind == "user" else self.tables.item

    def prompt_style(self, factors: tuple[str, ...] = ()) -> PromptStyle:
        """How prompts and texts about these factors are written."""
        return {"wording": self.wording(factors), "templates": self.templates}
