"""Rows in memory: vectors in one float32 matrix, and what they are filtered by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np

from .columns import Column, Values, grown

_FIRST_CAPACITY = 1024


@dataclass(frozen=True)
class Rows:
    """n rows to be stored.

    Attributes:
        keys: of the rows.
        vectors: (n, d) float32, all finite.
        times: (n,) int64, event times in nanoseconds since 1970.
        columns: by name, n values and their (n,) validity mask.
    """

    keys: Sequence[bytes]
    vectors: np.ndarray
    times: np.ndarray
    columns: Mapping[str, tuple[Values, np.ndarray]] = field(default_factory=dict)


class Snapshot(NamedTuple):
    """Arrays of the first rows. Rows may change while they are read: results are rescored.

    Attributes:
        vectors: (n, d) float32.
        squares: (n,) float32, each vector's product with itself.
        times: (n,) int64.
        alive: (n,) mask of rows in use.
        holes: how many are not.
        longest: length of the longest vector.
    """

    vectors: np.ndarray
    squares: np.ndarray
    times: np.ndarray
    alive: np.ndarray
    holes: int
    longest: float


class VectorTable:
    """Rows by their keys; a row's number stays as long as its key is stored.

    Attributes:
        lock: held while rows change.
        columns: what rows may be filtered by.
    """

    def __init__(self, width: int) -> None:
        """Empty; ``width`` is how many numbers a vector has."""
        self.lock = Lock()
        self.columns: dict[str, Column] = {}
        self.width = width
        self._rows: dict[bytes, int] = {}
        self._keys: list[bytes | None] = []
        self._free: list[int] = []
        self._vectors = np.zeros((0, width), np.float32)
        self._squares = np.zeros(0, np.float32)
        self._times = np.zeros(0, np.int64)
        self._alive = np.zeros(0, np.bool_)
        self._longest = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def extent(self) -> int:
        """One more than the largest row number."""
        return len(self._keys)

    def keys(self) -> list[bytes]:
        """The keys of all rows."""
        with self.lock:
            return list(self._rows)

    def add_column(self, name: str, column: Column) -> None:
        """Add an empty column."""
        with self.lock:
            column.grow(len(self._alive))
            self.columns[name] = column

    def put(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Store rows, in place of those of the same keys.

        Returns:
            (n,) row numbers, and the (n,) mask of those whose vector is another than before.
        """
        with self.lock:
            numbers = np.fromiter(map(self._number, rows.keys), np.int64, len(rows.keys))
            self._grow(self.extent)
            changed = (self._vectors[numbers] != rows.vectors).any(1) | ~self._alive[numbers]
            self._vectors[numbers] = rows.vectors
            squares = np.einsum("nd,nd->n", rows.vectors, rows.vectors)
            self._squares[numbers] = squares
            self._longest = max(self._longest, float(np.sqrt(squares.max(initial=0.0))))
            self._times[numbers] = rows.times
            for name, (values, valid) in rows.columns.items():
                if name in self.columns:
                    self.columns[name].put(numbers, values, valid)
            self._alive[numbers] = True
        return numbers, changed

    def put_column(
        self, name: str, keys: Sequence[bytes], values: Values, valid: np.ndarray
    ) -> None:
        """Store a column's values of those of some rows that are still stored."""
        with self.lock:
            numbers = self._numbers(keys)
            at = np.flatnonzero(numbers >= 0)
            kept = (
                values[at] if isinstance(values, np.ndarray) else [values[n] for n in at.tolist()]
            )
            self.columns[name].put(numbers[at], kept, valid[at])

    def remove(self, keys: Sequence[bytes]) -> np.ndarray:
        """Remove the rows of some keys; (m,) numbers of those that there were."""
        with self.lock:
            numbers = [number for key in keys if (number := self._rows.pop(key, -1)) >= 0]
            for number in numbers:
                self._keys[number] = None
            self._free += numbers
            self._alive[numbers] = False
            self._vectors[numbers] = 0
            self._squares[numbers] = 0
        return np.array(numbers, np.int64)

    def others(self, numbers: np.ndarray) -> list[bytes]:
        """The keys of all rows but some."""
        with self.lock:
            rest = self._alive[: self.extent].copy()
            rest[numbers] = False
            return [key for n in np.flatnonzero(rest) if (key := self._keys[n]) is not None]

    def snapshot(self) -> Snapshot:
        """The arrays as they are."""
        with self.lock:
            extent = self.extent
            return Snapshot(
                self._vectors[:extent],
                self._squares[:extent],
                self._times[:extent],
                self._alive[:extent],
                extent - len(self._rows),
                self._longest,
            )

    def alive(self) -> np.ndarray:
        """The numbers of all rows, in their order."""
        with self.lock:
            return np.flatnonzero(self._alive[: self.extent])

    def numbers(self, keys: Sequence[bytes]) -> np.ndarray:
        """(n,) row numbers of some keys; -1 for one that is not stored."""
        with self.lock:
            return self._numbers(keys)

    def of_numbers(self, numbers: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """Keys and vectors of some rows; empty and zeros for -1 and for rows that are gone."""
        with self.lock:
            gone = numbers < 0
            vectors = self._vectors[np.where(gone, 0, numbers)]
            vectors[gone] = 0
            keys = [self._keys[n] or b"" if n >= 0 else b"" for n in numbers.tolist()]
        return keys, vectors

    def taken(self, numbers: np.ndarray) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """Keys, vectors and row numbers of those rows that are stored now; copies."""
        with self.lock:
            stored = numbers[self._alive[numbers]]
            keys = [self._keys[n] for n in stored.tolist()]
            return [key for key in keys if key is not None], self._vectors[stored], stored

    def _numbers(self, keys: Sequence[bytes]) -> np.ndarray:
        return np.fromiter((self._rows.get(key, -1) for key in keys), np.int64, len(keys))

    def _number(self, key: bytes) -> int:
        number = self._rows.get(key)
        if number is None:
            number = self._free.pop() if self._free else len(self._keys)
            if number == len(self._keys):
                self._keys.append(key)
            self._keys[number] = key
            self._rows[key] = number
        return number

    def _grow(self, extent: int) -> None:
        if extent <= len(self._alive):
            return
        capacity = max(_FIRST_CAPACITY, extent + extent // 4)
        self._vectors = grown(self._vectors, capacity)
        self._squares = grown(self._squares, capacity)
        self._times = grown(self._times, capacity)
        self._alive = grown(self._alive, capacity)
        for column in self.columns.values():
            column.grow(capacity)
