"""What the parts of one command share: the project, its tables, and what is stored, read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self, TypedDict, get_args

from reki_feast.declare import Declarations
from reki_feast.errors import DeclarationError
from reki_feast.extras import require
from reki_feast.knowledge import Templates, Wording
from reki_feast.project import DeclaredProject
from reki_feast.results import Result
from reki_feast.schema import Key, Kind
from reki_feast.tables import inputs
from reki_feast.tables.digests import digest_of, digest_of_tables
from reki_feast.tables.inputs import Inputs
from reki_feast.tables.lake import Lake
from reki_feast.tables.user_digests import UserDigests
from reki_feast.telemetry import Listener, Listeners
from reki_feast.views.spaces import VectorSpace

if TYPE_CHECKING:
    from reki_feast.distributed.engine import RayEngine


#: Where calls are made, and texts encoded.
EngineName = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


class PromptStyle(TypedDict):
    """How texts are written, as arguments of the functions that write them."""

    wording: Wording
    templates: Templates


#: What a stage returns the next time for some snapshots, if nothing changes; None: not known.
NextResult = Callable[[Sequence[datetime]], Result | None]


@dataclass(frozen=True)
class Foreseen:
    """What a stage that is done returns the next time, if nothing changes.

    Attributes:
        name: of the result's type.
        made: the result, told when the command ends.
        until: when time alone changes it; None: never.
        options: of the stage, as text.
        ledger: digest of the ledger when the stage was done; empty: it does not matter.
    """

    name: str
    made: NextResult
    until: datetime | None
    options: str
    ledger: str


class StageContext(DeclaredProject):
    """A project while one command works on it.

    Each source is queried once, when its table is first used; each stored column is read once, but
    for vectors, which are read where they are due. A long-lived service opens a new one for what it
    does next.
    """

    _whole: StageContext | None = None
    #: What the command does on a Ray cluster; None: it runs on this machine alone.
    engine: RayEngine | None = None
    #: Hears what the command does.
    listener: Listener = Listeners()

    def heard_by(self, listener: Listener) -> Self:
        """The same command, with its events told to a listener."""
        self.__dict__["listener"] = listener
        return self

    @contextmanager
    def on(self, engine: EngineName, address: str | None = None) -> Iterator[Self]:
        """The same command, with its calls and its encoding on an engine.

        Args:
            engine: ``local``: this machine alone; ``ray``: a Ray cluster.
            address: of the cluster, ``host:port`` or ``auto``; None: ``RAY_ADDRESS``, else a
                cluster is started on this machine.

        Raises:
            MissingExtraError: Ray is not installed.
            DeclarationError: there is no such engine, or an address without a cluster.
        """
        if engine not in ENGINES or (address is not None and engine != "ray"):
            rule = "engine is local, or ray, which alone has an address"
            raise DeclarationError(rule, detail=f"{engine} {address or ''}".strip())
        if engine != "ray":
            yield self
            return
        require("ray")
        from reki_feast.distributed.engine import RayEngine

        with closing(RayEngine(address)) as found:
            self.__dict__["engine"] = found
            yield self

    @classmethod
    def of(cls, project: DeclaredProject) -> Self:
        """The context of a command: a new one, or that of the command which runs this one."""
        if isinstance(project, cls):
            return project
        return cls(project.root, project.declared, project.space)

    def in_space(self, space: VectorSpace, declared: Declarations | None = None) -> Self:
        """The same command at work in another space of vectors.

        Args:
            space: the space.
            declared: what the space is made by, where that is no longer what is declared.
        """
        made = type(self)(self.root, declared or self.declared, space)
        made.__dict__.update(
            _whole=self._whole or self,
            lake=self.lake.in_space(space),
            engine=self.engine,
            listener=self.listener,
        )
        return made

    @cached_property
    def lake(self) -> Lake:
        """The scenario's stored tables."""
        return super().lake.cached()

    @cached_property
    def foreseen(self) -> list[Foreseen]:
        """What stages of this command return the next time."""
        return []

    @cached_property
    def tables(self) -> Inputs:
        """The user's tables, checked.

        Raises:
            SourceError: with the faults of all tables together.
        """
        if self._whole is not None:
            return self._whole.tables
        return inputs.read(self.declared, self.root)

    @cached_property
    def tables_digest(self) -> str:
        """Of every value of the user's tables, and of what was mended in them."""
        found = self.tables
        values = digest_of_tables([found.items, found.users, found.interactions])
        return digest_of([found.user, found.item, values, *found.notices])

    @cached_property
    def user_digests(self) -> UserDigests:
        """Of all that the user's tables tell of each user."""
        if self._whole is not None:
            return self._whole.user_digests
        return UserDigests(self.tables, self.declared.scenario.history)

    def key(self, kind: Kind) -> Key:
        """The join key of users, or of items."""
        return self.tables.user if kind == "user" else self.tables.item

    def prompt_style(self, factors: tuple[str, ...] = ()) -> PromptStyle:
        """How prompts and texts about these factors are written."""
        return {"wording": self.wording(factors), "templates": self.templates}
