"""Checks of imported tables: ids, uniqueness, texts; all problems are collected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import KnowledgeError, Problem
from reki_feast.stores.exact import largest_inexact

_SHOWN = 5


@dataclass
class ProblemList:
    """Problems found so far; raised together."""

    found: list[Problem] = field(default_factory=list)

    def add(self, rule: str, found: str, hint: str) -> None:
        """Note a broken rule."""
        self.found.append(Problem(rule, found, hint))

    def raise_if_any(self) -> None:
        """Raise all that was noted.

        Raises:
            KnowledgeError: something was.
        """
        if self.found:
            raise KnowledgeError(self.found)


def ids_of(
    table: pa.Table, name: str, what: str, faults: ProblemList, hint: str = "drop or mend the rows"
) -> list[str | None]:
    """A column of ids as text; a fault for what is no id."""
    if name not in table.column_names:
        found = f"columns {', '.join(table.column_names)}"
        faults.add(f"{what} has the column {name}", found, "rename or add the column")
        return []
    column = table[name]
    if pa.types.is_floating(column.type):  # whole numbers with gaps, as pandas stores them
        column = pc.if_else(pc.is_finite(column), column, None)
        whole = pc.round(column)
        if pc.any(pc.not_equal(column, whole)).as_py():
            faults.add(f"{what}: {name} is a whole number or a text", "fractions", hint)
            return [None] * table.num_rows
        if (largest := largest_inexact(column)) is not None:
            whole_ids = "keep it a whole number from its source on, as Int64 in pandas"
            found = f"floats up to {largest:.0f}, of digits that a float does not keep"
            faults.add(f"{what}: {name} is a whole number or a text", found, whole_ids)
            return [None] * table.num_rows
        column = whole.cast(pa.int64())
    elif not (pa.types.is_integer(column.type) or _is_text(column.type)):
        faults.add(f"{what}: {name} is a whole number or a text", str(column.type), "cast it")
        return [None] * table.num_rows
    if column.null_count:
        found = f"{column.null_count} of {table.num_rows} rows are null or NaN"
        faults.add(f"{what}: {name} has a value in every row", found, hint)
    return cast("list[str | None]", column.cast(pa.string()).to_pylist())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def check_unique(ids: Iterable[str | None], what: str, faults: ProblemList) -> None:
    """Note ids that occur more than once."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for one in ids:
        if one is not None and one in seen:
            twice[one] = None
        elif one is not None:
            seen.add(one)
    if twice:
        found = f"{len(twice)} occur twice or more: {first_few(list(twice))}"
        faults.add(f"{what} is unique", found, "drop the rows too many")


def texts_of(table: pa.Table, name: str) -> list[str | None]:
    """A column as texts; nulls where the table lacks it."""
    if name not in table.column_names:
        return [None] * table.num_rows
    return [None if value is None else str(value) for value in table[name].to_pylist()]


def first_few(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
