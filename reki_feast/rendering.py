"""Reports on a terminal: tables on standard output, progress and warnings on standard error."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich import box
from rich import progress as bars
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reki_feast.escaping import visible
from reki_feast.report import Bar, Report, Table
from reki_feast.telemetry.heartbeat import EVERY, Heartbeat
from reki_feast.telemetry.pace import PaceMeter

#: Width of the output where there is no terminal, such as in a log.
WIDTH = 110


def report(found: Report, console: Console | None = None) -> None:
    """Print a report: title, tables, notes, next commands."""
    console = console or out()
    console.print(_text(found.title, "bold"))
    for table in found.tables:
        console.print(rendered(table))
    for note in found.notes:
        console.print(Text.assemble(("note", "yellow"), "  ", _text(note)))
    if found.next:
        console.print(_text("next", "bold"))
        for command in found.next:
            console.print(_text(f"  {command}"), soft_wrap=True)


def plain_text(found: Report) -> str:
    """A report as it is printed, without colours."""
    written = io.StringIO()
    report(found, Console(file=written, width=WIDTH, highlight=False, no_color=True))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).rstrip()


def heading(name: str) -> None:
    """Print a rule with a name."""
    out().rule(_text(name, "bold"), align="left")


def aside(text: str) -> None:
    """Print a line in dim letters."""
    out().print(_text(text, "dim"))


def out() -> Console:
    """Standard output; a fixed width where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def rendered(table: Table) -> RichTable:
    """A table as rich draws it, with numbers aligned to the right."""
    made = RichTable(title=_text(table.title), title_justify="left", box=box.SIMPLE_HEAD)
    for at, name in enumerate(table.columns):
        numeric = all(isinstance(row[at], int | float | None) for row in table.rows)
        made.add_column(_text(name), justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*(_text(text(value)) for value in row))
    return made


def text(value: Any) -> str:
    """A value as a person reads it.

    >>> text(1234567), text(0.81234), text(None), text(True), text(2.5e-05)
    ('1,234,567', '0.8123', '', 'yes', '2.5e-05')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return str(value)


def _text(value: str, style: str = "") -> Text:
    """A text without effects: neither brackets nor control characters in it do anything."""
    return Text(visible(value), style)


class _Speed(bars.ProgressColumn):
    """How many a second."""

    def render(self, task: bars.Task) -> Text:
        """The speed of late; nothing before it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.{0 if speed >= 10 else 1}f}/s")


def told(line: str) -> None:
    """Write a line to standard error, at once."""
    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()


class ProgressBars:
    """Bars on standard error; a line now and then where that is no terminal.

    Args:
        visible: whether there are any.
        lines: whether lines stand for bars that cannot be drawn.
        every: seconds between two lines.
    """

    def __init__(self, *, visible: bool = True, lines: bool = True, every: float = EVERY) -> None:
        self._console = Console(stderr=True)
        self.drawn = visible and self._console.is_terminal
        self._is_told = visible and lines and not self.drawn
        self._every = every

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Bar]:
        """Open a bar with counts, speed and the time left; it disappears when its step ends."""
        if self._is_told:
            meter = PaceMeter(label)
            with Heartbeat(lambda: told(str(meter.pace())), self._every):
                yield meter.update
            return
        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            _Speed(),
            bars.TimeRemainingColumn(),
        )
        drawn = bars.Progress(
            *columns, console=self._console, transient=True, disable=not self.drawn
        )
        with drawn:
            task = drawn.add_task(visible(label), total=None)
            yield lambda done, total: drawn.update(task, completed=done, total=total)
