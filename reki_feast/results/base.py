"""What the results of all commands share: figures as fields, shown as tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from reki_feast.report import Report, Table


class TableRow:
    """Base of the frozen dataclasses that are a row of a table, a field a column.

    Attributes:
        heads: names of columns that are not shown under their field's name.
    """

    heads: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns as they are shown."""
        return tuple(cls.heads.get(name, name) for name in _fields(cls))

    def cells(self) -> list[tuple[Any, ...]]:
        """The values as they are shown, in one or more lines."""
        return [tuple(getattr(self, name) for name in _fields(type(self)))]


def _fields(row: type[TableRow]) -> list[str]:
    return [one.name for one in fields(row)]  # type: ignore[arg-type]  # its subclasses are


@dataclass(frozen=True)
class TableField:
    """A field of a :class:`Result` that is shown as a table.

    Attributes:
        name: of the field: a list of rows, or one row; None is not shown.
        title: of the table.
        row: type of the rows.
        optional: whether a table without rows is left out.
    """

    name: str
    title: str
    row: type[TableRow]
    optional: bool = False


def table_of(title: str, row: type[TableRow], rows: list[Any]) -> Table:
    """Rows as a table.

    Args:
        title: of the table.
        row: type of the rows.
        rows: the rows.

    Returns:
        The table as a terminal shows it.
    """
    return Table(title, row.columns(), [cells for one in rows for cells in one.cells()])


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command returns.

    ``print(result)`` shows it as the terminal does, without colours; so does a notebook.

    Attributes:
        project: name of the scenario.
        notes: sentences the user should read.
        next: commands to run next.
        failed: number of parts of the work that failed.
        table_fields: fields that are shown as tables, in this order.
    """

    table_fields: ClassVar[tuple[TableField, ...]] = ()

    project: str
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    failed: int = 0

    @property
    def title(self) -> str:
        """The outcome in one line."""
        raise NotImplementedError

    def unchanged(self, times: Sequence[datetime], notices: Sequence[str]) -> Self | None:  # noqa: ARG002
        """What the command would return the next time, if nothing changed.

        Args:
            times: the snapshots that it would look at.
            notices: what it would say of the user's tables.

        Returns:
            That result; None where it does not follow from this one.
        """
        return None

    @property
    def tables(self) -> list[Table]:
        """The figures as a terminal shows them."""
        found = []
        for one in self.table_fields:
            value = getattr(self, one.name)
            rows = value if isinstance(value, list) else [value]
            if value is not None and (rows or not one.optional):
                found.append(table_of(one.title, one.row, rows))
        return found

    def report(self) -> Report:
        """The form that the command line shows and that ``--json`` prints."""
        return Report(self.title, self.tables, self.notes, self.next, self.failed)

    def plain(self) -> dict[str, Any]:
        """What ``--json`` prints: tables by title, with the columns of the terminal."""
        return self.report().plain()

    def to_dict(self) -> dict[str, Any]:
        """The fields as data for JSON; times as ISO 8601, paths as text."""
        found: dict[str, Any] = _plain(self)
        return found

    def __str__(self) -> str:
        from reki_feast import rendering

        return rendering.plain_text(self.report())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
