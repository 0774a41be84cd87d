"""The two times that every row of knowledge has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Timestamps:
    """The times of rows; both have a time zone.

    Attributes:
        event: the as-of time, from which the rows hold (``event_timestamp``).
        created: when they are made (``created_timestamp``).
    """

    event: datetime
    created: datetime

    def columns(self) -> dict[str, datetime]:
        """The times by column."""
        return {"event_timestamp": self.event, "created_timestamp": self.created}
