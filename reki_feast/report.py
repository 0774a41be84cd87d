"""The form in which a command is shown: a title, tables, notes and the next commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from reki_feast.errors import RekiError

#: Maximum number of characters of a text in a table.
_CELL = 160
#: Called with the number of finished units and the total.
Bar = Callable[[int, int], None]
#: Called with the name of a step, the number of finished units and the total.
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Table:
    """Rows under column names; every row has one value a column."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Report:
    """What a command shows.

    Attributes:
        title: one line.
        tables: figures and rows.
        notes: sentences the user should read.
        next: commands to run next.
        failed: number of parts of the work that failed; the exit code is 1 if any did.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    failed: int = 0

    def plain(self) -> dict[str, Any]:
        """The report as data for JSON; a table is a list of objects."""
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
    """Several reports as one, with the next commands of the last one."""
    return Report(
        title,
        tables=[table for report in reports for table in report.tables],
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
        next=reports[-1].next if reports else [],
        failed=sum(report.failed for report in reports),
    )


def shortened(text: str) -> str:
    """A text as one line, cut to a cell of a table.

    >>> shortened(" A long   text"), len(shortened("word " * 100))
    ('A long text', 160)
    """
    line = " ".join(text.split())
    return line if len(line) <= _CELL else line[: _CELL - 1] + "…"


def first_line(text: str) -> str:
    """The first line of a text that is not a heading, cut to a cell of a table.

    >>> first_line("Taste:\\n quiet films\\n slow films")
    'quiet films'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if not line.endswith(":")), "".join(lines[:1]))
    return line if len(line) <= _CELL else line[: _CELL - 1].rstrip() + "…"


@contextlib.contextmanager
def attach_report(done: Callable[[], Report | None]) -> Iterator[None]:
    """Attach a report of the finished part of the work to an error that is raised inside.

    Args:
        done: makes that report when it is needed; None where nothing was finished.
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
        """Open a bar for one step; it is closed with the context."""
        ...


class Silent:
    """Progress that shows nothing."""

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Bar]:  # noqa: ARG002
        """Open a bar that shows nothing."""
        yield lambda done, total: None


@dataclass(frozen=True)
class CallbackProgress:
    """Progress that calls a function.

    >>> with CallbackProgress(print).bar("encoding") as bar:
    ...     bar(64, 1_800)
    encoding 64 1800
    """

    callback: ProgressCallback

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Bar]:
        """Open a bar that passes each update on, with its label."""
        yield lambda done, total: self.callback(label, done, total)
