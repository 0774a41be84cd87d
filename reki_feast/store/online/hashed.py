"""Feast's layout: one hash an entity, one field a feature, one more for each view's event time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from feast.infra.online_stores.helpers import _mmh3

from .commands import Argument, command, joined
from .rows import Rows
from .values import nanoseconds


class HashLayout:
    """How a view's rows stand in Redis, as the stock store writes and reads them."""

    def __init__(self, project: str, view: str, ttl: int | None = None) -> None:
        """Of one view.

        Args:
            project: the Feast project.
            view: the view's name, with its version where Feast adds one.
            ttl: seconds after which Redis drops an entity; None for never.
        """
        self._project = project.encode()
        self._view = view
        self._ttl = ttl
        self._stamp = f"_ts:{view}".encode()

    @property
    def replies(self) -> int:
        """How many replies the writing of one row has."""
        return 2 if self._ttl else 1

    def ask_times(self, rows: Rows) -> pa.BinaryArray:
        """Commands that ask for the event times stored, one a row."""
        return command(b"HGET", self._keys(rows), self._stamp)

    def times(self, replies: Sequence[Any]) -> np.ndarray:
        """The event times in those replies: (n,) int64 nanoseconds, 0 where there is none."""
        return nanoseconds(replies)

    def write(self, rows: Rows) -> pa.BinaryArray:
        """Commands that write the rows."""
        keys = self._keys(rows)
        fields: list[Argument] = [self._stamp, rows.stamps]
        for feature, values in rows.values.items():
            fields += [_mmh3(f"{self._view}:{feature}"), values]
        writing = command(b"HSET", keys, *fields)
        if not self._ttl:
            return writing
        return joined([writing, command(b"EXPIRE", keys, str(self._ttl).encode())])

    def _keys(self, rows: Rows) -> pa.BinaryArray:
        return joined([rows.entities, self._project])
