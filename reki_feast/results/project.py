"""Results of the commands about a project as a whole, and about what it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from reki_feast.errors import Problem
from reki_feast.report import Table
from reki_feast.results.base import Result, TableField, TableRow
from reki_feast.results.ledger import AskingRun, PromptStates, TotalUsage
from reki_feast.results.pipeline import Weights


@dataclass(frozen=True, kw_only=True)
class PushResult(Result):
    """What became of pushed interactions.

    Attributes:
        counted: interactions that were counted in their users' states.
        late: interactions older than their users' states; the next run counts them.
        repeated: interactions that were counted before.
        unknown_items: interactions with items that are not in the items table; left out.
        users: users whose states were written.
        new_users: users among them who had no state.
    """

    counted: int
    late: int
    repeated: int
    unknown_items: int
    users: int
    new_users: int

    @property
    def tables(self) -> list[Table]:
        """The figures as a terminal shows them."""
        rows = [
            ("interactions counted", self.counted),
            ("late, left to the next run", self.late),
            ("known already", self.repeated),
            ("of unknown items, left out", self.unknown_items),
            ("users brought up to date", self.users),
            ("of them new", self.new_users),
        ]
        return [Table("pushed", ("what", "count"), rows)]

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: {self.users} users brought up to date online"


@dataclass(frozen=True)
class RemovedRows(TableRow):
    """What was removed from one place.

    Attributes:
        place: where.
        what: kind of the rows.
        count: how many.
    """

    heads: ClassVar[Mapping[str, str]] = {"place": "from"}

    place: str
    what: str
    count: int


@dataclass(frozen=True, kw_only=True)
class ForgetResult(Result):
    """What `reki forget` removed.

    Attributes:
        users: users of whom something was stored or served.
        items: items of which something was.
        removed: what was removed, by place.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("removed", "removed", RemovedRows, optional=True),
    )

    users: int
    items: int
    removed: list[RemovedRows] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        counts = {"user": self.users, "item": self.items}
        found = [f"{n:,} {kind}{'s' * (n != 1)}" for kind, n in counts.items() if n]
        return f"{self.project}: {' and '.join(found) or 'nobody'} forgotten"


@dataclass(frozen=True)
class StoredTable(TableRow):
    """A table of the project: number of files, rows and megabytes.

    Attributes:
        table: name.
        parts: number of files.
        rows: number of rows.
        megabytes: size of the files.
    """

    heads: ClassVar[Mapping[str, str]] = {"megabytes": "MB"}

    table: str
    parts: int
    rows: int
    megabytes: float


@dataclass(frozen=True)
class OnlineView(TableRow):
    """Rows of a view online, beside the newest rows of its table, for a sample of ids.

    Attributes:
        view: name, with its version where it is not the one in service.
        compared: ids that were looked at.
        equal: rows online that are the newest ones, to the byte.
        missing: ids without a row online.
        older: rows online of an earlier time.
        later: rows online of a later time, as pushed ones are.
        other: rows online of the same time with other values.
    """

    view: str
    compared: int
    equal: int
    missing: int
    older: int
    later: int
    other: int


@dataclass(frozen=True)
class RedisState:
    """The project's embedded Redis.

    Attributes:
        running: whether it answers.
        state: what it does, in words.
        pid: its process; 0 where it does not answer.
        keys: number of keys.
        memory: bytes its data takes.
    """

    running: bool
    state: str
    pid: int = 0
    keys: int = 0
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class StatusResult(Result):
    """What is stored and what is running; ``failed`` counts files that cannot be read.

    Attributes:
        folder: where the tables are.
        stored: the tables that have rows.
        prompts: prompts by state; None without a ledger.
        runs: the latest runs, the newest first; None without a ledger.
        usage: what all runs took; None without a ledger.
        weights: the trained weights; None where there are none, or they cannot be read.
        weights_readable: whether what is stored about them can be read.
        representations: what they are of the encoder's vectors, in words; empty: these themselves.
        redis: the embedded Redis.
        online: the project's views in its Feast repo that were materialized, compared with the
            tables; none where the online store is not running.
        problems: what cannot be read.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("stored", "tables", StoredTable),
        TableField("prompts", "prompts", PromptStates),
        TableField("runs", "runs", AskingRun),
        TableField("online", "online rows, a sample", OnlineView, optional=True),
    )

    folder: Path
    stored: list[StoredTable] = field(default_factory=list)
    prompts: PromptStates | None = None
    runs: list[AskingRun] | None = None
    usage: TotalUsage | None
    weights: Weights | None
    weights_readable: bool
    representations: str = ""
    redis: RedisState
    online: list[OnlineView] = field(default_factory=list)
    problems: list[Problem]

    @property
    def tables(self) -> list[Table]:
        """The figures as a terminal shows them."""
        rows = [("weights", self._weights()), ("embedded Redis", self.redis.state)]
        if self.representations:
            rows.insert(0, ("representations", self.representations))
        return [*super().tables, Table("running", ("what", "state"), rows)]

    def _weights(self) -> str:
        if self.weights is None:
            return "none yet" if self.weights_readable else "cannot be read"
        return f"q = {self.weights.q}, {self.weights.when}, hash {self.weights.hash}"

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return f"{self.project}: {self.folder}"


@dataclass(frozen=True)
class StaleStage(TableRow):
    """Something that is not as it would be after a run.

    Attributes:
        what: a table, a view, or what else.
        found: why it is stale.
        mend: the command that mends it.
    """

    what: str
    found: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class CheckStatusResult(Result):
    """What is stale; ``failed`` counts it, so that a scheduler sees it by the exit code.

    Attributes:
        stale: in the order of the stages; files that cannot be read alone, where there are any.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (
        TableField("stale", "stale", StaleStage, optional=True),
    )

    stale: list[StaleStage] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        count = len(self.stale)
        return f"{self.project}: {f'{count} stale' if count else 'all is up to date'}"


@dataclass(frozen=True, kw_only=True)
class DownResult(Result):
    """Whether the embedded Redis was running and is stopped.

    Attributes:
        stopped: whether it was running.
    """

    stopped: bool

    @property
    def title(self) -> str:
        """The outcome in one line."""
        return "the embedded Redis is stopped" if self.stopped else "no embedded Redis is running"


@dataclass(frozen=True)
class Check(TableRow):
    """One thing that was checked.

    Attributes:
        name: what.
        found: what was found.
        problems: why it will not do; none where it will.
        remarks: what to know although it will do.
    """

    name: str
    found: str
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns as they are shown."""
        return ("check", "state", "found")

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown."""
        return [(self.name, "wrong" if self.problems else "fine", self.found)]


@dataclass(frozen=True, kw_only=True)
class DoctorResult(Result):
    """What `reki doctor` found; ``failed`` counts checks with problems.

    Attributes:
        checks: everything that was checked.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = (TableField("checks", "checks", Check),)

    checks: list[Check] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The outcome in one line."""
        if not self.failed:
            return "everything is fine"
        return f"{self.failed} of {len(self.checks)} checks found faults"
