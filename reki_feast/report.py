"""What a command has to say: tables, notes, the next commands. Printing is somebody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from reki_feast.errors import RekiError

#: Characters of a text in a table, at most.
_CELL = 160
#: Called with how much is done and how much there is in all.
Bar = Callable[[int, int], None]


@dataclass(frozen=True)
class Table:
    """Rows under column names; every row has one value a column."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Report:
    """The outcome of a command.

    Attributes:
        title: one line.
        tables: what was measured or found.
        notes: sentences the user should read.
        next: commands that make sense now.
        failed: how many parts of the work failed; the exit code is 1 if any did.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    failed: int = 0

    def plain(self) -> dict[str, Any]:
        """The report as JSON-able data; a table is a list of objects."""
        tables = {
            table.title: [
                {name: _plain(value) for name, value in zip(table.columns, row, strict=True)}
                for row in table.rows
            ]
            for table in self.tables
        }
        rest = {"notes": self.notes, "next": self.next, "failed": self.failed}
        return {"title": self.title, "tables": tables, **rest}


def merged(title: str, reports: Sequence[Report]) -> Report:
    """Several reports as one; the last one's next commands stand."""
    return Report(
        title,
        tables=[table for report in reports for table in report.tables],
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
        next=reports[-1].next if reports else [],
        failed=sum(report.failed for report in reports),
    )


def shortened(text: str) -> str:
    """A text as one line, and no longer than a cell of a table.

    >>> shortened(" A long   text"), len(shortened("word " * 100))
    ('A long text', 160)
    """
    line = " ".join(text.split())
    return line if len(line) <= _CELL else line[: _CELL - 1] + "…"


@contextlib.contextmanager
def told_on_failure(done: Callable[[], Report | None]) -> Iterator[None]:
    """Have an error that is raised meanwhile bear the report of what was done before it.

    Args:
        done: makes that report when it is wanted; None where nothing was done.
    """
    try:
        yield
    except RekiError as error:
        parts = [part for part in (done(), error.done) if part is not None]
        error.done = merged(parts[0].title, parts) if parts else None
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


class Progress(Protocol):
    """Shows how far a long step is."""

    def bar(self, label: str) -> AbstractContextManager[Bar]:
        """A bar that lives as long as the step."""
        ...


class Silent:
    """Progress for programs and tests: shows nothing."""

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Bar]:  # noqa: ARG002
        """A bar that shows nothing."""
        yield lambda done, total: None
