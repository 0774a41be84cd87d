"""Columns of features that rows are filtered by: numbers, times, and texts by a dictionary."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
from typing_extensions import override

from .exceptions import QueryError

#: Values of rows: numbers, texts or bytes.
Values: TypeAlias = "np.ndarray | Sequence[Any]"
#: What a comparison of a filter does with an ordered value.
ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


class Column(ABC):
    """One feature of all rows; a row without a value matches no comparison, as in SQL."""

    @abstractmethod
    def grow(self, capacity: int) -> None:
        """Make room for so many rows."""

    @abstractmethod
    def put(self, rows: np.ndarray, values: Values, valid: np.ndarray) -> None:
        """Set the values of some rows.

        Args:
            rows: (n,) row numbers.
            values: (n,) values.
            valid: (n,) mask; False: no value.
        """

    @abstractmethod
    def matches(self, kind: str, value: Any, count: int) -> np.ndarray:
        """(count,) mask of the first rows that a comparison holds for.

        Args:
            kind: a key of ``ORDERED``, ``in`` or ``nin``.
            value: what is compared with; for the last two a list.
            count: of rows.

        Raises:
            QueryError: the value is of another kind than the column.
        """


class NumberColumn(Column):
    """Whole numbers, floats and bools; times, as whole numbers of a unit since 1970."""

    def __init__(self, dtype: np.dtype, per_second: int = 0) -> None:
        """Empty.

        Args:
            dtype: of the numbers.
            per_second: of a column of times, how many units a second has; else 0.
        """
        self._values, self._valid = np.zeros(0, dtype), np.zeros(0, np.bool_)
        self._per_second = per_second

    @classmethod
    def of(cls, values: np.ndarray, valid: np.ndarray, per_second: int = 0) -> NumberColumn:
        """A column over arrays, which are not copied."""
        column = cls(values.dtype, per_second)
        column._values, column._valid = values, valid
        return column

    @override
    def grow(self, capacity: int) -> None:
        self._values = grown(self._values, capacity)
        self._valid = grown(self._valid, capacity)

    @override
    def put(self, rows: np.ndarray, values: Values, valid: np.ndarray) -> None:
        self._values[rows] = values
        self._valid[rows] = valid

    @override
    def matches(self, kind: str, value: Any, count: int) -> np.ndarray:
        values, valid = self._values[:count], self._valid[:count]
        if kind in ORDERED:
            holds: np.ndarray = ORDERED[kind](values, self._number(value))
            return holds & valid
        one_of = np.zeros(count, np.bool_)
        for each in value:
            one_of |= values == self._number(each)
        return (one_of if kind == "in" else ~one_of) & valid

    def _number(self, value: Any) -> int | float:
        if self._per_second and isinstance(value, str | datetime):
            return round(_time(value) * self._per_second)
        if not isinstance(value, int | float | np.number | np.bool_):
            kind = "a time or a number of seconds" if self._per_second else "a number"
            raise _other_kind(kind, value)
        number: int | float = value if isinstance(value, int | float) else value.item()
        number = number * self._per_second if self._per_second else number
        is_whole = isinstance(number, int) and -(1 << 63) <= number < 1 << 63
        return number if is_whole else float(number)


class TextColumn(Column):
    """Texts or bytes: each distinct value once, and a code a row."""

    def __init__(self) -> None:
        self._codes = np.zeros(0, np.int32)
        self._code_of: dict[Any, int] = {}

    @override
    def grow(self, capacity: int) -> None:
        self._codes = grown(self._codes, capacity)

    @override
    def put(self, rows: np.ndarray, values: Values, valid: np.ndarray) -> None:
        known = self._code_of
        codes = [
            known.setdefault(value, len(known)) if has else -1
            for value, has in zip(values, valid.tolist(), strict=True)
        ]
        self._codes[rows] = codes

    @override
    def matches(self, kind: str, value: Any, count: int) -> np.ndarray:
        codes = self._codes[:count]
        wanted = value if kind in ("in", "nin") else [value]
        for each in wanted:
            if not isinstance(each, str | bytes):
                raise _other_kind("a text", each)
        if kind in ("gt", "gte", "lt", "lte"):
            return self._ordered(kind, value, codes)
        found = np.array([self._code_of.get(each, -2) for each in wanted], np.int32)
        one_of = codes == found[0] if len(found) == 1 else np.isin(codes, found)
        return one_of if kind in ("eq", "in") else ~one_of & (codes >= 0)

    def _ordered(self, kind: str, value: str | bytes, codes: np.ndarray) -> np.ndarray:
        compare = ORDERED[kind]
        if any(type(known) is not type(value) for known in self._code_of):
            raise _other_kind("of the feature's own type", value)
        holds = [compare(known, value) for known in tuple(self._code_of)]
        mask: np.ndarray = np.array([*holds, False])[codes]  # a row without a value has the code -1
        return mask


def grown(array: np.ndarray, capacity: int) -> np.ndarray:
    """A longer array that begins alike; zeros follow."""
    output = np.zeros((capacity, *array.shape[1:]), array.dtype)
    output[: len(array)] = array
    return output


def _time(value: str | datetime) -> float:
    """Seconds since 1970; a time without a zone is in UTC, as Feast has it."""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError as error:
        raise _other_kind("a time, such as 2026-03-01T12:00:00Z", value) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _other_kind(kind: str, value: Any) -> QueryError:
    return QueryError(
        f"A filter compares a feature with {kind}",
        detail=f"{value!r:.60} ({type(value).__name__})",
        hint="give the value in the type of the feature",
    )
